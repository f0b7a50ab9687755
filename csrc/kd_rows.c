#include "kd_rows.h"

const kd_rows *kd_rows_for(kd_level level)
{
    switch (level) {
#if defined(KD_X86)
    case KD_LEVEL_AVX2: return &kd_rows_avx2;
    case KD_LEVEL_AVX512: return &kd_rows_avx512;
#endif
    case KD_LEVEL_GENERIC: return &kd_rows_generic;
    default: return NULL;
    }
}
