/* kd_encoder: the shape of a transformer encoder with LayerNorm behind each sum (Devlin et al., arXiv:1810.04805).
 *
 * Each layer has its own number of heads and feed-forward width, so that pruning can take from one layer what another
 * keeps; the width of a head D is the same everywhere, and a layer's attention width is A = H D.
 */
#ifndef KD_ENCODER_H
#define KD_ENCODER_H

#include "layers/kd_activation.h"

enum { KD_MAX_LAYERS = 4096 }; /* several times the deepest transformers; more would only take time to describe */

typedef struct kd_layer_shape {
    ptrdiff_t H, F; /* heads, feed-forward */
} kd_layer_shape;

typedef struct kd_encoder_config {
    ptrdiff_t L, C, D;            /* layers, hidden, width of a head */
    ptrdiff_t V, P;               /* vocabulary, positions */
    ptrdiff_t T;                  /* token types; 0: none */
    ptrdiff_t E;                  /* width of the embedding tables and of their norm: C, unless ... */
    int projected;                /* ... a product leads from E to C (ALBERT, ELECTRA) */
    ptrdiff_t first_position;     /* of a sequence's first token */
    const kd_layer_shape *layers; /* (L) */
    int shared;                   /* all layers, of one shape, compute with the tensors of layer 0 (ALBERT) */
    ptrdiff_t R, distance;        /* buckets of relative positions and where they end, see kd_relative.h; R = 0: none */
    ptrdiff_t RH;                 /* heads that their table has a column for */
    const int32_t *columns;       /* (sum of H) of each head of each layer its column; NULL: 0 .. RH - 1 in each */
    kd_activation activation;     /* the feed-forward's */
    float eps;                    /* LayerNorm's */
    /* Dropout rates, in [0, 1): of the embeddings, of the attention's probabilities, and behind the products that end
     * attention and feed-forward (DistilBERT has none behind the first, ALBERT none behind the second). */
    float p_embedding, p_attention, p_output, p_feed_forward;
} kd_encoder_config;

/* Width of a layer's queries, keys and values. */
static inline ptrdiff_t kd_encoder_width(const kd_encoder_config *c, ptrdiff_t layer)
{
    return c->layers[layer].H * c->D;
}

/* The heads of the layers before one: where its part of `columns` begins; of all L layers, how many there are. */
static inline ptrdiff_t kd_encoder_heads_before(const kd_encoder_config *c, ptrdiff_t layer)
{
    ptrdiff_t heads = 0;
    for (ptrdiff_t l = 0; l < layer; l++)
        heads += c->layers[l].H;
    return heads;
}

/* The layer whose tensors a layer computes with. */
static inline ptrdiff_t kd_encoder_owner(const kd_encoder_config *c, ptrdiff_t layer) { return c->shared ? 0 : layer; }

#endif
