/* kd_adamw: AdamW (Loshchilov, Hutter, arXiv:1711.05101, algorithm 2), as torch.optim.AdamW computes it:
 *
 *   p -= lr wd p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
 *
 * an exponential moving average of p after each step (Polyak, Juditsky, SIAM J. Control 30 (1992), with
 * a decay), and the sums that clipping by the global norm needs. Work is cut into blocks of fixed size, so sums
 * do not depend on the number of threads.
 *
 * Nine tenths of a small BERT are word embeddings, and a step has gradients for a few hundred rows of
 * them. A row without a gradient is left alone; before it is next read, the steps it missed are done
 * one after the other with g = 0 and the constants of those steps. That is the same arithmetic as doing
 * them in time, so the same bits (see adamw_replay in kd_kernels.h for the one exception), and not "lazy
 * Adam", which leaves them out. The average of such a row takes in every one of these steps too.
 */
#ifndef KD_ADAMW_H
#define KD_ADAMW_H

#include "ground/kd_pool.h"
#include "arithmetic/kd_kernels.h"

/* A tensor's place in the flat arrays. Segments are in order. */
typedef struct kd_segment {
    ptrdiff_t offset, size;
    int decay; /* weight decay applies */
} kd_segment;

typedef struct kd_adamw {
    float *p, *m, *v;
    const float *g;
    const kd_segment *segments;
    ptrdiff_t count;
    kd_adamw_step step; /* its decay is for segments that decay */
    float *average;     /* like p, or NULL */
} kd_adamw;

/* A table whose rows get the steps they have missed only when they are next needed. */
typedef struct kd_deferred {
    float *p, *m, *v;             /* (V, C) */
    const float *g;               /* (V, C), read for rows with a gradient only */
    int32_t *done;                /* (V) steps each row has had */
    const kd_adamw_step *history; /* of steps base + 1 .. t */
    ptrdiff_t base, t;
    ptrdiff_t C;
    float *average; /* (V, C), or NULL */
} kd_deferred;

/* Returns the constants of step t, which t - 1 steps precede; its share is 0. */
kd_adamw_step kd_adamw_constants(double lr, double beta1, double beta2, double eps, double weight_decay, double t);

/* Does one step on all segments. */
void kd_adamw_update(const kd_kernels *kernels, const kd_adamw *adamw, kd_team *team);

/* Brings the rows ids (n), all different, up to step t. */
void kd_deferred_catch_up(const kd_kernels *kernels, const kd_deferred *table, const int32_t *ids, ptrdiff_t n,
                          kd_team *team);

/* Brings the same rows up to step t - 1 and does step t with their gradients. */
void kd_deferred_update(const kd_kernels *kernels, const kd_deferred *table, const int32_t *ids, ptrdiff_t n,
                        kd_team *team);

/* Writes to `behind` (room for n) which of ids (n) miss a step, each once; returns how many. */
ptrdiff_t kd_deferred_behind(const kd_deferred *table, int32_t *behind, const int32_t *ids, ptrdiff_t n);

/* A gradient array: a table (V, C) that is zero but for the rows `ids` (n of them), and behind it the gradients of all
 * other tensors, dense_size floats. */
typedef struct kd_gradient {
    float *table, *dense;
    const int32_t *ids;
    ptrdiff_t n, C, dense_size;
} kd_gradient;

/* Returns the sum of squares, of at most 1024 numbers each in float32 and of these in double: not finite for a number
 * whose square float32 cannot hold. `partial` has kd_gradient_blocks doubles of scratch. */
double kd_gradient_sum_squares(const kd_kernels *kernels, const kd_gradient *g, double *partial, kd_team *team);
ptrdiff_t kd_gradient_blocks(const kd_gradient *g);

/* All gradients *= a; a = 0 clears them, whatever they are. */
void kd_gradient_scale(const kd_kernels *kernels, const kd_gradient *g, float a, kd_team *team);

#endif
