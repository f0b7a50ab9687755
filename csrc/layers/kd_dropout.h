/* kd_dropout: which elements are dropped is a function of (seed; step, tensor, token, feature).
 *
 * Dropout multiplies by a mask of 0 and 1 / (1 - p), so the backward pass is the same function applied
 * to the gradient. No mask is kept (Srivastava et al., JMLR 15, 2014).
 */
#ifndef KD_DROPOUT_H
#define KD_DROPOUT_H

#include "arithmetic/kd_kernels.h"

/* Dropout of one forward pass. */
typedef struct kd_dropout {
    uint64_t seed;
    uint32_t step;  /* optimiser steps taken so far */
    uint32_t place; /* place of the batch's first token in the effective batch */
    int on;         /* 0: evaluation, nothing is dropped */
} kd_dropout;

/* Names of the dropped tensors; layers add KD_DROP_PER_LAYER each. */
enum {
    KD_DROP_EMBEDDING,
    KD_DROP_HEAD,      /* what the head's last product reads */
    KD_DROP_ATTENTION, /* layer 0; probabilities */
    KD_DROP_SELF,      /* layer 0; after the attention's output product */
    KD_DROP_FFN,       /* layer 0; after the feed-forward's output product */
    KD_DROP_PER_LAYER = 3,
    KD_DROP_HEAD_INPUT = INT32_MAX, /* the rows the head reads: beyond every layer's */
};

/* Returns whether anything is dropped at rate p. */
int kd_dropout_active(const kd_dropout *dropout, float p);

/* y (n) = dropout of x (n), one token's row: features first .. first + n - 1 of `tensor`; first is a
 * multiple of KD_RANDOM_BLOCK. `token` counts within the batch. y may be x; y = x unless active. */
void kd_dropout_row(const kd_kernels *kernels, float *y, const float *x, const kd_dropout *dropout, int tensor,
                    ptrdiff_t token, ptrdiff_t first, ptrdiff_t n, float p);

/* The same for (M, n), the rows of tokens token .. token + M - 1. */
void kd_dropout_rows(const kd_kernels *kernels, float *y, const float *x, const kd_dropout *dropout, int tensor,
                     ptrdiff_t token, ptrdiff_t M, ptrdiff_t n, float p);

#endif
