/* The last layer's attention for [CLS] alone, with the keys' and values' weights absorbed (see kd_attention.h):
 * no token but [CLS] is multiplied by any weight of the last layer. */
#include "model/kd_bert_run.h"

#include <string.h>

/* Sequence b of the span: its tokens, and its row in the arrays of the span. */
typedef struct sequence {
    ptrdiff_t token, n, row;
} sequence;

static sequence sequence_of(const kd_bert_run *run, const kd_span *span, ptrdiff_t b)
{
    ptrdiff_t token = (ptrdiff_t)run->batch.starts[b];
    return (sequence){token, (ptrdiff_t)run->batch.starts[b + 1] - token, b - span->b0};
}

void kd_cls_attend(const kd_bert_run *run, const kd_layer_map *view, const kd_cls_map *cls, const kd_layer_weights *w,
                   const float *x_cls, const kd_span *span, int member)
{
    const kd_arithmetic *math = &run->model->arithmetic;
    const ptrdiff_t L = run->model->config.L, C = run->model->config.C, H = run->model->config.H, D = C / H;
    kd_attention attention = kd_bert_attention(run, L - 1);
    kd_linear_forward(math, view->q, x_cls, &w->query, span->M);
    kd_linear_heads_backward(math, cls->u, view->q, &w->key, span->M, H);
    for (ptrdiff_t b = span->b0; b < span->b1; b++) {
        sequence s = sequence_of(run, span, b);
        float *total = cls->total + s.row * H, *ctx = view->ctx + s.row * C;
        kd_attention_absorbed_forward(math->kernels, cls->z + s.row * H * C, total, view->lse + s.row * H,
                                      cls->u + s.row * H * C, view->x + (s.token - span->t0) * C, &attention, s.token,
                                      s.n, run->members[member].attention);
        memset(ctx, 0, (size_t)C * sizeof(float));
        for (ptrdiff_t head = 0; head < H; head++)
            math->kernels->add_scaled(ctx + head * D, w->value.bias + head * D, total[head], D);
    }
    kd_linear_heads_forward(math, view->ctx, cls->z, &w->value, span->M, H);
}

void kd_cls_attend_backward(const kd_bert_run *run, const kd_layer_map *view, const kd_cls_map *cls,
                            const kd_layer_weights *w, float *dx, const kd_span *span, float *partial, int member)
{
    const kd_arithmetic *math = &run->model->arithmetic;
    const ptrdiff_t L = run->model->config.L, C = run->model->config.C, H = run->model->config.H, D = C / H;
    float *sums = partial + (L - 1) * run->model->layout.vector_stride;
    float *dbias = sums + run->model->layout.vector[KD_TENSOR_value_bias], *dz = run->members[member].dz;
    kd_attention attention = kd_bert_attention(run, L - 1);
    kd_linear_heads_backward(math, dz, cls->dctx, &w->value, span->M, H);
    for (ptrdiff_t b = span->b0; b < span->b1; b++) {
        sequence s = sequence_of(run, span, b);
        const float *dctx = cls->dctx + s.row * C;
        kd_attention_absorbed_backward(math->kernels, view->x + (s.token - span->t0) * C, cls->u + s.row * H * C,
                                       dz + s.row * H * C, dctx, view->ctx + s.row * C, view->lse + s.row * H,
                                       w->value.bias, &attention, s.token, s.n, run->members[member].attention);
        for (ptrdiff_t head = 0; head < H; head++)
            math->kernels->add_scaled(dbias + head * D, dctx + head * D, cls->total[s.row * H + head], D);
    }
    memset(cls->dq, 0, (size_t)(span->M * C) * sizeof(float));
    kd_linear_heads_forward(math, cls->dq, cls->u, &w->key, span->M, H);
    kd_bias_backward(run, sums, KD_TENSOR_query_bias, cls->dq, span->M, C);
    kd_linear_backward_input(math, dx, cls->dq, &w->query, span->M, 1);
}
