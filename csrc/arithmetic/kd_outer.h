/* kd_outer: gradients of weights, c += a^T b, which sum over all tokens.
 *
 * Wide operands are packed and multiplied by BLIS's float32 micro-kernel, narrow ones by kd_kernels's `outer` where
 * they lie. We pack and loop ourselves, since then nothing is allocated or locked inside a step, and every element
 * of a result sees the same operations in the same order, whatever tile it is computed in.
 *
 * This is the only room that knows BLIS.
 */
#ifndef KD_OUTER_H
#define KD_OUTER_H

#include "ground/kd_base.h"
#include "ground/kd_cpu.h"
#include "arithmetic/kd_kernels.h"

typedef struct kd_outer {
    const kd_kernels *kernels;
    void (*kernel)(void); /* BLIS's float32 micro-kernel, and the context it wants */
    void *context;
    const char *kernel_set;          /* BLIS's name of the architecture they were written for */
    ptrdiff_t left_tile, right_tile; /* rows and columns of its tile */
    ptrdiff_t kc;                    /* longest run of k for one call of it */
    int column_major;                /* it writes its tile by columns: it gets the operands swapped */
} kd_outer;

/* Fills `outer` for a level and its kernels; KD_UNSUPPORTED if BLIS has none for it. */
kd_status kd_outer_init(kd_outer *outer, const kd_kernels *kernels, kd_level level);

/* BLIS's version, as it reports it. */
const char *kd_outer_library_version(void);

/* c (M, N) += a^T b for row-major a (K, M) and b (K, N), rows ldc, lda and ldb apart. `scratch` has
 * kd_outer_scratch(outer, M, N) floats. */
void kd_outer_add(const kd_outer *outer, float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const float *b,
                  ptrdiff_t ldb, ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, float *scratch);
ptrdiff_t kd_outer_scratch(const kd_outer *outer, ptrdiff_t M, ptrdiff_t N);

#endif
