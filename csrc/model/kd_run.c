#include "model/kd_run.h"

#include "layers/kd_relative.h"
#include "model/kd_input.h"
#include "model/kd_layer.h"
#include "model/kd_picked.h"
#include "model/kd_projected.h"
#include "model/kd_weights.h"

#include <math.h>
#include <string.h>

static void clear(float *x, ptrdiff_t n) { memset(x, 0, (size_t)n * sizeof(float)); }

/* What the head reads of a chunk's last rows that are computed for all tokens: output (N, C). */
static void pick(const kd_run *run, ptrdiff_t chunk, const float *output)
{
    const ptrdiff_t C = run->model->encoder.C;
    const kd_span span = kd_map_picked_span(run, chunk);
    if (run->pick == KD_PICK_MEAN)
        kd_span_mean(run->model->arithmetic.kernels, run->head.rows + span.r0 * C, output, &span, C);
    else if (run->pick != KD_PICK_ALL)
        kd_span_gather((run->last_picked ? run->picked.x : run->head.rows) + span.r0 * C, output, &span, C);
}

/* A chunk of whole sequences through a stage's layers. All chunks of a stage come before the next stage. */
static void layers_item(const kd_run *run, ptrdiff_t item, int member)
{
    const ptrdiff_t layers = kd_map_full_layers(run), C = run->model->encoder.C;
    const ptrdiff_t first = item / run->chunks * run->stage_layers, end = kd_min(first + run->stage_layers, layers);
    const ptrdiff_t chunk = item % run->chunks;
    const kd_span span = kd_map_chunk_span(run, chunk);
    kd_layer_map view = kd_map_layer(run, first, &span, member);
    const float *output = view.x;
    if (first == 0) {
        kd_input_forward(run, view.x, &span, member);
        kd_tap_store(&run->pass.taps, KD_TAP_HIDDEN, 0, view.x, &span, C);
    }
    for (ptrdiff_t l = first; l < end; l++) {
        view = kd_map_layer(run, l, &span, member);
        const void *ctx = kd_layer_attend(run, &view, l, &span, member);
        kd_layer_output(run, &view, view.x, ctx, l, &span, member);
        output = view.y;
        kd_tap_store(&run->pass.taps, KD_TAP_HIDDEN, l + 1, output, &span, C);
    }
    if (end == layers)
        pick(run, chunk, output);
    if (end == layers && run->last_picked)
        kd_projected_forward(run, output, &span, member);
}

static void head_item(const kd_run *run, ptrdiff_t item, int member)
{
    const kd_model *model = run->model;
    const ptrdiff_t last = model->encoder.L - 1;
    const kd_span span = kd_map_head_span(run, item);
    const kd_head_map map = kd_map_head(run, &span);
    if (run->last_picked) {
        const kd_layer_map view = kd_map_layer(run, last, &span, member);
        const kd_picked_map picked = kd_map_picked(run, &span, member);
        const void *ctx = kd_picked_attend(run, &view, &picked, &span, member);
        kd_layer_output(run, &view, picked.x, ctx, last, &span, member);
    }
    kd_head_forward(run->team, &model->arithmetic, &map, &model->head, &model->head_weights, &span, model->encoder.C);
}

/* Where a slot's gradient is summed, or NULL if the model lacks it. */
static float *head_vector(const kd_run *run, float *partial, kd_slot slot)
{
    return kd_model_tensor(run->model, slot, 0) ? kd_map_vector(run, partial, slot, 0) : NULL;
}

/* The gradient of relative positions' numbers is summed by distance in an item, then by bucket at its end. */
static void begin_relative(const kd_run *run, int member)
{
    const kd_encoder_config *c = &run->model->encoder;
    if (c->R)
        clear(run->members[member].dspread, c->RH * (2 * run->longest - 1));
}

static void end_relative(const kd_run *run, float *partial, int member)
{
    const kd_encoder_config *c = &run->model->encoder;
    if (c->R)
        kd_relative_gather(kd_map_vector(run, partial, KD_SLOT_relative_bias, 0), run->members[member].dspread,
                           run->longest, c->RH, c->R, c->distance, sqrtf((float)c->D));
}

static void head_back_item(const kd_run *run, ptrdiff_t item, int member)
{
    const kd_model *model = run->model;
    const ptrdiff_t last = model->encoder.L - 1;
    const kd_span span = kd_map_head_span(run, item);
    const kd_head_map map = kd_map_head(run, &span);
    float *drows = run->drows + span.r0 * model->encoder.C;
    float *partial = kd_map_partial(run, run->chunks + item);
    clear(partial, model->sizes.vectors);
    const kd_head_vectors sums = {
        head_vector(run, partial, KD_SLOT_head_dense_bias), head_vector(run, partial, KD_SLOT_head_norm),
        head_vector(run, partial, KD_SLOT_head_norm_bias), head_vector(run, partial, KD_SLOT_head_output_bias)};
    kd_head_backward(&model->arithmetic, drows, &sums, &map, &model->head, &model->head_weights, &span,
                     model->encoder.C);
    if (run->last_picked) {
        const kd_layer_map view = kd_map_layer(run, last, &span, member);
        const kd_picked_map picked = kd_map_picked(run, &span, member);
        begin_relative(run, member);
        kd_layer_output_backward(run, &view, picked.dctx, drows, last, &span, partial, member);
        kd_picked_attend_backward(run, &view, &picked, drows, &span, partial, member);
        end_relative(run, partial, member);
    }
}

/* The gradient of what the layers computed for all tokens have put out: (N, C) of the span's tokens. */
static float *from_head(const kd_run *run, ptrdiff_t chunk, const kd_span *span, int member)
{
    const kd_kernels *kernels = run->model->arithmetic.kernels;
    const ptrdiff_t C = run->model->encoder.C;
    const kd_span picked = kd_map_picked_span(run, chunk);
    const float *drows = run->drows + picked.r0 * C;
    if (run->pick == KD_PICK_ALL)
        return run->drows + span->t0 * C;
    float *dx = run->members[member].dx;
    if (run->last_picked) /* HEAD_BACK has left there what comes through keys and values */
        dx = kd_map_layer(run, run->model->encoder.L - 1, span, member).x;
    else
        clear(dx, span->N * C);
    if (run->pick == KD_PICK_MEAN)
        kd_span_mean_backward(kernels, dx, drows, &picked, C);
    else
        kd_span_scatter(kernels, dx, drows, &picked, C);
    return dx;
}

static void layers_back_item(const kd_run *run, ptrdiff_t item, int member)
{
    const kd_kernels *kernels = run->model->arithmetic.kernels;
    const ptrdiff_t C = run->model->encoder.C, layers = kd_map_full_layers(run);
    const kd_span span = kd_map_chunk_span(run, item);
    float *partial = kd_map_partial(run, item), *dctx = run->members[member].dctx;
    clear(partial, run->model->sizes.vectors);
    begin_relative(run, member);
    float *dx = from_head(run, item, &span, member);
    kd_projected_backward(run, dx, &span, partial, member);
    kd_tap_add(kernels, &run->pass.taps, KD_TAP_HIDDEN, layers, dx, &span, C);
    for (ptrdiff_t layer = layers - 1; layer >= 0; layer--) {
        const kd_layer_map view = kd_map_layer(run, layer, &span, member);
        kd_layer_output_backward(run, &view, dctx, dx, layer, &span, partial, member);
        kd_layer_attend_backward(run, &view, dctx, dx, layer, &span, partial, member);
        kd_tap_add(kernels, &run->pass.taps, KD_TAP_HIDDEN, layer, dx, &span, C);
    }
    end_relative(run, partial, member);
    kd_input_backward(run, dx, &span, partial, member);
}

ptrdiff_t kd_run_items(const kd_run *run, kd_phase phase)
{
    switch (phase) {
    case KD_PHASE_LAYERS: return run->chunks * kd_max(1, kd_ceil_div(kd_map_full_layers(run), run->stage_layers));
    case KD_PHASE_LAYERS_BACK: return run->chunks;
    case KD_PHASE_HEAD:
    case KD_PHASE_HEAD_BACK: return kd_map_head_items(run);
    default: return kd_weights_items(run);
    }
}

/* Of one row of the head, and of the last layer where that is computed for the head's rows. */
static double head_row_flops(const kd_run *run)
{
    const kd_head_config *head = &run->model->head;
    const double C = (double)run->model->encoder.C, last = kd_model_layer_flops(run->model, run->model->encoder.L - 1);
    const double J = (double)kd_head_width(head, run->model->encoder.C);
    return 2.0 * J * ((head->dense ? C : 0.0) + (double)head->K) +
           (run->last_picked ? last + kd_map_picked_flops(run) : 0.0);
}

double kd_run_item_cost(const kd_run *run, kd_phase phase)
{
    const double layer = kd_map_token_flops(run);
    const double tokens = (double)run->pass.batch.N / (double)run->chunks;
    switch (phase) {
    case KD_PHASE_LAYERS: return (double)run->stage_layers * layer * tokens;
    case KD_PHASE_LAYERS_BACK: /* of a single layer, the embeddings are left */
        return (double)kd_max(1, kd_map_full_layers(run)) * layer * tokens;
    case KD_PHASE_HEAD:
    case KD_PHASE_HEAD_BACK: return head_row_flops(run) * (double)run->head_rows / (double)kd_map_head_items(run);
    default: /* a weight that layers share has a use in each */
        return 2.0 * KD_LINEAR_TILE_O * KD_LINEAR_TILE_I * (double)run->pass.batch.N *
               (double)(run->model->encoder.shared ? run->model->encoder.L : 1);
    }
}

/* A thread's share of an item's operations for which waking it and waiting for it pays. */
#define LEAST_SHARE 1.5e7

/* No more threads than the narrowest product has panels. The head's items are small, but after shared layers the threads
 * are awake. */
int kd_run_sharers(const kd_run *run, kd_phase phase, int threads)
{
    const kd_model *model = run->model;
    const ptrdiff_t items = phase == KD_PHASE_LAYERS ? run->chunks : kd_map_head_items(run);
    if (run->pass.mode != KD_EVALUATE || (phase != KD_PHASE_LAYERS && phase != KD_PHASE_HEAD))
        return 1;
    const double layers = (double)kd_min(run->stage_layers, kd_map_full_layers(run));
    const double tokens = (double)run->pass.batch.N / (double)run->chunks;
    const double shares = layers * kd_model_mean_flops(model) * tokens / LEAST_SHARE;
    const ptrdiff_t panels = kd_ceil_div(model->encoder.C, model->arithmetic.engine.part);
    const ptrdiff_t sharers = kd_min(threads, shares < (double)panels ? (ptrdiff_t)shares : panels);
    return 2 * items <= sharers ? (int)sharers : 1;
}

typedef struct item_range {
    kd_run *run;
    kd_phase phase;
    ptrdiff_t from;
} item_range;

static void do_item(void *context, ptrdiff_t index, int member)
{
    const item_range *range = context;
    ptrdiff_t item = range->from + index;
    switch (range->phase) {
    case KD_PHASE_LAYERS: layers_item(range->run, item, member); break;
    case KD_PHASE_HEAD: head_item(range->run, item, member); break;
    case KD_PHASE_HEAD_BACK: head_back_item(range->run, item, member); break;
    case KD_PHASE_LAYERS_BACK: layers_back_item(range->run, item, member); break;
    case KD_PHASE_WEIGHTS: kd_weights_item(range->run, item, member); break;
    }
}

/* The items from `from` on that wait for each other: those of a stage, or tiles and what adds to the same tensor. */
static ptrdiff_t together_until(const kd_run *run, kd_phase phase, ptrdiff_t from, ptrdiff_t to)
{
    if (phase == KD_PHASE_LAYERS)
        return kd_min(to, (from / run->chunks + 1) * run->chunks);
    const ptrdiff_t tiles = phase == KD_PHASE_WEIGHTS && run->model->head.tied ? kd_weights_tiles(run) : 0;
    return from < tiles ? kd_min(to, tiles) : to;
}

void kd_run_do(kd_run *run, kd_phase phase, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    while (from < to) {
        const ptrdiff_t end = together_until(run, phase, from, to);
        item_range range = {run, phase, from};
        kd_pool_run(team, do_item, &range, end - from);
        from = end;
    }
}

void kd_run_do_shared(kd_run *run, kd_phase phase, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    item_range range = {run, phase, from};
    run->team = team;
    for (ptrdiff_t i = 0; i < to - from; i++)
        do_item(&range, i, 0);
    run->team = NULL;
}
