/* kd_module_bert: the object behind kdistill._core.Bert, shared by the files of the skin that serve it. */
#ifndef KD_MODULE_BERT_H
#define KD_MODULE_BERT_H

#include "skin/kd_numpy.h"

#include "learning/kd_adamw.h"

#include <sys/types.h>

typedef struct kd_bert_object {
    PyObject_HEAD
    kd_bert model;
    PyArrayObject *parameters, *gradients, *packed, *workspace;
    PyObject *new_workspace; /* called for a larger one */
    kd_bert_run *run;        /* a training run that waits for backward, or NULL */
    pid_t busy;              /* the process whose call is running with the GIL released, or 0: a child forked
                       * meanwhile is not that process */
    int stale;               /* parameters changed since they were packed */
    /* Training: which rows of the word embeddings have a gradient. */
    PyArrayObject *touched, *mark; /* int32 (V) of which `touched_count` are used, uint8 (V) */
    ptrdiff_t touched_count;
    kd_segment *segments; /* of every tensor but the word embeddings */
    ptrdiff_t segment_count;
} kd_bert_object;

/* One call at a time: a second Python thread gets an exception, not garbage. 0, or -1 with a
 * RuntimeError; after 0, `busy` is to be reset. */
int kd_bert_enter(kd_bert_object *b);

/* Items from .. to - 1 of work that is done in slices. */
typedef void (*kd_slice)(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to);

/* Does `items` items, `step` at a time, with the GIL released; between the slices signals are answered. 0, or
 * -1 with an exception. */
int kd_do_slices(kd_slice slice, void *context, ptrdiff_t items, ptrdiff_t step, int threads);

/* The gradient array with its list of touched rows. */
kd_gradient kd_bert_gradient(const kd_bert_object *b);

/* Sets all gradients to 0 when nothing may fail: with the thread that calls. */
void kd_bert_forget_gradients(kd_bert_object *b);

/* Methods on gradients and parameters, see kd_module_train.c. */
extern const char kd_clear_gradients_doc[], kd_gradient_norm_doc[], kd_scale_gradients_doc[], kd_adamw_step_doc[],
    kd_catch_up_doc[];
PyObject *kd_py_clear_gradients(PyObject *self, PyObject *args);
PyObject *kd_py_gradient_norm(PyObject *self, PyObject *args);
PyObject *kd_py_scale_gradients(PyObject *self, PyObject *args);
PyObject *kd_py_adamw_step(PyObject *self, PyObject *args);
PyObject *kd_py_catch_up(PyObject *self, PyObject *args);

#endif
