#include "layers/kd_activation.h"

void kd_activation_forward(const kd_arithmetic *math, float *y, float *slope, const float *x, const kd_linear *up,
                           ptrdiff_t M, kd_activation act)
{
    kd_product product = kd_linear_product(up, y, x, M);
    product.finish = KD_FINISH_ACTIVATE;
    product.activation = act;
    product.slope = slope;
    math->engine.product(&product);
}

void kd_activation_backward(const kd_arithmetic *math, float *slope, float *dact, const float *dy,
                            const kd_linear *down, ptrdiff_t M)
{
    kd_product product = kd_linear_product_back(down, dact, dy, M);
    product.finish = KD_FINISH_SCALE_SLOPE;
    product.slope = slope;
    math->engine.product(&product);
}
