#include "model/kd_head.h"

#include "model/kd_shared.h"

/* hidden = norm(act(dense(input))), as far as there are any. */
static void hidden_forward(kd_team *team, const kd_head_map *map, const kd_head_config *config,
                           const kd_head_weights *weights, const kd_kernels *kernels, ptrdiff_t M)
{
    if (config->dense) {
        kd_product dense = kd_activation_product(&weights->dense, map->act, map->input, M, config->activation);
        dense.slope = map->slope;
        kd_shared_products(team, weights->dense.engine, &dense, 1);
    }
    if (config->norm)
        kd_shared_norm(team, kernels, map->hidden, map->stats, map->act, NULL, &weights->norm, M);
}

void kd_head_forward(kd_team *team, const kd_arithmetic *math, const kd_head_map *map, const kd_head_config *config,
                     const kd_head_weights *weights, const kd_span *span, ptrdiff_t C)
{
    const ptrdiff_t J = kd_head_width(config, C), M = span->M;
    if (map->input != map->rows)
        kd_span_drop(math->kernels, map->input, map->rows, KD_DROP_HEAD_INPUT, span, C, config->p_before);
    hidden_forward(team, map, config, weights, math->kernels, M);
    if (map->features != map->hidden)
        kd_span_drop(math->kernels, map->features, map->hidden, KD_DROP_HEAD, span, J, config->p_after);
    if (config->K && map->outputs) {
        const kd_product output = kd_linear_product(&weights->output, map->outputs, map->features, M);
        kd_shared_products(team, weights->output.engine, &output, 1);
    }
    if (config->unit)
        kd_unit_forward(map->outputs, map->features, M, J);
}

/* drows from dhidden, the gradient of `hidden`. */
static void hidden_backward(float *drows, const float *dhidden, const kd_head_vectors *sums, const kd_head_map *map,
                            const kd_head_config *config, const kd_head_weights *weights, const kd_kernels *kernels,
                            ptrdiff_t M)
{
    const ptrdiff_t J = weights->dense.O;
    if (config->norm)
        kd_norm_backward(kernels, map->act, sums->norm, sums->norm_bias, dhidden, map->act, map->stats, &weights->norm,
                         M);
    kernels->multiply(map->slope, config->norm ? map->act : dhidden, M, J, J);
    kernels->sum_rows(sums->dense_bias, map->slope, M, J, J);
    kd_linear_backward_input(drows, map->slope, &weights->dense, M, 0);
}

void kd_head_backward(const kd_arithmetic *math, float *drows, const kd_head_vectors *sums, const kd_head_map *map,
                      const kd_head_config *config, const kd_head_weights *weights, const kd_span *span, ptrdiff_t C)
{
    const ptrdiff_t J = kd_head_width(config, C), K = config->K, M = span->M;
    const kd_kernels *kernels = math->kernels;
    float *dhidden = config->dense ? map->dfeatures : drows;
    if (K && map->outputs) {
        kernels->sum_rows(sums->output_bias, map->outputs, M, K, K);
        kd_linear_backward_input(map->dfeatures, map->outputs, &weights->output, M, 0);
    }
    if (config->unit)
        kd_unit_backward(map->dfeatures, map->outputs, map->features, M, J);
    kd_span_drop(kernels, dhidden, map->dfeatures, KD_DROP_HEAD, span, J, config->p_after);
    if (config->dense)
        hidden_backward(drows, dhidden, sums, map, config, weights, kernels, M);
    kd_span_drop(kernels, drows, drows, KD_DROP_HEAD_INPUT, span, C, config->p_before);
}
