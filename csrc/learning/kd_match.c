#include "learning/kd_match.h"

#include "layers/kd_linear.h"

#include <math.h>
#include <string.h>

#define LEAST_LENGTH 1e-12

enum {
    PROJECTED_ROWS = 48,  /* rows that are projected together: they share one reading of the packed weight */
    ITEM_NUMBERS = 16384, /* numbers of rows, or of maps, that make an item: some 10 us */
    QUERIES = 32,         /* query rows handled together: their scores for 512 keys are 64 KiB */
};

/* ---- losses on rows --------------------------------------------------------------------------------- */

/* y[n] = share * d(sum of squares)/dy; returns the sum of (y - t)^2. */
static double square(const kd_kernels *kernels, float *y, const float *t, ptrdiff_t n, double share)
{
    kernels->add_scaled(y, t, -1, n);
    const double sum = kernels->sum_squares(y, n);
    kernels->scale(y, (float)(2 * share), n);
    return sum;
}

static double mse_row(const kd_kernels *kernels, float *y, const float *t, ptrdiff_t T, double share)
{
    return square(kernels, y, t, T, share / (double)T) / (double)T;
}

/* In double, and four sums at a time, which need not wait for each other. */
static double product(const float *a, const float *b, ptrdiff_t n)
{
    double sum[4] = {0};
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++)
            sum[j] += (double)a[i + j] * b[i + j];
    for (; i < n; i++)
        sum[0] += (double)a[i] * b[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* 1 / |x|, or 0 where x has no direction. Not finite where x is not. */
static double inverse_length(const float *x, ptrdiff_t n)
{
    const double length = sqrt(product(x, x, n));
    return length < LEAST_LENGTH ? 0 : 1 / length + 0 * length;
}

/* y[n] = share * d(-cos(y, t))/dy = share * (cos y / |y| - t / |t|) / |y|; returns the cosine. */
static double turn_to(float *y, const float *t, ptrdiff_t n, double of_y, double of_t, double share)
{
    const double cosine = product(y, t, n) * of_y * of_t;
    const double along = share * cosine * of_y * of_y, across = share * of_y * of_t;
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = (float)(along * y[i] - across * t[i]);
    return cosine;
}

static double cosine_row(const kd_kernels *kernels, float *y, const float *t, ptrdiff_t T, double share)
{
    (void)kernels;
    return 1 - turn_to(y, t, T, inverse_length(y, T), inverse_length(t, T), share);
}

/* |u - v|^2 = |u|^2 + |v|^2 - 2 u . v, and the lengths of u = y / |y| and v = t / |t| do not change. */
static double normalized_row(const kd_kernels *kernels, float *y, const float *t, ptrdiff_t T, double share)
{
    (void)kernels;
    const double of_y = inverse_length(y, T), of_t = inverse_length(t, T);
    return (of_y != 0) + (of_t != 0) - 2 * turn_to(y, t, T, of_y, of_t, 2 * share);
}

/* Returns a row's loss; y (T), the student's, becomes share * d(loss)/dy. */
typedef double (*row_function)(const kd_kernels *kernels, float *y, const float *t, ptrdiff_t T, double share);

static const struct {
    const char *name;
    row_function compute;
} row_losses[] = {{"mse", mse_row}, {"cosine", cosine_row}, {"normalized-mse", normalized_row}};
enum { ROW_LOSSES = sizeof row_losses / sizeof *row_losses };

const char *kd_match_rows_name(int loss) { return loss < ROW_LOSSES ? row_losses[loss].name : NULL; }

void kd_match_rows_place(kd_match_rows *match, kd_arena *arena, int threads)
{
    const kd_engine *engine = &match->math->float32;
    const ptrdiff_t R = match->R, S = match->S, T = match->T;
    match->terms = kd_arena_take(arena, R, sizeof(double));
    if (!match->projection)
        return;
    match->projected = kd_arena_floats(arena, R * T);
    match->forward = kd_arena_take(arena, engine->packed_bytes(engine, S, T), 1);
    match->backward = kd_arena_take(arena, engine->packed_bytes(engine, T, S), 1);
    match->outer_bytes = kd_round_up(kd_linear_tile_scratch(match->math), KD_ALIGN);
    match->outer = kd_arena_take(arena, threads * match->outer_bytes, 1);
}

static ptrdiff_t rows_of_item(const kd_match_rows *match)
{
    return match->projection ? PROJECTED_ROWS : kd_max(1, ITEM_NUMBERS / match->T);
}

ptrdiff_t kd_match_rows_items(const kd_match_rows *match, kd_match_phase phase)
{
    switch (phase) {
    case KD_MATCH_PACK: return match->projection ? 2 : 0;
    case KD_MATCH_ROWS: return kd_ceil_div(match->R, rows_of_item(match));
    default: return match->projection ? kd_linear_tiles(match->T, match->S) : 0;
    }
}

double kd_match_rows_item_cost(const kd_match_rows *match, kd_match_phase phase)
{
    enum { NUMBER_FLOPS = 100 }; /* in whose time a number is packed, or its loss computed, roughly */
    const double S = (double)match->S, T = (double)match->T;
    switch (phase) {
    case KD_MATCH_PACK: return NUMBER_FLOPS * S * T;
    case KD_MATCH_ROWS: return (double)rows_of_item(match) * T * (NUMBER_FLOPS + (match->projection ? 4 * S : 0));
    default: return 2.0 * (double)match->R * KD_LINEAR_TILE_O * KD_LINEAR_TILE_I;
    }
}

static void pack_item(const kd_match_rows *match, ptrdiff_t item)
{
    const kd_engine *engine = &match->math->float32;
    if (item == 0)
        engine->pack(engine, match->forward, match->projection, match->S, match->S, match->T, 1);
    else
        engine->pack(engine, match->backward, match->projection, match->S, match->T, match->S, 0);
}

static void rows_item(const kd_match_rows *match, ptrdiff_t item)
{
    const ptrdiff_t S = match->S, T = match->T, step = rows_of_item(match);
    const ptrdiff_t from = item * step, rows = kd_min(step, match->R - from);
    const kd_linear layer = {&match->math->float32, match->forward, match->backward, NULL, S, T};
    float *y = (match->projection ? match->projected : match->dstudent) + from * T;
    if (match->projection)
        kd_linear_forward(y, match->student + from * S, &layer, rows);
    for (ptrdiff_t r = 0; r < rows; r++)
        match->terms[from + r] = row_losses[match->loss].compute(
            match->math->kernels, y + r * T, match->teacher + (from + r) * T, T, 1 / (double)match->R);
    if (match->projection)
        kd_linear_backward_input(match->dstudent + from * S, y, &layer, rows, 0);
}

static void weights_item(const kd_match_rows *match, ptrdiff_t item, int member)
{
    const ptrdiff_t S = match->S, T = match->T;
    const kd_linear_tile t = kd_linear_tile_of(T, S, item);
    float *tile = match->dprojection + t.o0 * S + t.i0;
    for (ptrdiff_t o = 0; o < t.o1 - t.o0; o++)
        memset(tile + o * S, 0, (size_t)(t.i1 - t.i0) * sizeof(float));
    kd_arithmetic_outer(match->math, &match->math->float32, tile, S, match->projected + t.o0, T, match->student + t.i0,
                        S, t.o1 - t.o0, t.i1 - t.i0, match->R, match->outer + member * match->outer_bytes);
}

typedef struct row_range {
    const kd_match_rows *match;
    kd_match_phase phase;
    ptrdiff_t from;
} row_range;

static void row_range_item(void *context, ptrdiff_t index, int member)
{
    const row_range *range = context;
    const ptrdiff_t item = range->from + index;
    switch (range->phase) {
    case KD_MATCH_PACK: pack_item(range->match, item); break;
    case KD_MATCH_ROWS: rows_item(range->match, item); break;
    default: weights_item(range->match, item, member);
    }
}

void kd_match_rows_do(kd_match_rows *match, kd_match_phase phase, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    row_range range = {match, phase, from};
    kd_pool_run(team, row_range_item, &range, to - from);
}

static double sum_of(const double *terms, ptrdiff_t n)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        sum += terms[i];
    return sum;
}

double kd_match_rows_loss(const kd_match_rows *match) { return sum_of(match->terms, match->R) / (double)match->R; }

/* ---- losses on maps --------------------------------------------------------------------------------- */

/* A few queries of a head: their scores s and t, `n` of each query, and queries `ld` apart. */
typedef struct queries {
    float *s, *t;
    float *spare; /* (n) */
    ptrdiff_t count, n, ld;
} queries;

static double mse_queries(const kd_kernels *kernels, const queries *q, double share)
{
    double sum = 0;
    if (q->n == q->ld)
        return square(kernels, q->s, q->t, q->count * q->n, share);
    for (ptrdiff_t i = 0; i < q->count; i++)
        sum += square(kernels, q->s + i * q->ld, q->t + i * q->ld, q->n, share);
    return sum;
}

static double kl_queries(const kd_kernels *kernels, const queries *q, double share)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < q->count; i++)
        sum += kernels->divergence(q->s + i * q->ld, q->t + i * q->ld, q->spare, q->n, (float)share);
    return sum;
}

/* Returns the sum of the losses; s becomes share * d(sum)/ds, t is scratch afterwards. */
typedef double (*map_function)(const kd_kernels *kernels, const queries *q, double share);

static const struct {
    const char *name;
    map_function compute;
    int over_scores; /* the mean is taken over all scores, not over the queries */
} map_losses[] = {{"mse", mse_queries, 1}, {"kl", kl_queries, 0}};
enum { MAP_LOSSES = sizeof map_losses / sizeof *map_losses };

const char *kd_match_maps_name(int loss) { return loss < MAP_LOSSES ? map_losses[loss].name : NULL; }

/* One head's operands, padded with zeros to whole registers, and its scores. np and Dp are n and the student's d rounded
 * up to KD_KERNELS_WIDTH; only relations have more than t and spare. */
typedef struct head_scratch {
    float *s, *t;        /* (QUERIES, np) */
    float *spare;        /* (np) */
    float *keys, *tkeys; /* (d, np) the rows transposed, of student and teacher */
    float *wide, *dwide; /* (np, Dp) the student's rows, and their gradient */
} head_scratch;

static head_scratch place_head(const kd_match_maps *match, kd_arena *arena, ptrdiff_t n)
{
    const ptrdiff_t np = kd_round_up(n, KD_KERNELS_WIDTH), D = match->S / match->H, TD = match->T / match->H;
    const ptrdiff_t Dp = kd_round_up(D, KD_KERNELS_WIDTH);
    head_scratch x = {0};
    x.t = kd_arena_floats(arena, QUERIES * np);
    x.spare = kd_arena_floats(arena, np);
    if (match->S) {
        x.s = kd_arena_floats(arena, QUERIES * np);
        x.keys = kd_arena_floats(arena, D * np);
        x.tkeys = kd_arena_floats(arena, TD * np);
        x.wide = kd_arena_floats(arena, np * Dp);
        x.dwide = kd_arena_floats(arena, np * Dp);
    }
    return x;
}

static ptrdiff_t tokens_of(const kd_match_maps *match, ptrdiff_t b)
{
    return (ptrdiff_t)(match->starts[b + 1] - match->starts[b]);
}

static ptrdiff_t longest_of(const kd_match_maps *match)
{
    ptrdiff_t longest = 0;
    for (ptrdiff_t b = 0; b < match->B; b++)
        longest = kd_max(longest, tokens_of(match, b));
    return longest;
}

void kd_match_maps_place(kd_match_maps *match, kd_arena *arena, int threads)
{
    kd_arena measure = kd_arena_over(NULL);
    place_head(match, &measure, longest_of(match));
    match->scratch_bytes = (ptrdiff_t)measure.used;
    match->terms = kd_arena_take(arena, match->B * match->H, sizeof(double));
    match->squares = kd_arena_take(arena, match->B + 1, sizeof(ptrdiff_t));
    match->scratch = kd_arena_take(arena, threads * match->scratch_bytes, 1);
    if (!match->squares)
        return;
    match->squares[0] = 0;
    for (ptrdiff_t b = 0; b < match->B; b++)
        match->squares[b + 1] = match->squares[b] + tokens_of(match, b) * tokens_of(match, b);
}

/* What the mean is taken over. */
static double terms_of(const kd_match_maps *match)
{
    const ptrdiff_t each = map_losses[match->loss].over_scores ? match->squares[match->B] : match->starts[match->B];
    return (double)match->H * (double)each;
}

/* Maps that make an item. */
static ptrdiff_t maps_of_item(const kd_match_maps *match)
{
    return kd_max(1, ITEM_NUMBERS * match->B / match->squares[match->B]);
}

ptrdiff_t kd_match_maps_items(const kd_match_maps *match)
{
    return kd_ceil_div(match->B * match->H, maps_of_item(match));
}

double kd_match_maps_item_cost(const kd_match_maps *match)
{
    enum { SCORE_FLOPS = 200 }; /* in whose time the loss of a score is computed, roughly */
    const double n = (double)longest_of(match), columns = (double)((match->T + 3 * match->S) / match->H);
    return (double)maps_of_item(match) * n * n * (SCORE_FLOPS + 2 * columns);
}

/* Scores that are given: `head` of sequence b. */
static double given_map(const kd_match_maps *match, const head_scratch *x, ptrdiff_t b, ptrdiff_t head, double share)
{
    const ptrdiff_t n = tokens_of(match, b), map = match->H * match->squares[b] + head * n * n;
    double sum = 0;
    for (ptrdiff_t q0 = 0; q0 < n; q0 += QUERIES) {
        const queries q = {match->dstudent + map + q0 * n, x->t, x->spare, kd_min(QUERIES, n - q0), n, n};
        memcpy(q.t, match->teacher + map + q0 * n, (size_t)(q.count * n) * sizeof(float));
        sum += map_losses[match->loss].compute(match->math->kernels, &q, share);
    }
    return sum;
}

/* out (count, np) = scale * the products of `count` rows from x on with all keys (D, np); rows lie C apart. */
static void relate(const kd_kernels *kernels, float *out, const float *x, const float *keys, ptrdiff_t count,
                   ptrdiff_t np, ptrdiff_t D, ptrdiff_t C, double scale)
{
    kernels->matmul(out, np, x, C, 1, keys, np, count, np, D, 0);
    kernels->scale(out, (float)scale, count * np);
}

/* Relations: with dA the gradient of X X^T, dX = dA X + dA^T X. */
static double related_map(const kd_match_maps *match, const head_scratch *x, ptrdiff_t b, ptrdiff_t head, double share)
{
    const kd_kernels *kernels = match->math->kernels;
    const ptrdiff_t S = match->S, T = match->T, D = S / match->H, TD = T / match->H, first = match->starts[b];
    const ptrdiff_t n = tokens_of(match, b), np = kd_round_up(n, KD_KERNELS_WIDTH);
    const ptrdiff_t Dp = kd_round_up(D, KD_KERNELS_WIDTH);
    const float *rows = match->student + first * S + head * D, *others = match->teacher + first * T + head * TD;
    const double scale = 1 / sqrt((double)D), teacher_scale = 1 / sqrt((double)TD);
    double sum = 0;
    kernels->pack_rows(x->keys, rows, S, D, n, np);
    kernels->pack_rows(x->tkeys, others, T, TD, n, np);
    kernels->pack_columns(x->wide, rows, S, n, D, Dp);
    for (ptrdiff_t q0 = 0; q0 < n; q0 += QUERIES) {
        const queries q = {x->s, x->t, x->spare, kd_min(QUERIES, n - q0), n, np};
        relate(kernels, q.s, rows + q0 * S, x->keys, q.count, np, D, S, scale);
        relate(kernels, q.t, others + q0 * T, x->tkeys, q.count, np, TD, T, teacher_scale);
        sum += map_losses[match->loss].compute(kernels, &q, share);
        kernels->scale(q.s, (float)scale, q.count * np);
        kernels->matmul(x->dwide, Dp, q.s, 1, np, x->wide + q0 * Dp, Dp, n, Dp, q.count, q0 > 0);
        kernels->matmul(x->dwide + q0 * Dp, Dp, q.s, np, 1, x->wide, Dp, q.count, Dp, n, 1);
    }
    float *out = match->dstudent + first * S + head * D;
    for (ptrdiff_t i = 0; i < n; i++)
        memcpy(out + i * S, x->dwide + i * Dp, (size_t)D * sizeof(float));
    return sum;
}

typedef struct map_range {
    const kd_match_maps *match;
    ptrdiff_t from;
} map_range;

static void map_range_item(void *context, ptrdiff_t index, int member)
{
    const map_range *range = context;
    const kd_match_maps *match = range->match;
    const ptrdiff_t step = maps_of_item(match), from = (range->from + index) * step;
    kd_arena arena = kd_arena_over(match->scratch + member * match->scratch_bytes);
    const head_scratch x = place_head(match, &arena, longest_of(match));
    const double share = 1 / terms_of(match);
    for (ptrdiff_t map = from; map < kd_min(from + step, match->B * match->H); map++) {
        const ptrdiff_t b = map / match->H, head = map % match->H;
        match->terms[map] = (match->S ? related_map : given_map)(match, &x, b, head, share);
    }
}

void kd_match_maps_do(kd_match_maps *match, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    map_range range = {match, from};
    kd_pool_run(team, map_range_item, &range, to - from);
}

double kd_match_maps_loss(const kd_match_maps *match)
{
    return sum_of(match->terms, match->B * match->H) / terms_of(match);
}
