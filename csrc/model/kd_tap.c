#include "model/kd_tap.h"

#include <string.h>

static const kd_tap *find(const kd_taps *taps, kd_tap_kind kind, ptrdiff_t layer)
{
    for (ptrdiff_t i = 0; i < taps->count; i++)
        if (taps->list[i].kind == kind && taps->list[i].layer == layer)
            return &taps->list[i];
    return NULL;
}

ptrdiff_t kd_tap_width(const kd_tap *tap, const kd_encoder_config *encoder)
{
    switch (tap->kind) {
    case KD_TAP_HIDDEN: return encoder->C;
    case KD_TAP_SCORES: return 0;
    default: return kd_encoder_width(encoder, tap->layer);
    }
}

/* Sum of the squared lengths of the first b sequences. */
static ptrdiff_t squares(const kd_batch *batch, ptrdiff_t b)
{
    ptrdiff_t sum = 0;
    for (ptrdiff_t i = 0; i < b; i++) {
        ptrdiff_t n = (ptrdiff_t)(batch->starts[i + 1] - batch->starts[i]);
        sum += n * n;
    }
    return sum;
}

ptrdiff_t kd_tap_size(const kd_tap *tap, const kd_encoder_config *encoder, const kd_batch *batch)
{
    return tap->kind == KD_TAP_SCORES ? encoder->layers[tap->layer].H * squares(batch, batch->B)
                                      : batch->N * kd_tap_width(tap, encoder);
}

int kd_tap_needs(const kd_taps *taps, ptrdiff_t layer)
{
    return find(taps, KD_TAP_HIDDEN, layer + 1) || find(taps, KD_TAP_SCORES, layer);
}

int kd_tap_projects(const kd_taps *taps, ptrdiff_t layer)
{
    return find(taps, KD_TAP_QUERY, layer) || find(taps, KD_TAP_KEY, layer) || find(taps, KD_TAP_VALUE, layer);
}

const float *kd_tap_gradient(const kd_taps *taps, kd_tap_kind kind, ptrdiff_t layer)
{
    const kd_tap *tap = find(taps, kind, layer);
    return tap ? tap->gradient : NULL;
}

float *kd_tap_rows(const kd_taps *taps, kd_tap_kind kind, ptrdiff_t layer, const kd_span *span, ptrdiff_t width)
{
    const kd_tap *tap = find(taps, kind, layer);
    return tap ? tap->out + span->t0 * width : NULL;
}

void kd_tap_store(const kd_taps *taps, kd_tap_kind kind, ptrdiff_t layer, const float *rows, const kd_span *span,
                  ptrdiff_t width)
{
    float *out = kd_tap_rows(taps, kind, layer, span, width);
    if (out)
        memcpy(out, rows, (size_t)(span->N * width) * sizeof(float));
}

void kd_tap_add(const kd_kernels *kernels, const kd_taps *taps, kd_tap_kind kind, ptrdiff_t layer, float *d,
                const kd_span *span, ptrdiff_t width)
{
    const float *gradient = kd_tap_gradient(taps, kind, layer);
    if (gradient)
        kernels->add(d, gradient + span->t0 * width, span->N * width);
}

kd_tap_scores kd_tap_scores_of(const kd_taps *taps, ptrdiff_t layer, const kd_span *span, ptrdiff_t H)
{
    const kd_tap *tap = find(taps, KD_TAP_SCORES, layer);
    if (!tap)
        return (kd_tap_scores){NULL, NULL};
    const ptrdiff_t before = H * squares(span->batch, span->b0);
    return (kd_tap_scores){tap->out + before, tap->gradient ? tap->gradient + before : NULL};
}

kd_tap_scores kd_tap_scores_next(kd_tap_scores scores, ptrdiff_t H, ptrdiff_t n)
{
    scores.out += scores.out ? H * n * n : 0;
    scores.gradient += scores.gradient ? H * n * n : 0;
    return scores;
}
