/* kd_cpu: the instruction-set levels that kernels are compiled for.
 *
 * A level is chosen once, when the module is loaded: the best the CPU has, or the one named by the
 * environment variable KDISTILL_ISA (the skin reads it), which is an error if the CPU lacks it.
 */
#ifndef KD_CPU_H
#define KD_CPU_H

#include "ground/kd_base.h"

typedef enum kd_level {
    KD_LEVEL_GENERIC, /* any CPU: plain C, BLIS's generic kernel */
    KD_LEVEL_AVX2,    /* x86-64 with AVX2 and FMA */
    KD_LEVEL_AVX512,  /* x86-64 with AVX-512 F, DQ, BW and VL */
    KD_LEVEL_COUNT,
} kd_level;

/* The best level this CPU (and its operating system) can run. */
kd_level kd_cpu_best(void);

/* "generic", "avx2", "avx512": the names KDISTILL_ISA takes. */
const char *kd_cpu_name(kd_level level);

/* The level of that name, or KD_LEVEL_COUNT if there is none. */
kd_level kd_cpu_level(const char *name);

#endif
