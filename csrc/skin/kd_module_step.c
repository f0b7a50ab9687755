/* The losses and AdamW on plain arrays, and the peak of the machine. */
#include "skin/kd_numpy.h"

#include "learning/kd_adamw.h"
#include "learning/kd_loss.h"

#include <math.h>
#include <stdio.h>

static int check_classes(const int64_t *classes, npy_intp B, npy_intp K)
{
    for (npy_intp b = 0; b < B; b++)
        if (classes[b] != KD_LOSS_NO_LABEL && (classes[b] < 0 || classes[b] >= K)) {
            PyErr_Format(PyExc_ValueError, "labels[%zd] is %lld; expected 0 to %zd, or -100 for a row without a label",
                         (Py_ssize_t)b, (long long)classes[b], (Py_ssize_t)(K - 1));
            return -1;
        }
    return 0;
}

/* Each row all finite, or all NaN, which is a row without labels. */
static int check_targets(const float *targets, npy_intp B, npy_intp K)
{
    for (npy_intp i = 0; i < B * K; i++)
        if (isinf(targets[i]) || isnan(targets[i]) != isnan(targets[i / K * K])) {
            char found[32];
            snprintf(found, sizeof found, "%g", targets[i]);
            PyErr_Format(PyExc_ValueError,
                         "labels[%zd][%zd] is %s; expected finite numbers, or NaN in all of a row without labels",
                         (Py_ssize_t)(i / K), (Py_ssize_t)(i % K), found);
            return -1;
        }
    return 0;
}

static int check_loss_shapes(PyArrayObject *logits, PyArrayObject *teacher, PyArrayObject *labels)
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
    else
        return 0;
    return -1;
}

/* Fills in the arrays of `loss`, whose kind is set, after checking them; -1 with an exception. */
static int parse_loss_arrays(kd_loss *loss, PyObject *student_object, PyObject *teacher_object, PyObject *labels_object)
{
    int single = loss->kind == KD_LOSS_SINGLE_LABEL;
    PyArrayObject *student = kd_array(student_object, "logits", NPY_FLOAT, 2), *teacher = NULL, *labels = NULL;
    if (!student ||
        (teacher_object != Py_None && !(teacher = kd_array(teacher_object, "teacher_logits", NPY_FLOAT, 2))))
        return -1;
    if (labels_object != Py_None &&
        !(labels = kd_array(labels_object, "labels", single ? NPY_INT64 : NPY_FLOAT, single ? 1 : 2)))
        return -1;
    if (check_loss_shapes(student, teacher, labels) < 0)
        return -1;
    npy_intp B = PyArray_DIM(student, 0), K = PyArray_DIM(student, 1);
    loss->student = kd_floats(student);
    loss->teacher = teacher ? kd_floats(teacher) : NULL;
    loss->classes = labels && single ? PyArray_DATA(labels) : NULL;
    loss->targets = labels && !single ? kd_floats(labels) : NULL;
    loss->B = B;
    loss->K = K;
    return loss->classes ? check_classes(loss->classes, B, K) : loss->targets ? check_targets(loss->targets, B, K) : 0;
}

static PyObject *rows_named(const kd_loss_result *result)
{
    Py_ssize_t named = (Py_ssize_t)kd_min(result->not_finite, KD_LOSS_ROWS_NAMED);
    PyObject *rows = PyTuple_New(named);
    for (Py_ssize_t i = 0; rows && i < named; i++) {
        PyObject *row = PyLong_FromSsize_t(result->rows[i]);
        if (!row || PyTuple_SetItem(rows, i, row) < 0)
            Py_CLEAR(rows);
    }
    return rows;
}

static PyObject *py_loss(PyObject *module, PyObject *args)
{
    PyObject *student, *teacher, *labels, *dlogits;
    kd_loss loss = {0};
    kd_loss_result result;
    int kind;
    (void)module;
    if (!PyArg_ParseTuple(args, "iOOOddd:loss", &kind, &student, &teacher, &labels, &loss.alpha, &loss.temperature,
                          &loss.smoothing))
        return NULL;
    if (kind < 0 || kind >= KD_LOSS_KINDS) {
        PyErr_Format(PyExc_ValueError, "kind is %d; expected 0 to %d", kind, KD_LOSS_KINDS - 1);
        return NULL;
    }
    loss.kind = (kd_loss_kind)kind;
    if (parse_loss_arrays(&loss, student, teacher, labels) < 0 ||
        !(dlogits = PyArray_SimpleNew(2, PyArray_DIMS((PyArrayObject *)student), NPY_FLOAT)))
        return NULL;
    kd_loss_compute(&result, kd_floats((PyArrayObject *)dlogits), &loss);
    PyObject *rows = rows_named(&result);
    if (!rows) {
        Py_DECREF(dlogits);
        return NULL;
    }
    return Py_BuildValue("dNddnN", result.loss, dlogits, result.hard, result.soft, (Py_ssize_t)result.not_finite, rows);
}

static PyObject *py_adamw(PyObject *module, PyObject *args)
{
    kd_module_state *state = PyModule_GetState(module);
    PyObject *p_object, *g_object, *m_object, *v_object;
    double lr, beta1, beta2, eps, decay, t;
    int threads;
    if (!PyArg_ParseTuple(args, "OOOO(ddddd)di:adamw", &p_object, &g_object, &m_object, &v_object, &lr, &beta1, &beta2,
                          &eps, &decay, &t, &threads) ||
        kd_check_threads(threads) < 0)
        return NULL;
    PyArrayObject *p = kd_array_out(p_object, "p", NPY_FLOAT, 1, -1);
    ptrdiff_t size = p ? PyArray_SIZE(p) : 0;
    PyArrayObject *g = p ? kd_array_out(g_object, "g", NPY_FLOAT, 1, size) : NULL;
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
    kd_adamw_update(state->arithmetic.kernels, &adamw, team);
    kd_pool_close(team);
    Py_END_ALLOW_THREADS
    return Py_NewRef(Py_None);
}

typedef struct peak_run {
    const kd_kernels *kernels;
    ptrdiff_t rounds;
    double flops[KD_POOL_MAX_THREADS];
    float results[KD_POOL_MAX_THREADS];
} peak_run;

static void peak_item(void *context, ptrdiff_t item, int member)
{
    peak_run *run = context;
    (void)member;
    run->flops[item] = run->kernels->multiply_adds(run->rounds, &run->results[item]);
}

static PyObject *py_multiply_adds(PyObject *module, PyObject *args)
{
    peak_run run = {.kernels = ((kd_module_state *)PyModule_GetState(module))->arithmetic.kernels};
    Py_ssize_t rounds;
    int threads;
    if (!PyArg_ParseTuple(args, "ni:multiply_adds", &rounds, &threads) || kd_check_threads(threads) < 0)
        return NULL;
    kd_team *team = kd_open_team(threads);
    if (!team)
        return NULL;
    run.rounds = rounds;
    Py_BEGIN_ALLOW_THREADS
    kd_pool_run(team, peak_item, &run, threads);
    kd_pool_close(team);
    Py_END_ALLOW_THREADS
    double flops = 0;
    for (int i = 0; i < threads; i++)
        flops += run.flops[i];
    return PyFloat_FromDouble(flops);
}

PyMethodDef kd_step_methods[] = {
    {"loss", py_loss, METH_VARARGS,
     "loss($module, kind, logits, teacher_logits, labels, alpha, temperature, smoothing, /)\n--\n\n"
     "Returns (loss, dlogits, hard, soft, not_finite, rows). teacher_logits and labels may be None.\n"
     "kind: LOSS_SINGLE_LABEL with int64 (B,) labels; LOSS_MULTI_LABEL or LOSS_REGRESSION with float32 (B, K) ones.\n"
     "Means over the rows, the float32 (B, K) gradient of the mean loss, and how many rows have a loss or logits\n"
     "that are not finite, with the first of them."},
    {"adamw", py_adamw, METH_VARARGS,
     "adamw($module, p, g, m, v, constants, t, threads, /)\n--\n\n"
     "constants is (lr, beta1, beta2, eps, weight_decay). The t-th AdamW step on flat arrays, in place. A model's own "
     "steps are Bert.adamw_step's."},
    {"multiply_adds", py_multiply_adds, METH_VARARGS,
     "multiply_adds($module, rounds, threads, /)\n--\n\n"
     "Does multiply-adds in the registers of that many threads; returns how many floating-point operations."},
    {NULL, NULL, 0, NULL},
};
