#include "skin/kd_module_object.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

int kd_object_enter(kd_model_object *o)
{
    if (!o->parameters) {
        PyErr_SetString(PyExc_RuntimeError, "this Model was not initialised");
        return -1;
    }
    if (o->busy == getpid()) {
        PyErr_SetString(PyExc_RuntimeError, "this model is in use by another thread; give each thread its own model");
        return -1;
    }
    o->busy = getpid();
    kd_object_forget_part(o);
    return 0;
}

ptrdiff_t kd_slice_step(double item_cost, int threads)
{
    return kd_max(threads, (ptrdiff_t)(KD_SLICE_FLOPS * threads / fmax(item_cost, 1)));
}

/* A slice of n items wakes min(threads, n) threads, or all of them if `shared`. */
static int do_slices(kd_slice slice, void *context, ptrdiff_t items, ptrdiff_t step, int threads, int shared)
{
    for (ptrdiff_t from = 0; from < items; from += step) {
        const ptrdiff_t to = kd_min(from + step, items);
        kd_team *team = kd_open_team(shared ? threads : (int)kd_min(threads, to - from));
        if (!team)
            return -1;
        Py_BEGIN_ALLOW_THREADS
        slice(context, team, from, to);
        kd_pool_close(team);
        Py_END_ALLOW_THREADS
        if (to < items && PyErr_CheckSignals() < 0)
            return -1;
    }
    return 0;
}

int kd_object_do_slices(kd_slice slice, void *context, ptrdiff_t items, ptrdiff_t step, int threads)
{
    return do_slices(slice, context, items, step, threads, 0);
}

int kd_object_do_shared(kd_slice slice, void *context, ptrdiff_t items, ptrdiff_t step, int threads)
{
    return do_slices(slice, context, items, step, threads, 1);
}

kd_gradient kd_object_gradient(const kd_model_object *o)
{
    const kd_model *model = &o->model;
    const kd_tensor *word = kd_model_tensor(model, KD_SLOT_word, 0); /* the first tensor */
    const ptrdiff_t table_size = kd_round_up(word->rows * word->columns, KD_ALIGN_FLOATS);
    return (kd_gradient){
        model->gradients, model->gradients + table_size,       PyArray_DATA(o->touched), o->touched_count,
        word->columns,    model->sizes.parameters - table_size};
}

void kd_object_touch(kd_model_object *o, const kd_batch *batch)
{
    int32_t *touched = PyArray_DATA(o->touched);
    uint8_t *mark = PyArray_DATA(o->mark);
    o->touched_count = o->model.head.tied ? kd_embed_mark_all(touched, mark, o->model.encoder.V)
                                          : kd_embed_mark(touched, mark, o->touched_count, batch);
}

void kd_object_forget_touched(kd_model_object *o)
{
    const int32_t *touched = PyArray_DATA(o->touched);
    uint8_t *mark = PyArray_DATA(o->mark);
    for (ptrdiff_t i = 0; i < o->touched_count; i++)
        mark[touched[i]] = 0;
    o->touched_count = 0;
}

void kd_object_forget_gradients(kd_model_object *o)
{
    kd_gradient g = kd_object_gradient(o);
    for (ptrdiff_t i = 0; i < g.n; i++)
        memset(g.table + g.ids[i] * g.C, 0, (size_t)g.C * sizeof(float));
    memset(g.dense, 0, (size_t)g.dense_size * sizeof(float));
    kd_object_forget_touched(o);
    o->adding = 0;
}

void kd_object_forget_part(kd_model_object *o)
{
    if (o->adding)
        kd_object_forget_gradients(o);
}
