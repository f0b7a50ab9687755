/* The module kdistill._core: its state and its start. */
#define KD_IMPORTS_NUMPY
#include "skin/kd_numpy.h"
#include "skin/kd_module_config.h"
#include "skin/kd_module_gradients.h"

#include "learning/kd_loss.h"
#include "model/kd_encoder.h"

#include <stdlib.h>

/* Returns the value of KDISTILL_ISA, or NULL when it is unset or empty. */
static const char *forced_level(void)
{
    const char *forced = getenv("KDISTILL_ISA");
    return forced && *forced ? forced : NULL;
}

/* Chooses the level that KDISTILL_ISA names, or the best. */
static int choose_level(kd_level *level)
{
    const kd_level best = kd_cpu_best();
    const char *forced = forced_level();
    if (!forced) {
        *level = best;
        return 0;
    }
    *level = kd_cpu_level(forced);
    if (*level == KD_LEVEL_COUNT) {
        PyErr_Format(PyExc_ImportError, "KDISTILL_ISA is '%s'; expected generic, avx2 or avx512", forced);
        return -1;
    }
    if (*level > best) {
        PyErr_Format(PyExc_ImportError, "KDISTILL_ISA is '%s'; this CPU has at most %s", forced, kd_cpu_name(best));
        return -1;
    }
    return 0;
}

/* BLIS may have been built without a level's kernels: then the next lower one is used, unless asked for. */
static int choose_arithmetic(kd_module_state *state)
{
    while (kd_arithmetic_init(&state->arithmetic, state->level) != KD_OK) {
        if (forced_level() || state->level == KD_LEVEL_GENERIC) {
            PyErr_Format(PyExc_ImportError, "the BLIS that kdistill was built with has no %s kernels",
                         kd_cpu_name(state->level));
            return -1;
        }
        state->level--;
    }
    return 0;
}

#if defined(__clang__)
#define KD_COMPILER "clang " __clang_version__
#else
#define KD_COMPILER "gcc " __VERSION__
#endif

/* Adds ISA_LEVELS: the names of the levels this CPU has, lowest first. */
static int add_levels(PyObject *module)
{
    PyObject *list = PyList_New(0);
    for (int level = 0; list && level <= (int)kd_cpu_best(); level++) {
        PyObject *name = PyUnicode_FromString(kd_cpu_name((kd_level)level));
        if (!name || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    PyObject *levels = list ? PyList_AsTuple(list) : NULL;
    int failed = !levels || PyModule_AddObjectRef(module, "ISA_LEVELS", levels) < 0;
    Py_XDECREF(list);
    Py_XDECREF(levels);
    return failed ? -1 : 0;
}

/* Adds ACTIVATIONS: the names of the activations. */
static int add_activations(PyObject *module)
{
    PyObject *names = kd_activation_names();
    int failed = !names || PyModule_AddObjectRef(module, "ACTIVATIONS", names) < 0;
    Py_XDECREF(names);
    return failed ? -1 : 0;
}

static int add_constants(PyObject *module, const kd_module_state *state)
{
    return add_levels(module) < 0 || add_activations(module) < 0 ||
                   PyModule_AddStringConstant(module, "ISA_LEVEL", kd_cpu_name(state->level)) < 0 ||
                   PyModule_AddStringConstant(module, "BLIS_VERSION", kd_outer_library_version()) < 0 ||
                   PyModule_AddStringConstant(module, "BLIS_KERNELS", state->arithmetic.outer.kernel_set) < 0 ||
                   PyModule_AddStringConstant(module, "COMPILER", KD_COMPILER) < 0 ||
                   PyModule_AddStringConstant(module, "COMPILER_FLAGS", KD_COMPILER_FLAGS) < 0 ||
                   PyModule_AddIntConstant(module, "NUMERICS_VERSION", KD_NUMERICS_VERSION) < 0 ||
                   PyModule_AddIntConstant(module, "ALIGNMENT", KD_ALIGN) < 0 ||
                   PyModule_AddIntConstant(module, "ADAMW_CONSTANTS", KD_HISTORY) < 0 ||
                   PyModule_AddIntConstant(module, "MAX_THREADS", KD_POOL_MAX_THREADS) < 0 ||
                   PyModule_AddIntConstant(module, "MAX_LAYERS", KD_MAX_LAYERS) < 0 ||
                   PyModule_AddIntConstant(module, "NO_LABEL", KD_LOSS_NO_LABEL) < 0 ||
                   PyModule_AddIntConstant(module, "LOSS_SINGLE_LABEL", KD_LOSS_SINGLE_LABEL) < 0 ||
                   PyModule_AddIntConstant(module, "LOSS_MULTI_LABEL", KD_LOSS_MULTI_LABEL) < 0 ||
                   PyModule_AddIntConstant(module, "LOSS_REGRESSION", KD_LOSS_REGRESSION) < 0
               ? -1
               : 0;
}

/* NumPy's C API works in one interpreter only, so this module does too. */
static int refuse_second_interpreter(void)
{
    if (PyInterpreterState_GetID(PyInterpreterState_Get()) == 0)
        return 0;
    PyErr_SetString(PyExc_ImportError, "kdistill works in the main interpreter only");
    return -1;
}

static int module_exec(PyObject *module)
{
    kd_module_state *state = PyModule_GetState(module);
    if (refuse_second_interpreter() < 0)
        return -1;
    if (PyArray_ImportNumPyAPI() < 0)
        return -1;
    if (choose_level(&state->level) < 0 || choose_arithmetic(state) < 0)
        return -1;
    if (kd_pool_init() != KD_OK) {
        PyErr_SetString(PyExc_ImportError, "kdistill cannot register its fork handlers");
        return -1;
    }
    state->model_type = PyType_FromModuleAndSpec(module, &kd_model_spec, NULL);
    if (!state->model_type || PyModule_AddObjectRef(module, "Model", state->model_type) < 0)
        return -1;
    if (PyModule_AddFunctions(module, kd_batch_methods) < 0 || PyModule_AddFunctions(module, kd_loss_methods) < 0 ||
        PyModule_AddFunctions(module, kd_peak_methods) < 0)
        return -1;
    return add_constants(module, state) < 0 ? -1 : kd_add_testing(module);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    kd_module_state *state = PyModule_GetState(module);
    Py_VISIT(state->model_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    kd_module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->model_type);
    return 0;
}

static PyMethodDef module_methods[] = {
    {"layout", kd_py_layout, METH_VARARGS,
     "layout($module, encoder, head, /)\n--\n\n"
     "Return the layout of a model's flat arrays: (size in floats, [(name, shape, offset, decay), ...]). encoder is a "
     "dict of layers\n"
     "((heads, feed_forward), ...), hidden, head_width, vocabulary, positions, types (0: none), first_position,\n"
     "activation, eps, dropout and attention_dropout; head of pick ('first' or 'all'), dense (the activation of its\n"
     "dense product, None: no such product), dropout_before, dropout_after and outputs."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kdistill._core",
    .m_doc = "The C core of kdistill: tokens in, gradients out.",
    .m_size = sizeof(kd_module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&module_definition); }
