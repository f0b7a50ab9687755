/* kd_random: random bits that are a function of where they are used, not of when.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * One key and one 128-bit counter give 128 random bits; nothing is stored and nothing advances, so a
 * mask can be drawn again in the backward pass, by any thread, for any part of the batch.
 *
 * Dropout addresses its bits by (seed; optimiser step, tensor, token's place in the effective batch,
 * feature). An element has 16 of them, half a word. The feature picks the counter's last word, one of the four output
 * words and its half such that 64 neighbouring features are 8 counters side by side, and 16 are the same half of
 * whole registers:
 *
 *     counter = (feature / 64 * 8 + feature % 16 / 2, place, tensor, step)
 *     word    = feature % 64 / 32 * 2 + feature % 2            half = feature % 32 / 16, the low one first
 *
 * kd_kernels evaluates it (random_bits, dropout).
 */
#ifndef KD_RANDOM_H
#define KD_RANDOM_H

#include "ground/kd_base.h"

enum {
    KD_RANDOM_LANES = 8,  /* counters evaluated side by side */
    KD_RANDOM_BLOCK = 64, /* features one evaluation of all lanes serves */
};

/* Names one row of random bits. */
typedef struct kd_random_row {
    uint64_t seed;
    uint32_t step;   /* optimiser steps taken so far */
    uint32_t tensor; /* which dropout of the model */
    uint32_t place;  /* the token's place in the effective batch */
} kd_random_row;

#endif
