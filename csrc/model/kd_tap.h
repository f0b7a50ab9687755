/* kd_tap: what a pass hands out beside its outputs, and takes gradients of.
 *
 * A tap names an array inside the encoder. Forward copies it to `out`; backward adds `gradient`, d(loss)/d(out), to the
 * gradient that comes from above, at the one place where that is complete. So a loss may read hidden states, queries,
 * keys, values and attention scores of any layer. Everything with layer l belongs to layer l; HIDDEN l is its input,
 * as hidden_states[l] in transformers, and HIDDEN L the last one's output.
 */
#ifndef KD_TAP_H
#define KD_TAP_H

#include "model/kd_encoder.h"
#include "model/kd_span.h"

typedef enum kd_tap_kind {
    KD_TAP_HIDDEN, /* (N, C) */
    KD_TAP_QUERY,  /* (N, A) */
    KD_TAP_KEY,    /* (N, A) */
    KD_TAP_VALUE,  /* (N, A) */
    KD_TAP_SCORES, /* Q K^T / sqrt(D) + b, what the softmax reads: (H, n, n) of one sequence behind the other's */
    KD_TAP_KINDS,
} kd_tap_kind;

typedef struct kd_tap {
    kd_tap_kind kind;
    ptrdiff_t layer;
    float *out;
    const float *gradient; /* NULL: 0 */
} kd_tap;

/* All taps of a pass, no two the same. */
typedef struct kd_taps {
    kd_tap *list;
    ptrdiff_t count;
} kd_taps;

/* Columns of a tap's rows; 0 for SCORES, which are not rows of tokens. */
ptrdiff_t kd_tap_width(const kd_tap *tap, const kd_encoder_config *encoder);

/* Floats of a tap. */
ptrdiff_t kd_tap_size(const kd_tap *tap, const kd_encoder_config *encoder, const kd_batch *batch);

/* Does one of the taps read what only all rows of this layer's attention or output give? */
int kd_tap_needs(const kd_taps *taps, ptrdiff_t layer);

/* Does one of them read this layer's queries, keys or values, which are products of its input alone? */
int kd_tap_projects(const kd_taps *taps, ptrdiff_t layer);

/* The gradient of such a tap, of all tokens; NULL if there is none. */
const float *kd_tap_gradient(const kd_taps *taps, kd_tap_kind kind, ptrdiff_t layer);

/* Where the span's rows (N, width) of such a tap go, or NULL if there is none. */
float *kd_tap_rows(const kd_taps *taps, kd_tap_kind kind, ptrdiff_t layer, const kd_span *span, ptrdiff_t width);

/* Copies the span's rows (N, width) into such a tap, if there is one. */
void kd_tap_store(const kd_taps *taps, kd_tap_kind kind, ptrdiff_t layer, const float *rows, const kd_span *span,
                  ptrdiff_t width);

/* Adds such a tap's gradient, if there is one, to that of the span's rows: d (N, width). */
void kd_tap_add(const kd_kernels *kernels, const kd_taps *taps, kd_tap_kind kind, ptrdiff_t layer, float *d,
                const kd_span *span, ptrdiff_t width);

/* The scores of the span's first sequence in a layer of H heads, to write and to read; NULL if they are not tapped. */
typedef struct kd_tap_scores {
    float *out;
    const float *gradient;
} kd_tap_scores;

kd_tap_scores kd_tap_scores_of(const kd_taps *taps, ptrdiff_t layer, const kd_span *span, ptrdiff_t H);

/* The same of the sequence that follows one of n tokens. */
kd_tap_scores kd_tap_scores_next(kd_tap_scores scores, ptrdiff_t H, ptrdiff_t n);

#endif
