/* kd_map: one pass of a batch through a model: where its activations lie, and how its work is cut into items.
 *
 * Everything of a pass lies in one workspace, whose size comes from running the placement on an arena without memory.
 * A batch is cut by its own size, never by the number of threads: sums over items are part of a result's bits.
 */
#ifndef KD_MAP_H
#define KD_MAP_H

#include "layers/kd_attention.h"
#include "model/kd_model.h"
#include "model/kd_span.h"
#include "model/kd_tap.h"

/* Whether a pass keeps what backward reads. */
typedef enum kd_mode { KD_EVALUATE, KD_TRAIN } kd_mode;

/* What is asked of a pass. */
typedef struct kd_pass {
    kd_batch batch;
    kd_dropout dropout;
    kd_mode mode;
    int whole_last; /* the last layer is computed for all rows, even if the head reads one row of each sequence */
    int threads;
    kd_taps taps;        /* gradients are set before backward */
    int features_only;   /* the head's last product is left to kd_decoder: there are no outputs */
    const int64_t *rows; /* (row_count) the tokens that a head of KD_PICK_LISTED reads, ascending; NULL: all tokens */
    ptrdiff_t row_count;
} kd_pass;

/* Activations of one layer:
 *
 *   x -> q, k, v -> ctx -> pre_norm1 -> h -> (slope), act -> pre_norm2 -> y        forward
 *        dq, dk, dv        d(output)         d(up)           d(down)               what backward leaves in its place
 *
 * where d(output) is the gradient of the output product's result. Rows are tokens. In a last layer computed for the
 * picked rows alone they are sequences, but for x; k and v are absent, q keeps its value, and x becomes its gradient
 * through keys and values. */
typedef struct kd_layer_map {
    float *x;                  /* (N, C) the layer's input */
    float *q, *k, *v, *ctx;    /* (N, A) */
    float *lse;                /* (N, H) */
    float *pre_norm1, *stats1; /* (N, C), (N, 2) input and statistics of the attention's LayerNorm */
    float *h;                  /* (N, C) its output */
    float *slope, *act;        /* (N, F) act' (NULL when evaluating) and the activation's output */
    float *pre_norm2, *stats2; /* (N, C), (N, 2) input and statistics of the feed-forward's LayerNorm */
    float *y;                  /* (N, C) the layer's output */
} kd_layer_map;

/* The last layer's attention when it is computed for the picked rows alone, M of them. */
typedef struct kd_picked_map {
    float *x;     /* (M, C) the layer's input at the picked rows */
    float *u;     /* (M, H, C) the query on the side of x; backward makes it its gradient */
    float *z;     /* (M, H, C) x summed with the probabilities */
    float *total; /* (M, H) sums of the probabilities after dropout */
    float *dctx;  /* training: (M, A) gradient of ctx */
    float *dq;    /* training: (M, A) gradient of q */
} kd_picked_map;

/* What each thread has for itself; R is the largest number of rows of any item. A, H and F are the widest layer's. */
typedef struct kd_member {
    kd_layer_map layer;   /* evaluating: R rows, every layer through the same buffers */
    kd_picked_map picked; /* evaluating, when the last layer is picked: the rows of an item; x is not here */
    float *attention;     /* kd_attention's scratch */
    void *attend;         /* the scratch of kd_map_attender */
    void *operand;        /* the left operand of a product, at most R rows of the model's or attention's width, */
    void *wide_operand;   /* or of the feed-forward's; NULL in float32 */
    void *q, *k, *v;      /* what kd_map_attender reads: left operands of R rows of the attention's width */
    float *dx, *dctx;     /* training: (R, C), (R, A) gradients on their way down */
    float *dz;            /* training, when the last layer is picked: gradient of z for the rows of an item */
    float *dact;          /* training: (R, F) */
    float *dspread;       /* training, with relative positions: gradient of spread in one item */
    float *embedded;      /* with projected embeddings: (R, E) what is projected; training, its gradient */
    void *outer;          /* training: scratch for a tile of a weight's gradient */
    float *logits;        /* of features alone: (2, K) */
} kd_member;

typedef struct kd_run {
    const kd_model *model;
    kd_pass pass;
    kd_pick pick;           /* the head's, but KD_PICK_ALL for one that is to read listed rows and was given none */
    int last_picked;        /* the last layer is computed for the picked rows alone */
    ptrdiff_t R, longest;   /* rows of the largest item, tokens of the longest sequence */
    double squares;         /* the sum of the squares of the sequences' lengths */
    ptrdiff_t chunks;       /* chunk c is sequences chunk[c] .. chunk[c + 1] - 1 */
    ptrdiff_t stage_layers; /* an item takes one chunk through so many layers, the last stage perhaps fewer */
    int64_t *chunk;
    float *embedding_sum, *embedding_stats; /* training: (N, E), (N, 2) */
    float *projected, *dprojected;          /* training, with projected embeddings: (N, E) the rows that are multiplied;
                                             * (N, C) gradient of the result */
    kd_layer_map *layers;                   /* training: L of them */
    kd_picked_map picked;                   /* when the last layer is picked: B rows; evaluating x alone */
    float *last_x;                          /* training, when queries, keys or values of such a layer are tapped: (N, C)
                                             * its input, which backward overwrites in its map */
    float *x;                               /* evaluating: (N, C) input and output of every layer */
    float *spread;                          /* with relative positions: (RH, 2 longest - 1), see kd_attention.h */
    kd_head_map head;
    ptrdiff_t head_rows; /* B, N or the number of listed rows, as the head picks */
    float *drows;    /* training: gradient of the rows that the head picks; of picked.x when the last layer is picked */
    float *partials; /* training: vector gradients of each chunk's item and each of the head's */
    ptrdiff_t block_rows; /* of features alone: rows of a block of kd_decoder, */
    float *block;         /* (block_rows, K) their logits, then the gradient of these */
    double *terms;        /* (M, 2) each row's loss against its label and the teacher */
    kd_member *members;
    kd_team *team; /* the threads that do an item together, as members 0 on; NULL: each item has one thread */
} kd_run;

/* Whether all sizes of a pass are certain to fit their types: for a batch that is larger than any memory they may not,
 * and then nothing else here may be called. */
int kd_map_fits(const kd_model *model, const kd_pass *pass);

/* Bytes of workspace for a pass. Its batch may be all counts but for `starts`. */
size_t kd_map_bytes(const kd_model *model, const kd_pass *pass);

/* Begins a run in `workspace` (KD_ALIGN-aligned); the batch and the lists of rows and taps are copied into it. */
kd_run *kd_map_begin(const kd_model *model, void *workspace, const kd_pass *pass);

/* Cuts the batch into chunks: counts them, finds R, the longest sequence and the layers of a stage; `chunk` is filled with
 * the boundaries unless it is NULL. Placement begins with it. */
void kd_map_cut(kd_run *run, int64_t *chunk);

ptrdiff_t kd_map_picked_rows(const kd_run *run); /* of a head's item that picks one of each sequence */
ptrdiff_t kd_map_full_layers(const kd_run *run); /* that are computed for all tokens */
ptrdiff_t kd_map_head_items(const kd_run *run);
ptrdiff_t kd_map_partial_rows(const kd_run *run);

/* Roughly the floating-point operations of a layer for one token, attention included, and of a picked last layer's
 * attention for one row; on average over layers and sequences. */
double kd_map_token_flops(const kd_run *run);
double kd_map_picked_flops(const kd_run *run);

kd_span kd_map_chunk_span(const kd_run *run, ptrdiff_t chunk);
kd_span kd_map_head_span(const kd_run *run, ptrdiff_t item);

/* The rows that the head picks of a chunk's tokens. */
kd_span kd_map_picked_span(const kd_run *run, ptrdiff_t chunk);

/* Activations with every pointer at the span's first row: of a layer, of a picked last layer, of the head. */
kd_layer_map kd_map_layer(const kd_run *run, ptrdiff_t layer, const kd_span *span, int member);
kd_picked_map kd_map_picked(const kd_run *run, const kd_span *span, int member);
kd_head_map kd_map_head(const kd_run *run, const kd_span *span);

/* This item's row of vector gradients: chunks first, then the head's items; and the place in such a row of a slot. */
float *kd_map_partial(const kd_run *run, ptrdiff_t item);
float *kd_map_vector(const kd_run *run, float *partial, kd_slot slot, ptrdiff_t layer);

kd_attention kd_map_attention(const kd_run *run, ptrdiff_t layer, int member);

/* The engine that computes attention from queries, keys and values of less than 32 bits, or NULL: these are float32, as in
 * training and with relative positions. */
const kd_engine *kd_map_attender(const kd_run *run);

#endif
