/* kd_attention: scaled dot-product attention of one sequence (Vaswani et al., arXiv:1706.03762, eq. 1).
 *
 * For each head:  S = Q K^T / sqrt(D) + b,  P = softmax(S),  ctx = dropout(P) V,  where b is 0 or depends on the distance
 * of key and query (see kd_relative.h).
 * A sequence attends to itself only; there is no mask because there is no padding.
 *
 * Where there is one query only, as in a last layer computed for [CLS], keys and values need not exist: with K = x Wk^T + bk
 * and V = x Wv^T + bv,
 *     q K^T = (q Wk) x^T + q bk,  and the softmax does not see the constant;
 *     Pd V  = (Pd x) Wv^T + (sum of Pd) bv.
 * The weights are absorbed on the query's side: u = q Wk and z = Pd x cost a query, not every token, two products.
 */
#ifndef KD_ATTENTION_H
#define KD_ATTENTION_H

#include "arithmetic/kd_engine.h"
#include "layers/kd_dropout.h"

/* What all sequences of a layer share. */
typedef struct kd_attention {
    ptrdiff_t H, D;            /* rows of q, k, v and ctx are A = H * D apart */
    ptrdiff_t C;               /* width of the input x, which the absorbed functions read */
    const kd_dropout *dropout; /* of the probabilities */
    int tensor;                /* their name, see kd_dropout.h */
    ptrdiff_t features;        /* feature of (head, key) is head * features + key */
    float p;                   /* dropout rate */
    const float *spread;       /* (RH, 2 longest - 1) b sqrt(D) by distance, see kd_relative.h; NULL: b = 0 */
    float *dspread;            /* like it, its gradient, which backward adds to; NULL with spread */
    const int32_t *columns;    /* (H) which of the RH a head reads; NULL: they are H, in order */
    ptrdiff_t longest;         /* tokens of the longest sequence that spread is for */
} kd_attention;

/* Returns the floats of scratch that forward and backward need for sequences of at most `longest` tokens. */
ptrdiff_t kd_attention_scratch(const kd_attention *attention, ptrdiff_t longest);

/* Heads from .. to - 1 of ctx (n, A) and lse (n, H) from q, k and v (n, A), and unless it is NULL of scores (H, n, n) = S.
 * `token` is the first token's place in the batch. lse = log sum exp S is what backward needs to form P again. */
void kd_attention_forward(const kd_kernels *kernels, float *ctx, float *lse, float *scores, const float *q,
                          const float *k, const float *v, const kd_attention *attention, ptrdiff_t from, ptrdiff_t to,
                          ptrdiff_t token, ptrdiff_t n, float *scratch);

/* The same in an evaluation by an engine that has attention: ctx, q, k and v are left operands (.., A) of it, of which
 * rows first .. first + n - 1 are the sequence's. scratch has engine->attend_bytes bytes. */
void kd_attention_evaluate(const kd_engine *engine, void *ctx, float *scores, const void *q, const void *k,
                           const void *v, const kd_attention *attention, ptrdiff_t from, ptrdiff_t to, ptrdiff_t first,
                           ptrdiff_t n, void *scratch);

/* dq, dk and dv (n, A) from dctx (n, A), dscores (H, n, n) and the forward's ctx, lse, q, k, v. In place: dq overwrites
 * q, dk overwrites k, dv overwrites v. dscores is what else adds to the gradient of S, or NULL. */
void kd_attention_backward(const kd_kernels *kernels, float *q, float *k, float *v, const float *dctx,
                           const float *dscores, const float *ctx, const float *lse, const kd_attention *attention,
                           ptrdiff_t token, ptrdiff_t n, float *scratch);

/* Floats of scratch of the two functions below, for sequences of at most `longest` tokens. */
ptrdiff_t kd_attention_absorbed_scratch(const kd_attention *attention, ptrdiff_t longest);

/* One query with the weights absorbed. Heads from .. to - 1 of z (H, C), total (H) = the sum of Pd and lse (H) from u (H,
 * C) and x (n, C). */
void kd_attention_absorbed_forward(const kd_kernels *kernels, float *z, float *total, float *lse, const float *u,
                                   const float *x, const kd_attention *attention, ptrdiff_t from, ptrdiff_t to,
                                   ptrdiff_t token, ptrdiff_t n, float *scratch);

/* In place: x becomes its gradient through keys and values, u its own. dz (H, C) is dctx Wv by heads; dctx, ctx and
 * value_bias are (A). */
void kd_attention_absorbed_backward(const kd_kernels *kernels, float *x, float *u, const float *dz, const float *dctx,
                                    const float *ctx, const float *lse, const float *value_bias,
                                    const kd_attention *attention, ptrdiff_t token, ptrdiff_t n, float *scratch);

#endif
