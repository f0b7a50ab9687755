#define KD_KERNELS_TABLE kd_kernels_avx2
#define KD_VEC 8
#define KD_REGISTERS 16
#include "arithmetic/kd_kernels.inc"
