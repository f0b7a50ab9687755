/* The type kdistill._core.Model: its making and end, and the table of its methods. */
#include "skin/kd_module_config.h"
#include "skin/kd_module_decoder.h"
#include "skin/kd_module_forward.h"
#include "skin/kd_module_gradients.h"

/* What training needs beside the gradients: the list of touched rows, and the segments AdamW moves. */
static int prepare_training(kd_model_object *o)
{
    const kd_model *model = &o->model;
    npy_intp V = model->encoder.V;
    o->touched = (PyArrayObject *)PyArray_SimpleNew(1, &V, NPY_INT32);
    o->mark = (PyArrayObject *)PyArray_ZEROS(1, &V, NPY_UINT8, 0);
    o->segments = PyMem_Calloc((size_t)model->sizes.count, sizeof *o->segments);
    if (!o->touched || !o->mark || !o->segments)
        return PyErr_Occurred() ? -1 : (PyErr_NoMemory(), -1);
    for (ptrdiff_t i = 0; i < model->sizes.count; i++) {
        const kd_tensor *t = &model->tensors[i];
        if (t->slot != KD_SLOT_word)
            o->segments[o->segment_count++] = (kd_segment){t->offset, kd_tensor_floats(t), t->decay};
    }
    return 0;
}

/* Describes the model of these shapes in memory that the object keeps. */
static int describe(kd_model_object *o, const kd_shapes *shapes, kd_compute compute, int frozen)
{
    const kd_module_state *state = PyType_GetModuleState(Py_TYPE((PyObject *)o));
    const kd_arithmetic *arithmetic = &state->arithmetic[compute];
    o->description = kd_new_bytes(kd_model_bytes(&shapes->encoder, &shapes->head, arithmetic));
    if (!o->description)
        return -1;
    kd_model_describe(&o->model, kd_aligned(o->description), &shapes->encoder, &shapes->head, arithmetic, frozen);
    return 0;
}

/* Takes the arrays, which must have the model's size. */
static int take_arrays(kd_model_object *o, PyObject *parameters, PyObject *gradients)
{
    const ptrdiff_t size = o->model.sizes.parameters;
    const int frozen = gradients == Py_None;
    PyArrayObject *p = frozen ? kd_array_in(parameters, "parameters", NPY_FLOAT, 1, size)
                              : kd_array_out(parameters, "parameters", NPY_FLOAT, 1, size);
    PyArrayObject *g = frozen || !p ? NULL : kd_array_out(gradients, "gradients", NPY_FLOAT, 1, size);
    if (!p || (!frozen && (!g || prepare_training(o) < 0)))
        return -1;
    o->parameters = (PyArrayObject *)Py_NewRef((PyObject *)p);
    o->gradients = (PyArrayObject *)Py_XNewRef((PyObject *)g);
    o->model.parameters = kd_floats(p);
    o->model.gradients = g ? kd_floats(g) : NULL;
    return 0;
}

/* Reads a compute type that such a model can have. */
static int parse_compute(const char *dtype, int frozen, kd_compute *compute)
{
    *compute = kd_engine_compute(dtype);
    if (*compute == KD_COMPUTES) {
        PyErr_Format(PyExc_ValueError, "dtype is '%s'; expected float32, bfloat16 or int8", dtype);
        return -1;
    }
    if (!frozen && *compute == KD_INT8) {
        PyErr_SetString(PyExc_ValueError, "dtype is int8, in which no model is trained; expected float32 or bfloat16");
        return -1;
    }
    return 0;
}

/* Whether the sums of this compute type can hold all products of these shapes. */
static int check_sums(const kd_encoder_config *c, kd_compute compute)
{
    ptrdiff_t widest = kd_max(c->C, c->E);
    for (ptrdiff_t layer = 0; layer < c->L; layer++)
        widest = kd_max(widest, kd_max(c->layers[layer].F, kd_encoder_width(c, layer)));
    if (compute != KD_INT8 || widest <= KD_INT8_LONGEST_SUM)
        return 0;
    PyErr_Format(
        PyExc_ValueError,
        "dtype is int8 and a layer is %zd wide, where int32 sums can overflow; expected at most %d, or another "
        "dtype",
        (Py_ssize_t)widest, KD_INT8_LONGEST_SUM);
    return -1;
}

static int model_init(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"encoder", "head", "parameters", "gradients", "workspace", "dtype", NULL};
    kd_model_object *o = (kd_model_object *)self;
    PyObject *encoder, *head, *parameters, *gradients, *workspace;
    const char *dtype = "float32";
    kd_compute compute;
    kd_shapes shapes;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!O!OOO|$s:Model", names, &PyDict_Type, &encoder, &PyDict_Type,
                                     &head, &parameters, &gradients, &workspace, &dtype))
        return -1;
    if (o->description) {
        PyErr_SetString(PyExc_TypeError, "a Model is initialised once");
        return -1;
    }
    if (parse_compute(dtype, gradients == Py_None, &compute) < 0 || kd_parse_shapes(encoder, head, &shapes) < 0)
        return -1;
    const int failed = check_sums(&shapes.encoder, compute) < 0 ||
                       describe(o, &shapes, compute, gradients == Py_None) < 0 ||
                       take_arrays(o, parameters, gradients) < 0;
    PyMem_Free(shapes.layers);
    if (failed)
        return -1;
    o->new_workspace = Py_NewRef(workspace);
    o->version = 1;
    return 0;
}

static void model_dealloc(PyObject *self)
{
    kd_model_object *o = (kd_model_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(o->description);
    Py_CLEAR(o->parameters);
    Py_CLEAR(o->gradients);
    Py_CLEAR(o->packed);
    Py_CLEAR(o->word_integers);
    Py_CLEAR(o->word_scales);
    Py_CLEAR(o->workspace);
    Py_CLEAR(o->new_workspace);
    Py_CLEAR(o->touched);
    Py_CLEAR(o->mark);
    PyMem_Free(o->segments);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Packs a tensor from `values` and keeps the packed weights from then on: the caller holds no other copy of them. */
static PyObject *model_pack(PyObject *self, PyObject *args)
{
    kd_model_object *o = (kd_model_object *)self;
    Py_ssize_t index;
    PyObject *object;
    if (!PyArg_ParseTuple(args, "nO:pack", &index, &object))
        return NULL;
    if (index < 0 || index >= o->model.sizes.count || !o->parameters || o->gradients) {
        PyErr_Format(PyExc_ValueError, "tensor %zd cannot be packed; expected one of the %zd of a frozen model", index,
                     (Py_ssize_t)o->model.sizes.count);
        return NULL;
    }
    const kd_tensor *t = &o->model.tensors[index];
    PyArrayObject *values = kd_array_in(object, "values", NPY_FLOAT, 2, t->rows * t->columns);
    if (!values || kd_object_enter(o) < 0)
        return NULL;
    if (!o->packed)
        o->packed = kd_new_bytes((size_t)o->model.sizes.packed);
    kd_team *team = o->packed ? kd_open_team(1) : NULL; /* for which another thread's fork waits */
    if (team) {
        o->model.packed = kd_aligned(o->packed);
        o->only_packed = 1;
        o->packed_version = o->version;
        Py_INCREF(object);
        Py_BEGIN_ALLOW_THREADS
        kd_model_pack_tensor(&o->model, t, kd_floats(values));
        kd_pool_close(team);
        Py_END_ALLOW_THREADS
        Py_DECREF(object);
    }
    o->busy = 0;
    return team ? Py_NewRef(Py_None) : NULL;
}

/* Takes word embeddings in int8, which passes read from then on; like the parameters they stay the caller's. */
static PyObject *model_take_words(PyObject *self, PyObject *args)
{
    kd_model_object *o = (kd_model_object *)self;
    PyObject *integers, *scales;
    if (!PyArg_ParseTuple(args, "OO:take_words", &integers, &scales))
        return NULL;
    if (!o->parameters || o->gradients || o->model.head.tied) {
        PyErr_SetString(PyExc_ValueError,
                        "a model takes words in int8 if it is frozen and they are no product's weight");
        return NULL;
    }
    const kd_tensor *word = kd_model_tensor(&o->model, KD_SLOT_word, 0);
    PyArrayObject *table = kd_array_in(integers, "integers", NPY_INT8, 2, word->rows * word->columns);
    PyArrayObject *of_rows = table ? kd_array_in(scales, "scales", NPY_FLOAT, 2, word->rows) : NULL;
    if (!of_rows || kd_object_enter(o) < 0)
        return NULL;
    Py_INCREF(integers);
    Py_INCREF(scales);
    Py_CLEAR(o->word_integers);
    Py_CLEAR(o->word_scales);
    o->word_integers = table;
    o->word_scales = of_rows;
    o->model.words = (kd_embed_int8){PyArray_DATA(table), kd_floats(of_rows)};
    o->busy = 0;
    Py_RETURN_NONE;
}

static PyObject *model_touch(PyObject *self, PyObject *unused)
{
    kd_model_object *o = (kd_model_object *)self;
    (void)unused;
    o->version += !o->only_packed;
    Py_RETURN_NONE;
}

static PyObject *model_release(PyObject *self, PyObject *unused)
{
    kd_model_object *o = (kd_model_object *)self;
    (void)unused;
    if (kd_object_enter(o) < 0)
        return NULL;
    o->run = NULL;
    Py_CLEAR(o->workspace);
    if (!o->only_packed) {
        Py_CLEAR(o->packed);
        o->version++;
    }
    o->busy = 0;
    Py_RETURN_NONE;
}

static PyObject *model_workspace_bytes(PyObject *self, void *unused)
{
    kd_model_object *o = (kd_model_object *)self;
    (void)unused;
    return PyLong_FromSsize_t(o->workspace ? (Py_ssize_t)PyArray_SIZE(o->workspace) : 0);
}

static PyObject *model_packed_bytes(PyObject *self, void *unused)
{
    kd_model_object *o = (kd_model_object *)self;
    (void)unused;
    return PyLong_FromSsize_t(o->packed ? (Py_ssize_t)PyArray_SIZE(o->packed) : 0);
}

static PyObject *model_compute(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(kd_engine_compute_name(((kd_model_object *)self)->model.arithmetic.engine.compute));
}

static PyMethodDef model_methods[] = {
    {"check", kd_py_check, METH_VARARGS,
     "check($self, ids, types, starts, /)\n--\n\nCopy a batch, and raise the ValueError that forward would raise "
     "for it.\nReturn the copies."},
    {"forward", (PyCFunction)(void (*)(void))kd_py_forward, METH_VARARGS | METH_KEYWORDS,
     "forward($self, ids, types, starts, train, seed, step, place, threads, whole_last=False, *, taps=(), rows=None,\n"
     "outputs=True)\n--\n\n"
     "int32 (N,) ids and types, int64 (B + 1,) starts; float32 outputs, (B, K) or (N, K) as the head picks rows. "
     "rows,\n"
     "int64 (M,), ascending, lists the tokens that a head of listed rows reads: (M, K), or all tokens without it. "
     "With\n"
     "train, dropout is on and what backward reads is kept. whole_last computes the last layer for all rows, even if\n"
     "the head reads one of each sequence. With taps such as ('hidden', 2) returns (outputs, {tap: array}): hidden l "
     "is\n"
     "layer l's input (N, C), or the last one's output; query, key and value are (N, A); scores, before the softmax,\n"
     "the (H, n, n) of one sequence behind the other's. Without outputs, None in their place, for softmax_loss."},
    {"backward", kd_py_backward, METH_VARARGS,
     "backward($self, dlogits, threads, gradients=None, /)\n--\n\nAdds the gradients of the last training forward to "
     "the gradient array.\ngradients is {tap: d loss / d array} of some of its taps."},
    {"softmax_loss", (PyCFunction)(void (*)(void))kd_py_softmax_loss, METH_VARARGS | METH_KEYWORDS,
     "softmax_loss($self, labels, alpha, temperature, smoothing, threads, teacher=None, share=1.0, scores=None, "
     "gradients=None)\n--\n\n"
     "Return (loss, hard, soft, not_finite, rows) as loss() for one label a row, int64 (M,), of the last forward with\n"
     "outputs=False. The logits exist a block of rows at a time. teacher: another Model after such a forward of as "
     "many\n"
     "rows. After a training forward, the gradients of share times the loss are added to the gradient array, unless\n"
     "the loss is not finite: then all gradients become 0. scores: float32 (M, 2), becomes each row's loss against "
     "its\n"
     "label, and 1 where the label is the first of the largest logits, else 0. gradients: as backward takes them, of "
     "taps\n"
     "of a training forward, added as they are, whatever share is."},
    {"pack", model_pack, METH_VARARGS,
     "pack($self, index, values, /)\n--\n\nPacks a tensor of a frozen model, by its index in layout(), from float32 "
     "values of its shape.\nThe model then holds its packed weights alone: every product is to be packed so before "
     "forward,\nwhich reads the rest from the parameters, and release() keeps them."},
    {"take_words", model_take_words, METH_VARARGS,
     "take_words($self, integers, scales, /)\n--\n\nGives a frozen model its word embeddings as int8 (V, E), with "
     "float32 scales (V, 1) of their rows.\nPasses read these arrays, which stay the caller's, and not the word "
     "embeddings among the parameters."},
    {"touch", model_touch, METH_NOARGS,
     "touch($self, /)\n--\n\nThe parameters were written: they are packed again before use."},
    {"clear_gradients", kd_py_clear_gradients, METH_VARARGS,
     "clear_gradients($self, threads, /)\n--\n\nSets all gradients to 0."},
    {"gradient_norm", kd_py_gradient_norm, METH_VARARGS,
     "gradient_norm($self, threads, /)\n--\n\nThe Euclidean norm of all gradients together."},
    {"scale_gradients", kd_py_scale_gradients, METH_VARARGS,
     "scale_gradients($self, factor, threads, /)\n--\n\nAll gradients *= factor."},
    {"touched_rows", kd_py_touched_rows, METH_NOARGS,
     "touched_rows($self, /)\n--\n\n"
     "The words, int32, whose rows of the embeddings' gradient may differ from 0, in the order of their first use."},
    {"touch_rows", kd_py_touch_rows, METH_VARARGS,
     "touch_rows($self, ids, /)\n--\n\n"
     "Adds words (None: all) to `touched_rows`: somebody is about to write their rows of the gradient."},
    {"adamw_step", kd_py_adamw_step, METH_VARARGS,
     "adamw_step($self, state, constants, threads, /)\n--\n\n"
     "state is (m, v, average | None, done, history, base, t), constants (lr, beta1, beta2, eps, weight_decay, "
     "share).\n"
     "The t-th AdamW step: writes its constants to history[t - 1 - base], then moves every tensor but the\n"
     "word embeddings, and of those the rows with a gradient. The average of what moved takes in that share of it.\n"
     "done[V] becomes t with it, whatever a signal's handler raises afterwards."},
    {"catch_up", kd_py_catch_up, METH_VARARGS,
     "catch_up($self, state, ids, threads, /)\n--\n\n"
     "Does the steps that these rows of the word embeddings (None: all) have missed, up to the t of state."},
    {"release", model_release, METH_NOARGS, "release($self, /)\n--\n\nGives workspace and packed weights back."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef model_attributes[] = {
    {"workspace_bytes", model_workspace_bytes, NULL, "Bytes of activations and scratch held.", NULL},
    {"packed_bytes", model_packed_bytes, NULL, "Bytes of packed weights held.", NULL},
    {"compute", model_compute, NULL,
     "The compute type of the encoder's products with weights: float32, bfloat16 or int8.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot model_slots[] = {
    {Py_tp_doc,
     "Model(encoder, head, parameters, gradients, workspace, *, dtype='float32')\n--\n\n"
     "A model over flat float32 arrays that stay the caller's. encoder and head are dicts, see layout().\n"
     "gradients = None freezes it. dtype is the compute type of the encoder's products: float32, bfloat16, or int8 if "
     "frozen.\nworkspace(bytes, rows, tokens) gives an int8 array for a batch that needs\n"
     "a larger one."},
    {Py_tp_init, model_init},
    {Py_tp_dealloc, model_dealloc},
    {Py_tp_methods, model_methods},
    {Py_tp_getset, model_attributes},
    {0, NULL},
};

PyType_Spec kd_model_spec = {
    .name = "kdistill._core.Model",
    .basicsize = sizeof(kd_model_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = model_slots,
};
