#include "kd_linear.h"

void kd_linear_forward(const kd_gemm *gemm, float *y, const float *left, const kd_linear *layer, ptrdiff_t M)
{
    kd_gemm_run(gemm, y, layer->O, left, layer->forward, M, layer->O, layer->I, 0);
    gemm->rows->add_bias(y, layer->bias, M, layer->O);
}

void kd_linear_backward_input(const kd_gemm *gemm, float *dx, const float *dy, const kd_linear *layer, ptrdiff_t M,
                              int accumulate, float *left)
{
    kd_gemm_pack_left(gemm, left, dy, layer->O, M, layer->O);
    kd_gemm_run(gemm, dx, layer->I, left, layer->backward, M, layer->I, layer->O, accumulate);
}

ptrdiff_t kd_linear_tiles(ptrdiff_t O, ptrdiff_t I)
{
    return kd_ceil_div(O, KD_LINEAR_TILE_O) * kd_ceil_div(I, KD_LINEAR_TILE_I);
}

void kd_linear_backward_weight(const kd_gemm *gemm, float *dw, const float *dy, const float *x, ptrdiff_t N,
                               ptrdiff_t O, ptrdiff_t I, ptrdiff_t tile, float *scratch)
{
    ptrdiff_t across = kd_ceil_div(I, KD_LINEAR_TILE_I);
    ptrdiff_t o0 = tile / across * KD_LINEAR_TILE_O, i0 = tile % across * KD_LINEAR_TILE_I;
    kd_gemm_outer(gemm, dw + o0 * I + i0, I, dy + o0, O, x + i0, I, kd_min(KD_LINEAR_TILE_O, O - o0),
                  kd_min(KD_LINEAR_TILE_I, I - i0), N, scratch);
}

ptrdiff_t kd_linear_tile_size(const kd_gemm *gemm)
{
    return kd_gemm_outer_size(gemm, KD_LINEAR_TILE_O, KD_LINEAR_TILE_I);
}
