/* kd_linear: y = x W^T + b, for W (O, I) as PyTorch stores it. */
#ifndef KD_LINEAR_H
#define KD_LINEAR_H

#include "arithmetic/kd_arithmetic.h"

/* Where a layer's weight lies packed, and the engine that packed it. `backward` is NULL in a frozen model. */
typedef struct kd_linear {
    const kd_engine *engine;
    const void *forward;  /* W^T: k runs over inputs */
    const void *backward; /* W: k runs over outputs */
    const float *bias;    /* (O) */
    ptrdiff_t I, O;
} kd_linear;

/* x (M, I), and dy (M, O), as the engine reads it: themselves in float32, else converted in `scratch`. Layers that read
 * the same x convert it once. */
const void *kd_linear_operand(const kd_linear *layer, const float *x, ptrdiff_t M, void *scratch);
const void *kd_linear_operand_back(const kd_linear *layer, const float *dy, ptrdiff_t M, void *scratch);

/* y (M, O) = x W^T + b, x such an operand. */
void kd_linear_forward(float *y, const void *x, const kd_linear *layer, ptrdiff_t M);

/* The same as `next`, a left operand (M, O) of the engine. y (M, O) is scratch. */
void kd_linear_forward_operand(void *next, float *y, const void *x, const kd_linear *layer, ptrdiff_t M);

/* dx (M, I) = (accumulate ? dx : 0) + dy W, dy such an operand. */
void kd_linear_backward_input(float *dx, const void *dy, const kd_linear *layer, ptrdiff_t M, int accumulate);

/* Heads from .. to - 1 of H, each by itself, in float32: W_h is the O / H rows of W that make head h. y_h (M, O / H) +=
 * x_h W_h^T and x_h (M, I) = y_h W_h, for x (M, H, I) and y (M, O); no bias. */
void kd_linear_heads_forward(float *y, const float *x, const kd_linear *layer, ptrdiff_t M, ptrdiff_t H, ptrdiff_t from,
                             ptrdiff_t to);
void kd_linear_heads_backward(float *x, const float *y, const kd_linear *layer, ptrdiff_t M, ptrdiff_t H,
                              ptrdiff_t from, ptrdiff_t to);

/* The products of the two, for a caller that adds what follows. */
kd_product kd_linear_product(const kd_linear *layer, float *y, const void *x, ptrdiff_t M);
kd_product kd_linear_product_back(const kd_linear *layer, float *dx, const void *dy, ptrdiff_t M);

/* A weight's gradient is summed by tiles of at most so many rows and columns. */
enum { KD_LINEAR_TILE_O = 128, KD_LINEAR_TILE_I = 256 };

/* Rows o0 .. o1 - 1 and columns i0 .. i1 - 1. */
typedef struct kd_linear_tile {
    ptrdiff_t o0, o1, i0, i1;
} kd_linear_tile;

/* How many tiles an (O, I) weight has, one of them, and the bytes of scratch that kd_arithmetic_outer needs for any. */
ptrdiff_t kd_linear_tiles(ptrdiff_t O, ptrdiff_t I);
kd_linear_tile kd_linear_tile_of(ptrdiff_t O, ptrdiff_t I, ptrdiff_t tile);
ptrdiff_t kd_linear_tile_scratch(const kd_arithmetic *math);

#endif
