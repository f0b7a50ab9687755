/* kd_head: what turns the encoder's rows into outputs. A head is data:
 *
 *   rows picked from the encoder's output -> dropout -> dense product, activation, norm -> dropout -> product -> (M, K)
 *
 * BERT's classifier picks [CLS], the first row of each sequence, and has a dense product with tanh (the pooler) and
 * dropout behind it; tagging tokens picks all rows and has no dense product; predicting masked tokens picks those, and
 * has a dense product with a norm; an embedding of a sentence is the mean of its rows, with no product at all, and often
 * divided by its length.
 */
#ifndef KD_HEAD_H
#define KD_HEAD_H

#include "ground/kd_pool.h"
#include "layers/kd_activation.h"
#include "layers/kd_norm.h"
#include "layers/kd_unit.h"
#include "model/kd_span.h"

typedef enum kd_pick {
    KD_PICK_FIRST,  /* the first row of each sequence: outputs are (B, K) */
    KD_PICK_ALL,    /* every row: (N, K) */
    KD_PICK_LISTED, /* the rows that a pass lists, (M, K); every row where it lists none */
    KD_PICK_MEAN,   /* the mean of each sequence's rows: (B, K) */
    KD_PICKS,
} kd_pick;

typedef struct kd_head_config {
    kd_pick pick;
    int dense;                /* is there a product C to J, */
    ptrdiff_t J;              /* (0: C) */
    kd_activation activation; /* with this behind it, */
    int norm;                 /* and a LayerNorm behind that? */
    float p_before, p_after;  /* dropout rates, of the rows and of what the last product reads */
    ptrdiff_t K;              /* outputs of a row; 0: there is no last product, they are what it would read */
    int unit;                 /* there is no last product, and what it would read is divided by its length */
    int tied;                 /* the last product's weight is the word embeddings: K is then V, and J their width */
} kd_head_config;

/* Width of what the last product reads: J, or C without a dense product. */
static inline ptrdiff_t kd_head_width(const kd_head_config *head, ptrdiff_t C)
{
    return head->dense && head->J ? head->J : C;
}

/* Width of the outputs. */
static inline ptrdiff_t kd_head_outputs(const kd_head_config *head, ptrdiff_t C)
{
    return head->K ? head->K : kd_head_width(head, C);
}

/* Whether the outputs are made of what the last product reads, and do not only lie there. */
static inline int kd_head_makes_outputs(const kd_head_config *head) { return head->K || head->unit; }

/* Both products are float32 in every compute type: a classifier multiplies one row of a sequence, and its logits are
 * what is compared. */
typedef struct kd_head_weights {
    kd_linear dense, output;
    kd_norm norm;
} kd_head_weights;

/* Activations; M is the number of picked rows, J the width of what the last product reads. */
typedef struct kd_head_map {
    float *rows;      /* (M, C) the rows that were picked */
    float *input;     /* (M, C) after dropout; `rows` itself if nothing can be dropped */
    float *act;       /* (M, J) the activation's output, in backward its gradient; `hidden` without a norm */
    float *stats;     /* (M, 2) of the norm */
    float *hidden;    /* (M, J) the norm's output; `input` without a dense product */
    float *slope;     /* (M, J) training with a dense product: act', in backward the gradient of its output */
    float *features;  /* (M, J) after dropout; `hidden` itself if nothing can be dropped */
    float *outputs;   /* (M, K), or (M, J) of length 1; else `features` itself; then their gradient. NULL: the last
                       * product is not the head's to do, and dfeatures is given */
    float *dfeatures; /* training: (M, J) gradient of features; the rows' place if there is no dense product */
} kd_head_map;

/* Where the gradients of a head's vectors are summed; NULL of those that it lacks. */
typedef struct kd_head_vectors {
    float *dense_bias, *norm, *norm_bias; /* (J) */
    float *output_bias;                   /* (K) */
} kd_head_vectors;

/* Writes everything from input to outputs, from rows, with a team (see kd_shared.h) or without. */
void kd_head_forward(kd_team *team, const kd_arithmetic *math, const kd_head_map *map, const kd_head_config *config,
                     const kd_head_weights *weights, const kd_span *span, ptrdiff_t C);

/* drows (M, C) = gradient of rows, from that of the outputs; `sums` += the gradients of the vectors. slope becomes the
 * gradient of the dense product's output. */
void kd_head_backward(const kd_arithmetic *math, float *drows, const kd_head_vectors *sums, const kd_head_map *map,
                      const kd_head_config *config, const kd_head_weights *weights, const kd_span *span, ptrdiff_t C);

#endif
