/* kd_span: the rows one item works on: the tokens of some sequences, or one picked row of each. */
#ifndef KD_SPAN_H
#define KD_SPAN_H

#include "layers/kd_dropout.h"
#include "layers/kd_embed.h"

typedef struct kd_span {
    const kd_batch *batch;
    const kd_dropout *dropout;
    ptrdiff_t b0, b1; /* sequences b0 .. b1 - 1 */
    ptrdiff_t t0, N;  /* their first token, number of tokens */
    ptrdiff_t M;      /* rows: N, or b1 - b0 when picked */
    int picked;       /* rows are the first tokens of the sequences, not all tokens */
} kd_span;

kd_span kd_span_of(const kd_batch *batch, const kd_dropout *dropout, ptrdiff_t b0, ptrdiff_t b1, int picked);

/* y (M, n) = dropout of x (M, n), the span's rows of `tensor` (see kd_dropout.h). y may be x. */
void kd_span_drop(const kd_kernels *kernels, float *y, const float *x, int tensor, const kd_span *span, ptrdiff_t n,
                  float p);

/* picked (b1 - b0, C) = the first row of each sequence in x (N, C). */
void kd_span_gather(float *picked, const float *x, const kd_span *span, ptrdiff_t C);

/* Those rows of x (N, C) += picked (b1 - b0, C). */
void kd_span_scatter(const kd_kernels *kernels, float *x, const float *picked, const kd_span *span, ptrdiff_t C);

#endif
