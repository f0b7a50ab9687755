/* kd_module_testing: what the files behind kdistill._core.testing share. Training does not go through here. */
#ifndef KD_MODULE_TESTING_H
#define KD_MODULE_TESTING_H

#include "skin/kd_numpy.h"

#include "layers/kd_attention.h"
#include "layers/kd_norm.h"

/* Returns a new float32 array of zeros: (rows, columns), or (rows,) when columns is 0. */
PyArrayObject *kd_test_zeros(ptrdiff_t rows, ptrdiff_t columns);

/* Returns `object` as a float32 array of that shape (columns 0: one dimension), or NULL with an exception. */
PyArrayObject *kd_test_floats(PyObject *object, const char *name, ptrdiff_t rows, ptrdiff_t columns);

/* Returns `object` as a float32 array of two dimensions with an element at least, or NULL with an exception. Its sizes are
 * then those of real memory. */
PyArrayObject *kd_test_matrix(PyObject *object, const char *name);

/* Packs the first `count` of the arrays, at most three, into a tuple and drops the references; NULL if one is NULL. */
PyObject *kd_test_results(PyArrayObject *a, PyArrayObject *b, PyArrayObject *c, int count);

/* Returns the products and kernels that the core uses. */
const kd_arithmetic *kd_test_arithmetic(PyObject *module);

/* Sets a product's bias and slope, each None or an array, and what it does with the sums. -1 with an exception. */
int kd_test_finish(kd_product *product, PyObject *bias, const char *activation, PyObject *slope);

extern PyMethodDef kd_test_layer_methods[], kd_test_engine_methods[];

#endif
