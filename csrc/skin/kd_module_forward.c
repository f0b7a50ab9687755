#include "skin/kd_module_forward.h"

#include "skin/kd_module_taps.h"

#include <string.h>

/* ---- batches */

static int check_lengths(const kd_batch *batch, const kd_encoder_config *c)
{
    const ptrdiff_t positions = c->P - c->first_position;
    if (batch->starts[0] != 0 || batch->starts[batch->B] != batch->N) {
        PyErr_Format(PyExc_ValueError, "starts must run from 0 to %zd, the number of tokens", (Py_ssize_t)batch->N);
        return -1;
    }
    for (ptrdiff_t b = 0; b < batch->B; b++) {
        int64_t length = batch->starts[b + 1] - batch->starts[b];
        if (length >= 1 && length <= positions)
            continue;
        if (length < 1)
            PyErr_Format(PyExc_ValueError, "input_ids[%zd] is empty; every row needs at least one token",
                         (Py_ssize_t)b);
        else
            PyErr_Format(PyExc_ValueError,
                         "input_ids[%zd] has %lld tokens; the model has %zd positions (truncate with max_length)",
                         (Py_ssize_t)b, (long long)length, (Py_ssize_t)positions);
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
static int check_batch(const kd_batch *batch, ptrdiff_t types, const kd_encoder_config *c)
{
    if (batch->B < 1 || types != batch->N) {
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
                   check_values(batch, batch->types, "token_type_ids", kd_max(c->T, 1), kinds) < 0
               ? -1
               : 0;
}

/* Copies of ids, types and starts, which `batch` points into. */
typedef struct own_batch {
    PyArrayObject *ids, *types, *starts;
    kd_batch batch;
} own_batch;

static void drop_batch(own_batch *own)
{
    Py_CLEAR(own->ids);
    Py_CLEAR(own->types);
    Py_CLEAR(own->starts);
}

/* Copies a batch, then checks the copy. 0; or -1 with an exception, and nothing to drop. */
static int take_batch(own_batch *own, PyObject *ids, PyObject *types, PyObject *starts, const kd_encoder_config *c)
{
    *own = (own_batch){0};
    own->ids = kd_array_copy(ids, "ids", NPY_INT32, 1);
    own->types = own->ids ? kd_array_copy(types, "types", NPY_INT32, 1) : NULL;
    own->starts = own->types ? kd_array_copy(starts, "starts", NPY_INT64, 1) : NULL;
    if (own->starts) {
        own->batch = (kd_batch){PyArray_DATA(own->ids), PyArray_DATA(own->types), PyArray_DATA(own->starts),
                                PyArray_SIZE(own->starts) - 1, PyArray_SIZE(own->ids)};
        if (check_batch(&own->batch, PyArray_SIZE(own->types), c) == 0)
            return 0;
    }
    drop_batch(own);
    return -1;
}

/* The tokens that a head of listed rows reads, copied and then checked; NULL in *rows without any. 0, or -1 with an
 * exception. */
static int take_rows(PyArrayObject **rows, PyObject *object, const kd_batch *batch, kd_pick pick)
{
    *rows = NULL;
    if (object == Py_None)
        return 0;
    if (pick != KD_PICK_LISTED) {
        PyErr_SetString(PyExc_ValueError,
                        "rows were given; expected None, as this model's head chooses its rows itself");
        return -1;
    }
    if (!(*rows = kd_array_copy(object, "rows", NPY_INT64, 1)))
        return -1;
    const int64_t *row = PyArray_DATA(*rows);
    for (ptrdiff_t i = 0; i < PyArray_SIZE(*rows); i++)
        if (row[i] < (i > 0 ? row[i - 1] + 1 : 0) || row[i] >= batch->N) {
            PyErr_Format(PyExc_ValueError, "rows[%zd] is %lld; expected ascending tokens of the batch, 0 to %zd",
                         (Py_ssize_t)i, (long long)row[i], (Py_ssize_t)(batch->N - 1));
            Py_CLEAR(*rows);
            return -1;
        }
    return 0;
}

/* ---- passes */

typedef struct phase_work {
    kd_run *run;
    kd_phase phase;
} phase_work;

static void phase_slice(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    const phase_work *work = context;
    kd_run_do(work->run, work->phase, team, from, to);
}

static void shared_slice(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    const phase_work *work = context;
    kd_run_do_shared(work->run, work->phase, team, from, to);
}

/* With at most as many threads as the workspace has members for. */
static int do_phase(kd_run *run, kd_phase phase, int threads)
{
    phase_work work = {run, phase};
    threads = (int)kd_min(threads, run->pass.threads);
    const double cost = kd_run_item_cost(run, phase);
    const int sharers = kd_run_sharers(run, phase, threads);
    if (sharers > 1)
        return kd_object_do_shared(shared_slice, &work, kd_run_items(run, phase), kd_slice_step(cost / sharers, 1),
                                   sharers);
    return kd_object_do_slices(phase_slice, &work, kd_run_items(run, phase), kd_slice_step(cost, threads), threads);
}

static void pack_slice(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    kd_model_pack(context, team, from, to);
}

/* Weights are packed when a pass first needs them: a teacher whose logits are all in the cache never does. */
static int pack_if_stale(kd_model_object *o, int threads)
{
    const ptrdiff_t bytes = o->model.sizes.packed;
    if (!o->packed && !(o->packed = kd_new_bytes((size_t)bytes)))
        return -1;
    o->model.packed = kd_aligned(o->packed);
    kd_model_bind(&o->model);
    const ptrdiff_t items = o->model.sizes.count, slices = kd_ceil_div(bytes, KD_SLICE_BYTES);
    const unsigned version = o->version; /* another thread may touch() the parameters meanwhile */
    if (o->packed_version == version)
        return 0;
    if (kd_object_do_slices(pack_slice, &o->model, items, kd_ceil_div(items, slices), threads) < 0)
        return -1;
    o->packed_version = version; /* only now: a child forked between two slices packs again */
    return 0;
}

/* Makes the workspace at least `bytes` large, by asking Python for a larger one: it knows what memory is left. */
static int need_workspace(kd_model_object *o, size_t bytes, const kd_batch *batch)
{
    const Py_ssize_t size = (Py_ssize_t)(bytes + KD_ALIGN);
    if (o->workspace && PyArray_SIZE(o->workspace) >= size)
        return 0;
    Py_CLEAR(o->workspace); /* the old one first: both at once would double the peak */
    PyObject *made = PyObject_CallFunction(o->new_workspace, "nnn", size, (Py_ssize_t)batch->B, (Py_ssize_t)batch->N);
    if (!made)
        return -1;
    PyArrayObject *array = (PyArrayObject *)made;
    if (!PyArray_Check(made) || PyArray_TYPE(array) != NPY_BYTE || !PyArray_ISCARRAY(array) ||
        PyArray_SIZE(array) < size) {
        Py_DECREF(made);
        PyErr_Format(PyExc_TypeError, "workspace() did not return an int8 array of at least %zd bytes", size);
        return -1;
    }
    o->workspace = array;
    return 0;
}

static PyObject *copy_outputs(const kd_run *run)
{
    npy_intp shape[2] = {run->head_rows, kd_head_outputs(&run->model->head, run->model->encoder.C)};
    PyObject *outputs = PyArray_SimpleNew(2, shape, NPY_FLOAT);
    if (outputs)
        memcpy(PyArray_DATA((PyArrayObject *)outputs), run->head.outputs,
               (size_t)(shape[0] * shape[1]) * sizeof(float));
    return outputs;
}

static PyObject *forward(kd_model_object *o, const kd_pass *pass)
{
    o->run = NULL;
    if (!kd_map_fits(&o->model, pass)) {
        PyErr_Format(PyExc_MemoryError, "a pass of %zd rows with %zd tokens is larger than any memory",
                     (Py_ssize_t)pass->batch.B, (Py_ssize_t)pass->batch.N);
        return NULL;
    }
    if (need_workspace(o, kd_map_bytes(&o->model, pass), &pass->batch) < 0 || pack_if_stale(o, pass->threads) < 0)
        return NULL;
    kd_run *run = kd_map_begin(&o->model, kd_aligned(o->workspace), pass);
    if (do_phase(run, KD_PHASE_LAYERS, pass->threads) < 0 || do_phase(run, KD_PHASE_HEAD, pass->threads) < 0)
        return NULL;
    PyObject *outputs = pass->features_only ? Py_NewRef(Py_None) : copy_outputs(run);
    if (outputs && (pass->mode == KD_TRAIN || pass->features_only))
        o->run = run;
    return outputs;
}

/* The outputs; with taps a pair of them and the dict of tapped arrays. */
static PyObject *forward_tapped(kd_model_object *o, kd_pass *pass, PyObject *taps)
{
    kd_asked_taps asked = {{NULL, 0}, NULL};
    if (taps && kd_ask_taps(taps, &o->model.encoder, &pass->batch, &asked) < 0)
        return NULL;
    pass->taps = asked.taps;
    PyObject *outputs = forward(o, pass);
    PyObject *result = outputs && asked.arrays ? PyTuple_Pack(2, outputs, asked.arrays) : Py_XNewRef(outputs);
    Py_XDECREF(outputs);
    kd_drop_taps(&asked);
    return result;
}

PyObject *kd_py_check(PyObject *self, PyObject *args)
{
    PyObject *ids, *types, *starts;
    own_batch own;
    if (!PyArg_ParseTuple(args, "OOO:check", &ids, &types, &starts) ||
        take_batch(&own, ids, types, starts, &((kd_model_object *)self)->model.encoder) < 0)
        return NULL;
    PyObject *copies = PyTuple_Pack(3, own.ids, own.types, own.starts);
    drop_batch(&own);
    return copies;
}

PyObject *kd_py_forward(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"ids",     "types",      "starts", "train", "seed",    "step", "place",
                            "threads", "whole_last", "taps",   "rows",  "outputs", NULL};
    kd_model_object *o = (kd_model_object *)self;
    PyObject *ids, *types, *starts, *taps = NULL, *rows = Py_None;
    unsigned long long seed;
    unsigned int step, place;
    int train, wanted = 1;
    kd_pass pass = {.whole_last = 0};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOpKIIi|p$OOp:forward", names, &ids, &types, &starts, &train,
                                     &seed, &step, &place, &pass.threads, &pass.whole_last, &taps, &rows, &wanted) ||
        kd_check_threads(pass.threads) < 0)
        return NULL;
    if (train && o->parameters && !o->gradients) {
        PyErr_SetString(PyExc_RuntimeError, "this model is frozen; it has no gradients to train with");
        return NULL;
    }
    if (!wanted && o->model.head.K == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "outputs is False; expected True, as this head has no last product to leave out");
        return NULL;
    }
    pass.features_only = !wanted;
    pass.mode = train ? KD_TRAIN : KD_EVALUATE;
    pass.dropout = (kd_dropout){seed, step, place, train};
    if (kd_object_enter(o) < 0)
        return NULL;
    own_batch own;
    PyObject *outputs = NULL;
    if (take_batch(&own, ids, types, starts, &o->model.encoder) == 0) {
        pass.batch = own.batch;
        PyArrayObject *listed;
        if (take_rows(&listed, rows, &own.batch, o->model.head.pick) == 0) {
            pass.rows = listed ? PyArray_DATA(listed) : NULL;
            pass.row_count = listed ? PyArray_SIZE(listed) : 0;
            outputs = forward_tapped(o, &pass, taps);
            Py_XDECREF((PyObject *)listed);
        }
        drop_batch(&own);
    }
    o->busy = 0;
    return outputs;
}

/* The first two phases touch no gradient, so an interrupt there leaves them as they were, unless kd_decoder has added a
 * part before. The last adds them up: interrupted, it leaves nothing half-added but gives the whole effective batch
 * up. */
int kd_go_back(kd_model_object *o, kd_run *run, int threads)
{
    int failed = do_phase(run, KD_PHASE_HEAD_BACK, threads) < 0 || do_phase(run, KD_PHASE_LAYERS_BACK, threads) < 0;
    if (!failed) {
        kd_object_touch(o, &run->pass.batch);
        o->adding = 1;
        failed = do_phase(run, KD_PHASE_WEIGHTS, threads) < 0;
    }
    if (failed)
        kd_object_forget_part(o);
    o->adding = 0;
    return failed ? -1 : 0;
}

/* Copies the gradients of the outputs to where backward reads them. */
static int take_doutputs(const kd_run *run, PyObject *object)
{
    PyArrayObject *doutputs = kd_array(object, "dlogits", NPY_FLOAT, 2);
    if (!doutputs)
        return -1;
    const Py_ssize_t rows = run->head_rows, K = kd_head_outputs(&run->model->head, run->model->encoder.C);
    if (PyArray_DIM(doutputs, 0) != rows || PyArray_DIM(doutputs, 1) != K) {
        PyErr_Format(PyExc_ValueError, "dlogits has shape (%zd, %zd); expected (%zd, %zd), the shape of the logits",
                     (Py_ssize_t)PyArray_DIM(doutputs, 0), (Py_ssize_t)PyArray_DIM(doutputs, 1), rows, K);
        return -1;
    }
    memcpy(run->head.outputs, PyArray_DATA(doutputs), (size_t)PyArray_SIZE(doutputs) * sizeof(float));
    return 0;
}

static PyObject *backward(kd_model_object *o, PyObject *doutputs, PyObject *gradients, int threads)
{
    kd_run *run = o->run;
    if (!run || run->pass.mode != KD_TRAIN || run->pass.features_only) {
        PyErr_SetString(PyExc_RuntimeError,
                        "backward() without a forward pass to go back through: call forward(batch, train=True) first "
                        "(each forward serves one backward, and any other forward in between discards it)");
        return NULL;
    }
    PyObject *copies = take_doutputs(run, doutputs) < 0 ? NULL : kd_take_tap_gradients(gradients, run);
    if (!copies)
        return NULL;
    o->run = NULL; /* backward overwrites the activations, so it runs once */
    const int failed = kd_go_back(o, run, threads) < 0;
    Py_DECREF(copies);
    return failed ? NULL : Py_NewRef(Py_None);
}

PyObject *kd_py_backward(PyObject *self, PyObject *args)
{
    kd_model_object *o = (kd_model_object *)self;
    PyObject *doutputs, *gradients = Py_None;
    int threads;
    if (!PyArg_ParseTuple(args, "Oi|O:backward", &doutputs, &threads, &gradients) || kd_check_threads(threads) < 0 ||
        kd_object_enter(o) < 0)
        return NULL;
    PyObject *result = backward(o, doutputs, gradients, threads);
    o->busy = 0;
    return result;
}
