/* kd_activation: gelu (exact), gelu_new (by tanh), relu, tanh, silu or quick_gelu, applied to the tiles of the product
 * before it, forward and backward, while they are in L1. */
#ifndef KD_ACTIVATION_H
#define KD_ACTIVATION_H

#include "layers/kd_linear.h"

/* y (M, F) = act(x W^T + b) for an operand x (M, C) and the product `up`; slope (M, F) = act' at the same places, or NULL
 * when no backward follows. */
void kd_activation_forward(float *y, float *slope, const void *x, const kd_linear *up, ptrdiff_t M, kd_activation act);

/* The product of that, without slope, for an evaluation that adds what follows. */
kd_product kd_activation_product(const kd_linear *up, float *y, const void *x, ptrdiff_t M, kd_activation act);

/* slope (M, F) becomes the gradient of `up`'s output: slope * (dy W) for an operand dy (M, C) and the product `down`
 * that follows the activation. dact (M, F) is scratch. */
void kd_activation_backward(float *slope, float *dact, const void *dy, const kd_linear *down, ptrdiff_t M);

#endif
