#include "arithmetic/kd_kernels.h"

const kd_kernels *kd_kernels_for(kd_level level)
{
    switch (level) {
#if defined(KD_X86)
    case KD_LEVEL_AVX2: return &kd_kernels_avx2;
    case KD_LEVEL_AVX512: return &kd_kernels_avx512;
#endif
#if defined(KD_ARM64)
    case KD_LEVEL_NEON: return &kd_kernels_neon;
#endif
    case KD_LEVEL_GENERIC: return &kd_kernels_generic;
    default: return NULL;
    }
}
