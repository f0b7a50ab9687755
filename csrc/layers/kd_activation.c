#include "layers/kd_activation.h"

kd_product kd_activation_product(const kd_linear *up, float *y, const void *x, ptrdiff_t M, kd_activation act)
{
    kd_product product = kd_linear_product(up, y, x, M);
    product.finish = KD_FINISH_ACTIVATE;
    product.activation = act;
    return product;
}

void kd_activation_forward(float *y, float *slope, const void *x, const kd_linear *up, ptrdiff_t M, kd_activation act)
{
    kd_product product = kd_activation_product(up, y, x, M, act);
    product.slope = slope;
    up->engine->product(&product);
}

void kd_activation_backward(float *slope, float *dact, const void *dy, const kd_linear *down, ptrdiff_t M)
{
    kd_product product = kd_linear_product_back(down, dact, dy, M);
    product.finish = KD_FINISH_SCALE_SLOPE;
    product.slope = slope;
    down->engine->product(&product);
}
