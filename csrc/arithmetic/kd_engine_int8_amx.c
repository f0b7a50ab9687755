/* int8 by AMX tiles: 16 rows, 16 columns and 64 k's an instruction. */
#define KD_ENGINE kd_engine_int8_amx
#define KD_ISA "amx"
#define KD_NATIVE 1
#define KD_VEC 16
#define KD_NUMBER 1
#define KD_LEFT_NUMBER 1
#define KD_LEFT_BIAS 0
#include "arithmetic/kd_engine_narrow.inc"

#include "arithmetic/kd_engine_tiles.inc"
