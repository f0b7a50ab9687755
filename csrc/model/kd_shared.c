#include "model/kd_shared.h"

enum { NORM_ROWS = 4 }; /* that the kernel of a norm takes at a time */

typedef struct products_work {
    const kd_engine *engine;
    const kd_product *products;
    ptrdiff_t count;
} products_work;

/* A panel of columns: of every product before the next panel, so that a thread has the queries, keys and values of the
 * same heads. */
static void product_part(void *context, ptrdiff_t part, int member)
{
    const products_work *work = context;
    kd_product p = work->products[part % work->count];
    const ptrdiff_t panel = work->engine->kernels->panel, first = part / work->count * panel;
    (void)member;
    p.first_column += first;
    p.N = kd_min(panel, p.N - first);
    p.c += first;
    p.bias = p.bias ? p.bias + first : NULL;
    work->engine->product(&p);
}

void kd_shared_products(kd_team *team, const kd_engine *engine, const kd_product *products, ptrdiff_t count)
{
    if (team) {
        products_work work = {engine, products, count};
        kd_pool_run(team, product_part, &work, count * kd_ceil_div(products->N, engine->kernels->panel));
    } else {
        for (ptrdiff_t i = 0; i < count; i++)
            engine->product(&products[i]);
    }
}

typedef struct norm_work {
    const kd_kernels *kernels;
    float *y, *stats, *x;
    const float *residual;
    const kd_norm *norm;
    ptrdiff_t M;
} norm_work;

/* NORM_ROWS rows. */
static void norm_part(void *context, ptrdiff_t part, int member)
{
    const norm_work *work = context;
    const ptrdiff_t row = part * NORM_ROWS, at = row * work->norm->C;
    (void)member;
    kd_norm_forward(work->kernels, work->y + at, work->stats + 2 * row, work->x + at,
                    work->residual ? work->residual + at : NULL, work->norm, kd_min(NORM_ROWS, work->M - row));
}

void kd_shared_norm(kd_team *team, const kd_kernels *kernels, float *y, float *stats, float *x, const float *residual,
                    const kd_norm *norm, ptrdiff_t M)
{
    if (team) {
        norm_work work = {kernels, y, stats, x, residual, norm, M};
        kd_pool_run(team, norm_part, &work, kd_ceil_div(M, NORM_ROWS));
    } else {
        kd_norm_forward(kernels, y, stats, x, residual, norm, M);
    }
}
