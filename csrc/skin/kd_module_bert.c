/* The type kdistill._core.Bert: a model's arrays and the run in progress. */
#include "skin/kd_module_bert.h"

#include <string.h>
#include <unistd.h>

static int parse_sizes(PyObject *sizes, kd_bert_config *c)
{
    if (!PyArg_ParseTuple(sizes, "nnnnnnnn:sizes", &c->L, &c->C, &c->H, &c->F, &c->V, &c->P, &c->T, &c->K))
        return -1;
    const ptrdiff_t *value = &c->L;
    for (int i = 0; i < 8; i++)
        if (value[i] < 1 || value[i] > INT32_MAX) {
            PyErr_Format(PyExc_ValueError, "sizes[%d] is %zd; expected 1 to 2147483647", i, (Py_ssize_t)value[i]);
            return -1;
        }
    double floats = (double)c->C * ((double)c->V + c->P + c->T + c->K + (double)c->L * (4.0 * c->C + 2.0 * c->F));
    if (floats > 1e11) {
        PyErr_Format(PyExc_ValueError, "a model of these sizes has more than 1e11 parameters");
        return -1;
    }
    if (c->C % c->H != 0) {
        PyErr_Format(PyExc_ValueError, "%zd heads do not divide the hidden size %zd", (Py_ssize_t)c->H,
                     (Py_ssize_t)c->C);
        return -1;
    }
    return 0;
}

/* What training needs beside the gradients: the list of touched rows, and the segments AdamW moves. */
static int prepare_training(kd_bert_object *b)
{
    npy_intp V = b->model.config.V;
    b->touched = (PyArrayObject *)PyArray_SimpleNew(1, &V, NPY_INT32);
    b->mark = (PyArrayObject *)PyArray_ZEROS(1, &V, NPY_UINT8, 0);
    b->segments = PyMem_Malloc((size_t)(kd_bert_tensors(&b->model.config) * (ptrdiff_t)sizeof *b->segments));
    if (!b->touched || !b->mark || !b->segments)
        return PyErr_Occurred() ? -1 : (PyErr_NoMemory(), -1);
    for (kd_tensor_at at = {KD_TENSOR_word, 0}; kd_bert_next(&b->model.config, &at);) {
        kd_tensor_info info = kd_bert_tensor_info(&b->model.config, at.tensor);
        ptrdiff_t offset = b->model.layout.offset[at.tensor] + at.layer * b->model.layout.stride;
        b->segments[b->segment_count++] = (kd_segment){offset, info.rows * kd_max(info.columns, 1), info.columns > 0};
    }
    return 0;
}

static int bert_init(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"sizes",      "activation", "layer_norm_eps", "dropouts",
                            "parameters", "gradients",  "workspace",      NULL};
    kd_bert_object *b = (kd_bert_object *)self;
    kd_module_state *state = PyType_GetModuleState(Py_TYPE(self));
    PyObject *sizes, *parameters, *gradients, *workspace;
    const char *activation;
    kd_bert_config c;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!sf(fff)OOO:Bert", names, &PyTuple_Type, &sizes, &activation,
                                     &c.eps, &c.p_hidden, &c.p_attention, &c.p_classifier, &parameters, &gradients,
                                     &workspace) ||
        parse_sizes(sizes, &c) < 0 || kd_parse_activation(activation, &c.activation) < 0)
        return -1;
    if (b->parameters) {
        PyErr_SetString(PyExc_TypeError, "a Bert is initialised once");
        return -1;
    }
    int frozen = gradients == Py_None;
    kd_bert_describe(&b->model, &c, &state->arithmetic, frozen);
    ptrdiff_t size = b->model.layout.size;
    PyArrayObject *p = kd_array_out(parameters, "parameters", NPY_FLOAT, 1, size);
    PyArrayObject *g = frozen || !p ? NULL : kd_array_out(gradients, "gradients", NPY_FLOAT, 1, size);
    if (!p || (!frozen && !g))
        return -1;
    if (!frozen && prepare_training(b) < 0)
        return -1;
    b->parameters = (PyArrayObject *)Py_NewRef((PyObject *)p);
    b->gradients = (PyArrayObject *)Py_XNewRef((PyObject *)g);
    b->new_workspace = Py_NewRef(workspace);
    b->model.parameters = kd_floats(p);
    b->model.gradients = g ? kd_floats(g) : NULL;
    b->stale = 1;
    return 0;
}

int kd_bert_enter(kd_bert_object *b)
{
    if (!b->parameters) {
        PyErr_SetString(PyExc_RuntimeError, "this Bert was not initialised");
        return -1;
    }
    if (b->busy == getpid()) {
        PyErr_SetString(PyExc_RuntimeError, "this model is in use by another thread; give each thread its own model");
        return -1;
    }
    b->busy = getpid();
    return 0;
}

int kd_do_slices(kd_slice slice, void *context, ptrdiff_t items, ptrdiff_t step, int threads)
{
    for (ptrdiff_t from = 0; from < items; from += step) {
        const ptrdiff_t to = kd_min(from + step, items);
        kd_team *team = kd_open_team((int)kd_min(threads, to - from)); /* a single sentence wakes nobody */
        if (!team)
            return -1;
        Py_BEGIN_ALLOW_THREADS
        slice(context, team, from, to);
        kd_pool_close(team);
        Py_END_ALLOW_THREADS
        if (to < items && PyErr_CheckSignals() < 0)
            return -1;
    }
    return 0;
}

typedef struct phase_work {
    kd_bert_run *run;
    kd_phase phase;
} phase_work;

static void phase_slice(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    const phase_work *work = context;
    kd_bert_do(work->run, work->phase, team, from, to);
}

static int do_phase(kd_bert_run *run, kd_phase phase, int threads)
{
    phase_work work = {run, phase};
    ptrdiff_t step = (ptrdiff_t)(KD_SLICE_FLOPS * threads / kd_bert_item_cost(run, phase));
    return kd_do_slices(phase_slice, &work, kd_bert_items(run, phase), kd_max(step, threads), threads);
}

static void pack_slice(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    kd_bert_pack(context, team, from, to);
}

/* Weights are packed when a pass first needs them: a teacher whose logits are all in the cache never does. */
static int pack_if_stale(kd_bert_object *b, int threads)
{
    const ptrdiff_t bytes = b->model.layout.packed_size;
    if (!b->packed && !(b->packed = kd_new_bytes((size_t)bytes)))
        return -1;
    b->model.packed = kd_aligned(b->packed);
    const ptrdiff_t items = kd_bert_pack_items(&b->model), slices = kd_ceil_div(bytes, KD_SLICE_BYTES);
    if (b->stale && kd_do_slices(pack_slice, &b->model, items, kd_ceil_div(items, slices), threads) < 0)
        return -1;
    b->stale = 0;
    return 0;
}

static int check_lengths(const kd_batch *batch, const kd_bert_config *c)
{
    if (batch->starts[0] != 0 || batch->starts[batch->B] != batch->N) {
        PyErr_Format(PyExc_ValueError, "starts must run from 0 to %zd, the number of tokens", (Py_ssize_t)batch->N);
        return -1;
    }
    for (ptrdiff_t b = 0; b < batch->B; b++) {
        int64_t length = batch->starts[b + 1] - batch->starts[b];
        if (length >= 1 && length <= c->P)
            continue;
        if (length < 1)
            PyErr_Format(PyExc_ValueError, "input_ids[%zd] is empty; every row needs at least one token",
                         (Py_ssize_t)b);
        else
            PyErr_Format(PyExc_ValueError,
                         "input_ids[%zd] has %lld tokens; the model has %zd positions (truncate with max_length)",
                         (Py_ssize_t)b, (long long)length, (Py_ssize_t)c->P);
        return -1;
    }
    return 0;
}

static int check_values(const kd_batch *batch, const int32_t *values, const char *argument, ptrdiff_t limit,
                        const char *kind)
{
    for (ptrdiff_t b = 0; b < batch->B; b++)
        for (int64_t t = batch->starts[b]; t < batch->starts[b + 1]; t++)
            if (values[t] < 0 || values[t] >= limit) {
                PyErr_Format(PyExc_ValueError, "%s[%zd][%lld] is %d; the %s", argument, (Py_ssize_t)b,
                             (long long)(t - batch->starts[b]), (int)values[t], kind);
                return -1;
            }
    return 0;
}

/* Shapes, lengths and ranges, in this order: each check may rely on those before it. */
static int check_batch(PyObject *ids, PyObject *types, PyObject *starts, const kd_bert_config *c, kd_batch *batch)
{
    PyArrayObject *i = kd_array(ids, "ids", NPY_INT32, 1), *t = i ? kd_array(types, "types", NPY_INT32, 1) : NULL;
    PyArrayObject *s = t ? kd_array(starts, "starts", NPY_INT64, 1) : NULL;
    if (!s)
        return -1;
    *batch = (kd_batch){PyArray_DATA(i), PyArray_DATA(t), PyArray_DATA(s), PyArray_SIZE(s) - 1, PyArray_SIZE(i)};
    if (batch->B < 1 || PyArray_SIZE(t) != batch->N) {
        PyErr_SetString(PyExc_ValueError, batch->B < 1 ? "the batch is empty; it needs at least one row"
                                                       : "ids and types differ in size");
        return -1;
    }
    if (check_lengths(batch, c) < 0)
        return -1;
    char vocabulary[64], kinds[64];
    PyOS_snprintf(vocabulary, sizeof vocabulary, "vocabulary has %zd entries", (Py_ssize_t)c->V);
    PyOS_snprintf(kinds, sizeof kinds, "model has %zd token types", (Py_ssize_t)c->T);
    return check_values(batch, batch->ids, "input_ids", c->V, vocabulary) < 0 ||
                   check_values(batch, batch->types, "token_type_ids", c->T, kinds) < 0
               ? -1
               : 0;
}

/* Makes the workspace at least `bytes` large, by asking Python for a larger one: it knows what memory is left. */
static int need_workspace(kd_bert_object *b, size_t bytes, const kd_batch *batch)
{
    const Py_ssize_t size = (Py_ssize_t)(bytes + KD_ALIGN);
    if (b->workspace && PyArray_SIZE(b->workspace) >= size)
        return 0;
    Py_CLEAR(b->workspace); /* the old one first: both at once would double the peak */
    PyObject *made = PyObject_CallFunction(b->new_workspace, "nnn", size, (Py_ssize_t)batch->B, (Py_ssize_t)batch->N);
    if (!made)
        return -1;
    PyArrayObject *array = (PyArrayObject *)made;
    if (!PyArray_Check(made) || PyArray_TYPE(array) != NPY_BYTE || !PyArray_ISCARRAY(array) ||
        PyArray_SIZE(array) < size) {
        Py_DECREF(made);
        PyErr_Format(PyExc_TypeError, "workspace() did not return an int8 array of at least %zd bytes", size);
        return -1;
    }
    b->workspace = array;
    return 0;
}

static PyObject *forward(kd_bert_object *b, const kd_batch *batch, const kd_dropout *dropout, kd_mode mode,
                         int cls_only, int threads)
{
    b->run = NULL;
    if (need_workspace(b, kd_bert_workspace(&b->model, batch, mode, cls_only, threads), batch) < 0 ||
        pack_if_stale(b, threads) < 0)
        return NULL;
    kd_bert_run *run = kd_bert_begin(&b->model, kd_aligned(b->workspace), batch, dropout, mode, cls_only, threads);
    if (do_phase(run, KD_PHASE_BODY, threads) < 0 || do_phase(run, KD_PHASE_TAIL, threads) < 0)
        return NULL;
    npy_intp shape[2] = {batch->B, b->model.config.K};
    PyObject *logits = PyArray_SimpleNew(2, shape, NPY_FLOAT);
    if (!logits)
        return NULL;
    memcpy(PyArray_DATA((PyArrayObject *)logits), kd_bert_logits(run), (size_t)(shape[0] * shape[1]) * sizeof(float));
    if (mode == KD_TRAIN)
        b->run = run;
    return logits;
}

static PyObject *bert_check(PyObject *self, PyObject *args)
{
    PyObject *ids, *types, *starts;
    kd_batch batch;
    if (!PyArg_ParseTuple(args, "OOO:check", &ids, &types, &starts) ||
        check_batch(ids, types, starts, &((kd_bert_object *)self)->model.config, &batch) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *bert_forward(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"ids", "types", "starts", "train", "seed", "step", "place", "threads", "cls_only", NULL};
    kd_bert_object *b = (kd_bert_object *)self;
    PyObject *ids, *types, *starts;
    unsigned long long seed;
    unsigned int step, place;
    int train, threads, cls_only = 1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOpKIIi|p:forward", names, &ids, &types, &starts, &train, &seed,
                                     &step, &place, &threads, &cls_only) ||
        kd_check_threads(threads) < 0)
        return NULL;
    if (train && b->parameters && !b->gradients) {
        PyErr_SetString(PyExc_RuntimeError, "this model is frozen; it has no gradients to train with");
        return NULL;
    }
    kd_batch batch;
    kd_dropout dropout = {seed, step, place, train};
    if (kd_bert_enter(b) < 0)
        return NULL;
    PyObject *logits = check_batch(ids, types, starts, &b->model.config, &batch) < 0
                           ? NULL
                           : forward(b, &batch, &dropout, train ? KD_TRAIN : KD_EVALUATE, cls_only, threads);
    b->busy = 0;
    return logits;
}

/* The first two phases touch no gradient, so an interrupt there leaves them as they were. The last adds them
 * up: interrupted, it leaves nothing half-added but gives the whole effective batch up. */
static PyObject *backward(kd_bert_object *b, PyArrayObject *dlogits, int threads)
{
    kd_bert_run *run = b->run;
    b->run = NULL; /* backward overwrites the activations, so it runs once */
    memcpy(kd_bert_logits(run), PyArray_DATA(dlogits), (size_t)PyArray_SIZE(dlogits) * sizeof(float));
    if (do_phase(run, KD_PHASE_TAIL_BACK, threads) < 0 || do_phase(run, KD_PHASE_BODY_BACK, threads) < 0)
        return NULL;
    b->touched_count =
        kd_embed_mark(PyArray_DATA(b->touched), PyArray_DATA(b->mark), b->touched_count, kd_bert_batch(run));
    if (do_phase(run, KD_PHASE_WEIGHTS, threads) < 0) {
        kd_bert_forget_gradients(b);
        return NULL;
    }
    return Py_NewRef(Py_None);
}

static PyObject *bert_backward(PyObject *self, PyObject *args)
{
    kd_bert_object *b = (kd_bert_object *)self;
    PyObject *object;
    int threads;
    if (!PyArg_ParseTuple(args, "Oi:backward", &object, &threads) || kd_check_threads(threads) < 0)
        return NULL;
    if (!b->run) {
        PyErr_SetString(PyExc_RuntimeError,
                        "backward() without a forward pass to go back through: call forward(batch, train=True) first "
                        "(each forward serves one backward, and any other forward in between discards it)");
        return NULL;
    }
    PyArrayObject *dlogits = kd_array(object, "dlogits", NPY_FLOAT, 2);
    if (!dlogits)
        return NULL;
    Py_ssize_t rows = kd_bert_batch(b->run)->B;
    if (PyArray_DIM(dlogits, 0) != rows || PyArray_DIM(dlogits, 1) != b->model.config.K) {
        PyErr_Format(PyExc_ValueError, "dlogits has shape (%zd, %zd); expected (%zd, %zd), the shape of the logits",
                     (Py_ssize_t)PyArray_DIM(dlogits, 0), (Py_ssize_t)PyArray_DIM(dlogits, 1), rows,
                     (Py_ssize_t)b->model.config.K);
        return NULL;
    }
    if (kd_bert_enter(b) < 0)
        return NULL;
    PyObject *result = backward(b, dlogits, threads);
    b->busy = 0;
    return result;
}

static PyObject *bert_touch(PyObject *self, PyObject *unused)
{
    (void)unused;
    ((kd_bert_object *)self)->stale = 1;
    Py_RETURN_NONE;
}

static PyObject *bert_release(PyObject *self, PyObject *unused)
{
    kd_bert_object *b = (kd_bert_object *)self;
    (void)unused;
    if (kd_bert_enter(b) < 0)
        return NULL;
    b->run = NULL;
    Py_CLEAR(b->workspace);
    Py_CLEAR(b->packed);
    b->stale = 1;
    b->busy = 0;
    Py_RETURN_NONE;
}

static PyObject *bert_workspace_bytes(PyObject *self, void *unused)
{
    kd_bert_object *b = (kd_bert_object *)self;
    (void)unused;
    return PyLong_FromSsize_t(b->workspace ? (Py_ssize_t)PyArray_SIZE(b->workspace) : 0);
}

static void bert_dealloc(PyObject *self)
{
    kd_bert_object *b = (kd_bert_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(b->parameters);
    Py_CLEAR(b->gradients);
    Py_CLEAR(b->packed);
    Py_CLEAR(b->workspace);
    Py_CLEAR(b->new_workspace);
    Py_CLEAR(b->touched);
    Py_CLEAR(b->mark);
    PyMem_Free(b->segments);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef bert_methods[] = {
    {"check", bert_check, METH_VARARGS,
     "check($self, ids, types, starts, /)\n--\n\nRaises the ValueError that forward would raise for this batch."},
    {"forward", (PyCFunction)(void (*)(void))bert_forward, METH_VARARGS | METH_KEYWORDS,
     "forward($self, ids, types, starts, train, seed, step, place, threads, cls_only=True)\n--\n\n"
     "int32 (N,) ids and types, int64 (B + 1,) starts; float32 (B, K) logits. With train, dropout is on and\n"
     "what backward reads is kept."},
    {"backward", bert_backward, METH_VARARGS,
     "backward($self, dlogits, threads, /)\n--\n\nAdds the gradients of the last training forward to the gradient "
     "array."},
    {"touch", bert_touch, METH_NOARGS,
     "touch($self, /)\n--\n\nThe parameters were written: they are packed again before use."},
    {"clear_gradients", kd_py_clear_gradients, METH_VARARGS, kd_clear_gradients_doc},
    {"gradient_norm", kd_py_gradient_norm, METH_VARARGS, kd_gradient_norm_doc},
    {"scale_gradients", kd_py_scale_gradients, METH_VARARGS, kd_scale_gradients_doc},
    {"adamw_step", kd_py_adamw_step, METH_VARARGS, kd_adamw_step_doc},
    {"catch_up", kd_py_catch_up, METH_VARARGS, kd_catch_up_doc},
    {"release", bert_release, METH_NOARGS, "release($self, /)\n--\n\nGives workspace and packed weights back."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef bert_attributes[] = {
    {"workspace_bytes", bert_workspace_bytes, NULL, "Bytes of activations and scratch held.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot bert_slots[] = {
    {Py_tp_doc, "Bert(sizes, activation, layer_norm_eps, dropouts, parameters, gradients, workspace)\n--\n\n"
                "A model over flat float32 arrays that stay the caller's. gradients = None freezes it.\n"
                "workspace(bytes, rows, tokens) gives an int8 array for a batch that needs a larger one."},
    {Py_tp_init, bert_init},
    {Py_tp_dealloc, bert_dealloc},
    {Py_tp_methods, bert_methods},
    {Py_tp_getset, bert_attributes},
    {0, NULL},
};

PyType_Spec kd_bert_spec = {
    .name = "kdistill._core.Bert",
    .basicsize = sizeof(kd_bert_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = bert_slots,
};

static PyObject *tensor_entry(const kd_bert *model, kd_tensor t, ptrdiff_t layer)
{
    kd_tensor_info info = kd_bert_tensor_info(&model->config, t);
    ptrdiff_t offset = model->layout.offset[t] + layer * model->layout.stride;
    PyObject *name = info.place == KD_PLACE_LAYER
                         ? PyUnicode_FromFormat("bert.encoder.layer.%zd.%s", (Py_ssize_t)layer, info.name)
                         : PyUnicode_FromString(info.name);
    PyObject *shape = info.columns ? Py_BuildValue("(nn)", info.rows, info.columns) : Py_BuildValue("(n)", info.rows);
    if (!name || !shape) {
        Py_XDECREF(name);
        Py_XDECREF(shape);
        return NULL;
    }
    return Py_BuildValue("NNnO", name, shape, offset, info.columns ? Py_True : Py_False);
}

static int append_entry(PyObject *list, const kd_bert *model, kd_tensor t, ptrdiff_t layer)
{
    PyObject *entry = tensor_entry(model, t, layer);
    int failed = !entry || PyList_Append(list, entry) < 0;
    Py_XDECREF(entry);
    return failed ? -1 : 0;
}

PyObject *kd_py_bert_layout(PyObject *module, PyObject *args)
{
    kd_module_state *state = PyModule_GetState(module);
    PyObject *sizes;
    kd_bert_config config = {0};
    kd_bert model;
    if (!PyArg_ParseTuple(args, "O!:bert_layout", &PyTuple_Type, &sizes) || parse_sizes(sizes, &config) < 0)
        return NULL;
    kd_bert_describe(&model, &config, &state->arithmetic, 1);
    PyObject *list = PyList_New(0);
    kd_tensor_at at = {KD_TENSOR_word, 0};
    do {
        if (!list || append_entry(list, &model, at.tensor, at.layer) < 0) {
            Py_XDECREF(list);
            return NULL;
        }
    } while (kd_bert_next(&config, &at));
    return Py_BuildValue("nN", model.layout.size, list);
}
