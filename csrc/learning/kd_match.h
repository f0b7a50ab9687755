/* kd_match: losses on what taps hand out of a student and of its teacher, in value and gradient.
 *
 * With s and t rows of the student and of the teacher (T numbers), R rows:
 *
 *   mse             mean over the R T numbers of (s - t)^2: the losses of TinyBERT on hidden states and on embeddings
 *                   (Jiao et al., arXiv:1909.10351)
 *   cosine          mean over the R rows of 1 - s . t / (|s| |t|): the third loss of DistilBERT (Sanh et al.,
 *                   arXiv:1910.01108)
 *   normalized-mse  mean over the R rows of |s / |s| - t / |t||^2: PKD (Sun et al., arXiv:1908.09355), as a sum there
 *
 * A row shorter than 1e-12 has no direction: its cosine and its s / |s| are 0, and so is its gradient. Where the widths
 * differ, the student's rows are x W^T for x (R, S) and a projection W (T, S), which is learned.
 *
 * With s and t the scores of one query of one head in a sequence of n tokens (n numbers), H heads, N tokens:
 *
 *   mse             mean over the H sum(n^2) scores of the batch of (s - t)^2: the loss of TinyBERT on attention, which
 *                   takes what the softmax reads; its mean goes over padded maps, and here there is no padding
 *   kl              mean over the H N queries of KL(softmax(t) || softmax(s)): MiniLM (Wang et al., arXiv:2002.10957)
 *
 * The scores are those of attention, or relations: of rows that are cut into H relation heads of d numbers, x x^T /
 * sqrt(d) of each. MiniLM compares those of the values; MiniLMv2 (Wang et al., arXiv:2012.15828) of queries, keys and
 * values, with any number of relation heads. d may differ between student and teacher.
 *
 * A query's divergence and a map's squares are float32 sums (relative error about 1e-6; of squares at most 1024 numbers to
 * a sum), products of rows double. What they add up to is double, and what rows or heads add is added in their order by
 * one thread. Threads share the rows, or the
 * heads of sequences; the gradient of W is shared by tiles. So the bits do not depend on the number of threads.
 *
 * Another loss is a function and a line in a table of kd_match.c.
 */
#ifndef KD_MATCH_H
#define KD_MATCH_H

#include "arithmetic/kd_arithmetic.h"
#include "ground/kd_arena.h"
#include "ground/kd_pool.h"

/* The name of a loss on rows, and of one on scores; NULL beyond the last. */
const char *kd_match_rows_name(int loss);
const char *kd_match_maps_name(int loss);

/* ---- rows ------------------------------------------------------------------------------------------- */

typedef struct kd_match_rows {
    const kd_arithmetic *math;
    int loss;
    ptrdiff_t R, S, T;
    const float *teacher;    /* (R, T) */
    const float *projection; /* (T, S), or NULL: S = T */
    const float *student;    /* (R, S), NULL without a projection */
    float *dstudent;         /* (R, S) the gradient; without a projection it holds the student's rows before */
    float *dprojection;      /* (T, S) */
    /* Filled in by kd_match_rows_place. */
    double *terms;            /* (R) the loss of each row */
    float *projected;         /* (R, T) student W^T, then its gradient */
    void *forward, *backward; /* W, packed for the way there and back */
    char *outer;              /* outer_bytes for each thread */
    ptrdiff_t outer_bytes;
} kd_match_rows;

/* What is done one after the other; the first and the last only with a projection. */
typedef enum kd_match_phase {
    KD_MATCH_PACK,    /* W */
    KD_MATCH_ROWS,    /* each row's loss and gradient */
    KD_MATCH_WEIGHTS, /* the gradient of W */
    KD_MATCH_PHASES,
} kd_match_phase;

/* Places what `threads` threads need beside the arrays; see kd_arena. */
void kd_match_rows_place(kd_match_rows *match, kd_arena *arena, int threads);

/* Items of a phase, and roughly the floating-point operations of one. */
ptrdiff_t kd_match_rows_items(const kd_match_rows *match, kd_match_phase phase);
double kd_match_rows_item_cost(const kd_match_rows *match, kd_match_phase phase);

/* Does items from .. to - 1 of a phase. */
void kd_match_rows_do(kd_match_rows *match, kd_match_phase phase, kd_team *team, ptrdiff_t from, ptrdiff_t to);

/* The loss, once every item is done. It is not finite where a number of the arrays is not. */
double kd_match_rows_loss(const kd_match_rows *match);

/* ---- maps: the scores of each head of each sequence ------------------------------------------------- */

typedef struct kd_match_maps {
    const kd_arithmetic *math;
    int loss;
    const int64_t *starts; /* (B + 1) */
    ptrdiff_t B, H;
    ptrdiff_t S, T;       /* columns of the rows whose relations are compared; 0 where scores are given */
    const float *teacher; /* (N, T); scores: (H, n, n) of one sequence behind the other's */
    const float *student; /* (N, S), NULL where scores are given */
    float *dstudent;      /* (N, S) the gradient; where scores are given, like teacher, it holds the student's before */
    /* Filled in by kd_match_maps_place. */
    double *terms;      /* (B, H) the loss of each map */
    ptrdiff_t *squares; /* (B + 1) sum of n^2 of the sequences before */
    char *scratch;      /* scratch_bytes for each thread: a few rows of scores, and one head's operands */
    ptrdiff_t scratch_bytes;
} kd_match_maps;

void kd_match_maps_place(kd_match_maps *match, kd_arena *arena, int threads);
ptrdiff_t kd_match_maps_items(const kd_match_maps *match);
double kd_match_maps_item_cost(const kd_match_maps *match);
void kd_match_maps_do(kd_match_maps *match, kd_team *team, ptrdiff_t from, ptrdiff_t to);
double kd_match_maps_loss(const kd_match_maps *match);

#endif
