/* One encoder layer, forward and backward, on the rows of one span, by one thread. */
#include "model/kd_bert_run.h"

kd_linear kd_bert_linear(const kd_bert *model, kd_tensor weight, ptrdiff_t layer)
{
    const kd_bert_layout *layout = &model->layout;
    const unsigned char *packed = model->packed + layer * layout->packed_stride;
    kd_tensor_info info = kd_bert_tensor_info(&model->config, weight);
    kd_linear linear;
    linear.forward = packed + layout->forward[weight];
    linear.backward = layout->backward[weight] < 0 ? NULL : packed + layout->backward[weight];
    if (weight == KD_TENSOR_key && layer == model->config.L - 1)
        linear.backward = model->packed + layout->last_key;
    linear.bias = model->parameters + layout->offset[weight + 1] + layer * layout->stride;
    linear.I = info.columns;
    linear.O = info.rows;
    return linear;
}

kd_norm kd_bert_norm(const kd_bert *model, kd_tensor gamma, ptrdiff_t layer)
{
    const float *base = model->parameters + layer * model->layout.stride;
    kd_norm norm = {base + model->layout.offset[gamma], base + model->layout.offset[gamma + 1], model->config.C,
                    model->config.eps};
    return norm;
}

kd_layer_weights kd_bert_layer_weights(const kd_bert *model, ptrdiff_t layer)
{
    kd_layer_weights w;
    w.query = kd_bert_linear(model, KD_TENSOR_query, layer);
    w.key = kd_bert_linear(model, KD_TENSOR_key, layer);
    w.value = kd_bert_linear(model, KD_TENSOR_value, layer);
    w.output = kd_bert_linear(model, KD_TENSOR_output, layer);
    w.up = kd_bert_linear(model, KD_TENSOR_up, layer);
    w.down = kd_bert_linear(model, KD_TENSOR_down, layer);
    w.attention_norm = kd_bert_norm(model, KD_TENSOR_attention_gamma, layer);
    w.ffn_norm = kd_bert_norm(model, KD_TENSOR_ffn_gamma, layer);
    return w;
}

kd_embed_tables kd_bert_embeddings(const kd_bert *model, float *base)
{
    const ptrdiff_t *offset = model->layout.offset;
    kd_embed_tables tables = {base + offset[KD_TENSOR_word], base + offset[KD_TENSOR_position],
                              base + offset[KD_TENSOR_type]};
    return tables;
}

/* A [CLS] row's token is its sequence's first. */
void kd_bert_drop(const kd_bert_run *run, float *y, const float *x, int tensor, const kd_span *span, ptrdiff_t n,
                  float p)
{
    const kd_kernels *kernels = run->model->arithmetic.kernels;
    if (!span->cls) {
        kd_dropout_rows(kernels, y, x, &run->dropout, tensor, span->t0, span->M, n, p);
        return;
    }
    for (ptrdiff_t b = span->b0; b < span->b1; b++)
        kd_dropout_row(kernels, y + (b - span->b0) * n, x + (b - span->b0) * n, &run->dropout, tensor,
                       (ptrdiff_t)run->batch.starts[b], 0, n, p);
}

static int layer_tensor(int tensor, ptrdiff_t layer) { return tensor + (int)layer * KD_DROP_PER_LAYER; }

kd_attention kd_bert_attention(const kd_bert_run *run, ptrdiff_t layer)
{
    const kd_bert_config *c = &run->model->config;
    kd_attention a = {c->H,
                      c->C / c->H,
                      &run->dropout,
                      layer_tensor(KD_DROP_ATTENTION, layer),
                      kd_round_up(c->P, KD_RANDOM_BLOCK),
                      c->p_attention};
    return a;
}

void kd_layer_attend(const kd_bert_run *run, const kd_layer_map *view, const kd_layer_weights *w, ptrdiff_t layer,
                     const kd_span *span, int member)
{
    const kd_arithmetic *math = &run->model->arithmetic;
    const ptrdiff_t C = run->model->config.C, H = run->model->config.H;
    kd_attention attention = kd_bert_attention(run, layer);
    kd_linear_forward(math, view->q, view->x, &w->query, span->N);
    kd_linear_forward(math, view->k, view->x, &w->key, span->N);
    kd_linear_forward(math, view->v, view->x, &w->value, span->N);
    for (ptrdiff_t b = span->b0; b < span->b1; b++) {
        ptrdiff_t token = (ptrdiff_t)run->batch.starts[b], n = (ptrdiff_t)run->batch.starts[b + 1] - token;
        ptrdiff_t row = token - span->t0;
        kd_attention_forward(math->kernels, view->ctx + row * C, view->lse + row * H, view->q + row * C,
                             view->k + row * C, view->v + row * C, &attention, token, n,
                             run->members[member].attention);
    }
}

/* s1 = x + dropout(ctx Wo);  h = LN(s1);  s2 = h + dropout(act(h Wu) Wd);  y = LN(s2). */
void kd_layer_output(const kd_bert_run *run, const kd_layer_map *view, const kd_layer_weights *w, const float *x,
                     ptrdiff_t layer, const kd_span *span)
{
    const kd_bert_config *c = &run->model->config;
    const kd_arithmetic *math = &run->model->arithmetic;
    const kd_kernels *kernels = math->kernels;
    const ptrdiff_t M = span->M, C = c->C;

    kd_linear_forward(math, view->s1, view->ctx, &w->output, M);
    kd_bert_drop(run, view->s1, view->s1, layer_tensor(KD_DROP_SELF, layer), span, C, c->p_hidden);
    kd_norm_forward(kernels, view->h, view->st1, view->s1, x, &w->attention_norm, M);

    kd_activation_forward(math, view->act, view->up, view->h, &w->up, M, c->activation);
    kd_linear_forward(math, view->s2, view->act, &w->down, M);
    kd_bert_drop(run, view->s2, view->s2, layer_tensor(KD_DROP_FFN, layer), span, C, c->p_hidden);
    kd_norm_forward(kernels, view->y, view->st2, view->s2, view->h, &w->ffn_norm, M);
}

void kd_bias_backward(const kd_bert_run *run, float *partial, kd_tensor bias, const float *dy, ptrdiff_t M, ptrdiff_t O)
{
    run->model->arithmetic.kernels->sum_rows(partial + run->model->layout.vector[bias], dy, M, O, O);
}

/* dx (M, C): gradient of a LayerNorm's output in, of its input s out. s becomes the gradient of the
 * product whose output, dropped, was added into it. */
static void residual_backward(const kd_bert_run *run, float *dx, float *s, const float *stats, const kd_norm *norm,
                              kd_tensor gamma, int tensor, const kd_span *span, float *partial)
{
    const ptrdiff_t *vector = run->model->layout.vector;
    const kd_bert_config *c = &run->model->config;
    kd_norm_backward(run->model->arithmetic.kernels, dx, partial + vector[gamma], partial + vector[gamma + 1], dx, s,
                     stats, norm, span->M);
    kd_bert_drop(run, s, dx, tensor, span, c->C, c->p_hidden);
}

void kd_layer_output_backward(const kd_bert_run *run, const kd_layer_map *view, const kd_layer_weights *w, float *dctx,
                              float *dx, ptrdiff_t layer, const kd_span *span, float *partial, int member)
{
    const kd_bert_config *c = &run->model->config;
    const kd_arithmetic *math = &run->model->arithmetic;
    const kd_member *own = &run->members[member];
    const ptrdiff_t M = span->M, C = c->C, F = c->F;
    float *sums = partial + layer * run->model->layout.vector_stride;

    residual_backward(run, dx, view->s2, view->st2, &w->ffn_norm, KD_TENSOR_ffn_gamma, layer_tensor(KD_DROP_FFN, layer),
                      span, sums);
    kd_bias_backward(run, sums, KD_TENSOR_down_bias, view->s2, M, C);
    kd_activation_backward(math, view->up, own->dact, view->s2, &w->down, M);
    kd_bias_backward(run, sums, KD_TENSOR_up_bias, view->up, M, F);
    kd_linear_backward_input(math, dx, view->up, &w->up, M, 1);

    residual_backward(run, dx, view->s1, view->st1, &w->attention_norm, KD_TENSOR_attention_gamma,
                      layer_tensor(KD_DROP_SELF, layer), span, sums);
    kd_bias_backward(run, sums, KD_TENSOR_output_bias, view->s1, M, C);
    kd_linear_backward_input(math, dctx, view->s1, &w->output, M, 0);
}

void kd_layer_attend_backward(const kd_bert_run *run, const kd_layer_map *view, const kd_layer_weights *w,
                              const float *dctx, float *dx, ptrdiff_t layer, const kd_span *span, float *partial,
                              int member)
{
    const kd_arithmetic *math = &run->model->arithmetic;
    const ptrdiff_t C = run->model->config.C, H = run->model->config.H, N = span->N;
    float *sums = partial + layer * run->model->layout.vector_stride;
    kd_attention attention = kd_bert_attention(run, layer);
    for (ptrdiff_t b = span->b0; b < span->b1; b++) {
        ptrdiff_t token = (ptrdiff_t)run->batch.starts[b], n = (ptrdiff_t)run->batch.starts[b + 1] - token;
        ptrdiff_t row = token - span->t0;
        kd_attention_backward(math->kernels, view->q + row * C, view->k + row * C, view->v + row * C, dctx + row * C,
                              view->ctx + row * C, view->lse + row * H, &attention, token, n,
                              run->members[member].attention);
    }
    kd_bias_backward(run, sums, KD_TENSOR_query_bias, view->q, N, C);
    kd_bias_backward(run, sums, KD_TENSOR_key_bias, view->k, N, C);
    kd_bias_backward(run, sums, KD_TENSOR_value_bias, view->v, N, C);
    kd_linear_backward_input(math, dx, view->q, &w->query, N, 1);
    kd_linear_backward_input(math, dx, view->k, &w->key, N, 1);
    kd_linear_backward_input(math, dx, view->v, &w->value, N, 1);
}
