#include "layers/kd_embed.h"

#include <string.h>

/* Rows of the word embeddings lie anywhere, so the row that is AHEAD tokens further is fetched while one is added. */
enum { AHEAD = 8 };

static void fetch_word(const float *table, const kd_batch *batch, ptrdiff_t t, ptrdiff_t end, ptrdiff_t n, ptrdiff_t C)
{
    if (t >= end)
        return;
    const float *row = table + (ptrdiff_t)batch->ids[t] * C;
    for (ptrdiff_t i = 0; i < n; i += KD_ALIGN_FLOATS)
        __builtin_prefetch(row + i);
}

void kd_batch_take(int32_t *ids, int32_t *types, const int64_t *starts, const int32_t *all_ids,
                   const int32_t *all_types, const int64_t *first, ptrdiff_t B)
{
    for (ptrdiff_t b = 0; b < B; b++) {
        size_t bytes = (size_t)(starts[b + 1] - starts[b]) * sizeof *ids;
        memcpy(ids + starts[b], all_ids + first[b], bytes);
        memcpy(types + starts[b], all_types + first[b], bytes);
    }
}

/* The row of a word: within the float32 table, or widened into `room` (C). */
static const float *word_row(const kd_embed_tables *tables, int32_t id, float *room, ptrdiff_t C)
{
    if (!tables->narrow.integers)
        return tables->word + (ptrdiff_t)id * C;
    const int8_t *integers = tables->narrow.integers + (ptrdiff_t)id * C;
    const float scale = tables->narrow.scales[id];
    for (ptrdiff_t i = 0; i < C; i++)
        room[i] = (float)integers[i] * scale;
    return room;
}

void kd_embed_forward(const kd_kernels *kernels, float *sum, const kd_batch *batch, const kd_embed_tables *tables,
                      ptrdiff_t b0, ptrdiff_t b1, ptrdiff_t C)
{
    for (ptrdiff_t b = b0; b < b1; b++)
        for (ptrdiff_t t = batch->starts[b]; t < batch->starts[b + 1]; t++, sum += C) {
            const float *word = word_row(tables, batch->ids[t], sum, C);
            const float *position = tables->position + (t - batch->starts[b]) * C;
            if (tables->type) {
                kernels->add_three(sum, word, position, tables->type + (ptrdiff_t)batch->types[t] * C, C);
            } else {
                if (word != sum)
                    memcpy(sum, word, (size_t)C * sizeof(float));
                kernels->add(sum, position, C);
            }
        }
}

void kd_embed_backward(const kd_kernels *kernels, const kd_embed_tables *gradients, const float *dsum,
                       const kd_batch *batch, ptrdiff_t c0, ptrdiff_t c1, ptrdiff_t C)
{
    ptrdiff_t width = c1 - c0;
    for (ptrdiff_t b = 0; b < batch->B; b++) {
        for (ptrdiff_t t = batch->starts[b]; t < batch->starts[b + 1]; t++) {
            const float *d = dsum + t * C + c0;
            fetch_word(gradients->word + c0, batch, t + AHEAD, batch->N, width, C);
            kernels->add(gradients->word + (ptrdiff_t)batch->ids[t] * C + c0, d, width);
            kernels->add(gradients->position + (t - batch->starts[b]) * C + c0, d, width);
        }
    }
    for (ptrdiff_t t = 0, end; gradients->type && t < batch->N; t = end) { /* a type's tokens are many in a row */
        for (end = t + 1; end < batch->N && batch->types[end] == batch->types[t];)
            end++;
        kernels->sum_rows(gradients->type + (ptrdiff_t)batch->types[t] * C + c0, dsum + t * C + c0, end - t, width, C);
    }
}

ptrdiff_t kd_embed_mark(int32_t *touched, uint8_t *is_touched, ptrdiff_t count, const kd_batch *batch)
{
    for (ptrdiff_t t = 0; t < batch->N; t++) {
        int32_t id = batch->ids[t];
        if (!is_touched[id]) {
            is_touched[id] = 1;
            touched[count++] = id;
        }
    }
    return count;
}

ptrdiff_t kd_embed_mark_all(int32_t *touched, uint8_t *is_touched, ptrdiff_t V)
{
    memset(is_touched, 1, (size_t)V);
    for (ptrdiff_t id = 0; id < V; id++)
        touched[id] = (int32_t)id;
    return V;
}
