#include "model/kd_span.h"

#include <string.h>

kd_span kd_span_of(const kd_batch *batch, const kd_dropout *dropout, ptrdiff_t b0, ptrdiff_t b1, int picked)
{
    const ptrdiff_t t0 = (ptrdiff_t)batch->starts[b0], N = (ptrdiff_t)batch->starts[b1] - t0;
    return (kd_span){batch, dropout, b0, b1, t0, N, picked ? b1 - b0 : N, picked ? b0 : t0, picked, NULL};
}

kd_span kd_span_listed(const kd_batch *batch, const kd_dropout *dropout, ptrdiff_t t0, ptrdiff_t N,
                       const int64_t *listed, ptrdiff_t r0, ptrdiff_t M)
{
    return (kd_span){
        .batch = batch, .dropout = dropout, .t0 = t0, .N = N, .M = M, .r0 = r0, .picked = 1, .listed = listed + r0};
}

/* The token of a row of a picked span. */
static ptrdiff_t token_of(const kd_span *span, ptrdiff_t row)
{
    return (ptrdiff_t)(span->listed ? span->listed[row] : span->batch->starts[span->b0 + row]);
}

void kd_span_drop(const kd_kernels *kernels, float *y, const float *x, int tensor, const kd_span *span, ptrdiff_t n,
                  float p)
{
    if (!span->picked) {
        kd_dropout_rows(kernels, y, x, span->dropout, tensor, span->t0, span->M, n, p);
        return;
    }
    for (ptrdiff_t r = 0; r < span->M; r++)
        kd_dropout_row(kernels, y + r * n, x + r * n, span->dropout, tensor, token_of(span, r), 0, n, p);
}

void kd_span_gather(float *picked, const float *x, const kd_span *span, ptrdiff_t C)
{
    for (ptrdiff_t r = 0; r < span->M; r++)
        memcpy(picked + r * C, x + (token_of(span, r) - span->t0) * C, (size_t)C * sizeof(float));
}

void kd_span_scatter(const kd_kernels *kernels, float *x, const float *picked, const kd_span *span, ptrdiff_t C)
{
    for (ptrdiff_t r = 0; r < span->M; r++)
        kernels->add(x + (token_of(span, r) - span->t0) * C, picked + r * C, C);
}

void kd_span_mean(const kd_kernels *kernels, float *mean, const float *x, const kd_span *span, ptrdiff_t C)
{
    for (ptrdiff_t b = span->b0; b < span->b1; b++, mean += C) {
        const ptrdiff_t token = (ptrdiff_t)span->batch->starts[b], n = (ptrdiff_t)span->batch->starts[b + 1] - token;
        memset(mean, 0, (size_t)C * sizeof(float));
        kernels->sum_rows(mean, x + (token - span->t0) * C, n, C, C);
        kernels->scale(mean, 1 / (float)n, C);
    }
}

void kd_span_mean_backward(const kd_kernels *kernels, float *dx, const float *dmean, const kd_span *span, ptrdiff_t C)
{
    for (ptrdiff_t b = span->b0; b < span->b1; b++, dmean += C) {
        const ptrdiff_t token = (ptrdiff_t)span->batch->starts[b], n = (ptrdiff_t)span->batch->starts[b + 1] - token;
        for (ptrdiff_t t = token - span->t0; t < token - span->t0 + n; t++)
            kernels->add_scaled(dx + t * C, dmean, 1 / (float)n, C);
    }
}
