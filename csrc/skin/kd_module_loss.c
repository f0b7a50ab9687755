/* The loss for Python. */
#include "skin/kd_module_object.h"

#include "learning/kd_loss.h"

#include <math.h>
#include <stdio.h>

static int check_classes(const kd_loss *loss)
{
    for (ptrdiff_t b = 0; b < loss->B; b++) {
        const int64_t label = loss->classes[b], K = kd_loss_begin(loss, b + 1) - kd_loss_begin(loss, b);
        if (label != KD_LOSS_NO_LABEL && (label < 0 || label >= K)) {
            PyErr_Format(PyExc_ValueError, "labels[%zd] is %lld; expected 0 to %lld, or -100 for a row without a label",
                         (Py_ssize_t)b, (long long)label, (long long)(K - 1));
            return -1;
        }
    }
    return 0;
}

/* Accepts rows of finite numbers, and rows of NaN alone, which have no labels. */
static int check_targets(const float *targets, npy_intp B, npy_intp K)
{
    for (npy_intp b = 0; b < B; b++) {
        const float *row = targets + b * K;
        for (npy_intp k = 0; k < K; k++)
            if (isinf(row[k]) || isnan(row[k]) != isnan(row[0])) {
                char found[32];
                snprintf(found, sizeof found, "%g", row[k]);
                PyErr_Format(PyExc_ValueError,
                             "labels[%zd][%zd] is %s; expected finite numbers, or NaN in all of a row without labels",
                             (Py_ssize_t)b, (Py_ssize_t)k, found);
                return -1;
            }
    }
    return 0;
}

static int check_weights(const double *weights, npy_intp K)
{
    for (npy_intp k = 0; k < K; k++)
        if (!isfinite(weights[k]) || weights[k] < 0) {
            char found[32];
            snprintf(found, sizeof found, "%g", weights[k]);
            PyErr_Format(PyExc_ValueError, "weights[%zd] is %s; expected a finite number >= 0", (Py_ssize_t)k, found);
            return -1;
        }
    return 0;
}

static int check_loss_shapes(PyArrayObject *logits, PyArrayObject *teacher, PyArrayObject *labels,
                             PyArrayObject *weights)
{
    const Py_ssize_t B = PyArray_DIM(logits, 0), K = PyArray_DIM(logits, 1);
    if (B < 1 || K < 1)
        PyErr_Format(PyExc_ValueError, "logits is %zd x %zd; expected at least one row and one label", B, K);
    else if (teacher && (PyArray_DIM(teacher, 0) != B || PyArray_DIM(teacher, 1) != K))
        PyErr_Format(PyExc_ValueError, "teacher_logits is %zd x %zd; expected %zd x %zd, as logits is",
                     (Py_ssize_t)PyArray_DIM(teacher, 0), (Py_ssize_t)PyArray_DIM(teacher, 1), B, K);
    else if (labels && PyArray_DIM(labels, 0) != B)
        PyErr_Format(PyExc_ValueError, "labels has %zd rows; expected %zd, as logits has",
                     (Py_ssize_t)PyArray_DIM(labels, 0), B);
    else if (labels && PyArray_NDIM(labels) == 2 && PyArray_DIM(labels, 1) != K)
        PyErr_Format(PyExc_ValueError, "labels has %zd numbers in a row; expected %zd, as logits has",
                     (Py_ssize_t)PyArray_DIM(labels, 1), K);
    else if (weights && PyArray_DIM(weights, 0) != K)
        PyErr_Format(PyExc_ValueError, "weights has %zd numbers; expected %zd, one for each label",
                     (Py_ssize_t)PyArray_DIM(weights, 0), K);
    else
        return 0;
    return -1;
}

/* The same of rows that have a number of logits each. */
static int check_ragged_shapes(PyArrayObject *logits, PyArrayObject *teacher, PyArrayObject *labels,
                               PyArrayObject *weights, PyArrayObject *starts)
{
    const Py_ssize_t logits_size = PyArray_DIM(logits, 0), B = PyArray_DIM(starts, 0) - 1;
    if (kd_check_starts(PyArray_DATA(starts), B, logits_size, "logit", "row") < 0)
        return -1;
    if (teacher && PyArray_DIM(teacher, 0) != logits_size)
        PyErr_Format(PyExc_ValueError, "teacher_logits has %zd numbers; expected %zd, as logits has",
                     (Py_ssize_t)PyArray_DIM(teacher, 0), logits_size);
    else if (labels && PyArray_DIM(labels, 0) != B)
        PyErr_Format(PyExc_ValueError, "labels has %zd rows; expected %zd, as starts has",
                     (Py_ssize_t)PyArray_DIM(labels, 0), B);
    else if (weights)
        PyErr_SetString(PyExc_ValueError, "weights were given with starts; expected None: rows share no labels");
    else
        return 0;
    return -1;
}

/* Copies of the arrays of a loss; all but the student may be NULL. */
typedef struct loss_arrays {
    PyArrayObject *student, *teacher, *labels, *weights, *starts;
} loss_arrays;

/* The same as they are given; None for those that are not. */
typedef struct loss_objects {
    PyObject *student, *teacher, *labels, *weights, *starts;
} loss_objects;

static void drop_loss_arrays(loss_arrays *arrays)
{
    Py_CLEAR(arrays->student);
    Py_CLEAR(arrays->teacher);
    Py_CLEAR(arrays->labels);
    Py_CLEAR(arrays->weights);
    Py_CLEAR(arrays->starts);
}

/* Copies the arrays, of which None stays NULL; -1 with an exception. */
static int copy_loss_arrays(loss_arrays *arrays, int single, const loss_objects *given)
{
    const int ragged = given->starts != Py_None, dimensions = ragged ? 1 : 2;
    if (ragged && !single) {
        PyErr_SetString(PyExc_ValueError, "starts were given; expected None, but with LOSS_SINGLE_LABEL");
        return -1;
    }
    if (!(arrays->student = kd_array_copy(given->student, "logits", NPY_FLOAT, dimensions)) ||
        (given->teacher != Py_None &&
         !(arrays->teacher = kd_array_copy(given->teacher, "teacher_logits", NPY_FLOAT, dimensions))) ||
        (given->labels != Py_None &&
         !(arrays->labels = kd_array_copy(given->labels, "labels", single ? NPY_INT64 : NPY_FLOAT, single ? 1 : 2))) ||
        (given->weights != Py_None && !(arrays->weights = kd_array_copy(given->weights, "weights", NPY_DOUBLE, 1))) ||
        (ragged && !(arrays->starts = kd_array_copy(given->starts, "starts", NPY_INT64, 1))))
        return -1;
    return ragged
               ? check_ragged_shapes(arrays->student, arrays->teacher, arrays->labels, arrays->weights, arrays->starts)
               : check_loss_shapes(arrays->student, arrays->teacher, arrays->labels, arrays->weights);
}

/* Fills in the arrays of `loss`, whose kind is set, after checking them; -1 with an exception. */
static int set_loss_arrays(kd_loss *loss, const loss_arrays *arrays)
{
    PyArrayObject *student = arrays->student, *teacher = arrays->teacher, *labels = arrays->labels;
    const int single = loss->kind == KD_LOSS_SINGLE_LABEL;
    npy_intp B = arrays->starts ? PyArray_SIZE(arrays->starts) - 1 : PyArray_DIM(student, 0);
    npy_intp K = arrays->starts ? 0 : PyArray_DIM(student, 1);
    loss->starts = arrays->starts ? PyArray_DATA(arrays->starts) : NULL;
    loss->student = kd_floats(student);
    loss->teacher = teacher ? kd_floats(teacher) : NULL;
    loss->classes = labels && single ? PyArray_DATA(labels) : NULL;
    loss->targets = labels && !single ? kd_floats(labels) : NULL;
    loss->weights = arrays->weights ? PyArray_DATA(arrays->weights) : NULL;
    loss->B = B;
    loss->K = K;
    if (loss->weights && check_weights(loss->weights, K) < 0)
        return -1;
    return loss->classes ? check_classes(loss) : loss->targets ? check_targets(loss->targets, B, K) : 0;
}

/* A logit takes some 50 ns: about 1 ms, for which no other thread is woken, and 0.1 s. */
enum { SMALL_LOGITS = 1 << 14, SLICE_LOGITS = 1 << 21 };

typedef struct loss_work {
    kd_loss loss;
    float *dlogits; /* like the logits */
    kd_loss_result result;
} loss_work;

static void loss_slice(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    loss_work *work = context;
    kd_loss_add(&work->result, work->dlogits, &work->loss, from, to, team);
}

/* Computes a small loss at once. For a large one the GIL is released, and signals are answered on the way. 0, or -1 with
 * an exception. */
static int compute_loss(loss_work *work, int threads)
{
    const ptrdiff_t B = work->loss.B, logits = kd_loss_begin(&work->loss, B);
    const ptrdiff_t step = kd_max(threads, SLICE_LOGITS / kd_ceil_div(logits, B) * threads);
    if (logits <= SMALL_LOGITS)
        loss_slice(work, NULL, 0, B);
    else if (kd_object_do_slices(loss_slice, work, B, step, threads) < 0)
        return -1;
    kd_loss_finish(&work->result, &work->loss);
    return 0;
}

/* The tuple that `loss` returns. */
static PyObject *loss_with_gradient(loss_work *work, PyArrayObject *logits, int threads)
{
    PyObject *dlogits = PyArray_SimpleNew(PyArray_NDIM(logits), PyArray_DIMS(logits), NPY_FLOAT);
    if (!dlogits)
        return NULL;
    work->dlogits = kd_floats((PyArrayObject *)dlogits);
    PyObject *rows = compute_loss(work, threads) < 0
                         ? NULL
                         : kd_rows_named(work->result.rows, kd_min(work->result.not_finite, KD_LOSS_ROWS_NAMED));
    if (!rows) {
        Py_DECREF(dlogits);
        return NULL;
    }
    const kd_loss_result *result = &work->result;
    return Py_BuildValue("dNddnN", result->loss, dlogits, result->hard, result->soft, (Py_ssize_t)result->not_finite,
                         rows);
}

static PyObject *py_loss(PyObject *module, PyObject *args)
{
    loss_objects given = {.weights = Py_None, .starts = Py_None};
    loss_work work = {0};
    kd_loss *loss = &work.loss;
    int kind, threads;
    (void)module;
    if (!PyArg_ParseTuple(args, "iOOOdddi|OO:loss", &kind, &given.student, &given.teacher, &given.labels, &loss->alpha,
                          &loss->temperature, &loss->smoothing, &threads, &given.weights, &given.starts) ||
        kd_check_threads(threads) < 0)
        return NULL;
    if (kind < 0 || kind >= KD_LOSS_KINDS) {
        PyErr_Format(PyExc_ValueError, "kind is %d; expected 0 to %d", kind, KD_LOSS_KINDS - 1);
        return NULL;
    }
    loss->kind = (kd_loss_kind)kind;
    loss_arrays arrays = {0};
    PyObject *result = NULL;
    if (copy_loss_arrays(&arrays, kind == KD_LOSS_SINGLE_LABEL, &given) == 0 && set_loss_arrays(loss, &arrays) == 0)
        result = loss_with_gradient(&work, arrays.student, threads);
    drop_loss_arrays(&arrays);
    return result;
}

PyMethodDef kd_loss_methods[] = {
    {"loss", py_loss, METH_VARARGS,
     "loss($module, kind, logits, teacher_logits, labels, alpha, temperature, smoothing, threads, weights=None,\n"
     "starts=None, /)\n"
     "--\n\n"
     "Return (loss, dlogits, hard, soft, not_finite, rows): the means over the rows of the loss and of its parts, the\n"
     "float32 (B, K) gradient of the mean loss, how many rows have a loss or logits that are not finite, and the "
     "first\n"
     "of them. teacher_logits and labels may be None; a row of teacher_logits that is NaN has none. Labels are int64 "
     "(B,) for LOSS_SINGLE_LABEL, float32 (B, K) for\n"
     "the others. weights: float64 (K,), of the labels' part; LOSS_REGRESSION and LOSS_COSINE have none.\n"
     "With starts, int64 (B + 1,), LOSS_SINGLE_LABEL takes flat logits, of which row b has starts[b] to starts[b + "
     "1];\n"
     "teacher_logits and dlogits are like them, a label counts from the row's first, and there are no weights."},
    {NULL, NULL, 0, NULL},
};
