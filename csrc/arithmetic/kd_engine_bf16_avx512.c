/* bfloat16 by vdpbf16ps (AVX512-BF16): two k's of 16 columns an instruction. */
#define KD_ENGINE kd_engine_bf16_avx512
#define KD_ISA "avx512_bf16"
#define KD_NATIVE 1
#define KD_VEC 16
#define KD_NUMBER 2
#define KD_LEFT_NUMBER 2
#define KD_LEFT_BIAS 0
#include "arithmetic/kd_engine_narrow.inc"

typedef vf dot_t;
typedef __m512i right_t;
enum { DOT_COLUMNS = 16, DOT_ROWS = 12, DOT_STRIP = 2 };

static inline right_t dot_load(const unsigned char *right) { return _mm512_loadu_si512(right); }

static inline dot_t dot_add(dot_t sum, const unsigned char *left, right_t right)
{
    int32_t group;
    memcpy(&group, left, sizeof group);
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(group), (__m512bh)right);
}

static inline void dot_store(sum_t *to, dot_t sum) { vf_store(to, sum); }

#include "arithmetic/kd_engine_dots.inc"
