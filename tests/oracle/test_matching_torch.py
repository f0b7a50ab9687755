"""Losses on what lies inside teacher and student beside PyTorch's: value, gradients of the student, of projections.

PyTorch's side is written from the papers over BERTs of transformers. It computes each row alone, so that it knows
neither padding nor masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch_models
from torch.nn import functional

import kdistill as kd
from kdistill.distill.matching import Matching, pairs_of
from kdistill.train.objective import RunLength

LENGTHS = [1, 2, 7, 31, 64, 5, 17]
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "odd": {"num_hidden_layers": 2, "hidden_size": 60, "num_attention_heads": 5, "intermediate_size": 84},
    "wide": {"num_hidden_layers": 3, "hidden_size": 140, "num_attention_heads": 10, "intermediate_size": 64},
    "as the teacher": {"num_hidden_layers": 4, "hidden_size": 100, "num_attention_heads": 5, "intermediate_size": 64},
}
TEACHER = {"num_hidden_layers": 4, "hidden_size": 100, "num_attention_heads": 5, "intermediate_size": 48}
COMMON = {"vocab_size": 211, "max_position_embeddings": 64, **torch_models.NO_DROPOUT}
MATCHES = {
    "hidden": kd.Match("hidden"),
    "hidden-cosine": kd.Match("hidden", -1, -1, loss="cosine"),
    "hidden-normalized": kd.Match("hidden", 1, 0, loss="normalized-mse"),
    "embedding": kd.Match("embedding", weight=2.0),
    "cls": kd.Match("cls", "skip"),
    "attention": kd.Match("attention"),
    "attention-kl": kd.Match("attention", loss="kl"),
    "relation": kd.Match("relation", -1, -1, weight=3.0),
    "relation-5": kd.Match("relation", heads=5),
    "relation-mse": kd.Match("relation", -1, -1, loss="mse"),
}


def keep(into: dict[str, Any], name: str) -> Any:
    def hook(module: Any, given: Any, rows: Any) -> None:
        into[name] = rows[0]

    return hook


class Inside:
    """What lies inside a BERT of transformers, row by row: hidden states, and queries, keys and values of layers."""

    def __init__(self, model: Any, ids: Any, types: Any) -> None:
        self.hidden: list[list[Any]] = []
        self.parts: list[list[dict[str, Any]]] = []
        layers = model.bert.encoder.layer
        for row, row_types in zip(ids, types, strict=True):
            seen: list[dict[str, Any]] = [{} for _ in layers]

            hooks = [
                getattr(layer.attention.self, name).register_forward_hook(keep(seen[place], name))
                for place, layer in enumerate(layers)
                for name in ("query", "key", "value")
            ]
            output = model(
                input_ids=torch.tensor([row]), token_type_ids=torch.tensor([row_types]), output_hidden_states=True
            )
            for hook in hooks:
                hook.remove()
            self.hidden.append([state[0] for state in output.hidden_states])
            self.parts.append(seen)

    def rows(self, layer: int, *, first: bool = False) -> Any:
        return torch.cat([states[layer][:1] if first else states[layer] for states in self.hidden])

    def scores(self, layer: int, heads: int) -> list[Any]:
        return [_products(part[layer]["query"], part[layer]["key"], heads) for part in self.parts]

    def relations(self, of: str, layer: int, heads: int) -> list[Any]:
        return [_products(part[layer][of], part[layer][of], heads) for part in self.parts]


def _products(x: Any, y: Any, heads: int) -> Any:
    x, y = (each.reshape(len(each), heads, -1).transpose(0, 1) for each in (x, y))
    return x @ y.transpose(1, 2) / x.shape[-1] ** 0.5


def loss_of_scores(loss: str | None, ours: list[Any], theirs: list[Any]) -> Any:
    """The mean over all scores of all rows, or of the divergence over heads and query positions."""
    if loss == "mse":
        return functional.mse_loss(*(torch.cat([each.ravel() for each in of]) for of in (ours, theirs)))
    of_each = [
        functional.kl_div(
            functional.log_softmax(s, -1), functional.log_softmax(t, -1), reduction="none", log_target=True
        )
        .sum(-1)
        .ravel()
        for s, t in zip(ours, theirs, strict=True)
    ]
    return torch.cat(of_each).mean()


def loss_of_rows(loss: str | None, s: Any, t: Any) -> Any:
    if loss == "mse":
        return functional.mse_loss(s, t)
    if loss == "cosine":
        return functional.cosine_embedding_loss(s, t, torch.ones(len(s)))
    return (functional.normalize(s) - functional.normalize(t)).square().sum(-1).mean()


def expected_loss(match: kd.Match, pairs: Any, ours: Inside, theirs: Inside, projection: Any) -> Any:
    total = torch.zeros(())
    for pair in pairs:
        (_, s), (_, t) = pair.student[0], pair.teacher[0]  # of hidden states, counted as transformers does
        if match.kind == "attention":
            total = total + loss_of_scores(match.loss, ours.scores(s, 5), theirs.scores(t, 5))
        elif match.kind == "relation":
            for of in ("query", "key", "value"):
                scores = ours.relations(of, s, pair.heads), theirs.relations(of, t, pair.heads)
                total = total + loss_of_scores(match.loss, *scores) / 3
        else:
            first = match.kind == "cls"
            x, y = ours.rows(s, first=first), theirs.rows(t, first=first)
            total = total + loss_of_rows(match.loss, x if projection is None else x @ projection.T, y)
    return match.weight * total


EQUAL_HEADS = [name for name, shape in SHAPES.items() if shape["num_attention_heads"] == TEACHER["num_attention_heads"]]
CASES = [
    (name, shape) for name, match in MATCHES.items() for shape in (EQUAL_HEADS if match.kind == "attention" else SHAPES)
]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_loss_and_gradients(name: str, shape: str) -> None:
    match, config = MATCHES[name], {**COMMON, **SHAPES[shape]}
    teacher, their_teacher = torch_models.pair({**COMMON, **TEACHER}, std=0.2, seed=3)
    student, theirs = torch_models.pair(config, std=0.2, seed=4)
    ids, types = torch_models.random_rows(LENGTHS, config, seed=5)
    batch = kd.pack(torch_models.encodings(ids, types))
    args = kd.DistillationTrainingArguments("unused", matches=[match])
    matching = Matching(
        args, teacher.config, student.config, RunLength(1, 1), lambda *of: teacher.forward(of[0], taps=of[1])[1]
    )
    matching.begin_step(0, np.diff(batch.starts))
    logits, taps = student.forward(batch, train=True, taps=matching.taps)
    found = matching(batch, taps, np.arange(len(LENGTHS)))
    student.backward(np.zeros_like(logits), found.gradients)

    projection = None
    if matching.auxiliary is not None:
        (matrix,) = matching.auxiliary.parameters.values()
        projection = torch.tensor(matrix.copy(), requires_grad=True)
    with torch.no_grad():
        inside_teacher = Inside(their_teacher, ids, types)
    (pairs,) = pairs_of([kd.Stage([match])], teacher.config, student.config)
    expected = expected_loss(match, pairs, Inside(theirs, ids, types), inside_teacher, projection)
    expected.backward()

    assert found.loss == pytest.approx(expected.item(), rel=1e-5)
    gradients = {n: p.grad.numpy() for n, p in theirs.named_parameters() if p.grad is not None}
    whole = np.sqrt(sum(np.square(gradient, dtype=float).sum() for gradient in gradients.values()))
    assert whole > 0
    for tensor, gradient in student.gradients.items():
        # What the loss does not reach has no gradient there; sums that cancel (a key's bias) are those of the whole.
        apart = np.linalg.norm(gradient - gradients.get(tensor, np.zeros_like(gradient)))
        own = np.linalg.norm(gradients[tensor]) if tensor in gradients else 0.0
        assert apart <= 1e-4 * own + 1e-6 * whole, tensor
    if projection is not None:
        assert matching.auxiliary is not None
        (of_projection,) = matching.auxiliary.gradients.values()
        expected_gradient = projection.grad.numpy()
        assert np.linalg.norm(of_projection - expected_gradient) <= 1e-5 * np.linalg.norm(expected_gradient)
