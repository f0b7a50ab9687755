/* kd_vec_transpose: a square of KD_VEC registers, transposed where they are. */
#ifndef KD_VEC_TRANSPOSE_H
#define KD_VEC_TRANSPOSE_H

#include "arithmetic/kd_vec.h"

/* Step `half` of a transposition in registers: where a lane's index has the bit `half`, x gives its lane to the
 * partner that lies `half` registers further, and takes the partner's for it. */
#if KD_VEC == 16
#define LOW_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define LOW_4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define HIGH_4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define LOW_2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define HIGH_2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define LOW_1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define HIGH_1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#elif KD_VEC == 8
#define LOW_4 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_4 4, 5, 6, 7, 12, 13, 14, 15
#define LOW_2 0, 1, 8, 9, 4, 5, 12, 13
#define HIGH_2 2, 3, 10, 11, 6, 7, 14, 15
#define LOW_1 0, 8, 2, 10, 4, 12, 6, 14
#define HIGH_1 1, 9, 3, 11, 5, 13, 7, 15
#else
#define LOW_2 0, 1, 4, 5
#define HIGH_2 2, 3, 6, 7
#define LOW_1 0, 4, 2, 6
#define HIGH_1 1, 5, 3, 7
#endif
#define TRANSPOSE_STEP(half, low, high)                                                                                \
    for (int r = 0; r < KD_VEC; r++)                                                                                   \
        if (!(r & (half))) {                                                                                           \
            vf a = x[r], b = x[r + (half)];                                                                            \
            x[r] = __builtin_shufflevector(a, b, low);                                                                 \
            x[r + (half)] = __builtin_shufflevector(a, b, high);                                                       \
        }

static inline __attribute__((always_inline)) void transpose_registers(vf x[KD_VEC])
{
#if KD_VEC == 16
#pragma GCC unroll 16
    TRANSPOSE_STEP(8, LOW_8, HIGH_8)
#endif
#if KD_VEC >= 8
#pragma GCC unroll 16
    TRANSPOSE_STEP(4, LOW_4, HIGH_4)
#endif
#pragma GCC unroll 16
    TRANSPOSE_STEP(2, LOW_2, HIGH_2)
#pragma GCC unroll 16
    TRANSPOSE_STEP(1, LOW_1, HIGH_1)
}

#endif
