/* kd_engine_narrow: how operands of less than 32 bits lie in memory, for all engines of bfloat16 and int8.
 *
 * A line is 64 bytes of a row along k: 32 numbers in bfloat16, 64 in int8. Instructions take the product of k's in
 * groups of 32 bits, two numbers or four, and add it to one float32 or int32.
 *
 * The left operand (M, K) keeps its rows. Behind the lines of a row, the last filled up with zeros, lies one more for
 * its scale (int8), and perhaps a gap: rows are an odd number of lines apart, so that the 16 rows of a tile never meet
 * in the same sets of L1. Behind row M there is room for SPARE rows that a kernel may read and whose results it drops.
 *
 *     row m:   k = 0 .. 31 | 32 .. 63 | ... | scale | (gap)
 *
 * The right operand (K, N) is cut into panels of 16 columns, an even number of them. A panel has, line by line, 16 rows
 * of 16 groups: row g holds the numbers of k-group g for 16 columns, which is a tile of AMX and a register of AVX-512.
 *
 *     panel:   [K / 32 lines][16 groups][16 columns][2 numbers]       bfloat16
 *              [K / 64 lines][16 groups][16 columns][4 numbers]       int8
 *
 * Behind the panels of int8 lie, for each column, its scale and the sum of its numbers.
 */
#ifndef KD_ENGINE_NARROW_H
#define KD_ENGINE_NARROW_H

#include "arithmetic/kd_engine.h"

enum {
    KD_LINE = 64, /* bytes */
    KD_LINE_GROUPS = 16,
    KD_PANEL = 16,                            /* columns */
    KD_PANEL_LINE = KD_LINE_GROUPS * KD_LINE, /* bytes of a panel for one line of a row */
    KD_BLOCK_COLUMNS = 32,
    KD_PART_COLUMNS = 2 * KD_BLOCK_COLUMNS, /* that a thread takes of a product; AMX is configured for each part */
    KD_SPARE_ROWS = 32,
};

extern const kd_engine kd_engine_bf16_plain, kd_engine_bf16_avx2, kd_engine_bf16_avx512, kd_engine_bf16_amx,
    kd_engine_bf16_amx_twin;
extern const kd_engine kd_engine_int8_plain, kd_engine_int8_avx2, kd_engine_int8_avx_vnni, kd_engine_int8_avx512,
    kd_engine_int8_amx, kd_engine_int8_amx_twin;

#endif
