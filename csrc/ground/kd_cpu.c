#include "ground/kd_cpu.h"

#include <string.h>

static const char *const level_names[KD_LEVEL_COUNT] = {"generic", "avx2", "avx512"};

kd_level kd_cpu_best(void)
{
#if defined(KD_X86)
    /* The builtins ask CPUID and XGETBV: a level the operating system does not save is not reported. */
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    return avx512 ? KD_LEVEL_AVX512 : avx2 ? KD_LEVEL_AVX2 : KD_LEVEL_GENERIC;
#else
    return KD_LEVEL_GENERIC;
#endif
}

const char *kd_cpu_name(kd_level level) { return level_names[level]; }

kd_level kd_cpu_level(const char *name)
{
    int level = 0;
    while (level < KD_LEVEL_COUNT && strcmp(name, level_names[level]) != 0)
        level++;
    return (kd_level)level;
}
