/* kd_module_gradients: methods of kdistill._core.Model on gradients and parameters: clearing, clipping, AdamW; and AdamW
 * on arrays that belong to no model. */
#ifndef KD_MODULE_GRADIENTS_H
#define KD_MODULE_GRADIENTS_H

#include "skin/kd_module_object.h"

/* Floats of one step's constants in the history that Python keeps. */
enum { KD_HISTORY = sizeof(kd_adamw_step) / sizeof(float) };

PyObject *kd_py_clear_gradients(PyObject *self, PyObject *args);
PyObject *kd_py_gradient_norm(PyObject *self, PyObject *args);
PyObject *kd_py_scale_gradients(PyObject *self, PyObject *args);
PyObject *kd_py_touched_rows(PyObject *self, PyObject *args);
PyObject *kd_py_touch_rows(PyObject *self, PyObject *args);
PyObject *kd_py_adamw_step(PyObject *self, PyObject *args);
PyObject *kd_py_catch_up(PyObject *self, PyObject *args);
PyObject *kd_py_adamw(PyObject *module, PyObject *args);

#endif
