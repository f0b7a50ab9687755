#include "skin/kd_module_config.h"

#include <math.h>
#include <string.h>

static int check_range(const char *name, ptrdiff_t value, ptrdiff_t least, ptrdiff_t most)
{
    if (value >= least && value <= most)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s is %zd; expected %zd to %zd", name, (Py_ssize_t)value, (Py_ssize_t)least,
                 (Py_ssize_t)most);
    return -1;
}

static int check_size(const char *name, ptrdiff_t value, ptrdiff_t least)
{
    return check_range(name, value, least, INT32_MAX);
}

static int check_rate(const char *name, float rate)
{
    if (rate >= 0 && rate < 1)
        return 0;
    char found[32];
    PyOS_snprintf(found, sizeof found, "%g", (double)rate);
    PyErr_Format(PyExc_ValueError, "%s is %s; expected at least 0 and less than 1", name, found);
    return -1;
}

static int check_eps(float eps)
{
    if (eps >= 0 && isfinite(eps))
        return 0;
    char found[32];
    PyOS_snprintf(found, sizeof found, "%g", (double)eps);
    PyErr_Format(PyExc_ValueError, "eps is %s; expected a finite number of at least 0", found);
    return -1;
}

/* ((heads, feed-forward), ...), one pair a layer. */
static int parse_layers(PyObject *tuple, kd_shapes *s)
{
    const Py_ssize_t L = PyTuple_Size(tuple);
    if (check_range("the number of layers", L, 1, KD_MAX_LAYERS) < 0)
        return -1;
    if (!(s->layers = PyMem_Calloc((size_t)L, sizeof *s->layers)))
        return PyErr_NoMemory(), -1;
    s->encoder.L = L;
    s->encoder.layers = s->layers;
    for (Py_ssize_t l = 0; l < L; l++) {
        char heads[40], ffn[40];
        PyOS_snprintf(heads, sizeof heads, "layers[%zd][0]", l);
        PyOS_snprintf(ffn, sizeof ffn, "layers[%zd][1]", l);
        PyObject *layer = PyTuple_GetItem(tuple, l);
        if (!PyTuple_Check(layer)) {
            PyErr_Format(PyExc_TypeError, "layers[%zd] must be a pair (heads, feed_forward)", l);
            return -1;
        }
        if (!PyArg_ParseTuple(layer, "nn:layer", &s->layers[l].H, &s->layers[l].F) ||
            check_size(heads, s->layers[l].H, 1) < 0 || check_size(ffn, s->layers[l].F, 1) < 0)
            return -1;
    }
    return 0;
}

/* Layers can share tensors of one shape alone. */
static int check_shared(const kd_encoder_config *c)
{
    const kd_layer_shape *first = &c->layers[0];
    for (ptrdiff_t l = 1; c->shared && l < c->L; l++)
        if (c->layers[l].H != first->H || c->layers[l].F != first->F) {
            PyErr_Format(PyExc_ValueError, "layers[%zd] is (%zd, %zd); layers that are shared must all be (%zd, %zd)",
                         (Py_ssize_t)l, (Py_ssize_t)c->layers[l].H, (Py_ssize_t)c->layers[l].F, (Py_ssize_t)first->H,
                         (Py_ssize_t)first->F);
            return -1;
        }
    return 0;
}

/* A tuple of the heads of each layer. */
static int check_heads_of_layers(PyObject *of_layers, const kd_encoder_config *c)
{
    if (check_range("the number of layers in relative_heads[1]", PyTuple_Size(of_layers), c->L, c->L) < 0)
        return -1;
    for (ptrdiff_t l = 0; l < c->L; l++) {
        PyObject *heads = PyTuple_GetItem(of_layers, l);
        if (!PyTuple_Check(heads) || PyTuple_Size(heads) != c->layers[l].H) {
            PyErr_Format(PyExc_ValueError, "relative_heads[1][%zd] is %R; expected a tuple of the layer's %zd heads",
                         (Py_ssize_t)l, heads, (Py_ssize_t)c->layers[l].H);
            return -1;
        }
    }
    return 0;
}

/* (heads, ((head, ...), ...)): how many heads the table of relative positions has, and which of them each layer has. */
static int parse_columns(PyObject *tuple, kd_shapes *s)
{
    kd_encoder_config *c = &s->encoder;
    PyObject *of_layers;
    if (!PyArg_ParseTuple(tuple, "nO!:relative_heads", &c->RH, &PyTuple_Type, &of_layers) ||
        check_size("relative_heads[0]", c->RH, 1) < 0 || check_heads_of_layers(of_layers, c) < 0)
        return -1;
    /* Behind the layers, so that one call frees both. */
    const size_t layers = (size_t)c->L * sizeof *s->layers, heads = (size_t)kd_encoder_heads_before(c, c->L);
    void *larger = PyMem_Realloc(s->layers, layers + heads * sizeof *c->columns);
    if (!larger)
        return PyErr_NoMemory(), -1;
    c->layers = s->layers = larger;
    int32_t *columns = (int32_t *)((char *)larger + layers);
    c->columns = columns;
    for (ptrdiff_t l = 0; l < c->L; l++)
        for (ptrdiff_t head = 0; head < c->layers[l].H; head++) {
            const Py_ssize_t column = PyLong_AsSsize_t(PyTuple_GetItem(PyTuple_GetItem(of_layers, l), head));
            if ((column == -1 && PyErr_Occurred()) ||
                check_range("a head in relative_heads[1]", column, 0, c->RH - 1) < 0)
                return -1;
            *columns++ = (int32_t)column;
        }
    return 0;
}

/* Buckets as kd_relative.h takes them, for as many heads in all layers unless `heads` tells which these are. */
static int parse_relative(PyObject *heads, kd_shapes *s)
{
    kd_encoder_config *c = &s->encoder;
    c->RH = c->layers[0].H;
    if (!c->R && !c->distance && !heads)
        return 0;
    if (check_range("relative_buckets", c->R, 4, INT32_MAX) < 0 ||
        check_range("relative_distance", c->distance, c->R / 4 + 1, INT32_MAX) < 0)
        return -1;
    if (heads)
        return parse_columns(heads, s);
    for (ptrdiff_t l = 1; l < c->L; l++)
        if (c->layers[l].H != c->layers[0].H) {
            PyErr_Format(PyExc_ValueError,
                         "layers[%zd] has %zd heads; with relative_buckets all layers must have as many as the first, "
                         "%zd, unless relative_heads tells which they are",
                         (Py_ssize_t)l, (Py_ssize_t)c->layers[l].H, (Py_ssize_t)c->layers[0].H);
            return -1;
        }
    return 0;
}

/* All but the layers. */
static int check_encoder(const kd_encoder_config *c)
{
    if (check_size("hidden", c->C, 1) < 0 || check_size("head_width", c->D, 1) < 0 ||
        check_size("vocabulary", c->V, 1) < 0 || check_size("positions", c->P, 1) < 0 ||
        check_size("types", c->T, 0) < 0 || check_size("first_position", c->first_position, 0) < 0 ||
        check_size("embedding_width", c->E, 0) < 0 || check_eps(c->eps) < 0 ||
        check_rate("dropout", c->p_embedding) < 0 || check_rate("attention_dropout", c->p_attention) < 0 ||
        check_rate("output_dropout", c->p_output) < 0 || check_rate("feed_forward_dropout", c->p_feed_forward) < 0)
        return -1;
    if (c->first_position >= c->P) {
        PyErr_Format(PyExc_ValueError, "first_position is %zd; the model has %zd positions",
                     (Py_ssize_t)c->first_position, (Py_ssize_t)c->P);
        return -1;
    }
    return 0;
}

static int parse_encoder(PyObject *nothing, PyObject *dict, kd_shapes *s)
{
    static char *names[] = {"layers",
                            "hidden",
                            "head_width",
                            "vocabulary",
                            "positions",
                            "types",
                            "first_position",
                            "activation",
                            "eps",
                            "dropout",
                            "attention_dropout",
                            "output_dropout",
                            "feed_forward_dropout",
                            "embedding_width",
                            "shared",
                            "relative_buckets",
                            "relative_distance",
                            "relative_heads",
                            NULL};
    kd_encoder_config *c = &s->encoder;
    PyObject *layers, *relative_heads = NULL;
    const char *activation;
    c->p_output = c->p_feed_forward = NAN; /* not given: as the embeddings */
    if (!PyArg_ParseTupleAndKeywords(nothing, dict, "O!nnnnnnsfff|ffnpnnO!:encoder", names, &PyTuple_Type, &layers,
                                     &c->C, &c->D, &c->V, &c->P, &c->T, &c->first_position, &activation, &c->eps,
                                     &c->p_embedding, &c->p_attention, &c->p_output, &c->p_feed_forward, &c->E,
                                     &c->shared, &c->R, &c->distance, &PyTuple_Type, &relative_heads) ||
        kd_parse_activation(activation, &c->activation) < 0)
        return -1;
    c->p_output = isnan(c->p_output) ? c->p_embedding : c->p_output;
    c->p_feed_forward = isnan(c->p_feed_forward) ? c->p_embedding : c->p_feed_forward;
    if (check_encoder(c) < 0)
        return -1;
    c->projected = c->E > 0;
    c->E = c->projected ? c->E : c->C;
    return parse_layers(layers, s) < 0 || check_shared(c) < 0 || parse_relative(relative_heads, s) < 0 ? -1 : 0;
}

static int parse_pick(const char *pick, kd_head_config *h)
{
    static const char *const PICKS[] = {
        [KD_PICK_FIRST] = "first", [KD_PICK_ALL] = "all", [KD_PICK_LISTED] = "listed", [KD_PICK_MEAN] = "mean"};
    for (h->pick = 0; h->pick < KD_PICKS; h->pick++)
        if (strcmp(pick, PICKS[h->pick]) == 0)
            return 0;
    PyErr_Format(PyExc_ValueError, "pick is '%s'; expected first, all, listed or mean", pick);
    return -1;
}

static int parse_head(PyObject *nothing, PyObject *dict, kd_head_config *h)
{
    static char *names[] = {"pick", "dense",       "dropout_before", "dropout_after", "outputs",
                            "norm", "dense_width", "tied",           "unit",          NULL};
    const char *pick, *dense;
    if (!PyArg_ParseTupleAndKeywords(nothing, dict, "szffn|pnpp:head", names, &pick, &dense, &h->p_before, &h->p_after,
                                     &h->K, &h->norm, &h->J, &h->tied, &h->unit) ||
        check_size("outputs", h->K, 0) < 0 || check_size("dense_width", h->J, 0) < 0 ||
        check_rate("dropout_before", h->p_before) < 0 || check_rate("dropout_after", h->p_after) < 0 ||
        parse_pick(pick, h) < 0)
        return -1;
    if (h->unit && h->K) {
        PyErr_Format(PyExc_ValueError, "unit is True and outputs %zd; expected 0 outputs of a product",
                     (Py_ssize_t)h->K);
        return -1;
    }
    h->dense = dense != NULL;
    if (dense)
        return kd_parse_activation(dense, &h->activation);
    if (!h->norm && !h->J)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s is given and dense is None; expected an activation, since they belong together",
                 h->norm ? "norm" : "dense_width");
    return -1;
}

/* A tied head multiplies with the word embeddings, so it has their shape. */
static int check_tied(const kd_shapes *s)
{
    const ptrdiff_t V = s->encoder.V, width = s->encoder.E, J = kd_head_width(&s->head, s->encoder.C);
    if (!s->head.tied || (s->head.K == V && J == width))
        return 0;
    PyErr_Format(PyExc_ValueError,
                 "tied is True for %zd outputs of rows %zd wide; expected %zd of %zd, as the word embeddings have",
                 (Py_ssize_t)s->head.K, (Py_ssize_t)J, (Py_ssize_t)V, (Py_ssize_t)width);
    return -1;
}

static int check_total(const kd_shapes *s)
{
    const kd_encoder_config *c = &s->encoder;
    const double C = (double)c->C;
    const double J = (double)kd_head_width(&s->head, c->C);
    double floats = (double)c->E * ((double)c->V + (double)c->P + (double)c->T + (c->projected ? C : 0)) + C * J +
                    J * (double)s->head.K;
    floats += (double)c->R * (double)c->RH;
    for (ptrdiff_t l = 0; l < c->L; l++)
        floats += C * (4.0 * (double)c->layers[l].H * (double)c->D + 2.0 * (double)c->layers[l].F);
    if (floats <= 1e11)
        return 0;
    PyErr_SetString(PyExc_ValueError, "a model of these sizes has more than 1e11 parameters");
    return -1;
}

int kd_parse_shapes(PyObject *encoder, PyObject *head, kd_shapes *shapes)
{
    *shapes = (kd_shapes){0};
    PyObject *nothing = PyTuple_New(0);
    const int failed = !nothing || parse_encoder(nothing, encoder, shapes) < 0 ||
                       parse_head(nothing, head, &shapes->head) < 0 || check_tied(shapes) < 0 ||
                       check_total(shapes) < 0;
    Py_XDECREF(nothing);
    if (failed)
        PyMem_Free(shapes->layers);
    return failed ? -1 : 0;
}

static PyObject *tensor_entry(const kd_tensor *t)
{
    const char *name = kd_tensors_name(t->slot);
    PyObject *text =
        t->layer < 0 ? PyUnicode_FromString(name) : PyUnicode_FromFormat("layer.%zd.%s", (Py_ssize_t)t->layer, name);
    PyObject *shape = t->columns ? Py_BuildValue("(nn)", t->rows, t->columns) : Py_BuildValue("(n)", t->rows);
    if (!text || !shape) {
        Py_XDECREF(text);
        Py_XDECREF(shape);
        return NULL;
    }
    return Py_BuildValue("NNnO", text, shape, t->offset, t->decay ? Py_True : Py_False);
}

static PyObject *entries(const kd_tensor *tensors, ptrdiff_t count)
{
    PyObject *list = PyList_New(0);
    for (ptrdiff_t i = 0; list && i < count; i++) {
        PyObject *entry = tensor_entry(&tensors[i]);
        if (!entry || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    return list;
}

PyObject *kd_py_layout(PyObject *module, PyObject *args)
{
    const kd_module_state *state = PyModule_GetState(module);
    const kd_arithmetic *arithmetic = &state->arithmetic[KD_FLOAT32];
    PyObject *encoder, *head, *list = NULL;
    kd_shapes s;
    if (!PyArg_ParseTuple(args, "O!O!:layout", &PyDict_Type, &encoder, &PyDict_Type, &head) ||
        kd_parse_shapes(encoder, head, &s) < 0)
        return NULL;
    kd_tensors_sizes sizes = kd_tensors_fill(NULL, &s.encoder, &s.head, arithmetic, 1);
    kd_tensor *tensors = PyMem_Calloc((size_t)sizes.count, sizeof *tensors);
    if (tensors) {
        kd_tensors_fill(tensors, &s.encoder, &s.head, arithmetic, 1);
        list = entries(tensors, sizes.count);
    } else {
        PyErr_NoMemory();
    }
    PyMem_Free(tensors);
    PyMem_Free(s.layers);
    return list ? Py_BuildValue("nN", sizes.parameters, list) : NULL;
}
