#include "model/kd_tensors.h"

typedef enum place { PLACE_EMBEDDING, PLACE_INPUT, PLACE_RELATIVE, PLACE_LAYER, PLACE_HEAD } place;

const char *kd_tensors_name(kd_slot slot)
{
    static const char *const names[] = {
#define NAME(place, slot, name, rows, columns, bias) [KD_SLOT_##slot] = name,
        KD_TENSORS(NAME)
#undef NAME
    };
    return names[slot];
}

static place place_of(kd_slot slot)
{
    static const place places[] = {
#define PLACE(place, slot, name, rows, columns, bias) [KD_SLOT_##slot] = PLACE_##place,
        KD_TENSORS(PLACE)
#undef PLACE
    };
    return places[slot];
}

/* A tensor of this slot and layer, with its shape. */
static kd_tensor tensor_of(const kd_encoder_config *encoder, const kd_head_config *head, kd_slot slot, ptrdiff_t layer)
{
    const ptrdiff_t V = encoder->V, P = encoder->P, T = encoder->T, C = encoder->C, E = encoder->E, K = head->K;
    const ptrdiff_t I = encoder->projected ? C : 0, R = encoder->R, RH = encoder->RH;
    const ptrdiff_t A = kd_encoder_width(encoder, kd_max(layer, 0)), F = encoder->layers[kd_max(layer, 0)].F;
    const ptrdiff_t W = kd_head_width(head, C), J = head->dense ? W : 0, N = head->norm ? W : 0;
    const ptrdiff_t O = head->tied ? 0 : K;
    switch (slot) {
#define SHAPE(place, slot, name, rows, columns, bias)                                                                  \
    case KD_SLOT_##slot:                                                                                               \
        return (kd_tensor){KD_SLOT_##slot,                                                                             \
                           KD_SLOT_##bias,                                                                             \
                           layer,                                                                                      \
                           rows,                                                                                       \
                           columns,                                                                                    \
                           0,                                                                                          \
                           -1,                                                                                         \
                           {-1, -1},                                                                                   \
                           {-1, -1},                                                                                   \
                           columns > 0 && PLACE_##place != PLACE_RELATIVE};
        KD_TENSORS(SHAPE)
#undef SHAPE
    default: return (kd_tensor){0};
    }
}

static ptrdiff_t take(ptrdiff_t *end, ptrdiff_t count, ptrdiff_t align)
{
    ptrdiff_t offset = *end;
    *end += kd_round_up(count, align);
    return offset;
}

/* A description in the making. Without `tensors` it is only measured. */
typedef struct description {
    kd_tensor *tensors;
    kd_tensors_sizes sizes;
    const kd_encoder_config *encoder;
    const kd_head_config *head;
    const kd_arithmetic *arithmetic;
    int frozen;
} description;

const kd_engine *kd_tensors_engine(const kd_arithmetic *arithmetic, kd_slot slot)
{
    return place_of(slot) == PLACE_HEAD || slot == KD_SLOT_word ? &arithmetic->float32 : &arithmetic->engine;
}

/* Takes room for W^T or W as an engine packs it. */
static ptrdiff_t take_packed(description *d, const kd_engine *engine, const kd_tensor *t, int backward)
{
    const ptrdiff_t K = backward ? t->rows : t->columns, N = backward ? t->columns : t->rows;
    return take(&d->sizes.packed, engine->packed_bytes(engine, K, N), KD_ALIGN);
}

/* Products by heads read part of an operand, which only float32 allows: in float32 they read the packed weights
 * themselves. Frozen, a query absorbs the key's W, and the value's W^T. */
static void lay_out_absorbed(description *d, kd_tensor *t)
{
    const int key = t->slot == KD_SLOT_key, value = t->slot == KD_SLOT_value;
    if (t->layer != kd_encoder_owner(d->encoder, d->encoder->L - 1) || !(key || value))
        return;
    for (int backward = 0; backward < 2; backward++)
        if (!d->frozen || key == backward)
            t->absorbed[backward] = d->arithmetic->engine.compute == KD_FLOAT32 && t->packed[backward] >= 0
                                        ? t->packed[backward]
                                        : take_packed(d, &d->arithmetic->float32, t, backward);
}

static void lay_out(description *d, kd_tensor *t)
{
    const kd_engine *engine = kd_tensors_engine(d->arithmetic, t->slot);
    const int decoder = t->slot == KD_SLOT_word && d->head->tied;
    const int summed_as_vector = t->columns == 0 || place_of(t->slot) == PLACE_RELATIVE;
    t->offset = take(&d->sizes.parameters, kd_tensor_floats(t), KD_ALIGN_FLOATS);
    if (summed_as_vector)
        t->vector = take(&d->sizes.vectors, kd_tensor_floats(t), KD_ALIGN_FLOATS);
    if (decoder)
        t->bias = KD_SLOT_head_output_bias;
    if (summed_as_vector || (place_of(t->slot) == PLACE_EMBEDDING && !decoder))
        return;
    t->packed[0] = take_packed(d, engine, t, 0);
    if (!d->frozen)
        t->packed[1] = take_packed(d, engine, t, 1);
    lay_out_absorbed(d, t);
}

/* Lays out the tensors of one place, in the order of the list. */
static void lay_out_place(description *d, place wanted, ptrdiff_t layer)
{
    for (int slot = 0; slot < KD_SLOTS; slot++) {
        kd_tensor tensor = tensor_of(d->encoder, d->head, (kd_slot)slot, layer);
        if (place_of((kd_slot)slot) != wanted || tensor.rows == 0)
            continue;
        lay_out(d, &tensor);
        if (d->tensors)
            d->tensors[d->sizes.count] = tensor;
        d->sizes.count++;
    }
}

kd_tensors_sizes kd_tensors_fill(kd_tensor *tensors, const kd_encoder_config *encoder, const kd_head_config *head,
                                 const kd_arithmetic *arithmetic, int frozen)
{
    description d = {.tensors = tensors, .encoder = encoder, .head = head, .arithmetic = arithmetic, .frozen = frozen};
    lay_out_place(&d, PLACE_EMBEDDING, -1);
    lay_out_place(&d, PLACE_INPUT, -1);
    lay_out_place(&d, PLACE_RELATIVE, -1);
    for (ptrdiff_t l = 0; l <= kd_encoder_owner(encoder, encoder->L - 1); l++)
        lay_out_place(&d, PLACE_LAYER, l);
    lay_out_place(&d, PLACE_HEAD, -1);
    return d.sizes;
}
