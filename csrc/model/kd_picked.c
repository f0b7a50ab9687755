#include "model/kd_picked.h"

#include "model/kd_shared.h"

#include <string.h>

/* Sequence b of the span: its tokens, and its row in the arrays of the span. */
typedef struct sequence {
    ptrdiff_t token, n, row;
} sequence;

static sequence sequence_of(const kd_span *span, ptrdiff_t b)
{
    ptrdiff_t token = (ptrdiff_t)span->batch->starts[b];
    return (sequence){token, (ptrdiff_t)span->batch->starts[b + 1] - token, b - span->b0};
}

/* What a thread does of the attention of the picked rows. */
typedef struct heads_work {
    const kd_run *run;
    const kd_layer_map *view;
    const kd_picked_map *picked;
    const kd_span *span;
    ptrdiff_t parts;
    int member; /* that does the item; one that shares it counts from there */
} heads_work;

/* Some of the heads. */
static void heads_part(void *context, ptrdiff_t part, int sharer)
{
    const heads_work *work = context;
    const kd_run *run = work->run;
    const kd_layer_map *view = work->view;
    const kd_picked_map *picked = work->picked;
    const kd_span *span = work->span;
    const kd_kernels *kernels = run->model->arithmetic.kernels;
    const ptrdiff_t last = run->model->encoder.L - 1;
    const kd_layer_weights *w = &run->model->layers[last];
    const int member = work->member + sharer;
    const kd_attention attention = kd_map_attention(run, last, member);
    const ptrdiff_t C = attention.C, H = attention.H, D = attention.D, A = H * D;
    const ptrdiff_t from = part * H / work->parts, to = (part + 1) * H / work->parts;
    kd_linear_heads_backward(picked->u, view->q, &w->absorbed_key, span->M, H, from, to);
    for (ptrdiff_t b = span->b0; b < span->b1; b++) {
        sequence s = sequence_of(span, b);
        float *total = picked->total + s.row * H, *ctx = view->ctx + s.row * A;
        kd_attention_absorbed_forward(kernels, picked->z + s.row * H * C, total, view->lse + s.row * H,
                                      picked->u + s.row * H * C, view->x + (s.token - span->t0) * C, &attention, from,
                                      to, s.token, s.n, run->members[member].attention);
        memset(ctx + from * D, 0, (size_t)((to - from) * D) * sizeof(float));
        for (ptrdiff_t head = from; head < to; head++)
            kernels->add_scaled(ctx + head * D, w->value.bias + head * D, total[head], D);
    }
    kd_linear_heads_forward(view->ctx, picked->z, &w->absorbed_value, span->M, H, from, to);
}

const void *kd_picked_attend(const kd_run *run, const kd_layer_map *view, const kd_picked_map *picked,
                             const kd_span *span, int member)
{
    const ptrdiff_t last = run->model->encoder.L - 1;
    const kd_layer_weights *w = &run->model->layers[last];
    void *operand = run->members[member].operand;
    const kd_product query =
        kd_linear_product(&w->query, view->q, kd_linear_operand(&w->query, picked->x, span->M, operand), span->M);
    kd_shared_products(run->team, w->query.engine, &query, 1);
    heads_work work = {run, view, picked, span, run->team ? run->model->encoder.layers[last].H : 1, member};
    kd_pool_run(run->team, heads_part, &work, work.parts);
    return kd_linear_operand(&w->output, view->ctx, span->M, operand);
}

void kd_picked_attend_backward(const kd_run *run, const kd_layer_map *view, const kd_picked_map *picked, float *dx,
                               const kd_span *span, float *partial, int member)
{
    const kd_arithmetic *math = &run->model->arithmetic;
    const ptrdiff_t last = run->model->encoder.L - 1;
    const kd_layer_weights *w = &run->model->layers[last];
    const kd_attention attention = kd_map_attention(run, last, member);
    const ptrdiff_t C = attention.C, H = attention.H, D = attention.D, A = H * D;
    float *dbias = kd_map_vector(run, partial, KD_SLOT_value_bias, last), *dz = run->members[member].dz;
    kd_linear_heads_backward(dz, picked->dctx, &w->absorbed_value, span->M, H, 0, H);
    for (ptrdiff_t b = span->b0; b < span->b1; b++) {
        sequence s = sequence_of(span, b);
        const float *dctx = picked->dctx + s.row * A;
        kd_attention_absorbed_backward(math->kernels, view->x + (s.token - span->t0) * C, picked->u + s.row * H * C,
                                       dz + s.row * H * C, dctx, view->ctx + s.row * A, view->lse + s.row * H,
                                       w->value.bias, &attention, s.token, s.n, run->members[member].attention);
        for (ptrdiff_t head = 0; head < H; head++)
            math->kernels->add_scaled(dbias + head * D, dctx + head * D, picked->total[s.row * H + head], D);
    }
    memset(picked->dq, 0, (size_t)(span->M * A) * sizeof(float));
    kd_linear_heads_forward(picked->dq, picked->u, &w->absorbed_key, span->M, H, 0, H);
    math->kernels->sum_rows(kd_map_vector(run, partial, KD_SLOT_query_bias, last), picked->dq, span->M, A, A);
    kd_linear_backward_input(dx, kd_linear_operand_back(&w->query, picked->dq, span->M, run->members[member].operand),
                             &w->query, span->M, 1);
}
