#include "model/kd_weights.h"

#include "model/kd_projected.h"

enum {
    EMBED_STRIP = 64,     /* columns of the embedding tables one item adds up: four cache lines */
    VECTOR_STRIP = 16384, /* floats of the vector gradients one item adds up */
};

/* ---- products: dW += dy^T x for each use of a weight */

/* One use of a weight (O, I) in a pass: its output's gradient and its input, `rows` of each, ldy and ldx apart, and the
 * engine of its products. A weight whose heads have inputs of their own is used in `blocks` blocks of O / blocks rows:
 * block i reads x from i * next_x on. */
typedef struct use {
    const kd_engine *engine;
    const float *dy, *x;
    ptrdiff_t rows, ldy, ldx, blocks, next_x;
} use;

static use whole_use(const kd_run *run, const kd_tensor *weight, const float *dy, const float *x, ptrdiff_t rows)
{
    return (use){
        kd_tensors_engine(&run->model->arithmetic, weight->slot), dy, x, rows, weight->rows, weight->columns, 1, 0};
}

/* x (rows, H, C), an input for each head; in float32 like the products by heads. */
static use heads_use(const kd_run *run, const kd_tensor *weight, const float *dy, const float *x, ptrdiff_t rows,
                     ptrdiff_t H)
{
    return (use){&run->model->arithmetic.float32, dy, x, rows, weight->rows, H * weight->columns, H, weight->columns};
}

/* Queries, keys and values of a last layer that was computed for the picked rows. */
static use picked_use(const kd_run *run, const kd_tensor *weight)
{
    const kd_picked_map *picked = &run->picked;
    const ptrdiff_t last = run->model->encoder.L - 1, B = run->pass.batch.B, H = run->model->encoder.layers[last].H;
    switch (weight->slot) {
    case KD_SLOT_query: return whole_use(run, weight, picked->dq, picked->x, B);
    case KD_SLOT_key: return heads_use(run, weight, run->layers[last].q, picked->u, B, H);
    default: return heads_use(run, weight, picked->dctx, picked->z, B, H);
    }
}

/* A layer weight in one of the layers that compute with it. */
static use layer_use(const kd_run *run, const kd_tensor *weight, ptrdiff_t layer)
{
    const int picked = run->last_picked && layer == run->model->encoder.L - 1;
    const kd_layer_map *m = &run->layers[layer];
    const ptrdiff_t N = run->pass.batch.N, rows = picked ? run->pass.batch.B : N;
    switch (weight->slot) {
    case KD_SLOT_query: return picked ? picked_use(run, weight) : whole_use(run, weight, m->q, m->x, N);
    case KD_SLOT_key: return picked ? picked_use(run, weight) : whole_use(run, weight, m->k, m->x, N);
    case KD_SLOT_value: return picked ? picked_use(run, weight) : whole_use(run, weight, m->v, m->x, N);
    case KD_SLOT_output: return whole_use(run, weight, m->pre_norm1, m->ctx, rows);
    case KD_SLOT_up: return whole_use(run, weight, m->slope, m->h, rows);
    default: return whole_use(run, weight, m->pre_norm2, m->act, rows); /* down */
    }
}

/* A weight outside the layers. */
static use other_use(const kd_run *run, const kd_tensor *weight)
{
    const kd_head_map *head = &run->head;
    switch (weight->slot) {
    case KD_SLOT_projection: return whole_use(run, weight, run->dprojected, run->projected, run->pass.batch.N);
    case KD_SLOT_head_dense: return whole_use(run, weight, head->slope, head->input, run->head_rows);
    default: return whole_use(run, weight, head->outputs, head->features, run->head_rows); /* the head's last product */
    }
}

/* How many layers compute with a layer's weight. */
static ptrdiff_t layers_of(const kd_run *run) { return run->model->encoder.shared ? run->model->encoder.L : 1; }

/* The gradient that taps of a picked last layer give this weight's product with all tokens, or NULL. */
static const float *projected_gradient(const kd_run *run, const kd_tensor *weight)
{
    const int in_last = weight->layer >= 0 && weight->layer + layers_of(run) == run->model->encoder.L;
    return in_last ? kd_projected_gradient(run, weight->slot) : NULL;
}

/* How many uses a weight has: its gradient is their sum, in this order. */
static ptrdiff_t uses_of(const kd_run *run, const kd_tensor *weight)
{
    if (weight->layer >= 0)
        return layers_of(run) + (projected_gradient(run, weight) ? 1 : 0);
    return weight == kd_model_output(run->model) && !run->head.outputs ? 0 : 1; /* kd_decoder has done it */
}

static use use_of(const kd_run *run, const kd_tensor *weight, ptrdiff_t index)
{
    if (weight->layer < 0)
        return other_use(run, weight);
    if (index == layers_of(run))
        return whole_use(run, weight, projected_gradient(run, weight), run->last_x, run->pass.batch.N);
    return layer_use(run, weight, weight->layer + index);
}

/* The part of a use that falls into a tile of dw. */
static void add_use(const kd_run *run, float *dw, const kd_tensor *weight, const use *u, const kd_linear_tile *tile,
                    void *scratch)
{
    const ptrdiff_t O = weight->rows / u->blocks, I = weight->columns;
    for (ptrdiff_t block = tile->o0 / O; block * O < tile->o1; block++) {
        const ptrdiff_t from = kd_max(tile->o0, block * O), to = kd_min(tile->o1, (block + 1) * O);
        kd_arithmetic_outer(&run->model->arithmetic, u->engine, dw + from * I + tile->i0, I, u->dy + from, u->ldy,
                            u->x + block * u->next_x + tile->i0, u->ldx, to - from, tile->i1 - tile->i0, u->rows,
                            scratch);
    }
}

static ptrdiff_t weight_tiles(const kd_tensor *t)
{
    return t->packed[0] < 0 ? 0 : kd_linear_tiles(t->rows, t->columns);
}

static void weight_item(const kd_run *run, const kd_tensor *weight, ptrdiff_t tile, int member)
{
    const kd_linear_tile bounds = kd_linear_tile_of(weight->rows, weight->columns, tile);
    for (ptrdiff_t i = 0; i < uses_of(run, weight); i++) {
        const use u = use_of(run, weight, i);
        add_use(run, run->model->gradients + weight->offset, weight, &u, &bounds, run->members[member].outer);
    }
}

/* ---- embedding tables, by columns */

static ptrdiff_t embed_items(const kd_run *run) { return kd_ceil_div(run->model->encoder.E, EMBED_STRIP); }

static void embed_item(const kd_run *run, ptrdiff_t item)
{
    const kd_model *model = run->model;
    const ptrdiff_t E = model->encoder.E, e0 = item * EMBED_STRIP;
    const kd_embed_tables gradients = kd_model_tables(model, model->gradients);
    kd_embed_backward(model->arithmetic.kernels, &gradients, run->embedding_sum, &run->pass.batch, e0,
                      kd_min(e0 + EMBED_STRIP, E), E);
}

/* ---- vectors: the sums of the partial rows, in order */

static ptrdiff_t vector_items(const kd_run *run) { return kd_ceil_div(run->model->sizes.vectors, VECTOR_STRIP); }

/* Adds floats v0 .. v1 - 1 of all partial rows to one vector's gradient, as far as they are its own. */
static void add_partials(const kd_run *run, const kd_tensor *t, ptrdiff_t v0, ptrdiff_t v1)
{
    const ptrdiff_t from = kd_max(v0, t->vector), to = kd_min(v1, t->vector + kd_tensor_floats(t));
    if (from < to)
        run->model->arithmetic.kernels->sum_rows(run->model->gradients + t->offset + from - t->vector,
                                                 run->partials + from, kd_map_partial_rows(run), to - from,
                                                 run->model->sizes.vectors);
}

static void vector_item(const kd_run *run, ptrdiff_t item)
{
    const kd_model *model = run->model;
    const ptrdiff_t v0 = item * VECTOR_STRIP, v1 = kd_min(v0 + VECTOR_STRIP, model->sizes.vectors);
    for (ptrdiff_t i = 0; i < model->sizes.count; i++)
        if (model->tensors[i].vector >= 0)
            add_partials(run, &model->tensors[i], v0, v1);
}

/* ---- all of them */

ptrdiff_t kd_weights_tiles(const kd_run *run)
{
    ptrdiff_t tiles = 0;
    for (ptrdiff_t i = 0; i < run->model->sizes.count; i++)
        tiles += weight_tiles(&run->model->tensors[i]);
    return tiles;
}

ptrdiff_t kd_weights_items(const kd_run *run) { return kd_weights_tiles(run) + embed_items(run) + vector_items(run); }

void kd_weights_item(kd_run *run, ptrdiff_t item, int member)
{
    for (ptrdiff_t i = 0; i < run->model->sizes.count; i++) {
        const kd_tensor *t = &run->model->tensors[i];
        const ptrdiff_t tiles = weight_tiles(t);
        if (item < tiles) {
            weight_item(run, t, item, member);
            return;
        }
        item -= tiles;
    }
    if (item < embed_items(run))
        embed_item(run, item);
    else
        vector_item(run, item - embed_items(run));
}
