#define KD_ROWS_TABLE kd_rows_avx512
#define KD_VEC 16
#include "kd_rows.inc"
