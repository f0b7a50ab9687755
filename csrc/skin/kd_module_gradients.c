#include "skin/kd_module_gradients.h"

#include <math.h>
#include <string.h>

/* Enters the object if it has gradients and `threads` is fine; -1 with an exception otherwise. */
static int enter_training(kd_model_object *o, int threads)
{
    if (kd_check_threads(threads) < 0 || kd_object_enter(o) < 0)
        return -1;
    if (o->gradients)
        return 0;
    o->busy = 0;
    PyErr_SetString(PyExc_RuntimeError, "this model is frozen; it has no gradients");
    return -1;
}

static int scale_gradients(kd_model_object *o, float factor, int threads)
{
    kd_team *team = kd_open_team(threads);
    kd_gradient g = kd_object_gradient(o);
    if (!team)
        return -1;
    Py_BEGIN_ALLOW_THREADS
    kd_gradient_scale(o->model.arithmetic.kernels, &g, factor, team);
    kd_pool_close(team);
    Py_END_ALLOW_THREADS
    return 0;
}

PyObject *kd_py_clear_gradients(PyObject *self, PyObject *args)
{
    kd_model_object *o = (kd_model_object *)self;
    int threads;
    if (!PyArg_ParseTuple(args, "i:clear_gradients", &threads) || enter_training(o, threads) < 0)
        return NULL;
    int failed = scale_gradients(o, 0, threads) < 0;
    if (!failed)
        kd_object_forget_touched(o);
    o->busy = 0;
    return failed ? NULL : Py_NewRef(Py_None);
}

PyObject *kd_py_scale_gradients(PyObject *self, PyObject *args)
{
    kd_model_object *o = (kd_model_object *)self;
    float factor;
    int threads;
    if (!PyArg_ParseTuple(args, "fi:scale_gradients", &factor, &threads) || enter_training(o, threads) < 0)
        return NULL;
    int failed = scale_gradients(o, factor, threads) < 0;
    o->busy = 0;
    return failed ? NULL : Py_NewRef(Py_None);
}

PyObject *kd_py_gradient_norm(PyObject *self, PyObject *args)
{
    kd_model_object *o = (kd_model_object *)self;
    int threads;
    if (!PyArg_ParseTuple(args, "i:gradient_norm", &threads) || enter_training(o, threads) < 0)
        return NULL;
    kd_gradient g = kd_object_gradient(o);
    double total = 0, *partial = PyMem_Malloc((size_t)(kd_gradient_blocks(&g) + 1) * sizeof *partial);
    kd_team *team = partial ? kd_open_team(threads) : NULL;
    if (team) {
        Py_BEGIN_ALLOW_THREADS
        total = kd_gradient_sum_squares(o->model.arithmetic.kernels, &g, partial, team);
        kd_pool_close(team);
        Py_END_ALLOW_THREADS
    }
    o->busy = 0;
    if (!partial)
        return PyErr_NoMemory();
    PyMem_Free(partial);
    return team ? PyFloat_FromDouble(sqrt(total)) : NULL;
}

/* The optimiser's arrays: moments and the average (or NULL) like the parameters; steps done per word and, last, by all
 * other tensors; the constants of steps base + 1 on, KD_HISTORY floats each. */
typedef struct moments {
    PyArrayObject *m, *v, *average, *done, *history;
    Py_ssize_t base, t;
} moments;

/* The history must hold `least` steps or more. */
static int parse_moments(const kd_model_object *o, PyObject *tuple, Py_ssize_t least, moments *at, kd_deferred *table)
{
    PyObject *m, *v, *average, *done, *history;
    const ptrdiff_t size = o->model.sizes.parameters;
    if (!PyArg_ParseTuple(tuple, "OOOOOnn:state", &m, &v, &average, &done, &history, &at->base, &at->t) ||
        !(at->m = kd_array_out(m, "m", NPY_FLOAT, 1, size)) || !(at->v = kd_array_out(v, "v", NPY_FLOAT, 1, size)) ||
        !(at->done = kd_array_out(done, "done", NPY_INT32, 1, o->model.encoder.V + 1)) ||
        !(at->history = kd_array_out(history, "history", NPY_FLOAT, 2, -1)))
        return -1;
    at->average = average == Py_None ? NULL : kd_array_out(average, "average", NPY_FLOAT, 1, size);
    if (average != Py_None && !at->average)
        return -1;
    if (at->base < 0 || at->base > INT32_MAX || at->t < at->base || at->t > INT32_MAX || at->t - at->base < least ||
        PyArray_DIM(at->history, 1) != KD_HISTORY || PyArray_DIM(at->history, 0) < at->t - at->base) {
        PyErr_SetString(PyExc_ValueError, "history does not hold the steps after base");
        return -1;
    }
    *table = (kd_deferred){o->model.parameters,
                           kd_floats(at->m),
                           kd_floats(at->v),
                           o->model.gradients,
                           PyArray_DATA(at->done),
                           PyArray_DATA(at->history),
                           at->base,
                           at->t,
                           o->model.encoder.E,
                           at->average ? kd_floats(at->average) : NULL};
    return 0;
}

/* Steps done of `n` rows must be within the history: from base to t - 1, or t where no further step is due. */
static int check_done(const kd_deferred *table, const int32_t *ids, ptrdiff_t n, ptrdiff_t most)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        const int32_t done = table->done[ids[i]];
        if (done < table->base || done > most) {
            PyErr_Format(PyExc_ValueError, "done[%d] is %d; expected %zd to %zd, the steps that the history has",
                         (int)ids[i], (int)done, (Py_ssize_t)table->base, (Py_ssize_t)most);
            return -1;
        }
    }
    return 0;
}

PyObject *kd_py_adamw_step(PyObject *self, PyObject *args)
{
    kd_model_object *o = (kd_model_object *)self;
    PyObject *state;
    double lr, beta1, beta2, eps, decay, share;
    int threads;
    moments at;
    kd_deferred table;
    if (!PyArg_ParseTuple(args, "O!(dddddd)i:adamw_step", &PyTuple_Type, &state, &lr, &beta1, &beta2, &eps, &decay,
                          &share, &threads) ||
        enter_training(o, threads) < 0)
        return NULL;
    const int fits = parse_moments(o, state, 1, &at, &table) == 0 &&
                     check_done(&table, PyArray_DATA(o->touched), o->touched_count, at.t - 1) == 0;
    kd_team *team = fits ? kd_open_team(threads) : NULL;
    if (team) {
        kd_adamw_step step = kd_adamw_constants(lr, beta1, beta2, eps, decay, (double)at.t);
        step.share = (float)share;
        ((kd_adamw_step *)PyArray_DATA(at.history))[at.t - 1 - at.base] = step;
        kd_adamw adamw = {o->model.parameters,
                          kd_floats(at.m),
                          kd_floats(at.v),
                          o->model.gradients,
                          o->segments,
                          o->segment_count,
                          step,
                          table.average ? kd_floats(at.average) : NULL};
        /* Before the GIL is released, as a fork of another thread may come between the step's end and its return. */
        table.done[o->model.encoder.V] = (int32_t)at.t;
        o->version++;
        Py_BEGIN_ALLOW_THREADS
        kd_adamw_update(o->model.arithmetic.kernels, &adamw, team);
        kd_deferred_update(o->model.arithmetic.kernels, &table, PyArray_DATA(o->touched), o->touched_count, team);
        kd_pool_close(team);
        Py_END_ALLOW_THREADS
    }
    o->busy = 0;
    return team ? Py_NewRef(Py_None) : NULL;
}

/* `ids` as int32 words of the vocabulary; None stands for all of them. A new reference. */
static PyArrayObject *parse_ids(PyObject *ids, ptrdiff_t V)
{
    if (ids == Py_None)
        return (PyArrayObject *)PyArray_Arange(0, (double)V, 1, NPY_INT32);
    PyArrayObject *array = kd_array_copy(ids, "ids", NPY_INT32, 1);
    const int32_t *id = array ? PyArray_DATA(array) : NULL;
    for (ptrdiff_t i = 0; array && i < PyArray_SIZE(array); i++)
        if (id[i] < 0 || id[i] >= V) {
            PyErr_Format(PyExc_ValueError, "ids[%zd] is %d; the vocabulary has %zd entries", (Py_ssize_t)i, (int)id[i],
                         (Py_ssize_t)V);
            Py_DECREF((PyObject *)array);
            return NULL;
        }
    return array;
}

PyObject *kd_py_touched_rows(PyObject *self, PyObject *Py_UNUSED(args))
{
    kd_model_object *o = (kd_model_object *)self;
    if (enter_training(o, 1) < 0)
        return NULL;
    npy_intp n = o->touched_count;
    PyObject *ids = PyArray_SimpleNew(1, &n, NPY_INT32);
    if (ids)
        memcpy(PyArray_DATA((PyArrayObject *)ids), PyArray_DATA(o->touched), (size_t)n * sizeof(int32_t));
    o->busy = 0;
    return ids;
}

PyObject *kd_py_touch_rows(PyObject *self, PyObject *args)
{
    kd_model_object *o = (kd_model_object *)self;
    PyObject *object;
    if (!PyArg_ParseTuple(args, "O:touch_rows", &object) || enter_training(o, 1) < 0)
        return NULL;
    PyArrayObject *ids = parse_ids(object, o->model.encoder.V);
    if (ids) {
        const kd_batch words = {.ids = PyArray_DATA(ids), .N = PyArray_SIZE(ids)};
        o->touched_count = kd_embed_mark(PyArray_DATA(o->touched), PyArray_DATA(o->mark), o->touched_count, &words);
        Py_DECREF((PyObject *)ids);
    }
    o->busy = 0;
    return ids ? Py_NewRef(Py_None) : NULL;
}

typedef struct rows_behind {
    const kd_kernels *kernels;
    const kd_deferred *table;
    const int32_t *ids;
} rows_behind;

static void catch_up_slice(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    const rows_behind *behind = context;
    kd_deferred_catch_up(behind->kernels, behind->table, behind->ids + from, to - from, team);
}

/* Each row is brought up to date by itself, so a signal between two slices leaves the others for later. */
static int catch_up(const kd_model_object *o, const kd_deferred *table, const int32_t *ids, PyArrayObject *behind,
                    int threads)
{
    enum { OPERATIONS = 20 }; /* of a step on one parameter, roughly: a division and a root are among them */
    rows_behind work = {o->model.arithmetic.kernels, table, PyArray_DATA(behind)};
    ptrdiff_t count = kd_deferred_behind(table, PyArray_DATA(behind), ids, PyArray_SIZE(behind));
    double row = OPERATIONS * (double)(table->C * (table->t - table->base));
    return kd_object_do_slices(catch_up_slice, &work, count, kd_slice_step(row, threads), threads);
}

PyObject *kd_py_catch_up(PyObject *self, PyObject *args)
{
    kd_model_object *o = (kd_model_object *)self;
    PyObject *state, *object;
    int threads;
    moments at;
    kd_deferred table;
    if (!PyArg_ParseTuple(args, "O!Oi:catch_up", &PyTuple_Type, &state, &object, &threads) ||
        enter_training(o, threads) < 0)
        return NULL;
    PyArrayObject *ids = parse_moments(o, state, 0, &at, &table) < 0 ? NULL : parse_ids(object, o->model.encoder.V);
    npy_intp n = ids ? PyArray_SIZE(ids) : 0;
    PyArrayObject *behind = ids ? (PyArrayObject *)PyArray_SimpleNew(1, &n, NPY_INT32) : NULL;
    int failed = !behind || check_done(&table, PyArray_DATA(ids), n, at.t) < 0 ||
                 catch_up(o, &table, PyArray_DATA(ids), behind, threads) < 0;
    Py_XDECREF((PyObject *)ids);
    Py_XDECREF((PyObject *)behind);
    o->busy = 0;
    return failed ? NULL : Py_NewRef(Py_None);
}

PyObject *kd_py_adamw(PyObject *module, PyObject *args)
{
    PyObject *p_object, *g_object, *m_object, *v_object;
    double lr, beta1, beta2, eps, decay, t;
    const kd_kernels *kernels = ((kd_module_state *)PyModule_GetState(module))->arithmetic[KD_FLOAT32].kernels;
    int threads;
    if (!PyArg_ParseTuple(args, "OOOO(ddddd)di:adamw", &p_object, &g_object, &m_object, &v_object, &lr, &beta1, &beta2,
                          &eps, &decay, &t, &threads) ||
        kd_check_threads(threads) < 0)
        return NULL;
    PyArrayObject *p = kd_array_out(p_object, "p", NPY_FLOAT, 1, -1);
    ptrdiff_t size = p ? PyArray_SIZE(p) : 0;
    PyArrayObject *g = p ? kd_array_in(g_object, "g", NPY_FLOAT, 1, size) : NULL;
    PyArrayObject *m = g ? kd_array_out(m_object, "m", NPY_FLOAT, 1, size) : NULL;
    PyArrayObject *v = m ? kd_array_out(v_object, "v", NPY_FLOAT, 1, size) : NULL;
    kd_team *team = v ? kd_open_team(threads) : NULL;
    if (!team)
        return NULL;
    kd_segment whole = {0, size, 1};
    kd_adamw adamw = {kd_floats(p),
                      kd_floats(m),
                      kd_floats(v),
                      kd_floats(g),
                      &whole,
                      1,
                      kd_adamw_constants(lr, beta1, beta2, eps, decay, t),
                      NULL};
    Py_BEGIN_ALLOW_THREADS
    kd_adamw_update(kernels, &adamw, team);
    kd_pool_close(team);
    Py_END_ALLOW_THREADS
    return Py_NewRef(Py_None);
}
