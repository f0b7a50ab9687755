#include "layers/kd_activation.h"

void kd_activation_forward(float *y, float *slope, const void *x, const kd_linear *up, ptrdiff_t M, kd_activation act)
{
    kd_product product = kd_linear_product(up, y, x, M);
    product.finish = KD_FINISH_ACTIVATE;
    product.activation = act;
    product.slope = slope;
    up->engine->product(&product);
}

const void *kd_activation_operand(float *y, void *next, const void *x, const kd_linear *up, ptrdiff_t M,
                                  kd_activation act)
{
    kd_product product = kd_linear_product(up, y, x, M);
    product.finish = KD_FINISH_ACTIVATE;
    product.activation = act;
    product.next = up->engine->convert ? next : NULL;
    up->engine->product(&product);
    return up->engine->convert ? next : y;
}

void kd_activation_backward(float *slope, float *dact, const void *dy, const kd_linear *down, ptrdiff_t M)
{
    kd_product product = kd_linear_product_back(down, dact, dy, M);
    product.finish = KD_FINISH_SCALE_SLOPE;
    product.slope = slope;
    down->engine->product(&product);
}
