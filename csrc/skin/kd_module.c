/* The module kdistill._core: its state and its start. */
#define KD_IMPORTS_NUMPY
#include "skin/kd_numpy.h"
#include "skin/kd_module_config.h"
#include "skin/kd_module_gradients.h"

#include "learning/kd_loss.h"
#include "model/kd_encoder.h"

#include <stdlib.h>
#include <string.h>

/* Returns the value of KDISTILL_ISA, or NULL when it is unset or empty. */
static const char *forced_isa(void)
{
    const char *forced = getenv("KDISTILL_ISA");
    return forced && *forced ? forced : NULL;
}

static int has_isa(const kd_cpu *cpu, int isa)
{
    const kd_cpu needed = kd_cpu_isa(isa);
    return kd_cpu_has(cpu, needed.level, needed.features);
}

/* A list of the names of all instruction sets, or of those that `cpu` has, lowest first. */
static PyObject *isa_names(const kd_cpu *cpu)
{
    PyObject *list = PyList_New(0);
    for (int isa = 0; list && kd_cpu_isa_name(isa); isa++) {
        if (cpu && !has_isa(cpu, isa))
            continue;
        PyObject *name = PyUnicode_FromString(kd_cpu_isa_name(isa));
        if (!name || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

/* An ImportError for a KDISTILL_ISA that is not among `names`. */
static void refuse_isa(const char *forced, const char *sentence, PyObject *names)
{
    PyObject *separator = names ? PyUnicode_FromString(", ") : NULL;
    PyObject *joined = separator ? PyUnicode_Join(separator, names) : NULL;
    if (joined)
        PyErr_Format(PyExc_ImportError, "KDISTILL_ISA is '%s'; %s %U", forced, sentence, joined);
    Py_XDECREF(separator);
    Py_XDECREF(joined);
    Py_XDECREF(names);
}

/* Chooses the instruction set that KDISTILL_ISA names, or all that the CPU has. */
static int choose_cpu(kd_cpu *cpu)
{
    const kd_cpu all = kd_cpu_detect();
    const char *forced = forced_isa();
    *cpu = all;
    if (!forced)
        return 0;
    int isa = 0;
    while (kd_cpu_isa_name(isa) && strcmp(kd_cpu_isa_name(isa), forced) != 0)
        isa++;
    if (!kd_cpu_isa_name(isa)) {
        refuse_isa(forced, "expected one of", isa_names(NULL));
        return -1;
    }
    if (!has_isa(&all, isa)) {
        refuse_isa(forced, "this CPU has", isa_names(&all));
        return -1;
    }
    *cpu = kd_cpu_isa(isa);
    return 0;
}

/* BLIS may have been built without a level's kernels: then the next lower one is used, unless asked for. */
static int choose_arithmetic(kd_module_state *state)
{
    while (kd_arithmetic_init(&state->arithmetic[KD_FLOAT32], &state->cpu, KD_FLOAT32) != KD_OK) {
        if (forced_isa() || state->cpu.level == KD_LEVEL_GENERIC) {
            PyErr_Format(PyExc_ImportError, "the BLIS that kdistill was built with has no %s kernels",
                         kd_cpu_level_name(state->cpu.level));
            return -1;
        }
        state->cpu.level--;
    }
    for (int compute = KD_FLOAT32 + 1; compute < KD_COMPUTES; compute++)
        kd_arithmetic_init(&state->arithmetic[compute], &state->cpu, (kd_compute)compute);
    return 0;
}

#if defined(__clang__)
#define KD_COMPILER "clang " __clang_version__
#else
#define KD_COMPILER "gcc " __VERSION__
#endif

/* Adds ISA_LEVELS: the names of the instruction sets this CPU has, lowest first. */
static int add_levels(PyObject *module)
{
    const kd_cpu all = kd_cpu_detect();
    PyObject *list = isa_names(&all);
    PyObject *levels = list ? PyList_AsTuple(list) : NULL;
    int failed = !levels || PyModule_AddObjectRef(module, "ISA_LEVELS", levels) < 0;
    Py_XDECREF(list);
    Py_XDECREF(levels);
    return failed ? -1 : 0;
}

/* Adds COMPUTE: for each compute type the instruction set that multiplies it, None if none of this CPU's does. */
static int add_compute(PyObject *module, const kd_module_state *state)
{
    PyObject *types = PyDict_New();
    int failed = !types;
    for (int compute = 0; !failed && compute < KD_COMPUTES; compute++) {
        const kd_engine *engine = &state->arithmetic[compute].engine;
        PyObject *isa = engine->native ? PyUnicode_FromString(engine->isa) : Py_NewRef(Py_None);
        failed = !isa || PyDict_SetItemString(types, kd_engine_compute_name((kd_compute)compute), isa) < 0;
        Py_XDECREF(isa);
    }
    failed = failed || PyModule_AddObjectRef(module, "COMPUTE", types) < 0;
    Py_XDECREF(types);
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
    return add_levels(module) < 0 || add_compute(module, state) < 0 || add_activations(module) < 0 ||
                   PyModule_AddStringConstant(module, "ISA_LEVEL", kd_cpu_level_name(state->cpu.level)) < 0 ||
                   PyModule_AddStringConstant(module, "BLIS_VERSION", kd_outer_library_version()) < 0 ||
                   PyModule_AddStringConstant(module, "BLIS_KERNELS", state->arithmetic[KD_FLOAT32].outer.kernel_set) <
                       0 ||
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
                   PyModule_AddIntConstant(module, "LOSS_REGRESSION", KD_LOSS_REGRESSION) < 0 ||
                   PyModule_AddIntConstant(module, "LOSS_COSINE", KD_LOSS_COSINE) < 0
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
    if (choose_cpu(&state->cpu) < 0 || choose_arithmetic(state) < 0)
        return -1;
    if (kd_pool_init() != KD_OK) {
        PyErr_SetString(PyExc_ImportError, "kdistill cannot register its fork handlers");
        return -1;
    }
    state->model_type = PyType_FromModuleAndSpec(module, &kd_model_spec, NULL);
    if (!state->model_type || PyModule_AddObjectRef(module, "Model", state->model_type) < 0)
        return -1;
    if (PyModule_AddFunctions(module, kd_batch_methods) < 0 || PyModule_AddFunctions(module, kd_loss_methods) < 0 ||
        PyModule_AddFunctions(module, kd_match_methods) < 0 || PyModule_AddFunctions(module, kd_peak_methods) < 0)
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
     "Return the layout of a model's flat arrays: (size in floats, [(name, shape, offset, decay), ...]). What the\n"
     "dicts encoder and head hold is told in _core/__init__.pyi."},
    {"adamw", kd_py_adamw, METH_VARARGS,
     "adamw($module, p, g, m, v, constants, t, threads, /)\n--\n\n"
     "Do the t-th AdamW step on flat arrays, in place. constants is (lr, beta1, beta2, eps, weight_decay)."},
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
