#include "learning/kd_decoder.h"

#include <math.h>
#include <string.h>

enum {
    LOGITS_STRIP = 1024, /* columns of the logits that make an item */
    LOSS_ROWS = 4,       /* rows that do */
    FEATURES_ROWS = 48,  /* rows of dfeatures that do: they share one reading of the packed weight */
};

static const kd_linear *output_of(const kd_run *run) { return &run->model->head_weights.output; }

int kd_decoder_next(kd_decoder *decoder)
{
    const ptrdiff_t total = decoder->student->head_rows;
    decoder->first += decoder->rows;
    decoder->rows = kd_min(decoder->student->block_rows, total - decoder->first);
    return decoder->rows > 0;
}

ptrdiff_t kd_decoder_items(const kd_decoder *decoder, kd_decoder_phase phase)
{
    const kd_linear *output = output_of(decoder->student);
    switch (phase) {
    case KD_DECODER_LOGITS: return kd_ceil_div(output->O, LOGITS_STRIP);
    case KD_DECODER_LOSS: return kd_ceil_div(decoder->rows, LOSS_ROWS);
    case KD_DECODER_FEATURES: return kd_ceil_div(decoder->rows, FEATURES_ROWS);
    default: return kd_linear_tiles(output->O, output->I);
    }
}

double kd_decoder_item_cost(const kd_decoder *decoder, kd_decoder_phase phase)
{
    enum { LOSS_FLOPS = 100 }; /* of one logit, roughly: a few exponentials */
    const kd_linear *output = output_of(decoder->student);
    const double rows = (double)decoder->rows, O = (double)output->O, I = (double)output->I;
    switch (phase) {
    case KD_DECODER_LOGITS:
        return 2.0 * rows * LOGITS_STRIP * (I + (decoder->teacher ? (double)output_of(decoder->teacher)->I : 0));
    case KD_DECODER_LOSS: return LOSS_ROWS * LOSS_FLOPS * O;
    case KD_DECODER_FEATURES: return 2.0 * FEATURES_ROWS * O * I;
    default: return 2.0 * rows * KD_LINEAR_TILE_O * KD_LINEAR_TILE_I;
    }
}

/* Columns v0 .. v1 - 1 of the block's logits. */
static void logits_strip(const kd_run *run, const kd_decoder *decoder, ptrdiff_t v0, ptrdiff_t v1)
{
    const kd_linear *output = output_of(run);
    const float *features = run->head.features + decoder->first * output->I;
    kd_product product = kd_linear_product(output, run->block + v0, features, decoder->rows);
    product.first_column = v0;
    product.N = v1 - v0;
    product.bias = output->bias + v0;
    output->engine->product(&product);
}

static void logits_item(const kd_decoder *decoder, ptrdiff_t item)
{
    const ptrdiff_t v0 = item * LOGITS_STRIP, v1 = kd_min(v0 + LOGITS_STRIP, output_of(decoder->student)->O);
    logits_strip(decoder->student, decoder, v0, v1);
    if (decoder->teacher)
        logits_strip(decoder->teacher, decoder, v0, v1);
}

/* The sum of z (K) in double; not finite if any of z is not. */
static double sum_of(const float *z, ptrdiff_t K)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < K; i++)
        sum += (double)z[i];
    return sum;
}

/* The loss against a label: q (K) holds z and becomes softmax(z). */
static double hard_loss(const kd_kernels *kernels, float *q, const float *z, int64_t label, double smoothing,
                        ptrdiff_t K)
{
    const double even = smoothing > 0 ? smoothing * sum_of(z, K) / (double)K : 0;
    return kernels->softmax(q, K, K, 1) - (1 - smoothing) * (double)z[label] - even;
}

/* T^2 KL(p || q): t (K) holds the teacher's logits, p (K) the same, which become softmax(t / T); q (K) holds the
 * student's, which become softmax(z / T). */
static double soft_loss(const kd_kernels *kernels, float *p, float *q, const float *t, double T, ptrdiff_t K)
{
    const float scale = (float)(1 / T);
    const double lse_teacher = kernels->softmax(p, K, K, scale);
    double sum = 0;
    for (ptrdiff_t i = 0; i < K; i++)
        sum += (double)p[i] * ((double)t[i] - (double)q[i]);
    const double lse_student = kernels->softmax(q, K, K, scale);
    return T * T * (sum / T + lse_student - lse_teacher);
}

/* The gradient of the label's part is added to d (K): weight * (softmax(z) - the smoothed label). */
static void add_label(const kd_kernels *kernels, float *d, const float *probabilities, double weight, double smoothing,
                      int64_t label, ptrdiff_t K)
{
    const float even = (float)(weight * smoothing / (double)K);
    kernels->add_scaled(d, probabilities, (float)weight, K);
    for (ptrdiff_t i = 0; smoothing > 0 && i < K; i++)
        d[i] -= even;
    d[label] -= (float)(weight * (1 - smoothing));
}

/* 1 where the label is the first of the largest of z (K), else 0. */
static float is_first_choice(const float *z, int64_t label, ptrdiff_t K)
{
    for (ptrdiff_t i = 0; i < K; i++)
        if (z[i] > z[label] || (z[i] == z[label] && i < label))
            return 0;
    return 1;
}

/* One row's loss into its terms, {hard, soft}; its logits become their gradient. */
static void loss_row(const kd_decoder *decoder, ptrdiff_t row, int member)
{
    const kd_run *run = decoder->student;
    const kd_kernels *kernels = run->model->arithmetic.kernels;
    const ptrdiff_t K = output_of(run)->O;
    const int64_t label = decoder->labels[decoder->first + row];
    const int labelled = label != KD_LOSS_NO_LABEL;
    const float *t = decoder->teacher ? decoder->teacher->block + row * K : NULL;
    const double alpha = !labelled ? 0 : t ? decoder->alpha : 1, T = decoder->temperature;
    const double scale = decoder->share / (double)run->head_rows;
    float *z = run->block + row * K, *q = run->members[member].logits, *p = q + K;
    double *terms = run->terms + 2 * (decoder->first + row);
    const int finite = isfinite(sum_of(z, K)) && (!t || isfinite(sum_of(t, K)));
    memcpy(q, z, (size_t)K * sizeof(float));
    terms[0] = labelled ? hard_loss(kernels, q, z, label, decoder->smoothing, K) : 0;
    terms[1] = 0;
    if (decoder->scores) {
        float *scores = decoder->scores + 2 * (decoder->first + row);
        scores[0] = (float)terms[0];
        scores[1] = labelled ? is_first_choice(z, label, K) : 0;
    }
    if (t) {
        memcpy(p, t, (size_t)K * sizeof(float));
        terms[1] = soft_loss(kernels, p, z, t, T, K);
        kernels->scale(z, (float)((1 - alpha) * T * scale), K);
        kernels->add_scaled(z, p, (float)(-(1 - alpha) * T * scale), K);
    } else {
        memset(z, 0, (size_t)K * sizeof(float));
    }
    if (labelled)
        add_label(kernels, z, q, alpha * scale, decoder->smoothing, label, K);
    if (!finite)
        terms[0] = NAN;
}

static void features_item(const kd_decoder *decoder, ptrdiff_t item)
{
    const kd_run *run = decoder->student;
    const kd_linear *output = output_of(run);
    const ptrdiff_t from = item * FEATURES_ROWS, rows = kd_min(FEATURES_ROWS, decoder->rows - from);
    kd_linear_backward_input(run->head.dfeatures + (decoder->first + from) * output->I, run->block + from * output->O,
                             output, rows, 0);
}

static void weights_item(const kd_decoder *decoder, ptrdiff_t item, int member)
{
    const kd_run *run = decoder->student;
    const kd_model *model = run->model;
    const kd_tensor *weight = kd_model_output(model), *bias = kd_model_tensor(model, KD_SLOT_head_output_bias, 0);
    const ptrdiff_t O = weight->rows, I = weight->columns, rows = decoder->rows;
    const kd_linear_tile t = kd_linear_tile_of(O, I, item);
    kd_arithmetic_outer(&model->arithmetic, &model->arithmetic.float32,
                        model->gradients + weight->offset + t.o0 * I + t.i0, I, run->block + t.o0, O,
                        run->head.features + decoder->first * I + t.i0, I, t.o1 - t.o0, t.i1 - t.i0, rows,
                        run->members[member].outer);
    if (t.i0 == 0)
        model->arithmetic.kernels->sum_rows(model->gradients + bias->offset + t.o0, run->block + t.o0, rows,
                                            t.o1 - t.o0, O);
}

typedef struct item_range {
    const kd_decoder *decoder;
    kd_decoder_phase phase;
    ptrdiff_t from;
} item_range;

static void do_item(void *context, ptrdiff_t index, int member)
{
    const item_range *range = context;
    const kd_decoder *decoder = range->decoder;
    const ptrdiff_t item = range->from + index;
    switch (range->phase) {
    case KD_DECODER_LOGITS: logits_item(decoder, item); break;
    case KD_DECODER_LOSS:
        for (ptrdiff_t r = item * LOSS_ROWS; r < kd_min((item + 1) * LOSS_ROWS, decoder->rows); r++)
            loss_row(decoder, r, member);
        break;
    case KD_DECODER_FEATURES: features_item(decoder, item); break;
    default: weights_item(decoder, item, member);
    }
}

void kd_decoder_do(kd_decoder *decoder, kd_decoder_phase phase, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    item_range range = {decoder, phase, from};
    kd_pool_run(team, do_item, &range, to - from);
}

kd_loss_result kd_decoder_result(const kd_decoder *decoder)
{
    const kd_run *run = decoder->student;
    const ptrdiff_t M = run->head_rows;
    kd_loss_result result = {0};
    for (ptrdiff_t r = 0; r < M; r++) {
        const double hard = run->terms[2 * r], soft = run->terms[2 * r + 1];
        const int labelled = decoder->labels[r] != KD_LOSS_NO_LABEL;
        const double alpha = !labelled ? 0 : decoder->teacher ? decoder->alpha : 1;
        result.loss += alpha * hard + (1 - alpha) * soft;
        result.hard += hard;
        result.soft += soft;
        result.labelled += labelled;
        if (!isfinite(hard + soft) && result.not_finite++ < KD_LOSS_ROWS_NAMED)
            result.rows[result.not_finite - 1] = r;
    }
    result.loss /= (double)kd_max(M, 1);
    result.soft /= (double)kd_max(M, 1);
    result.hard /= (double)kd_max(result.labelled, 1);
    return result;
}
