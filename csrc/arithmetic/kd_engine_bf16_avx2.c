/* bfloat16 on AVX2, which has no instruction for it, in the order of vdpbf16ps (Intel SDM 2): the odd number of each pair first. */
#define KD_ENGINE kd_engine_bf16_avx2
#define KD_ISA "avx2"
#define KD_VEC 8
#include "arithmetic/kd_engine_bf16_widened.inc"
