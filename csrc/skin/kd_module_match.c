/* The losses on taps for Python. */
#include "skin/kd_module_object.h"

#include "learning/kd_match.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Returns the index of the loss of this name, or -1 with a ValueError. */
static int parse_loss(const char *name, const char *(*name_of)(int loss))
{
    char names[128] = "";
    int loss = 0;
    for (; name_of(loss); loss++) {
        if (strcmp(name, name_of(loss)) == 0)
            return loss;
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", loss ? ", " : "", name_of(loss));
    }
    PyErr_Format(PyExc_ValueError, "loss is '%s'; expected one of %s", name, names);
    return -1;
}

/* Without a branch a number: a gradient may be large. */
static int all_finite(const float *numbers, ptrdiff_t n)
{
    int finite = 1;
    for (ptrdiff_t i = 0; i < n; i++)
        finite &= fabsf(numbers[i]) <= FLT_MAX;
    return finite;
}

/* The first of `terms` that is not finite, or n. */
static ptrdiff_t first_not_finite(const double *terms, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    while (i < n && isfinite(terms[i]))
        i++;
    return i;
}

/* A new array of floats like `array`, or NULL with an exception. */
static PyArrayObject *new_like(PyArrayObject *array)
{
    return (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(array), PyArray_DIMS(array), NPY_FLOAT);
}

/* ---- rows ------------------------------------------------------------------------------------------- */

/* Copies of the arrays, and the results. Without a projection the student's copy becomes its gradient. */
typedef struct row_arrays {
    PyArrayObject *student, *teacher, *projection, *dstudent, *dprojection, *scratch;
} row_arrays;

static void drop_row_arrays(row_arrays *arrays)
{
    Py_CLEAR(arrays->student);
    Py_CLEAR(arrays->teacher);
    Py_CLEAR(arrays->projection);
    Py_CLEAR(arrays->dstudent);
    Py_CLEAR(arrays->dprojection);
    Py_CLEAR(arrays->scratch);
}

static int check_rows(PyArrayObject *student, PyArrayObject *teacher, PyArrayObject *projection)
{
    const Py_ssize_t R = PyArray_DIM(student, 0), S = PyArray_DIM(student, 1), T = PyArray_DIM(teacher, 1);
    if (R < 1 || S < 1 || T < 1)
        PyErr_Format(PyExc_ValueError,
                     "student is %zd x %zd and teacher has %zd columns; expected at least one of each", R, S, T);
    else if (PyArray_DIM(teacher, 0) != R)
        PyErr_Format(PyExc_ValueError, "teacher has %zd rows; expected %zd, as student has",
                     (Py_ssize_t)PyArray_DIM(teacher, 0), R);
    else if (projection && (PyArray_DIM(projection, 0) != T || PyArray_DIM(projection, 1) != S))
        PyErr_Format(PyExc_ValueError, "projection is %zd x %zd; expected %zd x %zd, teacher's columns and student's",
                     (Py_ssize_t)PyArray_DIM(projection, 0), (Py_ssize_t)PyArray_DIM(projection, 1), T, S);
    else if (!projection && S != T)
        PyErr_Format(PyExc_ValueError,
                     "student has %zd columns and teacher %zd; give a projection of %zd x %zd, or equal widths", S, T,
                     T, S);
    else
        return 0;
    return -1;
}

static int take_rows(PyObject *student, PyObject *teacher, PyObject *projection, row_arrays *arrays)
{
    if (!(arrays->student = kd_array_copy(student, "student", NPY_FLOAT, 2)) ||
        !(arrays->teacher = kd_array_copy(teacher, "teacher", NPY_FLOAT, 2)) ||
        (projection != Py_None && !(arrays->projection = kd_array_copy(projection, "projection", NPY_FLOAT, 2))) ||
        check_rows(arrays->student, arrays->teacher, arrays->projection) < 0)
        return -1;
    if (!arrays->projection) {
        arrays->dstudent = (PyArrayObject *)Py_NewRef((PyObject *)arrays->student);
        return 0;
    }
    arrays->dstudent = new_like(arrays->student);
    arrays->dprojection = arrays->dstudent ? new_like(arrays->projection) : NULL;
    return arrays->dprojection ? 0 : -1;
}

static int place_rows(kd_match_rows *match, row_arrays *arrays, int threads)
{
    kd_arena arena = kd_arena_over(NULL);
    kd_match_rows_place(match, &arena, threads);
    if (!(arrays->scratch = kd_new_bytes(arena.used)))
        return -1;
    arena = kd_arena_over(kd_aligned(arrays->scratch));
    kd_match_rows_place(match, &arena, threads);
    return 0;
}

typedef struct rows_work {
    kd_match_rows *match;
    kd_match_phase phase;
} rows_work;

static void rows_slice(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    const rows_work *work = context;
    kd_match_rows_do(work->match, work->phase, team, from, to);
}

/* 0, or -1 with an exception. */
static int do_rows(kd_match_rows *match, int threads)
{
    for (int phase = 0; phase < KD_MATCH_PHASES; phase++) {
        rows_work work = {match, (kd_match_phase)phase};
        const ptrdiff_t step = kd_slice_step(kd_match_rows_item_cost(match, work.phase), threads);
        if (kd_object_do_slices(rows_slice, &work, kd_match_rows_items(match, work.phase), step, threads) < 0)
            return -1;
    }
    return 0;
}

/* The student's copy may be its gradient by now, so it is named where the others are finite. */
static PyObject *refuse_rows(const kd_match_rows *match)
{
    const ptrdiff_t row = first_not_finite(match->terms, match->R);
    const int of_teacher = !all_finite(match->teacher + row * match->T, match->T);
    if (!of_teacher && match->projection && !all_finite(match->projection, match->T * match->S))
        return PyErr_Format(PyExc_FloatingPointError, "projection is not finite; expected finite numbers");
    return PyErr_Format(PyExc_FloatingPointError,
                        "row %zd of %s is not finite, or its loss is too large for float32; expected finite numbers",
                        (Py_ssize_t)row, of_teacher ? "teacher" : "student");
}

static PyObject *rows_result(const kd_match_rows *match, const row_arrays *arrays)
{
    const double loss = kd_match_rows_loss(match);
    if (!isfinite(loss))
        return refuse_rows(match);
    if (match->projection &&
        (!all_finite(match->dstudent, match->R * match->S) || !all_finite(match->dprojection, match->T * match->S)))
        return PyErr_Format(
            PyExc_FloatingPointError,
            "the gradient of student or of projection is too large for float32; expected smaller numbers");
    return Py_BuildValue("dOO", loss, (PyObject *)arrays->dstudent,
                         arrays->dprojection ? (PyObject *)arrays->dprojection : Py_None);
}

static PyObject *py_match_rows(PyObject *module, PyObject *args)
{
    PyObject *student, *teacher, *projection, *result = NULL;
    kd_module_state *state = PyModule_GetState(module);
    kd_match_rows match = {.math = &state->arithmetic[KD_FLOAT32]};
    row_arrays arrays = {0};
    const char *name;
    int threads;
    if (!PyArg_ParseTuple(args, "sOOOi:match_rows", &name, &student, &teacher, &projection, &threads) ||
        kd_check_threads(threads) < 0 || (match.loss = parse_loss(name, kd_match_rows_name)) < 0)
        return NULL;
    if (take_rows(student, teacher, projection, &arrays) == 0) {
        match.R = PyArray_DIM(arrays.student, 0);
        match.S = PyArray_DIM(arrays.student, 1);
        match.T = PyArray_DIM(arrays.teacher, 1);
        match.teacher = kd_floats(arrays.teacher);
        match.dstudent = kd_floats(arrays.dstudent);
        if (arrays.projection) {
            match.student = kd_floats(arrays.student);
            match.projection = kd_floats(arrays.projection);
            match.dprojection = kd_floats(arrays.dprojection);
        }
        if (place_rows(&match, &arrays, threads) == 0 && do_rows(&match, threads) == 0)
            result = rows_result(&match, &arrays);
    }
    drop_row_arrays(&arrays);
    return result;
}

/* ---- maps ------------------------------------------------------------------------------------------- */

/* Copies of the arrays, and the result. Where scores are given, the student's copy becomes its gradient. */
typedef struct map_arrays {
    PyArrayObject *student, *teacher, *starts, *dstudent, *scratch;
} map_arrays;

static void drop_map_arrays(map_arrays *arrays)
{
    Py_CLEAR(arrays->student);
    Py_CLEAR(arrays->teacher);
    Py_CLEAR(arrays->starts);
    Py_CLEAR(arrays->dstudent);
    Py_CLEAR(arrays->scratch);
}

/* Scores (H, n, n) of one sequence behind the other's. */
static int check_scores(const kd_match_maps *match, PyArrayObject *student, PyArrayObject *teacher)
{
    const npy_intp size = PyArray_SIZE(student);
    npy_intp left = size / match->H;
    if (PyArray_SIZE(teacher) != size) {
        PyErr_Format(PyExc_ValueError, "teacher_scores has %zd numbers; expected %zd, as student_scores has",
                     (Py_ssize_t)PyArray_SIZE(teacher), (Py_ssize_t)size);
        return -1;
    }
    for (ptrdiff_t b = 0; b < match->B && left >= 0; b++) {
        const npy_intp n = match->starts[b + 1] - match->starts[b];
        left = n > left / n ? -1 : left - n * n;
    }
    if (left == 0 && size % match->H == 0)
        return 0;
    PyErr_Format(PyExc_ValueError,
                 "student_scores has %zd numbers; expected heads n n of each sequence of n tokens, with %zd heads and "
                 "the lengths of starts",
                 (Py_ssize_t)size, (Py_ssize_t)match->H);
    return -1;
}

static int check_relation_rows(const kd_match_maps *match, PyArrayObject *student, PyArrayObject *teacher)
{
    const Py_ssize_t N = PyArray_DIM(student, 0), S = PyArray_DIM(student, 1), T = PyArray_DIM(teacher, 1);
    if (PyArray_DIM(teacher, 0) != N)
        PyErr_Format(PyExc_ValueError, "teacher has %zd rows; expected %zd, as student has",
                     (Py_ssize_t)PyArray_DIM(teacher, 0), N);
    else if (S < 1 || T < 1 || S % match->H || T % match->H)
        PyErr_Format(PyExc_ValueError,
                     "heads is %zd; expected a number that divides the columns of student, %zd, and of "
                     "teacher, %zd",
                     (Py_ssize_t)match->H, S, T);
    else
        return 0;
    return -1;
}

/* Takes what both kinds of maps are given: arrays of `dimensions`, 1 for scores and 2 for rows. */
static int take_maps(PyObject *const *given, const char *const *names, int dimensions, kd_match_maps *match,
                     map_arrays *arrays)
{
    if (match->H < 1) {
        PyErr_Format(PyExc_ValueError, "heads is %zd; expected at least 1", (Py_ssize_t)match->H);
        return -1;
    }
    if (!(arrays->student = kd_array_copy(given[0], names[0], NPY_FLOAT, dimensions)) ||
        !(arrays->teacher = kd_array_copy(given[1], names[1], NPY_FLOAT, dimensions)) ||
        !(arrays->starts = kd_array_copy(given[2], "starts", NPY_INT64, 1)))
        return -1;
    match->starts = PyArray_DATA(arrays->starts);
    match->B = PyArray_SIZE(arrays->starts) - 1;
    const npy_intp tokens = dimensions == 2 || match->B < 1 ? PyArray_DIM(arrays->student, 0) : match->starts[match->B];
    if (kd_check_starts(match->starts, match->B, tokens, "token", "sequence") < 0)
        return -1;
    if ((dimensions == 2 ? check_relation_rows : check_scores)(match, arrays->student, arrays->teacher) < 0)
        return -1;
    arrays->dstudent =
        dimensions == 2 ? new_like(arrays->student) : (PyArrayObject *)Py_NewRef((PyObject *)arrays->student);
    if (!arrays->dstudent)
        return -1;
    match->teacher = kd_floats(arrays->teacher);
    match->dstudent = kd_floats(arrays->dstudent);
    if (dimensions == 2) {
        match->student = kd_floats(arrays->student);
        match->S = PyArray_DIM(arrays->student, 1);
        match->T = PyArray_DIM(arrays->teacher, 1);
    }
    return 0;
}

static void maps_slice(void *context, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    kd_match_maps_do(context, team, from, to);
}

static int do_maps(kd_match_maps *match, map_arrays *arrays, int threads)
{
    kd_arena arena = kd_arena_over(NULL);
    kd_match_maps_place(match, &arena, threads);
    if (!(arrays->scratch = kd_new_bytes(arena.used)))
        return -1;
    arena = kd_arena_over(kd_aligned(arrays->scratch));
    kd_match_maps_place(match, &arena, threads);
    const ptrdiff_t step = kd_slice_step(kd_match_maps_item_cost(match), threads);
    return kd_object_do_slices(maps_slice, match, kd_match_maps_items(match), step, threads);
}

static PyObject *refuse_maps(const kd_match_maps *match, const char *const *names)
{
    const ptrdiff_t map = first_not_finite(match->terms, match->B * match->H), b = map / match->H;
    const ptrdiff_t n = match->starts[b + 1] - match->starts[b], squares = match->H * match->squares[b];
    const float *teacher = match->teacher + (match->S ? match->starts[b] * match->T : squares);
    const int of_teacher = !all_finite(teacher, match->S ? n * match->T : match->H * n * n);
    return PyErr_Format(PyExc_FloatingPointError,
                        "%s is not finite in sequence %zd, head %zd, or its loss is too large for float32; expected "
                        "finite numbers",
                        names[of_teacher], (Py_ssize_t)b, (Py_ssize_t)(map % match->H));
}

static PyObject *match_maps(PyObject *module, PyObject *args, const char *format, const char *const *names,
                            int dimensions)
{
    PyObject *given[3], *result = NULL;
    kd_module_state *state = PyModule_GetState(module);
    kd_match_maps match = {.math = &state->arithmetic[KD_FLOAT32]};
    map_arrays arrays = {0};
    Py_ssize_t heads;
    const char *name;
    int threads;
    if (!PyArg_ParseTuple(args, format, &name, &given[0], &given[1], &given[2], &heads, &threads) ||
        kd_check_threads(threads) < 0 || (match.loss = parse_loss(name, kd_match_maps_name)) < 0)
        return NULL;
    match.H = heads;
    if (take_maps(given, names, dimensions, &match, &arrays) == 0 && do_maps(&match, &arrays, threads) == 0) {
        const double loss = kd_match_maps_loss(&match);
        result = isfinite(loss) ? Py_BuildValue("dO", loss, (PyObject *)arrays.dstudent) : refuse_maps(&match, names);
    }
    drop_map_arrays(&arrays);
    return result;
}

static PyObject *py_match_attention(PyObject *module, PyObject *args)
{
    static const char *const names[] = {"student_scores", "teacher_scores"};
    return match_maps(module, args, "sOOOni:match_attention", names, 1);
}

static PyObject *py_match_relation(PyObject *module, PyObject *args)
{
    static const char *const names[] = {"student", "teacher"};
    return match_maps(module, args, "sOOOni:match_relation", names, 2);
}

PyMethodDef kd_match_methods[] = {
    {"match_rows", py_match_rows, METH_VARARGS,
     "match_rows($module, loss, student, teacher, projection, threads, /)\n"
     "--\n\n"
     "Return (loss, dstudent, dprojection) of float32 rows (R, S) and (R, T). loss is 'mse', the mean over all R * T\n"
     "numbers, 'cosine' or 'normalized-mse', means over the rows: see kd_match.h. With a projection (T, S) the\n"
     "student's rows are student projection^T; without, it is None, S is T and dprojection None.\n"
     "Raises FloatingPointError where a number or the loss is not finite."},
    {"match_attention", py_match_attention, METH_VARARGS,
     "match_attention($module, loss, student_scores, teacher_scores, starts, heads, threads, /)\n"
     "--\n\n"
     "Return (loss, dstudent_scores) of the scores that a tap gives, flat: (heads, n, n) of one sequence behind the\n"
     "other's; starts is int64 (B + 1,). loss is 'mse', the mean over all scores, or 'kl', the mean over heads and\n"
     "queries of the divergence of their softmaxes. Raises FloatingPointError where a number is not finite."},
    {"match_relation", py_match_relation, METH_VARARGS,
     "match_relation($module, loss, student, teacher, starts, heads, threads, /)\n"
     "--\n\n"
     "Return (loss, dstudent) of float32 rows (N, S) and (N, T), cut into `heads` relation heads: match_attention of\n"
     "X X^T / sqrt(columns) of each. Raises FloatingPointError where a number is not finite."},
    {NULL, NULL, 0, NULL},
};
