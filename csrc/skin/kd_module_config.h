/* kd_module_config: a model's shape as Python gives it. */
#ifndef KD_MODULE_CONFIG_H
#define KD_MODULE_CONFIG_H

#include "skin/kd_numpy.h"

#include "model/kd_tensors.h"

/* An encoder and its head, with the memory of the encoder's layers, which PyMem_Free takes back. */
typedef struct kd_shapes {
    kd_encoder_config encoder;
    kd_head_config head;
    kd_layer_shape *layers;
} kd_shapes;

/* Reads two dicts, see `_core/__init__.pyi`. 0; or -1 with a TypeError or ValueError, and nothing to free. */
int kd_parse_shapes(PyObject *encoder, PyObject *head, kd_shapes *shapes);

/* layout(encoder, head): (size in floats, [(name, shape, offset, decay), ...]). */
PyObject *kd_py_layout(PyObject *module, PyObject *args);

#endif
