/* kd_loss: the loss of each kind of problem, against labels and against a teacher, in value and gradient.
 *
 *   loss = alpha hard + (1 - alpha) soft, averaged over the B rows
 *
 * With z the student's logits, t the teacher's, y the labels, T the temperature, and sums over the K labels:
 *
 *   single label  hard = cross-entropy of softmax(z), its label smoothed as in Szegedy et al. (arXiv:1512.00567)
 *                 soft = T^2 KL(softmax(t / T) || softmax(z / T))           Hinton, Vinyals, Dean (arXiv:1503.02531)
 *   multi-label   hard = mean of the binary cross-entropies of sigmoid(z)
 *                 soft = T^2 mean of KL(sigmoid(t / T) || sigmoid(z / T))   one two-way KL a label: Yang et al.
 *                 (as arXiv:2308.06453 distils label by label; the mean stands beside hard's), T^2 as above
 *   regression    hard = mean of (z - y)^2, soft = mean of (z - t)^2, no temperature
 *   cosine        hard = 1 - z . y / (|z| |y|), soft = 1 - z . t / (|z| |t|), of embeddings: no temperature
 *                 as torch's CosineEmbeddingLoss of equal pairs; a vector of length 0 has the cosine 0 with any
 *
 * Rows of a single label may have a number of logits each (`starts`): a question's answer begins at one of its tokens.
 *
 * Weights w act on hard alone, smoothing before them. Of a single label they are those of the classes, and a row's loss
 * is the sum over the labels of w times the smoothed label times -log softmax(z), as torch's CrossEntropyLoss(weight=w)
 * has it; to divide by the sum of the rows' weights, as its mean does, the caller scales w. Of several labels w
 * multiplies what belongs to a label that is true, as BCEWithLogitsLoss(pos_weight=w) has it.
 *
 * Logits are few beside the products of a step, so all of it runs in double, with maxima taken out of the
 * exponentials: finite for any finite logits and 1e-5 <= T <= 1e5, but for a gradient beyond float. At a higher T, T^2
 * times the rounding of KL would show in the loss; at a lower one, logits / T would lose the digits in which they differ.
 *
 * Threads share the rows; what the rows add is summed in their order by one thread. So the bits do not depend on the
 * number of threads, nor on how the rows are cut into calls.
 */
#ifndef KD_LOSS_H
#define KD_LOSS_H

#include "ground/kd_pool.h"

enum {
    KD_LOSS_NO_LABEL = -100, /* the class of a row without a label, which counts as alpha = 0 */
    KD_LOSS_ROWS_NAMED = 8,
};

typedef enum kd_loss_kind {
    KD_LOSS_SINGLE_LABEL,
    KD_LOSS_MULTI_LABEL,
    KD_LOSS_REGRESSION,
    KD_LOSS_COSINE,
    KD_LOSS_KINDS
} kd_loss_kind;

typedef struct kd_loss {
    kd_loss_kind kind;
    double alpha, temperature;
    double smoothing;       /* share of a label spread evenly: over all K of one label, over yes and no of several */
    const double *weights;  /* (K), finite, >= 0, or NULL: all 1; not of regression and cosine, nor with starts */
    const float *student;   /* (B, K) */
    const float *teacher;   /* like student, NaN in rows without a teacher, which count as alpha = 1; NULL: all rows */
    const int64_t *starts;  /* (B + 1), single label: row b is logits starts[b] .. starts[b + 1] - 1; NULL: K of each */
    const int64_t *classes; /* (B), single label; NULL: no row has a label */
    const float *targets;   /* (B, K), the other kinds, NaN in rows without a label; NULL: no row has one */
    ptrdiff_t B, K;         /* K is not read with starts */
} kd_loss;

/* Where row b's logits begin, in student, teacher and dlogits; row B begins where all end. */
static inline ptrdiff_t kd_loss_begin(const kd_loss *inputs, ptrdiff_t b)
{
    return inputs->starts ? (ptrdiff_t)inputs->starts[b] : b * inputs->K;
}

/* Sums over the rows added so far; after kd_loss_finish, means. */
typedef struct kd_loss_result {
    double loss, hard, soft; /* means: loss over all rows, hard over those with a label, soft over the taught; or 0 */
    ptrdiff_t labelled;      /* rows with a label */
    ptrdiff_t taught;        /* rows with a teacher; a row without both adds nothing to the loss */
    ptrdiff_t not_finite;    /* rows whose loss, logits or gradient are not finite; the means are then meaningless */
    ptrdiff_t rows[KD_LOSS_ROWS_NAMED]; /* the first of them */
} kd_loss_result;

/* Adds rows from .. to - 1 to `result`, which is zero before row 0, and writes these rows of dlogits (B, K), or with starts
 * like student, = d(loss) / d(student). */
void kd_loss_add(kd_loss_result *result, float *dlogits, const kd_loss *inputs, ptrdiff_t from, ptrdiff_t to,
                 kd_team *team);

/* Makes means of the sums over all B rows. */
void kd_loss_finish(kd_loss_result *result, const kd_loss *inputs);

#endif
