#include "kd_bert_run.h"

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
    const kd_gemm *gemm = &model->gemm;
    const kd_rows *rows = gemm->rows;
    const ptrdiff_t C = model->config.C, K = model->config.K, M = span->M;
    kd_linear pooler = kd_bert_linear(model, KD_TENSOR_pooler, 0);
    kd_linear classifier = kd_bert_linear(model, KD_TENSOR_classifier, 0);
    float *dlogits = run->logits + span->b0 * K, *pooled = run->pooled + span->b0 * C;
    rows->sum_rows(partial + model->layout.vector[KD_TENSOR_classifier_bias], dlogits, M, K, K);
    kd_linear_backward_input(gemm, dx, dlogits, &classifier, M, 0);
    kd_bert_drop(run, dx, dx, KD_DROP_CLASSIFIER, span, C, model->config.p_classifier);
    rows->tanh_backward(pooled, dx, pooled, M * C);
    rows->sum_rows(partial + model->layout.vector[KD_TENSOR_pooler_bias], pooled, M, C, C);
    kd_linear_backward_input(gemm, dx, pooled, &pooler, M, 0);
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
        kd_layer_backward(run, &view, &w, dx, last, &span, partial, member);
    }
    memcpy(run->dcls + span.b0 * C, dx, (size_t)(span.M * C) * sizeof(float));
}

/* dx (N, C) += the gradient through keys and values. */
static void keys_backward(const kd_bert_run *run, float *dx, const kd_layer_map *view, const kd_layer_weights *w,
                          ptrdiff_t N, int accumulate)
{
    kd_linear_backward_input(&run->model->gemm, dx, view->k, &w->key, N, accumulate);
    kd_linear_backward_input(&run->model->gemm, dx, view->v, &w->value, N, 1);
}

/* The embeddings' dropout and LayerNorm; embedding_sum becomes its own gradient. */
static void embed_backward(const kd_bert_run *run, float *dx, const kd_span *span, float *partial)
{
    const kd_bert *model = run->model;
    const ptrdiff_t C = model->config.C, *vector = model->layout.vector;
    kd_norm norm = kd_bert_norm(model, KD_TENSOR_embedding_gamma, 0);
    float *sum = run->embedding_sum + span->t0 * C;
    kd_bert_drop(run, dx, dx, KD_DROP_EMBEDDING, span, C, model->config.p_hidden);
    kd_norm_backward(model->gemm.rows, sum, partial + vector[KD_TENSOR_embedding_gamma],
                     partial + vector[KD_TENSOR_embedding_beta], dx, sum, run->embedding_stats + span->t0 * 2, &norm,
                     span->N);
}

void kd_bert_body_back_item(kd_bert_run *run, ptrdiff_t item, int member)
{
    const kd_bert *model = run->model;
    const ptrdiff_t C = model->config.C, last = model->config.L - 1;
    kd_span span = kd_bert_body_span(run, item);
    float *dx = run->members[member].dx, *partial = kd_bert_partial(run, item);
    clear(partial, model->layout.vector_size);
    ptrdiff_t layer = last;
    if (run->cls_only) {
        kd_layer_weights w = kd_bert_layer_weights(model, last);
        kd_layer_map view = kd_bert_view(run, last, &span, member);
        keys_backward(run, dx, &view, &w, span.N, 0);
        layer = last - 1;
    } else {
        clear(dx, span.N * C);
    }
    for (ptrdiff_t b = span.b0; b < span.b1; b++)
        model->gemm.rows->add(dx + ((ptrdiff_t)run->batch.starts[b] - span.t0) * C, run->dcls + b * C, C);
    for (; layer >= 0; layer--) {
        kd_layer_weights w = kd_bert_layer_weights(model, layer);
        kd_layer_map view = kd_bert_view(run, layer, &span, member);
        kd_layer_backward(run, &view, &w, dx, layer, &span, partial, member);
        keys_backward(run, dx, &view, &w, span.N, 1);
    }
    embed_backward(run, dx, &span, partial);
}

/* ---- WEIGHTS: tiles of the products' gradients, then columns of the embeddings', then the vectors' */

/* dW += dy^T x over `rows` rows. */
typedef struct product {
    kd_tensor weight;
    const float *dy, *x;
    ptrdiff_t rows;
} product;

enum { LAYER_PRODUCTS = 6, HEAD_PRODUCTS = 2 };

static product layer_product(const kd_bert_run *run, ptrdiff_t layer, int index)
{
    const kd_layer_map *m = &run->layers[layer];
    int cls = run->cls_only && layer == run->model->config.L - 1;
    const ptrdiff_t N = run->batch.N, rows = cls ? run->batch.B : N;
    const product products[LAYER_PRODUCTS] = {
        {KD_TENSOR_query, m->q, cls ? run->cls_in : m->x, rows},
        {KD_TENSOR_key, m->k, m->x, N},
        {KD_TENSOR_value, m->v, m->x, N},
        {KD_TENSOR_output, m->s1, m->ctx, rows},
        {KD_TENSOR_up, m->up, m->h, rows},
        {KD_TENSOR_down, m->s2, m->act, rows},
    };
    return products[index];
}

static product head_product(const kd_bert_run *run, int index)
{
    const product products[HEAD_PRODUCTS] = {
        {KD_TENSOR_pooler, run->pooled, run->cls, run->batch.B},
        {KD_TENSOR_classifier, run->logits, run->dropped, run->batch.B},
    };
    return products[index];
}

static ptrdiff_t product_tiles(const kd_bert_run *run, kd_tensor weight)
{
    kd_tensor_info info = kd_bert_tensor_info(&run->model->config, weight);
    return kd_linear_tiles(info.rows, info.columns);
}

static ptrdiff_t layer_tiles(const kd_bert_run *run)
{
    ptrdiff_t tiles = 0;
    for (int i = 0; i < LAYER_PRODUCTS; i++)
        tiles += product_tiles(run, layer_product(run, 0, i).weight);
    return tiles;
}

static ptrdiff_t embed_items(const kd_bert_run *run) { return kd_ceil_div(run->model->config.C, EMBED_STRIP); }

static ptrdiff_t vector_items(const kd_bert_run *run)
{
    return kd_ceil_div(run->model->layout.vector_size, VECTOR_STRIP);
}

ptrdiff_t kd_bert_weight_items(const kd_bert_run *run)
{
    ptrdiff_t tiles = run->model->config.L * layer_tiles(run);
    for (int i = 0; i < HEAD_PRODUCTS; i++)
        tiles += product_tiles(run, head_product(run, i).weight);
    return tiles + embed_items(run) + vector_items(run);
}

static void product_item(const kd_bert_run *run, product p, ptrdiff_t layer, ptrdiff_t tile, int member)
{
    const kd_bert *model = run->model;
    kd_tensor_info info = kd_bert_tensor_info(&model->config, p.weight);
    float *dw = model->gradients + model->layout.offset[p.weight] + layer * model->layout.stride;
    kd_linear_backward_weight(&model->gemm, dw, p.dy, p.x, p.rows, info.rows, info.columns, tile,
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
    run->model->gemm.rows->sum_rows(gradient + from - vector, run->partials + from, items, to - from, stride);
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

void kd_bert_weight_item(kd_bert_run *run, ptrdiff_t item, int member)
{
    const kd_bert *model = run->model;
    const ptrdiff_t C = model->config.C, per_layer = layer_tiles(run), layers = model->config.L * per_layer;
    if (item < layers) {
        ptrdiff_t layer = item / per_layer, tile = item % per_layer;
        for (int i = 0; i < LAYER_PRODUCTS; i++) {
            product p = layer_product(run, layer, i);
            ptrdiff_t tiles = product_tiles(run, p.weight);
            if (tile < tiles) {
                product_item(run, p, layer, tile, member);
                return;
            }
            tile -= tiles;
        }
    }
    item -= layers;
    for (int i = 0; i < HEAD_PRODUCTS; i++) {
        product p = head_product(run, i);
        ptrdiff_t tiles = product_tiles(run, p.weight);
        if (item < tiles) {
            product_item(run, p, 0, item, member);
            return;
        }
        item -= tiles;
    }
    if (item < embed_items(run)) {
        kd_embed_tables gradients = kd_bert_embeddings(model, model->gradients);
        ptrdiff_t c0 = item * EMBED_STRIP;
        kd_embed_backward(model->gemm.rows, &gradients, run->embedding_sum, &run->batch, c0,
                          kd_min(c0 + EMBED_STRIP, C), C);
        return;
    }
    vector_item(run, item - embed_items(run));
}
