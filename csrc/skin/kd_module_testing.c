/* The module kdistill._core.testing: its start, its helpers, and kernels on plain arrays. */
#include "skin/kd_module_testing.h"

PyArrayObject *kd_test_zeros(ptrdiff_t rows, ptrdiff_t columns)
{
    npy_intp shape[2] = {rows, columns};
    return (PyArrayObject *)PyArray_ZEROS(columns ? 2 : 1, shape, NPY_FLOAT, 0);
}

PyArrayObject *kd_test_floats(PyObject *object, const char *name, ptrdiff_t rows, ptrdiff_t columns)
{
    PyArrayObject *array = kd_array(object, name, NPY_FLOAT, columns ? 2 : 1);
    if (array && (PyArray_DIM(array, 0) != rows || (columns && PyArray_DIM(array, 1) != columns))) {
        PyErr_Format(PyExc_ValueError, "%s has the wrong shape; expected %zd x %zd", name, (Py_ssize_t)rows,
                     (Py_ssize_t)columns);
        return NULL;
    }
    return array;
}

PyArrayObject *kd_test_matrix(PyObject *object, const char *name)
{
    PyArrayObject *array = kd_array(object, name, NPY_FLOAT, 2);
    if (array && PyArray_SIZE(array) < 1) {
        PyErr_Format(PyExc_ValueError, "%s is empty", name);
        return NULL;
    }
    return array;
}

PyObject *kd_test_results(PyArrayObject *a, PyArrayObject *b, PyArrayObject *c, int count)
{
    PyObject *tuple = a && (b || count < 2) && (c || count < 3) ? PyTuple_Pack(count, a, b, c) : NULL;
    Py_XDECREF((PyObject *)a);
    Py_XDECREF((PyObject *)b);
    Py_XDECREF((PyObject *)c);
    if (!tuple && !PyErr_Occurred())
        PyErr_NoMemory();
    return tuple;
}

const kd_arithmetic *kd_test_arithmetic(PyObject *module)
{
    return ((kd_module_state *)PyModule_GetState(module))->arithmetic;
}

/* c (M, N) += a b for a (M, K), b (K, N); or a^T b for a (K, M), the weight-gradient product. */
static PyObject *py_product(PyObject *module, PyObject *args)
{
    const kd_arithmetic *math = kd_test_arithmetic(module);
    const kd_engine *engine = &math->engine;
    PyObject *a_object, *b_object, *c_object;
    int transposed;
    if (!PyArg_ParseTuple(args, "OOOp:product", &c_object, &a_object, &b_object, &transposed))
        return NULL;
    PyArrayObject *a = kd_test_matrix(a_object, "a"), *b = a ? kd_test_matrix(b_object, "b") : NULL;
    if (!b)
        return NULL;
    ptrdiff_t M = PyArray_DIM(a, transposed ? 1 : 0), K = PyArray_DIM(b, 0), N = PyArray_DIM(b, 1);
    PyArrayObject *c = kd_array_out(c_object, "c", NPY_FLOAT, 2, -1);
    if (!c || !kd_test_floats(c_object, "c", M, N) ||
        !kd_test_floats(a_object, "a", transposed ? K : M, transposed ? M : K))
        return NULL;
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
                              .right_columns = N,
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
    const kd_engine *engine = &kd_test_arithmetic(module)->engine;
    PyObject *object;
    int transposed;
    if (!PyArg_ParseTuple(args, "Op:pack_right", &object, &transposed))
        return NULL;
    PyArrayObject *b = kd_test_matrix(object, "b");
    if (!b)
        return NULL;
    ptrdiff_t K = PyArray_DIM(b, transposed ? 1 : 0), N = PyArray_DIM(b, transposed ? 0 : 1);
    PyArrayObject *right = kd_test_zeros(engine->packed_bytes(engine, K, N) / (ptrdiff_t)sizeof(float), 0);
    if (!right)
        return NULL;
    engine->pack(engine, kd_floats(right), kd_floats(b), transposed ? K : N, K, N, transposed);
    return (PyObject *)right;
}

int kd_test_finish(kd_product *product, PyObject *bias, const char *activation, PyObject *slope)
{
    PyArrayObject *array = bias == Py_None ? NULL : kd_test_floats(bias, "bias", product->N, 0);
    if (bias != Py_None && !array)
        return -1;
    product->bias = array ? kd_floats(array) : NULL;
    product->accumulate = !array;
    array = slope == Py_None ? NULL : kd_array_out(slope, "slope", NPY_FLOAT, 2, -1);
    if (slope != Py_None && (!array || !kd_test_floats(slope, "slope", product->M, product->N)))
        return -1;
    product->slope = array ? kd_floats(array) : NULL;
    product->finish = activation ? KD_FINISH_ACTIVATE : array ? KD_FINISH_SCALE_SLOPE : KD_FINISH_NONE;
    return activation ? kd_parse_activation(activation, &product->activation) : 0;
}

/* kd_kernels's product with a block of a packed operand, and what it does with the sums. */
static PyObject *py_packed_product(PyObject *module, PyObject *args)
{
    const kd_kernels *kernels = kd_test_arithmetic(module)->kernels;
    PyObject *c_object, *a_object, *right_object, *bias, *slope;
    Py_ssize_t right_rows, first_row, first_column;
    const char *activation;
    if (!PyArg_ParseTuple(args, "OOOnnnOzO:packed_product", &c_object, &a_object, &right_object, &right_rows,
                          &first_row, &first_column, &bias, &activation, &slope))
        return NULL;
    PyArrayObject *a = kd_test_matrix(a_object, "a");
    PyArrayObject *c = a ? kd_array_out(c_object, "c", NPY_FLOAT, 2, -1) : NULL;
    PyArrayObject *right = c ? kd_array(right_object, "right", NPY_FLOAT, 1) : NULL;
    ptrdiff_t M = a ? PyArray_DIM(a, 0) : 0, K = a ? PyArray_DIM(a, 1) : 0, N = c ? PyArray_DIM(c, 1) : 0;
    if (!right || !kd_test_floats(c_object, "c", M, N))
        return NULL;
    const ptrdiff_t size = PyArray_SIZE(right);
    if (right_rows < 1 || right_rows > size || size % (kernels->panel * right_rows) || first_row < 0 ||
        first_column < 0 || K > right_rows - first_row || N > size / right_rows - first_column) {
        PyErr_SetString(PyExc_ValueError, "right lacks some of these rows and columns");
        return NULL;
    }
    kd_product product = {.c = kd_floats(c),
                          .ldc = N,
                          .a = kd_floats(a),
                          .lda = K,
                          .right = kd_floats(right),
                          .right_rows = right_rows,
                          .first_row = first_row,
                          .first_column = first_column,
                          .M = M,
                          .N = N,
                          .K = K};
    if (kd_test_finish(&product, bias, activation, slope) < 0)
        return NULL;
    kernels->product(&product);
    Py_RETURN_NONE;
}

/* c (M, N) = row_bias (M) + a b^T for a (M, K), b (N, K). */
static PyObject *py_dots(PyObject *module, PyObject *args)
{
    PyObject *c_object, *bias_object, *a_object, *b_object;
    if (!PyArg_ParseTuple(args, "OOOO:dots", &c_object, &bias_object, &a_object, &b_object))
        return NULL;
    PyArrayObject *a = kd_test_matrix(a_object, "a"), *b = a ? kd_test_matrix(b_object, "b") : NULL;
    ptrdiff_t M = a ? PyArray_DIM(a, 0) : 0, K = a ? PyArray_DIM(a, 1) : 0, N = b ? PyArray_DIM(b, 0) : 0;
    int fits = b && kd_test_floats(b_object, "b", N, K);
    PyArrayObject *row_bias = fits ? kd_test_floats(bias_object, "row_bias", M, 0) : NULL;
    PyArrayObject *c = row_bias ? kd_array_out(c_object, "c", NPY_FLOAT, 2, -1) : NULL;
    if (!c || !kd_test_floats(c_object, "c", M, N))
        return NULL;
    kd_test_arithmetic(module)->kernels->dots(kd_floats(c), N, kd_floats(row_bias), kd_floats(a), kd_floats(b), M, N,
                                              K);
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
    kd_test_arithmetic(module)->kernels->add_scaled(kd_floats(y), kd_floats(x), scale, PyArray_SIZE(x));
    Py_RETURN_NONE;
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
        kd_test_arithmetic(module)->kernels->random_bits(PyArray_DATA((PyArrayObject *)bits), &row, block);
    return bits;
}

static PyMethodDef kernel_methods[] = {
    {"product", py_product, METH_VARARGS,
     "product($module, c, a, b, transposed, /)\n--\n\n"
     "Add a b to c (M, N), for a (M, K) and b (K, N), with the product of the layers. With `transposed`, add a^T b\n"
     "for a (K, M), with the product of the weight gradients."},
    {"pack_right", py_pack_right, METH_VARARGS,
     "pack_right($module, b, transposed, /)\n--\n\n"
     "Return b (K, N), or with `transposed` the transpose of b (N, K), in the panels that packed_product reads."},
    {"packed_product", py_packed_product, METH_VARARGS,
     "packed_product($module, c, a, right, right_rows, first_row, first_column, bias, activation, slope, /)\n--\n\n"
     "Add a b to c (M, N), or write bias + a b there unless bias is None. b (K, N) is the block of a packed operand\n"
     "of `right_rows` rows that begins at first_row and first_column. Then apply the activation to c and write its\n"
     "derivative to slope; without an activation, multiply slope by c."},
    {"dots", py_dots, METH_VARARGS,
     "dots($module, c, row_bias, a, b, /)\n--\n\n"
     "Write row_bias (M,) + a b^T to c (M, N), for a (M, K) and b (N, K)."},
    {"add_scaled", py_add_scaled, METH_VARARGS, "add_scaled($module, y, x, scale, /)\n--\n\nAdd scale * x to y (n,)."},
    {"random_bits", py_random_bits, METH_VARARGS,
     "random_bits($module, seed, step, tensor, place, block, /)\n--\n\n"
     "Return the 16 bits that dropout uses for each of the 64 features of a block."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef testing_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kdistill._core.testing",
    .m_doc = "Single kernels and layers on plain arrays, for tests, which compare each with its formula.",
    .m_size = sizeof(kd_module_state),
    .m_methods = kernel_methods,
};

int kd_add_testing(PyObject *core)
{
    PyObject *testing = PyModule_Create(&testing_definition);
    if (!testing)
        return -1;
    const kd_module_state *in_use = PyModule_GetState(core);
    kd_module_state *state = PyModule_GetState(testing);
    *state = *in_use;
    state->model_type = NULL; /* theirs */
    int failed = PyModule_AddFunctions(testing, kd_test_layer_methods) < 0 ||
                 PyModule_AddFunctions(testing, kd_test_engine_methods) < 0 ||
                 PyModule_AddObjectRef(core, "testing", testing) < 0 ||
                 PyDict_SetItemString(PyImport_GetModuleDict(), "kdistill._core.testing", testing) < 0;
    Py_DECREF(testing);
    return failed ? -1 : 0;
}
