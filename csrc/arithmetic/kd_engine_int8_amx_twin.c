/* The kernels of AMX tiles with the instructions' operation in plain C, for tests on any CPU. */
#define KD_ENGINE kd_engine_int8_amx_twin
#define KD_ISA "amx_twin"
#define KD_NATIVE 0
#define KD_TWIN
#define KD_VEC 4
#define KD_NUMBER 1
#define KD_LEFT_NUMBER 1
#define KD_LEFT_BIAS 0
#include "arithmetic/kd_engine_narrow.inc"

#include "arithmetic/kd_engine_tiles.inc"
