#define KD_KERNELS_TABLE kd_kernels_avx512
#define KD_VEC 16
#include "arithmetic/kd_kernels.inc"
