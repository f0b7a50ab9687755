#include "model/kd_map.h"

/* How a pass is cut into items: by the batch and the model alone, so that the bits of sums over items are those of any
 * number of threads. */

enum {
    LEAST_CHUNK = 48, /* tokens of a chunk that are worth a thread */
    LEAST_HEAD = 8,   /* sequences, or listed rows, of a head's item that are */
    MOST_HEAD = 48,
};

/* Work of one item that is a fraction of a second on a slow core, so that Ctrl-C is answered. */
#define MOST_FLOPS 2e10

/* Tokens of one chunk at most: enough to hide the reading of weights, few enough that a small model's activations stay
 * in L2. Measured (Zen 5, one core): BERT-base 108 tokens 217 GF/s with AVX-512 and 115 with AVX2, 228 tokens 240 and
 * 118; hidden 384: 192 tokens 224, 384 tokens 240, 768 tokens 242; hidden 128: 96, 144, 192 and 384 tokens the same.
 * bfloat16 and int8 on AMX want no others: 192 to 1,536 tokens differ by less than the noise of 5 %. */
static ptrdiff_t chunk_tokens(const kd_model *model, kd_mode mode)
{
    const ptrdiff_t most = model->encoder.C < 256 ? 192 : 384;
    if (mode == KD_EVALUATE) /* a large model's items are cut by layers */
        return most;
    double tokens = MOST_FLOPS / ((double)model->encoder.L * kd_model_mean_flops(model));
    return tokens > (double)most ? most : kd_max(LEAST_CHUNK, (ptrdiff_t)tokens);
}

/* Of attention for one query of all heads: two products of `width` numbers with each of so many keys, and the softmax. */
static double attention_flops(const kd_run *run, double width, double keys)
{
    enum { SCORE_FLOPS = 100 }; /* of one score, roughly: an exponential */
    const kd_encoder_config *c = &run->model->encoder;
    const double heads = (double)kd_encoder_heads_before(c, c->L) / (double)c->L;
    return heads * (4 * width + SCORE_FLOPS) * keys;
}

/* Keys of a sequence, on average over the tokens. */
static double mean_keys(const kd_run *run) { return run->squares / (double)run->pass.batch.N; }

double kd_map_token_flops(const kd_run *run)
{
    return kd_model_mean_flops(run->model) + attention_flops(run, (double)run->model->encoder.D, mean_keys(run));
}

double kd_map_picked_flops(const kd_run *run)
{
    return attention_flops(run, (double)run->model->encoder.C, mean_keys(run));
}

/* Layers that one item does. */
static ptrdiff_t stage_layers(const kd_run *run)
{
    const ptrdiff_t L = run->model->encoder.L;
    double layers = MOST_FLOPS / ((double)run->R * kd_map_token_flops(run));
    return run->pass.mode == KD_TRAIN || layers > (double)L ? L : kd_max(1, (ptrdiff_t)layers);
}

ptrdiff_t kd_map_full_layers(const kd_run *run) { return run->model->encoder.L - run->last_picked; }

/* How many items `total` rows are cut into: none larger than `most`, an even number of them so that two threads end
 * together, and two even of a small batch if each gets `least`. */
static ptrdiff_t pieces(ptrdiff_t total, ptrdiff_t least, ptrdiff_t most)
{
    ptrdiff_t count = kd_max(kd_ceil_div(total, most), total >= 2 * least ? 2 : 1);
    return count > 1 ? kd_round_up(count, 2) : 1;
}

ptrdiff_t kd_map_head_items(const kd_run *run)
{
    return run->pick == KD_PICK_ALL ? run->chunks : pieces(run->head_rows, LEAST_HEAD, MOST_HEAD);
}

ptrdiff_t kd_map_partial_rows(const kd_run *run) { return run->chunks + kd_map_head_items(run); }

ptrdiff_t kd_map_picked_rows(const kd_run *run)
{
    return kd_ceil_div(run->pass.batch.B, pieces(run->pass.batch.B, LEAST_HEAD, MOST_HEAD));
}

static ptrdiff_t tokens_of(const kd_batch *batch, ptrdiff_t b0, ptrdiff_t b1)
{
    return (ptrdiff_t)(batch->starts[b1] - batch->starts[b0]);
}

/* The first sequence after the chunk that begins with b0: those whose middle lies in the same of `count` equal pieces
 * of all tokens. */
static ptrdiff_t chunk_end(const kd_batch *batch, ptrdiff_t b0, ptrdiff_t count)
{
    const int64_t *starts = batch->starts;
    int64_t total = 2 * starts[batch->B], piece = (starts[b0] + starts[b0 + 1]) * count / total;
    ptrdiff_t b1 = b0 + 1;
    while (b1 < batch->B && (starts[b1] + starts[b1 + 1]) * count / total == piece)
        b1++;
    return b1;
}

void kd_map_cut(kd_run *run, int64_t *chunk)
{
    const kd_batch *batch = &run->pass.batch;
    ptrdiff_t count = pieces(batch->N, LEAST_CHUNK, chunk_tokens(run->model, run->pass.mode));
    run->chunks = 0;
    run->R = kd_map_picked_rows(run);
    run->longest = 1;
    run->squares = 0;
    for (ptrdiff_t b0 = 0, b1; b0 < batch->B; b0 = b1) {
        b1 = chunk_end(batch, b0, count);
        if (chunk) {
            chunk[run->chunks] = b0;
            chunk[run->chunks + 1] = b1;
        }
        run->chunks++;
        run->R = kd_max(run->R, tokens_of(batch, b0, b1));
        for (ptrdiff_t b = b0; b < b1; b++) {
            const ptrdiff_t tokens = tokens_of(batch, b, b + 1);
            run->longest = kd_max(run->longest, tokens);
            run->squares += (double)tokens * (double)tokens;
        }
    }
    run->stage_layers = stage_layers(run);
}

/* ---- the rows of an item */

kd_span kd_map_chunk_span(const kd_run *run, ptrdiff_t chunk)
{
    return kd_span_of(&run->pass.batch, &run->pass.dropout, (ptrdiff_t)run->chunk[chunk],
                      (ptrdiff_t)run->chunk[chunk + 1], 0);
}

kd_span kd_map_head_span(const kd_run *run, ptrdiff_t item)
{
    if (run->pick == KD_PICK_ALL)
        return kd_map_chunk_span(run, item);
    const kd_pass *pass = &run->pass;
    const ptrdiff_t items = kd_map_head_items(run);
    const ptrdiff_t from = item * run->head_rows / items, to = (item + 1) * run->head_rows / items;
    return run->pick == KD_PICK_LISTED
               ? kd_span_listed(&pass->batch, &pass->dropout, 0, pass->batch.N, pass->rows, from, to - from)
               : kd_span_of(&pass->batch, &pass->dropout, from, to, 1);
}

/* How many of the listed rows lie before a token. */
static ptrdiff_t listed_before(const kd_pass *pass, ptrdiff_t token)
{
    ptrdiff_t from = 0, to = pass->row_count;
    while (from < to) {
        const ptrdiff_t middle = from + (to - from) / 2;
        if (pass->rows[middle] < token)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

kd_span kd_map_picked_span(const kd_run *run, ptrdiff_t chunk)
{
    const kd_pass *pass = &run->pass;
    const kd_span span = kd_map_chunk_span(run, chunk);
    if (run->pick != KD_PICK_LISTED)
        return kd_span_of(&pass->batch, &pass->dropout, span.b0, span.b1, 1);
    const ptrdiff_t r0 = listed_before(pass, span.t0), r1 = listed_before(pass, span.t0 + span.N);
    return kd_span_listed(&pass->batch, &pass->dropout, span.t0, span.N, pass->rows, r0, r1 - r0);
}
