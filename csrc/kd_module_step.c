/* The losses and AdamW on plain arrays, and the peak of the machine. */
#include "kd_numpy.h"

#include "kd_adamw.h"
#include "kd_loss.h"

static PyObject *py_distillation_loss(PyObject *module, PyObject *args)
{
    PyObject *student_object, *teacher_object, *labels_object;
    double alpha, temperature;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOOdd:distillation_loss", &student_object, &teacher_object, &labels_object, &alpha,
                          &temperature))
        return NULL;
    PyArrayObject *student = kd_array(student_object, "logits", NPY_FLOAT, 2), *teacher = NULL, *labels = NULL;
    if (!student)
        return NULL;
    npy_intp *shape = PyArray_DIMS(student), B = shape[0], K = shape[1];
    if (teacher_object != Py_None && !(teacher = kd_array(teacher_object, "teacher_logits", NPY_FLOAT, 2)))
        return NULL;
    if (labels_object != Py_None && !(labels = kd_array(labels_object, "labels", NPY_INT64, 1)))
        return NULL;
    if ((teacher && (PyArray_DIM(teacher, 0) != B || PyArray_DIM(teacher, 1) != K)) ||
        (labels && PyArray_DIM(labels, 0) != B) || B < 1 || K < 1) {
        PyErr_SetString(PyExc_ValueError, "logits, teacher_logits and labels differ in shape, or are empty");
        return NULL;
    }
    for (npy_intp b = 0; labels && b < B; b++) {
        int64_t label = ((const int64_t *)PyArray_DATA(labels))[b];
        if (label != KD_LOSS_NO_LABEL && (label < 0 || label >= K)) {
            PyErr_Format(PyExc_ValueError, "labels[%zd] is %lld; expected 0 to %zd, or -100 for a row without a label",
                         (Py_ssize_t)b, (long long)label, (Py_ssize_t)(K - 1));
            return NULL;
        }
    }
    PyObject *hard = PyArray_SimpleNew(1, shape, NPY_DOUBLE), *soft = PyArray_SimpleNew(1, shape, NPY_DOUBLE);
    PyObject *dlogits = PyArray_SimpleNew(2, shape, NPY_FLOAT), *result = NULL;
    if (hard && soft && dlogits) {
        kd_loss_distillation(PyArray_DATA((PyArrayObject *)hard), PyArray_DATA((PyArrayObject *)soft),
                             kd_floats((PyArrayObject *)dlogits), kd_floats(student),
                             teacher ? kd_floats(teacher) : NULL, labels ? PyArray_DATA(labels) : NULL, alpha,
                             temperature, B, K);
        result = PyTuple_Pack(3, hard, soft, dlogits);
    }
    Py_XDECREF(hard);
    Py_XDECREF(soft);
    Py_XDECREF(dlogits);
    return result;
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
                      kd_adamw_constants(lr, beta1, beta2, eps, decay, t)};
    Py_BEGIN_ALLOW_THREADS
    kd_adamw_update(state->gemm.rows, &adamw, team);
    kd_pool_close(team);
    Py_END_ALLOW_THREADS
    return Py_NewRef(Py_None);
}

typedef struct peak_run {
    const kd_rows *rows;
    ptrdiff_t rounds;
    double flops[KD_POOL_MAX_THREADS];
    float results[KD_POOL_MAX_THREADS];
} peak_run;

static void peak_item(void *context, ptrdiff_t item, int member)
{
    peak_run *run = context;
    (void)member;
    run->flops[item] = run->rows->multiply_adds(run->rounds, &run->results[item]);
}

static PyObject *py_multiply_adds(PyObject *module, PyObject *args)
{
    peak_run run = {.rows = ((kd_module_state *)PyModule_GetState(module))->gemm.rows};
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
    {"distillation_loss", py_distillation_loss, METH_VARARGS,
     "distillation_loss(logits, teacher_logits | None, labels | None, alpha, temperature)\n"
     "-> (hard, soft, dlogits)\n\n"
     "float64 (B,) cross-entropy and T^2 KL of each row, and the float32 (B, K) gradient of the mean loss."},
    {"adamw", py_adamw, METH_VARARGS,
     "adamw(p, g, m, v, (lr, beta1, beta2, eps, weight_decay), t, threads)\n\n"
     "The t-th AdamW step on flat arrays, in place. A model's own steps are Bert.adamw_step's."},
    {"multiply_adds", py_multiply_adds, METH_VARARGS,
     "multiply_adds(rounds, threads) -> float\n\n"
     "Does multiply-adds in the registers of that many threads; returns how many floating-point operations."},
    {NULL, NULL, 0, NULL},
};
