/* kd_tensors: the one list of a model's tensors, and where each lies in the flat arrays.
 *
 * Names are canonical, the same for every architecture; what a checkpoint calls them is a table in Python.
 */
#ifndef KD_TENSORS_H
#define KD_TENSORS_H

#include "model/kd_encoder.h"
#include "model/kd_head.h"

/* X(place, slot, name, rows, columns, bias), in the order they lie in the flat arrays. columns = 0 marks a vector, and
 * rows = 0 a tensor that this model lacks. An EMBEDDING matrix is a table; of a model whose head is tied the word
 * embeddings are a product's weight, too. RELATIVE is a small table: its gradient is summed like a vector's, and like a
 * bias it gets no weight decay. Any other matrix is a product's weight. A LAYER tensor exists once a layer, or once for
 * all that share it, and its name follows "layer.<l>."; A and F are that layer's. `bias` is added behind a product or
 * norm. */
#define KD_TENSORS(X)                                                                                                  \
    X(EMBEDDING, word, "embeddings.word", V, E, none)                                                                  \
    X(EMBEDDING, position, "embeddings.position", P, E, none)                                                          \
    X(EMBEDDING, type, "embeddings.type", T, E, none)                                                                  \
    X(EMBEDDING, embedding_norm, "embeddings.norm", E, 0, embedding_norm_bias)                                         \
    X(EMBEDDING, embedding_norm_bias, "embeddings.norm.bias", E, 0, none)                                              \
    X(INPUT, projection, "embeddings.projection", I, E, projection_bias)                                               \
    X(INPUT, projection_bias, "embeddings.projection.bias", I, 0, none)                                                \
    X(RELATIVE, relative_bias, "relative_bias", R, RH, none)                                                           \
    X(LAYER, query, "query", A, C, query_bias)                                                                         \
    X(LAYER, query_bias, "query.bias", A, 0, none)                                                                     \
    X(LAYER, key, "key", A, C, key_bias)                                                                               \
    X(LAYER, key_bias, "key.bias", A, 0, none)                                                                         \
    X(LAYER, value, "value", A, C, value_bias)                                                                         \
    X(LAYER, value_bias, "value.bias", A, 0, none)                                                                     \
    X(LAYER, output, "output", C, A, output_bias)                                                                      \
    X(LAYER, output_bias, "output.bias", C, 0, none)                                                                   \
    X(LAYER, attention_norm, "attention_norm", C, 0, attention_norm_bias)                                              \
    X(LAYER, attention_norm_bias, "attention_norm.bias", C, 0, none)                                                   \
    X(LAYER, up, "up", F, C, up_bias)                                                                                  \
    X(LAYER, up_bias, "up.bias", F, 0, none)                                                                           \
    X(LAYER, down, "down", C, F, down_bias)                                                                            \
    X(LAYER, down_bias, "down.bias", C, 0, none)                                                                       \
    X(LAYER, ffn_norm, "ffn_norm", C, 0, ffn_norm_bias)                                                                \
    X(LAYER, ffn_norm_bias, "ffn_norm.bias", C, 0, none)                                                               \
    X(HEAD, head_dense, "head.dense", J, C, head_dense_bias)                                                           \
    X(HEAD, head_dense_bias, "head.dense.bias", J, 0, none)                                                            \
    X(HEAD, head_norm, "head.norm", N, 0, head_norm_bias)                                                              \
    X(HEAD, head_norm_bias, "head.norm.bias", N, 0, none)                                                              \
    X(HEAD, head_output, "head.output", O, W, head_output_bias)                                                        \
    X(HEAD, head_output_bias, "head.output.bias", K, 0, none)

#define KD_TENSORS_ENUM(place, slot, name, rows, columns, bias) KD_SLOT_##slot,
typedef enum kd_slot { KD_TENSORS(KD_TENSORS_ENUM) KD_SLOT_none, KD_SLOTS = KD_SLOT_none } kd_slot;
#undef KD_TENSORS_ENUM

/* One tensor of one model. */
typedef struct kd_tensor {
    kd_slot slot, bias;
    ptrdiff_t layer;         /* -1 outside layers */
    ptrdiff_t rows, columns; /* columns = 0: a vector */
    ptrdiff_t offset;        /* floats, in parameters and gradients */
    ptrdiff_t vector;        /* of vectors and RELATIVE: floats, in a row of partial vector gradients; -1 */
    ptrdiff_t packed[2];     /* of products: bytes, W^T for forward and W for backward; -1 */
    ptrdiff_t absorbed[2]; /* of the key and value in the last layer: the same in float32, for products by heads; -1 */
    int decay;             /* weight decay applies */
} kd_tensor;

/* Floats of a tensor. */
static inline ptrdiff_t kd_tensor_floats(const kd_tensor *t) { return t->rows * kd_max(t->columns, 1); }

/* How many tensors there are, and the sizes of the arrays that they lie in. */
typedef struct kd_tensors_sizes {
    ptrdiff_t count;
    ptrdiff_t parameters, vectors; /* floats */
    ptrdiff_t packed;              /* bytes */
} kd_tensors_sizes;

/* Fills `tensors`, as many as there are; NULL: only measures. Frozen models pack no weights for backward, but for the
 * last layer's key, which an absorbed query reads (see kd_picked.h). */
kd_tensors_sizes kd_tensors_fill(kd_tensor *tensors, const kd_encoder_config *encoder, const kd_head_config *head,
                                 const kd_arithmetic *arithmetic, int frozen);

/* The engine of a product: that of the compute type, but float32 for a head's (see kd_head.h), which that with the word
 * embeddings is. */
const kd_engine *kd_tensors_engine(const kd_arithmetic *arithmetic, kd_slot slot);

/* "embeddings.word"; of layer tensors what follows "layer.<l>.". */
const char *kd_tensors_name(kd_slot slot);

#endif
