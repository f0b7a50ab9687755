/* kd_engine: a way to multiply rows with weights, and perhaps to compute attention.
 *
 * Activations, biases, norms and gradients are float32, whatever the compute type, but for what lies between an
 * evaluation's products where the engine has attend: queries, keys, values and the context. A compute type decides how the
 * operands of a product lie in memory and which instructions multiply them, and an engine is these two together. To
 * everybody else a packed weight is bytes: the engine counts them (packed_bytes), writes them (pack) and reads them
 * (product). So are the rows that are multiplied with it, unless the type is float32: these are read where they lie.
 *
 * Another compute type adds its kernels in files kd_engine_<type>_<instruction set>.c, and their lines in kd_engine.c.
 */
#ifndef KD_ENGINE_H
#define KD_ENGINE_H

#include "arithmetic/kd_kernels.h"

typedef enum kd_compute { KD_FLOAT32, KD_BFLOAT16, KD_INT8, KD_COMPUTES } kd_compute;

/* The longest sum that int32 holds whatever the numbers are: 255 * 127 of each, see kd_engine_narrow.h. */
enum { KD_INT8_LONGEST_SUM = 66310 };

/* Attention of one sequence (see kd_attention.h) in an evaluation: rows first .. first + n - 1 of left operands (.., A = H
 * D) of an engine of bfloat16. */
typedef struct kd_attend {
    const void *q, *k, *v;
    ptrdiff_t first, n, H, D;
    ptrdiff_t from, to; /* heads that are computed: from .. to - 1 */
    float scale;        /* of Q K^T */
    float *scores;      /* NULL, or (H, n, n): scale Q K^T */
    void *ctx;          /* the context, such an operand too */
    void *scratch;      /* attend_bytes(n, H, D) bytes, KD_ALIGN-aligned */
} kd_attend;

typedef struct kd_engine kd_engine;
struct kd_engine {
    kd_compute compute;
    const char *isa;           /* the instruction set that its kernels need; "plain": none */
    int native;                /* that instruction set multiplies this type; else it is computed portably */
    const kd_kernels *kernels; /* float32: its product is theirs */

    /* Bytes of a packed (K, N) operand. */
    ptrdiff_t (*packed_bytes)(const kd_engine *engine, ptrdiff_t K, ptrdiff_t N);

    /* right (K, N) = w for row-major w (K, N), rows `ld` apart: a weight as dy W reads it. Transposed, w is (N, K): a
     * weight as PyTorch stores it, for x W^T. `right` is KD_ALIGN-aligned. */
    void (*pack)(const kd_engine *engine, void *right, const float *w, ptrdiff_t ld, ptrdiff_t K, ptrdiff_t N,
                 int transposed);

    /* Bytes of a converted left operand (M, K), KD_ALIGN-aligned, and the conversion of a (M, K), rows lda apart. NULL in
     * float32. */
    ptrdiff_t (*operand_bytes)(ptrdiff_t M, ptrdiff_t K);
    void (*convert)(void *operand, const float *a, ptrdiff_t lda, ptrdiff_t M, ptrdiff_t K);

    /* One product, see kd_product. A row of c sees the same operations whatever the other rows are. Several
     * threads may do it in parts of `part` columns; with whole_rows not with `next`, since a row's scale needs all of
     * the row. */
    void (*product)(const kd_product *product);
    ptrdiff_t part;
    int whole_rows;

    /* A weight's gradient: c (M, N) += a^T b for row-major a (K, M) and b (K, N), rows ldc, lda and ldb apart. `scratch`
     * has outer_bytes(M, N) bytes and is KD_ALIGN-aligned. NULL: gradients are summed by kd_outer, in float32. */
    ptrdiff_t (*outer_bytes)(ptrdiff_t M, ptrdiff_t N);
    void (*outer)(float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, ptrdiff_t M,
                  ptrdiff_t N, ptrdiff_t K, void *scratch);

    /* The engine whose attend computes attention in passes that only evaluate; NULL: float32 does. Its scratch for
     * sequences of at most `longest` tokens has attend_bytes bytes. */
    const kd_engine *attention;
    ptrdiff_t (*attend_bytes)(ptrdiff_t longest, ptrdiff_t H, ptrdiff_t D);
    void (*attend)(const kd_attend *attend);
    /* a (M, K), rows lda apart = the numbers of a left operand (M, K). */
    void (*widen)(float *a, ptrdiff_t lda, const void *operand, ptrdiff_t M, ptrdiff_t K);
};

/* Weights in panels of float32, multiplied by the row kernels. */
kd_engine kd_engine_f32(const kd_kernels *kernels, kd_level level);

/* The engines of the other types that this CPU can run, best first; NULL beyond the last. */
const kd_engine *kd_engine_of(const kd_cpu *cpu, kd_compute compute, int index);

/* "float32", "bfloat16", "int8", and the type of that name, or KD_COMPUTES. */
const char *kd_engine_compute_name(kd_compute compute);
kd_compute kd_engine_compute(const char *name);

/* Row `row` of a left operand (.., K) that has been converted. */
static inline void *kd_engine_operand_row(const kd_engine *engine, void *operand, ptrdiff_t row, ptrdiff_t K)
{
    return (unsigned char *)operand + engine->operand_bytes(row, K) - engine->operand_bytes(0, K);
}

/* a (M, K), row-major without gaps, as a left operand: `a` itself, or its conversion in `scratch`. */
static inline const void *kd_engine_operand(const kd_engine *engine, const float *a, ptrdiff_t M, ptrdiff_t K,
                                            void *scratch)
{
    if (!engine->convert)
        return a;
    engine->convert(scratch, a, K, M, K);
    return scratch;
}

#endif
