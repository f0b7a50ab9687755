#include "arithmetic/kd_engine.h"

static ptrdiff_t packed_bytes(const kd_engine *engine, ptrdiff_t K, ptrdiff_t N)
{
    return kd_round_up(N, engine->kernels->panel) * K * (ptrdiff_t)sizeof(float);
}

static void pack(const kd_engine *engine, void *right, const float *w, ptrdiff_t ld, ptrdiff_t K, ptrdiff_t N,
                 int transposed)
{
    const ptrdiff_t panel = engine->kernels->panel;
    for (ptrdiff_t n = 0; n < N; n += panel) {
        float *dst = (float *)right + n * K;
        if (transposed)
            engine->kernels->pack_rows(dst, w + n * ld, ld, K, kd_min(panel, N - n), panel);
        else
            engine->kernels->pack_columns(dst, w + n, ld, K, kd_min(panel, N - n), panel);
    }
}

kd_engine kd_engine_f32(const kd_kernels *kernels, kd_level level)
{
    return (kd_engine){.compute = KD_FLOAT32,
                       .isa = kd_cpu_level_name(level),
                       .native = 1,
                       .kernels = kernels,
                       .packed_bytes = packed_bytes,
                       .pack = pack,
                       .product = kernels->product,
                       .part = kernels->panel};
}
