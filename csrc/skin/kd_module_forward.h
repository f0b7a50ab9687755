/* kd_module_forward: methods of kdistill._core.Model that send a batch through it. */
#ifndef KD_MODULE_FORWARD_H
#define KD_MODULE_FORWARD_H

#include "skin/kd_module_object.h"

PyObject *kd_py_check(PyObject *self, PyObject *args);
/* The way back of a training run from the gradient of its outputs, or of its features. Interrupted in its last phase, it
 * gives up the gradients. 0, or -1 with an exception. */
int kd_go_back(kd_model_object *o, kd_run *run, int threads);

PyObject *kd_py_forward(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *kd_py_backward(PyObject *self, PyObject *args);

#endif
