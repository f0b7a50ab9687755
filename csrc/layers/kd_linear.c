#include "layers/kd_linear.h"

const void *kd_linear_operand(const kd_linear *layer, const float *x, ptrdiff_t M, void *scratch)
{
    return kd_engine_operand(layer->engine, x, M, layer->I, scratch);
}

const void *kd_linear_operand_back(const kd_linear *layer, const float *dy, ptrdiff_t M, void *scratch)
{
    return kd_engine_operand(layer->engine, dy, M, layer->O, scratch);
}

kd_product kd_linear_product(const kd_linear *layer, float *y, const void *x, ptrdiff_t M)
{
    return (kd_product){.c = y,
                        .ldc = layer->O,
                        .a = x,
                        .lda = layer->I,
                        .right = layer->forward,
                        .right_rows = layer->I,
                        .right_columns = layer->O,
                        .M = M,
                        .N = layer->O,
                        .K = layer->I,
                        .bias = layer->bias};
}

kd_product kd_linear_product_back(const kd_linear *layer, float *dx, const void *dy, ptrdiff_t M)
{
    return (kd_product){.c = dx,
                        .ldc = layer->I,
                        .a = dy,
                        .lda = layer->O,
                        .right = layer->backward,
                        .right_rows = layer->O,
                        .right_columns = layer->I,
                        .M = M,
                        .N = layer->I,
                        .K = layer->O};
}

void kd_linear_forward(float *y, const void *x, const kd_linear *layer, ptrdiff_t M)
{
    kd_product product = kd_linear_product(layer, y, x, M);
    layer->engine->product(&product);
}

void kd_linear_forward_operand(void *next, float *y, const void *x, const kd_linear *layer, ptrdiff_t M)
{
    kd_product product = kd_linear_product(layer, y, x, M);
    product.next = next;
    layer->engine->product(&product);
}

void kd_linear_backward_input(float *dx, const void *dy, const kd_linear *layer, ptrdiff_t M, int accumulate)
{
    kd_product product = kd_linear_product_back(layer, dx, dy, M);
    product.accumulate = accumulate;
    layer->engine->product(&product);
}

void kd_linear_heads_forward(float *y, const float *x, const kd_linear *layer, ptrdiff_t M, ptrdiff_t H, ptrdiff_t from,
                             ptrdiff_t to)
{
    const ptrdiff_t D = layer->O / H;
    for (ptrdiff_t head = from; head < to; head++) {
        kd_product product = kd_linear_product(layer, y + head * D, x + head * layer->I, M);
        product.lda = H * layer->I;
        product.first_column = head * D;
        product.N = D;
        product.accumulate = 1;
        layer->engine->product(&product);
    }
}

void kd_linear_heads_backward(float *x, const float *y, const kd_linear *layer, ptrdiff_t M, ptrdiff_t H,
                              ptrdiff_t from, ptrdiff_t to)
{
    const ptrdiff_t D = layer->O / H;
    for (ptrdiff_t head = from; head < to; head++) {
        kd_product product = kd_linear_product_back(layer, x + head * layer->I, y + head * D, M);
        product.ldc = H * layer->I;
        product.first_row = head * D;
        product.K = D;
        layer->engine->product(&product);
    }
}

ptrdiff_t kd_linear_tiles(ptrdiff_t O, ptrdiff_t I)
{
    return kd_ceil_div(O, KD_LINEAR_TILE_O) * kd_ceil_div(I, KD_LINEAR_TILE_I);
}

kd_linear_tile kd_linear_tile_of(ptrdiff_t O, ptrdiff_t I, ptrdiff_t tile)
{
    const ptrdiff_t across = kd_ceil_div(I, KD_LINEAR_TILE_I);
    const ptrdiff_t o0 = tile / across * KD_LINEAR_TILE_O, i0 = tile % across * KD_LINEAR_TILE_I;
    return (kd_linear_tile){o0, kd_min(o0 + KD_LINEAR_TILE_O, O), i0, kd_min(i0 + KD_LINEAR_TILE_I, I)};
}

ptrdiff_t kd_linear_tile_scratch(const kd_arithmetic *math)
{
    return kd_arithmetic_outer_bytes(math, KD_LINEAR_TILE_O, KD_LINEAR_TILE_I);
}
