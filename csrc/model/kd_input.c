#include "model/kd_input.h"

void kd_input_forward(const kd_run *run, float *x, const kd_span *span)
{
    const kd_model *model = run->model;
    const ptrdiff_t C = model->encoder.C;
    const kd_kernels *kernels = model->arithmetic.kernels;
    const kd_embed_tables tables = kd_model_tables(model, model->parameters);
    float discarded[2];
    if (run->pass.mode == KD_TRAIN) {
        float *sum = run->embedding_sum + span->t0 * C;
        kd_embed_forward(kernels, sum, span->batch, &tables, span->b0, span->b1, C);
        kd_norm_forward(kernels, x, run->embedding_stats + span->t0 * 2, sum, NULL, &model->embedding_norm, span->N);
    } else {
        kd_embed_forward(kernels, x, span->batch, &tables, span->b0, span->b1, C);
        for (ptrdiff_t r = 0; r < span->N; r++)
            kd_norm_forward(kernels, x + r * C, discarded, x + r * C, NULL, &model->embedding_norm, 1);
    }
    kd_span_drop(kernels, x, x, KD_DROP_EMBEDDING, span, C, model->encoder.p_embedding);
}

void kd_input_backward(const kd_run *run, float *dx, const kd_span *span, float *partial)
{
    const kd_model *model = run->model;
    const ptrdiff_t C = model->encoder.C;
    const kd_kernels *kernels = model->arithmetic.kernels;
    float *sum = run->embedding_sum + span->t0 * C;
    kd_span_drop(kernels, dx, dx, KD_DROP_EMBEDDING, span, C, model->encoder.p_embedding);
    kd_norm_backward(kernels, sum, kd_map_vector(run, partial, KD_SLOT_embedding_norm, 0),
                     kd_map_vector(run, partial, KD_SLOT_embedding_norm_bias, 0), dx, sum,
                     run->embedding_stats + span->t0 * 2, &model->embedding_norm, span->N);
}
