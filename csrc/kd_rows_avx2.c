#define KD_ROWS_TABLE kd_rows_avx2
#define KD_VEC 8
#include "kd_rows.inc"
