/* kd_bert: BERT for sequence classification (Devlin et al., arXiv:1810.04805; post-LayerNorm).
 *
 * The model is a description and three borrowed arrays: parameters, gradients and packed weights, each
 * flat and owned by Python. A run is one batch going through it, over one workspace, also Python's.
 *
 * A run is a few phases, each a number of independent items that a team of threads shares. Forward is
 * BODY (chunks of whole sequences go through all layers, one thread each, activations hot in its cache)
 * and TAIL (the [CLS] rows). Backward is TAIL_BACK, BODY_BACK, then WEIGHTS: everything that sums over
 * tokens, shared by output and not by token. So the bits do not depend on the number of threads.
 *
 * The loss reads only [CLS], so the last layer is computed for B rows (cls_only), with the weights of keys and
 * values absorbed by the query. With cls_only = 0 it runs in full; the logits are the same up to rounding.
 */
#ifndef KD_BERT_H
#define KD_BERT_H

#include "ground/kd_arena.h"
#include "layers/kd_attention.h"
#include "layers/kd_dropout.h"
#include "layers/kd_embed.h"
#include "layers/kd_activation.h"
#include "layers/kd_linear.h"
#include "layers/kd_norm.h"
#include "ground/kd_pool.h"

typedef struct kd_bert_config {
    ptrdiff_t L, C, H, F; /* layers, hidden, heads (dividing C), feed-forward */
    ptrdiff_t V, P, T, K; /* vocabulary, positions, token types, labels */
    kd_activation activation;
    float eps;                                 /* LayerNorm's */
    float p_hidden, p_attention, p_classifier; /* dropout rates, in [0, 1) */
} kd_bert_config;

/* The one list of the model's tensors: X(place, symbol, name, rows, columns), in the order they lie in
 * the flat arrays. columns = 0 marks a vector; exactly the matrices get weight decay. A LAYER tensor
 * exists L times and its name follows "bert.encoder.layer.<l>.". The tensor after a LAYER or HEAD
 * matrix is that product's bias. */
#define KD_BERT_TENSORS(X)                                                                                             \
    X(EMBEDDING, word, "bert.embeddings.word_embeddings.weight", V, C)                                                 \
    X(EMBEDDING, position, "bert.embeddings.position_embeddings.weight", P, C)                                         \
    X(EMBEDDING, type, "bert.embeddings.token_type_embeddings.weight", T, C)                                           \
    X(EMBEDDING, embedding_gamma, "bert.embeddings.LayerNorm.weight", C, 0)                                            \
    X(EMBEDDING, embedding_beta, "bert.embeddings.LayerNorm.bias", C, 0)                                               \
    X(LAYER, query, "attention.self.query.weight", C, C)                                                               \
    X(LAYER, query_bias, "attention.self.query.bias", C, 0)                                                            \
    X(LAYER, key, "attention.self.key.weight", C, C)                                                                   \
    X(LAYER, key_bias, "attention.self.key.bias", C, 0)                                                                \
    X(LAYER, value, "attention.self.value.weight", C, C)                                                               \
    X(LAYER, value_bias, "attention.self.value.bias", C, 0)                                                            \
    X(LAYER, output, "attention.output.dense.weight", C, C)                                                            \
    X(LAYER, output_bias, "attention.output.dense.bias", C, 0)                                                         \
    X(LAYER, attention_gamma, "attention.output.LayerNorm.weight", C, 0)                                               \
    X(LAYER, attention_beta, "attention.output.LayerNorm.bias", C, 0)                                                  \
    X(LAYER, up, "intermediate.dense.weight", F, C)                                                                    \
    X(LAYER, up_bias, "intermediate.dense.bias", F, 0)                                                                 \
    X(LAYER, down, "output.dense.weight", C, F)                                                                        \
    X(LAYER, down_bias, "output.dense.bias", C, 0)                                                                     \
    X(LAYER, ffn_gamma, "output.LayerNorm.weight", C, 0)                                                               \
    X(LAYER, ffn_beta, "output.LayerNorm.bias", C, 0)                                                                  \
    X(HEAD, pooler, "bert.pooler.dense.weight", C, C)                                                                  \
    X(HEAD, pooler_bias, "bert.pooler.dense.bias", C, 0)                                                               \
    X(HEAD, classifier, "classifier.weight", K, C)                                                                     \
    X(HEAD, classifier_bias, "classifier.bias", K, 0)

#define KD_BERT_ENUM(place, symbol, name, rows, columns) KD_TENSOR_##symbol,
typedef enum kd_tensor { KD_BERT_TENSORS(KD_BERT_ENUM) KD_TENSOR_KINDS } kd_tensor;
#undef KD_BERT_ENUM

typedef enum kd_tensor_place { KD_PLACE_EMBEDDING, KD_PLACE_LAYER, KD_PLACE_HEAD } kd_tensor_place;

typedef struct kd_tensor_info {
    const char *name;
    kd_tensor_place place;
    ptrdiff_t rows, columns; /* columns = 0: a vector */
} kd_tensor_info;

kd_tensor_info kd_bert_tensor_info(const kd_bert_config *config, kd_tensor tensor);

/* Offsets in floats, of packed weights in bytes; a LAYER tensor of layer l lies l * stride further. */
typedef struct kd_bert_layout {
    ptrdiff_t offset[KD_TENSOR_KINDS];   /* in parameters and gradients */
    ptrdiff_t vector[KD_TENSOR_KINDS];   /* of vectors: in a row of partial vector gradients */
    ptrdiff_t forward[KD_TENSOR_KINDS];  /* of products: W^T packed */
    ptrdiff_t backward[KD_TENSOR_KINDS]; /* of products: W packed */
    ptrdiff_t last_key;                  /* W of the last layer's key, packed in a frozen model too */
    ptrdiff_t stride, vector_stride, packed_stride;
    ptrdiff_t size, vector_size, packed_size; /* of the whole array */
} kd_bert_layout;

typedef struct kd_bert {
    kd_bert_config config;
    kd_arithmetic arithmetic;
    kd_bert_layout layout;
    float *parameters;
    float *gradients; /* NULL: frozen */
    unsigned char *packed;
} kd_bert;

/* Steps through all tensors of all layers in the order of the flat arrays: from {0, 0}, until 0 comes. */
typedef struct kd_tensor_at {
    kd_tensor tensor;
    ptrdiff_t layer;
} kd_tensor_at;

int kd_bert_next(const kd_bert_config *config, kd_tensor_at *at);
ptrdiff_t kd_bert_tensors(const kd_bert_config *config); /* how many there are */

/* Describes a model; frozen models pack no weights for the backward pass, but for the one that [CLS] reads. The
 * arrays are set by the caller, from layout.size and layout.packed_size. */
void kd_bert_describe(kd_bert *model, const kd_bert_config *config, const kd_arithmetic *arithmetic, int frozen);

typedef enum kd_phase {
    KD_PHASE_BODY,
    KD_PHASE_TAIL,
    KD_PHASE_TAIL_BACK,
    KD_PHASE_BODY_BACK,
    KD_PHASE_WEIGHTS,
} kd_phase;

/* Whether a run keeps what backward reads. */
typedef enum kd_mode { KD_EVALUATE, KD_TRAIN } kd_mode;

typedef struct kd_bert_run kd_bert_run;

/* Bytes of workspace for a run of this batch with this many threads. `batch` may be all counts but for
 * `starts`. */
size_t kd_bert_workspace(const kd_bert *model, const kd_batch *batch, kd_mode mode, int cls_only, int threads);

/* Begins a run in `workspace` (KD_ALIGN-aligned); the batch is copied into it. Packs nothing yet. */
kd_bert_run *kd_bert_begin(const kd_bert *model, void *workspace, const kd_batch *batch, const kd_dropout *dropout,
                           kd_mode mode, int cls_only, int threads);

/* Items of a phase, and roughly the floating-point operations of one. */
ptrdiff_t kd_bert_items(const kd_bert_run *run, kd_phase phase);
double kd_bert_item_cost(const kd_bert_run *run, kd_phase phase);

/* Does items from .. to - 1 of a phase. Phases in order; TAIL reads what BODY wrote, and so on. */
void kd_bert_do(kd_bert_run *run, kd_phase phase, kd_team *team, ptrdiff_t from, ptrdiff_t to);

/* (B, K): written by TAIL. The gradient TAIL_BACK reads is put at the same place. */
float *kd_bert_logits(kd_bert_run *run);
const kd_batch *kd_bert_batch(const kd_bert_run *run);

/* Weights into panels, needed once after they changed: items, and items from .. to - 1. */
ptrdiff_t kd_bert_pack_items(const kd_bert *model);
void kd_bert_pack(const kd_bert *model, kd_team *team, ptrdiff_t from, ptrdiff_t to);

#endif
