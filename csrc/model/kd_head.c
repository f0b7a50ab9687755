#include "model/kd_head.h"

void kd_head_forward(const kd_arithmetic *math, const kd_head_map *map, const kd_head_config *config,
                     const kd_head_weights *weights, const kd_span *span)
{
    const ptrdiff_t C = weights->output.I, M = span->M;
    if (map->input != map->rows)
        kd_span_drop(math->kernels, map->input, map->rows, KD_DROP_HEAD_INPUT, span, C, config->p_before);
    if (config->dense)
        kd_activation_forward(map->hidden, map->slope, map->input, &weights->dense, M, config->activation);
    if (map->features != map->hidden)
        kd_span_drop(math->kernels, map->features, map->hidden, KD_DROP_HEAD, span, C, config->p_after);
    kd_linear_forward(map->outputs, map->features, &weights->output, M);
}

void kd_head_backward(const kd_arithmetic *math, float *drows, float *ddense, float *doutput, const kd_head_map *map,
                      const kd_head_config *config, const kd_head_weights *weights, const kd_span *span)
{
    const ptrdiff_t C = weights->output.I, K = weights->output.O, M = span->M;
    const kd_kernels *kernels = math->kernels;
    kernels->sum_rows(doutput, map->outputs, M, K, K);
    kd_linear_backward_input(drows, map->outputs, &weights->output, M, 0);
    kd_span_drop(kernels, drows, drows, KD_DROP_HEAD, span, C, config->p_after);
    if (config->dense) {
        kernels->multiply(map->slope, drows, M, C, C);
        kernels->sum_rows(ddense, map->slope, M, C, C);
        kd_linear_backward_input(drows, map->slope, &weights->dense, M, 0);
    }
    kd_span_drop(kernels, drows, drows, KD_DROP_HEAD_INPUT, span, C, config->p_before);
}
