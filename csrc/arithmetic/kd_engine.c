#include "arithmetic/kd_engine_narrow.h"

#include <string.h>

typedef struct entry {
    const kd_engine *engine;
    kd_level level; /* that its kernels need */
    unsigned features;
} entry;

/* Best first. Behind the portable ones are those that only tests choose. */
static const entry engines[] = {
#if defined(KD_X86)
    {&kd_engine_bf16_amx, KD_LEVEL_AVX512, KD_AMX},
    {&kd_engine_bf16_avx512, KD_LEVEL_AVX512, KD_AVX512_BF16},
    {&kd_engine_bf16_avx2, KD_LEVEL_AVX2, 0},
    {&kd_engine_int8_amx, KD_LEVEL_AVX512, KD_AMX},
    {&kd_engine_int8_avx512, KD_LEVEL_AVX512, KD_AVX512_VNNI},
    {&kd_engine_int8_avx_vnni, KD_LEVEL_AVX2, KD_AVX_VNNI},
    {&kd_engine_int8_avx2, KD_LEVEL_AVX2, 0},
#endif
    {&kd_engine_bf16_plain, KD_LEVEL_GENERIC, 0},
    {&kd_engine_int8_plain, KD_LEVEL_GENERIC, 0},
    {&kd_engine_bf16_amx_twin, KD_LEVEL_GENERIC, 0},
    {&kd_engine_int8_amx_twin, KD_LEVEL_GENERIC, 0},
};

enum { ENGINES = sizeof engines / sizeof *engines };

const kd_engine *kd_engine_of(const kd_cpu *cpu, kd_compute compute, int index)
{
    for (int i = 0; i < ENGINES; i++)
        if (engines[i].engine->compute == compute && kd_cpu_has(cpu, engines[i].level, engines[i].features) &&
            index-- == 0)
            return engines[i].engine;
    return NULL;
}

static const char *const names[KD_COMPUTES] = {"float32", "bfloat16", "int8"};

const char *kd_engine_compute_name(kd_compute compute) { return names[compute]; }

kd_compute kd_engine_compute(const char *name)
{
    int compute = 0;
    while (compute < KD_COMPUTES && strcmp(name, names[compute]) != 0)
        compute++;
    return (kd_compute)compute;
}
