#include "skin/kd_module_taps.h"

#include <string.h>

static const char *const KINDS[] = {[KD_TAP_HIDDEN] = "hidden",
                                    [KD_TAP_QUERY] = "query",
                                    [KD_TAP_KEY] = "key",
                                    [KD_TAP_VALUE] = "value",
                                    [KD_TAP_SCORES] = "scores"};

static int parse_tap(PyObject *key, const kd_encoder_config *encoder, kd_tap *tap)
{
    const char *kind;
    Py_ssize_t layer;
    if (!PyTuple_Check(key)) {
        PyErr_Format(PyExc_TypeError, "a tap is a pair such as ('hidden', 2), not %R", key);
        return -1;
    }
    if (!PyArg_ParseTuple(key, "sn:tap", &kind, &layer))
        return -1;
    *tap = (kd_tap){.layer = layer};
    while (tap->kind < KD_TAP_KINDS && strcmp(kind, KINDS[tap->kind]) != 0)
        tap->kind++;
    if (tap->kind == KD_TAP_KINDS) {
        PyErr_Format(PyExc_ValueError, "a tap's kind is '%s'; expected hidden, query, key, value or scores", kind);
        return -1;
    }
    const ptrdiff_t last = encoder->L - (tap->kind != KD_TAP_HIDDEN);
    if (layer < 0 || layer > last) {
        PyErr_Format(PyExc_ValueError, "tap ('%s', %zd) does not exist; its layer can be 0 to %zd", kind, layer,
                     (Py_ssize_t)last);
        return -1;
    }
    return 0;
}

/* Makes the array of one tap, and puts it into the dict. */
static int add_array(kd_asked_taps *asked, PyObject *key, const kd_encoder_config *encoder, const kd_batch *batch,
                     kd_tap *tap)
{
    const ptrdiff_t width = kd_tap_width(tap, encoder);
    npy_intp shape[2] = {width ? batch->N : kd_tap_size(tap, encoder, batch), width};
    if (PyDict_GetItemWithError(asked->arrays, key)) {
        PyErr_Format(PyExc_ValueError, "tap %R is asked for twice", key);
        return -1;
    }
    PyObject *array = PyErr_Occurred() ? NULL : PyArray_SimpleNew(width ? 2 : 1, shape, NPY_FLOAT);
    if (!array)
        return -1;
    tap->out = kd_floats((PyArrayObject *)array);
    const int failed = PyDict_SetItem(asked->arrays, key, array) < 0;
    Py_DECREF(array);
    return failed ? -1 : 0;
}

void kd_drop_taps(kd_asked_taps *asked)
{
    PyMem_Free(asked->taps.list);
    Py_CLEAR(asked->arrays);
}

int kd_ask_taps(PyObject *sequence, const kd_encoder_config *encoder, const kd_batch *batch, kd_asked_taps *asked)
{
    *asked = (kd_asked_taps){{NULL, 0}, NULL};
    PyObject *keys = PySequence_Tuple(sequence);
    const Py_ssize_t count = keys ? PyTuple_Size(keys) : 0;
    int failed = !keys;
    if (keys && count > 0) {
        asked->taps.list = PyMem_Calloc((size_t)count, sizeof *asked->taps.list);
        asked->arrays = PyDict_New();
        failed = !asked->taps.list || !asked->arrays;
        if (!asked->taps.list)
            PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; !failed && i < count; i++) {
        kd_tap *tap = &asked->taps.list[asked->taps.count++];
        PyObject *key = PyTuple_GetItem(keys, i);
        failed = parse_tap(key, encoder, tap) < 0 || add_array(asked, key, encoder, batch, tap) < 0;
    }
    Py_XDECREF(keys);
    if (failed)
        kd_drop_taps(asked);
    return failed ? -1 : 0;
}

/* The run's tap of that key, or NULL with an exception. */
static kd_tap *tap_of(PyObject *key, kd_run *run)
{
    kd_taps *taps = &run->pass.taps;
    kd_tap wanted;
    if (parse_tap(key, &run->model->encoder, &wanted) < 0)
        return NULL;
    for (ptrdiff_t i = 0; i < taps->count; i++)
        if (taps->list[i].kind == wanted.kind && taps->list[i].layer == wanted.layer)
            return &taps->list[i];
    PyErr_Format(PyExc_ValueError, "gradients has %R, which was no tap of the forward pass", key);
    return NULL;
}

/* Copies the gradient of one tap, and lets `copies` hold the copy. */
static int take_gradient(PyObject *key, PyObject *value, kd_run *run, PyObject *copies)
{
    kd_tap *tap = tap_of(key, run);
    if (!tap)
        return -1;
    const ptrdiff_t width = kd_tap_width(tap, &run->model->encoder);
    const ptrdiff_t size = kd_tap_size(tap, &run->model->encoder, &run->pass.batch);
    PyArrayObject *array = kd_array_copy(value, "a tap's gradient", NPY_FLOAT, width ? 2 : 1);
    if (!array)
        return -1;
    int failed = PyList_Append(copies, (PyObject *)array) < 0;
    if (!failed && (PyArray_SIZE(array) != size || (width && PyArray_DIM(array, 1) != width))) {
        PyErr_Format(PyExc_ValueError, "the gradient of %R has another shape than the tap", key);
        failed = 1;
    }
    tap->gradient = kd_floats(array);
    Py_DECREF(array);
    return failed ? -1 : 0;
}

PyObject *kd_take_tap_gradients(PyObject *gradients, kd_run *run)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    for (ptrdiff_t i = 0; i < run->pass.taps.count; i++)
        run->pass.taps.list[i].gradient = NULL;
    if (gradients != Py_None && !PyDict_Check(gradients)) {
        PyErr_Format(PyExc_TypeError, "gradients must be a dict or None, not %R", (PyObject *)Py_TYPE(gradients));
        return NULL;
    }
    PyObject *copies = PyList_New(0), *given = gradients == Py_None ? PyDict_New() : PyDict_Copy(gradients);
    int failed = !copies || !given;
    while (!failed && PyDict_Next(given, &position, &key, &value))
        failed = take_gradient(key, value, run, copies) < 0;
    Py_XDECREF(given);
    if (failed)
        Py_CLEAR(copies);
    return copies;
}
