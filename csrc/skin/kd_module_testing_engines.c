/* Single engines on plain arrays, for kdistill._core.testing. */
#include "skin/kd_module_testing.h"

#include "model/kd_shared.h"

#include <math.h>
#include <string.h>

static const kd_engine *named_engine(PyObject *module, const char *compute, const char *isa)
{
    const kd_module_state *state = PyModule_GetState(module);
    const kd_engine *engine;
    for (int i = 0; (engine = kd_engine_of(&state->cpu, kd_engine_compute(compute), i)); i++)
        if (strcmp(engine->isa, isa) == 0)
            return engine;
    PyErr_Format(PyExc_ValueError, "no engine here is called %s of %s; expected one of testing.engines()", isa,
                 compute);
    return NULL;
}

/* An operand: that many bytes, where an engine wants them. NULL with an exception. */
static unsigned char *operand_in(PyObject *object, const char *name, ptrdiff_t bytes, int writable)
{
    PyArrayObject *array =
        writable ? kd_array_out(object, name, NPY_UINT8, 1, bytes) : kd_array_in(object, name, NPY_UINT8, 1, bytes);
    if (array && (uintptr_t)PyArray_DATA(array) % KD_ALIGN) {
        PyErr_Format(PyExc_ValueError, "%s does not lie at a multiple of %d bytes", name, KD_ALIGN);
        return NULL;
    }
    return array ? PyArray_DATA(array) : NULL;
}

static PyObject *py_engine_bytes(PyObject *module, PyObject *args)
{
    const char *compute, *isa;
    Py_ssize_t M, N, K;
    if (!PyArg_ParseTuple(args, "ssnnn:engine_bytes", &compute, &isa, &M, &N, &K))
        return NULL;
    const kd_engine *engine = named_engine(module, compute, isa);
    if (!engine)
        return NULL;
    if (M < 1 || N < 1 || K < 1 || M > INT32_MAX || N > INT32_MAX || K > INT32_MAX / N) {
        PyErr_SetString(PyExc_ValueError, "M, N and K must be positive, and sizes of real memory");
        return NULL;
    }
    return Py_BuildValue("nn", (Py_ssize_t)engine->operand_bytes(M, K), (Py_ssize_t)engine->packed_bytes(engine, K, N));
}

static PyObject *py_engine_convert(PyObject *module, PyObject *args)
{
    const char *compute, *isa;
    PyObject *left_object, *a_object;
    if (!PyArg_ParseTuple(args, "ssOO:engine_convert", &compute, &isa, &left_object, &a_object))
        return NULL;
    const kd_engine *engine = named_engine(module, compute, isa);
    PyArrayObject *a = engine ? kd_test_matrix(a_object, "a") : NULL;
    const ptrdiff_t M = a ? PyArray_DIM(a, 0) : 0, K = a ? PyArray_DIM(a, 1) : 0;
    unsigned char *left = a ? operand_in(left_object, "left", engine->operand_bytes(M, K), 1) : NULL;
    if (!left)
        return NULL;
    engine->convert(left, kd_floats(a), K, M, K);
    Py_RETURN_NONE;
}

static PyObject *py_engine_pack(PyObject *module, PyObject *args)
{
    const char *compute, *isa;
    PyObject *right_object, *w_object;
    int transposed;
    if (!PyArg_ParseTuple(args, "ssOOp:engine_pack", &compute, &isa, &right_object, &w_object, &transposed))
        return NULL;
    const kd_engine *engine = named_engine(module, compute, isa);
    PyArrayObject *w = engine ? kd_test_matrix(w_object, "w") : NULL;
    const ptrdiff_t K = w ? PyArray_DIM(w, transposed ? 1 : 0) : 0, N = w ? PyArray_DIM(w, transposed ? 0 : 1) : 0;
    unsigned char *right = w ? operand_in(right_object, "right", engine->packed_bytes(engine, K, N), 1) : NULL;
    if (!right)
        return NULL;
    engine->pack(engine, right, kd_floats(w), PyArray_DIM(w, 1), K, N, transposed);
    Py_RETURN_NONE;
}

static PyObject *py_engine_product(PyObject *module, PyObject *args)
{
    const char *compute, *isa, *activation;
    PyObject *c_object, *left_object, *right_object, *bias, *slope, *next;
    Py_ssize_t K;
    int threads;
    if (!PyArg_ParseTuple(args, "ssOOOnOzOOi:engine_product", &compute, &isa, &c_object, &left_object, &right_object,
                          &K, &bias, &activation, &slope, &next, &threads))
        return NULL;
    const kd_engine *engine = named_engine(module, compute, isa);
    PyArrayObject *c = engine && kd_test_matrix(c_object, "c") ? kd_array_out(c_object, "c", NPY_FLOAT, 2, -1) : NULL;
    if (!c)
        return NULL;
    if (K < 1 || K > INT32_MAX / PyArray_DIM(c, 1)) {
        PyErr_SetString(PyExc_ValueError, "K must be positive, and a size of real memory");
        return NULL;
    }
    const ptrdiff_t M = PyArray_DIM(c, 0), N = PyArray_DIM(c, 1);
    kd_product product = {
        .c = kd_floats(c), .ldc = N, .lda = K, .right_rows = K, .right_columns = N, .M = M, .N = N, .K = K};
    if (!(product.a = operand_in(left_object, "left", engine->operand_bytes(M, K), 0)) ||
        !(product.right = operand_in(right_object, "right", engine->packed_bytes(engine, K, N), 0)) ||
        (next != Py_None && !(product.next = operand_in(next, "next", engine->operand_bytes(M, N), 1))) ||
        kd_test_finish(&product, bias, activation, slope) < 0)
        return NULL;
    if (kd_check_threads(threads) < 0)
        return NULL;
    if (threads > 1 && product.slope) {
        PyErr_Format(PyExc_ValueError, "threads is %d; expected 1 with a slope", threads);
        return NULL;
    }
    kd_team *team = threads > 1 ? kd_open_team(threads) : NULL;
    if (threads > 1 && !team)
        return NULL;
    kd_shared_products(team, engine, &product, 1);
    if (team)
        kd_pool_close(team);
    Py_RETURN_NONE;
}

static PyObject *no_gradients(const char *compute)
{
    return PyErr_Format(PyExc_ValueError, "no gradients are summed in %s; expected bfloat16", compute);
}

static PyObject *py_engine_outer_bytes(PyObject *module, PyObject *args)
{
    const char *compute, *isa;
    Py_ssize_t M, N;
    if (!PyArg_ParseTuple(args, "ssnn:engine_outer_bytes", &compute, &isa, &M, &N))
        return NULL;
    const kd_engine *engine = named_engine(module, compute, isa);
    if (!engine)
        return NULL;
    if (!engine->outer)
        return no_gradients(compute);
    if (M < 1 || N < 1 || M > INT32_MAX || N > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "M and N must be positive, and sizes of real memory");
        return NULL;
    }
    return PyLong_FromSsize_t(engine->outer_bytes(M, N));
}

static PyObject *py_engine_outer(PyObject *module, PyObject *args)
{
    const char *compute, *isa;
    PyObject *c_object, *a_object, *b_object, *scratch_object;
    Py_ssize_t M, N;
    if (!PyArg_ParseTuple(args, "ssOOOnnO:engine_outer", &compute, &isa, &c_object, &a_object, &b_object, &M, &N,
                          &scratch_object))
        return NULL;
    const kd_engine *engine = named_engine(module, compute, isa);
    if (engine && !engine->outer)
        return no_gradients(compute);
    PyArrayObject *c = engine && kd_test_matrix(c_object, "c") ? kd_array_out(c_object, "c", NPY_FLOAT, 2, -1) : NULL;
    PyArrayObject *a = c ? kd_test_matrix(a_object, "a") : NULL, *b = a ? kd_test_matrix(b_object, "b") : NULL;
    if (!b)
        return NULL;
    const ptrdiff_t ldc = PyArray_DIM(c, 1), lda = PyArray_DIM(a, 1), ldb = PyArray_DIM(b, 1), K = PyArray_DIM(a, 0);
    if (M < 1 || N < 1 || M > kd_min(PyArray_DIM(c, 0), lda) || N > kd_min(ldc, ldb) || PyArray_DIM(b, 0) != K) {
        PyErr_SetString(PyExc_ValueError, "c, a and b do not hold (M, N), (K, M) and (K, N)");
        return NULL;
    }
    unsigned char *scratch = operand_in(scratch_object, "scratch", engine->outer_bytes(M, N), 1);
    if (!scratch)
        return NULL;
    engine->outer(kd_floats(c), ldc, kd_floats(a), lda, kd_floats(b), ldb, M, N, K, scratch);
    Py_RETURN_NONE;
}

static PyObject *no_attention(const char *compute, const char *isa)
{
    return PyErr_Format(PyExc_ValueError, "the engine %s of %s computes no attention", isa, compute);
}

static PyObject *py_engine_widen(PyObject *module, PyObject *args)
{
    const char *compute, *isa;
    PyObject *a_object, *operand_object;
    if (!PyArg_ParseTuple(args, "ssOO:engine_widen", &compute, &isa, &a_object, &operand_object))
        return NULL;
    const kd_engine *engine = named_engine(module, compute, isa);
    if (engine && !engine->widen)
        return no_attention(compute, isa);
    PyArrayObject *a = engine && kd_test_matrix(a_object, "a") ? kd_array_out(a_object, "a", NPY_FLOAT, 2, -1) : NULL;
    const ptrdiff_t M = a ? PyArray_DIM(a, 0) : 0, K = a ? PyArray_DIM(a, 1) : 0;
    unsigned char *operand = a ? operand_in(operand_object, "operand", engine->operand_bytes(M, K), 0) : NULL;
    if (!operand)
        return NULL;
    engine->widen(kd_floats(a), K, operand, M, K);
    Py_RETURN_NONE;
}

static PyObject *py_engine_attend(PyObject *module, PyObject *args)
{
    const char *compute, *isa;
    PyObject *ctx, *scores, *q, *k, *v, *scratch;
    Py_ssize_t M, first, n, H, D, from, to;
    if (!PyArg_ParseTuple(args, "ssOOOOOnnnnnnnO:engine_attend", &compute, &isa, &ctx, &scores, &q, &k, &v, &M, &first,
                          &n, &H, &D, &from, &to, &scratch))
        return NULL;
    const kd_engine *engine = named_engine(module, compute, isa);
    if (!engine)
        return NULL;
    if (!engine->attend)
        return no_attention(compute, isa);
    if (n < 1 || H < 1 || D < 1 || M > INT16_MAX || H > INT16_MAX || D > INT16_MAX || first < 0 || first > M - n) {
        PyErr_SetString(PyExc_ValueError, "first, n, heads and their width are no part of m rows of real memory");
        return NULL;
    }
    if (from < 0 || to > H || from >= to) {
        PyErr_SetString(PyExc_ValueError, "from_head and to_head are no part of the heads");
        return NULL;
    }
    const ptrdiff_t bytes = engine->operand_bytes(M, H * D);
    PyArrayObject *S = scores == Py_None ? NULL : kd_array_out(scores, "scores", NPY_FLOAT, 3, H * n * n);
    kd_attend attend = {
        .first = first, .n = n, .H = H, .D = D, .from = from, .to = to, .scale = 1.0f / sqrtf((float)D)};
    if ((scores != Py_None && !S) || !(attend.q = operand_in(q, "q", bytes, 0)) ||
        !(attend.k = operand_in(k, "k", bytes, 0)) || !(attend.v = operand_in(v, "v", bytes, 0)) ||
        !(attend.ctx = operand_in(ctx, "ctx", bytes, 1)) ||
        !(attend.scratch = operand_in(scratch, "scratch", engine->attend_bytes(n, H, D), 1)))
        return NULL;
    attend.scores = S ? kd_floats(S) : NULL;
    engine->attend(&attend);
    Py_RETURN_NONE;
}

static PyObject *py_engine_attend_bytes(PyObject *module, PyObject *args)
{
    const char *compute, *isa;
    Py_ssize_t n, H, D;
    if (!PyArg_ParseTuple(args, "ssnnn:engine_attend_bytes", &compute, &isa, &n, &H, &D))
        return NULL;
    const kd_engine *engine = named_engine(module, compute, isa);
    if (!engine)
        return NULL;
    if (!engine->attend)
        return no_attention(compute, isa);
    if (n < 1 || H < 1 || D < 1 || n > INT16_MAX || H > INT16_MAX || D > INT16_MAX) {
        PyErr_SetString(PyExc_ValueError, "n, heads and their width must be positive, and sizes of real memory");
        return NULL;
    }
    return PyLong_FromSsize_t(engine->attend_bytes(n, H, D));
}

static PyObject *py_engines(PyObject *module, PyObject *unused)
{
    const kd_module_state *state = PyModule_GetState(module);
    PyObject *names = PyList_New(0);
    (void)unused;
    for (int compute = 0; compute < KD_COMPUTES; compute++) {
        const kd_engine *engine;
        for (int i = 0; names && (engine = kd_engine_of(&state->cpu, (kd_compute)compute, i)); i++) {
            PyObject *name = Py_BuildValue("ss", kd_engine_compute_name((kd_compute)compute), engine->isa);
            if (!name || PyList_Append(names, name) < 0)
                Py_CLEAR(names);
            Py_XDECREF(name);
        }
    }
    return names;
}

PyMethodDef kd_test_engine_methods[] = {
    {"engines", py_engines, METH_NOARGS,
     "engines($module, /)\n--\n\n"
     "Return the (compute type, instruction set) of each engine that this CPU can run, the best of a type first."},
    {"engine_bytes", py_engine_bytes, METH_VARARGS,
     "engine_bytes($module, compute, isa, m, n, k, /)\n--\n\n"
     "Return the bytes of a left operand (M, K), and of a packed right operand (K, N)."},
    {"engine_convert", py_engine_convert, METH_VARARGS,
     "engine_convert($module, compute, isa, left, a, /)\n--\n\n"
     "Write a (M, K) to `left`, bytes of a left operand."},
    {"engine_pack", py_engine_pack, METH_VARARGS,
     "engine_pack($module, compute, isa, right, w, transposed, /)\n--\n\n"
     "Write w (K, N), or with `transposed` the transpose of w (N, K), to `right`, bytes of a right operand."},
    {"engine_product", py_engine_product, METH_VARARGS,
     "engine_product($module, compute, isa, c, left, right, k, bias, activation, slope, next, threads, /)\n--\n\n"
     "Add the product of two operands to c (M, N), or write bias + product there unless bias is None. Then apply the\n"
     "activation to c and write its derivative to slope; without an activation, multiply slope by c. Unless `next` is\n"
     "None, write the results there, as a left operand (M, N), and what is of no use to c. With more\n"
     "threads than one these share the columns."},
    {"engine_outer_bytes", py_engine_outer_bytes, METH_VARARGS,
     "engine_outer_bytes($module, compute, isa, m, n, /)\n--\n\n"
     "Return the bytes of scratch for the gradient (M, N) of a weight."},
    {"engine_outer", py_engine_outer, METH_VARARGS,
     "engine_outer($module, compute, isa, c, a, b, m, n, scratch, /)\n--\n\n"
     "Add the transpose of the first m columns of a times the first n of b, over all their rows, to the first m rows\n"
     "and n columns of c."},
    {"engine_widen", py_engine_widen, METH_VARARGS,
     "engine_widen($module, compute, isa, a, operand, /)\n--\n\n"
     "Write the numbers of a left operand (M, K) of bfloat16 to a (M, K)."},
    {"engine_attend_bytes", py_engine_attend_bytes, METH_VARARGS,
     "engine_attend_bytes($module, compute, isa, n, heads, width, /)\n--\n\n"
     "Return the bytes of scratch for the attention of n tokens."},
    {"engine_attend", py_engine_attend, METH_VARARGS,
     "engine_attend($module, compute, isa, ctx, scores, q, k, v, m, first, n, heads, width, from_head, to_head, "
     "scratch, /)\n--\n\n"
     "Write the attention of rows first .. first + n - 1 of q, k and v, left operands (m, heads * width), to ctx, one\n"
     "more, and unless it is None scores (heads, n, n), which the softmax reads. Only heads from_head .. to_head - 1."},
    {NULL, NULL, 0, NULL},
};
