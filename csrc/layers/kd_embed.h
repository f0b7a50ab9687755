/* kd_embed: the sum of a token's word, position and type rows (Devlin et al., arXiv:1810.04805). */
#ifndef KD_EMBED_H
#define KD_EMBED_H

#include "arithmetic/kd_kernels.h"

/* Packed tokens: sequence b is tokens starts[b] .. starts[b + 1] - 1. */
typedef struct kd_batch {
    const int32_t *ids;    /* (N), each < V */
    const int32_t *types;  /* (N), each < number of types */
    const int64_t *starts; /* (B + 1) */
    ptrdiff_t B, N;
} kd_batch;

/* Copies B rows of all_ids and all_types into a batch of N tokens: ids (N) and types (N). Row b begins at first[b] (B), and
 * at starts[b] (B + 1, already filled in) of the batch. */
void kd_batch_take(int32_t *ids, int32_t *types, const int64_t *starts, const int32_t *all_ids,
                   const int32_t *all_types, const int64_t *first, ptrdiff_t B);

/* A table in int8: integers (V, C), each row with a scale (V) that it is multiplied with. */
typedef struct kd_embed_int8 {
    const int8_t *integers;
    const float *scales;
} kd_embed_int8;

/* The three tables, (V, C), (P, C) and (T, C): values or their gradients. `position` is the row of a sequence's first
 * token; `type` is NULL in a model without token types. Where `narrow` has integers, they are read instead of `word`. */
typedef struct kd_embed_tables {
    float *word, *position, *type;
    kd_embed_int8 narrow;
} kd_embed_tables;

/* sum (N', C) for the tokens of sequences b0 .. b1 - 1, in order. */
void kd_embed_forward(const kd_kernels *kernels, float *sum, const kd_batch *batch, const kd_embed_tables *tables,
                      ptrdiff_t b0, ptrdiff_t b1, ptrdiff_t C);

/* Adds columns c0 .. c1 - 1 of dsum (N, C) to the tables' gradients. Threads share the columns, not
 * the tokens: every row of a table then sums its tokens in order, whoever does it. */
void kd_embed_backward(const kd_kernels *kernels, const kd_embed_tables *gradients, const float *dsum,
                       const kd_batch *batch, ptrdiff_t c0, ptrdiff_t c1, ptrdiff_t C);

/* Appends to `touched` (room for V, `count` entries so far) the words of the batch that it lacks. is_touched (V) is 1
 * for every word in the list. Returns the new count. kd_embed_mark_all lists all V words. */
ptrdiff_t kd_embed_mark(int32_t *touched, uint8_t *is_touched, ptrdiff_t count, const kd_batch *batch);
ptrdiff_t kd_embed_mark_all(int32_t *touched, uint8_t *is_touched, ptrdiff_t V);

#endif
