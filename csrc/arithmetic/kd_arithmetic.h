/* kd_arithmetic: all that computes with numbers on one instruction-set level, as layers and models are given it. */
#ifndef KD_ARITHMETIC_H
#define KD_ARITHMETIC_H

#include "arithmetic/kd_engine.h"
#include "arithmetic/kd_outer.h"

typedef struct kd_arithmetic {
    const kd_kernels *kernels; /* rows of floats */
    kd_engine engine;          /* rows times packed weights */
    kd_outer outer;            /* gradients of weights */
} kd_arithmetic;

/* Fills `arithmetic` for a level; KD_UNSUPPORTED if this build or BLIS has no kernels for it. */
kd_status kd_arithmetic_init(kd_arithmetic *arithmetic, kd_level level);

#endif
