/* int8 by vpdpbusd (AVX512-VNNI): four k's of 16 columns an instruction. It takes the left operand for unsigned, so
 * 128 is added to its numbers, and 128 times each column's sum taken away from the result. */
#define KD_ENGINE kd_engine_int8_avx512
#define KD_ISA "avx512_vnni"
#define KD_NATIVE 1
#define KD_VEC 16
#define KD_NUMBER 1
#define KD_LEFT_NUMBER 1
#define KD_LEFT_BIAS 128
#include "arithmetic/kd_engine_narrow.inc"

typedef vi dot_t;
typedef __m512i right_t;
enum { DOT_COLUMNS = 16, DOT_ROWS = 12, DOT_STRIP = 2 };

static inline right_t dot_load(const unsigned char *right) { return _mm512_loadu_si512(right); }

static inline dot_t dot_add(dot_t sum, const unsigned char *left, right_t right)
{
    int32_t group;
    memcpy(&group, left, sizeof group);
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(group), right);
}

static inline void dot_store(sum_t *to, dot_t sum) { memcpy(to, &sum, sizeof sum); }

#include "arithmetic/kd_engine_dots.inc"
