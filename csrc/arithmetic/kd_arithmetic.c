#include "arithmetic/kd_arithmetic.h"

kd_status kd_arithmetic_init(kd_arithmetic *arithmetic, const kd_cpu *cpu, kd_compute compute)
{
    const kd_kernels *kernels = kd_kernels_for(cpu->level);
    if (!kernels)
        return KD_UNSUPPORTED;
    arithmetic->kernels = kernels;
    arithmetic->float32 = kd_engine_f32(kernels, cpu->level);
    arithmetic->engine = compute == KD_FLOAT32 ? arithmetic->float32 : *kd_engine_of(cpu, compute, 0);
    return kd_outer_init(&arithmetic->outer, kernels, cpu->level);
}

void kd_arithmetic_outer(const kd_arithmetic *arithmetic, const kd_engine *engine, float *c, ptrdiff_t ldc,
                         const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, ptrdiff_t M, ptrdiff_t N,
                         ptrdiff_t K, void *scratch)
{
    if (engine->outer)
        engine->outer(c, ldc, a, lda, b, ldb, M, N, K, scratch);
    else
        kd_outer_add(&arithmetic->outer, c, ldc, a, lda, b, ldb, M, N, K, scratch);
}

ptrdiff_t kd_arithmetic_outer_bytes(const kd_arithmetic *arithmetic, ptrdiff_t M, ptrdiff_t N)
{
    const kd_engine *engine = &arithmetic->engine;
    const ptrdiff_t floats = kd_outer_scratch(&arithmetic->outer, M, N);
    return kd_max(floats * (ptrdiff_t)sizeof(float), engine->outer ? engine->outer_bytes(M, N) : 0);
}
