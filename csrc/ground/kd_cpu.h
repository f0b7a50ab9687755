/* kd_cpu: what this CPU's instructions allow.
 *
 * float32 kernels are compiled for a few levels, of which one is chosen when the module is loaded. Products of fewer
 * bits need instructions that CPUs have in any combination, so these are a set of features. A name such as
 * "avx512_vnni" stands for a level and the features up to it: KDISTILL_ISA takes these names (the skin reads it), and
 * one that the CPU lacks is an error.
 */
#ifndef KD_CPU_H
#define KD_CPU_H

#include "ground/kd_base.h"

typedef enum kd_level {
    KD_LEVEL_GENERIC, /* any CPU: plain C, BLIS's generic kernel */
    KD_LEVEL_NEON,    /* 64-bit Arm, whose every CPU has it; below AVX2, which none has */
    KD_LEVEL_AVX2,    /* x86-64 with AVX2 and FMA */
    KD_LEVEL_AVX512,  /* x86-64 with AVX-512 F, DQ, BW and VL */
    KD_LEVEL_COUNT,
} kd_level;

typedef enum kd_feature {
    KD_AVX_VNNI = 1,    /* vpdpbusd on 256 bits: sums of int8 products */
    KD_AVX512_VNNI = 2, /* the same on 512 bits */
    KD_AVX512_BF16 = 4, /* vdpbf16ps: sums of bfloat16 products */
    KD_AMX = 8,         /* tiles of bfloat16 and int8, which the kernel lets this process use */
    KD_NEON = 16,       /* the registers of KD_LEVEL_NEON, which no x86 level has */
} kd_feature;

typedef struct kd_cpu {
    kd_level level;
    unsigned features; /* of kd_feature */
} kd_cpu;

/* All that this CPU and its operating system offer. Asks the kernel for the state of AMX tiles, which it keeps for a
 * process from then on. */
kd_cpu kd_cpu_detect(void);

/* Has the CPU this level or a higher one, and all these features? */
int kd_cpu_has(const kd_cpu *cpu, kd_level level, unsigned features);

/* The instruction sets that have a name, lowest first; NULL beyond the last. */
const char *kd_cpu_isa_name(int isa);
kd_cpu kd_cpu_isa(int isa);

/* "generic", "neon", "avx2", "avx512". */
const char *kd_cpu_level_name(kd_level level);

#endif
