/* kd_vec: one register of KD_VEC floats, as GCC/Clang vector types, and elementary functions on it.
 *
 * Sources that are compiled once per instruction set include this, after defining KD_VEC.
 */
#ifndef KD_VEC_H
#define KD_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if KD_VEC > 4
#include <immintrin.h>
#elif defined(KD_VEC_NEON)
#include <arm_neon.h>
#endif

typedef float vf __attribute__((vector_size(KD_VEC * 4)));
typedef int32_t vi __attribute__((vector_size(KD_VEC * 4)));
typedef uint32_t vu __attribute__((vector_size(KD_VEC * 4)));
typedef float vf_unaligned __attribute__((vector_size(KD_VEC * 4), aligned(4), may_alias));

/* Sets `i` to the start and `m` to the number of elements of each register-sized piece of [0, n). */
#define FOR_PIECES(n) FOR_PIECES_AS (m, n)
#define FOR_PIECES_AS(m, n) for (ptrdiff_t i = 0, m = (n); i < (n); i += KD_VEC, m -= KD_VEC)

static inline vf vf_load(const float *p) { return *(const vf_unaligned *)p; }
static inline void vf_store(float *p, vf x) { *(vf_unaligned *)p = x; }
static inline vf vf_set(float x) { return x - (vf){0}; }

/* All ones in the lanes below `count`, zeros in the others. */
static inline vi vf_lanes(ptrdiff_t count)
{
    static const int32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vi lane;
    memcpy(&lane, lanes, sizeof lane);
    return lane < (int32_t)kd_min(count, KD_VEC);
}

/* Up to KD_VEC floats: the lanes past `count` are read as 0 and not written. */
static inline vf vf_load_n(const float *p, ptrdiff_t count)
{
    if (count >= KD_VEC)
        return vf_load(p);
#if KD_VEC == 16
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
#elif KD_VEC == 8
    return (vf)_mm256_maskload_ps(p, (__m256i)vf_lanes(count));
#else
    vf x = {0};
    memcpy(&x, p, (size_t)count * sizeof(float));
    return x;
#endif
}

static inline void vf_store_n(float *p, vf x, ptrdiff_t count)
{
    if (count >= KD_VEC)
        vf_store(p, x);
    else
#if KD_VEC == 16
        _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)x);
#elif KD_VEC == 8
        _mm256_maskstore_ps(p, (__m256i)vf_lanes(count), (__m256)x);
#else
        memcpy(p, &x, (size_t)count * sizeof(float));
#endif
}

/* mask ? a : b, for the all-ones and all-zeros lanes a comparison gives. */
static inline vf vf_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

/* The first `count` lanes of x, `other` in the rest. */
static inline vf vf_first(vf x, ptrdiff_t count, vf other)
{
    return count >= KD_VEC ? x : vf_select(vf_lanes(count), x, other);
}

/* Where b is NaN these give NaN. Where a alone is, they give b, as x86's instructions do, or NaN, as NEON's do. A clamp
 * puts its bound first, so that NaN comes through and the loss shows it. */
static inline vf vf_max(vf a, vf b)
{
#if KD_VEC == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif KD_VEC == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(KD_VEC_NEON)
    return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
    return vf_select(a > b, a, b);
#endif
}

static inline vf vf_min(vf a, vf b)
{
#if KD_VEC == 16
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif KD_VEC == 8
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(KD_VEC_NEON)
    return (vf)vminq_f32((float32x4_t)a, (float32x4_t)b);
#else
    return vf_select(a < b, a, b);
#endif
}

static inline vf vf_clamp(vf x, float low, float high) { return vf_min(vf_set(high), vf_max(vf_set(low), x)); }
static inline vf vf_abs(vf x) { return (vf)((vi)x & 0x7fffffff); }

/* a b + c, rounded once on every CPU. Without an instruction for it each lane is a call of the C library. */
static inline vf vf_fused(vf a, vf b, vf c)
{
#if KD_VEC == 16
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif KD_VEC == 8
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    for (int i = 0; i < KD_VEC; i++)
        c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

static inline vf vf_sqrt(vf x)
{
#if KD_VEC == 16
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif KD_VEC == 8
    return (vf)_mm256_sqrt_ps((__m256)x);
#elif defined(KD_VEC_NEON)
    return (vf)vsqrtq_f32((float32x4_t)x);
#else
    for (int i = 0; i < KD_VEC; i++)
        x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}

/* x with its upper `half` lanes moved down, for the last lanes of a tree: what is in the others does not count. */
static inline vf vf_fold(vf x, int half)
{
    switch (half) {
#if KD_VEC == 16
    case 8: return __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    case 4: return __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    case 2: return __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    default: return __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif KD_VEC == 8
    case 4: return __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3);
    case 2: return __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5);
    default: return __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6);
#else
    case 2: return __builtin_shufflevector(x, x, 2, 3, 0, 1);
    default: return __builtin_shufflevector(x, x, 1, 0, 3, 2);
#endif
    }
}

/* A fixed tree: halves are added until one lane is left. */
static inline float vf_sum(vf x)
{
    for (int half = KD_VEC / 2; half > 0; half /= 2)
        x += vf_fold(x, half);
    return x[0];
}

static inline float vf_greatest(vf x)
{
    for (int half = KD_VEC / 2; half > 0; half /= 2)
        x = vf_max(x, vf_fold(x, half));
    return x[0];
}

/* exp(x) = 2^n (1 + r + r^2 P(r)), x clamped to [-87.3, 88.3], with n integral and |r| <= ln 2 / 2. P is fitted to
 * minimise the largest relative error. Adding and taking away 1.5 * 2^23 rounds. */
typedef struct vf_exp_parts {
    vf n, r, square; /* square = r^2 P(r) */
} vf_exp_parts;

static inline vf_exp_parts vf_exp_parts_of(vf x)
{
    const float round = 12582912.0f;
    x = vf_clamp(x, -87.3f, 88.3f);
    vf n = x * 1.44269504f + round - round;
    vf r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vf p = vf_set(0.00138144669f);
    p = p * r + 0.00836878055f;
    p = p * r + 0.0416683942f;
    p = p * r + 0.166665201f;
    p = p * r + 0.499999934f;
    return (vf_exp_parts){n, r, p * r * r};
}

/* 2^n by adding n to the exponent. */
static inline vf vf_exp_of_parts(vf_exp_parts parts)
{
    vf p = parts.square + parts.r + 1.0f;
    vi exponent = __builtin_convertvector(parts.n, vi) << 23;
    return (vf)((vi)p + exponent);
}

/* exp(x), x clamped to [-87.3, 88.3]; relative error < 2e-7. */
static inline vf vf_exp(vf x) { return vf_exp_of_parts(vf_exp_parts_of(x)); }

/* exp(x) - 1 - x, which is >= 0, for x < 88.3; relative error < 5e-6, and < 1e-6 for |x| < ln 2 / 2, where the digits of
 * exp(x) - 1 - x would cancel. */
static inline vf vf_exp_excess(vf x)
{
    vf_exp_parts parts = vf_exp_parts_of(x);
    return vf_select(parts.n == 0.0f, parts.square, vf_exp_of_parts(parts) - 1.0f - x);
}

/* a / b. Where KD_QUICK_QUOTIENT is defined and a register has 16 lanes, from an estimate of 1 / b that a step of Newton's
 * method takes to a relative error below 2^-22, for b from 2^-126 to 2^126: a division of 16 lanes keeps its unit for
 * 16 cycles, and next to products in bfloat16 or int8 that is half the time of gelu. */
static inline vf vf_quotient(vf a, vf b)
{
#if KD_VEC == 16 && defined(KD_QUICK_QUOTIENT)
    vf r = (vf)_mm512_rcp14_ps((__m512)b);
    return a * (r * (2.0f - b * r));
#else
    return a / b;
#endif
}

/* erf(x); absolute error < 4e-7. x P(x^2) / Q(x^2), fitted on [-4, 4]; beyond, erf is 1 - 1.5e-8. */
static inline vf vf_erf(vf x)
{
    x = vf_clamp(x, -4.0f, 4.0f);
    vf z = x * x;
    vf p = vf_set(-1.32023336e-08f);
    p = p * z + 4.6847999e-06f;
    p = p * z + 0.00037960948f;
    p = p * z + 0.00384960477f;
    p = p * z + 0.0543169009f;
    p = p * z + 0.185202997f;
    p = p * z + 1.12837917f;
    vf q = vf_set(6.31107872e-05f);
    q = q * z + 0.0013075693f;
    q = q * z + 0.0154620785f;
    q = q * z + 0.11395834f;
    q = q * z + 0.497465297f;
    q = q * z + 1.0f;
    return vf_quotient(x * p, q);
}

/* tanh(x); relative error < 5e-7. An odd polynomial below 0.625, where 1 - 2 / (exp(2x) + 1) would
 * lose digits. */
static inline vf vf_tanh(vf x)
{
    vf z = x * x;
    vf p = vf_set(-0.00570498347f);
    p = p * z + 0.0206390841f;
    p = p * z + -0.0537397141f;
    p = p * z + 0.133314422f;
    p = p * z + -0.333332819f;
    vf small = x + x * z * p;
    vf large = 1.0f - 2.0f / (vf_exp(2.0f * x) + 1.0f);
    return vf_select(vf_abs(x) < 0.625f, small, large);
}

#endif
