#include "model/kd_bert_run.h"

#include <string.h>

enum {
    EMBED_STRIP = 64,     /* columns of the embedding tables one item adds up: four cache lines */
    VECTOR_STRIP = 16384, /* floats of the vector gradients one item adds up */
};

static void clear(float *x, ptrdiff_t n) { memset(x, 0, (size_t)n * sizeof(float)); }

/* dx (M, C) = gradient of the pooler's input, from the gradient of the logits. `pooled` becomes the
 * gradient of the pooler's product. */
static void head_backward(const kd_bert_run *run, float *dx, const kd_span *span, float *partial)
{
    const kd_bert *model = run->model;
    const kd_arithmetic *math = &model->arithmetic;
    const ptrdiff_t C = model->config.C, K = model->config.K, M = span->M;
    kd_linear pooler = kd_bert_linear(model, KD_TENSOR_pooler, 0);
    kd_linear classifier = kd_bert_linear(model, KD_TENSOR_classifier, 0);
    float *dlogits = run->logits + span->b0 * K, *pooled = run->pooled + span->b0 * C;
    kd_bias_backward(run, partial, KD_TENSOR_classifier_bias, dlogits, M, K);
    kd_linear_backward_input(math, dx, dlogits, &classifier, M, 0);
    kd_bert_drop(run, dx, dx, KD_DROP_CLASSIFIER, span, C, model->config.p_classifier);
    math->kernels->tanh_backward(pooled, dx, pooled, M * C);
    kd_bias_backward(run, partial, KD_TENSOR_pooler_bias, pooled, M, C);
    kd_linear_backward_input(math, dx, pooled, &pooler, M, 0);
}

void kd_bert_tail_back_item(kd_bert_run *run, ptrdiff_t item, int member)
{
    const ptrdiff_t C = run->model->config.C, last = run->model->config.L - 1;
    kd_span span = kd_bert_tail_span(run, item);
    float *dx = run->members[member].dx, *partial = kd_bert_partial(run, run->chunks + item);
    clear(partial, run->model->layout.vector_size);
    head_backward(run, dx, &span, partial);
    if (run->cls_only) {
        kd_layer_weights w = kd_bert_layer_weights(run->model, last);
        kd_layer_map view = kd_bert_view(run, last, &span, member);
        kd_cls_map cls = kd_bert_cls_view(run, &span, member);
        kd_layer_output_backward(run, &view, &w, cls.dctx, dx, last, &span, partial, member);
        kd_cls_attend_backward(run, &view, &cls, &w, dx, &span, partial, member);
    }
    memcpy(run->dcls + span.b0 * C, dx, (size_t)(span.M * C) * sizeof(float));
}

/* The embeddings' dropout and LayerNorm; embedding_sum becomes its own gradient. */
static void embed_backward(const kd_bert_run *run, float *dx, const kd_span *span, float *partial)
{
    const kd_bert *model = run->model;
    const ptrdiff_t C = model->config.C, *vector = model->layout.vector;
    kd_norm norm = kd_bert_norm(model, KD_TENSOR_embedding_gamma, 0);
    float *sum = run->embedding_sum + span->t0 * C;
    kd_bert_drop(run, dx, dx, KD_DROP_EMBEDDING, span, C, model->config.p_hidden);
    kd_norm_backward(model->arithmetic.kernels, sum, partial + vector[KD_TENSOR_embedding_gamma],
                     partial + vector[KD_TENSOR_embedding_beta], dx, sum, run->embedding_stats + span->t0 * 2, &norm,
                     span->N);
}

void kd_bert_body_back_item(kd_bert_run *run, ptrdiff_t item, int member)
{
    const kd_bert *model = run->model;
    const ptrdiff_t C = model->config.C;
    kd_span span = kd_bert_body_span(run, item);
    float *dx = run->members[member].dx, *dctx = run->members[member].dctx, *partial = kd_bert_partial(run, item);
    clear(partial, model->layout.vector_size);
    if (run->cls_only) /* TAIL_BACK has left there what comes through keys and values */
        dx = kd_bert_view(run, model->config.L - 1, &span, member).x;
    else
        clear(dx, span.N * C);
    for (ptrdiff_t b = span.b0; b < span.b1; b++)
        model->arithmetic.kernels->add(dx + ((ptrdiff_t)run->batch.starts[b] - span.t0) * C, run->dcls + b * C, C);
    for (ptrdiff_t layer = kd_bert_body_layers(run) - 1; layer >= 0; layer--) {
        kd_layer_weights w = kd_bert_layer_weights(model, layer);
        kd_layer_map view = kd_bert_view(run, layer, &span, member);
        kd_layer_output_backward(run, &view, &w, dctx, dx, layer, &span, partial, member);
        kd_layer_attend_backward(run, &view, &w, dctx, dx, layer, &span, partial, member);
    }
    embed_backward(run, dx, &span, partial);
}

/* ---- WEIGHTS: tiles of the products' gradients, then columns of the embeddings', then the vectors' */

/* dW += dy^T x over `rows` rows. A weight of `blocks` blocks of O rows is as many products, each with O columns of
 * dy and I columns of x. */
typedef struct product {
    kd_tensor weight;
    const float *dy, *x;
    ptrdiff_t rows, blocks, O, I;
    ptrdiff_t ldy, ldx, next_x; /* rows lie so far apart, blocks of x */
} product;

static product whole_product(const kd_bert_run *run, kd_tensor weight, const float *dy, const float *x, ptrdiff_t rows)
{
    kd_tensor_info info = kd_bert_tensor_info(&run->model->config, weight);
    return (product){weight, dy, x, rows, 1, info.rows, info.columns, info.rows, info.columns, 0};
}

/* Of a weight whose heads have inputs of their own: x (rows, H, C). */
static product heads_product(const kd_bert_run *run, kd_tensor weight, const float *dy, const float *x)
{
    const ptrdiff_t C = run->model->config.C, H = run->model->config.H;
    return (product){weight, dy, x, run->batch.B, H, C / H, C, C, H * C, C};
}

enum { LAYER_PRODUCTS = 6, HEAD_PRODUCTS = 2 };

static product layer_product(const kd_bert_run *run, ptrdiff_t layer, int index)
{
    const kd_layer_map *m = &run->layers[layer];
    const kd_cls_map *cls = run->cls_only && layer == run->model->config.L - 1 ? &run->cls_map : NULL;
    const ptrdiff_t N = run->batch.N, rows = cls ? run->batch.B : N;
    switch (index) {
    case 0:
        return cls ? whole_product(run, KD_TENSOR_query, cls->dq, run->cls_in, rows)
                   : whole_product(run, KD_TENSOR_query, m->q, m->x, N);
    case 1:
        return cls ? heads_product(run, KD_TENSOR_key, m->q, cls->u) : whole_product(run, KD_TENSOR_key, m->k, m->x, N);
    case 2:
        return cls ? heads_product(run, KD_TENSOR_value, cls->dctx, cls->z)
                   : whole_product(run, KD_TENSOR_value, m->v, m->x, N);
    case 3: return whole_product(run, KD_TENSOR_output, m->s1, m->ctx, rows);
    case 4: return whole_product(run, KD_TENSOR_up, m->up, m->h, rows);
    default: return whole_product(run, KD_TENSOR_down, m->s2, m->act, rows);
    }
}

static product head_product(const kd_bert_run *run, int index)
{
    return index == 0 ? whole_product(run, KD_TENSOR_pooler, run->pooled, run->cls, run->batch.B)
                      : whole_product(run, KD_TENSOR_classifier, run->logits, run->dropped, run->batch.B);
}

static ptrdiff_t product_tiles(product p) { return p.blocks * kd_linear_tiles(p.O, p.I); }

static ptrdiff_t layer_tiles(const kd_bert_run *run, ptrdiff_t layer)
{
    ptrdiff_t tiles = 0;
    for (int i = 0; i < LAYER_PRODUCTS; i++)
        tiles += product_tiles(layer_product(run, layer, i));
    return tiles;
}

static ptrdiff_t embed_items(const kd_bert_run *run) { return kd_ceil_div(run->model->config.C, EMBED_STRIP); }

static ptrdiff_t vector_items(const kd_bert_run *run)
{
    return kd_ceil_div(run->model->layout.vector_size, VECTOR_STRIP);
}

ptrdiff_t kd_bert_weight_items(const kd_bert_run *run)
{
    ptrdiff_t tiles = 0;
    for (ptrdiff_t layer = 0; layer < run->model->config.L; layer++)
        tiles += layer_tiles(run, layer);
    for (int i = 0; i < HEAD_PRODUCTS; i++)
        tiles += product_tiles(head_product(run, i));
    return tiles + embed_items(run) + vector_items(run);
}

static void product_item(const kd_bert_run *run, product p, ptrdiff_t layer, ptrdiff_t tile, int member)
{
    const kd_bert *model = run->model;
    const ptrdiff_t tiles = kd_linear_tiles(p.O, p.I), block = tile / tiles;
    float *dw = model->gradients + model->layout.offset[p.weight] + layer * model->layout.stride;
    kd_linear_backward_weight(&model->arithmetic, dw + block * p.O * p.I, p.dy + block * p.O, p.ldy,
                              p.x + block * p.next_x, p.ldx, p.rows, p.O, p.I, tile % tiles,
                              run->members[member].outer);
}

/* Adds floats v0 .. v1 - 1 of all partial rows, in order, to one tensor's gradient, which begins at
 * `vector` in a partial row. */
static void add_partials(const kd_bert_run *run, float *gradient, ptrdiff_t vector, ptrdiff_t length, ptrdiff_t v0,
                         ptrdiff_t v1)
{
    const ptrdiff_t from = kd_max(v0, vector), to = kd_min(v1, vector + length);
    if (from >= to)
        return;
    const ptrdiff_t stride = run->model->layout.vector_size, items = run->chunks + kd_bert_tail_items(run);
    run->model->arithmetic.kernels->sum_rows(gradient + from - vector, run->partials + from, items, to - from, stride);
}

static void vector_item(const kd_bert_run *run, ptrdiff_t item)
{
    const kd_bert *model = run->model;
    const kd_bert_layout *layout = &model->layout;
    ptrdiff_t v0 = item * VECTOR_STRIP, v1 = kd_min(v0 + VECTOR_STRIP, layout->vector_size);
    for (int t = 0; t < KD_TENSOR_KINDS; t++) {
        kd_tensor_info info = kd_bert_tensor_info(&model->config, (kd_tensor)t);
        ptrdiff_t layers = info.place == KD_PLACE_LAYER ? model->config.L : 1;
        for (ptrdiff_t l = 0; info.columns == 0 && l < layers; l++)
            add_partials(run, model->gradients + layout->offset[t] + l * layout->stride,
                         layout->vector[t] + l * layout->vector_stride, info.rows, v0, v1);
    }
}

/* Does item `item` if it is one of this product's; otherwise takes the product's number off it. */
static int take_product_item(const kd_bert_run *run, product p, ptrdiff_t layer, ptrdiff_t *item, int member)
{
    const ptrdiff_t tiles = product_tiles(p);
    if (*item >= tiles) {
        *item -= tiles;
        return 0;
    }
    product_item(run, p, layer, *item, member);
    return 1;
}

void kd_bert_weight_item(kd_bert_run *run, ptrdiff_t item, int member)
{
    const kd_bert *model = run->model;
    const ptrdiff_t C = model->config.C;
    for (ptrdiff_t layer = 0; layer < model->config.L; layer++)
        for (int i = 0; i < LAYER_PRODUCTS; i++)
            if (take_product_item(run, layer_product(run, layer, i), layer, &item, member))
                return;
    for (int i = 0; i < HEAD_PRODUCTS; i++)
        if (take_product_item(run, head_product(run, i), 0, &item, member))
            return;
    if (item < embed_items(run)) {
        kd_embed_tables gradients = kd_bert_embeddings(model, model->gradients);
        ptrdiff_t c0 = item * EMBED_STRIP;
        kd_embed_backward(model->arithmetic.kernels, &gradients, run->embedding_sum, &run->batch, c0,
                          kd_min(c0 + EMBED_STRIP, C), C);
        return;
    }
    vector_item(run, item - embed_items(run));
}
