/* The activation map: where everything of a run lies in its workspace. */
#include "model/kd_bert_run.h"

#include <string.h>

enum {
    LEAST_CHUNK = 48, /* tokens of a BODY item that are worth a thread */
    LEAST_TAIL = 8,   /* sequences of a TAIL item that are */
    MOST_TAIL = 48,
};

/* Work of one item that is a fraction of a second on a slow core, so that Ctrl-C is answered. */
#define MOST_FLOPS 2e10

double kd_bert_layer_flops(const kd_bert_config *c) { return 2.0 * (double)(4 * c->C * c->C + 2 * c->C * c->F); }

/* Tokens of one BODY item at most: enough to hide the reading of weights, few enough that a small model's
 * activations stay in L2. Measured (Zen 5, one core): BERT-base 108 tokens 217 GF/s with AVX-512 and 115 with AVX2, 228
 * tokens 240 and 118; hidden 384: 192 tokens 224, 384 tokens 240, 768 tokens 242; hidden 128: 96, 144, 192 and
 * 384 tokens the same. */
static ptrdiff_t chunk_tokens(const kd_bert_config *c, kd_mode mode)
{
    const ptrdiff_t most = c->C < 256 ? 192 : 384;
    if (mode == KD_EVALUATE) /* a large model's items are cut by layers */
        return most;
    double tokens = MOST_FLOPS / ((double)c->L * kd_bert_layer_flops(c));
    return tokens > (double)most ? most : kd_max(LEAST_CHUNK, (ptrdiff_t)tokens);
}

/* Layers that one BODY item does. */
static ptrdiff_t stage_layers(const kd_bert_run *run)
{
    const kd_bert_config *c = &run->model->config;
    double layers = MOST_FLOPS / ((double)run->R * kd_bert_layer_flops(c));
    return run->mode == KD_TRAIN || layers > (double)c->L ? c->L : kd_max(1, (ptrdiff_t)layers);
}

ptrdiff_t kd_bert_body_layers(const kd_bert_run *run) { return run->model->config.L - (run->cls_only ? 1 : 0); }

static ptrdiff_t tail_rows(const kd_bert_run *run) { return kd_ceil_div(run->batch.B, kd_bert_tail_items(run)); }

static ptrdiff_t tokens_of(const kd_batch *batch, ptrdiff_t b0, ptrdiff_t b1)
{
    return (ptrdiff_t)(batch->starts[b1] - batch->starts[b0]);
}

/* How many items `total` rows are cut into: none larger than `most`, an even number of them so that two
 * threads end together, and two even of a small batch if each gets `least`. Never a matter of how many
 * threads there are: sums over items are part of a result's bits. */
static ptrdiff_t pieces(ptrdiff_t total, ptrdiff_t least, ptrdiff_t most)
{
    ptrdiff_t count = kd_max(kd_ceil_div(total, most), total >= 2 * least ? 2 : 1);
    return count > 1 ? kd_round_up(count, 2) : 1;
}

/* The first sequence after the chunk that begins with b0: those whose middle lies in the same of `count`
 * equal pieces of all tokens. */
static ptrdiff_t chunk_end(const kd_batch *batch, ptrdiff_t b0, ptrdiff_t count)
{
    const int64_t *starts = batch->starts;
    int64_t total = 2 * starts[batch->B], piece = (starts[b0] + starts[b0 + 1]) * count / total;
    ptrdiff_t b1 = b0 + 1;
    while (b1 < batch->B && (starts[b1] + starts[b1 + 1]) * count / total == piece)
        b1++;
    return b1;
}

/* Counts the chunks, finds R and the longest sequence; writes the boundaries when there is room. */
static void cut_chunks(kd_bert_run *run, int64_t *chunk)
{
    const kd_batch *batch = &run->batch;
    ptrdiff_t count = pieces(batch->N, LEAST_CHUNK, chunk_tokens(&run->model->config, run->mode));
    run->chunks = 0;
    run->R = tail_rows(run);
    run->longest = 1;
    for (ptrdiff_t b0 = 0, b1; b0 < batch->B; b0 = b1) {
        b1 = chunk_end(batch, b0, count);
        if (chunk) {
            chunk[run->chunks] = b0;
            chunk[run->chunks + 1] = b1;
        }
        run->chunks++;
        run->R = kd_max(run->R, tokens_of(batch, b0, b1));
        for (ptrdiff_t b = b0; b < b1; b++)
            run->longest = kd_max(run->longest, tokens_of(batch, b, b + 1));
    }
    run->stage_layers = stage_layers(run);
}

static kd_layer_map place_training_layer(const kd_bert_run *run, kd_arena *arena, ptrdiff_t layer)
{
    const kd_bert_config *c = &run->model->config;
    int last = layer == c->L - 1, cls = last && run->cls_only;
    ptrdiff_t N = run->batch.N, rows = cls ? run->batch.B : N;
    kd_layer_map m;
    m.x = kd_arena_floats(arena, N * c->C);
    m.q = kd_arena_floats(arena, rows * c->C);
    m.k = cls ? NULL : kd_arena_floats(arena, N * c->C);
    m.v = cls ? NULL : kd_arena_floats(arena, N * c->C);
    m.ctx = kd_arena_floats(arena, rows * c->C);
    m.lse = kd_arena_floats(arena, rows * c->H);
    m.s1 = kd_arena_floats(arena, rows * c->C);
    m.st1 = kd_arena_floats(arena, rows * 2);
    m.h = kd_arena_floats(arena, rows * c->C);
    m.up = kd_arena_floats(arena, rows * c->F);
    m.act = kd_arena_floats(arena, rows * c->F);
    m.s2 = kd_arena_floats(arena, rows * c->C);
    m.st2 = kd_arena_floats(arena, rows * 2);
    m.y = last && !run->cls_only ? kd_arena_floats(arena, N * c->C) : NULL;
    return m;
}

static kd_cls_map place_cls(const kd_bert_run *run, kd_arena *arena, ptrdiff_t rows)
{
    const kd_bert_config *c = &run->model->config;
    kd_cls_map m = {0};
    m.u = kd_arena_floats(arena, rows * c->H * c->C);
    m.z = kd_arena_floats(arena, rows * c->H * c->C);
    m.total = kd_arena_floats(arena, rows * c->H);
    if (run->mode == KD_TRAIN) {
        m.dctx = kd_arena_floats(arena, rows * c->C);
        m.dq = kd_arena_floats(arena, rows * c->C);
    }
    return m;
}

/* Evaluating, a layer's arrays are reused as soon as nothing reads them: s1, h's sum and s2 share one,
 * and the output replaces the input. */
static kd_layer_map place_evaluation_layer(const kd_bert_run *run, kd_arena *arena)
{
    const kd_bert_config *c = &run->model->config;
    kd_layer_map m;
    m.x = m.y = NULL; /* rows of run->x */
    m.q = kd_arena_floats(arena, run->R * c->C);
    m.k = kd_arena_floats(arena, run->R * c->C);
    m.v = kd_arena_floats(arena, run->R * c->C);
    m.ctx = kd_arena_floats(arena, run->R * c->C);
    m.lse = kd_arena_floats(arena, run->R * c->H);
    m.s1 = m.s2 = kd_arena_floats(arena, run->R * c->C);
    m.st1 = m.st2 = kd_arena_floats(arena, run->R * 2);
    m.h = kd_arena_floats(arena, run->R * c->C);
    m.up = NULL;
    m.act = kd_arena_floats(arena, run->R * c->F);
    return m;
}

static kd_member place_member(const kd_bert_run *run, kd_arena *arena)
{
    const kd_bert_config *c = &run->model->config;
    kd_attention attention = {.H = c->H, .D = c->C / c->H};
    kd_member m = {0};
    m.attention = kd_arena_floats(arena, kd_max(kd_attention_scratch(&attention, run->longest),
                                                kd_attention_absorbed_scratch(&attention, run->longest)));
    if (run->mode == KD_EVALUATE) {
        m.layer = place_evaluation_layer(run, arena);
        m.cls = run->cls_only ? place_cls(run, arena, tail_rows(run)) : m.cls;
    } else {
        m.dz = run->cls_only ? kd_arena_floats(arena, tail_rows(run) * c->H * c->C) : NULL;
        m.dx = kd_arena_floats(arena, run->R * c->C);
        m.dctx = kd_arena_floats(arena, run->R * c->C);
        m.dact = kd_arena_floats(arena, run->R * c->F);
        m.outer = kd_arena_floats(arena, kd_linear_tile_size(&run->model->arithmetic));
    }
    return m;
}

static void place_training(kd_bert_run *run, kd_arena *arena)
{
    const kd_bert_config *c = &run->model->config;
    ptrdiff_t B = run->batch.B, N = run->batch.N;
    run->embedding_sum = kd_arena_floats(arena, N * c->C);
    run->embedding_stats = kd_arena_floats(arena, N * 2);
    run->dcls = kd_arena_floats(arena, B * c->C);
    run->partials = kd_arena_floats(arena, (run->chunks + kd_bert_tail_items(run)) * run->model->layout.vector_size);
    run->layers = kd_arena_take(arena, c->L, sizeof *run->layers);
    for (ptrdiff_t l = 0; l < c->L; l++) {
        kd_layer_map map = place_training_layer(run, arena, l);
        if (!run->layers)
            continue;
        run->layers[l] = map;
        if (l > 0)
            run->layers[l - 1].y = map.x;
        if (l == c->L - 1 && run->cls_only)
            run->layers[l].y = run->cls;
    }
    if (run->cls_only)
        run->cls_map = place_cls(run, arena, B);
}

/* Fills every pointer of `run`, whose inputs (model, batch sizes and starts, mode, ...) are set. */
static void place_run(kd_bert_run *run, kd_arena *arena)
{
    const kd_bert_config *c = &run->model->config;
    ptrdiff_t B = run->batch.B, N = run->batch.N;
    cut_chunks(run, NULL);
    run->chunk = kd_arena_take(arena, run->chunks + 1, sizeof *run->chunk);
    if (run->chunk)
        cut_chunks(run, run->chunk);
    run->cls_in = run->cls_only ? kd_arena_floats(arena, B * c->C) : NULL;
    run->cls = kd_arena_floats(arena, B * c->C);
    run->pooled = kd_arena_floats(arena, B * c->C);
    run->dropped = kd_arena_floats(arena, B * c->C);
    run->logits = kd_arena_floats(arena, B * c->K);
    if (run->mode == KD_TRAIN)
        place_training(run, arena);
    else
        run->x = kd_arena_floats(arena, N * c->C);
    run->members = kd_arena_take(arena, run->threads, sizeof *run->members);
    for (int i = 0; i < run->threads; i++) {
        kd_member member = place_member(run, arena);
        if (run->members)
            run->members[i] = member;
    }
}

/* Takes room for the run itself and its copy of the batch, then places the rest. */
static kd_bert_run *place_all(kd_bert_run *run, kd_arena *arena)
{
    kd_batch *batch = &run->batch;
    kd_bert_run *home = kd_arena_take(arena, 1, sizeof *home);
    int32_t *ids = kd_arena_take(arena, batch->N, sizeof *ids);
    int32_t *types = kd_arena_take(arena, batch->N, sizeof *types);
    int64_t *starts = kd_arena_take(arena, batch->B + 1, sizeof *starts);
    place_run(run, arena);
    if (!home)
        return NULL;
    memcpy(ids, batch->ids, (size_t)batch->N * sizeof *ids);
    memcpy(types, batch->types, (size_t)batch->N * sizeof *types);
    memcpy(starts, batch->starts, (size_t)(batch->B + 1) * sizeof *starts);
    *batch = (kd_batch){ids, types, starts, batch->B, batch->N};
    *home = *run;
    return home;
}

size_t kd_bert_workspace(const kd_bert *model, const kd_batch *batch, kd_mode mode, int cls_only, int threads)
{
    kd_bert_run run = {.model = model, .batch = *batch, .mode = mode, .cls_only = cls_only, .threads = threads};
    kd_arena measure = kd_arena_over(NULL);
    place_all(&run, &measure);
    return measure.used;
}

kd_bert_run *kd_bert_begin(const kd_bert *model, void *workspace, const kd_batch *batch, const kd_dropout *dropout,
                           kd_mode mode, int cls_only, int threads)
{
    kd_bert_run run = {
        .model = model, .batch = *batch, .dropout = *dropout, .mode = mode, .cls_only = cls_only, .threads = threads};
    kd_arena arena = kd_arena_over(workspace);
    return place_all(&run, &arena);
}

ptrdiff_t kd_bert_tail_items(const kd_bert_run *run) { return pieces(run->batch.B, LEAST_TAIL, MOST_TAIL); }

static kd_span span_of(const kd_bert_run *run, ptrdiff_t b0, ptrdiff_t b1, int cls)
{
    kd_span span = {b0, b1, (ptrdiff_t)run->batch.starts[b0], tokens_of(&run->batch, b0, b1), 0, cls};
    span.M = cls ? b1 - b0 : span.N;
    return span;
}

kd_span kd_bert_body_span(const kd_bert_run *run, ptrdiff_t item)
{
    return span_of(run, (ptrdiff_t)run->chunk[item], (ptrdiff_t)run->chunk[item + 1], 0);
}

kd_span kd_bert_tail_span(const kd_bert_run *run, ptrdiff_t item)
{
    ptrdiff_t B = run->batch.B, items = kd_bert_tail_items(run);
    return span_of(run, item * B / items, (item + 1) * B / items, 1);
}

static float *row(float *base, ptrdiff_t index, ptrdiff_t width) { return base ? base + index * width : NULL; }

kd_layer_map kd_bert_view(const kd_bert_run *run, ptrdiff_t layer, const kd_span *span, int member)
{
    const kd_bert_config *c = &run->model->config;
    int last_of_cls = run->cls_only && layer == c->L - 1;
    if (run->mode == KD_EVALUATE) {
        kd_layer_map m = run->members[member].layer;
        m.x = run->x + span->t0 * c->C;
        m.y = last_of_cls ? run->cls + span->b0 * c->C : m.x;
        return m;
    }
    kd_layer_map m = run->layers[layer];
    ptrdiff_t r = last_of_cls ? span->b0 : span->t0;
    m.x = row(m.x, span->t0, c->C);
    m.k = row(m.k, span->t0, c->C);
    m.v = row(m.v, span->t0, c->C);
    m.q = row(m.q, r, c->C);
    m.ctx = row(m.ctx, r, c->C);
    m.lse = row(m.lse, r, c->H);
    m.s1 = row(m.s1, r, c->C);
    m.st1 = row(m.st1, r, 2);
    m.h = row(m.h, r, c->C);
    m.up = row(m.up, r, c->F);
    m.act = row(m.act, r, c->F);
    m.s2 = row(m.s2, r, c->C);
    m.st2 = row(m.st2, r, 2);
    m.y = row(m.y, r, c->C);
    return m;
}

kd_cls_map kd_bert_cls_view(const kd_bert_run *run, const kd_span *span, int member)
{
    const kd_bert_config *c = &run->model->config;
    if (run->mode == KD_EVALUATE)
        return run->members[member].cls;
    kd_cls_map m = run->cls_map;
    m.u += span->b0 * c->H * c->C;
    m.z += span->b0 * c->H * c->C;
    m.total += span->b0 * c->H;
    m.dctx += span->b0 * c->C;
    m.dq += span->b0 * c->C;
    return m;
}

float *kd_bert_partial(const kd_bert_run *run, ptrdiff_t item)
{
    return run->partials + item * run->model->layout.vector_size;
}
