/* int8 on AVX2: vpmaddwd adds the products of neighbouring int16 and cannot saturate, as vpmaddubsw would. So the left
 * operand is kept in 16 bits, and the right one widened when it is loaded. */
#define KD_ENGINE kd_engine_int8_avx2
#define KD_ISA "avx2"
#define KD_NATIVE 1
#define KD_VEC 8
#define KD_NUMBER 1
#define KD_LEFT_NUMBER 2
#define KD_LEFT_BIAS 0
#include "arithmetic/kd_engine_narrow.inc"

/* Two neighbouring lanes are the sums of one column's even and odd pairs: columns 0 .. 3 in `low`. */
typedef struct dot_t {
    __m256i low, high;
} dot_t;
typedef dot_t right_t;
enum { DOT_COLUMNS = 8, DOT_ROWS = 6, DOT_STRIP = 1 };

static inline right_t dot_load(const unsigned char *right)
{
    return (right_t){_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)right)),
                     _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(right + 16)))};
}

static inline dot_t dot_add(dot_t sum, const unsigned char *left, right_t right)
{
    long long group;
    memcpy(&group, left, sizeof group);
    const __m256i a = _mm256_set1_epi64x(group);
    return (dot_t){_mm256_add_epi32(sum.low, _mm256_madd_epi16(a, right.low)),
                   _mm256_add_epi32(sum.high, _mm256_madd_epi16(a, right.high))};
}

static inline void dot_store(sum_t *to, dot_t sum)
{
    /* hadd works within halves of a register: columns 0 1 4 5 | 2 3 6 7. */
    const __m256i pairs = _mm256_hadd_epi32(sum.low, sum.high);
    _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(pairs, 0xd8));
}

#include "arithmetic/kd_engine_dots.inc"
