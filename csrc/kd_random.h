/* kd_random: random bits that are a function of where they are used, not of when.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * One key and one 128-bit counter give 128 random bits; nothing is stored and nothing advances, so a
 * mask can be drawn again in the backward pass, by any thread, for any part of the batch.
 *
 * Dropout addresses its bits by (seed; optimiser step, tensor, token's place in the effective batch,
 * feature). The feature picks the counter's last word and one of the four output words such that 64
 * neighbouring features are 16 counters side by side, which vectorises:
 *
 *     counter[0] = feature / 64 * 16 + feature % 16        word = feature % 64 / 16
 */
#ifndef KD_RANDOM_H
#define KD_RANDOM_H

#include "kd_base.h"

enum {
    KD_RANDOM_LANES = 16, /* counters evaluated side by side */
    KD_RANDOM_BLOCK = 64, /* features one evaluation of all lanes serves */
};

/* Names one row of random bits. */
typedef struct kd_random_row {
    uint64_t seed;
    uint32_t step;   /* optimiser steps taken so far */
    uint32_t tensor; /* which dropout of the model */
    uint32_t place;  /* the token's place in the effective batch */
} kd_random_row;

/* bits[KD_RANDOM_BLOCK]: the bits of features 64 * block .. 64 * block + 63 of a row. */
static inline void kd_random_bits(uint32_t *bits, const kd_random_row *row, uint32_t block)
{
    uint32_t c0[KD_RANDOM_LANES], c1[KD_RANDOM_LANES], c2[KD_RANDOM_LANES], c3[KD_RANDOM_LANES];
    uint32_t k0 = (uint32_t)row->seed, k1 = (uint32_t)(row->seed >> 32);
    for (int i = 0; i < KD_RANDOM_LANES; i++) {
        c0[i] = block * KD_RANDOM_LANES + (uint32_t)i;
        c1[i] = row->place;
        c2[i] = row->tensor;
        c3[i] = row->step;
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < KD_RANDOM_LANES; i++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0[i], p1 = (uint64_t)0xCD9E8D57u * c2[i];
            c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ k0;
            c1[i] = (uint32_t)p1;
            c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ k1;
            c3[i] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < KD_RANDOM_LANES; i++) {
        bits[i] = c0[i];
        bits[i + KD_RANDOM_LANES] = c1[i];
        bits[i + 2 * KD_RANDOM_LANES] = c2[i];
        bits[i + 3 * KD_RANDOM_LANES] = c3[i];
    }
}

#endif
