/* Single layers for Python: for tests, which compare each with its formula, and for readers who want to
 * see one at work. Training does not go through here. */
#include "skin/kd_numpy.h"

#include <string.h>

/* A new float32 array, zeroed: (rows, columns), or (rows,) when columns is 0. */
static PyArrayObject *new_floats(ptrdiff_t rows, ptrdiff_t columns)
{
    npy_intp shape[2] = {rows, columns};
    return (PyArrayObject *)PyArray_ZEROS(columns ? 2 : 1, shape, NPY_FLOAT, 0);
}

/* `object` as a float32 array of that shape (columns 0: one dimension), or NULL with an exception. */
static PyArrayObject *floats(PyObject *object, const char *name, ptrdiff_t rows, ptrdiff_t columns)
{
    PyArrayObject *array = kd_array(object, name, NPY_FLOAT, columns ? 2 : 1);
    if (array && (PyArray_DIM(array, 0) != rows || (columns && PyArray_DIM(array, 1) != columns))) {
        PyErr_Format(PyExc_ValueError, "%s has the wrong shape; expected %zd x %zd", name, (Py_ssize_t)rows,
                     (Py_ssize_t)columns);
        return NULL;
    }
    return array;
}

/* Packs up to three results into a tuple and drops the references; NULL if one of them is NULL. */
static PyObject *results(PyArrayObject *a, PyArrayObject *b, PyArrayObject *c, int count)
{
    PyObject *tuple = a && (b || count < 2) && (c || count < 3) ? PyTuple_Pack(count, a, b, c) : NULL;
    Py_XDECREF((PyObject *)a);
    Py_XDECREF((PyObject *)b);
    Py_XDECREF((PyObject *)c);
    if (!tuple && !PyErr_Occurred())
        PyErr_NoMemory();
    return tuple;
}

static const kd_arithmetic *arithmetic_of(PyObject *module)
{
    return &((kd_module_state *)PyModule_GetState(module))->arithmetic;
}

/* c (M, N) += a b for a (M, K), b (K, N); or a^T b for a (K, M), the weight-gradient product. */
static PyObject *py_product(PyObject *module, PyObject *args)
{
    const kd_arithmetic *math = arithmetic_of(module);
    PyObject *a_object, *b_object, *c_object;
    int transposed;
    if (!PyArg_ParseTuple(args, "OOOp:product", &c_object, &a_object, &b_object, &transposed))
        return NULL;
    PyArrayObject *a = kd_array(a_object, "a", NPY_FLOAT, 2), *b = a ? kd_array(b_object, "b", NPY_FLOAT, 2) : NULL;
    if (!b)
        return NULL;
    ptrdiff_t M = PyArray_DIM(a, transposed ? 1 : 0), K = PyArray_DIM(b, 0), N = PyArray_DIM(b, 1);
    if (M < 1 || N < 1 || K < 1) {
        PyErr_SetString(PyExc_ValueError, "an operand is empty");
        return NULL;
    }
    PyArrayObject *c = kd_array_out(c_object, "c", NPY_FLOAT, 2, M * N);
    if (!c || !floats(c_object, "c", M, N) || !floats(a_object, "a", transposed ? K : M, transposed ? M : K))
        return NULL;
    const kd_engine *engine = &math->engine;
    ptrdiff_t bytes = transposed ? kd_outer_scratch(&math->outer, M, N) * (ptrdiff_t)sizeof(float)
                                 : engine->packed_bytes(engine, K, N);
    PyArrayObject *memory = kd_new_bytes((size_t)bytes);
    if (!memory)
        return NULL;
    void *scratch = kd_aligned(memory);
    if (transposed) {
        kd_outer_add(&math->outer, kd_floats(c), N, kd_floats(a), M, kd_floats(b), N, M, N, K, scratch);
    } else {
        engine->pack(engine, scratch, kd_floats(b), N, K, N, 0);
        kd_product product = {.c = kd_floats(c),
                              .ldc = N,
                              .a = kd_floats(a),
                              .lda = K,
                              .right = scratch,
                              .right_rows = K,
                              .M = M,
                              .N = N,
                              .K = K,
                              .accumulate = 1};
        engine->product(&product);
    }
    Py_DECREF(memory);
    Py_RETURN_NONE;
}

/* b (K, N), or its transpose (N, K), as the packed right operand of a product. */
static PyObject *py_pack_right(PyObject *module, PyObject *args)
{
    const kd_arithmetic *math = arithmetic_of(module);
    PyObject *object;
    int transposed;
    if (!PyArg_ParseTuple(args, "Op:pack_right", &object, &transposed))
        return NULL;
    PyArrayObject *b = kd_array(object, "b", NPY_FLOAT, 2);
    if (!b)
        return NULL;
    ptrdiff_t K = PyArray_DIM(b, transposed ? 1 : 0), N = PyArray_DIM(b, transposed ? 0 : 1);
    const kd_engine *engine = &math->engine;
    PyArrayObject *right = new_floats(engine->packed_bytes(engine, K, N) / (ptrdiff_t)sizeof(float), 0);
    if (!right)
        return NULL;
    engine->pack(engine, kd_floats(right), kd_floats(b), transposed ? K : N, K, N, transposed);
    return (PyObject *)right;
}

/* The operands that a product may lack, None or an array: bias, and `other` of what follows. */
static int parse_finish(kd_product *product, PyObject *bias, const char *activation, PyObject *other)
{
    PyArrayObject *array = bias == Py_None ? NULL : floats(bias, "bias", product->N, 0);
    if (bias != Py_None && !array)
        return -1;
    product->bias = array ? kd_floats(array) : NULL;
    product->accumulate = !array;
    array = other == Py_None ? NULL : kd_array_out(other, "other", NPY_FLOAT, 2, product->M * product->N);
    if (other != Py_None && !array)
        return -1;
    product->slope = array ? kd_floats(array) : NULL;
    product->finish = activation ? KD_FINISH_ACTIVATE : array ? KD_FINISH_SCALE_SLOPE : KD_FINISH_NONE;
    return activation ? kd_parse_activation(activation, &product->activation) : 0;
}

/* kd_kernels's product with part of a packed operand, and what follows it. */
static PyObject *py_packed_product(PyObject *module, PyObject *args)
{
    const kd_kernels *kernels = arithmetic_of(module)->kernels;
    PyObject *c_object, *a_object, *right_object, *bias, *other;
    Py_ssize_t height, row, first;
    const char *activation;
    if (!PyArg_ParseTuple(args, "OOOnnnOzO:packed_product", &c_object, &a_object, &right_object, &height, &row, &first,
                          &bias, &activation, &other))
        return NULL;
    PyArrayObject *a = kd_array(a_object, "a", NPY_FLOAT, 2);
    PyArrayObject *c = a ? kd_array_out(c_object, "c", NPY_FLOAT, 2, -1) : NULL;
    PyArrayObject *right = c ? kd_array(right_object, "right", NPY_FLOAT, 1) : NULL;
    ptrdiff_t M = a ? PyArray_DIM(a, 0) : 0, K = a ? PyArray_DIM(a, 1) : 0, N = c ? PyArray_DIM(c, 1) : 0;
    if (!right || !floats(c_object, "c", M, N))
        return NULL;
    ptrdiff_t size = PyArray_SIZE(right), whole = height > 0 ? kernels->panel * height : 1;
    if (size % whole || K < 1 || row < 0 || first < 0 || row + K > height || first + N > size / height) {
        PyErr_SetString(PyExc_ValueError, "right has not these rows and columns");
        return NULL;
    }
    kd_product product = {.c = kd_floats(c),
                          .ldc = N,
                          .a = kd_floats(a),
                          .lda = K,
                          .right = kd_floats(right),
                          .right_rows = height,
                          .first_row = row,
                          .first_column = first,
                          .M = M,
                          .N = N,
                          .K = K};
    if (parse_finish(&product, bias, activation, other) < 0)
        return NULL;
    kernels->product(&product);
    Py_RETURN_NONE;
}

/* c (M, N) = start (M) + a b^T for a (M, K), b (N, K). */
static PyObject *py_dots(PyObject *module, PyObject *args)
{
    PyObject *c_object, *start_object, *a_object, *b_object;
    if (!PyArg_ParseTuple(args, "OOOO:dots", &c_object, &start_object, &a_object, &b_object))
        return NULL;
    PyArrayObject *a = kd_array(a_object, "a", NPY_FLOAT, 2), *b = a ? kd_array(b_object, "b", NPY_FLOAT, 2) : NULL;
    ptrdiff_t M = a ? PyArray_DIM(a, 0) : 0, K = a ? PyArray_DIM(a, 1) : 0, N = b ? PyArray_DIM(b, 0) : 0;
    PyArrayObject *start = b && floats(b_object, "b", N, K) ? floats(start_object, "start", M, 0) : NULL;
    PyArrayObject *c = start ? kd_array_out(c_object, "c", NPY_FLOAT, 2, M * N) : NULL;
    if (!c)
        return NULL;
    arithmetic_of(module)->kernels->dots(kd_floats(c), N, kd_floats(start), kd_floats(a), kd_floats(b), M, N, K);
    Py_RETURN_NONE;
}

static PyObject *py_add_scaled(PyObject *module, PyObject *args)
{
    PyObject *y_object, *x_object;
    float scale;
    if (!PyArg_ParseTuple(args, "OOf:add_scaled", &y_object, &x_object, &scale))
        return NULL;
    PyArrayObject *x = kd_array(x_object, "x", NPY_FLOAT, 1);
    PyArrayObject *y = x ? kd_array_out(y_object, "y", NPY_FLOAT, 1, PyArray_SIZE(x)) : NULL;
    if (!y)
        return NULL;
    arithmetic_of(module)->kernels->add_scaled(kd_floats(y), kd_floats(x), scale, PyArray_SIZE(x));
    Py_RETURN_NONE;
}

static PyObject *py_norm_forward(PyObject *module, PyObject *args)
{
    PyObject *x_object, *gamma_object, *beta_object;
    float eps;
    if (!PyArg_ParseTuple(args, "OOOf:norm_forward", &x_object, &gamma_object, &beta_object, &eps))
        return NULL;
    PyArrayObject *x = kd_array(x_object, "x", NPY_FLOAT, 2);
    ptrdiff_t M = x ? PyArray_DIM(x, 0) : 0, C = x ? PyArray_DIM(x, 1) : 0;
    PyArrayObject *gamma = x ? floats(gamma_object, "gamma", C, 0) : NULL;
    PyArrayObject *beta = gamma ? floats(beta_object, "beta", C, 0) : NULL;
    PyArrayObject *y = beta ? new_floats(M, C) : NULL, *stats = y ? new_floats(M, 2) : NULL;
    if (stats) {
        kd_norm norm = {kd_floats(gamma), kd_floats(beta), C, eps};
        kd_norm_forward(arithmetic_of(module)->kernels, kd_floats(y), kd_floats(stats), kd_floats(x), NULL, &norm, M);
    }
    return results(y, stats, NULL, 2);
}

static PyObject *py_norm_backward(PyObject *module, PyObject *args)
{
    PyObject *dy_object, *x_object, *stats_object, *gamma_object;
    if (!PyArg_ParseTuple(args, "OOOO:norm_backward", &dy_object, &x_object, &stats_object, &gamma_object))
        return NULL;
    PyArrayObject *x = kd_array(x_object, "x", NPY_FLOAT, 2);
    ptrdiff_t M = x ? PyArray_DIM(x, 0) : 0, C = x ? PyArray_DIM(x, 1) : 0;
    PyArrayObject *dy = x ? floats(dy_object, "dy", M, C) : NULL;
    PyArrayObject *stats = dy ? floats(stats_object, "stats", M, 2) : NULL;
    PyArrayObject *gamma = stats ? floats(gamma_object, "gamma", C, 0) : NULL;
    PyArrayObject *dx = gamma ? new_floats(M, C) : NULL, *dgamma = dx ? new_floats(C, 0) : NULL;
    PyArrayObject *dbeta = dgamma ? new_floats(C, 0) : NULL;
    if (dbeta) {
        kd_norm norm = {kd_floats(gamma), NULL, C, 0};
        kd_norm_backward(arithmetic_of(module)->kernels, kd_floats(dx), kd_floats(dgamma), kd_floats(dbeta),
                         kd_floats(dy), kd_floats(x), kd_floats(stats), &norm, M);
    }
    return results(dx, dgamma, dbeta, 3);
}

static PyObject *py_activation(PyObject *module, PyObject *args)
{
    PyObject *x_object, *dy_object;
    const char *name;
    kd_activation activation;
    if (!PyArg_ParseTuple(args, "OOs:activation", &x_object, &dy_object, &name) ||
        kd_parse_activation(name, &activation) < 0)
        return NULL;
    PyArrayObject *x = kd_array(x_object, "x", NPY_FLOAT, 1);
    ptrdiff_t n = x ? PyArray_SIZE(x) : 0;
    PyArrayObject *dy = x ? floats(dy_object, "dy", n, 0) : NULL;
    PyArrayObject *y = dy ? new_floats(n, 0) : NULL, *dx = y ? new_floats(n, 0) : NULL;
    if (dx) {
        memcpy(kd_floats(y), kd_floats(x), (size_t)PyArray_NBYTES(x));
        arithmetic_of(module)->kernels->activate(kd_floats(y), kd_floats(dx), 1, n, n, activation);
        arithmetic_of(module)->kernels->multiply(kd_floats(dx), kd_floats(dy), 1, n, n);
    }
    return results(y, dx, NULL, 2);
}

/* Dropout rate and position, as the layers take them. */
typedef struct position {
    kd_dropout dropout;
    float p;
    int tensor;
} position;

static int parse_position(PyObject *tuple, position *at)
{
    unsigned long long seed;
    unsigned int step, place;
    if (!PyArg_ParseTuple(tuple, "fKIiI:dropout", &at->p, &seed, &step, &at->tensor, &place))
        return -1;
    at->dropout = (kd_dropout){seed, step, place, 1};
    return 0;
}

static PyObject *py_dropout(PyObject *module, PyObject *args)
{
    PyObject *x_object, *tuple;
    position at;
    if (!PyArg_ParseTuple(args, "OO!:dropout", &x_object, &PyTuple_Type, &tuple) || parse_position(tuple, &at) < 0)
        return NULL;
    PyArrayObject *x = kd_array(x_object, "x", NPY_FLOAT, 2);
    PyArrayObject *y = x ? new_floats(PyArray_DIM(x, 0), PyArray_DIM(x, 1)) : NULL;
    if (!y)
        return NULL;
    kd_dropout_rows(arithmetic_of(module)->kernels, kd_floats(y), kd_floats(x), &at.dropout, at.tensor, 0,
                    PyArray_DIM(x, 0), PyArray_DIM(x, 1), at.p);
    return (PyObject *)y;
}

/* The operands of attention on one sequence. */
typedef struct operands {
    PyArrayObject *q, *k, *v, *scratch;
    kd_attention attention;
    position at;
    ptrdiff_t n, C;
} operands;

static int parse_attention(PyObject *q, PyObject *k, PyObject *v, Py_ssize_t heads, Py_ssize_t features,
                           PyObject *dropout, operands *o)
{
    if (parse_position(dropout, &o->at) < 0 || !(o->q = kd_array(q, "q", NPY_FLOAT, 2)))
        return -1;
    o->n = PyArray_DIM(o->q, 0);
    o->C = PyArray_DIM(o->q, 1);
    if (!(o->k = floats(k, "k", o->n, o->C)) || !(o->v = floats(v, "v", o->n, o->C)))
        return -1;
    if (heads < 1 || o->C % heads || features % KD_RANDOM_BLOCK) {
        PyErr_SetString(PyExc_ValueError, "heads must divide the width, and 64 the number of features");
        return -1;
    }
    o->attention = (kd_attention){heads, o->C / heads, &o->at.dropout, o->at.tensor, features, o->at.p};
    o->scratch = kd_new_bytes((size_t)kd_attention_scratch(&o->attention, o->n) * sizeof(float));
    return o->scratch ? 0 : -1;
}

static PyObject *py_attention_forward(PyObject *module, PyObject *args)
{
    PyObject *q, *k, *v, *dropout;
    Py_ssize_t heads, features;
    operands o;
    if (!PyArg_ParseTuple(args, "OOOnnO!:attention_forward", &q, &k, &v, &heads, &features, &PyTuple_Type, &dropout) ||
        parse_attention(q, k, v, heads, features, dropout, &o) < 0)
        return NULL;
    PyArrayObject *ctx = new_floats(o.n, o.C), *lse = ctx ? new_floats(o.n, heads) : NULL;
    if (lse)
        kd_attention_forward(arithmetic_of(module)->kernels, kd_floats(ctx), kd_floats(lse), kd_floats(o.q),
                             kd_floats(o.k), kd_floats(o.v), &o.attention, 0, o.n, kd_aligned(o.scratch));
    Py_DECREF(o.scratch);
    return results(ctx, lse, NULL, 2);
}

static PyArrayObject *copy_of(PyArrayObject *array)
{
    PyArrayObject *copy = new_floats(PyArray_DIM(array, 0), PyArray_DIM(array, 1));
    if (copy)
        memcpy(kd_floats(copy), kd_floats(array), (size_t)PyArray_NBYTES(array));
    return copy;
}

static PyObject *py_attention_backward(PyObject *module, PyObject *args)
{
    PyObject *dctx_object, *ctx_object, *lse_object, *q, *k, *v, *dropout;
    Py_ssize_t heads, features;
    operands o;
    if (!PyArg_ParseTuple(args, "OOOOOOnnO!:attention_backward", &dctx_object, &ctx_object, &lse_object, &q, &k, &v,
                          &heads, &features, &PyTuple_Type, &dropout) ||
        parse_attention(q, k, v, heads, features, dropout, &o) < 0)
        return NULL;
    PyArrayObject *dctx = floats(dctx_object, "dctx", o.n, o.C), *ctx = floats(ctx_object, "ctx", o.n, o.C);
    PyArrayObject *lse = floats(lse_object, "lse", o.n, heads), *dq = NULL, *dk = NULL, *dv = NULL;
    if (dctx && ctx && lse) {
        dq = copy_of(o.q);
        dk = copy_of(o.k);
        dv = copy_of(o.v);
    }
    if (dq && dk && dv)
        kd_attention_backward(arithmetic_of(module)->kernels, kd_floats(dq), kd_floats(dk), kd_floats(dv),
                              kd_floats(dctx), kd_floats(ctx), kd_floats(lse), &o.attention, 0, o.n,
                              kd_aligned(o.scratch));
    Py_DECREF(o.scratch);
    return results(dq, dk, dv, 3);
}

static PyObject *py_random_bits(PyObject *module, PyObject *args)
{
    kd_random_row row;
    unsigned long long seed;
    unsigned int block;
    npy_intp size = KD_RANDOM_BLOCK;
    if (!PyArg_ParseTuple(args, "KIIII:random_bits", &seed, &row.step, &row.tensor, &row.place, &block))
        return NULL;
    row.seed = seed;
    PyObject *bits = PyArray_SimpleNew(1, &size, NPY_UINT16);
    if (bits)
        arithmetic_of(module)->kernels->random_bits(PyArray_DATA((PyArrayObject *)bits), &row, block);
    return bits;
}

PyMethodDef kd_layer_methods[] = {
    {"product", py_product, METH_VARARGS,
     "product($module, c, a, b, transposed, /)\n--\n\nc += a b, or a^T b, through the packed product the layers use."},
    {"pack_right", py_pack_right, METH_VARARGS,
     "pack_right($module, b, transposed, /)\n--\n\nb, or b^T, in the panels packed_product reads."},
    {"packed_product", py_packed_product, METH_VARARGS,
     "packed_product($module, c, a, right, rows, row, first, bias, activation, other, /)\n--\n\n"
     "c += a b, or bias + a b, for K rows from `row` and N columns from `first` of a packed operand of `rows` rows; "
     "then c = act(c) and other = act'(c), or without an activation other *= c."},
    {"dots", py_dots, METH_VARARGS, "dots($module, c, start, a, b, /)\n--\n\nc = start + a b^T."},
    {"add_scaled", py_add_scaled, METH_VARARGS, "add_scaled($module, y, x, scale, /)\n--\n\ny += scale * x."},
    {"norm_forward", py_norm_forward, METH_VARARGS,
     "norm_forward($module, x, gamma, beta, eps, /)\n--\n\nLayerNorm: (y, stats)."},
    {"norm_backward", py_norm_backward, METH_VARARGS,
     "norm_backward($module, dy, x, stats, gamma, /)\n--\n\nReturns (dx, dgamma, dbeta)."},
    {"activation", py_activation, METH_VARARGS,
     "activation($module, x, dy, name, /)\n--\n\ngelu, gelu_new or relu of (n,) values, and its backward pass: (y, "
     "dx)."},
    {"dropout", py_dropout, METH_VARARGS,
     "dropout($module, x, dropout, /)\n--\n\n"
     "x (M, n): the rows of tokens place .. place + M - 1. dropout is (p, seed, step, tensor, place)."},
    {"attention_forward", py_attention_forward, METH_VARARGS,
     "attention_forward($module, q, k, v, heads, features, dropout, /)\n--\n\n"
     "One sequence: (ctx, lse) of q, k and v (n, C). dropout is (p, seed, step, tensor, place of the first token)."},
    {"attention_backward", py_attention_backward, METH_VARARGS,
     "attention_backward($module, dctx, ctx, lse, q, k, v, heads, features, dropout, /)\n--\n\nReturns (dq, dk, dv)."},
    {"random_bits", py_random_bits, METH_VARARGS,
     "random_bits($module, seed, step, tensor, place, block, /)\n--\n\nThe 16 bits dropout uses for each of 64 "
     "features."},
    {NULL, NULL, 0, NULL},
};
