#include "learning/kd_adamw.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK = 16384, /* floats of one item: 64 KiB of each array */
    ROWS = 16,     /* rows of a table of one item */
};

kd_adamw_step kd_adamw_constants(double lr, double beta1, double beta2, double eps, double weight_decay, double t)
{
    kd_adamw_step s;
    s.decay = (float)(1 - lr * weight_decay);
    s.beta1 = (float)beta1;
    s.beta2 = (float)beta2;
    /* Of the betas as the moments use them: 1 - 0.999f is 1.3e-5 off 0.001, and the division takes it out. */
    s.step_size = (float)(lr / (1 - pow(s.beta1, t)));
    s.inverse_root_bias2 = (float)(1 / sqrt(1 - pow(s.beta2, t)));
    s.eps = (float)eps;
    s.share = 0;
    return s;
}

typedef struct update {
    const kd_kernels *kernels;
    const kd_adamw *adamw;
} update;

/* The parts of all segments that lie in one block of the flat arrays. */
static void update_item(void *context, ptrdiff_t item, int member)
{
    const update *u = context;
    const kd_adamw *a = u->adamw;
    const ptrdiff_t start = a->segments[0].offset + item * BLOCK, end = start + BLOCK;
    (void)member;
    for (ptrdiff_t i = 0; i < a->count && a->segments[i].offset < end; i++) {
        const kd_segment *s = &a->segments[i];
        ptrdiff_t from = kd_max(start, s->offset), to = kd_min(end, s->offset + s->size);
        kd_adamw_step step = a->step;
        if (!s->decay)
            step.decay = 1;
        if (from >= to)
            continue;
        u->kernels->adamw(a->p + from, a->g + from, a->m + from, a->v + from, to - from, &step);
        if (a->average)
            u->kernels->average(a->average + from, a->p + from, to - from, step.share);
    }
}

void kd_adamw_update(const kd_kernels *kernels, const kd_adamw *adamw, kd_team *team)
{
    const kd_segment *first = &adamw->segments[0], *last = &adamw->segments[adamw->count - 1];
    update u = {kernels, adamw};
    kd_pool_run(team, update_item, &u, kd_ceil_div(last->offset + last->size - first->offset, BLOCK));
}

/* ---- deferred rows -------------------------------------------------------------------------------- */

typedef struct row_list {
    const kd_kernels *kernels;
    const kd_deferred *table;
    const int32_t *ids;
    ptrdiff_t n;
    int with_gradient; /* step t uses g */
} row_list;

static void deferred_item(void *context, ptrdiff_t item, int member)
{
    const row_list *list = context;
    const kd_deferred *d = list->table;
    const ptrdiff_t target = d->t - list->with_gradient, C = d->C;
    (void)member;
    for (ptrdiff_t i = item * ROWS; i < kd_min((item + 1) * ROWS, list->n); i++) {
        /* Read once, since other threads may write to the caller's memory: the replay must stay in the history. */
        const ptrdiff_t id = list->ids[i], done = *(volatile const int32_t *)&d->done[id];
        const ptrdiff_t missed = done < d->base ? 0 : target - done;
        float *p = d->p + id * C, *m = d->m + id * C, *v = d->v + id * C;
        float *average = d->average ? d->average + id * C : NULL;
        if (missed > 0)
            list->kernels->adamw_replay(p, m, v, average, C, d->history + done - d->base, missed);
        if (list->with_gradient) {
            const kd_adamw_step *step = d->history + d->t - 1 - d->base;
            list->kernels->adamw(p, d->g + id * C, m, v, C, step);
            if (average)
                list->kernels->average(average, p, C, step->share);
        }
        d->done[id] = (int32_t)d->t;
    }
}

void kd_deferred_catch_up(const kd_kernels *kernels, const kd_deferred *table, const int32_t *ids, ptrdiff_t n,
                          kd_team *team)
{
    row_list list = {kernels, table, ids, n, 0};
    kd_pool_run(team, deferred_item, &list, kd_ceil_div(n, ROWS));
}

void kd_deferred_update(const kd_kernels *kernels, const kd_deferred *table, const int32_t *ids, ptrdiff_t n,
                        kd_team *team)
{
    row_list list = {kernels, table, ids, n, 1};
    kd_pool_run(team, deferred_item, &list, kd_ceil_div(n, ROWS));
}

/* The count of a row in the list is negative until the list is complete, so that no row enters it twice. */
ptrdiff_t kd_deferred_behind(const kd_deferred *table, int32_t *behind, const int32_t *ids, ptrdiff_t n)
{
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        int32_t done = table->done[ids[i]];
        if (done >= 0 && done < table->t) {
            table->done[ids[i]] = -1 - done;
            behind[count++] = ids[i];
        }
    }
    for (ptrdiff_t i = 0; i < count; i++)
        table->done[behind[i]] = -1 - table->done[behind[i]];
    return count;
}

/* ---- gradients: rows of the table first, then blocks of the rest ----------------------------------- */

typedef struct gradient_loop {
    const kd_kernels *kernels;
    const kd_gradient *g;
    double *partial;
    float a;
} gradient_loop;

ptrdiff_t kd_gradient_blocks(const kd_gradient *g)
{
    return kd_ceil_div(g->n, ROWS) + kd_ceil_div(g->dense_size, BLOCK);
}

static void sum_squares_item(void *context, ptrdiff_t item, int member)
{
    const gradient_loop *loop = context;
    const kd_gradient *g = loop->g;
    const ptrdiff_t lists = kd_ceil_div(g->n, ROWS), start = (item - lists) * BLOCK;
    (void)member;
    if (item >= lists) {
        loop->partial[item] = loop->kernels->sum_squares(g->dense + start, kd_min(BLOCK, g->dense_size - start));
        return;
    }
    double sum = 0;
    for (ptrdiff_t i = item * ROWS; i < kd_min((item + 1) * ROWS, g->n); i++)
        sum += loop->kernels->sum_squares(g->table + g->ids[i] * g->C, g->C);
    loop->partial[item] = sum;
}

double kd_gradient_sum_squares(const kd_kernels *kernels, const kd_gradient *g, double *partial, kd_team *team)
{
    gradient_loop loop = {kernels, g, partial, 0};
    kd_pool_run(team, sum_squares_item, &loop, kd_gradient_blocks(g));
    double total = 0;
    for (ptrdiff_t i = 0; i < kd_gradient_blocks(g); i++)
        total += partial[i];
    return total;
}

/* a = 0 writes zeros, since NaN times 0 is NaN. */
static void scale_part(const gradient_loop *loop, float *x, ptrdiff_t n)
{
    if (loop->a == 0)
        memset(x, 0, (size_t)n * sizeof(float));
    else
        loop->kernels->scale(x, loop->a, n);
}

static void scale_item(void *context, ptrdiff_t item, int member)
{
    const gradient_loop *loop = context;
    const kd_gradient *g = loop->g;
    const ptrdiff_t lists = kd_ceil_div(g->n, ROWS), start = (item - lists) * BLOCK;
    (void)member;
    if (item >= lists) {
        scale_part(loop, g->dense + start, kd_min(BLOCK, g->dense_size - start));
        return;
    }
    for (ptrdiff_t i = item * ROWS; i < kd_min((item + 1) * ROWS, g->n); i++)
        scale_part(loop, g->table + g->ids[i] * g->C, g->C);
}

void kd_gradient_scale(const kd_kernels *kernels, const kd_gradient *g, float a, kd_team *team)
{
    gradient_loop loop = {kernels, g, NULL, a};
    kd_pool_run(team, scale_item, &loop, kd_gradient_blocks(g));
}
