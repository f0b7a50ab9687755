/* kd_span: the rows one item works on: the tokens of some sequences, one row of each, or tokens of a list. */
#ifndef KD_SPAN_H
#define KD_SPAN_H

#include "layers/kd_dropout.h"
#include "layers/kd_embed.h"

typedef struct kd_span {
    const kd_batch *batch;
    const kd_dropout *dropout;
    ptrdiff_t b0, b1;      /* sequences b0 .. b1 - 1 */
    ptrdiff_t t0, N;       /* their first token, number of tokens */
    ptrdiff_t M;           /* rows: N, b1 - b0 when picked, or as many as are listed */
    ptrdiff_t r0;          /* the first of them among the batch's rows of this kind: t0, b0, or its place in the list */
    int picked;            /* rows are the sequences' first tokens, or those listed; not all tokens */
    const int64_t *listed; /* (M) tokens of the batch, ascending; NULL: none are */
} kd_span;

kd_span kd_span_of(const kd_batch *batch, const kd_dropout *dropout, ptrdiff_t b0, ptrdiff_t b1, int picked);

/* The tokens t0 .. t0 + N - 1 of which rows r0 .. r0 + M - 1 of a list are picked, listed[r0] the first. */
kd_span kd_span_listed(const kd_batch *batch, const kd_dropout *dropout, ptrdiff_t t0, ptrdiff_t N,
                       const int64_t *listed, ptrdiff_t r0, ptrdiff_t M);

/* y (M, n) = dropout of x (M, n), the span's rows of `tensor` (see kd_dropout.h). y may be x. */
void kd_span_drop(const kd_kernels *kernels, float *y, const float *x, int tensor, const kd_span *span, ptrdiff_t n,
                  float p);

/* picked (M, C) = the span's rows of x (N, C). */
void kd_span_gather(float *picked, const float *x, const kd_span *span, ptrdiff_t C);

/* Those rows of x (N, C) += picked (M, C). */
void kd_span_scatter(const kd_kernels *kernels, float *x, const float *picked, const kd_span *span, ptrdiff_t C);

/* mean (b1 - b0, C) = the mean of each sequence's rows of x (N, C); and dx (N, C) += its gradient, from that of the
 * means: dmean (b1 - b0, C). */
void kd_span_mean(const kd_kernels *kernels, float *mean, const float *x, const kd_span *span, ptrdiff_t C);
void kd_span_mean_backward(const kd_kernels *kernels, float *dx, const float *dmean, const kd_span *span, ptrdiff_t C);

#endif
