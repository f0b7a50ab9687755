#include "kd_loss.h"

#include <math.h>

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

/* One row. With z the student's and t the teacher's logits, p = softmax(t / T), q = softmax(z / T):
 *   hard = lse(z) - z_label           d hard / dz = softmax(z) - onehot(label)
 *   soft = T^2 sum p (log p - log q)  d soft / dz = T (q - p) */
static void loss_row(double *hard, double *soft, float *dlogits, const float *z, const float *t, int64_t label,
                     double alpha, double T, double weight, ptrdiff_t K)
{
    double lse = log_sum_exp(z, 1, K), lse_student = log_sum_exp(z, T, K);
    double lse_teacher = t ? log_sum_exp(t, T, K) : 0;
    *hard = label == KD_LOSS_NO_LABEL ? 0 : lse - z[label];
    *soft = 0;
    for (ptrdiff_t i = 0; i < K; i++) {
        double slope = alpha == 0 ? 0 : alpha * (exp(z[i] - lse) - (i == label));
        if (t) {
            double log_p = t[i] / T - lse_teacher, log_q = z[i] / T - lse_student, p = exp(log_p);
            *soft += T * T * p * (log_p - log_q);
            slope += (1 - alpha) * T * (exp(log_q) - p);
        }
        dlogits[i] = (float)(weight * slope);
    }
}

void kd_loss_distillation(double *hard, double *soft, float *dlogits, const float *student, const float *teacher,
                          const int64_t *labels, double alpha, double temperature, ptrdiff_t B, ptrdiff_t K)
{
    for (ptrdiff_t b = 0; b < B; b++) {
        int64_t label = labels ? labels[b] : KD_LOSS_NO_LABEL;
        double share = label == KD_LOSS_NO_LABEL ? 0 : alpha;
        loss_row(hard + b, soft + b, dlogits + b * K, student + b * K, teacher ? teacher + b * K : NULL, label, share,
                 temperature, 1.0 / (double)B, K);
    }
}
