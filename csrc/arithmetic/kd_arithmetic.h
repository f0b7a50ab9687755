/* kd_arithmetic: all that computes with numbers on one CPU in one compute type, as layers and models are given it. */
#ifndef KD_ARITHMETIC_H
#define KD_ARITHMETIC_H

#include "arithmetic/kd_engine.h"
#include "arithmetic/kd_outer.h"

typedef struct kd_arithmetic {
    const kd_kernels *kernels; /* rows of floats */
    kd_engine float32;         /* rows times packed weights, in float32 */
    kd_engine engine;          /* the same in the compute type */
    kd_outer outer;            /* gradients of weights */
} kd_arithmetic;

/* Fills `arithmetic` for a CPU and a compute type; KD_UNSUPPORTED if this build or BLIS has no kernels for its level. */
kd_status kd_arithmetic_init(kd_arithmetic *arithmetic, const kd_cpu *cpu, kd_compute compute);

/* A weight's gradient c (M, N) += a^T b as `engine` sums it, one of the two above: see kd_engine. `scratch` has
 * kd_arithmetic_outer_bytes(arithmetic, M, N) bytes, enough for both, and is KD_ALIGN-aligned. */
void kd_arithmetic_outer(const kd_arithmetic *arithmetic, const kd_engine *engine, float *c, ptrdiff_t ldc,
                         const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, ptrdiff_t M, ptrdiff_t N,
                         ptrdiff_t K, void *scratch);
ptrdiff_t kd_arithmetic_outer_bytes(const kd_arithmetic *arithmetic, ptrdiff_t M, ptrdiff_t N);

#endif
