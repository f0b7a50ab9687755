"""The mutants of tools/mutants.py, each with one wrong sign, index, scale or bound."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A change of the core: `found`, which occurs once in csrc/`file`, is replaced by `put`."""

    file: str
    found: str
    put: str

    def __str__(self) -> str:
        return f"{self.file}: {self.found.strip()}  ->  {self.put.strip()}"


MUTANTS = [
    # ---- embeddings
    Mutant("layers/kd_embed.c", "tables->position + (t - batch->starts[b]) * C", "tables->position + t * C"),
    Mutant("layers/kd_embed.c", "tables->type + (ptrdiff_t)batch->types[t] * C", "tables->type"),
    Mutant("layers/kd_embed.c", "gradients->position + (t - batch->starts[b]) * C + c0", "gradients->position + c0"),
    Mutant("layers/kd_embed.c", "const float *d = dsum + t * C + c0;", "const float *d = dsum + t * C;"),
    Mutant("layers/kd_embed.c", "touched[count++] = id;", "touched[count] = id;"),
    Mutant("model/kd_input.c", "NULL, &model->embedding_norm, span->N);", "NULL, &model->embedding_norm, 1);"),
    Mutant("model/kd_input.c", "run->projected + span->t0 * c->E", "run->projected + span->b0 * c->E"),
    Mutant("model/kd_input.c", "memcpy(run->dprojected + span->t0 * C,", "memcpy(run->dprojected + span->b0 * C,"),
    Mutant("model/kd_input.c", "sum_rows(dbias, dx, span->N, C, C);", "sum_rows(dbias, dx, span->N - 1, C, C);"),
    Mutant("model/kd_input.c", "d, d, KD_DROP_EMBEDDING", "d, d, KD_DROP_FFN"),
    Mutant("model/kd_weights.c", "run->dprojected, run->projected, run", "run->dprojected, run->embedding_sum, run"),
    Mutant("model/kd_weights.c", "kd_min(e0 + EMBED_STRIP, E), E);", "kd_min(e0 + EMBED_STRIP, E), model->encoder.C);"),
    Mutant("model/kd_map.c", "kd_max(kd_max(c->C, c->E), w.A)", "kd_max(c->C, w.A)"),
    Mutant("skin/kd_module_gradients.c", "o->model.encoder.E,", "o->model.encoder.C,"),
    # ---- products
    Mutant("layers/kd_linear.c", ".bias = layer->bias}", ".bias = NULL}"),
    Mutant("layers/kd_linear.c", "product.accumulate = accumulate;", "product.accumulate = 0;"),
    Mutant("layers/kd_linear.c", "i0 = tile % across * KD_LINEAR_TILE_I", "i0 = 0"),
    Mutant("arithmetic/kd_engine_f32.c", "kd_round_up(N, engine->kernels->panel) * K", "N * K"),
    Mutant("arithmetic/kd_engine_f32.c", "pack_rows(dst, w + n * ld", "pack_rows(dst, w + n"),
    Mutant("arithmetic/kd_outer.c", "left + t * k, right + f * k", "left + t * k, right"),
    Mutant("arithmetic/kd_outer.c", "pack_columns(outer, right, b + k0 * ldb", "pack_columns(outer, right, b"),
    Mutant("arithmetic/kd_outer.c", "kd_min(T, M - t), kd_min(F, N - f)", "T, kd_min(F, N - f)"),
    Mutant("arithmetic/kd_kernels_product.inc", "sum[r][j] += a * b[j];", "sum[r][j] -= a * b[j];"),
    Mutant(
        "arithmetic/kd_kernels_product.inc", "vf_load(o->b + k * o->ldb + j * KD_VEC)", "vf_load(o->b + k * o->ldb)"
    ),
    Mutant("arithmetic/kd_kernels_product.inc", "if (p->accumulate || k0 > 0) {", "if (p->accumulate) {"),
    Mutant("arithmetic/kd_kernels_product.inc", "o.initial = p->bias + n;", "o.initial = p->bias;"),
    Mutant(
        "arithmetic/kd_kernels_product.inc",
        "p->right_rows + (p->first_row + k0) * PANEL",
        "p->right_rows + p->first_row * PANEL",
    ),
    Mutant("arithmetic/kd_kernels_product.inc", "if (p->finish && k0 + k == p->K)", "if (p->finish)"),
    Mutant(
        "arithmetic/kd_kernels_product.inc",
        "b0 + j,",
        "b0,",
    ),
    Mutant("arithmetic/kd_kernels_panels.inc", "+ i, left) : (vf){0};", "+ i, left) : vf_set(1.0f);"),
    Mutant(
        "arithmetic/kd_kernels_panels.inc",
        "vf_load_n(src + (r0 + r) * ld + i, left)",
        "vf_load_n(src + r * ld + i, left)",
    ),
    Mutant(
        "arithmetic/kd_vec_transpose.h",
        "TRANSPOSE_STEP(1, LOW_1, HIGH_1)",
        "TRANSPOSE_STEP(1, HIGH_1, LOW_1)",
    ),
    Mutant(
        "arithmetic/kd_kernels_product.inc", "ptrdiff_t skip = kd_max(0, p->first_column - f)", "ptrdiff_t skip = 0"
    ),
    # ---- products of bfloat16 and int8, and gradients in bfloat16
    Mutant("arithmetic/kd_engine_narrow.inc", "bits + 0x7fffu + (bits >> 16 & 1u)", "bits + 0x8000u"),
    Mutant("arithmetic/kd_engine_narrow.inc", "vi nan = magnitude > 0x7f800000u", "vi nan = magnitude > 0x7fc00000u"),
    Mutant(
        "arithmetic/kd_engine_narrow.inc",
        "{greatest / 127.0f, 127.0f / greatest}",
        "{greatest / 127.0f, 128.0f / greatest}",
    ),
    Mutant("arithmetic/kd_engine_narrow.inc", "mask = a > b;", "mask = a < b;"),
    Mutant(
        "arithmetic/kd_engine_results.inc",
        "integer -= correction * KD_LEFT_BIAS;",
        "integer += correction * KD_LEFT_BIAS;",
    ),
    Mutant("arithmetic/kd_engine_results.inc", "vf_load(t->scale + j) * scale", "vf_load(t->scale) * scale"),
    Mutant("arithmetic/kd_engine_results.inc", "at->m % NEXT_ROWS : at->m", "at->m : at->m"),
    Mutant(
        "arithmetic/kd_engine_narrow.inc",
        "(const unsigned char *)p->right + (p->first_column + n) / KD_PANEL * panel",
        "(const unsigned char *)p->right",
    ),
    Mutant(
        "arithmetic/kd_engine_results.inc",
        "vf_load(result[r] + j) + vf_load_n(t.c",
        "vf_load(result[r] + j) - vf_load_n(t.c",
    ),
    Mutant(
        "arithmetic/kd_engine_tiles.inc", "TILE_LOAD(5, left + 16 * stride, stride);", "TILE_LOAD(5, left, stride);"
    ),
    Mutant(
        "arithmetic/kd_engine_tiles.inc",
        "TILE_STORE(3, sum[16] + HALF_COLUMNS, SUM_STRIDE);",
        "TILE_STORE(3, sum[16], SUM_STRIDE);",
    ),
    Mutant("arithmetic/kd_engine_tiles.inc", "sum += part[0] + part[1];", "sum += part[0];"),
    Mutant(
        "arithmetic/kd_engine_dots.inc",
        "dot_add(tile[r][j], left + r * stride, b[j])",
        "dot_add(tile[r][j], left, b[j])",
    ),
    Mutant("arithmetic/kd_engine_dots.inc", "rows <= DOT_ROWS / 2)", "rows <= DOT_ROWS / 2 + 1)"),
    Mutant("arithmetic/kd_engine_bf16_widened.inc", "vf_set(pair[1]) * right.odd", "vf_set(pair[0]) * right.odd"),
    Mutant(
        "arithmetic/kd_engine_attention.inc",
        "(const unsigned char *)t->k + at;",
        "(const unsigned char *)t->q + at;",
    ),
    Mutant("arithmetic/kd_engine_attention.inc", "t->first * a->stride + h0 * width;", "h0 * width;"),
    Mutant("arithmetic/kd_engine_attention.inc", "pack_values(a, &s[i], v + i * width);", "pack_values(a, &s[i], v);"),
    Mutant("arithmetic/kd_engine_attention.inc", "n / KD_PANEL * panel + n % KD_PANEL * 4;", "n % KD_PANEL * 4;"),
    Mutant("arithmetic/kd_engine_attention.inc", "for (; i + 2 <= n;", "for (; i + 2 <= n + 1;"),
    Mutant("arithmetic/kd_engine_attention.inc", "memset(to, 0, (size_t)((end - i) / 2 * KD_LINE));", ""),
    Mutant("arithmetic/kd_engine_attention.inc", "v + (i + 1) * stride);", "v + i * stride);"),
    Mutant("arithmetic/kd_engine_attention.inc", "i / KD_BLOCK_COLUMNS * BLOCK_FLOATS", "0"),
    Mutant(
        "arithmetic/kd_engine_attention.inc",
        "vf_exp(x * scale - top[r]), n - j * KD_VEC, (vf){0})",
        "vf_exp(x * scale - top[r]), end - j * KD_VEC, (vf){0})",
    ),
    Mutant("arithmetic/kd_engine_attention.inc", "vf_greatest(greatest[r]) * scale;", "vf_greatest(greatest[r]);"),
    Mutant("arithmetic/kd_engine_attention.inc", "k = pieces * KD_VEC; k < end;", "k = end; k < end;"),
    Mutant("arithmetic/kd_engine_attention.inc", "vf_set(1.0f / s->total[r]);", "vf_set(1.0f / s->total[0]);"),
    Mutant(
        "arithmetic/kd_engine_attention.inc",
        "memset(operand + r * left_stride(A) + first",
        "memset(operand + first",
    ),
    Mutant("arithmetic/kd_engine_attention.inc", "scores + ((h0 + i) * n + q0) * n", "scores + ((h0 + i) * n) * n"),
    Mutant("arithmetic/kd_engine_outer.inc", "pack_outer_left(left, a + k0 * lda", "pack_outer_left(left, a"),
    Mutant("arithmetic/kd_engine_outer.inc", "k + 1 < K ?", "k < K ?"),
    Mutant("arithmetic/kd_engine_outer.inc", "vf_load_n(to, columns - j) + vf_load(sum[r] + j)", "vf_load(sum[r] + j)"),
    Mutant("arithmetic/kd_engine_outer.inc", "left_stride(K) + KD_LEFT_NUMBER * k", "left_stride(K)"),
    Mutant("arithmetic/kd_engine_int8_plain.c", "right << (24 - 8 * k)", "right << (24 - 8 * k % 24)"),
    Mutant("arithmetic/kd_engine_int8_avx2.c", "pairs, 0xd8", "pairs, 0xe4"),
    Mutant("arithmetic/kd_engine_bf16_avx512.c", "(__m512)sum, (__m512bh)", "_mm512_setzero_ps(), (__m512bh)"),
    Mutant("arithmetic/kd_engine_bf16_avx512.c", "memcpy(&group, left, sizeof", "memcpy(&group, left + 2, sizeof"),
    Mutant("arithmetic/kd_engine_int8_avx512.c", "_mm512_set1_epi32(group), right", "right, _mm512_set1_epi32(group)"),
    Mutant("arithmetic/kd_arithmetic.c", "if (engine->outer)", "if (0)"),
    # ---- blocks of results, finished at once or while the next block is multiplied
    Mutant("arithmetic/kd_engine_narrow.inc", "(const unsigned char *)p->a + m * stride", "p->a"),
    Mutant("arithmetic/kd_engine_narrow.inc", "n0 += cut)", "n0 += cut + KD_BLOCK_COLUMNS)"),
    Mutant("arithmetic/kd_engine_narrow.inc", "kd_min(block_rows(), m1 - m)", "block_rows()"),
    Mutant(
        "arithmetic/kd_engine_narrow.inc",
        "if (rows_left(before))\n                    finish_rows(before, SUM_ROWS);",
        "",
    ),
    Mutant("arithmetic/kd_engine_narrow.inc", "now = swap;", "now = before;"),
    Mutant(
        "arithmetic/kd_engine_narrow.inc", "    if (rows_left(before))\n        finish_rows(before, SUM_ROWS);\n}", "}"
    ),
    Mutant("arithmetic/kd_engine_narrow.inc", "p->next + m * left_stride(p->N)", "p->next"),
    Mutant("arithmetic/kd_engine_narrow.inc", "m += slab)", "m += slab + 1)"),
    Mutant("arithmetic/kd_engine_narrow.inc", "kd_min(m + slab, p->M)", "m + slab"),
    Mutant("arithmetic/kd_engine_tiles.inc", "if (rows > 16)", "if (rows > 17)"),
    Mutant("arithmetic/kd_engine_tiles.inc", "TILE_MULTIPLY(3, 5, 7);", "TILE_MULTIPLY(3, 4, 7);"),
    Mutant("arithmetic/kd_engine_results.inc", "t->bias = p->bias + at->n;", "t->bias = p->bias;"),
    Mutant("arithmetic/kd_engine_results.inc", "memcpy(t->copy, p->bias + at->n,", "memcpy(t->copy, p->bias,"),
    Mutant("arithmetic/kd_engine_results.inc", "p->first_column + at->n;", "p->first_column;"),
    Mutant("arithmetic/kd_engine_results.inc", "at->m * t.scale_stride", "0"),
    Mutant("arithmetic/kd_engine_results.inc", "t->scale + r * t->scale_stride", "t->scale"),
    Mutant("arithmetic/kd_engine_results.inc", "p->slope + at->m * p->ldc + at->n", "p->slope + at->n"),
    Mutant("arithmetic/kd_engine_results.inc", "p->next + at->m * t.next_stride", "p->next"),
    Mutant("arithmetic/kd_engine_results.inc", "t->next + r * t->next_stride", "t->next"),
    Mutant("arithmetic/kd_engine_results.inc", "t->ldc + j, x, count);", "t->ldc + j, x, KD_VEC);"),
    Mutant("arithmetic/kd_engine_results.inc", "x *= gate_of(x, KD_GELU).value;", "x = gate_of(x, KD_GELU).value;"),
    Mutant("arithmetic/kd_engine_results.inc", "u->done = end;", "u->done = end + 1;"),
    Mutant("arithmetic/kd_engine_results.inc", "kd_min(u->done + count, u->at.rows)", "u->done + count"),
    Mutant("arithmetic/kd_engine_results.inc", "finish_waiting(u, end, 1);", "finish_waiting(u, end, 0);"),
    Mutant(
        "arithmetic/kd_engine_results.inc",
        "at->columns - j) * vf_load(result[r] + j)",
        "at->columns - j) + vf_load(result[r] + j)",
    ),
    Mutant("arithmetic/kd_engine_results.inc", "(t.next ? KD_BLOCK_COLUMNS : at->columns)", "at->columns"),
    Mutant(
        "arithmetic/kd_engine_results.inc",
        "vf_first(vf_load(result[r] + j), at->columns - j, (vf){0})",
        "vf_load(result[r] + j)",
    ),
    Mutant("arithmetic/kd_engine_results.inc", "&& p->activation == KD_GELU)", ")"),
    Mutant("arithmetic/kd_engine_results.inc", "u->at.columns == KD_BLOCK_COLUMNS && !p", "!p"),
    Mutant("arithmetic/kd_engine_results.inc", "!p->accumulate && !p->slope)", "!p->slope)"),
    Mutant("arithmetic/kd_engine_results.inc", "!p->accumulate && !p->slope)", "!p->accumulate)"),
    Mutant("arithmetic/kd_engine_results.inc", "u->done = u->at.rows;", ""),
    # ---- part of a packed operand
    Mutant(
        "arithmetic/kd_kernels_product.inc",
        "(const float *)p->right + f * p->right_rows",
        "(const float *)p->right + f * p->K",
    ),
    Mutant("arithmetic/kd_kernels_product.inc", "end = p->first_column + p->N;", "end = p->N;"),
    Mutant("arithmetic/kd_kernels_product.inc", "kd_min(PANEL - skip, p->N - n)", "kd_min(PANEL, p->N - n)"),
    Mutant(
        "arithmetic/kd_kernels_product.inc",
        "memcpy(c + r * ldc, tile + r * PANEL + skip,",
        "memcpy(c + r * ldc, tile + r * PANEL,",
    ),
    Mutant(
        "arithmetic/kd_kernels_product.inc",
        "o.initial + r * o.ldi, (size_t)columns * sizeof(float)",
        "o.initial + r * o.ldi, (size_t)(PANEL - skip) * sizeof(float)",
    ),
    Mutant("layers/kd_linear.c", "product.first_column = head * D;", "product.first_column = 0;"),
    Mutant("layers/kd_linear.c", "product.first_row = head * D;", "product.first_row = 0;"),
    # ---- rows
    Mutant("arithmetic/kd_kernels.inc", "(pair + other)", "(pair - other)"),
    Mutant(
        "arithmetic/kd_kernels.inc",
        "vf_load_n(a + i, m) + vf_load_n(b + i, m) + vf_load_n(c + i, m)",
        "vf_load_n(a + i, m) + vf_load_n(b + i, m) - vf_load_n(c + i, m)",
    ),
    Mutant("arithmetic/kd_kernels.inc", "sum += v * v;", "sum += v;"),
    Mutant(
        "arithmetic/kd_kernels.inc",
        "vf_load_n(y + i, m) + a * vf_load_n(x + i, m)",
        "vf_load_n(y + i, m) - a * vf_load_n(x + i, m)",
    ),
    Mutant("arithmetic/kd_kernels.inc", "x * vf_load_n(b + j * K + i, m);", "x * vf_load_n(b + i, m);"),
    Mutant("arithmetic/kd_kernels.inc", "c[j] = row_bias + vf_sum(sum[j]);", "c[j] = vf_sum(sum[j]);"),
    # ---- activations
    Mutant(
        "arithmetic/kd_kernels_activation.inc",
        "ROOT_1_OVER_2PI * vf_exp(-0.5f * x * x)",
        "ROOT_1_OVER_2PI * vf_exp(0.5f * x * x)",
    ),
    Mutant("arithmetic/kd_kernels_activation.inc", "(x + 0.044715f * x * x * x)", "(x - 0.044715f * x * x * x)"),
    Mutant("arithmetic/kd_kernels_activation.inc", "1.0f + 3.0f * 0.044715f", "1.0f + 2.0f * 0.044715f"),
    Mutant("arithmetic/kd_kernels_activation.inc", "g.value + x * g.slope", "g.value - x * g.slope"),
    Mutant(
        "arithmetic/kd_vec.h", "x - n * 0.693359375f + n * 2.12194440e-4f", "x - n * 0.693359375f - n * 2.12194440e-4f"
    ),
    Mutant("arithmetic/kd_vec.h", "p = p * z + 0.185202997f;", "p = p * z - 0.185202997f;"),
    Mutant("arithmetic/kd_vec.h", "vf_select(vf_abs(x) < 0.625f, small, large)", "vf_select(x < 0.625f, small, large)"),
    # ---- LayerNorm
    Mutant(
        "arithmetic/kd_kernels.inc",
        "(g - mean_g[r] - xhat * mean_gx[r])",
        "(g - mean_g[r] + xhat * mean_gx[r])",
    ),
    Mutant("arithmetic/kd_kernels.inc", "vf_sum(sum_gx[r]) / (float)n;", "vf_sum(sum_gx[r]);"),
    Mutant("arithmetic/kd_kernels.inc", "of_gamma += d * xhat;", "of_gamma += d;"),
    Mutant("arithmetic/kd_kernels.inc", "of_beta += d;", "of_beta -= d;"),
    Mutant(
        "model/kd_layer.c",
        "kd_norm_backward(kernels, dx, dgamma, dbeta, dx,",
        "kd_norm_backward(kernels, dx, dbeta, dgamma, dx,",
    ),
    # ---- softmax and attention
    Mutant(
        "arithmetic/kd_kernels.inc", "(vf_load_n(dp + i, m) - delta) * scale", "(vf_load_n(dp + i, m) + delta) * scale"
    ),
    Mutant(
        "arithmetic/kd_kernels.inc",
        "vf_first(vf_load_n(p + i, width - i), n - i, vf_set(-INFINITY))",
        "vf_load_n(p + i, width - i)",
    ),
    Mutant("arithmetic/kd_kernels.inc", "return top + logf(sum);", "return top - logf(sum);"),
    Mutant("arithmetic/kd_kernels.inc", "share = 1.0f / sum;", "share = 1.0f;"),
    Mutant(
        "layers/kd_attention.c",
        "drop_row(kernels, p, p, a, token + q0 + i, head, n);",
        "drop_row(kernels, p, p, a, token + i, head, n);",
    ),
    Mutant(
        "layers/kd_attention.c",
        "kernels->matmul(dv, h.ld, s->dp, 1, np, dctx_rows, h.ld, n, h.Dp, count, later);",
        "kernels->matmul(dv, h.ld, s->dp, 1, np, dctx_rows, h.ld, n, h.Dp, count, 0);",
    ),
    Mutant(
        "layers/kd_attention.c", "kernels->dot(dctx + row, ctx + row, D)", "kernels->dot(dctx + row, dctx + row, D)"
    ),
    # ---- the last layer's attention for [CLS] alone
    Mutant("layers/kd_attention.c", "total[head] += p[i];", "total[head] -= p[i];"),
    Mutant(
        "layers/kd_attention.c",
        "drop_row(kernels, ds, ds, a, token, head, n);",
        "drop_row(kernels, ds, ds, a, token, 0, n);",
    ),
    Mutant("layers/kd_attention.c", "kernels->dots(ds, np, &of_bias,", "kernels->dots(ds, np, NULL,"),
    Mutant(
        "layers/kd_attention.c",
        "kernels->dot(dctx + head * D, ctx + head * D, D)",
        "kernels->dot(dctx + head * D, ctx, D)",
    ),
    Mutant(
        "layers/kd_attention.c",
        "operand(&wide, u, s.u, H), wide.ld, n, wide.Dp, H, 1);",
        "operand(&wide, u, s.u, H), wide.ld, n, wide.Dp, H, 0);",
    ),
    Mutant("model/kd_picked.c", "w->value.bias + head * D, total[head], D);", "w->value.bias + head * D, 1.0f, D);"),
    Mutant("model/kd_picked.c", "picked->total[s.row * H + head], D);", "picked->total[head], D);"),
    Mutant(
        "model/kd_picked.c",
        "kd_linear_heads_forward(picked->dq, picked->u, &w->absorbed_key, span->M, H, 0, H);",
        "kd_linear_heads_forward(picked->dq, picked->u, &w->absorbed_value, span->M, H, 0, H);",
    ),
    Mutant(
        "model/kd_picked.c",
        "&w->query, span->M, 1);",
        "&w->query, span->M, 0);",
    ),
    Mutant("model/kd_picked.c", "view->x + (s.token - span->t0) * C, &attention", "view->x + s.token * C, &attention"),
    # ---- dropout and random numbers
    Mutant("layers/kd_dropout.c", "dropout->place + (uint32_t)token}", "dropout->place}"),
    Mutant("arithmetic/kd_kernels_random.inc", "keep = 65536.0f / (float)(65536 - dropped);", "keep = 1.0f;"),
    Mutant("arithmetic/kd_kernels_random.inc", "k1 += 0xBB67AE85u;", "k1 -= 0xBB67AE85u;"),
    Mutant(
        "arithmetic/kd_kernels_random.inc",
        "block = (uint32_t)(first / KD_RANDOM_BLOCK);",
        "block = 0;",
    ),
    Mutant("model/kd_layer.c", "return tensor + (int)layer * KD_DROP_PER_LAYER;", "return tensor;"),
    # ---- the layers together
    Mutant(
        "model/kd_layer.c",
        "kd_layer_bias_backward(run, partial, KD_SLOT_query_bias, layer, view->q, N, A);",
        "kd_layer_bias_backward(run, partial, KD_SLOT_query_bias, layer, view->k, N, A);",
    ),
    Mutant(
        "model/kd_layer.c",
        "own->wide_operand), &w->up, M, 1);",
        "own->wide_operand), &w->up, M, 0);",
    ),
    Mutant(
        "model/kd_layer.c",
        "operand), &w->value, N, 1);",
        "operand), &w->value, N, 0);",
    ),
    Mutant("model/kd_weights.c", "run->partials + from, kd_map", "run->partials + t->vector, kd_map"),
    Mutant(
        "model/kd_weights.c",
        "whole_use(run, weight, m->pre_norm1, m->ctx, rows)",
        "whole_use(run, weight, m->pre_norm1, m->x, rows)",
    ),
    Mutant("model/kd_weights.c", "u->x + block * u->next_x + tile->i0", "u->x + tile->i0"),
    Mutant("model/kd_weights.c", "kd_max(tile->o0, block * O)", "tile->o0"),
    Mutant("model/kd_weights.c", "u->dy + from, u->ldy", "u->dy + tile->o0, u->ldy"),
    # ---- shapes by layer
    Mutant("model/kd_encoder.h", "return c->layers[layer].H * c->D;", "return c->layers[0].H * c->D;"),
    Mutant("model/kd_tensors.c", "F = encoder->layers[kd_max(layer, 0)].F", "F = encoder->layers[0].F"),
    Mutant("model/kd_map.c", "w.F = kd_max(w.F, c->layers[l].F);", "w.F = c->layers[l].F;"),
    Mutant("model/kd_map.c", ".C = c->C,\n        .dropout", ".C = c->D * c->layers[layer].H,\n        .dropout"),
    Mutant("model/kd_model.c", "+ model->encoder.first_position * E", "+ 0 * C"),
    Mutant("model/kd_layer.c", "KD_DROP_SELF, layer), span, C, c->p_output);", "KD_DROP_SELF, layer), span, C, 0);"),
    Mutant("model/kd_layer.c", "c->p_output};", "c->p_feed_forward};"),
    Mutant("model/kd_layer.c", "KD_DROP_FFN, c->p_feed_forward};", "KD_DROP_FFN, c->p_output};"),
    Mutant("model/kd_model.c", "first + kd_encoder_owner(&model->encoder, layer) * model->layer_tensors", "first"),
    Mutant("layers/kd_embed.c", "kernels->add(sum, position, C);", "kernels->add(sum, word, C);"),
    # ---- shared layers
    Mutant("model/kd_encoder.h", "return c->shared ? 0 : layer;", "return layer;"),
    Mutant("model/kd_weights.c", "layer_use(run, weight, weight->layer + index)", "layer_use(run, weight, 0)"),
    Mutant("model/kd_weights.c", "run->model->encoder.shared ? run->model->encoder.L : 1;", "0 ? 0 : 1;"),
    Mutant("model/kd_weights.c", "layer == run->model->encoder.L - 1;", "weight->layer == run->model->encoder.L - 1;"),
    # ---- relative positions
    Mutant("layers/kd_relative.c", "first = offset > 0 ? half : 0", "first = offset < 0 ? half : 0"),
    Mutant("layers/kd_relative.c", "if (d < single)", "if (d < 2 * single)"),
    Mutant("layers/kd_relative.c", "(ptrdiff_t)(share * (double)(half - single))", "(ptrdiff_t)(share * (double)half)"),
    Mutant("layers/kd_relative.c", "spread[head * (2 * n - 1) + i] = scale *", "spread[head * (2 * n - 1) + i] ="),
    Mutant("layers/kd_relative.c", "of_bucket[head] += scale *", "of_bucket[head] = scale *"),
    Mutant("layers/kd_attention.c", "+ a->longest - 1 - query;", "+ a->longest - 1;"),
    Mutant(
        "layers/kd_attention.c",
        "a->spread + spread_row(a, head, q0 + i), n);",
        "a->spread + spread_row(a, 0, q0 + i), n);",
    ),
    Mutant(
        "layers/kd_attention.c",
        "kernels->add(a->dspread + spread_row(a, head, q0 + i)",
        "kernels->add(a->dspread + spread_row(a, head, i)",
    ),
    Mutant(
        "layers/kd_attention.c",
        "kernels->add(a->dspread + spread_row(a, head, 0), ds, n);",
        "kernels->add(a->dspread + spread_row(a, 0, 0), ds, n);",
    ),
    Mutant("model/kd_run.c", "clear(run->members[member].dspread, c->RH * (2 * run->longest - 1));", ";"),
    Mutant(
        "model/kd_run.c",
        "run->longest, c->RH, c->R, c->distance, sqrtf((float)c->D));",
        "run->longest, c->RH, c->R, c->distance, 1.0f);",
    ),
    Mutant(
        "model/kd_map.c",
        "run->longest, c->RH, c->R, c->distance, sqrtf((float)c->D));",
        "run->longest, c->RH, c->R, c->distance, 1.0f);",
    ),
    Mutant("model/kd_weights.c", "kd_min(v1, t->vector + kd_tensor_floats(t))", "kd_min(v1, t->vector + t->rows)"),
    Mutant("model/kd_tensors.c", "columns > 0 && PLACE_##place != PLACE_RELATIVE", "columns > 0"),
    # ---- heads
    Mutant(
        "model/kd_head.c",
        "kernels->multiply(map->slope, config->norm ? map->act : dhidden, M, J, J);",
        "kernels->multiply(map->slope, config->norm ? map->act : dhidden, M, 1, J);",
    ),
    Mutant(
        "model/kd_head.c",
        "kernels->multiply(map->slope, config->norm ? map->act : dhidden, M, J, J);",
        "kernels->multiply(map->slope, dhidden, M, J, J);",
    ),
    Mutant(
        "model/kd_head.c",
        "kernels->sum_rows(sums->dense_bias, map->slope, M, J, J);",
        "kernels->sum_rows(sums->dense_bias, dhidden, M, J, J);",
    ),
    Mutant(
        "model/kd_head.c",
        "kd_span_drop(kernels, dhidden, map->dfeatures, KD_DROP_HEAD, span, J, config->p_after);",
        "kd_span_drop(kernels, dhidden, map->dfeatures, KD_DROP_HEAD, span, J, 0);",
    ),
    Mutant(
        "model/kd_head.c",
        "kd_span_drop(kernels, drows, drows, KD_DROP_HEAD_INPUT, span, C, config->p_before);",
        "kd_span_drop(kernels, drows, drows, KD_DROP_HEAD_INPUT, span, C, 0);",
    ),
    Mutant("model/kd_span.c", "picked ? b0 : t0, picked, NULL", "picked ? b0 : b0, picked, NULL"),
    Mutant("model/kd_span.c", "x + (token_of(span, r) - span->t0) * C, (size_t)C", "x + r * C, (size_t)C"),
    Mutant("model/kd_span.c", "kernels->add(x + (token_of(span, r) - span->t0) * C", "kernels->add(x + r * C"),
    Mutant("model/kd_span.c", "kernels->scale(mean, 1 / (float)n, C);", "kernels->scale(mean, 1 / (float)(n + 1), C);"),
    Mutant("model/kd_span.c", "dx + t * C, dmean, 1 / (float)n, C", "dx + t * C, dmean, 1, C"),
    Mutant(
        "model/kd_map_items.c",
        "r1 = listed_before(pass, span.t0 + span.N)",
        "r1 = listed_before(pass, span.t0 + span.N - 1)",
    ),
    Mutant("model/kd_map_items.c", "if (pass->rows[middle] < token)", "if (pass->rows[middle] <= token)"),
    Mutant(
        "arithmetic/kd_kernels_activation.inc",
        "vf_store_n(slope + i, 1.0f - t * t, m);",
        "vf_store_n(slope + i, 1.0f + t * t, m);",
    ),
    # ---- taps
    Mutant("model/kd_tap.c", "tap->out + span->t0 * width : NULL", "tap->out + span->b0 * width : NULL"),
    Mutant("model/kd_tap.c", "kernels->add(d, gradient + span->t0 * width", "kernels->add(d, gradient"),
    Mutant(
        "model/kd_tap.c", "const ptrdiff_t before = H * squares(span->batch, span->b0);", "const ptrdiff_t before = 0;"
    ),
    Mutant("model/kd_tap.c", "find(taps, KD_TAP_HIDDEN, layer + 1)", "find(taps, KD_TAP_HIDDEN, layer)"),
    Mutant("model/kd_projected.c", "dy += span->t0 * p.linear->O;", "dy += span->b0 * p.linear->O;"),
    Mutant("model/kd_projected.c", "p.linear, span->N, 1);", "p.linear, span->N, 0);"),
    Mutant("model/kd_projected.c", "{KD_TAP_KEY, &w->key, KD_SLOT_key,", "{KD_TAP_KEY, &w->key, KD_SLOT_value,"),
    Mutant("model/kd_projected.c", "memcpy(run->last_x + span->t0 * C", "memcpy(run->last_x"),
    Mutant("model/kd_projected.c", "*engine = kd_map_attender(run);", "*engine = NULL;"),
    Mutant("model/kd_weights.c", "weight->layer + layers_of(run) == run->model->encoder.L", "weight->layer >= 0"),
    Mutant("model/kd_tap.c", "scores.gradient += scores.gradient ? H * n * n : 0;", "scores.gradient += 0;"),
    Mutant("model/kd_run.c", "KD_TAP_HIDDEN, layers, dx, &span, C);", "KD_TAP_HIDDEN, layers + 9, dx, &span, C);"),
    Mutant("model/kd_run.c", "KD_TAP_HIDDEN, layer, dx, &span, C);", "KD_TAP_HIDDEN, layer + 9, dx, &span, C);"),
    Mutant(
        "model/kd_layer.c",
        "taps, KD_TAP_KEY, layer, view->k, span, A);\n    kd_tap_add",
        "taps, KD_TAP_KEY, layer, view->v, span, A);\n    kd_tap_add",
    ),
    Mutant(
        "layers/kd_attention.c",
        "dscores + (head * n + q0 + i) * n, scale, n);",
        "dscores + (head * n + q0 + i) * n, 1, n);",
    ),
    Mutant(
        "layers/kd_attention.c", "kernels->scale(scores, scale, count * n);", "kernels->scale(scores, 1, count * n);"
    ),
    Mutant("layers/kd_attention.c", "scores + (head * n + q0) * n", "scores + head * n * n"),
    # ---- losses
    Mutant("learning/kd_loss.c", "return top / temperature + log(sum);", "return top / temperature - log(sum);"),
    Mutant("learning/kd_loss.c", "row->soft += T * T * p * (log_p - log_q);", "row->soft += T * p * (log_p - log_q);"),
    Mutant(
        "learning/kd_loss.c",
        "slope += (1 - alpha) * T * (exp(log_q) - p);",
        "slope += (1 - alpha) * T * (p - exp(log_q));",
    ),
    Mutant(
        "learning/kd_loss.c",
        "onehot = w * (even + (i == row->label ? 1 - row->smoothing : 0));",
        "onehot = w * (even + (i == row->label ? 1 : 0));",
    ),
    Mutant("learning/kd_loss.c", "(softplus(z, small) - target * z)", "(softplus(z, small) + target * z)"),
    Mutant(
        "learning/kd_loss.c",
        "sigmoid(-a, small_a) * (softplus(b, small_b)",
        "sigmoid(a, small_a) * (softplus(b, small_b)",
    ),
    Mutant(
        "learning/kd_loss.c",
        "row->mean * share * 2 * (row->alpha * to_label",
        "row->mean * share * (row->alpha * to_label",
    ),
    Mutant(
        "learning/kd_loss.c",
        "result->hard /= result->labelled ? (double)result->labelled : 1;",
        "result->hard /= (double)in->B;",
    ),
    Mutant("learning/kd_loss.c", "const ptrdiff_t b = block->first + r;", "const ptrdiff_t b = r;"),
    Mutant("learning/kd_loss.c", "row->K = kd_loss_begin(in, b + 1) - begin;", "row->K = kd_loss_begin(in, 1);"),
    Mutant("learning/kd_loss.c", "row->K) ? in->teacher + begin : NULL;", "row->K) ? in->teacher : NULL;"),
    Mutant("learning/kd_loss.c", "block->dlogits + kd_loss_begin(in, b);", "block->dlogits + b * in->K;"),
    Mutant(
        "learning/kd_loss.c",
        "&block.terms[r], block.first + r);",
        "&block.terms[block.count - 1 - r], block.first + r);",
    ),
    Mutant("learning/kd_loss.c", "&block.terms[r], block.first + r);", "&block.terms[r], r);"),
    Mutant("skin/kd_module_loss.c", "&work->loss, from, to, team);", "&work->loss, 0, to - from, team);"),
    Mutant("skin/kd_module_loss.c", "if (logits <= SMALL_LOGITS)", "if (1)"),
    # ---- the loss in blocks
    Mutant("learning/kd_decoder.c", "decoder->first += decoder->rows;", "decoder->first += 1;"),
    Mutant("learning/kd_decoder.c", "product.bias = output->bias + v0;", "product.bias = output->bias;"),
    Mutant(
        "learning/kd_decoder.c",
        "features = run->head.features + decoder->first * output->I",
        "features = run->head.features",
    ),
    Mutant("learning/kd_decoder.c", "(1 - smoothing) * (double)z[label] - even", "(double)z[label] - even"),
    Mutant("learning/kd_decoder.c", "T * T * (sum / T + lse_student", "T * (sum / T + lse_student"),
    Mutant("learning/kd_decoder.c", "d[label] -= (float)(weight * (1 - smoothing));", "d[label] -= (float)weight;"),
    Mutant("learning/kd_decoder.c", "(float)(-(1 - alpha) * T * scale)", "(float)(-(1 - alpha) * scale)"),
    Mutant("learning/kd_decoder.c", "(decoder->first + from) * output->I", "from * output->I"),
    Mutant("learning/kd_decoder.c", "run->head.features + decoder->first * I + t.i0", "run->head.features + t.i0"),
    Mutant("learning/kd_decoder.c", "if (t.i0 == 0)", "if (1)"),
    Mutant("learning/kd_decoder.c", "terms[0] = NAN;", "terms[0] = 0;"),
    Mutant("layers/kd_embed.c", "memset(is_touched, 1, (size_t)V);", "memset(is_touched, 0, (size_t)V);"),
    # ---- losses on taps
    Mutant("learning/kd_match.c", "share / (double)T) / (double)T;", "share / (double)T);"),
    Mutant("learning/kd_match.c", "kernels->scale(y, (float)(2 * share), n);", "kernels->scale(y, (float)share, n);"),
    Mutant("learning/kd_match.c", "for (; i < n; i++)\n        sum[0]", "for (; i + 1 < n; i++)\n        sum[0]"),
    Mutant("learning/kd_match.c", "length < LEAST_LENGTH ? 0 :", "0 ? 0 :"),
    Mutant("learning/kd_match.c", "along = share * cosine * of_y * of_y,", "along = share * cosine * of_y,"),
    Mutant("learning/kd_match.c", "(of_y != 0) + (of_t != 0) - 2 * turn_to", "2 - 2 * turn_to"),
    Mutant("learning/kd_match.c", "turn_to(y, t, T, of_y, of_t, 2 * share)", "turn_to(y, t, T, of_y, of_t, share)"),
    Mutant("learning/kd_match.c", "match->student + from * S, &layer, rows);", "match->student, &layer, rows);"),
    Mutant("learning/kd_match.c", "match->teacher + (from + r) * T", "match->teacher + r * T"),
    Mutant("learning/kd_match.c", "(size_t)(t.i1 - t.i0) * sizeof(float));", "sizeof(float));"),
    Mutant("learning/kd_match.c", "match->student + t.i0,", "match->student,"),
    Mutant("learning/kd_match.c", "match->outer + member * match->outer_bytes", "match->outer"),
    Mutant("learning/kd_match.c", '{"kl", kl_queries, 0}', '{"kl", kl_queries, 1}'),
    Mutant("learning/kd_match.c", "match->teacher + map + q0 * n,", "match->teacher + map,"),
    Mutant("learning/kd_match.c", "teacher_scale = 1 / sqrt((double)TD)", "teacher_scale = 1 / sqrt((double)D)"),
    Mutant("learning/kd_match.c", "kernels->scale(q.s, (float)scale, q.count * np);", ""),
    Mutant(
        "learning/kd_match.c",
        "x->wide + q0 * Dp, Dp, n, Dp, q.count, q0 > 0);",
        "x->wide, Dp, n, Dp, q.count, q0 > 0);",
    ),
    Mutant("learning/kd_match.c", "x->wide, Dp, q.count, Dp, n, 1);", "x->wide, Dp, q.count, Dp, n, 0);"),
    Mutant("learning/kd_match.c", "match->scratch + member * match->scratch_bytes", "match->scratch"),
    Mutant(
        "learning/kd_match.c",
        "b = map / match->H, head = map % match->H;",
        "b = map % match->B, head = map / match->B;",
    ),
    Mutant("skin/kd_module_match.c", "n > left / n ? -1 : left - n * n;", "n > left / n ? 0 : left - n * n;"),
    Mutant(
        "skin/kd_module_match.c",
        "const ptrdiff_t step = kd_slice_step(kd_match_maps_item_cost(match), threads);",
        "const ptrdiff_t step = PTRDIFF_MAX / 2;",
    ),
    Mutant("arithmetic/kd_kernels_divergence.inc", "const vf d = a - b, e", "const vf d = b - a, e"),
    Mutant("arithmetic/kd_kernels_divergence.inc", "const vf p = e * (1.0f / sum), x", "const vf p = e, x"),
    Mutant("arithmetic/kd_kernels_divergence.inc", "(float)(share / (1 + W)), n);", "(float)share, n);"),
    Mutant("arithmetic/kd_kernels_divergence.inc", "sum += kernel_softmax(s, n, n, 1) - lse_t;", "sum -= lse_t;"),
    Mutant("arithmetic/kd_kernels_divergence.inc", "#define LARGEST_X 30.0f", "#define LARGEST_X 300.0f"),
    Mutant("arithmetic/kd_kernels_divergence.inc", "factor = (float)(share / (1 + W));", "factor = share;"),
    Mutant("arithmetic/kd_kernels_divergence.inc", "greatest_d = vf_max(greatest_d, vf_first(d, m, greatest_d));", ""),
    Mutant(
        "arithmetic/kd_kernels_divergence.inc", "(vf_load_n(s + i, m) - whole) * factor", "vf_load_n(s + i, m) * factor"
    ),
    Mutant(
        "arithmetic/kd_vec.h", "vf_select(parts.n == 0.0f, parts.square,", "vf_select(parts.n == 9.0f, parts.square,"
    ),
    # ---- the optimiser
    Mutant(
        "learning/kd_adamw.c", "s.decay = (float)(1 - lr * weight_decay);", "s.decay = (float)(1 + lr * weight_decay);"
    ),
    Mutant(
        "learning/kd_adamw.c",
        "(float)(1 / sqrt(1 - pow(s.beta2, t)));",
        "(float)(1 / (1 - pow(s.beta2, t)));",
    ),
    Mutant("learning/kd_adamw.c", "if (!s->decay)", "if (s->decay)"),
    Mutant("learning/kd_adamw.c", "d->history + d->t - 1 - d->base", "d->history + d->t - 2 - d->base"),
    Mutant(
        "learning/kd_adamw.c",
        "const ptrdiff_t target = d->t - list->with_gradient, C = d->C;",
        "const ptrdiff_t target = d->t, C = d->C;",
    ),
    Mutant("learning/kd_adamw.c", "if (done >= 0 && done < table->t) {", "if (done >= 0 && done + 1 < table->t) {"),
    Mutant("arithmetic/kd_kernels_adamw.inc", "(1.0f - s->beta2) * g * g", "(1.0f - s->beta2) * g"),
    Mutant(
        "arithmetic/kd_kernels_adamw.inc",
        "vf_sqrt(*v) * s->inverse_root_bias2 + s->eps",
        "vf_sqrt(*v) * s->inverse_root_bias2",
    ),
    Mutant("arithmetic/kd_kernels_adamw.inc", "*p = *p * steps[t].decay;", "*p = *p;"),
    # ---- rows of length 1
    Mutant("layers/kd_unit.c", "y[i] = (float)(scale * x[i]);", "y[i] = (float)(scale * scale * x[i]);"),
    Mutant("layers/kd_unit.c", "product(dy, x, C) * scale * scale : 0;", "product(dy, x, C) * scale : 0;"),
    Mutant("layers/kd_unit.c", "(dy[i] - along * x[i])", "(dy[i] + along * x[i])"),
    # ---- what the CPU has
    Mutant("ground/kd_cpu.c", "(c >> 11 & 1)", "(d >> 11 & 1)"),
    Mutant("ground/kd_cpu.c", "(a >> 5 & 1)", "(a >> 4 & 1)"),
    Mutant("ground/kd_cpu.c", "(a >> 4 & 1)", "(a >> 5 & 1)"),
    Mutant(
        "ground/kd_cpu.c",
        '{"avx512_bf16", {KD_LEVEL_AVX512, KD_AVX512_VNNI | KD_AVX512_BF16}}',
        '{"avx512_bf16", {KD_LEVEL_AVX512, KD_AVX512_BF16}}',
    ),
    # ---- the thread pool
    Mutant("ground/kd_pool.c", "team->item(team->context, item, member);", "team->item(team->context, item, 0);"),
    Mutant(
        "ground/kd_pool.c",
        "await_none(team, &team->inside);",
        ";",
    ),
    # ---- items that several threads share
    Mutant("model/kd_shared.c", "p.first_column += first;", ""),
    Mutant("model/kd_shared.c", "row = part * ROWS, at", "row = 0, at"),
    Mutant("model/kd_shared.c", "const ptrdiff_t row = part * ROWS;", "const ptrdiff_t row = 0;"),
    Mutant("model/kd_shared.c", "work->engine->whole_rows ? NULL : p.next", "p.next"),
    Mutant("model/kd_layer.c", "scratch->attend);", "own->attend);"),
    Mutant("arithmetic/kd_engine_narrow.inc", "(p->first_column + n) / KD_PANEL", "n / KD_PANEL"),
    Mutant("arithmetic/kd_engine_results.inc", "               p->first_column + at->n;", "               at->n;"),
    Mutant("arithmetic/kd_engine_results.inc", "padded_columns(p->right_columns)", "padded_columns(p->N)"),
    Mutant("arithmetic/kd_engine_results.inc", "(p->first_column + at->n) * KD_LEFT", "at->n * KD_LEFT"),
    Mutant("arithmetic/kd_engine_results.inc", "left_stride(p->right_columns)", "left_stride(p->N)"),
    Mutant("arithmetic/kd_engine_attention.inc", "kd_min(count, KD_VEC)", "KD_VEC"),
    Mutant("arithmetic/kd_engine_attention.inc", "if (t->to == t->H)", "if (t->to > t->H)"),
    Mutant("model/kd_picked.c", "from = part * H / work->parts,", "from = 0,"),
]

# Those that no test can catch, and why.
_BY_PUT = {mutant.put: mutant for mutant in MUTANTS}
SURVIVORS: dict[Mutant, str] = {
    _BY_PUT[
        "+ i, left) : vf_set(1.0f);"
    ]: "a panel's columns past the operand are computed and never read; 0 keeps them finite",
    _BY_PUT[
        "kd_max(c->C, w.A)"
    ]: "an operand of wider embeddings then ends in its thread's own room for later operands and for the embeddings "
    "that it was made of, which nothing reads any more: 4 bytes a number against 2; up to 4,096 numbers beside 8 gave "
    "the same bits in every type, and none lay behind the workspace",
}
