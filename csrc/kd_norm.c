#include "kd_norm.h"

void kd_norm_forward(const kd_rows *rows, float *y, float *stats, float *x, const float *residual, const kd_norm *norm,
                     ptrdiff_t M)
{
    const ptrdiff_t C = norm->C;
    for (ptrdiff_t r = 0; r < M; r++)
        rows->normalize(y + r * C, stats + r * 2, x + r * C, residual ? residual + r * C : NULL, norm->gamma,
                        norm->beta, C, norm->eps);
}

void kd_norm_backward(const kd_rows *rows, float *dx, float *dgamma, float *dbeta, const float *dy, const float *x,
                      const float *stats, const kd_norm *norm, ptrdiff_t M)
{
    const ptrdiff_t C = norm->C;
    for (ptrdiff_t r = 0; r < M; r++)
        rows->normalize_backward(dx + r * C, dgamma, dbeta, dy + r * C, x + r * C, stats + r * 2, norm->gamma, C);
}
