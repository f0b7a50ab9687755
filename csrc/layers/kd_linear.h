/* kd_linear: y = x W^T + b, for W (O, I) as PyTorch stores it. */
#ifndef KD_LINEAR_H
#define KD_LINEAR_H

#include "arithmetic/kd_arithmetic.h"

/* Where a layer's weight lies packed. `backward` is NULL in a frozen model. */
typedef struct kd_linear {
    const void *forward;  /* W^T as the engine packs it: k runs over inputs */
    const void *backward; /* W: k runs over outputs */
    const float *bias;    /* (O) */
    ptrdiff_t I, O;
} kd_linear;

/* y (M, O) = x W^T + b, x (M, I). */
void kd_linear_forward(const kd_arithmetic *math, float *y, const float *x, const kd_linear *layer, ptrdiff_t M);

/* dx (M, I) = (accumulate ? dx : 0) + dy W, dy (M, O). */
void kd_linear_backward_input(const kd_arithmetic *math, float *dx, const float *dy, const kd_linear *layer,
                              ptrdiff_t M, int accumulate);

/* Each head by itself: W_h is the O / H rows of W that make head h. y_h (M, O / H) += x_h W_h^T and x_h (M, I) =
 * y_h W_h, for x (M, H, I) and y (M, O); no bias. */
void kd_linear_heads_forward(const kd_arithmetic *math, float *y, const float *x, const kd_linear *layer, ptrdiff_t M,
                             ptrdiff_t H);
void kd_linear_heads_backward(const kd_arithmetic *math, float *x, const float *y, const kd_linear *layer, ptrdiff_t M,
                              ptrdiff_t H);

/* The products of the two, for a caller that adds what follows. */
kd_product kd_linear_product(const kd_linear *layer, float *y, const float *x, ptrdiff_t M);
kd_product kd_linear_product_back(const kd_linear *layer, float *dx, const float *dy, ptrdiff_t M);

/* A weight's gradient is summed by tiles of at most so many rows and columns. */
enum { KD_LINEAR_TILE_O = 128, KD_LINEAR_TILE_I = 256 };

/* Rows o0 .. o1 - 1 and columns i0 .. i1 - 1. */
typedef struct kd_linear_tile {
    ptrdiff_t o0, o1, i0, i1;
} kd_linear_tile;

/* How many tiles an (O, I) weight has, one of them, and the floats of scratch kd_outer_add needs for any. */
ptrdiff_t kd_linear_tiles(ptrdiff_t O, ptrdiff_t I);
kd_linear_tile kd_linear_tile_of(ptrdiff_t O, ptrdiff_t I, ptrdiff_t tile);
ptrdiff_t kd_linear_tile_scratch(const kd_arithmetic *math);

#endif
