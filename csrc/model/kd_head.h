/* kd_head: what turns the encoder's rows into outputs. A head is data:
 *
 *   rows picked from the encoder's output -> dropout -> dense product, activation -> dropout -> product -> (M, K)
 *
 * BERT's classifier picks [CLS], the first row of each sequence, and has a dense product with tanh (the pooler) and
 * dropout behind it; tagging tokens picks all rows and has no dense product. Other rows to pick (listed, averaged), a
 * norm behind the dense product and a tied output are further values of these fields.
 */
#ifndef KD_HEAD_H
#define KD_HEAD_H

#include "layers/kd_activation.h"
#include "model/kd_span.h"

typedef enum kd_pick {
    KD_PICK_FIRST, /* the first row of each sequence: outputs are (B, K) */
    KD_PICK_ALL,   /* every row: (N, K) */
} kd_pick;

typedef struct kd_head_config {
    kd_pick pick;
    int dense;                /* is there a product C to C, */
    kd_activation activation; /* with this behind it? */
    float p_before, p_after;  /* dropout rates, of the rows and of what the last product reads */
    ptrdiff_t K;              /* outputs of a row */
} kd_head_config;

/* Both products are float32 in every compute type: a classifier multiplies one row of a sequence, and its logits are
 * what is compared. */
typedef struct kd_head_weights {
    kd_linear dense, output;
} kd_head_weights;

/* Activations; M is the number of picked rows. */
typedef struct kd_head_map {
    float *rows;     /* (M, C) the rows that were picked */
    float *input;    /* (M, C) after dropout; `rows` itself if nothing can be dropped */
    float *hidden;   /* (M, C) the activation's output; `input` without a dense product */
    float *slope;    /* (M, C) training with a dense product: act', in backward the gradient of its output */
    float *features; /* (M, C) after dropout; `hidden` itself if nothing can be dropped */
    float *outputs;  /* (M, K); then their gradient */
} kd_head_map;

/* Writes input, hidden, slope, features and outputs from rows. */
void kd_head_forward(const kd_arithmetic *math, const kd_head_map *map, const kd_head_config *config,
                     const kd_head_weights *weights, const kd_span *span);

/* drows (M, C) = gradient of rows, from that of the outputs. The sums of the gradients of the biases are added to
 * ddense (C) and doutput (K). slope becomes the gradient of the dense product's output. */
void kd_head_backward(const kd_arithmetic *math, float *drows, float *ddense, float *doutput, const kd_head_map *map,
                      const kd_head_config *config, const kd_head_weights *weights, const kd_span *span);

#endif
