/* kd_module_decoder: the loss of a head with an output for every word, in blocks, for Python. */
#ifndef KD_MODULE_DECODER_H
#define KD_MODULE_DECODER_H

#include "skin/kd_module_object.h"

PyObject *kd_py_softmax_loss(PyObject *self, PyObject *args, PyObject *keywords);

#endif
