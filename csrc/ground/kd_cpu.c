#include "ground/kd_cpu.h"

#if defined(KD_X86)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef struct isa {
    const char *name;
    kd_cpu cpu;
} isa;

static const isa sets[] = {
    {"generic", {KD_LEVEL_GENERIC, 0}},
    {"neon", {KD_LEVEL_NEON, KD_NEON}},
    {"avx2", {KD_LEVEL_AVX2, 0}},
    {"avx_vnni", {KD_LEVEL_AVX2, KD_AVX_VNNI}},
    {"avx512", {KD_LEVEL_AVX512, 0}},
    {"avx512_vnni", {KD_LEVEL_AVX512, KD_AVX512_VNNI}},
    {"avx512_bf16", {KD_LEVEL_AVX512, KD_AVX512_VNNI | KD_AVX512_BF16}},
    {"amx", {KD_LEVEL_AVX512, KD_AVX512_VNNI | KD_AVX512_BF16 | KD_AMX}},
};

enum { SETS = sizeof sets / sizeof *sets };

#if defined(KD_X86)

/* Linux gives a process the state of AMX tiles only when it asks (Documentation/arch/x86/xstate.rst). Asked again it
 * answers the same. */
static int kernel_gives_tiles(void)
{
#if defined(SYS_arch_prctl)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return 0;
#endif
}

/* The features that GCC's builtins do not all know, from CPUID leaf 7 (Intel SDM 2A, CPUID). */
static unsigned features(int avx512)
{
    unsigned a, b, c, d, found = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    const unsigned most = a;
    if (avx512 && (c >> 11 & 1))
        found |= KD_AVX512_VNNI;
    const int tiles = (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1); /* AMX-BF16, AMX-TILE, AMX-INT8 */
    if (most < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d))
        return found;
    if (a >> 4 & 1)
        found |= KD_AVX_VNNI;
    if (avx512 && (a >> 5 & 1))
        found |= KD_AVX512_BF16;
    /* A CPU with tiles has the two others; the kernels that use tiles rely on it. */
    if (tiles && (found & KD_AVX512_VNNI) && (found & KD_AVX512_BF16) && kernel_gives_tiles())
        found |= KD_AMX;
    return found;
}

kd_cpu kd_cpu_detect(void)
{
    /* The builtins ask CPUID and XGETBV: a level the operating system does not save is not reported. */
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    kd_level level = avx512 ? KD_LEVEL_AVX512 : avx2 ? KD_LEVEL_AVX2 : KD_LEVEL_GENERIC;
    return (kd_cpu){level, avx2 ? features(avx512) : 0};
}

#elif defined(KD_ARM64)

kd_cpu kd_cpu_detect(void) { return (kd_cpu){KD_LEVEL_NEON, KD_NEON}; }

#else

kd_cpu kd_cpu_detect(void) { return (kd_cpu){KD_LEVEL_GENERIC, 0}; }

#endif

int kd_cpu_has(const kd_cpu *cpu, kd_level level, unsigned needed)
{
    return cpu->level >= level && (cpu->features & needed) == needed;
}

const char *kd_cpu_isa_name(int index) { return index < SETS ? sets[index].name : NULL; }
kd_cpu kd_cpu_isa(int index) { return sets[index].cpu; }

const char *kd_cpu_level_name(kd_level level)
{
    static const char *const names[KD_LEVEL_COUNT] = {"generic", "neon", "avx2", "avx512"};
    return names[level];
}
