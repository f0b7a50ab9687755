/* kd_relative: what a score gets for the distance of its key from its query (Raffel et al., arXiv:1910.10683, section
 * 2.1; Song et al., arXiv:2004.09297). A table (R, H) has a number for each head and each of R buckets of distances.
 *
 * Of R / 2 buckets of one direction, half hold one distance each, from 0 on; the others hold ranges whose bounds grow by
 * one factor up to `distance`, from which on all distances are in the last. Keys behind the query have the second R / 2.
 *
 * Attention reads the numbers by distance, spread (H, 2 n - 1): of the key at the query's place i + d at n - 1 + d, for
 * sequences of at most n tokens. It adds them before it multiplies by 1 / sqrt(D), so they are spread times sqrt(D).
 */
#ifndef KD_RELATIVE_H
#define KD_RELATIVE_H

#include "ground/kd_base.h"

/* The bucket of a key `offset` places behind its query, as in transformers' relative_position_bucket; R >= 4, distance >
 * R / 4. */
ptrdiff_t kd_relative_bucket(ptrdiff_t offset, ptrdiff_t R, ptrdiff_t distance);

/* spread (H, 2 n - 1) = scale * the table's (R, H) numbers. */
void kd_relative_spread(float *spread, const float *table, ptrdiff_t n, ptrdiff_t H, ptrdiff_t R, ptrdiff_t distance,
                        float scale);

/* dtable (R, H) += scale * dspread (H, 2 n - 1), summed by buckets. */
void kd_relative_gather(float *dtable, const float *dspread, ptrdiff_t n, ptrdiff_t H, ptrdiff_t R, ptrdiff_t distance,
                        float scale);

#endif
