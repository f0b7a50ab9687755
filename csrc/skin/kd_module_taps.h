/* kd_module_taps: the taps of a pass as Python asks for them, gets them and gives their gradients. */
#ifndef KD_MODULE_TAPS_H
#define KD_MODULE_TAPS_H

#include "skin/kd_numpy.h"

#include "model/kd_run.h"

/* Taps that were asked for, and the dict {(kind, layer): array} that holds what they write. */
typedef struct kd_asked_taps {
    kd_taps taps;
    PyObject *arrays;
} kd_asked_taps;

/* Reads a sequence of pairs such as ("hidden", 2) and makes an array for each. 0; or -1 with an exception, and nothing to
 * drop. */
int kd_ask_taps(PyObject *sequence, const kd_encoder_config *encoder, const kd_batch *batch, kd_asked_taps *asked);
void kd_drop_taps(kd_asked_taps *asked);

/* Sets the taps' gradients from a dict like `arrays` (None: no gradients), whose keys must be those of forward's taps; some
 * may be absent. Returns a list of the copies that backward reads, or NULL with an exception. */
PyObject *kd_take_tap_gradients(PyObject *gradients, kd_run *run);

#endif
