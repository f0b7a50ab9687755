/* kd_norm: LayerNorm over the last dimension (Ba, Kiros, Hinton, arXiv:1607.06450). */
#ifndef KD_NORM_H
#define KD_NORM_H

#include "arithmetic/kd_kernels.h"

typedef struct kd_norm {
    const float *gamma, *beta; /* (C) */
    ptrdiff_t C;
    float eps;
} kd_norm;

/* x (M, C) += residual (M, C) unless that is NULL; y (M, C) and stats (M, 2) = {mean, rstd} from the
 * sum. y may be x when no backward follows. One pass less over the rows than adding first. */
void kd_norm_forward(const kd_kernels *kernels, float *y, float *stats, float *x, const float *residual,
                     const kd_norm *norm, ptrdiff_t M);

/* dx (M, C) =, dgamma (C) +=, dbeta (C) +=. dx may be x or dy. */
void kd_norm_backward(const kd_kernels *kernels, float *dx, float *dgamma, float *dbeta, const float *dy,
                      const float *x, const float *stats, const kd_norm *norm, ptrdiff_t M);

#endif
