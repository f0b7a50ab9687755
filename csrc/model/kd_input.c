#include "model/kd_input.h"

#include <string.h>

/* rows (N, E) = dropout(LN(sum of the tables' rows)) of the span's tokens. */
static void embed(const kd_run *run, float *rows, const kd_span *span)
{
    const kd_model *model = run->model;
    const ptrdiff_t E = model->encoder.E;
    const kd_kernels *kernels = model->arithmetic.kernels;
    const kd_embed_tables tables = kd_model_tables(model, model->parameters);
    float discarded[2];
    if (run->pass.mode == KD_TRAIN) {
        float *sum = run->embedding_sum + span->t0 * E;
        kd_embed_forward(kernels, sum, span->batch, &tables, span->b0, span->b1, E);
        kd_norm_forward(kernels, rows, run->embedding_stats + span->t0 * 2, sum, NULL, &model->embedding_norm, span->N);
    } else {
        kd_embed_forward(kernels, rows, span->batch, &tables, span->b0, span->b1, E);
        for (ptrdiff_t r = 0; r < span->N; r++)
            kd_norm_forward(kernels, rows + r * E, discarded, rows + r * E, NULL, &model->embedding_norm, 1);
    }
    kd_span_drop(kernels, rows, rows, KD_DROP_EMBEDDING, span, E, model->encoder.p_embedding);
}

void kd_input_forward(const kd_run *run, float *x, const kd_span *span, int member)
{
    const kd_encoder_config *c = &run->model->encoder;
    const kd_linear *projection = &run->model->projection;
    const kd_member *own = &run->members[member];
    if (!c->projected) {
        embed(run, x, span);
        return;
    }
    float *rows = run->pass.mode == KD_TRAIN ? run->projected + span->t0 * c->E : own->embedded;
    embed(run, rows, span);
    kd_linear_forward(x, kd_linear_operand(projection, rows, span->N, own->operand), projection, span->N);
}

/* Takes the gradient of x (N, C) through the product: returns that of its rows (N, E). */
static float *projection_backward(const kd_run *run, const float *dx, const kd_span *span, float *partial, int member)
{
    const kd_linear *projection = &run->model->projection;
    const kd_member *own = &run->members[member];
    const ptrdiff_t C = projection->O;
    float *dbias = kd_map_vector(run, partial, KD_SLOT_projection_bias, 0);
    memcpy(run->dprojected + span->t0 * C, dx, (size_t)(span->N * C) * sizeof(float));
    run->model->arithmetic.kernels->sum_rows(dbias, dx, span->N, C, C);
    kd_linear_backward_input(own->embedded, kd_linear_operand_back(projection, dx, span->N, own->operand), projection,
                             span->N, 0);
    return own->embedded;
}

void kd_input_backward(const kd_run *run, float *dx, const kd_span *span, float *partial, int member)
{
    const kd_model *model = run->model;
    const ptrdiff_t E = model->encoder.E;
    const kd_kernels *kernels = model->arithmetic.kernels;
    float *sum = run->embedding_sum + span->t0 * E;
    float *d = model->encoder.projected ? projection_backward(run, dx, span, partial, member) : dx;
    kd_span_drop(kernels, d, d, KD_DROP_EMBEDDING, span, E, model->encoder.p_embedding);
    kd_norm_backward(kernels, sum, kd_map_vector(run, partial, KD_SLOT_embedding_norm, 0),
                     kd_map_vector(run, partial, KD_SLOT_embedding_norm_bias, 0), d, sum,
                     run->embedding_stats + span->t0 * 2, &model->embedding_norm, span->N);
}
