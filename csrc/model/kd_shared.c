#include "model/kd_shared.h"

enum { ROWS = 4 }; /* of a part; the kernel of a norm takes as many at a time */

typedef struct products_work {
    const kd_engine *engine;
    const kd_product *products;
    ptrdiff_t count;
} products_work;

/* A part's columns: of every product before the next part, so that a thread has the queries, keys and values of the same
 * heads. */
static void product_part(void *context, ptrdiff_t part, int member)
{
    const products_work *work = context;
    kd_product p = work->products[part % work->count];
    const ptrdiff_t columns = work->engine->part, first = part / work->count * columns;
    (void)member;
    p.first_column += first;
    p.N = kd_min(columns, p.N - first);
    p.c += first;
    p.bias = p.bias ? p.bias + first : NULL;
    p.next = work->engine->whole_rows ? NULL : p.next;
    work->engine->product(&p);
}

typedef struct operand_work {
    const kd_engine *engine;
    void *operand;
    const float *a;
    ptrdiff_t lda, M, K;
} operand_work;

static void operand_part(void *context, ptrdiff_t part, int member)
{
    const operand_work *work = context;
    const ptrdiff_t row = part * ROWS;
    (void)member;
    work->engine->convert(kd_engine_operand_row(work->engine, work->operand, row, work->K), work->a + row * work->lda,
                          work->lda, kd_min(ROWS, work->M - row), work->K);
}

static void convert_shared(kd_team *team, operand_work work)
{
    kd_pool_run(team, operand_part, &work, kd_ceil_div(work.M, ROWS));
}

void kd_shared_products(kd_team *team, const kd_engine *engine, const kd_product *products, ptrdiff_t count)
{
    if (team) {
        products_work work = {engine, products, count};
        kd_pool_run(team, product_part, &work, count * kd_ceil_div(products->N, engine->part));
        for (ptrdiff_t i = 0; engine->whole_rows && i < count; i++)
            if (products[i].next)
                convert_shared(team, (operand_work){engine, products[i].next, products[i].c, products[i].ldc,
                                                    products[i].M, products[i].N});
    } else {
        for (ptrdiff_t i = 0; i < count; i++)
            engine->product(&products[i]);
    }
}

const void *kd_shared_operand(kd_team *team, const kd_linear *layer, const float *x, ptrdiff_t M, void *scratch)
{
    if (!team || !layer->engine->convert)
        return kd_linear_operand(layer, x, M, scratch);
    convert_shared(team, (operand_work){layer->engine, scratch, x, layer->I, M, layer->I});
    return scratch;
}

typedef struct norm_work {
    const kd_kernels *kernels;
    float *y, *stats, *x;
    const float *residual;
    const kd_norm *norm;
    ptrdiff_t M;
} norm_work;

static void norm_part(void *context, ptrdiff_t part, int member)
{
    const norm_work *work = context;
    const ptrdiff_t row = part * ROWS, at = row * work->norm->C;
    (void)member;
    kd_norm_forward(work->kernels, work->y + at, work->stats + 2 * row, work->x + at,
                    work->residual ? work->residual + at : NULL, work->norm, kd_min(ROWS, work->M - row));
}

void kd_shared_norm(kd_team *team, const kd_kernels *kernels, float *y, float *stats, float *x, const float *residual,
                    const kd_norm *norm, ptrdiff_t M)
{
    if (team) {
        norm_work work = {kernels, y, stats, x, residual, norm, M};
        kd_pool_run(team, norm_part, &work, kd_ceil_div(M, ROWS));
    } else {
        kd_norm_forward(kernels, y, stats, x, residual, norm, M);
    }
}
