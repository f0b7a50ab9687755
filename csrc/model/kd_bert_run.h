/* kd_bert_run: what the parts of kd_bert share: the activation map of a run, and one layer on a span of
 * rows. Only kd_bert_*.c include this. */
#ifndef KD_BERT_RUN_H
#define KD_BERT_RUN_H

#include "model/kd_bert.h"

/* The rows one item works on: the tokens of sequences b0 .. b1 - 1, or their [CLS] rows only. */
typedef struct kd_span {
    ptrdiff_t b0, b1;
    ptrdiff_t t0, N; /* first token, number of tokens */
    ptrdiff_t M;     /* rows: N, or b1 - b0 when cls */
    int cls;
} kd_span;

/* Activations of one layer. Rows are tokens, or sequences when only [CLS] rows are computed (all but x; k and
 * v do not exist then). Backward overwrites in place: q, k, v become their gradients, but for q of [CLS]; s1, up and
 * s2 become the gradients of the three products' outputs. */
typedef struct kd_layer_map {
    float *x;               /* (N, C) the layer's input; with [CLS] rows alone it becomes its gradient */
    float *q, *k, *v, *ctx; /* (N, C) */
    float *lse;             /* (N, H) */
    float *s1, *st1;        /* (N, C), (N, 2) input and statistics of the attention's LayerNorm */
    float *h;               /* (N, C) its output */
    float *up, *act;        /* (N, F) slope of the activation, NULL when evaluating, and its output */
    float *s2, *st2;        /* (N, C), (N, 2) input and statistics of the feed-forward's LayerNorm */
    float *y;               /* (N, C) the layer's output */
} kd_layer_map;

/* The last layer's attention when it is computed for [CLS] alone; rows are sequences. */
typedef struct kd_cls_map {
    float *u;     /* (M, H, C) the query on the side of x; backward makes it its gradient */
    float *z;     /* (M, H, C) x summed with the probabilities */
    float *total; /* (M, H) sums of the probabilities after dropout */
    float *dctx;  /* training: (M, C) gradient of ctx */
    float *dq;    /* training: (M, C) gradient of q */
} kd_cls_map;

/* What each thread has for itself; R is the largest number of rows of any item. */
typedef struct kd_member {
    kd_layer_map layer; /* evaluating: R rows, every layer through the same buffers */
    kd_cls_map cls;     /* evaluating, when cls_only: the rows of a TAIL item */
    float *attention;   /* kd_attention's scratch */
    float *dx, *dctx;   /* training: (R, C) gradients on their way down */
    float *dz;          /* training, when cls_only: gradient of z for the rows of a TAIL item */
    float *dact;        /* training: (R, F) */
    float *outer;       /* training: kd_linear's weight gradient tile */
} kd_member;

struct kd_bert_run {
    const kd_bert *model;
    kd_batch batch;
    kd_dropout dropout;
    kd_mode mode;
    int cls_only, threads;
    ptrdiff_t R, longest;   /* rows of the largest item, tokens of the longest sequence */
    ptrdiff_t chunks;       /* chunk c is sequences chunk[c] .. chunk[c + 1] - 1 */
    ptrdiff_t stage_layers; /* a BODY item takes one chunk through so many layers, the last stage perhaps fewer */
    int64_t *chunk;
    float *embedding_sum, *embedding_stats; /* training: (N, C), (N, 2) */
    kd_layer_map *layers;                   /* training: L of them */
    kd_cls_map cls_map;                     /* training, when cls_only */
    float *x;                               /* evaluating: (N, C) input and output of every layer */
    float *cls_in;                          /* (B, C) the last layer's input at [CLS], when cls_only */
    float *cls, *pooled, *dropped;          /* (B, C) pooler's input, its tanh, after dropout */
    float *logits;                          /* (B, K); then their gradient */
    float *dcls;                            /* training: (B, C) gradient of cls_in, or of cls */
    float *partials;                        /* training: vector gradients of each BODY and TAIL item */
    kd_member *members;
};

/* The products and norms of a layer, as pointers into the model. */
typedef struct kd_layer_weights {
    kd_linear query, key, value, output, up, down;
    kd_norm attention_norm, ffn_norm;
} kd_layer_weights;

kd_linear kd_bert_linear(const kd_bert *model, kd_tensor weight, ptrdiff_t layer);
kd_norm kd_bert_norm(const kd_bert *model, kd_tensor gamma, ptrdiff_t layer);
kd_layer_weights kd_bert_layer_weights(const kd_bert *model, ptrdiff_t layer);
kd_embed_tables kd_bert_embeddings(const kd_bert *model, float *base);

double kd_bert_layer_flops(const kd_bert_config *config); /* of a layer's products, for one token, forward */
ptrdiff_t kd_bert_body_layers(const kd_bert_run *run);    /* that are computed for all tokens */
ptrdiff_t kd_bert_tail_items(const kd_bert_run *run);
kd_span kd_bert_body_span(const kd_bert_run *run, ptrdiff_t item);
kd_span kd_bert_tail_span(const kd_bert_run *run, ptrdiff_t item);

/* The layer's activations with every pointer at the span's first row. */
kd_layer_map kd_bert_view(const kd_bert_run *run, ptrdiff_t layer, const kd_span *span, int member);

/* This item's row of vector gradients: BODY items first, then TAIL items. */
float *kd_bert_partial(const kd_bert_run *run, ptrdiff_t item);

/* y (M, n) = dropout of x (M, n), `tensor`'s rows of the span. y may be x. */
void kd_bert_drop(const kd_bert_run *run, float *y, const float *x, int tensor, const kd_span *span, ptrdiff_t n,
                  float p);

kd_attention kd_bert_attention(const kd_bert_run *run, ptrdiff_t layer);
kd_cls_map kd_bert_cls_view(const kd_bert_run *run, const kd_span *span, int member);

/* Adds the column sums of dy (M, O) to a bias's place in `partial`. */
void kd_bias_backward(const kd_bert_run *run, float *partial, kd_tensor bias, const float *dy, ptrdiff_t M,
                      ptrdiff_t O);

/* The layer's attention: from x to ctx, for all tokens of the span. */
void kd_layer_attend(const kd_bert_run *run, const kd_layer_map *view, const kd_layer_weights *w, ptrdiff_t layer,
                     const kd_span *span, int member);
/* From ctx to the layer's output, for the span's rows. `x` is their input (the residual). */
void kd_layer_output(const kd_bert_run *run, const kd_layer_map *view, const kd_layer_weights *w, const float *x,
                     ptrdiff_t layer, const kd_span *span);
/* The same backwards: dx (M, C) holds dy and becomes the residual's gradient, dctx (M, C) is written. Here and below,
 * vector gradients are added to `partial`. */
void kd_layer_output_backward(const kd_bert_run *run, const kd_layer_map *view, const kd_layer_weights *w, float *dctx,
                              float *dx, ptrdiff_t layer, const kd_span *span, float *partial, int member);
/* dx (N, C) += the gradient through q, k and v, which become theirs. */
void kd_layer_attend_backward(const kd_bert_run *run, const kd_layer_map *view, const kd_layer_weights *w,
                              const float *dctx, float *dx, ptrdiff_t layer, const kd_span *span, float *partial,
                              int member);

/* The last layer's attention for [CLS], whose inputs are x_cls (M, C): from x to ctx. */
void kd_cls_attend(const kd_bert_run *run, const kd_layer_map *view, const kd_cls_map *cls, const kd_layer_weights *w,
                   const float *x_cls, const kd_span *span, int member);
/* From cls->dctx: x becomes its gradient through keys and values, dx (M, C) += that of x_cls through the query. */
void kd_cls_attend_backward(const kd_bert_run *run, const kd_layer_map *view, const kd_cls_map *cls,
                            const kd_layer_weights *w, float *dx, const kd_span *span, float *partial, int member);

/* Backward's items, see kd_phase. */
void kd_bert_tail_back_item(kd_bert_run *run, ptrdiff_t item, int member);
void kd_bert_body_back_item(kd_bert_run *run, ptrdiff_t item, int member);
ptrdiff_t kd_bert_weight_items(const kd_bert_run *run);
void kd_bert_weight_item(kd_bert_run *run, ptrdiff_t item, int member);

#endif
