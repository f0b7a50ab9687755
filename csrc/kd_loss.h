/* kd_loss: softmax cross-entropy and the distillation loss of Hinton, Vinyals, Dean (arXiv:1503.02531).
 *
 *   loss = alpha CE(labels) + (1 - alpha) T^2 KL(softmax(teacher / T) || softmax(student / T))
 *
 * averaged over the B rows. Logits are few, so all of it runs in double, with maxima taken out of the
 * exponentials: finite for any finite logits and any T > 0.
 */
#ifndef KD_LOSS_H
#define KD_LOSS_H

#include "kd_base.h"

enum { KD_LOSS_NO_LABEL = -100 }; /* a row without a label counts as alpha = 0 */

/* hard (B) and soft (B): each row's CE and T^2 KL, 0 where the row or the call has none.
 * dlogits (B, K) = d(loss) / d(student). teacher may be NULL, which means alpha = 1. */
void kd_loss_distillation(double *hard, double *soft, float *dlogits, const float *student, const float *teacher,
                          const int64_t *labels, double alpha, double temperature, ptrdiff_t B, ptrdiff_t K);

#endif
