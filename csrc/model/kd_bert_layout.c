#include "model/kd_bert.h"

kd_tensor_info kd_bert_tensor_info(const kd_bert_config *config, kd_tensor tensor)
{
    const ptrdiff_t C = config->C, F = config->F, V = config->V, P = config->P, T = config->T, K = config->K;
    switch (tensor) {
#define KD_BERT_INFO(place, symbol, name, rows, columns)                                                               \
    case KD_TENSOR_##symbol: return (kd_tensor_info){name, KD_PLACE_##place, rows, columns};
        KD_BERT_TENSORS(KD_BERT_INFO)
#undef KD_BERT_INFO
    default: return (kd_tensor_info){0};
    }
}

/* After the last tensor of a layer comes the first of the next layer, until the head. */
int kd_bert_next(const kd_bert_config *config, kd_tensor_at *at)
{
    if (at->tensor == KD_TENSOR_ffn_beta && at->layer + 1 < config->L) {
        at->tensor = KD_TENSOR_query;
        at->layer++;
    } else {
        at->layer = at->tensor == KD_TENSOR_ffn_beta ? 0 : at->layer;
        at->tensor++;
    }
    return at->tensor < KD_TENSOR_KINDS;
}

ptrdiff_t kd_bert_tensors(const kd_bert_config *config)
{
    ptrdiff_t count = 1;
    for (kd_tensor_at at = {0}; kd_bert_next(config, &at);)
        count++;
    return count;
}

static int is_product(kd_tensor_info info) { return info.place != KD_PLACE_EMBEDDING && info.columns > 0; }

/* Running ends of the three arrays while tensors are laid out. */
typedef struct ends {
    ptrdiff_t parameters, vectors, packed;
} ends;

static ptrdiff_t take(ptrdiff_t *end, ptrdiff_t floats)
{
    ptrdiff_t offset = *end;
    *end += kd_round_up(floats, KD_ALIGN_FLOATS);
    return offset;
}

static ptrdiff_t take_packed(ptrdiff_t *end, const kd_engine *engine, ptrdiff_t K, ptrdiff_t N)
{
    ptrdiff_t offset = *end;
    *end += kd_round_up(engine->packed_bytes(engine, K, N), KD_ALIGN);
    return offset;
}

static void lay_out(kd_bert_layout *layout, const kd_engine *engine, kd_tensor t, kd_tensor_info info, int frozen,
                    ends *end)
{
    layout->offset[t] = take(&end->parameters, info.rows * kd_max(info.columns, 1));
    layout->vector[t] = info.columns ? -1 : take(&end->vectors, info.rows);
    layout->forward[t] = layout->backward[t] = -1;
    if (is_product(info)) {
        layout->forward[t] = take_packed(&end->packed, engine, info.columns, info.rows);
        if (!frozen)
            layout->backward[t] = take_packed(&end->packed, engine, info.rows, info.columns);
    }
}

/* Layer tensors stand together in the list: the first layer is laid out, the others are multiples of
 * its size further. */
void kd_bert_describe(kd_bert *model, const kd_bert_config *config, const kd_arithmetic *arithmetic, int frozen)
{
    kd_bert_layout *layout = &model->layout;
    model->config = *config;
    model->arithmetic = *arithmetic;
    ends end = {0, 0, 0}, first = {0, 0, 0};
    for (int t = 0; t < KD_TENSOR_KINDS; t++) {
        kd_tensor_info info = kd_bert_tensor_info(config, (kd_tensor)t);
        kd_tensor_place before = t ? kd_bert_tensor_info(config, (kd_tensor)(t - 1)).place : info.place;
        if (info.place == KD_PLACE_LAYER && before != KD_PLACE_LAYER)
            first = end;
        if (info.place != KD_PLACE_LAYER && before == KD_PLACE_LAYER) {
            layout->stride = end.parameters - first.parameters;
            layout->vector_stride = end.vectors - first.vectors;
            layout->packed_stride = end.packed - first.packed;
            end.parameters += (config->L - 1) * layout->stride;
            end.vectors += (config->L - 1) * layout->vector_stride;
            end.packed += (config->L - 1) * layout->packed_stride;
        }
        lay_out(layout, &model->arithmetic.engine, (kd_tensor)t, info, frozen, &end);
    }
    layout->last_key = (config->L - 1) * layout->packed_stride + layout->backward[KD_TENSOR_key];
    if (frozen)
        layout->last_key = take_packed(&end.packed, &model->arithmetic.engine, config->C, config->C);
    layout->size = end.parameters;
    layout->vector_size = end.vectors;
    layout->packed_size = end.packed;
}

/* Every product of every layer is one item; item % kinds names the tensor, item / kinds the layer. */
ptrdiff_t kd_bert_pack_items(const kd_bert *model) { return KD_TENSOR_KINDS * model->config.L; }

typedef struct pack_range {
    const kd_bert *model;
    ptrdiff_t from;
} pack_range;

static void pack_item(void *context, ptrdiff_t index, int member)
{
    const pack_range *range = context;
    const kd_bert *model = range->model;
    const kd_bert_layout *layout = &model->layout;
    ptrdiff_t item = range->from + index, layer = item / KD_TENSOR_KINDS;
    kd_tensor t = (kd_tensor)(item % KD_TENSOR_KINDS);
    kd_tensor_info info = kd_bert_tensor_info(&model->config, t);
    (void)member;
    if (!is_product(info) || (info.place == KD_PLACE_HEAD && layer > 0))
        return;
    const float *weight = model->parameters + layout->offset[t] + layer * layout->stride;
    unsigned char *packed = model->packed + layer * layout->packed_stride;
    const kd_engine *engine = &model->arithmetic.engine;
    engine->pack(engine, packed + layout->forward[t], weight, info.columns, info.columns, info.rows, 1);
    unsigned char *backward = layout->backward[t] < 0 ? NULL : packed + layout->backward[t];
    if (t == KD_TENSOR_key && layer == model->config.L - 1)
        backward = model->packed + layout->last_key;
    if (backward)
        engine->pack(engine, backward, weight, info.columns, info.rows, info.columns, 0);
}

void kd_bert_pack(const kd_bert *model, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    pack_range range = {model, from};
    kd_pool_run(team, pack_item, &range, to - from);
}
