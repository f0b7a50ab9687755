#define KD_KERNELS_TABLE kd_kernels_generic
#define KD_VEC 4
#define KD_REGISTERS 16
#include "arithmetic/kd_kernels.inc"
