#include "layers/kd_dropout.h"

#include <string.h>

int kd_dropout_active(const kd_dropout *dropout, float p) { return dropout->on && p > 0; }

void kd_dropout_row(const kd_kernels *kernels, float *y, const float *x, const kd_dropout *dropout, int tensor,
                    ptrdiff_t token, ptrdiff_t first, ptrdiff_t n, float p)
{
    if (!kd_dropout_active(dropout, p)) {
        if (y != x)
            memcpy(y, x, (size_t)n * sizeof(float));
        return;
    }
    kd_random_row row = {dropout->seed, dropout->step, (uint32_t)tensor, dropout->place + (uint32_t)token};
    kernels->dropout(y, x, &row, first, n, p);
}

void kd_dropout_rows(const kd_kernels *kernels, float *y, const float *x, const kd_dropout *dropout, int tensor,
                     ptrdiff_t token, ptrdiff_t M, ptrdiff_t n, float p)
{
    for (ptrdiff_t r = 0; r < M; r++)
        kd_dropout_row(kernels, y + r * n, x + r * n, dropout, tensor, token + r, 0, n, p);
}
