/* kd_shared: steps of one item that several threads do together, in passes that have fewer items than threads.
 *
 * A product is shared out by columns, a norm by rows, attention by heads: each number is computed as it is by one thread
 * alone, so its bits are the same. Without a team (NULL) the calling thread does all of it, at once.
 */
#ifndef KD_SHARED_H
#define KD_SHARED_H

#include "ground/kd_pool.h"
#include "layers/kd_linear.h"
#include "layers/kd_norm.h"

/* `count` products of the same shape that do not need each other, each with a c of its own if the engine has whole_rows. */
void kd_shared_products(kd_team *team, const kd_engine *engine, const kd_product *products, ptrdiff_t count);

/* kd_linear_operand. */
const void *kd_shared_operand(kd_team *team, const kd_linear *layer, const float *x, ptrdiff_t M, void *scratch);

/* kd_norm_forward. */
void kd_shared_norm(kd_team *team, const kd_kernels *kernels, float *y, float *stats, float *x, const float *residual,
                    const kd_norm *norm, ptrdiff_t M);

#endif
