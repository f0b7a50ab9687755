#include "skin/kd_numpy.h"

#include <string.h>

PyArrayObject *kd_array(PyObject *object, const char *argument, int type, int ndim)
{
    static const char *const names[] = {[NPY_BYTE] = "int8",
                                        [NPY_INT] = "int32",
                                        [NPY_LONG] = "int64",
                                        [NPY_FLOAT] = "float32",
                                        [NPY_DOUBLE] = "float64"};
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be a NumPy array of %s, not %R", argument, names[type],
                     (PyObject *)Py_TYPE(object));
        return NULL;
    }
    PyArrayObject *array = (PyArrayObject *)object;
    if (PyArray_TYPE(array) != type && !PyArray_EquivTypenums(PyArray_TYPE(array), type)) { /* int64 has two numbers */
        PyErr_Format(PyExc_TypeError, "%s must be an array of %s, not of %S", argument, names[type],
                     (PyObject *)PyArray_DESCR(array));
        return NULL;
    }
    if (PyArray_NDIM(array) != ndim) {
        PyErr_Format(PyExc_ValueError, "%s must be a C-contiguous array with %d dimension(s); it has %d", argument,
                     ndim, PyArray_NDIM(array));
        return NULL;
    }
    if (!PyArray_ISCARRAY_RO(array)) {
        PyErr_Format(PyExc_ValueError,
                     "%s is not C-contiguous, aligned and in the byte order of this machine; give "
                     "np.require(%s, np.%s, 'CA')",
                     argument, argument, names[type]);
        return NULL;
    }
    return array;
}

PyArrayObject *kd_array_in(PyObject *object, const char *argument, int type, int ndim, ptrdiff_t size)
{
    PyArrayObject *array = kd_array(object, argument, type, ndim);
    if (!array)
        return NULL;
    if (size >= 0 && PyArray_SIZE(array) != size) {
        PyErr_Format(PyExc_ValueError, "%s has %zd elements; expected %zd", argument, (Py_ssize_t)PyArray_SIZE(array),
                     (Py_ssize_t)size);
        return NULL;
    }
    return array;
}

PyArrayObject *kd_array_out(PyObject *object, const char *argument, int type, int ndim, ptrdiff_t size)
{
    PyArrayObject *array = kd_array_in(object, argument, type, ndim, size);
    if (array && !PyArray_ISWRITEABLE(array)) {
        PyErr_Format(PyExc_ValueError, "%s is read-only; it is written to here", argument);
        return NULL;
    }
    return array;
}

PyArrayObject *kd_array_copy(PyObject *object, const char *argument, int type, int ndim)
{
    PyArrayObject *array = kd_array(object, argument, type, ndim);
    PyObject *copy = array ? PyArray_SimpleNew(ndim, PyArray_DIMS(array), type) : NULL;
    if (copy)
        memcpy(PyArray_DATA((PyArrayObject *)copy), PyArray_DATA(array), (size_t)PyArray_NBYTES(array));
    return (PyArrayObject *)copy;
}

PyObject *kd_rows_named(const ptrdiff_t *rows, ptrdiff_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple && i < count; i++) {
        PyObject *row = PyLong_FromSsize_t(rows[i]);
        if (!row || PyTuple_SetItem(tuple, i, row) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

PyArrayObject *kd_new_bytes(size_t bytes)
{
    npy_intp size = (npy_intp)(bytes + KD_ALIGN);
    return (PyArrayObject *)PyArray_SimpleNew(1, &size, NPY_BYTE);
}

void *kd_aligned(PyArrayObject *bytes)
{
    uintptr_t address = (uintptr_t)PyArray_DATA(bytes);
    return (void *)((address + KD_ALIGN - 1) / KD_ALIGN * KD_ALIGN);
}

/* The names of transformers (ACT2FN), several for one function where it has several implementations. */
static const struct {
    const char *name;
    kd_activation activation;
} activations[] = {
    {"gelu", KD_GELU},
    {"gelu_python", KD_GELU},
    {"gelu_new", KD_GELU_NEW},
    {"gelu_fast", KD_GELU_NEW},
    {"gelu_pytorch_tanh", KD_GELU_NEW},
    {"gelu_python_tanh", KD_GELU_NEW},
    {"gelu_accurate", KD_GELU_NEW},
    {"quick_gelu", KD_QUICK_GELU},
    {"relu", KD_RELU},
    {"silu", KD_SILU},
    {"swish", KD_SILU},
    {"tanh", KD_TANH},
};
enum { ACTIVATIONS = sizeof activations / sizeof *activations };

PyObject *kd_activation_names(void)
{
    PyObject *names = PyTuple_New(ACTIVATIONS);
    for (int i = 0; names && i < ACTIVATIONS; i++) {
        PyObject *name = PyUnicode_FromString(activations[i].name);
        if (!name || PyTuple_SetItem(names, i, name) < 0)
            Py_CLEAR(names);
    }
    return names;
}

int kd_parse_activation(const char *name, kd_activation *activation)
{
    for (int i = 0; i < ACTIVATIONS; i++)
        if (strcmp(name, activations[i].name) == 0) {
            *activation = activations[i].activation;
            return 0;
        }
    PyObject *names = kd_activation_names(), *comma = names ? PyUnicode_FromString(", ") : NULL;
    PyObject *list = comma ? PyUnicode_Join(comma, names) : NULL;
    if (list)
        PyErr_Format(PyExc_ValueError, "activation is '%s'; expected one of %S", name, list);
    Py_XDECREF(list);
    Py_XDECREF(comma);
    Py_XDECREF(names);
    return -1;
}

int kd_check_threads(int threads)
{
    if (threads >= 1 && threads <= KD_POOL_MAX_THREADS)
        return 0;
    PyErr_Format(PyExc_ValueError, "threads is %d; expected 1 to %d", threads, KD_POOL_MAX_THREADS);
    return -1;
}

int kd_check_starts(const int64_t *starts, npy_intp rows, npy_intp total, const char *part, const char *row)
{
    if (rows < 1 || starts[0] != 0 || starts[rows] != total) {
        PyErr_Format(PyExc_ValueError, "starts must run from 0 to %zd, the number of %ss, and have a %s between",
                     (Py_ssize_t)total, part, row);
        return -1;
    }
    for (npy_intp b = 0; b < rows; b++)
        if (starts[b + 1] <= starts[b] || starts[b + 1] > total) {
            PyErr_Format(PyExc_ValueError, "starts[%zd] is %lld and the next %lld; expected at least one %s a %s",
                         (Py_ssize_t)b, (long long)starts[b], (long long)starts[b + 1], part, row);
            return -1;
        }
    return 0;
}

kd_team *kd_open_team(int threads)
{
    kd_team *team = NULL;
    kd_status status = kd_pool_open(&team, threads);
    if (status == KD_NO_MEMORY)
        return PyErr_NoMemory(), NULL;
    if (status != KD_OK)
        PyErr_Format(PyExc_RuntimeError,
                     "cannot start %d threads: the operating system refused one; use fewer "
                     "(kdistill.set_num_threads, --threads or KDISTILL_NUM_THREADS)",
                     threads);
    return team;
}
