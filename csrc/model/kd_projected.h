/* kd_projected: queries, keys and values of all rows of a last layer that is computed for the picked rows otherwise. What a
 * loss reads there (MiniLMv2's relations) is a product of the layer's input, so nothing that follows it is computed for the
 * other rows. Their taps are the only place where they lie. */
#ifndef KD_PROJECTED_H
#define KD_PROJECTED_H

#include "model/kd_map.h"

/* From the layer's input x (N, C) to the taps' rows of the span; training keeps x. */
void kd_projected_forward(const kd_run *run, const float *x, const kd_span *span, int member);

/* dx (N, C) += the gradient of x through the taps. Vector gradients are added to `partial`. */
void kd_projected_backward(const kd_run *run, float *dx, const kd_span *span, float *partial, int member);

/* The gradient (N, A) of all tokens' product with a weight of the last layer, or NULL: x of that product is run->last_x. */
const float *kd_projected_gradient(const kd_run *run, kd_slot weight);

#endif
