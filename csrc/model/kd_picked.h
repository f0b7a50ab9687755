/* kd_picked: the last layer's attention for one row of each sequence, with the weights of keys and values absorbed by
 * the query (see kd_attention.h): no other token is multiplied by any weight of the last layer. */
#ifndef KD_PICKED_H
#define KD_PICKED_H

#include "model/kd_map.h"

/* From picked->x to ctx, returned as the output product's left operand. */
const void *kd_picked_attend(const kd_run *run, const kd_layer_map *view, const kd_picked_map *picked,
                             const kd_span *span, int member);

/* From picked->dctx: view->x becomes its gradient through keys and values, dx (M, C) += that of picked->x through the
 * query. Vector gradients are added to `partial`. */
void kd_picked_attend_backward(const kd_run *run, const kd_layer_map *view, const kd_picked_map *picked, float *dx,
                               const kd_span *span, float *partial, int member);

#endif
