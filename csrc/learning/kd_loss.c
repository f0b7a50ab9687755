#include "learning/kd_loss.h"

#include <math.h>

/* One row: its logits, its label (the class, or the targets) and what each part of its loss weighs. */
typedef struct loss_row {
    const float *z, *t, *y;
    int64_t label;
    double alpha, temperature;
    double smoothing, even; /* even = smoothing / K, every label's share of it */
    const double *weights;  /* (K), or NULL: all 1 */
    double mean;            /* 1 / B, which every gradient is multiplied by */
    ptrdiff_t K;
    double hard, soft; /* the result */
} loss_row;

/* log sum exp of logits / temperature. */
static double log_sum_exp(const float *logits, double temperature, ptrdiff_t K)
{
    double top = logits[0], sum = 0;
    for (ptrdiff_t i = 1; i < K; i++)
        top = logits[i] > top ? logits[i] : top;
    for (ptrdiff_t i = 0; i < K; i++)
        sum += exp((logits[i] - top) / temperature);
    return top / temperature + log(sum);
}

static double weight_of(const loss_row *row, ptrdiff_t i) { return row->weights ? row->weights[i] : 1; }

/* The sum of w o below, for a row with a label. It is 1 without weights, and not what the sum would round to. */
static double weight_of_row(const loss_row *row)
{
    double sum = 0;
    if (!row->weights)
        return 1;
    for (ptrdiff_t i = 0; i < row->K; i++)
        sum += row->even * row->weights[i];
    return sum + (1 - row->smoothing) * row->weights[row->label];
}

/* With p = softmax(t / T), q = softmax(z / T), s the smoothing, w the weights and o = (1 - s) onehot(label) + s / K:
 *   hard = -sum w o log softmax(z)    d hard / dz = sum(w o) softmax(z) - w o
 *   soft = T^2 sum p (log p - log q)  d soft / dz = T (q - p) */
static void single_label_row(loss_row *row, float *dlogits)
{
    const float *z = row->z, *t = row->t;
    const int labelled = row->label != KD_LOSS_NO_LABEL;
    double T = row->temperature, alpha = row->alpha, even = row->even, whole = labelled ? weight_of_row(row) : 0;
    double lse = log_sum_exp(z, 1, row->K), lse_student = t ? log_sum_exp(z, T, row->K) : 0;
    double lse_teacher = t ? log_sum_exp(t, T, row->K) : 0;
    if (labelled)
        row->hard = whole * lse - (1 - row->smoothing) * weight_of(row, row->label) * z[row->label];
    for (ptrdiff_t i = 0; i < row->K; i++) {
        double w = weight_of(row, i), onehot = w * (even + (i == row->label ? 1 - row->smoothing : 0));
        double slope = alpha == 0 ? 0 : alpha * (whole * exp(z[i] - lse) - onehot);
        if (labelled)
            row->hard -= w * even * z[i];
        if (t) {
            double log_p = t[i] / T - lse_teacher, log_q = z[i] / T - lse_student, p = exp(log_p);
            row->soft += T * T * p * (log_p - log_q);
            slope += (1 - alpha) * T * (exp(log_q) - p);
        }
        dlogits[i] = (float)(row->mean * slope);
    }
}

/* log(1 + exp x) = -log sigmoid(-x); small = exp(-|x|). */
static double softplus(double x, double small) { return (x > 0 ? x : 0) + log1p(small); }

static double sigmoid(double x, double small) { return (x >= 0 ? 1 : small) / (1 + small); }

/* With p = sigmoid(t / T), q = sigmoid(z / T), s the smoothing, o = (1 - s) y + s / 2, w the weights of what is true,
 * and means over the K labels:
 *   hard = mean of w o softplus(-z) + (1 - o) softplus(z), in which softplus(-z) = softplus(z) - z
 *   d hard / dz = (sigmoid(z) - o - (w - 1) o sigmoid(-z)) / K
 *   soft = T^2 mean of p (log p - log q) + (1 - p) (log (1 - p) - log (1 - q))  d soft / dz = T (q - p) / K */
static void multi_label_row(loss_row *row, float *dlogits)
{
    double T = row->temperature, share = 1 / (double)row->K;
    for (ptrdiff_t i = 0; i < row->K; i++) {
        double z = row->z[i], slope = 0;
        if (row->y) {
            double small = exp(-fabs(z)), target = (1 - row->smoothing) * row->y[i] + row->smoothing / 2;
            row->hard += share * (softplus(z, small) - target * z);
            slope = sigmoid(z, small) - target;
            if (row->weights) {
                double more = (row->weights[i] - 1) * target;
                row->hard += share * more * softplus(-z, small);
                slope -= more * sigmoid(-z, small);
            }
            slope *= row->alpha;
        }
        if (row->t) {
            double a = row->t[i] / T, b = z / T, small_a = exp(-fabs(a)), small_b = exp(-fabs(b));
            double p = sigmoid(a, small_a);
            row->soft += T * T * share *
                         (p * (softplus(-b, small_b) - softplus(-a, small_a)) +
                          sigmoid(-a, small_a) * (softplus(b, small_b) - softplus(a, small_a)));
            slope += (1 - row->alpha) * T * (sigmoid(b, small_b) - p);
        }
        dlogits[i] = (float)(row->mean * share * slope);
    }
}

/* d hard / dz = 2 (z - y) / K, d soft / dz = 2 (z - t) / K. */
static void regression_row(loss_row *row, float *dlogits)
{
    double share = 1 / (double)row->K;
    for (ptrdiff_t i = 0; i < row->K; i++) {
        double to_label = row->y ? (double)row->z[i] - row->y[i] : 0;
        double to_teacher = row->t ? (double)row->z[i] - row->t[i] : 0;
        row->hard += share * to_label * to_label;
        row->soft += share * to_teacher * to_teacher;
        dlogits[i] = (float)(row->mean * share * 2 * (row->alpha * to_label + (1 - row->alpha) * to_teacher));
    }
}

static double product(const float *a, const float *b, ptrdiff_t K)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < K; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* What 1 - cos(z, other) has in its gradient by z, as along * z - across * other; across = 1 / (|z| |other|). */
typedef struct cosine_part {
    double loss, along, across;
} cosine_part;

static cosine_part cosine_of(const loss_row *row, const float *other)
{
    cosine_part part = {0, 0, 0};
    if (!other)
        return part;
    const double square = product(row->z, row->z, row->K), lengths = sqrt(square * product(other, other, row->K));
    const double cosine = lengths == 0 ? 0 : product(row->z, other, row->K) / lengths;
    part.loss = 1 - cosine;
    part.across = lengths == 0 ? 0 : 1 / lengths;
    part.along = lengths == 0 ? 0 : cosine / square;
    return part;
}

/* d (1 - cos(z, t)) / dz = cos z / |z|^2 - t / (|z| |t|). */
static void cosine_row(loss_row *row, float *dlogits)
{
    const cosine_part label = cosine_of(row, row->y), teacher = cosine_of(row, row->t);
    row->hard = label.loss;
    row->soft = teacher.loss;
    for (ptrdiff_t i = 0; i < row->K; i++) {
        double slope = (row->alpha * label.along + (1 - row->alpha) * teacher.along) * row->z[i];
        if (row->y)
            slope -= row->alpha * label.across * row->y[i];
        if (row->t)
            slope -= (1 - row->alpha) * teacher.across * row->t[i];
        dlogits[i] = (float)(row->mean * slope);
    }
}

/* A logit of -inf can leave the loss finite, but no working model has one. */
static int row_is_finite(const loss_row *row, double loss, const float *dlogits)
{
    int finite = isfinite(loss);
    for (ptrdiff_t i = 0; i < row->K; i++)
        finite &= isfinite(row->z[i]) && (!row->t || isfinite(row->t[i])) && isfinite(dlogits[i]);
    return finite;
}

static int has_label(const loss_row *row) { return row->y || row->label != KD_LOSS_NO_LABEL; }

/* A row that is NaN in part is no absent one, but an error. */
static int is_absent(const float *teacher, ptrdiff_t K)
{
    ptrdiff_t i = 0;
    while (i < K && isnan(teacher[i]))
        i++;
    return i == K;
}

/* What is the same in every row. */
static loss_row common_row(const kd_loss *in)
{
    return (loss_row){.temperature = in->temperature,
                      .smoothing = in->smoothing,
                      .weights = in->weights,
                      .mean = 1.0 / (double)in->B};
}

static void take_row(loss_row *row, const kd_loss *in, ptrdiff_t b)
{
    const ptrdiff_t begin = kd_loss_begin(in, b);
    row->K = kd_loss_begin(in, b + 1) - begin;
    row->even = in->smoothing / (double)row->K;
    row->z = in->student + begin;
    row->t = in->teacher && !is_absent(in->teacher + begin, row->K) ? in->teacher + begin : NULL;
    row->label = in->classes ? in->classes[b] : KD_LOSS_NO_LABEL;
    row->y = in->targets && !isnan(in->targets[begin]) ? in->targets + begin : NULL;
    row->alpha = !has_label(row) ? 0 : row->t ? in->alpha : 1;
    row->hard = row->soft = 0;
}

/* What one row adds to the sums. */
typedef struct row_terms {
    double loss, hard, soft;
    int labelled, taught, finite;
} row_terms;

enum {
    BLOCK_ROWS = 1024, /* rows whose terms wait on the stack until they are added: 32 KiB */
    ITEM_LOGITS = 256, /* logits that make an item: some 10 us */
};

/* Rows `first` .. first + count - 1, `step` to an item. */
typedef struct row_block {
    const kd_loss *in;
    float *dlogits;
    ptrdiff_t first, count, step;
    row_terms terms[BLOCK_ROWS];
} row_block;

/* Adds the parts of a row's loss to row->hard and row->soft, and writes its dlogits (K). */
typedef void (*row_function)(loss_row *row, float *dlogits);

static const row_function compute_row[KD_LOSS_KINDS] = {[KD_LOSS_SINGLE_LABEL] = single_label_row,
                                                        [KD_LOSS_MULTI_LABEL] = multi_label_row,
                                                        [KD_LOSS_REGRESSION] = regression_row,
                                                        [KD_LOSS_COSINE] = cosine_row};

static void block_item(void *context, ptrdiff_t item, int member)
{
    row_block *block = context;
    const kd_loss *in = block->in;
    loss_row row = common_row(in);
    (void)member;
    for (ptrdiff_t r = item * block->step; r < kd_min((item + 1) * block->step, block->count); r++) {
        const ptrdiff_t b = block->first + r;
        take_row(&row, in, b);
        float *dlogits = block->dlogits + kd_loss_begin(in, b);
        compute_row[in->kind](&row, dlogits);
        double loss = row.alpha * row.hard + (1 - row.alpha) * row.soft;
        block->terms[r] = (row_terms){.loss = loss,
                                      .hard = row.hard,
                                      .soft = row.soft,
                                      .labelled = has_label(&row),
                                      .taught = row.t != NULL,
                                      .finite = row_is_finite(&row, loss, dlogits)};
    }
}

static void add_terms(kd_loss_result *result, const row_terms *terms, ptrdiff_t b)
{
    result->loss += terms->loss;
    result->hard += terms->hard;
    result->soft += terms->soft;
    result->labelled += terms->labelled;
    result->taught += terms->taught;
    if (!terms->finite && result->not_finite++ < KD_LOSS_ROWS_NAMED)
        result->rows[result->not_finite - 1] = b;
}

void kd_loss_add(kd_loss_result *result, float *dlogits, const kd_loss *in, ptrdiff_t from, ptrdiff_t to, kd_team *team)
{
    row_block block;
    block.in = in;
    block.dlogits = dlogits;
    block.step = kd_max(1, ITEM_LOGITS * in->B / kd_loss_begin(in, in->B));
    for (block.first = from; block.first < to; block.first += BLOCK_ROWS) {
        block.count = kd_min(BLOCK_ROWS, to - block.first);
        kd_pool_run(team, block_item, &block, kd_ceil_div(block.count, block.step));
        for (ptrdiff_t r = 0; r < block.count; r++)
            add_terms(result, &block.terms[r], block.first + r);
    }
}

void kd_loss_finish(kd_loss_result *result, const kd_loss *in)
{
    result->loss /= (double)in->B;
    result->soft /= result->taught ? (double)result->taught : 1;
    result->hard /= result->labelled ? (double)result->labelled : 1;
}
