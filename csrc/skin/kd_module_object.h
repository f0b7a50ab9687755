/* kd_module_object: what the files of the skin behind the type kdistill._core.Model share: its state, and how a call
 * enters it and works in slices. */
#ifndef KD_MODULE_OBJECT_H
#define KD_MODULE_OBJECT_H

#include "skin/kd_numpy.h"

#include "learning/kd_adamw.h"
#include "model/kd_run.h"

#include <sys/types.h>

typedef struct kd_model_object {
    PyObject_HEAD
    kd_model model;
    PyArrayObject *description; /* memory of `model` */
    PyArrayObject *parameters, *gradients, *packed, *workspace;
    PyObject *new_workspace; /* called for a larger one */
    kd_run *run;             /* a training run that waits for backward, or NULL */
    pid_t busy;              /* the process whose call is running with the GIL released, or 0: a child forked
                              * meanwhile is not that process */
    unsigned version;        /* of the parameters, counted with their changes */
    unsigned packed_version; /* of those that were last packed whole */
    int adding;              /* a call is adding to the gradients: a child forked meanwhile has a part of them */
    int only_packed;         /* the packed weights are the only copy */
    PyArrayObject *word_integers, *word_scales; /* of word embeddings in int8: int8 (V, E), float32 (V, 1); or NULL */
    /* Training: which rows of the word embeddings have a gradient. */
    PyArrayObject *touched, *mark; /* int32 (V) of which `touched_count` are used, uint8 (V) */
    ptrdiff_t touched_count;
    kd_segment *segments; /* of every tensor but the word embeddings */
    ptrdiff_t segment_count;
} kd_model_object;

/* One call at a time: a second Python thread gets an exception, not garbage. A child that was forked while another thread
 * was adding to the gradients gets zeros for the part that it has. 0, or -1 with a RuntimeError; after 0, `busy` is to
 * be reset. */
int kd_object_enter(kd_model_object *o);

/* Items from .. to - 1 of work that is done in slices. */
typedef void (*kd_slice)(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to);

/* How many items, of so many floating-point operations each, take each of the threads about KD_SLICE_FLOPS: one for each
 * thread at least. */
ptrdiff_t kd_slice_step(double item_cost, int threads);

/* Does `items` items, `step` at a time, with the GIL released; between the slices signals are answered. 0, or -1 with
 * an exception. */
int kd_object_do_slices(kd_slice slice, void *context, ptrdiff_t items, ptrdiff_t step, int threads);

/* The same for items that all threads do together. */
int kd_object_do_shared(kd_slice slice, void *context, ptrdiff_t items, ptrdiff_t step, int threads);

/* The gradient array with its list of touched rows. */
kd_gradient kd_object_gradient(const kd_model_object *o);

/* A pass over this batch gives rows of the word embeddings a gradient: its words', or with a tied head all of them. */
void kd_object_touch(kd_model_object *o, const kd_batch *batch);

/* Every row of the word embeddings' gradient is 0. */
void kd_object_forget_touched(kd_model_object *o);

/* Sets all gradients to 0 when nothing may fail: with the thread that calls. kd_object_forget_part does so if some call
 * has added a part of its own. */
void kd_object_forget_gradients(kd_model_object *o);
void kd_object_forget_part(kd_model_object *o);

#endif
