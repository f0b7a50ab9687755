#include "model/kd_bert_run.h"

#include <string.h>

/* dst (b1 - b0, C) = the first row of each of the span's sequences in x (N, C). */
static void gather_cls(const kd_bert_run *run, float *dst, const float *x, const kd_span *span)
{
    const ptrdiff_t C = run->model->config.C;
    for (ptrdiff_t b = span->b0; b < span->b1; b++)
        memcpy(dst + (b - span->b0) * C, x + ((ptrdiff_t)run->batch.starts[b] - span->t0) * C,
               (size_t)C * sizeof(float));
}

static void embed(const kd_bert_run *run, float *x, const kd_span *span)
{
    const kd_bert *model = run->model;
    const ptrdiff_t C = model->config.C;
    const kd_kernels *kernels = model->arithmetic.kernels;
    kd_embed_tables tables = kd_bert_embeddings(model, model->parameters);
    kd_norm norm = kd_bert_norm(model, KD_TENSOR_embedding_gamma, 0);
    float discarded[2];
    if (run->mode == KD_TRAIN) {
        float *sum = run->embedding_sum + span->t0 * C;
        kd_embed_forward(kernels, sum, &run->batch, &tables, span->b0, span->b1, C);
        kd_norm_forward(kernels, x, run->embedding_stats + span->t0 * 2, sum, NULL, &norm, span->N);
    } else {
        kd_embed_forward(kernels, x, &run->batch, &tables, span->b0, span->b1, C);
        for (ptrdiff_t r = 0; r < span->N; r++)
            kd_norm_forward(kernels, x + r * C, discarded, x + r * C, NULL, &norm, 1);
    }
    kd_bert_drop(run, x, x, KD_DROP_EMBEDDING, span, C, model->config.p_hidden);
}

/* A chunk of whole sequences through a stage's layers. All chunks of a stage come before the next stage. */
static void body_item(const kd_bert_run *run, ptrdiff_t item, int member)
{
    const ptrdiff_t layers = kd_bert_body_layers(run), C = run->model->config.C;
    const ptrdiff_t first = item / run->chunks * run->stage_layers, end = kd_min(first + run->stage_layers, layers);
    kd_span span = kd_bert_body_span(run, item % run->chunks);
    kd_layer_map view = kd_bert_view(run, first, &span, member);
    const float *output = view.x;
    if (first == 0)
        embed(run, view.x, &span);
    for (ptrdiff_t l = first; l < end; l++) {
        kd_layer_weights w = kd_bert_layer_weights(run->model, l);
        view = kd_bert_view(run, l, &span, member);
        kd_layer_attend(run, &view, &w, l, &span, member);
        kd_layer_output(run, &view, &w, view.x, l, &span);
        output = view.y;
    }
    if (end == layers)
        gather_cls(run, (run->cls_only ? run->cls_in : run->cls) + span.b0 * C, output, &span);
}

/* logits = classifier(dropout(tanh(pooler(cls)))). */
static void head(const kd_bert_run *run, const kd_span *span)
{
    const kd_bert *model = run->model;
    const kd_arithmetic *math = &model->arithmetic;
    const ptrdiff_t C = model->config.C, M = span->M;
    kd_linear pooler = kd_bert_linear(model, KD_TENSOR_pooler, 0);
    kd_linear classifier = kd_bert_linear(model, KD_TENSOR_classifier, 0);
    float *pooled = run->pooled + span->b0 * C, *dropped = run->dropped + span->b0 * C;
    kd_linear_forward(math, pooled, run->cls + span->b0 * C, &pooler, M);
    math->kernels->tanh(pooled, pooled, M * C);
    kd_bert_drop(run, dropped, pooled, KD_DROP_CLASSIFIER, span, C, model->config.p_classifier);
    kd_linear_forward(math, run->logits + span->b0 * model->config.K, dropped, &classifier, M);
}

/* The last layer on [CLS] rows, when it was not done in full, then the head. */
static void tail_item(const kd_bert_run *run, ptrdiff_t item, int member)
{
    const ptrdiff_t last = run->model->config.L - 1;
    kd_span span = kd_bert_tail_span(run, item);
    if (run->cls_only) {
        kd_layer_weights w = kd_bert_layer_weights(run->model, last);
        kd_layer_map view = kd_bert_view(run, last, &span, member);
        kd_cls_map cls = kd_bert_cls_view(run, &span, member);
        const float *x_cls = run->cls_in + span.b0 * run->model->config.C;
        kd_cls_attend(run, &view, &cls, &w, x_cls, &span, member);
        kd_layer_output(run, &view, &w, x_cls, last, &span);
    }
    head(run, &span);
}

ptrdiff_t kd_bert_items(const kd_bert_run *run, kd_phase phase)
{
    switch (phase) {
    case KD_PHASE_BODY: return run->chunks * kd_max(1, kd_ceil_div(kd_bert_body_layers(run), run->stage_layers));
    case KD_PHASE_BODY_BACK: return run->chunks;
    case KD_PHASE_TAIL:
    case KD_PHASE_TAIL_BACK: return kd_bert_tail_items(run);
    default: return kd_bert_weight_items(run);
    }
}

double kd_bert_item_cost(const kd_bert_run *run, kd_phase phase)
{
    const double layer = kd_bert_layer_flops(&run->model->config);
    const double tokens = (double)run->batch.N / (double)run->chunks;
    switch (phase) {
    case KD_PHASE_BODY: return (double)run->stage_layers * layer * tokens;
    case KD_PHASE_BODY_BACK: /* of a single layer, the embeddings are left */
        return (double)kd_max(1, kd_bert_body_layers(run)) * layer * tokens;
    case KD_PHASE_TAIL:
    case KD_PHASE_TAIL_BACK: return layer * (double)run->batch.B / (double)kd_bert_tail_items(run);
    default: return 2.0 * KD_LINEAR_TILE_O * KD_LINEAR_TILE_I * (double)run->batch.N;
    }
}

typedef struct item_range {
    kd_bert_run *run;
    kd_phase phase;
    ptrdiff_t from;
} item_range;

static void do_item(void *context, ptrdiff_t index, int member)
{
    const item_range *range = context;
    ptrdiff_t item = range->from + index;
    switch (range->phase) {
    case KD_PHASE_BODY: body_item(range->run, item, member); break;
    case KD_PHASE_TAIL: tail_item(range->run, item, member); break;
    case KD_PHASE_TAIL_BACK: kd_bert_tail_back_item(range->run, item, member); break;
    case KD_PHASE_BODY_BACK: kd_bert_body_back_item(range->run, item, member); break;
    case KD_PHASE_WEIGHTS: kd_bert_weight_item(range->run, item, member); break;
    }
}

void kd_bert_do(kd_bert_run *run, kd_phase phase, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    while (from < to) {
        ptrdiff_t end = phase == KD_PHASE_BODY ? kd_min(to, (from / run->chunks + 1) * run->chunks) : to;
        item_range range = {run, phase, from};
        kd_pool_run(team, do_item, &range, end - from);
        from = end;
    }
}

float *kd_bert_logits(kd_bert_run *run) { return run->logits; }

const kd_batch *kd_bert_batch(const kd_bert_run *run) { return &run->batch; }
