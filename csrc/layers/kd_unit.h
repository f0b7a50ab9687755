/* kd_unit: rows divided by their length, as sentence embeddings are: y = x / max(|x|, 1e-12), like
 * torch.nn.functional.normalize, which sentence-transformers' Normalize calls. */
#ifndef KD_UNIT_H
#define KD_UNIT_H

#include "ground/kd_base.h"

/* y (M, C) from x (M, C). */
void kd_unit_forward(float *y, const float *x, ptrdiff_t M, ptrdiff_t C);

/* dx (M, C) from dy (M, C) and x (M, C), the input of forward. dx may be dy. */
void kd_unit_backward(float *dx, const float *dy, const float *x, ptrdiff_t M, ptrdiff_t C);

#endif
