#include "model/kd_model.h"

#include <string.h>

/* Places what a description keeps: its tensors, the layers' shapes and weights. */
static void place(kd_model *model, kd_arena *arena, const kd_encoder_config *encoder)
{
    model->tensors = kd_arena_take(arena, model->sizes.count, sizeof *model->tensors);
    model->encoder.layers = kd_arena_take(arena, encoder->L, sizeof *encoder->layers);
    model->layers = kd_arena_take(arena, encoder->L, sizeof *model->layers);
    if (encoder->columns)
        model->encoder.columns =
            kd_arena_take(arena, kd_encoder_heads_before(encoder, encoder->L), sizeof *encoder->columns);
}

size_t kd_model_bytes(const kd_encoder_config *encoder, const kd_head_config *head, const kd_arithmetic *arithmetic)
{
    kd_model model = {.sizes = kd_tensors_fill(NULL, encoder, head, arithmetic, 0)};
    kd_arena measure = kd_arena_over(NULL);
    place(&model, &measure, encoder);
    return measure.used;
}

static void index_tensors(kd_model *model)
{
    for (int slot = 0; slot < KD_SLOTS; slot++)
        model->first[slot] = -1;
    model->layer_tensors = 0;
    for (ptrdiff_t i = 0; i < model->sizes.count; i++) {
        const kd_tensor *t = &model->tensors[i];
        model->layer_tensors += t->layer == 0;
        if (t->layer <= 0)
            model->first[t->slot] = i;
    }
}

void kd_model_describe(kd_model *model, void *memory, const kd_encoder_config *encoder, const kd_head_config *head,
                       const kd_arithmetic *arithmetic, int frozen)
{
    kd_arena arena = kd_arena_over(memory);
    *model = (kd_model){.encoder = *encoder, .head = *head, .arithmetic = *arithmetic};
    model->sizes = kd_tensors_fill(NULL, encoder, head, arithmetic, frozen);
    place(model, &arena, encoder);
    memcpy((kd_layer_shape *)model->encoder.layers, encoder->layers, (size_t)encoder->L * sizeof *encoder->layers);
    if (encoder->columns)
        memcpy((int32_t *)model->encoder.columns, encoder->columns,
               (size_t)kd_encoder_heads_before(encoder, encoder->L) * sizeof *encoder->columns);
    kd_tensors_fill(model->tensors, encoder, head, arithmetic, frozen);
    index_tensors(model);
}

const kd_tensor *kd_model_tensor(const kd_model *model, kd_slot slot, ptrdiff_t layer)
{
    const kd_tensor *first = model->first[slot] < 0 ? NULL : &model->tensors[model->first[slot]];
    return first && first->layer == 0 ? first + kd_encoder_owner(&model->encoder, layer) * model->layer_tensors : first;
}

static kd_slot output_slot(const kd_model *model) { return model->head.tied ? KD_SLOT_word : KD_SLOT_head_output; }

const kd_tensor *kd_model_output(const kd_model *model) { return kd_model_tensor(model, output_slot(model), 0); }

static const void *packed_at(const kd_model *model, ptrdiff_t place)
{
    return place < 0 ? NULL : model->packed + place;
}

/* A product whose weight lies at `packed`. */
static kd_linear linear_at(const kd_model *model, const kd_tensor *weight, const kd_engine *engine,
                           const ptrdiff_t packed[2])
{
    const kd_tensor *bias = kd_model_tensor(model, weight->bias, weight->layer);
    return (kd_linear){.engine = engine,
                       .forward = packed_at(model, packed[0]),
                       .backward = packed_at(model, packed[1]),
                       .bias = model->parameters + bias->offset,
                       .I = weight->columns,
                       .O = weight->rows};
}

static kd_linear linear_of(const kd_model *model, kd_slot slot, ptrdiff_t layer)
{
    const kd_tensor *weight = kd_model_tensor(model, slot, layer);
    return weight ? linear_at(model, weight, kd_tensors_engine(&model->arithmetic, slot), weight->packed)
                  : (kd_linear){0};
}

static kd_linear absorbed_of(const kd_model *model, kd_slot slot, ptrdiff_t layer)
{
    const kd_tensor *weight = kd_model_tensor(model, slot, layer);
    return linear_at(model, weight, &model->arithmetic.float32, weight->absorbed);
}

static kd_norm norm_of(const kd_model *model, kd_slot slot, ptrdiff_t layer)
{
    const kd_tensor *gamma = kd_model_tensor(model, slot, layer);
    if (!gamma)
        return (kd_norm){0};
    const kd_tensor *beta = kd_model_tensor(model, gamma->bias, layer);
    return (kd_norm){model->parameters + gamma->offset, model->parameters + beta->offset, gamma->rows,
                     model->encoder.eps};
}

void kd_model_bind(kd_model *model)
{
    model->embedding_norm = norm_of(model, KD_SLOT_embedding_norm, 0);
    model->projection = linear_of(model, KD_SLOT_projection, 0);
    for (ptrdiff_t l = 0; l < model->encoder.L; l++)
        model->layers[l] = (kd_layer_weights){
            .query = linear_of(model, KD_SLOT_query, l),
            .key = linear_of(model, KD_SLOT_key, l),
            .value = linear_of(model, KD_SLOT_value, l),
            .absorbed_key = absorbed_of(model, KD_SLOT_key, l),
            .absorbed_value = absorbed_of(model, KD_SLOT_value, l),
            .output = linear_of(model, KD_SLOT_output, l),
            .up = linear_of(model, KD_SLOT_up, l),
            .down = linear_of(model, KD_SLOT_down, l),
            .attention_norm = norm_of(model, KD_SLOT_attention_norm, l),
            .ffn_norm = norm_of(model, KD_SLOT_ffn_norm, l),
        };
    model->head_weights.dense = linear_of(model, KD_SLOT_head_dense, 0);
    model->head_weights.norm = norm_of(model, KD_SLOT_head_norm, 0);
    model->head_weights.output = linear_of(model, output_slot(model), 0);
}

kd_embed_tables kd_model_tables(const kd_model *model, float *base)
{
    const kd_tensor *type = kd_model_tensor(model, KD_SLOT_type, 0);
    const ptrdiff_t E = model->encoder.E;
    return (kd_embed_tables){
        base + kd_model_tensor(model, KD_SLOT_word, 0)->offset,
        base + kd_model_tensor(model, KD_SLOT_position, 0)->offset + model->encoder.first_position * E,
        type ? base + type->offset : NULL,
        model->words,
    };
}

double kd_model_layer_flops(const kd_model *model, ptrdiff_t layer)
{
    const kd_encoder_config *c = &model->encoder;
    return 2.0 * (double)(4 * c->C * kd_encoder_width(c, layer) + 2 * c->C * c->layers[layer].F);
}

double kd_model_mean_flops(const kd_model *model)
{
    double sum = 0;
    for (ptrdiff_t l = 0; l < model->encoder.L; l++)
        sum += kd_model_layer_flops(model, l);
    return sum / (double)model->encoder.L;
}

/* W^T and W of a weight, where there is room for them. */
static void pack_weight(const kd_model *model, const kd_tensor *t, const float *weight, const kd_engine *engine,
                        const ptrdiff_t packed[2])
{
    if (packed[0] >= 0)
        engine->pack(engine, model->packed + packed[0], weight, t->columns, t->columns, t->rows, 1);
    if (packed[1] >= 0)
        engine->pack(engine, model->packed + packed[1], weight, t->columns, t->rows, t->columns, 0);
}

void kd_model_pack_tensor(const kd_model *model, const kd_tensor *t, const float *values)
{
    const kd_arithmetic *arithmetic = &model->arithmetic;
    pack_weight(model, t, values, kd_tensors_engine(arithmetic, t->slot), t->packed);
    const ptrdiff_t own[2] = {t->absorbed[0] == t->packed[0] ? -1 : t->absorbed[0],
                              t->absorbed[1] == t->packed[1] ? -1 : t->absorbed[1]};
    pack_weight(model, t, values, &arithmetic->float32, own);
}

typedef struct pack_range {
    const kd_model *model;
    ptrdiff_t from;
} pack_range;

static void pack_item(void *context, ptrdiff_t index, int member)
{
    const pack_range *range = context;
    const kd_tensor *t = &range->model->tensors[range->from + index];
    (void)member;
    kd_model_pack_tensor(range->model, t, range->model->parameters + t->offset);
}

void kd_model_pack(const kd_model *model, kd_team *team, ptrdiff_t from, ptrdiff_t to)
{
    pack_range range = {model, from};
    kd_pool_run(team, pack_item, &range, to - from);
}
