/* Packed batches for Python: from lists of token ids, and from rows of a packed data set. */
#include "skin/kd_numpy.h"

#include "layers/kd_embed.h"

/* Returns starts (B + 1) of a batch of the rows at `index` (B), or NULL with an exception when a row does not exist; what
 * was a row's index becomes the place of its first token. The data set was checked when it was made; here only what could
 * make C read outside of it is checked again. Each element is read once, since other threads may write to it. */
static PyArrayObject *batch_starts(PyArrayObject *all, int64_t *index, npy_intp B, ptrdiff_t tokens)
{
    const volatile int64_t *from = PyArray_DATA(all);
    const npy_intp count = PyArray_SIZE(all) - 1, size = B + 1;
    PyArrayObject *starts = (PyArrayObject *)PyArray_SimpleNew(1, &size, NPY_INT64);
    int64_t *to = starts ? PyArray_DATA(starts) : NULL;
    if (!starts)
        return NULL;
    to[0] = 0;
    for (npy_intp b = 0; b < B; b++) {
        if (index[b] < 0 || index[b] >= count) {
            PyErr_Format(PyExc_IndexError, "indices[%zd] is %lld; the data set has %zd rows", (Py_ssize_t)b,
                         (long long)index[b], (Py_ssize_t)count);
            Py_DECREF(starts);
            return NULL;
        }
        int64_t first = from[index[b]], last = from[index[b] + 1];
        if (first < 0 || last < first || last > tokens) {
            PyErr_Format(PyExc_ValueError, "starts[%lld] is %lld and the next %lld; there are %zd tokens",
                         (long long)index[b], (long long)first, (long long)last, (Py_ssize_t)tokens);
            Py_DECREF(starts);
            return NULL;
        }
        if (__builtin_add_overflow(to[b], last - first, &to[b + 1]) ||
            to[b + 1] > (int64_t)(PTRDIFF_MAX / sizeof *to)) {
            PyErr_SetString(PyExc_MemoryError, "the batch has more tokens than any memory");
            Py_DECREF(starts);
            return NULL;
        }
        index[b] = first;
    }
    return starts;
}

static PyObject *py_take_rows(PyObject *module, PyObject *args)
{
    PyObject *ids_object, *types_object, *starts_object, *rows_object;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOOO:take_rows", &ids_object, &types_object, &starts_object, &rows_object))
        return NULL;
    PyArrayObject *ids = kd_array(ids_object, "ids", NPY_INT32, 1);
    PyArrayObject *types = ids ? kd_array(types_object, "types", NPY_INT32, 1) : NULL;
    PyArrayObject *starts = types ? kd_array(starts_object, "starts", NPY_INT64, 1) : NULL;
    if (starts && PyArray_SIZE(types) != PyArray_SIZE(ids)) {
        PyErr_Format(PyExc_ValueError, "types has %zd elements; ids has %zd", (Py_ssize_t)PyArray_SIZE(types),
                     (Py_ssize_t)PyArray_SIZE(ids));
        return NULL;
    }
    PyArrayObject *rows = starts ? kd_array_copy(rows_object, "indices", NPY_INT64, 1) : NULL;
    const ptrdiff_t B = rows ? PyArray_SIZE(rows) : 0;
    PyArrayObject *batch = rows ? batch_starts(starts, PyArray_DATA(rows), B, PyArray_SIZE(ids)) : NULL;
    if (!batch) {
        Py_XDECREF((PyObject *)rows);
        return NULL;
    }
    npy_intp N = (npy_intp)((const int64_t *)PyArray_DATA(batch))[B];
    PyObject *batch_ids = PyArray_SimpleNew(1, &N, NPY_INT32), *batch_types = PyArray_SimpleNew(1, &N, NPY_INT32);
    PyObject *result = batch_ids && batch_types ? PyTuple_Pack(3, batch_ids, batch_types, batch) : NULL;
    if (result) {
        kd_batch_take(PyArray_DATA((PyArrayObject *)batch_ids), PyArray_DATA((PyArrayObject *)batch_types),
                      PyArray_DATA(batch), PyArray_DATA(ids), PyArray_DATA(types), PyArray_DATA(rows), B);
    }
    Py_XDECREF(batch_ids);
    Py_XDECREF(batch_types);
    Py_DECREF((PyObject *)batch);
    Py_DECREF((PyObject *)rows);
    return result;
}

/* Returns the number of tokens in a list of lists, or -1 if `rows` is anything else or a row is empty. */
static ptrdiff_t count_tokens(PyObject *rows)
{
    ptrdiff_t tokens = 0;
    if (!PyList_CheckExact(rows) || PyList_Size(rows) == 0)
        return -1;
    for (Py_ssize_t b = 0; b < PyList_Size(rows); b++) {
        PyObject *row = PyList_GetItem(rows, b);
        if (!PyList_CheckExact(row) || PyList_Size(row) == 0)
            return -1;
        tokens += PyList_Size(row);
    }
    return tokens;
}

/* Writes the ids and the starts of the rows. Returns -1, without an exception, unless all ids are 32-bit integers. */
static int flatten(PyObject *rows, int32_t *ids, int64_t *starts)
{
    ptrdiff_t t = 0;
    starts[0] = 0;
    for (Py_ssize_t b = 0; b < PyList_Size(rows); b++) {
        PyObject *row = PyList_GetItem(rows, b);
        for (Py_ssize_t i = 0; i < PyList_Size(row); i++) {
            PyObject *id = PyList_GetItem(row, i);
            int overflow = 1;
            long long value = PyLong_CheckExact(id) ? PyLong_AsLongLongAndOverflow(id, &overflow) : 0;
            if (overflow || value < INT32_MIN || value > INT32_MAX)
                return -1;
            ids[t++] = (int32_t)value;
        }
        starts[b + 1] = t;
    }
    return 0;
}

/* No Python code runs while the lists are read, so they stay as they were counted. */
static PyObject *py_pack_lists(PyObject *module, PyObject *rows)
{
    const npy_intp N = (npy_intp)count_tokens(rows), size = N < 0 ? 0 : (npy_intp)PyList_Size(rows) + 1;
    (void)module;
    if (N < 0)
        return Py_NewRef(Py_None);
    PyObject *ids = PyArray_SimpleNew(1, &N, NPY_INT32), *types = PyArray_ZEROS(1, &N, NPY_INT32, 0);
    PyObject *starts = PyArray_SimpleNew(1, &size, NPY_INT64);
    PyObject *result = NULL;
    if (ids && types && starts)
        result = flatten(rows, PyArray_DATA((PyArrayObject *)ids), PyArray_DATA((PyArrayObject *)starts)) < 0
                     ? Py_NewRef(Py_None)
                     : PyTuple_Pack(3, ids, types, starts);
    Py_XDECREF(ids);
    Py_XDECREF(types);
    Py_XDECREF(starts);
    return result;
}

PyMethodDef kd_batch_methods[] = {
    {"pack_lists", py_pack_lists, METH_O,
     "pack_lists($module, rows, /)\n--\n\n"
     "Return a packed batch (ids, types, starts) of a list of lists of token ids, with all types 0. Return None for\n"
     "anything else, which `data.pack` converts or refuses."},
    {"take_rows", py_take_rows, METH_VARARGS,
     "take_rows($module, ids, types, starts, indices, /)\n--\n\n"
     "Return a packed batch (ids, types, starts) of the rows at `indices`, int64 (B,), of a packed data set."},
    {NULL, NULL, 0, NULL},
};
