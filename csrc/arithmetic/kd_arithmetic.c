#include "arithmetic/kd_arithmetic.h"

kd_status kd_arithmetic_init(kd_arithmetic *arithmetic, kd_level level)
{
    const kd_kernels *kernels = kd_kernels_for(level);
    if (!kernels)
        return KD_UNSUPPORTED;
    arithmetic->kernels = kernels;
    arithmetic->engine = kd_engine_f32(kernels);
    return kd_outer_init(&arithmetic->outer, kernels, level);
}
