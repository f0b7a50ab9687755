#include "skin/kd_module_decoder.h"

#include "skin/kd_module_forward.h"
#include "skin/kd_module_taps.h"

#include "learning/kd_decoder.h"

/* The run of a forward pass that left the outputs out, or NULL with an exception. */
static kd_run *features_run(const kd_model_object *o, const char *whose)
{
    if (o->run && o->run->pass.features_only)
        return o->run;
    PyErr_Format(PyExc_RuntimeError,
                 "softmax_loss() without a forward pass of %s that left the outputs out: call forward(..., "
                 "outputs=False) first",
                 whose);
    return NULL;
}

/* Checks labels (M) of a head with K outputs. */
static int check_labels(const kd_run *run, PyArrayObject *labels)
{
    const int64_t *label = PyArray_DATA(labels);
    const Py_ssize_t M = PyArray_SIZE(labels), K = run->model->head.K;
    if (M != run->head_rows) {
        PyErr_Format(PyExc_ValueError, "labels has %zd rows; expected %zd, as the pass has", M,
                     (Py_ssize_t)run->head_rows);
        return -1;
    }
    for (Py_ssize_t r = 0; r < M; r++)
        if (label[r] != KD_LOSS_NO_LABEL && (label[r] < 0 || label[r] >= K)) {
            PyErr_Format(PyExc_ValueError, "labels[%zd] is %lld; expected 0 to %zd, or -100 for a row without a label",
                         r, (long long)label[r], K - 1);
            return -1;
        }
    return 0;
}

/* Lets the decoder write the scores into an array (M, 2), unless it is None. */
static int take_scores(kd_decoder *decoder, PyObject *scores)
{
    if (scores == Py_None)
        return 0;
    PyArrayObject *array = kd_array_out(scores, "scores", NPY_FLOAT32, 2, 2 * decoder->student->head_rows);
    if (!array)
        return -1;
    decoder->scores = kd_floats(array);
    return 0;
}

static int check_teacher(const kd_run *student, const kd_run *teacher)
{
    if (teacher->head_rows == student->head_rows && teacher->model->head.K == student->model->head.K)
        return 0;
    PyErr_Format(PyExc_ValueError,
                 "the teacher's pass has %zd rows of %zd outputs; expected %zd of %zd, as the student's",
                 (Py_ssize_t)teacher->head_rows, (Py_ssize_t)teacher->model->head.K, (Py_ssize_t)student->head_rows,
                 (Py_ssize_t)student->model->head.K);
    return -1;
}

/* The copies that the way back reads, as kd_take_tap_gradients; only a run that trains goes back. */
static PyObject *take_gradients(PyObject *gradients, kd_run *run)
{
    if (gradients == Py_None || run->pass.mode == KD_TRAIN)
        return kd_take_tap_gradients(gradients, run);
    PyErr_SetString(PyExc_ValueError, "gradients were given; expected None, as the pass does not train");
    return NULL;
}

typedef struct decoder_work {
    kd_decoder *decoder;
    kd_decoder_phase phase;
} decoder_work;

static void decoder_slice(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    const decoder_work *work = context;
    kd_decoder_do(work->decoder, work->phase, team, from, to);
}

/* All blocks, with the phases that go back if the run trains. 0, or -1 with an exception. */
static int do_blocks(kd_model_object *o, kd_decoder *decoder, int threads)
{
    const int train = decoder->student->pass.mode == KD_TRAIN;
    while (kd_decoder_next(decoder)) {
        if (PyErr_CheckSignals() < 0) /* each phase of a small block is one slice */
            return -1;
        for (int phase = 0; phase < (train ? KD_DECODER_PHASES : KD_DECODER_FEATURES); phase++) {
            decoder_work work = {decoder, (kd_decoder_phase)phase};
            o->adding |= phase == KD_DECODER_WEIGHTS;
            const ptrdiff_t step = kd_slice_step(kd_decoder_item_cost(decoder, work.phase), threads);
            if (kd_object_do_slices(decoder_slice, &work, kd_decoder_items(decoder, work.phase), step, threads) < 0)
                return -1;
        }
    }
    return 0;
}

/* The blocks, and the rest of the way back if the run trains: it gives the whole effective batch up when it is
 * interrupted after a block has begun to add, or when the loss is not finite. */
static int compute(kd_model_object *o, kd_decoder *decoder, kd_loss_result *result, int threads)
{
    const int train = decoder->student->pass.mode == KD_TRAIN;
    if (train)
        kd_object_touch(o, &decoder->student->pass.batch);
    if (do_blocks(o, decoder, threads) < 0) {
        kd_object_forget_part(o);
        return -1;
    }
    *result = kd_decoder_result(decoder);
    if (train && result->not_finite == 0)
        return kd_go_back(o, decoder->student, threads);
    if (train)
        kd_object_forget_gradients(o);
    return 0;
}

/* What softmax_loss() was called with beside the decoder's settings. */
typedef struct decoder_arguments {
    PyObject *labels, *scores, *gradients;
} decoder_arguments;

/* Of an object that was entered, and so was the teacher's. */
static PyObject *softmax_loss(kd_model_object *o, kd_model_object *teacher, const decoder_arguments *given,
                              kd_decoder *decoder, int threads)
{
    if (!(decoder->student = features_run(o, "the model")) ||
        (teacher && (!(decoder->teacher = features_run(teacher, "the teacher")) ||
                     check_teacher(decoder->student, decoder->teacher) < 0)))
        return NULL;
    PyArrayObject *labels = kd_array_copy(given->labels, "labels", NPY_INT64, 1);
    kd_loss_result result;
    PyObject *rows = NULL, *copies = NULL;
    if (labels && check_labels(decoder->student, labels) == 0 && take_scores(decoder, given->scores) == 0 &&
        (copies = take_gradients(given->gradients, decoder->student))) {
        decoder->labels = PyArray_DATA(labels);
        threads = (int)kd_min(threads, decoder->student->pass.threads);
        o->run = NULL; /* its features may become gradients, so it serves once */
        if (compute(o, decoder, &result, threads) == 0)
            rows = kd_rows_named(result.rows, kd_min(result.not_finite, KD_LOSS_ROWS_NAMED));
    }
    Py_XDECREF((PyObject *)labels);
    Py_XDECREF(copies);
    return rows ? Py_BuildValue("dddnN", result.loss, result.hard, result.soft, (Py_ssize_t)result.not_finite, rows)
                : NULL;
}

PyObject *kd_py_softmax_loss(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"labels",  "alpha", "temperature", "smoothing", "threads",
                            "teacher", "share", "scores",      "gradients", NULL};
    kd_model_object *o = (kd_model_object *)self;
    decoder_arguments given = {NULL, Py_None, Py_None};
    PyObject *other = Py_None;
    kd_decoder decoder = {.share = 1};
    int threads;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "Odddi|OdOO:softmax_loss", names, &given.labels, &decoder.alpha,
                                     &decoder.temperature, &decoder.smoothing, &threads, &other, &decoder.share,
                                     &given.scores, &given.gradients) ||
        kd_check_threads(threads) < 0)
        return NULL;
    if (other != Py_None && (Py_TYPE(other) != Py_TYPE(self) || other == self)) {
        PyErr_SetString(PyExc_TypeError, "teacher must be another Model, or None");
        return NULL;
    }
    kd_model_object *teacher = other == Py_None ? NULL : (kd_model_object *)other;
    PyObject *result = NULL;
    if (kd_object_enter(o) < 0)
        return NULL;
    if (!teacher || kd_object_enter(teacher) == 0) {
        result = softmax_loss(o, teacher, &given, &decoder, threads);
        if (teacher)
            teacher->busy = 0;
    }
    o->busy = 0;
    return result;
}
