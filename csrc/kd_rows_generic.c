#define KD_ROWS_TABLE kd_rows_generic
#define KD_VEC 4
#include "kd_rows.inc"
