/* kd_kernels: arithmetic on rows of floats, compiled once per instruction-set level.
 *
 * kd_kernels.inc is plain C on GCC/Clang vector types. It is compiled once per level, with that level's
 * compiler flags, and each compilation fills one table of functions. Within a level every function
 * does the same operations in the same order on each row, whatever the other rows are: that is what
 * makes a sentence's logits the same bits alone and in any batch.
 *
 * Pointers need no alignment. An output may be an input where the comment allows it.
 */
#ifndef KD_KERNELS_H
#define KD_KERNELS_H

#include "ground/kd_base.h"
#include "ground/kd_cpu.h"
#include "ground/kd_random.h"

typedef enum kd_activation { KD_GELU, KD_GELU_NEW, KD_RELU, KD_TANH, KD_SILU, KD_QUICK_GELU } kd_activation;

enum { KD_KERNELS_WIDTH = 16 }; /* matmul's n is a multiple of this */

/* What one AdamW step needs besides the arrays; see kd_adamw.h for the formula. */
typedef struct kd_adamw_step {
    float decay; /* 1 - lr * weight_decay */
    float beta1, beta2;
    float step_size;          /* lr / (1 - beta1^t) */
    float inverse_root_bias2; /* 1 / sqrt(1 - beta2^t) */
    float eps;
    float share; /* of p in its moving average; 0 without one */
} kd_adamw_step;

/* What a product does with each element once its sum is complete. */
typedef enum kd_finish {
    KD_FINISH_NONE,
    KD_FINISH_ACTIVATE,    /* c = act(c); slope = act'(c before that), unless slope is NULL */
    KD_FINISH_SCALE_SLOPE, /* slope *= c */
} kd_finish;

/* c (M, N) = a right + (accumulate ? c : bias), then `finish`, for a (M, K) and K rows and N columns of an operand that
 * an engine packed. */
typedef struct kd_product {
    float *c;
    ptrdiff_t ldc;                       /* rows of c and of slope lie ldc apart */
    const void *a;                       /* as the engine reads it: see kd_engine_operand */
    ptrdiff_t lda;                       /* of floats: rows lie lda apart */
    const void *right;                   /* the whole operand, as kd_engine packs it */
    ptrdiff_t right_rows, right_columns; /* that it has */
    ptrdiff_t first_row, first_column;   /* where its K rows and N columns begin: anywhere in float32, else in row 0 and
                                          * where a part of the engine begins */
    ptrdiff_t M, N, K;
    int accumulate;
    const float *bias; /* (N), added to every row; NULL: 0 */
    kd_finish finish;
    kd_activation activation;
    float *slope; /* (M, N). ACTIVATE writes act'(c) here; SCALE_SLOPE multiplies it by c. May be NULL with ACTIVATE. */
    void *next;   /* NULL, or where the results go as the left operand (M, right_columns) of the same engine's next
                 * product: c is then scratch, and of no use afterwards. NULL in float32, which reads c itself. */
} kd_product;

typedef struct kd_kernels {
    ptrdiff_t panel; /* columns of a panel of a product's right operand */

    /* y[n] += x[n]. */
    void (*add)(float *y, const float *x, ptrdiff_t n);
    /* y[n] = a[n] + b[n] + c[n]. */
    void (*add_three)(float *y, const float *a, const float *b, const float *c, ptrdiff_t n);
    /* y[M][n] *= x[M][n]; rows of both lie `ld` apart. */
    void (*multiply)(float *y, const float *x, ptrdiff_t M, ptrdiff_t n, ptrdiff_t ld);
    /* y[n] += a * x[n]. */
    void (*add_scaled)(float *y, const float *x, float a, ptrdiff_t n);
    /* y[n] *= a. */
    void (*scale)(float *y, float a, ptrdiff_t n);
    /* sum[n] += the M rows of x[M][n]; rows lie `ld` apart. */
    void (*sum_rows)(float *sum, const float *x, ptrdiff_t M, ptrdiff_t n, ptrdiff_t ld);
    /* Sum of x[n]^2. */
    double (*sum_squares)(const float *x, ptrdiff_t n);

    /* y[M][n] = act(y) and, unless it is NULL, slope[M][n] = act' of what y was; rows lie `ld` apart. */
    void (*activate)(float *y, float *slope, ptrdiff_t M, ptrdiff_t n, ptrdiff_t ld, kd_activation act);

    /* Per row of M, rows n apart: x[n] += residual[n] unless that is NULL; y[n] = (x - mean) * rstd * gamma + beta;
     * stats[2] = {mean, rstd}. y may be x. */
    void (*normalize)(float *y, float *stats, float *x, const float *residual, const float *gamma, const float *beta,
                      ptrdiff_t M, ptrdiff_t n, float eps);
    /* Per row of M: dx[n]; and the sums dgamma[n] +=, dbeta[n] +=, from the forward's x and stats. dx may be dy or x. */
    void (*normalize_backward)(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x,
                               const float *stats, const float *gamma, ptrdiff_t M, ptrdiff_t n);

    /* p[n] = softmax(scale * p[n]), scale > 0, n >= 1; p[n .. width) becomes 0. Returns log(sum(exp(scale * p))). */
    float (*softmax)(float *p, ptrdiff_t n, ptrdiff_t width, float scale);
    /* softmax again, from the lse that it returned: p[n] = exp(scale * p[n] - lse); p[n .. width) becomes 0. */
    void (*softmax_known)(float *p, float lse, ptrdiff_t n, ptrdiff_t width, float scale);
    /* ds[n] = p * (dp - delta) * scale: softmax backward. ds may be dp. */
    void (*softmax_backward)(float *ds, const float *dp, const float *p, float delta, ptrdiff_t n, float scale);
    /* Returns KL(softmax(t) || softmax(s)) of s[n] and t[n], n >= 1; s becomes share * (softmax(s) - softmax(t)), share
     * times its gradient. t and spare[n] are scratch. NaN where s or t is not finite. */
    double (*divergence)(float *s, float *t, float *spare, ptrdiff_t n, float share);
    /* Dot product of x[n] and y[n]. */
    float (*dot)(const float *x, const float *y, ptrdiff_t n);
    /* c[m][n] = row_bias[m] + a[m] . b[n] for a[M][K] and b[N][K]; row_bias NULL: 0. For so few rows of a that
     * transposing b for matmul would cost more. Rows of c lie ldc apart. */
    void (*dots)(float *c, ptrdiff_t ldc, const float *row_bias, const float *a, const float *b, ptrdiff_t M,
                 ptrdiff_t N, ptrdiff_t K);

    /* bits[KD_RANDOM_BLOCK] = the bits of features KD_RANDOM_BLOCK * block and on. */
    void (*random_bits)(uint16_t *bits, const kd_random_row *row, uint32_t block);
    /* y[n] = x[n] times 0 or 1 / (1 - p): dropout with the bits of features first .. first + n - 1 of
     * `row`; first is a multiple of KD_RANDOM_BLOCK. y may be x. */
    void (*dropout)(float *y, const float *x, const kd_random_row *row, ptrdiff_t first, ptrdiff_t n, float p);

    /* c[m][n] = (accumulate ? c : 0) + sum over k of a(m,k) * b[k][n], for operands in L1: a(m,k) is
     * a[m * ras + k * cas]; n is a multiple of KD_KERNELS_WIDTH. */
    void (*matmul)(float *c, ptrdiff_t ldc, const float *a, ptrdiff_t ras, ptrdiff_t cas, const float *b, ptrdiff_t ldb,
                   ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, int accumulate);

    /* c[M][N] += a^T b for a[K][M] and b[K][N], rows lda and ldb apart; N is a multiple of KD_KERNELS_WIDTH. */
    void (*outer)(float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, ptrdiff_t M,
                  ptrdiff_t N, ptrdiff_t K);
    void (*product)(const kd_product *product);

    /* dst[k][tile] = src[r][k] for r < rows, 0 for rows <= r < tile: `rows` rows become a panel; tile is a
     * multiple of KD_KERNELS_WIDTH. */
    void (*pack_rows)(float *dst, const float *src, ptrdiff_t ld, ptrdiff_t K, ptrdiff_t rows, ptrdiff_t tile);
    /* dst[k][tile] = src[k][c] for c < columns, 0 for columns <= c < tile. */
    void (*pack_columns)(float *dst, const float *src, ptrdiff_t ld, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t tile);

    /* One AdamW step on n parameters, in place. */
    void (*adamw)(float *p, const float *g, float *m, float *v, ptrdiff_t n, const kd_adamw_step *step);
    /* `count` AdamW steps with g = 0: the same bits as doing each in time, but that m becomes 0 once it
     * is subnormal. Unless it is NULL, average[n] takes each step's p in as `average` does. */
    void (*adamw_replay)(float *p, float *m, float *v, float *average, ptrdiff_t n, const kd_adamw_step *steps,
                         ptrdiff_t count);
    /* average[n] += share * (p[n] - average[n]). */
    void (*average)(float *average, const float *p, ptrdiff_t n, float share);

    /* Does multiply-adds in registers alone, to measure the peak that other kernels are compared with. Returns how many
     * floating-point operations it did. It starts from *result and writes its sum there, so that the compiler cannot
     * leave them out. */
    double (*multiply_adds)(ptrdiff_t rounds, float *result);
} kd_kernels;

/* The kernels of a level, or NULL if this build has none for it. */
const kd_kernels *kd_kernels_for(kd_level level);

extern const kd_kernels kd_kernels_generic, kd_kernels_avx2, kd_kernels_avx512, kd_kernels_neon;

#endif
