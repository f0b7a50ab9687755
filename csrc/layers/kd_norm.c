#include "layers/kd_norm.h"

void kd_norm_forward(const kd_kernels *kernels, float *y, float *stats, float *x, const float *residual,
                     const kd_norm *norm, ptrdiff_t M)
{
    kernels->normalize(y, stats, x, residual, norm->gamma, norm->beta, M, norm->C, norm->eps);
}

void kd_norm_backward(const kd_kernels *kernels, float *dx, float *dgamma, float *dbeta, const float *dy,
                      const float *x, const float *stats, const kd_norm *norm, ptrdiff_t M)
{
    kernels->normalize_backward(dx, dgamma, dbeta, dy, x, stats, norm->gamma, M, norm->C);
}
