#include "model/kd_layer.h"

#include "model/kd_shared.h"

static int layer_tensor(int tensor, ptrdiff_t layer) { return tensor + (int)layer * KD_DROP_PER_LAYER; }

/* Hands out the rows of a left operand (N, A). */
static void store_operand(const kd_run *run, kd_tap_kind kind, ptrdiff_t layer, const void *operand,
                          const kd_span *span, ptrdiff_t A)
{
    float *rows = kd_tap_rows(&run->pass.taps, kind, layer, span, A);
    if (rows)
        kd_map_attender(run)->widen(rows, A, operand, span->N, A);
}

/* What a thread does of the attention of all sequences. */
typedef struct attention_work {
    const kd_run *run;
    const kd_layer_map *view;
    const kd_span *span;
    ptrdiff_t layer, parts;
    int member; /* that does the item; one that shares it counts from there */
} attention_work;

/* Some of the heads. What an engine attends to are left operands of the member that does the item. */
static void attention_part(void *context, ptrdiff_t part, int sharer)
{
    const attention_work *work = context;
    const kd_run *run = work->run;
    const kd_layer_map *view = work->view;
    const kd_span *span = work->span;
    const kd_engine *attender = kd_map_attender(run);
    const kd_member *own = &run->members[work->member], *scratch = own + sharer;
    const kd_attention attention = kd_map_attention(run, work->layer, work->member + sharer);
    const ptrdiff_t H = attention.H, A = H * attention.D;
    const ptrdiff_t from = part * H / work->parts, to = (part + 1) * H / work->parts;
    kd_tap_scores scores = kd_tap_scores_of(&run->pass.taps, work->layer, span, H);
    for (ptrdiff_t b = span->b0; b < span->b1; b++) {
        ptrdiff_t token = (ptrdiff_t)span->batch->starts[b], n = (ptrdiff_t)span->batch->starts[b + 1] - token;
        ptrdiff_t row = token - span->t0;
        if (attender)
            kd_attention_evaluate(attender, own->operand, scores.out, own->q, own->k, own->v, &attention, from, to, row,
                                  n, scratch->attend);
        else
            kd_attention_forward(run->model->arithmetic.kernels, view->ctx + row * A, view->lse + row * H, scores.out,
                                 view->q + row * A, view->k + row * A, view->v + row * A, &attention, from, to, token,
                                 n, scratch->attention);
        scores = kd_tap_scores_next(scores, H, n);
    }
}

/* Queries, keys, values and ctx as left operands: nothing between the products is float32. */
static const void *evaluate_attention(const attention_work *work)
{
    const kd_run *run = work->run;
    const kd_span *span = work->span;
    const kd_member *own = &run->members[work->member];
    const kd_layer_weights *w = &run->model->layers[work->layer];
    const ptrdiff_t A = w->query.O, N = span->N;
    const void *x = kd_shared_operand(run->team, &w->query, work->view->x, N, own->operand);
    kd_product products[] = {kd_linear_product(&w->query, work->view->q, x, N),
                             kd_linear_product(&w->key, work->view->q, x, N),
                             kd_linear_product(&w->value, work->view->q, x, N)};
    products[0].next = own->q;
    products[1].next = own->k;
    products[2].next = own->v;
    kd_shared_products(run->team, w->query.engine, products, 3);
    attention_work shared = *work;
    kd_pool_run(run->team, attention_part, &shared, shared.parts);
    store_operand(run, KD_TAP_QUERY, work->layer, own->q, span, A);
    store_operand(run, KD_TAP_KEY, work->layer, own->k, span, A);
    store_operand(run, KD_TAP_VALUE, work->layer, own->v, span, A);
    return own->operand;
}

const void *kd_layer_attend(const kd_run *run, const kd_layer_map *view, ptrdiff_t layer, const kd_span *span,
                            int member)
{
    attention_work work = {run, view, span, layer, run->team ? run->model->encoder.layers[layer].H : 1, member};
    if (kd_map_attender(run))
        return evaluate_attention(&work);
    const kd_layer_weights *w = &run->model->layers[layer];
    const ptrdiff_t A = w->query.O, N = span->N;
    const void *x = kd_shared_operand(run->team, &w->query, view->x, N, run->members[member].operand);
    const kd_product products[] = {kd_linear_product(&w->query, view->q, x, N),
                                   kd_linear_product(&w->key, view->k, x, N),
                                   kd_linear_product(&w->value, view->v, x, N)};
    kd_shared_products(run->team, w->query.engine, products, 3);
    kd_pool_run(run->team, attention_part, &work, work.parts);
    kd_tap_store(&run->pass.taps, KD_TAP_QUERY, layer, view->q, span, A);
    kd_tap_store(&run->pass.taps, KD_TAP_KEY, layer, view->k, span, A);
    kd_tap_store(&run->pass.taps, KD_TAP_VALUE, layer, view->v, span, A);
    return kd_shared_operand(run->team, &w->output, view->ctx, N, run->members[member].operand);
}

/* act(h Wu) as an operand of the product that follows. Training keeps it, and its slope, in float32. */
static const void *feed_forward(const kd_run *run, const kd_layer_map *view, const kd_layer_weights *w, ptrdiff_t M,
                                int member)
{
    const kd_member *own = &run->members[member];
    const kd_engine *engine = w->up.engine;
    const kd_activation act = run->model->encoder.activation;
    const void *h = kd_shared_operand(run->team, &w->up, view->h, M, own->operand);
    if (run->pass.mode == KD_TRAIN) {
        kd_activation_forward(view->act, view->slope, h, &w->up, M, act);
        return kd_linear_operand(&w->down, view->act, M, own->wide_operand);
    }
    kd_product product = kd_activation_product(&w->up, view->act, h, M, act);
    product.next = engine->convert ? own->wide_operand : NULL;
    kd_shared_products(run->team, engine, &product, 1);
    return engine->convert ? own->wide_operand : view->act;
}

/* pre_norm1 = x + dropout(ctx Wo);  h = LN(pre_norm1);  pre_norm2 = h + dropout(act(h Wu) Wd);  y = LN(pre_norm2). */
void kd_layer_output(const kd_run *run, const kd_layer_map *view, const float *x, const void *ctx, ptrdiff_t layer,
                     const kd_span *span, int member)
{
    const kd_encoder_config *c = &run->model->encoder;
    const kd_kernels *kernels = run->model->arithmetic.kernels;
    const kd_layer_weights *w = &run->model->layers[layer];
    const ptrdiff_t M = span->M, C = c->C;

    const kd_product output = kd_linear_product(&w->output, view->pre_norm1, ctx, M);
    kd_shared_products(run->team, w->output.engine, &output, 1);
    kd_span_drop(kernels, view->pre_norm1, view->pre_norm1, layer_tensor(KD_DROP_SELF, layer), span, C, c->p_output);
    kd_shared_norm(run->team, kernels, view->h, view->stats1, view->pre_norm1, x, &w->attention_norm, M);

    const kd_product down = kd_linear_product(&w->down, view->pre_norm2, feed_forward(run, view, w, M, member), M);
    kd_shared_products(run->team, w->down.engine, &down, 1);
    kd_span_drop(kernels, view->pre_norm2, view->pre_norm2, layer_tensor(KD_DROP_FFN, layer), span, C,
                 c->p_feed_forward);
    kd_shared_norm(run->team, kernels, view->y, view->stats2, view->pre_norm2, view->h, &w->ffn_norm, M);
}

void kd_layer_bias_backward(const kd_run *run, float *partial, kd_slot bias, ptrdiff_t layer, const float *dy,
                            ptrdiff_t M, ptrdiff_t O)
{
    run->model->arithmetic.kernels->sum_rows(kd_map_vector(run, partial, bias, layer), dy, M, O, O);
}

/* One of a layer's two norms, with the sum in front of it. */
typedef struct sum_norm {
    const kd_norm *norm;
    kd_slot gamma, beta;
    int dropped; /* the dropout of what is added to the residual, */
    float p;     /* and its rate */
} sum_norm;

/* dx (M, C): gradient of the norm's output in, of its input out. pre_norm becomes the gradient of the product whose
 * output, dropped, was added into it. */
static void sum_norm_backward(const kd_run *run, float *dx, float *pre_norm, const float *stats, const sum_norm *s,
                              ptrdiff_t layer, const kd_span *span, float *partial)
{
    const kd_kernels *kernels = run->model->arithmetic.kernels;
    float *dgamma = kd_map_vector(run, partial, s->gamma, layer), *dbeta = kd_map_vector(run, partial, s->beta, layer);
    kd_norm_backward(kernels, dx, dgamma, dbeta, dx, pre_norm, stats, s->norm, span->M);
    kd_span_drop(kernels, pre_norm, dx, layer_tensor(s->dropped, layer), span, s->norm->C, s->p);
}

void kd_layer_output_backward(const kd_run *run, const kd_layer_map *view, float *dctx, float *dx, ptrdiff_t layer,
                              const kd_span *span, float *partial, int member)
{
    const kd_encoder_config *c = &run->model->encoder;
    const kd_layer_weights *w = &run->model->layers[layer];
    const kd_member *own = &run->members[member];
    const ptrdiff_t M = span->M, C = w->down.O, F = w->up.O;
    const sum_norm ffn = {&w->ffn_norm, KD_SLOT_ffn_norm, KD_SLOT_ffn_norm_bias, KD_DROP_FFN, c->p_feed_forward};
    const sum_norm attention = {&w->attention_norm, KD_SLOT_attention_norm, KD_SLOT_attention_norm_bias, KD_DROP_SELF,
                                c->p_output};

    sum_norm_backward(run, dx, view->pre_norm2, view->stats2, &ffn, layer, span, partial);
    kd_layer_bias_backward(run, partial, KD_SLOT_down_bias, layer, view->pre_norm2, M, C);
    kd_activation_backward(view->slope, own->dact, kd_linear_operand_back(&w->down, view->pre_norm2, M, own->operand),
                           &w->down, M);
    kd_layer_bias_backward(run, partial, KD_SLOT_up_bias, layer, view->slope, M, F);
    kd_linear_backward_input(dx, kd_linear_operand_back(&w->up, view->slope, M, own->wide_operand), &w->up, M, 1);

    sum_norm_backward(run, dx, view->pre_norm1, view->stats1, &attention, layer, span, partial);
    kd_layer_bias_backward(run, partial, KD_SLOT_output_bias, layer, view->pre_norm1, M, C);
    kd_linear_backward_input(dctx, kd_linear_operand_back(&w->output, view->pre_norm1, M, own->operand), &w->output, M,
                             0);
}

void kd_layer_attend_backward(const kd_run *run, const kd_layer_map *view, const float *dctx, float *dx,
                              ptrdiff_t layer, const kd_span *span, float *partial, int member)
{
    const kd_arithmetic *math = &run->model->arithmetic;
    const kd_layer_weights *w = &run->model->layers[layer];
    const kd_attention attention = kd_map_attention(run, layer, member);
    const ptrdiff_t A = w->query.O, H = attention.H, N = span->N;
    const kd_taps *taps = &run->pass.taps;
    kd_tap_scores scores = kd_tap_scores_of(taps, layer, span, H);
    for (ptrdiff_t b = span->b0; b < span->b1; b++) {
        ptrdiff_t token = (ptrdiff_t)span->batch->starts[b], n = (ptrdiff_t)span->batch->starts[b + 1] - token;
        ptrdiff_t row = token - span->t0;
        kd_attention_backward(math->kernels, view->q + row * A, view->k + row * A, view->v + row * A, dctx + row * A,
                              scores.gradient, view->ctx + row * A, view->lse + row * H, &attention, token, n,
                              run->members[member].attention);
        scores = kd_tap_scores_next(scores, H, n);
    }
    kd_tap_add(math->kernels, taps, KD_TAP_QUERY, layer, view->q, span, A);
    kd_tap_add(math->kernels, taps, KD_TAP_KEY, layer, view->k, span, A);
    kd_tap_add(math->kernels, taps, KD_TAP_VALUE, layer, view->v, span, A);
    kd_layer_bias_backward(run, partial, KD_SLOT_query_bias, layer, view->q, N, A);
    kd_layer_bias_backward(run, partial, KD_SLOT_key_bias, layer, view->k, N, A);
    kd_layer_bias_backward(run, partial, KD_SLOT_value_bias, layer, view->v, N, A);
    void *operand = run->members[member].operand;
    kd_linear_backward_input(dx, kd_linear_operand_back(&w->query, view->q, N, operand), &w->query, N, 1);
    kd_linear_backward_input(dx, kd_linear_operand_back(&w->key, view->k, N, operand), &w->key, N, 1);
    kd_linear_backward_input(dx, kd_linear_operand_back(&w->value, view->v, N, operand), &w->value, N, 1);
}
