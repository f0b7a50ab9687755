/* kd_gemm: float32 matrix products.
 *
 * Two kinds, for two shapes. A layer's product multiplies rows of tokens with a weight: the weight is packed
 * into panels once per step, or once for good in a frozen model, the rows are read where they lie, and what
 * follows (bias, activation) is done while a tile is hot: kd_kernels's `product`. A weight's gradient sums over
 * all tokens, `kd_gemm_outer`: wide operands are packed and multiplied by BLIS's micro-kernel. We pack and loop
 * ourselves, since then nothing is allocated or locked inside a step, and every element of a result sees
 * the same operations in the same order whatever the other rows are.
 *
 * This is the only room that knows BLIS.
 */
#ifndef KD_GEMM_H
#define KD_GEMM_H

#include "ground/kd_base.h"
#include "ground/kd_cpu.h"
#include "arithmetic/kd_kernels.h"

typedef struct kd_gemm {
    const kd_kernels *kernels;
    void (*kernel)(void); /* BLIS's f32 micro-kernel, and the context it wants */
    void *context;
    const char *kernel_set;          /* BLIS's name of the architecture they were written for */
    ptrdiff_t left_tile, right_tile; /* rows and columns of its tile */
    ptrdiff_t kc;                    /* longest run of k for one call of it */
    int column_major;                /* it writes its tile by columns: it gets the operands swapped */
} kd_gemm;

/* Fills `gemm` for a level; KD_UNSUPPORTED if this build or BLIS has no kernels for it. */
kd_status kd_gemm_init(kd_gemm *gemm, kd_level level);

/* BLIS's version, as it says itself. */
const char *kd_gemm_library_version(void);

/* Floats of a packed right (K, N) operand. */
ptrdiff_t kd_gemm_right_size(const kd_gemm *gemm, ptrdiff_t K, ptrdiff_t N);

/* right = src^T, from row-major src (N, K), rows `ld` apart: a weight as PyTorch stores it, for x W^T. */
void kd_gemm_pack_right_transposed(const kd_gemm *gemm, float *right, const float *src, ptrdiff_t ld, ptrdiff_t K,
                                   ptrdiff_t N);

/* right = src, row-major (K, N): the same weight, for dy W. */
void kd_gemm_pack_right(const kd_gemm *gemm, float *right, const float *src, ptrdiff_t ld, ptrdiff_t K, ptrdiff_t N);

/* c (M, N) += a^T b for row-major a (K, M) and b (K, N), K long: a weight's gradient from the rows of
 * all tokens. `scratch` has kd_gemm_outer_size(gemm, M, N) floats. */
void kd_gemm_outer(const kd_gemm *gemm, float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const float *b,
                   ptrdiff_t ldb, ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, float *scratch);
ptrdiff_t kd_gemm_outer_size(const kd_gemm *gemm, ptrdiff_t M, ptrdiff_t N);

#endif
