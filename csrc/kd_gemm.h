/* kd_gemm: float32 matrix products from BLIS's micro-kernels.
 *
 * A product multiplies a left operand (rows are tokens) with a right operand (columns are features).
 * Both are packed into panels first: `token_tile` rows or `feature_tile` columns side by side, for
 * each k. The micro-kernel multiplies one panel with another. We pack and loop ourselves, since then
 * a frozen model's weights are packed once, nothing is allocated or locked inside a step, and every
 * element of the result sees the same operations in the same order whatever the other rows are.
 *
 * This is the only room that knows BLIS. Panels may be read up to KD_GEMM_SLACK floats past their
 * end (the kernels load ahead), which the sizes below include.
 */
#ifndef KD_GEMM_H
#define KD_GEMM_H

#include "kd_base.h"
#include "kd_cpu.h"
#include "kd_rows.h"

enum { KD_GEMM_SLACK = 128 };

typedef struct kd_gemm {
    const kd_rows *rows;
    void (*kernel)(void); /* BLIS's f32 micro-kernel, and the context it wants */
    void *context;
    ptrdiff_t token_tile;    /* rows of a left panel */
    ptrdiff_t feature_tile;  /* columns of a right panel */
    ptrdiff_t kc;            /* longest run of k for one call of the kernel */
    ptrdiff_t feature_block; /* right panels that stay in L2 while all left panels pass */
    int column_major;        /* the kernel writes its tile by columns: it gets the operands swapped */
} kd_gemm;

/* Fills `gemm` for a level; KD_UNSUPPORTED if this build or BLIS has no kernels for it. */
kd_status kd_gemm_init(kd_gemm *gemm, kd_level level);

/* BLIS's version, as it says itself. */
const char *kd_gemm_library_version(void);

/* Floats of a packed left (M, K) and right (K, N) operand, slack included. */
ptrdiff_t kd_gemm_left_size(const kd_gemm *gemm, ptrdiff_t M, ptrdiff_t K);
ptrdiff_t kd_gemm_right_size(const kd_gemm *gemm, ptrdiff_t K, ptrdiff_t N);

/* left = src, row-major (M, K), rows `ld` apart. */
void kd_gemm_pack_left(const kd_gemm *gemm, float *left, const float *src, ptrdiff_t ld, ptrdiff_t M, ptrdiff_t K);

/* right = src^T, from row-major src (N, K): a weight as PyTorch stores it, for x W^T. */
void kd_gemm_pack_right_transposed(const kd_gemm *gemm, float *right, const float *src, ptrdiff_t ld, ptrdiff_t K,
                                   ptrdiff_t N);

/* right = src, row-major (K, N): the same weight, for dy W. */
void kd_gemm_pack_right(const kd_gemm *gemm, float *right, const float *src, ptrdiff_t ld, ptrdiff_t K, ptrdiff_t N);

/* c (M, N) = (accumulate ? c : 0) + left right; rows of c lie `ldc` apart. */
void kd_gemm_run(const kd_gemm *gemm, float *c, ptrdiff_t ldc, const float *left, const float *right, ptrdiff_t M,
                 ptrdiff_t N, ptrdiff_t K, int accumulate);

/* c (M, N) += a^T b for row-major a (K, M) and b (K, N), K long: a weight's gradient from the rows of
 * all tokens. `scratch` has kd_gemm_outer_size(gemm, M, N) floats. */
void kd_gemm_outer(const kd_gemm *gemm, float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const float *b,
                   ptrdiff_t ldb, ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, float *scratch);
ptrdiff_t kd_gemm_outer_size(const kd_gemm *gemm, ptrdiff_t M, ptrdiff_t N);

#endif
