#include "model/kd_span.h"

#include <string.h>

kd_span kd_span_of(const kd_batch *batch, const kd_dropout *dropout, ptrdiff_t b0, ptrdiff_t b1, int picked)
{
    const ptrdiff_t t0 = (ptrdiff_t)batch->starts[b0], N = (ptrdiff_t)batch->starts[b1] - t0;
    return (kd_span){batch, dropout, b0, b1, t0, N, picked ? b1 - b0 : N, picked};
}

void kd_span_drop(const kd_kernels *kernels, float *y, const float *x, int tensor, const kd_span *span, ptrdiff_t n,
                  float p)
{
    if (!span->picked) {
        kd_dropout_rows(kernels, y, x, span->dropout, tensor, span->t0, span->M, n, p);
        return;
    }
    for (ptrdiff_t b = span->b0; b < span->b1; b++)
        kd_dropout_row(kernels, y + (b - span->b0) * n, x + (b - span->b0) * n, span->dropout, tensor,
                       (ptrdiff_t)span->batch->starts[b], 0, n, p);
}

void kd_span_gather(float *picked, const float *x, const kd_span *span, ptrdiff_t C)
{
    for (ptrdiff_t b = span->b0; b < span->b1; b++)
        memcpy(picked + (b - span->b0) * C, x + ((ptrdiff_t)span->batch->starts[b] - span->t0) * C,
               (size_t)C * sizeof(float));
}

void kd_span_scatter(const kd_kernels *kernels, float *x, const float *picked, const kd_span *span, ptrdiff_t C)
{
    for (ptrdiff_t b = span->b0; b < span->b1; b++)
        kernels->add(x + ((ptrdiff_t)span->batch->starts[b] - span->t0) * C, picked + (b - span->b0) * C, C);
}
