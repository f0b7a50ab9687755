#include "layers/kd_attention.h"

#include "ground/kd_arena.h"

#include <math.h>
#include <string.h>

enum { QUERIES = 32 }; /* query rows handled together: their scores for 512 keys are 64 KiB */

/* One head's operands, padded with zeros to whole registers, and its scores. `np` and `Dp` are n and D
 * rounded up to KD_KERNELS_WIDTH. */
typedef struct head_scratch {
    float *kt;    /* (D, np)  K^T */
    float *vt;    /* (D, np)  V^T, backward only */
    float *wide;  /* (n, Dp)  V in forward, K in backward: the right operand with D columns */
    float *query; /* (QUERIES, Dp)  Q, backward only */
    float *dctx;  /* (QUERIES, Dp)  backward only */
    float *p;     /* (QUERIES, np)  probabilities */
    float *dp;    /* (QUERIES, np)  their gradient; dropped probabilities before that */
    float *out;   /* (QUERIES, Dp)  ctx, or dQ */
    float *dk;    /* (np, Dp)  backward only */
    float *dv;    /* (np, Dp)  backward only */
} head_scratch;

static head_scratch place_scratch(kd_arena *arena, ptrdiff_t n, ptrdiff_t D)
{
    ptrdiff_t np = kd_round_up(n, KD_KERNELS_WIDTH), Dp = kd_round_up(D, KD_KERNELS_WIDTH);
    head_scratch s;
    s.kt = kd_arena_floats(arena, D * np);
    s.vt = kd_arena_floats(arena, D * np);
    s.wide = kd_arena_floats(arena, np * Dp);
    s.query = kd_arena_floats(arena, QUERIES * Dp);
    s.dctx = kd_arena_floats(arena, QUERIES * Dp);
    s.p = kd_arena_floats(arena, QUERIES * np);
    s.dp = kd_arena_floats(arena, QUERIES * np);
    s.out = kd_arena_floats(arena, QUERIES * Dp);
    s.dk = kd_arena_floats(arena, np * Dp);
    s.dv = kd_arena_floats(arena, np * Dp);
    return s;
}

ptrdiff_t kd_attention_scratch(const kd_attention *attention, ptrdiff_t longest)
{
    kd_arena measure = kd_arena_over(NULL);
    place_scratch(&measure, longest, attention->D);
    return (ptrdiff_t)(measure.used / sizeof(float));
}

/* dst (D, np) = the n rows of src (rows C apart), transposed; columns past n are 0. */
static void transpose(const kd_kernels *kernels, float *dst, const float *src, ptrdiff_t n, ptrdiff_t D, ptrdiff_t C)
{
    kernels->pack_rows(dst, src, C, D, n, kd_round_up(n, KD_KERNELS_WIDTH));
}

/* matmul reads and writes whole registers of columns. Where D is a multiple of a register, it works on the rows where
 * they lie, C apart; otherwise on a scratch copy, Dp apart, with zeros in the columns past D. */
typedef struct wide_rows {
    const kd_kernels *kernels;
    ptrdiff_t D, Dp, C;
    int whole;
    ptrdiff_t ld;
} wide_rows;

static wide_rows wide_rows_of(const kd_kernels *kernels, ptrdiff_t D, ptrdiff_t C)
{
    ptrdiff_t Dp = kd_round_up(D, KD_KERNELS_WIDTH);
    return (wide_rows){kernels, D, Dp, C, D == Dp, D == Dp ? C : Dp};
}

/* Returns n rows as an operand of matmul, `ld` apart. */
static const float *operand(const wide_rows *h, const float *src, float *scratch, ptrdiff_t n)
{
    if (h->whole)
        return src;
    h->kernels->pack_columns(scratch, src, h->C, n, h->D, h->Dp);
    return scratch;
}

/* Returns where matmul writes rows that belong in dst. copy_back follows. */
static float *output(const wide_rows *h, float *dst, float *scratch) { return h->whole ? dst : scratch; }

/* Copies n rows that matmul wrote to scratch memory to where they belong. */
static void copy_back(const wide_rows *h, float *dst, const float *written, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; written != dst && i < n; i++)
        memcpy(dst + i * h->C, written + i * h->ld, (size_t)h->D * sizeof(float));
}

static void drop_row(const kd_kernels *kernels, float *y, const float *p, const kd_attention *a, ptrdiff_t token,
                     ptrdiff_t head, ptrdiff_t n)
{
    kd_dropout_row(kernels, y, p, a->dropout, a->tensor, token, head * a->features, n, a->p);
}

/* Where the numbers of a query begin in spread and dspread. */
static ptrdiff_t spread_row(const kd_attention *a, ptrdiff_t head, ptrdiff_t query)
{
    return (a->columns ? a->columns[head] : head) * (2 * a->longest - 1) + a->longest - 1 - query;
}

/* p (count, np), products of queries q0 on with n keys, += b sqrt(D). */
static void add_spread(const kd_kernels *kernels, float *p, const kd_attention *a, ptrdiff_t head, ptrdiff_t q0,
                       ptrdiff_t count, ptrdiff_t n, ptrdiff_t np)
{
    for (ptrdiff_t i = 0; a->spread && i < count; i++)
        kernels->add(p + i * np, a->spread + spread_row(a, head, q0 + i), n);
}

/* scores (count, n) = scale * p (count, np). */
static void store_scores(const kd_kernels *kernels, float *scores, const float *p, ptrdiff_t count, ptrdiff_t n,
                         ptrdiff_t np, float scale)
{
    for (ptrdiff_t i = 0; i < count; i++)
        memcpy(scores + i * n, p + i * np, (size_t)n * sizeof(float));
    kernels->scale(scores, scale, count * n);
}

static void forward_head(const kd_kernels *kernels, float *ctx, float *lse, float *scores, const float *q,
                         const float *k, const float *v, const kd_attention *a, ptrdiff_t head, ptrdiff_t token,
                         ptrdiff_t n, const head_scratch *s)
{
    const wide_rows h = wide_rows_of(kernels, a->D, a->H * a->D);
    const ptrdiff_t D = h.D, C = h.C, np = kd_round_up(n, KD_KERNELS_WIDTH);
    const float scale = 1.0f / sqrtf((float)D);
    transpose(kernels, s->kt, k + head * D, n, D, C);
    const float *values = operand(&h, v + head * D, s->wide, n);
    for (ptrdiff_t q0 = 0; q0 < n; q0 += QUERIES) {
        ptrdiff_t count = kd_min(QUERIES, n - q0);
        kernels->matmul(s->p, np, q + q0 * C + head * D, C, 1, s->kt, np, count, np, D, 0);
        add_spread(kernels, s->p, a, head, q0, count, n, np);
        if (scores)
            store_scores(kernels, scores + (head * n + q0) * n, s->p, count, n, np, scale);
        for (ptrdiff_t i = 0; i < count; i++) {
            float *p = s->p + i * np;
            lse[(q0 + i) * a->H + head] = kernels->softmax(p, n, np, scale);
            drop_row(kernels, p, p, a, token + q0 + i, head, n);
        }
        float *ctx_rows = ctx + q0 * C + head * D, *out = output(&h, ctx_rows, s->out);
        kernels->matmul(out, h.ld, s->p, np, 1, values, h.ld, count, h.Dp, n, 0);
        copy_back(&h, ctx_rows, out, count);
    }
}

void kd_attention_forward(const kd_kernels *kernels, float *ctx, float *lse, float *scores, const float *q,
                          const float *k, const float *v, const kd_attention *attention, ptrdiff_t from, ptrdiff_t to,
                          ptrdiff_t token, ptrdiff_t n, float *scratch)
{
    kd_arena arena = kd_arena_over(scratch);
    head_scratch s = place_scratch(&arena, n, attention->D);
    for (ptrdiff_t head = from; head < to; head++)
        forward_head(kernels, ctx, lse, scores, q, k, v, attention, head, token, n, &s);
}

void kd_attention_evaluate(const kd_engine *engine, void *ctx, float *scores, const void *q, const void *k,
                           const void *v, const kd_attention *attention, ptrdiff_t from, ptrdiff_t to, ptrdiff_t first,
                           ptrdiff_t n, void *scratch)
{
    const kd_attend attend = {.q = q,
                              .k = k,
                              .v = v,
                              .first = first,
                              .n = n,
                              .H = attention->H,
                              .D = attention->D,
                              .from = from,
                              .to = to,
                              .scale = 1.0f / sqrtf((float)attention->D),
                              .scores = scores,
                              .ctx = ctx,
                              .scratch = scratch};
    engine->attend(&attend);
}

/* With Pd = dropout(P):  dV = Pd^T dctx;  dPd = dctx V^T;  dP = dropout(dPd);
 * dS = P (dP - delta) + dscores,  delta_i = sum_j P_ij dP_ij = dctx_i . ctx_i;  dQ = dS K / sqrt(D);
 * dK = dS^T Q / sqrt(D);  db_d = sum of dS_ij with j - i = d. */
static void backward_head(const kd_kernels *kernels, float *q, float *k, float *v, const float *dctx,
                          const float *dscores, const float *ctx, const float *lse, const kd_attention *a,
                          ptrdiff_t head, ptrdiff_t token, ptrdiff_t n, const head_scratch *s)
{
    const wide_rows h = wide_rows_of(kernels, a->D, a->H * a->D);
    const ptrdiff_t D = h.D, C = h.C, np = kd_round_up(n, KD_KERNELS_WIDTH);
    const float scale = 1.0f / sqrtf((float)D);
    transpose(kernels, s->kt, k + head * D, n, D, C);
    transpose(kernels, s->vt, v + head * D, n, D, C);
    const float *keys = operand(&h, k + head * D, s->wide, n);
    float *dv = output(&h, v + head * D, s->dv); /* v is read through vt only */
    for (ptrdiff_t q0 = 0; q0 < n; q0 += QUERIES) {
        const ptrdiff_t count = kd_min(QUERIES, n - q0);
        const int later = q0 > 0;
        float *q_rows = q + q0 * C + head * D, *dq = output(&h, q_rows, s->out);
        const float *query = operand(&h, q_rows, s->query, count);
        const float *dctx_rows = operand(&h, dctx + q0 * C + head * D, s->dctx, count);
        kernels->matmul(s->p, np, query, h.ld, 1, s->kt, np, count, np, D, 0);
        add_spread(kernels, s->p, a, head, q0, count, n, np);
        for (ptrdiff_t i = 0; i < count; i++) {
            kernels->softmax_known(s->p + i * np, lse[(q0 + i) * a->H + head], n, np, scale);
            drop_row(kernels, s->dp + i * np, s->p + i * np, a, token + q0 + i, head, n);
        }
        kernels->matmul(dv, h.ld, s->dp, 1, np, dctx_rows, h.ld, n, h.Dp, count, later);
        kernels->matmul(s->dp, np, dctx_rows, h.ld, 1, s->vt, np, count, np, D, 0);
        for (ptrdiff_t i = 0; i < count; i++) {
            ptrdiff_t row = (q0 + i) * C + head * D;
            drop_row(kernels, s->dp + i * np, s->dp + i * np, a, token + q0 + i, head, n);
            kernels->softmax_backward(s->dp + i * np, s->dp + i * np, s->p + i * np,
                                      kernels->dot(dctx + row, ctx + row, D), np, scale);
            if (dscores)
                kernels->add_scaled(s->dp + i * np, dscores + (head * n + q0 + i) * n, scale, n);
            if (a->spread)
                kernels->add(a->dspread + spread_row(a, head, q0 + i), s->dp + i * np, n);
        }
        kernels->matmul(s->dk, h.Dp, s->dp, 1, np, query, h.ld, n, h.Dp, count, later);
        kernels->matmul(dq, h.ld, s->dp, np, 1, keys, h.ld, count, h.Dp, n, 0);
        copy_back(&h, q_rows, dq, count);
    }
    copy_back(&h, v + head * D, dv, n);
    for (ptrdiff_t i = 0; i < n; i++) /* not before every query has read the keys */
        memcpy(k + i * C + head * D, s->dk + i * h.Dp, (size_t)D * sizeof(float));
}

void kd_attention_backward(const kd_kernels *kernels, float *q, float *k, float *v, const float *dctx,
                           const float *dscores, const float *ctx, const float *lse, const kd_attention *attention,
                           ptrdiff_t token, ptrdiff_t n, float *scratch)
{
    kd_arena arena = kd_arena_over(scratch);
    head_scratch s = place_scratch(&arena, n, attention->D);
    for (ptrdiff_t head = 0; head < attention->H; head++)
        backward_head(kernels, q, k, v, dctx, dscores, ctx, lse, attention, head, token, n, &s);
}

/* ---- one query, weights absorbed -------------------------------------------------------------------- */

/* Arrays of all heads; np is n rounded up, Cp is C. The copies are needed where C is no whole registers. */
typedef struct absorbed_scratch {
    float *p;       /* (H, np)  probabilities */
    float *dropped; /* (H, np)  after dropout, backward only */
    float *ds;      /* (H, np)  gradient of the scores, backward only */
    float *x;       /* (n, Cp)  a copy of x, or its gradient */
    float *u, *dz;  /* (H, Cp)  copies, backward only */
    float *out;     /* (H, Cp)  z, or the gradient of u */
} absorbed_scratch;

static absorbed_scratch place_absorbed(kd_arena *arena, ptrdiff_t n, const kd_attention *a)
{
    ptrdiff_t np = kd_round_up(n, KD_KERNELS_WIDTH), Cp = kd_round_up(a->C, KD_KERNELS_WIDTH);
    absorbed_scratch s;
    s.p = kd_arena_floats(arena, a->H * np);
    s.dropped = kd_arena_floats(arena, a->H * np);
    s.ds = kd_arena_floats(arena, a->H * np);
    s.x = kd_arena_floats(arena, n * Cp);
    s.u = kd_arena_floats(arena, a->H * Cp);
    s.dz = kd_arena_floats(arena, a->H * Cp);
    s.out = kd_arena_floats(arena, a->H * Cp);
    return s;
}

ptrdiff_t kd_attention_absorbed_scratch(const kd_attention *attention, ptrdiff_t longest)
{
    kd_arena measure = kd_arena_over(NULL);
    place_absorbed(&measure, longest, attention);
    return (ptrdiff_t)(measure.used / sizeof(float));
}

void kd_attention_absorbed_forward(const kd_kernels *kernels, float *z, float *total, float *lse, const float *u,
                                   const float *x, const kd_attention *a, ptrdiff_t from, ptrdiff_t to, ptrdiff_t token,
                                   ptrdiff_t n, float *scratch)
{
    const ptrdiff_t C = a->C, np = kd_round_up(n, KD_KERNELS_WIDTH);
    const float scale = 1.0f / sqrtf((float)a->D);
    const wide_rows wide = wide_rows_of(kernels, C, C);
    kd_arena arena = kd_arena_over(scratch);
    absorbed_scratch s = place_absorbed(&arena, n, a);
    kernels->dots(s.p, np, NULL, u + from * C, x, to - from, n, C);
    for (ptrdiff_t head = from; head < to; head++) {
        float *p = s.p + (head - from) * np;
        add_spread(kernels, p, a, head, 0, 1, n, np);
        lse[head] = kernels->softmax(p, n, np, scale);
        drop_row(kernels, p, p, a, token, head, n);
        total[head] = 0;
        for (ptrdiff_t i = 0; i < n; i++)
            total[head] += p[i];
    }
    float *out = output(&wide, z + from * C, s.out);
    kernels->matmul(out, wide.ld, s.p, np, 1, operand(&wide, x, s.x, n), wide.ld, to - from, wide.Dp, n, 0);
    copy_back(&wide, z + from * C, out, to - from);
}

/* With Pd = dropout(P):  dPd = dz x^T + dctx bv;  dP = dropout(dPd);  dS = P (dP - delta) / sqrt(D), where
 * delta = sum_j P_j dP_j = dctx . ctx;  du = dS x;  dx = Pd^T dz + dS^T u. */
void kd_attention_absorbed_backward(const kd_kernels *kernels, float *x, float *u, const float *dz, const float *dctx,
                                    const float *ctx, const float *lse, const float *value_bias, const kd_attention *a,
                                    ptrdiff_t token, ptrdiff_t n, float *scratch)
{
    const ptrdiff_t H = a->H, D = a->D, C = a->C, np = kd_round_up(n, KD_KERNELS_WIDTH);
    const float scale = 1.0f / sqrtf((float)D);
    const wide_rows wide = wide_rows_of(kernels, C, C);
    kd_arena arena = kd_arena_over(scratch);
    absorbed_scratch s = place_absorbed(&arena, n, a);
    kernels->dots(s.p, np, NULL, u, x, H, n, C);
    for (ptrdiff_t head = 0; head < H; head++) {
        float *p = s.p + head * np, *ds = s.ds + head * np;
        float of_bias = kernels->dot(dctx + head * D, value_bias + head * D, D);
        float delta = kernels->dot(dctx + head * D, ctx + head * D, D);
        add_spread(kernels, p, a, head, 0, 1, n, np);
        kernels->softmax_known(p, lse[head], n, np, scale);
        drop_row(kernels, s.dropped + head * np, p, a, token, head, n);
        kernels->dots(ds, np, &of_bias, dz + head * C, x, 1, n, C);
        drop_row(kernels, ds, ds, a, token, head, n);
        kernels->softmax_backward(ds, ds, p, delta, n, scale);
        if (a->spread)
            kernels->add(a->dspread + spread_row(a, head, 0), ds, n);
    }
    kernels->matmul(s.out, wide.Dp, s.ds, np, 1, operand(&wide, x, s.x, n), wide.ld, H, wide.Dp, n, 0);
    float *dx = output(&wide, x, s.x);
    kernels->matmul(dx, wide.ld, s.dropped, 1, np, operand(&wide, dz, s.dz, H), wide.ld, n, wide.Dp, H, 0);
    kernels->matmul(dx, wide.ld, s.ds, 1, np, operand(&wide, u, s.u, H), wide.ld, n, wide.Dp, H, 1);
    copy_back(&wide, x, dx, n);
    for (ptrdiff_t head = 0; head < H; head++)
        memcpy(u + head * C, s.out + head * wide.Dp, (size_t)C * sizeof(float));
}
