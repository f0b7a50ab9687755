/* kd_gelu: the feed-forward's activation: gelu (exact), gelu_new (tanh) or relu. */
#ifndef KD_GELU_H
#define KD_GELU_H

#include "kd_rows.h"

/* y (n) = act(x); y may be x when no backward follows. */
void kd_gelu_forward(const kd_rows *rows, float *y, const float *x, ptrdiff_t n, kd_activation act);

/* dx (n) = dy * act'(x); dx may be x or dy. */
void kd_gelu_backward(const kd_rows *rows, float *dx, const float *dy, const float *x, ptrdiff_t n, kd_activation act);

#endif
