/* kd_activation: gelu (exact), gelu_new (by tanh), relu, tanh, silu or quick_gelu, applied to the tiles of the product
 * before it, forward and backward, while they are in L1. */
#ifndef KD_ACTIVATION_H
#define KD_ACTIVATION_H

#include "layers/kd_linear.h"

/* y (M, F) = act(x W^T + b) for x (M, C) and the product `up`; slope (M, F) = act' at the same places, or
 * NULL when no backward follows. */
void kd_activation_forward(const kd_arithmetic *math, float *y, float *slope, const float *x, const kd_linear *up,
                           ptrdiff_t M, kd_activation act);

/* slope (M, F) becomes the gradient of `up`'s output: slope * (dy W) for dy (M, C) and the product `down`
 * that follows the activation. dact (M, F) is scratch. */
void kd_activation_backward(const kd_arithmetic *math, float *slope, float *dact, const float *dy,
                            const kd_linear *down, ptrdiff_t M);

#endif
