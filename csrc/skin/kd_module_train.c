/* Methods of kdistill._core.Bert that work on gradients and parameters: clearing, clipping, AdamW. */
#include "skin/kd_module_bert.h"

#include <math.h>
#include <string.h>

kd_gradient kd_bert_gradient(const kd_bert_object *b)
{
    const kd_bert_layout *layout = &b->model.layout;
    const ptrdiff_t rest = layout->offset[KD_TENSOR_position]; /* the table is the first tensor */
    kd_gradient g = {b->model.gradients, b->model.gradients + rest, PyArray_DATA(b->touched),
                     b->touched_count,   b->model.config.C,         layout->size - rest};
    return g;
}

/* Enters the object if it has gradients and `threads` is fine; -1 with an exception otherwise. */
static int enter_training(kd_bert_object *b, int threads)
{
    if (kd_check_threads(threads) < 0 || kd_bert_enter(b) < 0)
        return -1;
    if (b->gradients)
        return 0;
    b->busy = 0;
    PyErr_SetString(PyExc_RuntimeError, "this model is frozen; it has no gradients");
    return -1;
}

static int scale_gradients(kd_bert_object *b, float factor, int threads)
{
    kd_team *team = kd_open_team(threads);
    kd_gradient g = kd_bert_gradient(b);
    if (!team)
        return -1;
    Py_BEGIN_ALLOW_THREADS
    kd_gradient_scale(b->model.arithmetic.kernels, &g, factor, team);
    kd_pool_close(team);
    Py_END_ALLOW_THREADS
    return 0;
}

/* Every row of the word embeddings' gradient is 0. */
static void forget_touched(kd_bert_object *b)
{
    const int32_t *touched = PyArray_DATA(b->touched);
    uint8_t *mark = PyArray_DATA(b->mark);
    for (ptrdiff_t i = 0; i < b->touched_count; i++)
        mark[touched[i]] = 0;
    b->touched_count = 0;
}

void kd_bert_forget_gradients(kd_bert_object *b)
{
    kd_gradient g = kd_bert_gradient(b);
    for (ptrdiff_t i = 0; i < g.n; i++)
        memset(g.table + g.ids[i] * g.C, 0, (size_t)g.C * sizeof(float));
    memset(g.dense, 0, (size_t)g.dense_size * sizeof(float));
    forget_touched(b);
}

const char kd_clear_gradients_doc[] = "clear_gradients($self, threads, /)\n--\n\nSets all gradients to 0.";

PyObject *kd_py_clear_gradients(PyObject *self, PyObject *args)
{
    kd_bert_object *b = (kd_bert_object *)self;
    int threads;
    if (!PyArg_ParseTuple(args, "i:clear_gradients", &threads) || enter_training(b, threads) < 0)
        return NULL;
    int failed = scale_gradients(b, 0, threads) < 0;
    if (!failed)
        forget_touched(b);
    b->busy = 0;
    return failed ? NULL : Py_NewRef(Py_None);
}

const char kd_scale_gradients_doc[] = "scale_gradients($self, factor, threads, /)\n--\n\nAll gradients *= factor.";

PyObject *kd_py_scale_gradients(PyObject *self, PyObject *args)
{
    kd_bert_object *b = (kd_bert_object *)self;
    float factor;
    int threads;
    if (!PyArg_ParseTuple(args, "fi:scale_gradients", &factor, &threads) || enter_training(b, threads) < 0)
        return NULL;
    int failed = scale_gradients(b, factor, threads) < 0;
    b->busy = 0;
    return failed ? NULL : Py_NewRef(Py_None);
}

const char kd_gradient_norm_doc[] =
    "gradient_norm($self, threads, /)\n--\n\nThe Euclidean norm of all gradients together.";

PyObject *kd_py_gradient_norm(PyObject *self, PyObject *args)
{
    kd_bert_object *b = (kd_bert_object *)self;
    int threads;
    if (!PyArg_ParseTuple(args, "i:gradient_norm", &threads) || enter_training(b, threads) < 0)
        return NULL;
    kd_gradient g = kd_bert_gradient(b);
    double total = 0, *partial = PyMem_Malloc((size_t)(kd_gradient_blocks(&g) + 1) * sizeof *partial);
    kd_team *team = partial ? kd_open_team(threads) : NULL;
    if (team) {
        Py_BEGIN_ALLOW_THREADS
        total = kd_gradient_sum_squares(b->model.arithmetic.kernels, &g, partial, team);
        kd_pool_close(team);
        Py_END_ALLOW_THREADS
    }
    b->busy = 0;
    if (!partial)
        return PyErr_NoMemory();
    PyMem_Free(partial);
    return team ? PyFloat_FromDouble(sqrt(total)) : NULL;
}

/* The optimiser's arrays: moments and the average (or NULL) like the parameters; steps done per word and, last, by all
 * other tensors; the constants of steps base + 1 on, KD_HISTORY floats each. */
enum { KD_HISTORY = sizeof(kd_adamw_step) / sizeof(float) };

typedef struct moments {
    PyArrayObject *m, *v, *average, *done, *history;
    Py_ssize_t base, t;
} moments;

/* The history must hold `least` steps or more. */
static int parse_moments(const kd_bert_object *b, PyObject *tuple, Py_ssize_t least, moments *o, kd_deferred *table)
{
    PyObject *m, *v, *average, *done, *history;
    const ptrdiff_t size = b->model.layout.size;
    if (!PyArg_ParseTuple(tuple, "OOOOOnn:state", &m, &v, &average, &done, &history, &o->base, &o->t) ||
        !(o->m = kd_array_out(m, "m", NPY_FLOAT, 1, size)) || !(o->v = kd_array_out(v, "v", NPY_FLOAT, 1, size)) ||
        !(o->done = kd_array_out(done, "done", NPY_INT32, 1, b->model.config.V + 1)) ||
        !(o->history = kd_array_out(history, "history", NPY_FLOAT, 2, -1)))
        return -1;
    o->average = average == Py_None ? NULL : kd_array_out(average, "average", NPY_FLOAT, 1, size);
    if (average != Py_None && !o->average)
        return -1;
    if (o->base < 0 || o->t - o->base < least || o->t > INT32_MAX || PyArray_DIM(o->history, 1) != KD_HISTORY ||
        PyArray_DIM(o->history, 0) < o->t - o->base) {
        PyErr_SetString(PyExc_ValueError, "history does not hold the steps after base");
        return -1;
    }
    *table = (kd_deferred){b->model.parameters,
                           kd_floats(o->m),
                           kd_floats(o->v),
                           b->model.gradients,
                           PyArray_DATA(o->done),
                           PyArray_DATA(o->history),
                           o->base,
                           o->t,
                           b->model.config.C,
                           o->average ? kd_floats(o->average) : NULL};
    return 0;
}

const char kd_adamw_step_doc[] =
    "adamw_step($self, state, constants, threads, /)\n--\n\n"
    "state is (m, v, average | None, done, history, base, t), constants (lr, beta1, beta2, eps, weight_decay, share).\n"
    "The t-th AdamW step: writes its constants to history[t - 1 - base], then moves every tensor but the\n"
    "word embeddings, and of those the rows with a gradient. The average of what moved takes in that share of it.\n"
    "done[V] becomes t with it, whatever a signal's handler raises afterwards.";

PyObject *kd_py_adamw_step(PyObject *self, PyObject *args)
{
    kd_bert_object *b = (kd_bert_object *)self;
    PyObject *state;
    double lr, beta1, beta2, eps, decay, share;
    int threads;
    moments o;
    kd_deferred table;
    if (!PyArg_ParseTuple(args, "O!(dddddd)i:adamw_step", &PyTuple_Type, &state, &lr, &beta1, &beta2, &eps, &decay,
                          &share, &threads) ||
        enter_training(b, threads) < 0)
        return NULL;
    kd_team *team = parse_moments(b, state, 1, &o, &table) < 0 ? NULL : kd_open_team(threads);
    if (team) {
        kd_adamw_step step = kd_adamw_constants(lr, beta1, beta2, eps, decay, (double)o.t);
        step.share = (float)share;
        ((kd_adamw_step *)PyArray_DATA(o.history))[o.t - 1 - o.base] = step;
        kd_adamw adamw = {
            b->model.parameters, kd_floats(o.m),   kd_floats(o.v), b->model.gradients,
            b->segments,         b->segment_count, step,           table.average ? kd_floats(o.average) : NULL};
        Py_BEGIN_ALLOW_THREADS
        kd_adamw_update(b->model.arithmetic.kernels, &adamw, team);
        kd_deferred_update(b->model.arithmetic.kernels, &table, PyArray_DATA(b->touched), b->touched_count, team);
        kd_pool_close(team);
        Py_END_ALLOW_THREADS
        table.done[b->model.config.V] = (int32_t)o.t;
        b->stale = 1;
    }
    b->busy = 0;
    return team ? Py_NewRef(Py_None) : NULL;
}

/* `ids` as int32 words of the vocabulary; None stands for all of them. A new reference. */
static PyArrayObject *parse_ids(PyObject *ids, ptrdiff_t V)
{
    if (ids == Py_None)
        return (PyArrayObject *)PyArray_Arange(0, (double)V, 1, NPY_INT32);
    PyArrayObject *array = kd_array(ids, "ids", NPY_INT32, 1);
    const int32_t *id = array ? PyArray_DATA(array) : NULL;
    for (ptrdiff_t i = 0; array && i < PyArray_SIZE(array); i++)
        if (id[i] < 0 || id[i] >= V) {
            PyErr_Format(PyExc_ValueError, "ids[%zd] is %d; the vocabulary has %zd entries", (Py_ssize_t)i, (int)id[i],
                         (Py_ssize_t)V);
            return NULL;
        }
    return (PyArrayObject *)Py_XNewRef((PyObject *)array);
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
static int catch_up(const kd_bert_object *b, const kd_deferred *table, const int32_t *ids, PyArrayObject *behind,
                    int threads)
{
    enum { OPERATIONS = 20 }; /* of a step on one parameter, roughly: a division and a root are among them */
    rows_behind work = {b->model.arithmetic.kernels, table, PyArray_DATA(behind)};
    ptrdiff_t count = kd_deferred_behind(table, PyArray_DATA(behind), ids, PyArray_SIZE(behind));
    double row = OPERATIONS * (double)(table->C * (table->t - table->base));
    ptrdiff_t step = (ptrdiff_t)(KD_SLICE_FLOPS * threads / kd_max(1, (ptrdiff_t)row));
    return kd_do_slices(catch_up_slice, &work, count, kd_max(step, threads), threads);
}

const char kd_catch_up_doc[] =
    "catch_up($self, state, ids, threads, /)\n--\n\n"
    "Does the steps that these rows of the word embeddings (None: all) have missed, up to the t of state.";

PyObject *kd_py_catch_up(PyObject *self, PyObject *args)
{
    kd_bert_object *b = (kd_bert_object *)self;
    PyObject *state, *object;
    int threads;
    moments o;
    kd_deferred table;
    if (!PyArg_ParseTuple(args, "O!Oi:catch_up", &PyTuple_Type, &state, &object, &threads) ||
        enter_training(b, threads) < 0)
        return NULL;
    PyArrayObject *ids = parse_moments(b, state, 0, &o, &table) < 0 ? NULL : parse_ids(object, b->model.config.V);
    npy_intp n = ids ? PyArray_SIZE(ids) : 0;
    PyArrayObject *behind = ids ? (PyArrayObject *)PyArray_SimpleNew(1, &n, NPY_INT32) : NULL;
    int failed = !behind || catch_up(b, &table, PyArray_DATA(ids), behind, threads) < 0;
    Py_XDECREF((PyObject *)ids);
    Py_XDECREF((PyObject *)behind);
    b->busy = 0;
    return failed ? NULL : Py_NewRef(Py_None);
}
