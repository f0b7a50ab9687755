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
