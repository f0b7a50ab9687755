#define KD_KERNELS_TABLE kd_kernels_neon
#define KD_VEC 4
#define KD_REGISTERS 32
#define KD_VEC_NEON
#include "arithmetic/kd_kernels.inc"
