/* int8 in plain C. */
#define KD_ENGINE kd_engine_int8_plain
#define KD_ISA "plain"
#define KD_NATIVE 0
#define KD_VEC 4
#define KD_NUMBER 1
#define KD_LEFT_NUMBER 1
#define KD_LEFT_BIAS 0
#include "arithmetic/kd_engine_narrow.inc"

typedef vi dot_t;
typedef vu right_t;
enum { DOT_COLUMNS = 4, DOT_ROWS = 4, DOT_STRIP = 2 };

static inline right_t dot_load(const unsigned char *right)
{
    vu groups;
    memcpy(&groups, right, sizeof groups);
    return groups;
}

static inline dot_t dot_add(dot_t sum, const unsigned char *left, right_t right)
{
    for (int k = 0; k < GROUP; k++)
        sum += (int32_t)(int8_t)left[k] * ((vi)(right << (24 - 8 * k)) >> 24);
    return sum;
}

static inline void dot_store(sum_t *to, dot_t sum) { memcpy(to, &sum, sizeof sum); }

#include "arithmetic/kd_engine_dots.inc"
