/* kd_input: from token ids to the first layer's input: the embeddings' sum, its LayerNorm and dropout, and where the
 * tables are narrower than the encoder (Lan et al., arXiv:1909.11942) the product that widens them. */
#ifndef KD_INPUT_H
#define KD_INPUT_H

#include "model/kd_map.h"

/* x (N, C) of the span's tokens. */
void kd_input_forward(const kd_run *run, float *x, const kd_span *span, int member);

/* From dx (N, C), which is changed: embedding_sum becomes its own gradient; vector gradients are added to `partial`. */
void kd_input_backward(const kd_run *run, float *dx, const kd_span *span, float *partial, int member);

#endif
