/* Single layers on plain arrays, for kdistill._core.testing. */
#include "skin/kd_module_testing.h"

#include "layers/kd_relative.h"

#include <string.h>

static PyObject *py_norm_forward(PyObject *module, PyObject *args)
{
    PyObject *x_object, *gamma_object, *beta_object;
    float eps;
    if (!PyArg_ParseTuple(args, "OOOf:norm_forward", &x_object, &gamma_object, &beta_object, &eps))
        return NULL;
    PyArrayObject *x = kd_test_matrix(x_object, "x");
    ptrdiff_t M = x ? PyArray_DIM(x, 0) : 0, C = x ? PyArray_DIM(x, 1) : 0;
    PyArrayObject *gamma = x ? kd_test_floats(gamma_object, "gamma", C, 0) : NULL;
    PyArrayObject *beta = gamma ? kd_test_floats(beta_object, "beta", C, 0) : NULL;
    PyArrayObject *y = beta ? kd_test_zeros(M, C) : NULL, *stats = y ? kd_test_zeros(M, 2) : NULL;
    if (stats) {
        kd_norm norm = {kd_floats(gamma), kd_floats(beta), C, eps};
        kd_norm_forward(kd_test_arithmetic(module)->kernels, kd_floats(y), kd_floats(stats), kd_floats(x), NULL, &norm,
                        M);
    }
    return kd_test_results(y, stats, NULL, 2);
}

static PyObject *py_norm_backward(PyObject *module, PyObject *args)
{
    PyObject *dy_object, *x_object, *stats_object, *gamma_object;
    if (!PyArg_ParseTuple(args, "OOOO:norm_backward", &dy_object, &x_object, &stats_object, &gamma_object))
        return NULL;
    PyArrayObject *x = kd_test_matrix(x_object, "x");
    ptrdiff_t M = x ? PyArray_DIM(x, 0) : 0, C = x ? PyArray_DIM(x, 1) : 0;
    PyArrayObject *dy = x ? kd_test_floats(dy_object, "dy", M, C) : NULL;
    PyArrayObject *stats = dy ? kd_test_floats(stats_object, "stats", M, 2) : NULL;
    PyArrayObject *gamma = stats ? kd_test_floats(gamma_object, "gamma", C, 0) : NULL;
    PyArrayObject *dx = gamma ? kd_test_zeros(M, C) : NULL, *dgamma = dx ? kd_test_zeros(C, 0) : NULL;
    PyArrayObject *dbeta = dgamma ? kd_test_zeros(C, 0) : NULL;
    if (dbeta) {
        kd_norm norm = {kd_floats(gamma), NULL, C, 0};
        kd_norm_backward(kd_test_arithmetic(module)->kernels, kd_floats(dx), kd_floats(dgamma), kd_floats(dbeta),
                         kd_floats(dy), kd_floats(x), kd_floats(stats), &norm, M);
    }
    return kd_test_results(dx, dgamma, dbeta, 3);
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
    PyArrayObject *dy = x ? kd_test_floats(dy_object, "dy", n, 0) : NULL;
    PyArrayObject *y = dy ? kd_test_zeros(n, 0) : NULL, *dx = y ? kd_test_zeros(n, 0) : NULL;
    if (dx) {
        memcpy(kd_floats(y), kd_floats(x), (size_t)PyArray_NBYTES(x));
        kd_test_arithmetic(module)->kernels->activate(kd_floats(y), kd_floats(dx), 1, n, n, activation);
        kd_test_arithmetic(module)->kernels->multiply(kd_floats(dx), kd_floats(dy), 1, n, n);
    }
    return kd_test_results(y, dx, NULL, 2);
}

/* A dropout rate and the position of its random bits, as the layers take them. */
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
    PyArrayObject *x = kd_test_matrix(x_object, "x");
    PyArrayObject *y = x ? kd_test_zeros(PyArray_DIM(x, 0), PyArray_DIM(x, 1)) : NULL;
    if (!y)
        return NULL;
    kd_dropout_rows(kd_test_arithmetic(module)->kernels, kd_floats(y), kd_floats(x), &at.dropout, at.tensor, 0,
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

/* The numbers of relative positions (heads, 2 n - 1), and their gradient, to which backward adds; NULL: none. */
static int parse_spread(PyObject *spread, PyObject *dspread, operands *o)
{
    kd_attention *a = &o->attention;
    const ptrdiff_t distances = 2 * o->n - 1;
    PyArrayObject *values = spread ? kd_test_floats(spread, "spread", a->H, distances) : NULL;
    PyArrayObject *gradient = dspread ? kd_array_out(dspread, "dspread", NPY_FLOAT, 2, a->H * distances) : NULL;
    if ((spread && !values) || (dspread && !gradient))
        return -1;
    a->longest = o->n;
    a->spread = values ? kd_floats(values) : NULL;
    a->dspread = gradient ? kd_floats(gradient) : NULL;
    return 0;
}

static int parse_attention(PyObject *q, PyObject *k, PyObject *v, Py_ssize_t heads, Py_ssize_t features,
                           PyObject *dropout, operands *o)
{
    if (parse_position(dropout, &o->at) < 0 || !(o->q = kd_test_matrix(q, "q")))
        return -1;
    o->n = PyArray_DIM(o->q, 0);
    o->C = PyArray_DIM(o->q, 1);
    if (!(o->k = kd_test_floats(k, "k", o->n, o->C)) || !(o->v = kd_test_floats(v, "v", o->n, o->C)))
        return -1;
    if (heads < 1 || o->C % heads || features < 0 || features % KD_RANDOM_BLOCK || features > INT32_MAX / heads) {
        PyErr_SetString(PyExc_ValueError,
                        "heads must divide the width, and 64 the number of features; of all heads there can be 2^31");
        return -1;
    }
    o->attention = (kd_attention){.H = heads,
                                  .D = o->C / heads,
                                  .dropout = &o->at.dropout,
                                  .tensor = o->at.tensor,
                                  .features = features,
                                  .p = o->at.p};
    o->scratch = kd_new_bytes((size_t)kd_attention_scratch(&o->attention, o->n) * sizeof(float));
    return o->scratch ? 0 : -1;
}

static PyObject *py_attention_forward(PyObject *module, PyObject *args)
{
    PyObject *q, *k, *v, *dropout, *spread = NULL;
    Py_ssize_t heads, features;
    operands o;
    if (!PyArg_ParseTuple(args, "OOOnnO!|O:attention_forward", &q, &k, &v, &heads, &features, &PyTuple_Type, &dropout,
                          &spread) ||
        parse_attention(q, k, v, heads, features, dropout, &o) < 0)
        return NULL;
    if (parse_spread(spread, NULL, &o) < 0) {
        Py_DECREF(o.scratch);
        return NULL;
    }
    PyArrayObject *ctx = kd_test_zeros(o.n, o.C), *lse = ctx ? kd_test_zeros(o.n, heads) : NULL;
    if (lse)
        kd_attention_forward(kd_test_arithmetic(module)->kernels, kd_floats(ctx), kd_floats(lse), NULL, kd_floats(o.q),
                             kd_floats(o.k), kd_floats(o.v), &o.attention, 0, heads, 0, o.n, kd_aligned(o.scratch));
    Py_DECREF(o.scratch);
    return kd_test_results(ctx, lse, NULL, 2);
}

static PyArrayObject *copy_of(PyArrayObject *array)
{
    PyArrayObject *copy = kd_test_zeros(PyArray_DIM(array, 0), PyArray_DIM(array, 1));
    if (copy)
        memcpy(kd_floats(copy), kd_floats(array), (size_t)PyArray_NBYTES(array));
    return copy;
}

static PyObject *py_attention_backward(PyObject *module, PyObject *args)
{
    PyObject *dctx_object, *ctx_object, *lse_object, *q, *k, *v, *dropout, *spread = NULL, *dspread = NULL;
    Py_ssize_t heads, features;
    operands o;
    if (!PyArg_ParseTuple(args, "OOOOOOnnO!|(OO):attention_backward", &dctx_object, &ctx_object, &lse_object, &q, &k,
                          &v, &heads, &features, &PyTuple_Type, &dropout, &spread, &dspread) ||
        parse_attention(q, k, v, heads, features, dropout, &o) < 0)
        return NULL;
    if (parse_spread(spread, dspread, &o) < 0) {
        Py_DECREF(o.scratch);
        return NULL;
    }
    PyArrayObject *dctx = kd_test_floats(dctx_object, "dctx", o.n, o.C),
                  *ctx = kd_test_floats(ctx_object, "ctx", o.n, o.C);
    PyArrayObject *lse = kd_test_floats(lse_object, "lse", o.n, heads), *dq = NULL, *dk = NULL, *dv = NULL;
    if (dctx && ctx && lse) {
        dq = copy_of(o.q);
        dk = copy_of(o.k);
        dv = copy_of(o.v);
    }
    if (dq && dk && dv)
        kd_attention_backward(kd_test_arithmetic(module)->kernels, kd_floats(dq), kd_floats(dk), kd_floats(dv),
                              kd_floats(dctx), NULL, kd_floats(ctx), kd_floats(lse), &o.attention, 0, o.n,
                              kd_aligned(o.scratch));
    Py_DECREF(o.scratch);
    return kd_test_results(dq, dk, dv, 3);
}

static PyObject *py_relative_spread(PyObject *module, PyObject *args)
{
    PyObject *object;
    Py_ssize_t n, distance;
    float scale;
    (void)module;
    if (!PyArg_ParseTuple(args, "Onnf:relative_spread", &object, &n, &distance, &scale))
        return NULL;
    PyArrayObject *table = kd_test_matrix(object, "table");
    if (!table)
        return NULL;
    const ptrdiff_t R = PyArray_DIM(table, 0), H = PyArray_DIM(table, 1);
    if (n < 1 || n > INT32_MAX || R < 4 || distance <= R / 4) {
        PyErr_SetString(PyExc_ValueError,
                        "expected a token, four buckets, and a distance of more than a quarter of them");
        return NULL;
    }
    PyArrayObject *spread = kd_test_zeros(H, 2 * n - 1);
    if (spread)
        kd_relative_spread(kd_floats(spread), kd_floats(table), n, H, R, distance, scale);
    return (PyObject *)spread;
}

PyMethodDef kd_test_layer_methods[] = {
    {"norm_forward", py_norm_forward, METH_VARARGS,
     "norm_forward($module, x, gamma, beta, eps, /)\n--\n\n"
     "Return (y, stats) of LayerNorm: y (M, C), and each row's mean and 1 / standard deviation (M, 2)."},
    {"norm_backward", py_norm_backward, METH_VARARGS,
     "norm_backward($module, dy, x, stats, gamma, /)\n--\n\n"
     "Return the gradients (dx, dgamma, dbeta) of LayerNorm, (M, C), (C,) and (C,)."},
    {"activation", py_activation, METH_VARARGS,
     "activation($module, x, dy, name, /)\n--\n\n"
     "Return (y, dx) of the activation of this name, for x and dy (n,)."},
    {"dropout", py_dropout, METH_VARARGS,
     "dropout($module, x, dropout, /)\n--\n\n"
     "Return x (M, n) after dropout. dropout is (p, seed, step, tensor, place of the first row's token)."},
    {"attention_forward", py_attention_forward, METH_VARARGS,
     "attention_forward($module, q, k, v, heads, features, dropout, spread=None, /)\n--\n\n"
     "Return (ctx, lse), (n, C) and (n, heads), of one sequence's q, k and v (n, C). `features` is the number of\n"
     "dropout's features a head has; dropout is (p, seed, step, tensor, place of the first token);\n"
     "spread (heads, 2 n - 1) is added to the products of queries and keys, by distance."},
    {"attention_backward", py_attention_backward, METH_VARARGS,
     "attention_backward($module, dctx, ctx, lse, q, k, v, heads, features, dropout, relative=None, /)\n--\n\n"
     "Return the gradients (dq, dk, dv) of one sequence, (n, C) each. relative is (spread, dspread): adds the gradient "
     "of\n"
     "spread to dspread."},
    {"relative_spread", py_relative_spread, METH_VARARGS,
     "relative_spread($module, table, n, distance, scale, /)\n--\n\n"
     "Return scale times the numbers of a table (buckets, heads) for key minus query of 1 - n to n - 1."},
    {NULL, NULL, 0, NULL},
};
