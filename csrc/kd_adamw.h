/* kd_adamw: AdamW (Loshchilov, Hutter, arXiv:1711.05101, algorithm 2), as torch.optim.AdamW computes it:
 *
 *   p -= lr wd p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
 *
 * and clipping by the global norm. Work is cut into blocks of fixed size, so sums do not depend on the
 * number of threads.
 */
#ifndef KD_ADAMW_H
#define KD_ADAMW_H

#include "kd_pool.h"
#include "kd_rows.h"

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
} kd_adamw;

/* The step's constants after t - 1 earlier steps. */
kd_adamw_step kd_adamw_constants(double lr, double beta1, double beta2, double eps, double weight_decay, double t);

/* One step on all segments. */
void kd_adamw_update(const kd_rows *rows, const kd_adamw *adamw, kd_team *team);

/* Sum of squares of x (n). `partial` has kd_adamw_blocks(n) doubles of scratch. */
double kd_adamw_sum_squares(const kd_rows *rows, const float *x, ptrdiff_t n, double *partial, kd_team *team);
ptrdiff_t kd_adamw_blocks(ptrdiff_t n);

/* x (n) *= a. */
void kd_adamw_scale(const kd_rows *rows, float *x, float a, ptrdiff_t n, kd_team *team);

#endif
