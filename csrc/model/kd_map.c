#include "model/kd_map.h"

#include "layers/kd_relative.h"

#include <math.h>
#include <string.h>

/* An array is placed and looked up in this one file, so that the two cannot differ. */

enum {
    BLOCK_ROWS = 256,     /* rows whose logits kd_decoder holds at once, 31 MB of BERT's vocabulary; half of them */
    MANY_OUTPUTS = 65536, /* above so many outputs */
};

/* ---- placement */

/* The widest layer's heads, attention and feed-forward. */
typedef struct widest {
    ptrdiff_t H, A, F;
} widest;

static widest widest_of(const kd_encoder_config *c)
{
    widest w = {0, 0, 0};
    for (ptrdiff_t l = 0; l < c->L; l++) {
        w.H = kd_max(w.H, c->layers[l].H);
        w.F = kd_max(w.F, c->layers[l].F);
    }
    w.A = w.H * c->D;
    return w;
}

static kd_layer_map place_training_layer(const kd_run *run, kd_arena *arena, ptrdiff_t layer)
{
    const kd_encoder_config *c = &run->model->encoder;
    const ptrdiff_t C = c->C, A = kd_encoder_width(c, layer), H = c->layers[layer].H, F = c->layers[layer].F;
    int last = layer == c->L - 1, picked = last && run->last_picked;
    ptrdiff_t N = run->pass.batch.N, rows = picked ? run->pass.batch.B : N;
    kd_layer_map m;
    m.x = kd_arena_floats(arena, N * C);
    m.q = kd_arena_floats(arena, rows * A);
    m.k = picked ? NULL : kd_arena_floats(arena, N * A);
    m.v = picked ? NULL : kd_arena_floats(arena, N * A);
    m.ctx = kd_arena_floats(arena, rows * A);
    m.lse = kd_arena_floats(arena, rows * H);
    m.pre_norm1 = kd_arena_floats(arena, rows * C);
    m.stats1 = kd_arena_floats(arena, rows * 2);
    m.h = kd_arena_floats(arena, rows * C);
    m.slope = kd_arena_floats(arena, rows * F);
    m.act = kd_arena_floats(arena, rows * F);
    m.pre_norm2 = kd_arena_floats(arena, rows * C);
    m.stats2 = kd_arena_floats(arena, rows * 2);
    m.y = last && !picked ? kd_arena_floats(arena, N * C) : NULL;
    return m;
}

/* Evaluating, a layer's arrays are reused as soon as nothing reads them: pre_norm1, h's sum and pre_norm2 share one,
 * and the output replaces the input. */
static kd_layer_map place_evaluation_layer(const kd_run *run, kd_arena *arena)
{
    const widest w = widest_of(&run->model->encoder);
    const ptrdiff_t R = run->R, C = run->model->encoder.C;
    kd_layer_map m;
    m.x = m.y = NULL; /* rows of run->x */
    m.q = kd_arena_floats(arena, R * w.A);
    m.k = kd_map_attender(run) ? NULL : kd_arena_floats(arena, R * w.A);
    m.v = kd_map_attender(run) ? NULL : kd_arena_floats(arena, R * w.A);
    m.ctx = kd_arena_floats(arena, R * w.A);
    m.lse = kd_arena_floats(arena, R * w.H);
    m.pre_norm1 = m.pre_norm2 = kd_arena_floats(arena, R * C);
    m.stats1 = m.stats2 = kd_arena_floats(arena, R * 2);
    m.h = kd_arena_floats(arena, R * C);
    m.slope = NULL;
    m.act = kd_arena_floats(arena, R * w.F);
    return m;
}

/* All but x. */
static kd_picked_map place_picked(const kd_run *run, kd_arena *arena, ptrdiff_t rows)
{
    const kd_encoder_config *c = &run->model->encoder;
    const ptrdiff_t H = c->layers[c->L - 1].H, A = kd_encoder_width(c, c->L - 1);
    kd_picked_map m = {0};
    m.u = kd_arena_floats(arena, rows * H * c->C);
    m.z = kd_arena_floats(arena, rows * H * c->C);
    m.total = kd_arena_floats(arena, rows * H);
    if (run->pass.mode == KD_TRAIN) {
        m.dctx = kd_arena_floats(arena, rows * A);
        m.dq = kd_arena_floats(arena, rows * A);
    }
    return m;
}

/* Room for the left operand of a product, if the compute type converts it. */
static void *place_operand(const kd_run *run, kd_arena *arena, ptrdiff_t K)
{
    const kd_engine *engine = &run->model->arithmetic.engine;
    return engine->convert ? kd_arena_take(arena, engine->operand_bytes(run->R, K), 1) : NULL;
}

/* Numbers of relative positions by distance, if there are any. */
static float *place_spread(const kd_run *run, kd_arena *arena)
{
    const kd_encoder_config *c = &run->model->encoder;
    return c->R ? kd_arena_floats(arena, c->RH * (2 * run->longest - 1)) : NULL;
}

/* Room for attention by the engine that has it. */
static void place_attender(const kd_run *run, kd_arena *arena, kd_member *m)
{
    const kd_engine *engine = kd_map_attender(run);
    const widest w = widest_of(&run->model->encoder);
    const ptrdiff_t D = run->model->encoder.D, bytes = engine->operand_bytes(run->R, w.A);
    m->q = kd_arena_take(arena, bytes, 1);
    m->k = kd_arena_take(arena, bytes, 1);
    m->v = kd_arena_take(arena, bytes, 1);
    m->attend = kd_arena_take(arena, engine->attend_bytes(run->longest, w.H, D), 1);
}

static kd_member place_member(const kd_run *run, kd_arena *arena)
{
    const kd_encoder_config *c = &run->model->encoder;
    const widest w = widest_of(c);
    const kd_attention attention = {.H = w.H, .D = c->D, .C = c->C};
    kd_member m = {0};
    m.attention = kd_arena_floats(arena, kd_max(kd_attention_scratch(&attention, run->longest),
                                                kd_attention_absorbed_scratch(&attention, run->longest)));
    m.operand = place_operand(run, arena, kd_max(kd_max(c->C, c->E), w.A));
    m.wide_operand = place_operand(run, arena, w.F);
    if (kd_map_attender(run))
        place_attender(run, arena, &m);
    m.logits = run->pass.features_only ? kd_arena_floats(arena, 2 * run->model->head.K) : NULL;
    m.embedded = c->projected ? kd_arena_floats(arena, run->R * c->E) : NULL;
    if (run->pass.mode == KD_EVALUATE) {
        m.layer = place_evaluation_layer(run, arena);
        m.picked = run->last_picked ? place_picked(run, arena, kd_map_picked_rows(run)) : m.picked;
    } else {
        m.dz = run->last_picked ? kd_arena_floats(arena, kd_map_picked_rows(run) * c->layers[c->L - 1].H * c->C) : NULL;
        m.dx = kd_arena_floats(arena, run->R * c->C);
        m.dctx = kd_arena_floats(arena, run->R * w.A);
        m.dact = kd_arena_floats(arena, run->R * w.F);
        m.dspread = place_spread(run, arena);
        m.outer = kd_arena_take(arena, kd_linear_tile_scratch(&run->model->arithmetic), 1);
    }
    return m;
}

/* `rows` is where the encoder's output lies when the head picks all of it, otherwise NULL. */
static kd_head_map place_head(const kd_run *run, kd_arena *arena, float *rows)
{
    const kd_head_config *head = &run->model->head;
    const int all = run->pick == KD_PICK_ALL, train = run->pass.mode == KD_TRAIN;
    const ptrdiff_t C = run->model->encoder.C, J = kd_head_width(head, C), M = run->head_rows;
    kd_head_map m = {0};
    m.rows = all ? rows : kd_arena_floats(arena, M * C);
    m.input = train && head->p_before > 0 ? kd_arena_floats(arena, M * C) : m.rows;
    m.hidden = head->dense ? kd_arena_floats(arena, M * J) : m.input;
    m.act = head->norm ? kd_arena_floats(arena, M * J) : m.hidden;
    m.stats = head->norm ? kd_arena_floats(arena, M * 2) : NULL;
    m.slope = head->dense && train ? kd_arena_floats(arena, M * J) : NULL;
    m.features = train && head->p_after > 0 ? kd_arena_floats(arena, M * J) : m.hidden;
    const int makes = kd_head_makes_outputs(head);
    if (run->pass.features_only)
        m.outputs = NULL;
    else
        m.outputs = makes ? kd_arena_floats(arena, M * kd_head_outputs(head, C)) : m.features;
    if (train)
        m.dfeatures = !makes ? m.outputs : head->dense ? kd_arena_floats(arena, M * J) : run->drows;
    return m;
}

/* Where the encoder's output lies for all tokens, or NULL. */
static float *place_training(kd_run *run, kd_arena *arena)
{
    const kd_encoder_config *c = &run->model->encoder;
    const ptrdiff_t B = run->pass.batch.B, N = run->pass.batch.N;
    run->embedding_sum = kd_arena_floats(arena, N * c->E);
    run->embedding_stats = kd_arena_floats(arena, N * 2);
    run->projected = c->projected ? kd_arena_floats(arena, N * c->E) : NULL;
    run->dprojected = c->projected ? kd_arena_floats(arena, N * c->C) : NULL;
    run->drows = kd_arena_floats(arena, run->head_rows * c->C);
    run->partials = kd_arena_floats(arena, kd_map_partial_rows(run) * run->model->sizes.vectors);
    run->layers = kd_arena_take(arena, c->L, sizeof *run->layers);
    float *output = NULL;
    for (ptrdiff_t l = 0; l < c->L; l++) {
        kd_layer_map map = place_training_layer(run, arena, l);
        output = map.y;
        if (!run->layers)
            continue;
        run->layers[l] = map;
        if (l > 0)
            run->layers[l - 1].y = map.x;
    }
    if (run->last_picked)
        run->picked = place_picked(run, arena, B);
    if (run->last_picked && kd_tap_projects(&run->pass.taps, c->L - 1))
        run->last_x = kd_arena_floats(arena, N * c->C);
    return output;
}

/* What kd_decoder computes in. */
static void place_block(kd_run *run, kd_arena *arena)
{
    const ptrdiff_t K = run->model->head.K;
    run->block_rows = kd_min(K > MANY_OUTPUTS ? BLOCK_ROWS / 2 : BLOCK_ROWS, run->head_rows);
    run->block = kd_arena_floats(arena, run->block_rows * K);
    run->terms = kd_arena_take(arena, run->head_rows * 2, sizeof *run->terms);
}

/* Fills every pointer of `run`, whose model and pass are set. */
static void place_run(kd_run *run, kd_arena *arena)
{
    const ptrdiff_t B = run->pass.batch.B, N = run->pass.batch.N, C = run->model->encoder.C;
    const int train = run->pass.mode == KD_TRAIN;
    run->head_rows = run->pick == KD_PICK_ALL ? N : run->pick == KD_PICK_LISTED ? run->pass.row_count : B;
    kd_map_cut(run, NULL);
    run->chunk = kd_arena_take(arena, run->chunks + 1, sizeof *run->chunk);
    if (run->chunk)
        kd_map_cut(run, run->chunk);
    float *output = train ? place_training(run, arena) : (run->x = kd_arena_floats(arena, N * C));
    run->picked.x = run->last_picked ? kd_arena_floats(arena, B * C) : NULL;
    run->spread = place_spread(run, arena);
    run->head = place_head(run, arena, output);
    if (train && run->layers && run->last_picked)
        run->layers[run->model->encoder.L - 1].y = run->head.rows;
    if (run->pass.features_only)
        place_block(run, arena);
    run->members = kd_arena_take(arena, run->pass.threads, sizeof *run->members);
    for (int i = 0; i < run->pass.threads; i++) {
        kd_member member = place_member(run, arena);
        if (run->members)
            run->members[i] = member;
    }
}

/* Takes room for the run itself and its copy of the batch, then places the rest. */
static kd_run *place_all(kd_run *run, kd_arena *arena)
{
    kd_batch *batch = &run->pass.batch;
    kd_run *home = kd_arena_take(arena, 1, sizeof *home);
    int32_t *ids = kd_arena_take(arena, batch->N, sizeof *ids);
    int32_t *types = kd_arena_take(arena, batch->N, sizeof *types);
    int64_t *starts = kd_arena_take(arena, batch->B + 1, sizeof *starts);
    int64_t *rows = kd_arena_take(arena, run->pass.row_count, sizeof *rows);
    kd_taps taps = {kd_arena_take(arena, run->pass.taps.count, sizeof *taps.list), run->pass.taps.count};
    place_run(run, arena);
    if (!home)
        return NULL;
    memcpy(ids, batch->ids, (size_t)batch->N * sizeof *ids);
    memcpy(types, batch->types, (size_t)batch->N * sizeof *types);
    memcpy(starts, batch->starts, (size_t)(batch->B + 1) * sizeof *starts);
    for (ptrdiff_t i = 0; i < taps.count; i++)
        taps.list[i] = run->pass.taps.list[i];
    *batch = (kd_batch){ids, types, starts, batch->B, batch->N};
    if (run->pass.rows)
        memcpy(rows, run->pass.rows, (size_t)run->pass.row_count * sizeof *rows);
    run->pass.rows = run->pass.rows ? rows : NULL;
    run->pass.taps = taps;
    *home = *run;
    return home;
}

/* The one place that decides which rows the last layer is computed for. */
static int picks_last(const kd_model *model, const kd_pass *pass)
{
    return model->head.pick == KD_PICK_FIRST && !pass->whole_last && !kd_tap_needs(&pass->taps, model->encoder.L - 1);
}

/* A run of that pass, before anything is placed. */
static kd_run run_of(const kd_model *model, const kd_pass *pass)
{
    kd_run run = {.model = model, .pass = *pass, .pick = model->head.pick, .last_picked = picks_last(model, pass)};
    if (run.pick == KD_PICK_LISTED && !pass->rows)
        run.pick = KD_PICK_ALL;
    return run;
}

/* A bound far above the floats that place_all takes, in double: as many arrays as there are, each as wide as the widest and
 * for all tokens. */
int kd_map_fits(const kd_model *model, const kd_pass *pass)
{
    const kd_encoder_config *c = &model->encoder;
    const widest w = widest_of(c);
    const double tokens = 64 + (double)pass->batch.N, positions = (double)kd_min(c->P, pass->batch.N);
    const double width = 64 + (double)(w.A + w.F + c->C + c->E + c->D + w.H + model->head.J + model->head.K) +
                         (double)w.H * (double)c->C + (double)model->sizes.vectors + (double)w.H * positions;
    const double arrays = 32 * ((double)c->L + pass->threads + 4);
    return tokens * width * arrays < 0x1p58;
}

size_t kd_map_bytes(const kd_model *model, const kd_pass *pass)
{
    kd_run run = run_of(model, pass);
    kd_arena measure = kd_arena_over(NULL);
    place_all(&run, &measure);
    return measure.used;
}

/* Fills the numbers of relative positions, which all layers and chunks read. */
static void spread_relative(const kd_run *run)
{
    const kd_model *model = run->model;
    const kd_encoder_config *c = &model->encoder;
    if (c->R)
        kd_relative_spread(run->spread, model->parameters + kd_model_tensor(model, KD_SLOT_relative_bias, 0)->offset,
                           run->longest, c->RH, c->R, c->distance, sqrtf((float)c->D));
}

kd_run *kd_map_begin(const kd_model *model, void *workspace, const kd_pass *pass)
{
    kd_run run = run_of(model, pass);
    kd_arena arena = kd_arena_over(workspace);
    kd_run *home = place_all(&run, &arena);
    spread_relative(home);
    return home;
}

/* ---- views */

static float *row(float *base, ptrdiff_t index, ptrdiff_t width) { return base ? base + index * width : NULL; }

kd_layer_map kd_map_layer(const kd_run *run, ptrdiff_t layer, const kd_span *span, int member)
{
    const kd_encoder_config *c = &run->model->encoder;
    const ptrdiff_t C = c->C, A = kd_encoder_width(c, layer), H = c->layers[layer].H, F = c->layers[layer].F;
    const int picked = run->last_picked && layer == c->L - 1;
    if (run->pass.mode == KD_EVALUATE) {
        kd_layer_map m = run->members[member].layer;
        m.x = run->x + span->t0 * C;
        m.y = picked ? run->head.rows + span->b0 * C : m.x;
        return m;
    }
    kd_layer_map m = run->layers[layer];
    ptrdiff_t r = picked ? span->b0 : span->t0;
    m.x = row(m.x, span->t0, C);
    m.k = row(m.k, span->t0, A);
    m.v = row(m.v, span->t0, A);
    m.q = row(m.q, r, A);
    m.ctx = row(m.ctx, r, A);
    m.lse = row(m.lse, r, H);
    m.pre_norm1 = row(m.pre_norm1, r, C);
    m.stats1 = row(m.stats1, r, 2);
    m.h = row(m.h, r, C);
    m.slope = row(m.slope, r, F);
    m.act = row(m.act, r, F);
    m.pre_norm2 = row(m.pre_norm2, r, C);
    m.stats2 = row(m.stats2, r, 2);
    m.y = row(m.y, r, C);
    return m;
}

kd_picked_map kd_map_picked(const kd_run *run, const kd_span *span, int member)
{
    const kd_encoder_config *c = &run->model->encoder;
    const ptrdiff_t H = c->layers[c->L - 1].H, A = kd_encoder_width(c, c->L - 1);
    const int train = run->pass.mode == KD_TRAIN;
    kd_picked_map m = train ? run->picked : run->members[member].picked;
    m.x = run->picked.x + span->b0 * c->C;
    if (train) {
        m.u += span->b0 * H * c->C;
        m.z += span->b0 * H * c->C;
        m.total += span->b0 * H;
        m.dctx += span->b0 * A;
        m.dq += span->b0 * A;
    }
    return m;
}

kd_head_map kd_map_head(const kd_run *run, const kd_span *span)
{
    const kd_head_config *head = &run->model->head;
    const ptrdiff_t C = run->model->encoder.C, J = kd_head_width(head, C), r = span->r0;
    kd_head_map m = run->head;
    m.rows += r * C;
    m.input += r * C;
    m.act += r * J;
    m.stats = row(m.stats, r, 2);
    m.hidden += r * J;
    m.slope = row(m.slope, r, J);
    m.features += r * J;
    m.outputs = row(m.outputs, r, kd_head_outputs(head, C));
    m.dfeatures = row(m.dfeatures, r, J);
    return m;
}

float *kd_map_partial(const kd_run *run, ptrdiff_t item) { return run->partials + item * run->model->sizes.vectors; }

float *kd_map_vector(const kd_run *run, float *partial, kd_slot slot, ptrdiff_t layer)
{
    return partial + kd_model_tensor(run->model, slot, layer)->vector;
}

const kd_engine *kd_map_attender(const kd_run *run)
{
    const int relative = run->model->encoder.R > 0; /* is added to scores in float32 alone */
    return run->pass.mode == KD_EVALUATE && !relative ? run->model->arithmetic.engine.attention : NULL;
}

kd_attention kd_map_attention(const kd_run *run, ptrdiff_t layer, int member)
{
    const kd_encoder_config *c = &run->model->encoder;
    return (kd_attention){
        .H = c->layers[layer].H,
        .D = c->D,
        .C = c->C,
        .dropout = &run->pass.dropout,
        .tensor = KD_DROP_ATTENTION + (int)layer * KD_DROP_PER_LAYER,
        .features = kd_round_up(c->P, KD_RANDOM_BLOCK),
        .p = c->p_attention,
        .spread = run->spread,
        .columns = c->columns ? c->columns + kd_encoder_heads_before(c, layer) : NULL,
        .dspread = run->members[member].dspread,
        .longest = run->longest,
    };
}
