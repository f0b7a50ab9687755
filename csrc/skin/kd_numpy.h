/* kd_numpy: what all files of the skin share. Only kd_module* include this; no other room knows Python.
 *
 * The rules of the skin: everything is checked with the GIL held, before the first write; what is only read is copied
 * first, then checked, since other threads may write to it at any time; the pure C part runs with the GIL released; a
 * call into the core does at most about KD_SLICE_FLOPS of work before it looks for signals again.
 */
#ifndef KD_NUMPY_H
#define KD_NUMPY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL kd_array_api
#ifndef KD_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>
#undef I /* <complex.h> takes the name of a dimension */

#include "arithmetic/kd_arithmetic.h"
#include "ground/kd_pool.h"

/* Work of each thread between two looks at signals, in floating-point operations: some 0.1 s on a core with AVX2. */
#define KD_SLICE_FLOPS 8e9
/* The same in bytes written to new memory. */
#define KD_SLICE_BYTES ((ptrdiff_t)64 << 20)

/* The state of the module. */
typedef struct kd_module_state {
    kd_cpu cpu; /* what the kernels may use */
    kd_arithmetic arithmetic[KD_COMPUTES];
    PyObject *model_type;
} kd_module_state;

/* Returns `object` as a C-contiguous array of `type` with `ndim` dimensions, not copied: a borrowed pointer, or NULL
 * with a TypeError or ValueError that names `argument`. */
PyArrayObject *kd_array(PyObject *object, const char *argument, int type, int ndim);

/* kd_array for an array that is only read: with size >= 0 it must have that many elements. kd_array_out is for one that
 * is written to, and so must be writable. */
PyArrayObject *kd_array_in(PyObject *object, const char *argument, int type, int ndim, ptrdiff_t size);
PyArrayObject *kd_array_out(PyObject *object, const char *argument, int type, int ndim, ptrdiff_t size);

/* Returns a copy of what kd_array returns, a new reference that nobody else has. */
PyArrayObject *kd_array_copy(PyObject *object, const char *argument, int type, int ndim);

/* Returns a team of `threads`, or NULL with an exception. */
kd_team *kd_open_team(int threads);

/* Checks 1 <= threads <= KD_POOL_MAX_THREADS; -1 with a ValueError otherwise. */
int kd_check_threads(int threads);

/* Checks that rows follow each other in an array of `total` parts, none of them empty: starts (rows + 1). The names, such
 * as "logit" and "row", are for messages. -1 with a ValueError otherwise. */
int kd_check_starts(const int64_t *starts, npy_intp rows, npy_intp total, const char *part, const char *row);

/* Returns a tuple of so many row numbers, or NULL with an exception. */
PyObject *kd_rows_named(const ptrdiff_t *rows, ptrdiff_t count);

/* kd_new_bytes returns a new NumPy array with room for `bytes` aligned bytes, kd_aligned the address where they begin. */
PyArrayObject *kd_new_bytes(size_t bytes);
void *kd_aligned(PyArrayObject *bytes);

/* kd_activation_names returns a tuple of the names that kd_parse_activation reads, which returns -1 with a ValueError for
 * any other. */
PyObject *kd_activation_names(void);
int kd_parse_activation(const char *name, kd_activation *activation);

static inline float *kd_floats(PyArrayObject *array) { return (float *)PyArray_DATA(array); }

/* Parts of the module, each in its own file. */
extern PyType_Spec kd_model_spec;
extern PyMethodDef kd_batch_methods[], kd_loss_methods[], kd_match_methods[], kd_peak_methods[];

/* Adds the submodule `testing` to kdistill._core, and to sys.modules. 0, or -1 with an exception. */
int kd_add_testing(PyObject *core);

#endif
