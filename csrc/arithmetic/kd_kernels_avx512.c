#define KD_KERNELS_TABLE kd_kernels_avx512
#define KD_VEC 16
#define KD_REGISTERS 32
#include "arithmetic/kd_kernels.inc"
