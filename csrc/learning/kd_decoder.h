/* kd_decoder: the loss of a head with an output for every word, and its gradients, in blocks of rows: the logits of a
 * batch, some 60 MB for 500 masked tokens, never exist.
 *
 * A block is a few hundred rows. Its logits are computed, made their own gradient, and multiplied with the weight and
 * the features before the next block takes their place. The loss of a row is that of one label in kd_loss.h, with
 * softmaxes in float32 (relative error about 1e-6) and sums over a row in double. Work is shared by columns of the
 * logits, by rows and by tiles of the weight's gradient, to which blocks add in their order. So the bits do not depend
 * on the number of threads.
 */
#ifndef KD_DECODER_H
#define KD_DECODER_H

#include "learning/kd_loss.h"
#include "model/kd_run.h"

/* What is done with a block, in this order; the last two only where a training run goes back. */
typedef enum kd_decoder_phase {
    KD_DECODER_LOGITS,   /* logits = features W^T + b, of the teacher too */
    KD_DECODER_LOSS,     /* each row's loss; the student's logits become their gradient */
    KD_DECODER_FEATURES, /* dfeatures = dlogits W */
    KD_DECODER_WEIGHTS,  /* dW += dlogits^T features, db += the sum of dlogits */
    KD_DECODER_PHASES,
} kd_decoder_phase;

typedef struct kd_decoder {
    kd_run *student;                      /* a run of features alone, through its head */
    const kd_run *teacher;                /* one of the same rows and outputs, or NULL */
    const int64_t *labels;                /* (M), each an output or KD_LOSS_NO_LABEL */
    double alpha, temperature, smoothing; /* as in kd_loss */
    double share;                         /* the gradient is that of share times the mean loss */
    float *scores;                        /* (M, 2) each row's loss against its label, and 1 where no other output is
                                           * larger than the label's (of equal ones the first counts), else 0; both 0
                                           * without a label. NULL: nobody asks */
    ptrdiff_t first, rows;                /* the block: rows first .. first + rows - 1 of the head's */
} kd_decoder;

/* Goes on to the next block, from rows = 0 to the first. 0 when there is none left. */
int kd_decoder_next(kd_decoder *decoder);

/* Items of a phase of the block, and roughly the floating-point operations of one. */
ptrdiff_t kd_decoder_items(const kd_decoder *decoder, kd_decoder_phase phase);
double kd_decoder_item_cost(const kd_decoder *decoder, kd_decoder_phase phase);

/* Does items from .. to - 1 of a phase. */
void kd_decoder_do(kd_decoder *decoder, kd_decoder_phase phase, kd_team *team, ptrdiff_t from, ptrdiff_t to);

/* The means over all rows, once every block is done; 0 of no rows. */
kd_loss_result kd_decoder_result(const kd_decoder *decoder);

#endif
