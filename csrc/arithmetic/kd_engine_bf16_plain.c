/* bfloat16 in plain C, in the order of vdpbf16ps (Intel SDM 2): the odd number of each pair first. */
#define KD_ENGINE kd_engine_bf16_plain
#define KD_ISA "plain"
#define KD_VEC 4
#include "arithmetic/kd_engine_bf16_widened.inc"
