"""The mutants of tools/mutants.py: one wrong sign, index, scale or bound each."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`found` stands once in csrc/`file`; the mutant has `put` there."""

    file: str
    found: str
    put: str

    def __str__(self) -> str:
        return f"{self.file}: {self.found.strip()}  ->  {self.put.strip()}"


MUTANTS = [
    # ---- embeddings
    Mutant("kd_embed.c", "tables->position + (t - batch->starts[b]) * C", "tables->position + t * C"),
    Mutant("kd_embed.c", "tables->type + (ptrdiff_t)batch->types[t] * C", "tables->type"),
    Mutant("kd_embed.c", "gradients->position + (t - batch->starts[b]) * C + c0", "gradients->position + c0"),
    Mutant("kd_embed.c", "const float *d = dsum + t * C + c0;", "const float *d = dsum + t * C;"),
    Mutant("kd_embed.c", "ids[count++] = id;", "ids[count] = id;"),
    # ---- products
    Mutant("kd_linear.c", ".bias = layer->bias}", ".bias = NULL}"),
    Mutant("kd_linear.c", "product.accumulate = accumulate;", "product.accumulate = 0;"),
    Mutant("kd_linear.c", "i0 = tile % across * KD_LINEAR_TILE_I", "i0 = 0"),
    Mutant("kd_gemm.c", "kd_round_up(N, gemm->rows->panel) * K;", "N * K;"),
    Mutant("kd_gemm.c", "right + n * K, src + n * ld", "right + n * K, src + n"),
    Mutant("kd_gemm.c", "left + t * k, right + f * k", "left + t * k, right"),
    Mutant("kd_gemm.c", "pack_columns(gemm, right, b + k0 * ldb", "pack_columns(gemm, right, b"),
    Mutant("kd_gemm.c", "kd_min(T, M - t), kd_min(F, N - f)", "T, kd_min(F, N - f)"),
    Mutant("kd_rows_product.inc", "sum[r][j] += a * b[j];", "sum[r][j] -= a * b[j];"),
    Mutant("kd_rows_product.inc", "vf_load(o.b + k * o.ldb + j * KD_VEC)", "vf_load(o.b + k * o.ldb)"),
    Mutant("kd_rows_product.inc", "if (p->accumulate || k0 > 0) {", "if (p->accumulate) {"),
    Mutant("kd_rows_product.inc", "o.start = p->bias + n;", "o.start = p->bias;"),
    Mutant(
        "kd_rows_product.inc", ".b = p->right + f * p->right_rows + k0 * PANEL", ".b = p->right + f * p->right_rows"
    ),
    Mutant("kd_rows_product.inc", "if (p->finish && k0 + k == p->K)", "if (p->finish)"),
    Mutant("kd_rows_product.inc", "a0 + r, b0 + j, ldc, ldc, 1, lda, ldb, k}", "a0 + r, b0, ldc, ldc, 1, lda, ldb, k}"),
    Mutant("kd_rows_panels.inc", "dst[k * tile + r] = 0;", "dst[k * tile + r] = 1;"),
    Mutant("kd_rows_panels.inc", "dst[k * tile + r] = src[r * ld + k];", "dst[k * tile + r] = src[r * ld];"),
    Mutant(
        "kd_rows_panels.inc",
        "transpose_2x4(dst + k * tile + r, src + r * ld + k, ld, tile);",
        "transpose_2x4(dst + k * tile + r, src + r * ld, ld, tile);",
    ),
    Mutant("kd_rows_product.inc", "ptrdiff_t skip = kd_max(0, p->first - f)", "ptrdiff_t skip = 0"),
    # ---- part of a packed operand
    Mutant(
        "kd_rows_product.inc",
        ".b = p->right + f * p->right_rows + k0 * PANEL",
        ".b = p->right + f * p->K + k0 * PANEL",
    ),
    Mutant("kd_rows_product.inc", "end = p->first + p->N;", "end = p->N;"),
    Mutant("kd_rows_product.inc", "kd_min(PANEL - skip, p->N - n)", "kd_min(PANEL, p->N - n)"),
    Mutant(
        "kd_rows_product.inc", "memcpy(c + r * ldc, tile + r * PANEL + skip,", "memcpy(c + r * ldc, tile + r * PANEL,"
    ),
    Mutant(
        "kd_rows_product.inc",
        "o.start + r * o.lds, (size_t)columns * sizeof(float)",
        "o.start + r * o.lds, (size_t)(PANEL - skip) * sizeof(float)",
    ),
    Mutant("kd_linear.c", "product.first = head * D;", "product.first = 0;"),
    Mutant("kd_linear.c", "head * D * gemm->rows->panel;", "head * D;"),
    # ---- rows
    Mutant("kd_rows.inc", "(pair + other)", "(pair - other)"),
    Mutant(
        "kd_rows.inc",
        "vf_load_n(a + i, m) + vf_load_n(b + i, m) + vf_load_n(c + i, m)",
        "vf_load_n(a + i, m) + vf_load_n(b + i, m) - vf_load_n(c + i, m)",
    ),
    Mutant("kd_rows.inc", "vf_load_n(dy + i, m) * (1.0f - t * t)", "vf_load_n(dy + i, m) * (1.0f + t * t)"),
    Mutant("kd_rows.inc", "sum += v * v;", "sum += v;"),
    Mutant(
        "kd_rows.inc",
        "vf_load_n(y + i, m) + a * vf_load_n(x + i, m)",
        "vf_load_n(y + i, m) - a * vf_load_n(x + i, m)",
    ),
    Mutant("kd_rows.inc", "x * vf_load_n(b + j * K + i, m);", "x * vf_load_n(b + i, m);"),
    Mutant("kd_rows.inc", "c[j] = start + vf_sum(sum[j]);", "c[j] = vf_sum(sum[j]);"),
    # ---- activations
    Mutant("kd_rows.inc", "ROOT_1_OVER_2PI * vf_exp(-0.5f * x * x)", "ROOT_1_OVER_2PI * vf_exp(0.5f * x * x)"),
    Mutant("kd_rows.inc", "(x + 0.044715f * x * x * x)", "(x - 0.044715f * x * x * x)"),
    Mutant("kd_rows.inc", "1.0f + 3.0f * 0.044715f", "1.0f + 2.0f * 0.044715f"),
    Mutant("kd_rows.inc", "g.value + x * g.slope", "g.value - x * g.slope"),
    Mutant("kd_vec.h", "x - n * 0.693359375f + n * 2.12194440e-4f", "x - n * 0.693359375f - n * 2.12194440e-4f"),
    Mutant("kd_vec.h", "p = p * z + 0.185202997f;", "p = p * z - 0.185202997f;"),
    Mutant("kd_vec.h", "vf_select(vf_abs(x) < 0.625f, small, large)", "vf_select(x < 0.625f, small, large)"),
    # ---- LayerNorm
    Mutant(
        "kd_rows.inc",
        "vf_store_n(dx + i, (g - mean_g - xhat * mean_gx) * rstd, m);",
        "vf_store_n(dx + i, (g - mean_g + xhat * mean_gx) * rstd, m);",
    ),
    Mutant("kd_rows.inc", "mean_gx = vf_sum(sum_gx) / (float)n;", "mean_gx = vf_sum(sum_gx);"),
    Mutant("kd_rows.inc", "vf_load_n(dgamma + i, m) + d * xhat", "vf_load_n(dgamma + i, m) + d"),
    Mutant("kd_rows.inc", "vf_load_n(dbeta + i, m) + d, m", "vf_load_n(dbeta + i, m) - d, m"),
    Mutant(
        "kd_bert_layer.c",
        "partial + vector[gamma], partial + vector[gamma + 1], dx, s, stats",
        "partial + vector[gamma + 1], partial + vector[gamma], dx, s, stats",
    ),
    # ---- softmax and attention
    Mutant("kd_rows.inc", "(vf_load_n(dp + i, m) - delta) * scale", "(vf_load_n(dp + i, m) + delta) * scale"),
    Mutant(
        "kd_rows.inc",
        "greatest = m >= KD_VEC ? vf_max(greatest, piece) : greatest;",
        "greatest = vf_max(greatest, piece);",
    ),
    Mutant(
        "kd_attention.c",
        "lse[(q0 + i) * a->H + head] = max + logf(sum);",
        "lse[(q0 + i) * a->H + head] = max - logf(sum);",
    ),
    Mutant("kd_attention.c", "rows->scale(p, 1.0f / sum, np);", "rows->scale(p, 1.0f, np);"),
    Mutant(
        "kd_attention.c",
        "drop_row(rows, p, p, a, token + q0 + i, head, n);",
        "drop_row(rows, p, p, a, token + i, head, n);",
    ),
    Mutant(
        "kd_attention.c",
        "rows->matmul(dv, h.ld, s->dp, 1, np, upper, h.ld, n, h.Dp, count, later);",
        "rows->matmul(dv, h.ld, s->dp, 1, np, upper, h.ld, n, h.Dp, count, 0);",
    ),
    Mutant("kd_attention.c", "rows->dot(dctx + row, ctx + row, D)", "rows->dot(dctx + row, dctx + row, D)"),
    # ---- the last layer's attention for [CLS] alone
    Mutant("kd_attention.c", "total[head] += p[i];", "total[head] -= p[i];"),
    Mutant("kd_attention.c", "drop_row(rows, ds, ds, a, token, head, n);", "drop_row(rows, ds, ds, a, token, 0, n);"),
    Mutant("kd_attention.c", "rows->dots(ds, np, &of_bias,", "rows->dots(ds, np, NULL,"),
    Mutant("kd_attention.c", "rows->dot(dctx + head * D, ctx + head * D, D)", "rows->dot(dctx + head * D, ctx, D)"),
    Mutant(
        "kd_attention.c",
        "operand(&wide, u, s.u, H), wide.ld, n, wide.Dp, H, 1);",
        "operand(&wide, u, s.u, H), wide.ld, n, wide.Dp, H, 0);",
    ),
    Mutant("kd_bert_cls.c", "w->value.bias + head * D, total[head], D);", "w->value.bias + head * D, 1.0f, D);"),
    Mutant("kd_bert_cls.c", "cls->total[s.row * H + head], D);", "cls->total[head], D);"),
    Mutant(
        "kd_bert_cls.c",
        "kd_linear_heads_forward(gemm, cls->dq, cls->u, &w->key, span->M, H);",
        "kd_linear_heads_forward(gemm, cls->dq, cls->u, &w->value, span->M, H);",
    ),
    Mutant(
        "kd_bert_cls.c",
        "kd_linear_backward_input(gemm, dx, cls->dq, &w->query, span->M, 1);",
        "kd_linear_backward_input(gemm, dx, cls->dq, &w->query, span->M, 0);",
    ),
    Mutant("kd_bert_cls.c", "view->x + (s.token - span->t0) * C, &attention", "view->x + s.token * C, &attention"),
    # ---- dropout and random numbers
    Mutant("kd_dropout.c", "dropout->place + (uint32_t)token}", "dropout->place}"),
    Mutant("kd_rows_random.inc", "const float keep = 1.0f / (1.0f - p);", "const float keep = 1.0f - p;"),
    Mutant("kd_rows_random.inc", "k1 += 0xBB67AE85u;", "k1 -= 0xBB67AE85u;"),
    Mutant(
        "kd_rows_random.inc", "(uint32_t)((first + start) / KD_RANDOM_BLOCK)", "(uint32_t)(start / KD_RANDOM_BLOCK)"
    ),
    Mutant("kd_bert_layer.c", "return tensor + (int)layer * KD_DROP_PER_LAYER;", "return tensor;"),
    # ---- the layers together
    Mutant(
        "kd_bert_layer.c",
        "kd_bias_backward(run, sums, KD_TENSOR_query_bias, view->q, N, C);",
        "kd_bias_backward(run, sums, KD_TENSOR_query_bias, view->k, N, C);",
    ),
    Mutant(
        "kd_bert_layer.c",
        "kd_linear_backward_input(gemm, dx, view->up, &w->up, M, 1);",
        "kd_linear_backward_input(gemm, dx, view->up, &w->up, M, 0);",
    ),
    Mutant(
        "kd_bert_layer.c",
        "kd_linear_backward_input(gemm, dx, view->v, &w->value, N, 1);",
        "kd_linear_backward_input(gemm, dx, view->v, &w->value, N, 0);",
    ),
    Mutant(
        "kd_bert_backward.c",
        "gemm->rows->tanh_backward(pooled, dx, pooled, M * C);",
        "gemm->rows->tanh_backward(pooled, dx, pooled, C);",
    ),
    Mutant(
        "kd_bert_backward.c",
        "gradient + from - vector, run->partials + from",
        "gradient + from - vector, run->partials + vector",
    ),
    Mutant("kd_bert_backward.c", "KD_TENSOR_output, m->s1, m->ctx, rows)", "KD_TENSOR_output, m->s1, m->x, rows)"),
    Mutant("kd_bert_backward.c", "layout->vector[t] + l * layout->vector_stride", "layout->vector[t]"),
    Mutant(
        "kd_bert_forward.c",
        "x + ((ptrdiff_t)run->batch.starts[b] - span->t0) * C",
        "x + (ptrdiff_t)run->batch.starts[b] * C",
    ),
    # ---- losses
    Mutant("kd_loss.c", "return top / temperature + log(sum);", "return top / temperature - log(sum);"),
    Mutant("kd_loss.c", "row->soft += T * T * p * (log_p - log_q);", "row->soft += T * p * (log_p - log_q);"),
    Mutant("kd_loss.c", "slope += (1 - alpha) * T * (exp(log_q) - p);", "slope += (1 - alpha) * T * (p - exp(log_q));"),
    Mutant(
        "kd_loss.c",
        "onehot = even + (i == row->label ? 1 - row->smoothing : 0)",
        "onehot = even + (i == row->label ? 1 : 0)",
    ),
    Mutant("kd_loss.c", "(softplus(z, small) - row->y[i] * z)", "(softplus(z, small) + row->y[i] * z)"),
    Mutant("kd_loss.c", "sigmoid(-a, small_a) * (softplus(b, small_b)", "sigmoid(a, small_a) * (softplus(b, small_b)"),
    Mutant("kd_loss.c", "row->mean * share * 2 * (row->alpha * to_label", "row->mean * share * (row->alpha * to_label"),
    Mutant("kd_loss.c", "result->hard /= labelled ? (double)labelled : 1;", "result->hard /= (double)in->B;"),
    # ---- the optimiser
    Mutant("kd_adamw.c", "s.decay = (float)(1 - lr * weight_decay);", "s.decay = (float)(1 + lr * weight_decay);"),
    Mutant(
        "kd_adamw.c", "s.root_bias2 = (float)sqrt(1 - pow(s.beta2, t));", "s.root_bias2 = (float)(1 - pow(s.beta2, t));"
    ),
    Mutant("kd_adamw.c", "if (!s->decay)", "if (s->decay)"),
    Mutant("kd_adamw.c", "d->history + d->t - 1 - d->base", "d->history + d->t - 2 - d->base"),
    Mutant(
        "kd_adamw.c",
        "const ptrdiff_t target = d->t - list->with_gradient, C = d->C;",
        "const ptrdiff_t target = d->t, C = d->C;",
    ),
    Mutant("kd_adamw.c", "if (done >= 0 && done < table->t) {", "if (done >= 0 && done + 1 < table->t) {"),
    Mutant("kd_rows_adamw.inc", "(1.0f - s->beta2) * g * g", "(1.0f - s->beta2) * g"),
    Mutant("kd_rows_adamw.inc", "vf_sqrt(*v) / s->root_bias2 + s->eps", "vf_sqrt(*v) / s->root_bias2"),
    Mutant("kd_rows_adamw.inc", "*p = *p * steps[t].decay;", "*p = *p;"),
    # ---- the thread pool
    Mutant("kd_pool.c", "team->item(team->context, i, member);", "team->item(team->context, i, 0);"),
    Mutant(
        "kd_pool.c",
        "atomic_store_explicit(&team->busy, team->members - 1, memory_order_relaxed);",
        "atomic_store_explicit(&team->busy, 0, memory_order_relaxed);",
    ),
]

# Those that no test can catch, and why.
_BY_PUT = {mutant.put: mutant for mutant in MUTANTS}
SURVIVORS: dict[Mutant, str] = {
    _BY_PUT[
        "dst[k * tile + r] = 1;"
    ]: "a panel's columns past the operand are computed and never read; 0 keeps them finite",
}
