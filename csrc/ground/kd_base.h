/* kd_base: what every room agrees on.
 *
 * Sizes and counts are ptrdiff_t. Dimensions carry one letter each, everywhere:
 *
 *   B sequences    N tokens (packed, no padding)   C hidden      H heads   D = C / H
 *   F feed-forward V vocabulary                    L layers      K labels
 *
 * The gradient convention: `dx` is d(loss)/d(x). Gradients of activations are overwritten (=),
 * gradients of parameters accumulate (+=). Arguments come as outputs, inputs, parameters, sizes.
 *
 * Kernels cannot fail: shapes, types and ranges are checked by the skin before the first write. What
 * can fail is getting ready (threads, kernels for a CPU), and that returns a kd_status. A loss that is
 * not finite is a result of kd_loss, with its rows.
 */
#ifndef KD_BASE_H
#define KD_BASE_H

#include <stddef.h>
#include <stdint.h>

/* Raised whenever the bits of a logit may change for the same weights and ids: it is part of the
 * key of cached teacher logits. */
#define KD_NUMERICS_VERSION 4

enum {
    KD_ALIGN = 64,        /* bytes; a cache line, and one AVX-512 register */
    KD_ALIGN_FLOATS = 16, /* the same in floats */
};

typedef enum kd_status {
    KD_OK = 0,
    KD_UNSUPPORTED, /* the CPU or the library lacks what was asked for */
    KD_NO_THREADS,  /* the operating system gave no further thread */
    KD_NO_MEMORY,
} kd_status;

static inline ptrdiff_t kd_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static inline ptrdiff_t kd_max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
static inline ptrdiff_t kd_ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }
static inline ptrdiff_t kd_round_up(ptrdiff_t a, ptrdiff_t b) { return kd_ceil_div(a, b) * b; }

#endif
