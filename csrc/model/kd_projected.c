#include "model/kd_projected.h"

#include "model/kd_layer.h"

#include <string.h>

/* A tap of the last layer and its product. */
typedef struct projection {
    kd_tap_kind tap;
    const kd_linear *linear;
    kd_slot weight, bias;
} projection;

enum { PROJECTIONS = 3 };

static ptrdiff_t last_layer(const kd_run *run) { return run->model->encoder.L - 1; }

static projection projection_of(const kd_run *run, int index)
{
    const kd_layer_weights *w = &run->model->layers[last_layer(run)];
    const projection all[PROJECTIONS] = {{KD_TAP_QUERY, &w->query, KD_SLOT_query, KD_SLOT_query_bias},
                                         {KD_TAP_KEY, &w->key, KD_SLOT_key, KD_SLOT_key_bias},
                                         {KD_TAP_VALUE, &w->value, KD_SLOT_value, KD_SLOT_value_bias}};
    return all[index];
}

/* rows (M, A), with the bits that kd_layer_attend hands out: through an operand where its attention reads one. */
static void project(const kd_run *run, float *rows, const void *x, const kd_linear *linear, ptrdiff_t M, int member)
{
    const kd_engine *engine = kd_map_attender(run);
    if (!engine) {
        kd_linear_forward(rows, x, linear, M);
        return;
    }
    void *operand = run->members[member].q;
    kd_linear_forward_operand(operand, rows, x, linear, M);
    engine->widen(rows, linear->O, operand, M, linear->O);
}

void kd_projected_forward(const kd_run *run, const float *x, const kd_span *span, int member)
{
    const ptrdiff_t C = run->model->encoder.C;
    const kd_taps *taps = &run->pass.taps;
    if (!kd_tap_projects(taps, last_layer(run)))
        return;
    if (run->last_x)
        memcpy(run->last_x + span->t0 * C, x, (size_t)(span->N * C) * sizeof(float));
    const void *operand = kd_linear_operand(projection_of(run, 0).linear, x, span->N, run->members[member].operand);
    for (int i = 0; i < PROJECTIONS; i++) {
        const projection p = projection_of(run, i);
        float *rows = kd_tap_rows(taps, p.tap, last_layer(run), span, p.linear->O);
        if (rows)
            project(run, rows, operand, p.linear, span->N, member);
    }
}

void kd_projected_backward(const kd_run *run, float *dx, const kd_span *span, float *partial, int member)
{
    const ptrdiff_t last = last_layer(run);
    for (int i = 0; i < PROJECTIONS; i++) {
        const projection p = projection_of(run, i);
        const float *dy = kd_projected_gradient(run, p.weight);
        if (!dy)
            continue;
        dy += span->t0 * p.linear->O;
        kd_layer_bias_backward(run, partial, p.bias, last, dy, span->N, p.linear->O);
        kd_linear_backward_input(dx, kd_linear_operand_back(p.linear, dy, span->N, run->members[member].operand),
                                 p.linear, span->N, 1);
    }
}

const float *kd_projected_gradient(const kd_run *run, kd_slot weight)
{
    for (int i = 0; run->last_x && i < PROJECTIONS; i++) {
        const projection p = projection_of(run, i);
        if (p.weight == weight)
            return kd_tap_gradient(&run->pass.taps, p.tap, last_layer(run));
    }
    return NULL;
}
