"""Gradients of an encoder whose head reads all tokens: float64, but for the rounding of operands to bfloat16.

Written from the formulas for one sequence: y = r(x) r(W)^T + b, dx = r(dy) r(W), dW = r(dy)^T r(x), where r rounds. The
head's product, embeddings, norms, attention and biases are not rounded. No dropout, gelu alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from support import reference
from support.engines import to_bfloat16

Array = reference.Array
Backward = Rounding = Callable[[Array], Array]


def rounded(x: Array) -> Array:
    """Return the bfloat16 next to the float32 next to x."""
    return to_bfloat16(np.asarray(x, np.float32)).astype(np.float64)


class OneSequence:
    """One sequence on its way up; each step returns its result and what takes a gradient down through it."""

    def __init__(
        self, parameters: reference.Parameters, gradients: dict[str, Array], encoder: dict[str, Any], near: Rounding
    ) -> None:
        self.parameters, self.gradients, self.encoder, self.near = parameters, gradients, encoder, near

    def linear(self, x: Array, name: str, rounding: Rounding | None = None) -> tuple[Array, Backward]:
        near = rounding or self.near
        weight = near(self.parameters[f"{name}.weight"])

        def back(dy: Array) -> Array:
            self.gradients[f"{name}.weight"] += near(dy).T @ near(x)
            self.gradients[f"{name}.bias"] += dy.sum(axis=0)
            return near(dy) @ weight

        return near(x) @ weight.T + self.parameters[f"{name}.bias"], back

    def norm(self, x: Array, name: str) -> tuple[Array, Backward]:
        gamma, beta = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        deviation = np.sqrt(x.var(axis=-1, keepdims=True) + self.encoder["eps"])
        unit = (x - x.mean(axis=-1, keepdims=True)) / deviation

        def back(dy: Array) -> Array:
            self.gradients[f"{name}.weight"] += (dy * unit).sum(axis=0)
            self.gradients[f"{name}.bias"] += dy.sum(axis=0)
            du = dy * gamma
            means = du.mean(axis=-1, keepdims=True), (du * unit).mean(axis=-1, keepdims=True)
            return np.asarray((du - means[0] - unit * means[1]) / deviation)

        return gamma * unit + beta, back

    def embed(self, ids: Sequence[int], types: Sequence[int]) -> tuple[Array, Callable[[Array], None]]:
        places = dict(zip(("word", "position", "token_type"), (ids, range(len(ids)), types), strict=True))
        names = {f"bert.embeddings.{kind}_embeddings.weight": list(rows) for kind, rows in places.items()}
        total = np.sum([self.parameters[name][rows] for name, rows in names.items()], axis=0)
        x, norm_back = self.norm(total, "bert.embeddings.LayerNorm")
        projected = "bert.embeddings_project.weight" in self.parameters
        x, project_back = self.linear(x, "bert.embeddings_project") if projected else (x, lambda dx: dx)

        def back(dx: Array) -> None:
            dtotal = norm_back(project_back(dx))
            for name, rows in names.items():
                np.add.at(self.gradients[name], rows, dtotal)

        return x, back

    def attention(self, q: Array, k: Array, v: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
        width = self.encoder["head_width"]
        heads = q.shape[1] // width
        by_head = [x.reshape(len(x), heads, width).transpose(1, 0, 2) for x in (q, k, v)]
        table, bias = "bert.encoder.relative_attention_bias.weight", np.zeros(())
        if table in self.parameters:
            bias = reference.relative_bias(self.parameters[table], len(q), self.encoder["relative_distance"])
        p = reference.softmax(reference.attention_scores(q, k, heads, bias))

        def flat(x: Array) -> Array:
            return np.asarray(x.transpose(1, 0, 2).reshape(len(q), -1))

        def back(dcontext: Array) -> tuple[Array, Array, Array]:
            d = dcontext.reshape(len(q), heads, width).transpose(1, 0, 2)
            dp = d @ by_head[2].transpose(0, 2, 1)
            dscores = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
            for query, key in np.ndindex(dscores.shape[1:]) if table in self.parameters else ():
                size = len(self.parameters[table]), self.encoder["relative_distance"]
                self.gradients[table][reference.relative_bucket(key - query, *size)] += dscores[:, query, key]
            ds = dscores / math.sqrt(width)
            return flat(ds @ by_head[1]), flat(ds.transpose(0, 2, 1) @ by_head[0]), flat(p.transpose(0, 2, 1) @ d)

        return flat(p @ by_head[2]), back

    def layer(self, x: Array, layer: int) -> tuple[Array, Backward]:
        prefix = f"bert.encoder.layer.{0 if self.encoder.get('shared') else layer}"
        attend = f"{prefix}.attention"
        inner = [self.linear(x, f"{attend}.self.{part}") for part in ("query", "key", "value")]
        context, attention_back = self.attention(*(y for y, _ in inner))
        y, output_back = self.linear(context, f"{attend}.output.dense")
        h, norm1_back = self.norm(x + y, f"{attend}.output.LayerNorm")
        wide, up_back = self.linear(h, f"{prefix}.intermediate.dense")
        y, down_back = self.linear(reference.gelu(wide), f"{prefix}.output.dense")
        result, norm2_back = self.norm(h + y, f"{prefix}.output.LayerNorm")

        def back(d: Array) -> Array:
            d = norm2_back(d)
            slope = reference.gelu(wide) / wide + wide * np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
            d = norm1_back(d + up_back(down_back(d) * slope))
            parts = zip(inner, attention_back(output_back(d)), strict=True)
            return np.asarray(d + sum(part_back(dy) for (_, part_back), dy in parts))

        return result, back


def gradients(
    parameters: reference.Parameters,
    encoder: dict[str, Any],
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    doutputs: Array,
    near: Rounding = rounded,
) -> dict[str, Array]:
    """Return the gradient of each parameter for rows of (ids, types) and the gradient of all tokens' outputs (N, K)."""
    total = {name: np.zeros(value.shape) for name, value in parameters.items()}
    first = 0
    for ids, types in rows:
        sequence = OneSequence(parameters, total, encoder, near)
        x, embed_back = sequence.embed(ids, types)
        backs = []
        for layer in range(len(encoder["layers"])):
            x, back = sequence.layer(x, layer)
            backs.append(back)
        _, head_back = sequence.linear(x, "classifier", rounding=lambda value: value)
        d = head_back(doutputs[first : first + len(ids)].astype(np.float64))
        for back in reversed(backs):
            d = back(d)
        embed_back(d)
        first += len(ids)
    return total
