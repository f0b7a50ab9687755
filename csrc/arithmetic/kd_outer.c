#include "arithmetic/kd_outer.h"

#include <blis.h>

/* BLIS has had two interfaces to what we use: up to 0.9 the native contexts are looked up apart from
 * the induced-method ones, from 1.0 on there is one context per architecture. */
#if defined(KD_BLIS_0)
#define LOOKUP_CONTEXT(arch) bli_gks_lookup_nat_cntx(arch)
#define MICRO_KERNEL(context) bli_cntx_get_l3_nat_ukr_dt(BLIS_FLOAT, BLIS_GEMM_UKR, context)
#define PREFERS_ROWS(context) bli_cntx_l3_nat_ukr_prefers_rows_dt(BLIS_FLOAT, BLIS_GEMM_UKR, context)
#else
#define LOOKUP_CONTEXT(arch) ((cntx_t *)bli_gks_lookup_id(arch))
#define MICRO_KERNEL(context) bli_cntx_get_ukr_dt(BLIS_FLOAT, BLIS_GEMM_UKR, context)
#define PREFERS_ROWS(context) bli_cntx_ukr_prefers_rows_dt(BLIS_FLOAT, BLIS_GEMM_UKR, context)
#endif

enum { SLACK = 128 }; /* floats past the end of a panel that the kernels load ahead */

typedef void (*micro_kernel)(dim_t m, dim_t n, dim_t k, const float *alpha, const float *a, const float *b,
                             const float *beta, float *c, inc_t rs, inc_t cs, auxinfo_t *next, cntx_t *context);

/* BLIS chooses its kernels by CPU model and falls back to `generic` on models it does not know; we
 * choose by instruction set instead. Measured per core on a Zen 5, K 128..384: haswell 6x16 133 GF/s,
 * skx 32x12 268 GF/s, generic 43 GF/s; the zen3 context has the haswell kernel. */
static arch_t kernel_set(kd_level level)
{
    switch (level) {
#if defined(BLIS_CONFIG_HASWELL)
    case KD_LEVEL_AVX2: return BLIS_ARCH_HASWELL;
#endif
#if defined(BLIS_CONFIG_SKX)
    case KD_LEVEL_AVX512: return BLIS_ARCH_SKX;
#endif
#if defined(BLIS_CONFIG_CORTEXA57)
    case KD_LEVEL_NEON:
#if !defined(BLIS_CONFIG_GENERIC)
    case KD_LEVEL_GENERIC: /* Debian's BLIS for arm64 has this set alone, which any such CPU runs */
#endif
        return BLIS_ARCH_CORTEXA57;
#endif
#if defined(BLIS_CONFIG_GENERIC)
    case KD_LEVEL_GENERIC: return BLIS_ARCH_GENERIC;
#endif
    default: return BLIS_NUM_ARCHS;
    }
}

static ptrdiff_t block_size(cntx_t *context, bszid_t which)
{
    return (ptrdiff_t)bli_cntx_get_blksz_def_dt(BLIS_FLOAT, which, context);
}

kd_status kd_outer_init(kd_outer *outer, const kd_kernels *kernels, kd_level level)
{
    bli_init();
    arch_t set = kernel_set(level);
    if (set == BLIS_NUM_ARCHS)
        return KD_UNSUPPORTED;
    outer->kernels = kernels;
    cntx_t *context = LOOKUP_CONTEXT(set);
    outer->kernel_set = bli_arch_string(set);
    ptrdiff_t mr = block_size(context, BLIS_MR), nr = block_size(context, BLIS_NR);
    outer->kernel = (void (*)(void))MICRO_KERNEL(context);
    outer->context = context;
    outer->column_major = !PREFERS_ROWS(context);
    outer->left_tile = outer->column_major ? nr : mr;
    outer->right_tile = outer->column_major ? mr : nr;
    outer->kc = block_size(context, BLIS_KC);
    return KD_OK;
}

const char *kd_outer_library_version(void) { return bli_info_get_version_str(); }

static void pack_columns(const kd_outer *outer, float *dst, const float *src, ptrdiff_t ld, ptrdiff_t K, ptrdiff_t N,
                         ptrdiff_t tile)
{
    for (ptrdiff_t c = 0; c < N; c += tile)
        outer->kernels->pack_columns(dst + c * K, src + c, ld, K, kd_min(tile, N - c), tile);
}

/* One tile of c += left right. The kernel itself handles tiles cut short by the edge. */
static void run_tile(const kd_outer *outer, float *c, ptrdiff_t ldc, const float *left, const float *right, ptrdiff_t m,
                     ptrdiff_t n, ptrdiff_t k)
{
    static const float one = 1.0f;
    micro_kernel kernel = (micro_kernel)outer->kernel;
    auxinfo_t next = {0};
    bli_auxinfo_set_next_a((void *)left, &next);
    bli_auxinfo_set_next_b((void *)right, &next);
    if (outer->column_major)
        kernel(n, m, k, &one, right, left, &one, c, 1, ldc, &next, outer->context);
    else
        kernel(m, n, k, &one, left, right, &one, c, ldc, 1, &next, outer->context);
}

/* One tile after the other of c += left right, k <= kc. A row-major kernel keeps a right panel in L1 and
 * streams left panels; a column-major one keeps a left panel in L1 and streams right ones. */
static void run_block(const kd_outer *outer, float *c, ptrdiff_t ldc, const float *left, const float *right,
                      ptrdiff_t M, ptrdiff_t N, ptrdiff_t k)
{
    const ptrdiff_t T = outer->left_tile, F = outer->right_tile, strip = outer->column_major ? N : F;
    for (ptrdiff_t f0 = 0; f0 < N; f0 += strip)
        for (ptrdiff_t t = 0; t < M; t += T)
            for (ptrdiff_t f = f0; f < kd_min(f0 + strip, N); f += F)
                run_tile(outer, c + t * ldc + f, ldc, left + t * k, right + f * k, kd_min(T, M - t), kd_min(F, N - f),
                         k);
}

static ptrdiff_t packed_left(const kd_outer *outer, ptrdiff_t M)
{
    return kd_round_up(kd_round_up(M, outer->left_tile) * outer->kc + SLACK, KD_ALIGN_FLOATS);
}

ptrdiff_t kd_outer_scratch(const kd_outer *outer, ptrdiff_t M, ptrdiff_t N)
{
    return packed_left(outer, M) + kd_round_up(N, outer->right_tile) * outer->kc + SLACK;
}

/* Both operands are packed by copying whole pieces of rows: k runs along their rows already. */
static void outer_packed(const kd_outer *outer, float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const float *b,
                         ptrdiff_t ldb, ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, float *scratch)
{
    float *left = scratch, *right = scratch + packed_left(outer, M);
    for (ptrdiff_t k0 = 0; k0 < K; k0 += outer->kc) {
        ptrdiff_t k = kd_min(outer->kc, K - k0);
        pack_columns(outer, left, a + k0 * lda, lda, k, M, outer->left_tile);
        pack_columns(outer, right, b + k0 * ldb, ldb, k, N, outer->right_tile);
        run_block(outer, c, ldc, left, right, M, N, k);
    }
}

/* Rows less than a page apart are read where they lie: packing costs more than it saves (a student step of
 * BERT-Tiny on a Zen 5: 15.0 against 15.8 ms with AVX-512, 25.3 against 25.9 with AVX2). Rows a page apart or more would
 * meet in the same few sets of L1. */
void kd_outer_add(const kd_outer *outer, float *c, ptrdiff_t ldc, const float *a, ptrdiff_t lda, const float *b,
                  ptrdiff_t ldb, ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, float *scratch)
{
    enum { PAGE = 1024 };
    if (N % KD_KERNELS_WIDTH || lda >= PAGE || ldb >= PAGE) {
        outer_packed(outer, c, ldc, a, lda, b, ldb, M, N, K, scratch);
        return;
    }
    outer->kernels->outer(c, ldc, a, lda, b, ldb, M, N, K);
}
