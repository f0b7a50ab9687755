/* kd_model: an encoder with its head, over three borrowed flat arrays: parameters, gradients and packed weights. */
#ifndef KD_MODEL_H
#define KD_MODEL_H

#include "ground/kd_arena.h"
#include "ground/kd_pool.h"
#include "layers/kd_embed.h"
#include "layers/kd_norm.h"
#include "model/kd_tensors.h"

/* The products and norms of a layer, as pointers into the arrays. */
typedef struct kd_layer_weights {
    kd_linear query, key, value, output, up, down;
    kd_linear absorbed_key, absorbed_value; /* the same weights for products by heads, in the last layer alone */
    kd_norm attention_norm, ffn_norm;
} kd_layer_weights;

typedef struct kd_model {
    kd_encoder_config encoder;
    kd_head_config head;
    kd_arithmetic arithmetic;
    kd_tensor *tensors; /* (sizes.count) */
    kd_tensors_sizes sizes;
    ptrdiff_t first[KD_SLOTS]; /* index of a slot's tensor, in layer 0 of a layer's; -1 if it is absent */
    ptrdiff_t layer_tensors;   /* how many further it is in the next layer */

    /* The caller's, set by it before kd_model_bind. Gradients are NULL in a frozen model. */
    float *parameters;     /* (sizes.parameters) */
    float *gradients;      /* (sizes.parameters) */
    unsigned char *packed; /* sizes.packed bytes, KD_ALIGN-aligned */
    kd_embed_int8 words;   /* the word embeddings in int8, if that is what a frozen model reads */

    /* What kd_model_bind fills. */
    kd_norm embedding_norm;
    kd_linear projection;     /* of the embeddings, if there is one */
    kd_layer_weights *layers; /* (L) */
    kd_head_weights head_weights;
} kd_model;

/* Bytes of memory for the description of a model of these shapes. */
size_t kd_model_bytes(const kd_encoder_config *encoder, const kd_head_config *head, const kd_arithmetic *arithmetic);

/* Describes a model in `memory` (KD_ALIGN-aligned), which it keeps using, with its own copy of the layers' shapes. The
 * word embeddings are the first tensor. */
void kd_model_describe(kd_model *model, void *memory, const kd_encoder_config *encoder, const kd_head_config *head,
                       const kd_arithmetic *arithmetic, int frozen);

/* Points the weights into `parameters` and `packed`: to be called whenever one of them has moved. */
void kd_model_bind(kd_model *model);

/* The tensor of a slot, of one layer where the slot is a layer's; NULL if this model lacks it. */
const kd_tensor *kd_model_tensor(const kd_model *model, kd_slot slot, ptrdiff_t layer);

/* The weight of the head's last product; NULL if it has none. */
const kd_tensor *kd_model_output(const kd_model *model);

/* The embedding tables within `base`, which is `parameters` or `gradients`. */
kd_embed_tables kd_model_tables(const kd_model *model, float *base);

/* Multiplications and additions of a layer's products for one token, forward; and on average over the layers. */
double kd_model_layer_flops(const kd_model *model, ptrdiff_t layer);
double kd_model_mean_flops(const kd_model *model);

/* Packs tensors from .. to - 1 (those that are products), needed once after the parameters have changed. */
void kd_model_pack(const kd_model *model, kd_team *team, ptrdiff_t from, ptrdiff_t to);

/* Packs one tensor of this model from `values` (t->rows, t->columns), which need not lie in `parameters`. */
void kd_model_pack_tensor(const kd_model *model, const kd_tensor *t, const float *values);

#endif
