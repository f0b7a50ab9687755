/* How many multiply-adds this CPU can do, for Python. */
#include "skin/kd_numpy.h"

#include "ground/kd_pool.h"

typedef struct peak_run {
    const kd_kernels *kernels;
    ptrdiff_t rounds;
    double flops[KD_POOL_MAX_THREADS];
    float results[KD_POOL_MAX_THREADS];
} peak_run;

static void peak_item(void *context, ptrdiff_t item, int member)
{
    peak_run *run = context;
    (void)member;
    run->flops[item] = run->kernels->multiply_adds(run->rounds, &run->results[item]);
}

static PyObject *py_multiply_adds(PyObject *module, PyObject *args)
{
    peak_run run = {.kernels = ((kd_module_state *)PyModule_GetState(module))->arithmetic[KD_FLOAT32].kernels};
    Py_ssize_t rounds;
    int threads;
    if (!PyArg_ParseTuple(args, "ni:multiply_adds", &rounds, &threads) || kd_check_threads(threads) < 0)
        return NULL;
    kd_team *team = kd_open_team(threads);
    if (!team)
        return NULL;
    run.rounds = rounds;
    Py_BEGIN_ALLOW_THREADS
    kd_pool_run(team, peak_item, &run, threads);
    kd_pool_close(team);
    Py_END_ALLOW_THREADS
    double flops = 0;
    for (int i = 0; i < threads; i++)
        flops += run.flops[i];
    return PyFloat_FromDouble(flops);
}

PyMethodDef kd_peak_methods[] = {
    {"multiply_adds", py_multiply_adds, METH_VARARGS,
     "multiply_adds($module, rounds, threads, /)\n--\n\n"
     "Do multiply-adds in the registers of that many threads. Return how many floating-point operations were done."},
    {NULL, NULL, 0, NULL},
};
