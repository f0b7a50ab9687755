#include "kd_adamw.h"

#include <math.h>

enum { BLOCK = 16384 }; /* floats of one item: 64 KiB of each array */

ptrdiff_t kd_adamw_blocks(ptrdiff_t n) { return kd_ceil_div(n, BLOCK); }

kd_adamw_step kd_adamw_constants(double lr, double beta1, double beta2, double eps, double weight_decay, double t)
{
    kd_adamw_step s;
    s.decay = (float)(1 - lr * weight_decay);
    s.beta1 = (float)beta1;
    s.beta2 = (float)beta2;
    s.step_size = (float)(lr / (1 - pow(beta1, t)));
    s.root_bias2 = (float)sqrt(1 - pow(beta2, t));
    s.eps = (float)eps;
    return s;
}

typedef struct update {
    const kd_rows *rows;
    const kd_adamw *adamw;
} update;

/* The parts of all segments that lie in one block of the flat arrays. */
static void update_item(void *context, ptrdiff_t item, int member)
{
    const update *u = context;
    const kd_adamw *a = u->adamw;
    const ptrdiff_t start = item * BLOCK, end = start + BLOCK;
    (void)member;
    for (ptrdiff_t i = 0; i < a->count && a->segments[i].offset < end; i++) {
        const kd_segment *s = &a->segments[i];
        ptrdiff_t from = kd_max(start, s->offset), to = kd_min(end, s->offset + s->size);
        kd_adamw_step step = a->step;
        if (!s->decay)
            step.decay = 1;
        if (from < to)
            u->rows->adamw(a->p + from, a->g + from, a->m + from, a->v + from, to - from, &step);
    }
}

void kd_adamw_update(const kd_rows *rows, const kd_adamw *adamw, kd_team *team)
{
    const kd_segment *last = &adamw->segments[adamw->count - 1];
    update u = {rows, adamw};
    kd_pool_run(team, update_item, &u, kd_adamw_blocks(last->offset + last->size));
}

/* What a loop over blocks of one array needs. */
typedef struct blocks {
    const kd_rows *rows;
    float *x;
    const float *input;
    double *partial;
    ptrdiff_t n;
    float a;
} blocks;

static void sum_squares_item(void *context, ptrdiff_t item, int member)
{
    const blocks *b = context;
    (void)member;
    b->partial[item] = b->rows->sum_squares(b->input + item * BLOCK, kd_min(BLOCK, b->n - item * BLOCK));
}

double kd_adamw_sum_squares(const kd_rows *rows, const float *x, ptrdiff_t n, double *partial, kd_team *team)
{
    blocks b = {.rows = rows, .input = x, .partial = partial, .n = n};
    kd_pool_run(team, sum_squares_item, &b, kd_adamw_blocks(n));
    double total = 0;
    for (ptrdiff_t i = 0; i < kd_adamw_blocks(n); i++)
        total += partial[i];
    return total;
}

static void scale_item(void *context, ptrdiff_t item, int member)
{
    const blocks *b = context;
    (void)member;
    b->rows->scale(b->x + item * BLOCK, b->a, kd_min(BLOCK, b->n - item * BLOCK));
}

void kd_adamw_scale(const kd_rows *rows, float *x, float a, ptrdiff_t n, kd_team *team)
{
    blocks b = {.rows = rows, .x = x, .n = n, .a = a};
    kd_pool_run(team, scale_item, &b, kd_adamw_blocks(n));
}
