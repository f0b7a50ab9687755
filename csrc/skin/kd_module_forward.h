/* kd_module_forward: methods of kdistill._core.Model that send a batch through it. */
#ifndef KD_MODULE_FORWARD_H
#define KD_MODULE_FORWARD_H

#include "skin/kd_module_object.h"

PyObject *kd_py_check(PyObject *self, PyObject *args);
PyObject *kd_py_forward(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *kd_py_backward(PyObject *self, PyObject *args);

#endif
