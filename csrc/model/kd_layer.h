/* kd_layer: one encoder layer, forward and backward, on the rows of one span, by one thread or, forward, by run->team. */
#ifndef KD_LAYER_H
#define KD_LAYER_H

#include "model/kd_map.h"

/* The layer's attention, for all tokens of the span: returns ctx as the output product's left operand. */
const void *kd_layer_attend(const kd_run *run, const kd_layer_map *view, ptrdiff_t layer, const kd_span *span,
                            int member);

/* From such a ctx to the layer's output, for the span's rows. `x` is their input (the residual). */
void kd_layer_output(const kd_run *run, const kd_layer_map *view, const float *x, const void *ctx, ptrdiff_t layer,
                     const kd_span *span, int member);

/* The same backwards: dx (M, C) holds dy and becomes the residual's gradient, dctx (M, A) is written. Here and below,
 * vector gradients are added to `partial`. */
void kd_layer_output_backward(const kd_run *run, const kd_layer_map *view, float *dctx, float *dx, ptrdiff_t layer,
                              const kd_span *span, float *partial, int member);

/* dx (N, C) += the gradient of x through queries, keys and values. */
void kd_layer_attend_backward(const kd_run *run, const kd_layer_map *view, const float *dctx, float *dx,
                              ptrdiff_t layer, const kd_span *span, float *partial, int member);

/* Adds the column sums of dy (M, O) to a bias's place in `partial`. */
void kd_layer_bias_backward(const kd_run *run, float *partial, kd_slot bias, ptrdiff_t layer, const float *dy,
                            ptrdiff_t M, ptrdiff_t O);

#endif
