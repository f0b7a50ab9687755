/* kd_run: a pass through a model, forward and backward, as a few phases of independent items that a team of threads
 * shares.
 *
 * Forward is LAYERS (chunks of whole sequences go through all layers, one thread each, activations hot in its cache)
 * and HEAD (the rows the head reads; before it the last layer, when that is computed for these rows alone). Backward is
 * HEAD_BACK, LAYERS_BACK, then WEIGHTS: everything that sums over tokens, shared by output and not by token. So the
 * bits do not depend on the number of threads. An evaluation with fewer items than threads does them one after the
 * other, each by several threads (see kd_shared.h).
 *
 * A head that reads one row of each sequence has the last layer computed for these rows, with the weights of keys and
 * values absorbed by the query; in full, its outputs are the same up to rounding.
 */
#ifndef KD_RUN_H
#define KD_RUN_H

#include "model/kd_map.h"

typedef enum kd_phase {
    KD_PHASE_LAYERS,
    KD_PHASE_HEAD,
    KD_PHASE_HEAD_BACK,
    KD_PHASE_LAYERS_BACK,
    KD_PHASE_WEIGHTS,
} kd_phase;

/* Items of a phase, and roughly the floating-point operations of one. */
ptrdiff_t kd_run_items(const kd_run *run, kd_phase phase);
double kd_run_item_cost(const kd_run *run, kd_phase phase);

/* How many of so many threads do a phase sooner if they do each of its items together, one after the other; 1: each item
 * is better left to one thread. */
int kd_run_sharers(const kd_run *run, kd_phase phase, int threads);

/* Does items from .. to - 1 of a phase. Phases in order: HEAD reads what LAYERS wrote, and so on. The gradient that
 * HEAD_BACK reads is put in the place of the outputs, run->head.outputs. */
void kd_run_do(kd_run *run, kd_phase phase, kd_team *team, ptrdiff_t from, ptrdiff_t to);

/* The same, with the same bits, each item by the whole team of kd_run_sharers. */
void kd_run_do_shared(kd_run *run, kd_phase phase, kd_team *team, ptrdiff_t from, ptrdiff_t to);

#endif
