"""Losses on hidden states, attention and relations beside PyTorch's from the papers: padded, masked, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import torch
from torch.nn import functional

from kdistill import _core

LENGTHS = [7, 1, 30, 12, 2, 19]
LONGEST, TOKENS = max(LENGTHS), sum(LENGTHS)
STARTS = np.cumsum([0, *LENGTHS])
# Real tokens of the padded batch, and real pairs of query and key.
MASK = torch.arange(LONGEST) < torch.tensor(LENGTHS)[:, None]
PAIRS = MASK[:, :, None] & MASK[:, None, :]
Floats = NDArray[np.float32]


def numbers(seed: int, *shape: int, scale: float = 1.0) -> Floats:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def tensor(array: Floats) -> Any:
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


def padded(rows: Any) -> Any:
    """(B, longest, C) of packed rows (N, C)."""
    return torch.nn.utils.rnn.pad_sequence(rows.split(LENGTHS), batch_first=True, padding_value=7.0)


def close(found: Floats | None, expected: Any) -> None:
    """1e-5 of the largest, the bound of the project for these losses."""
    assert found is not None
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5 * expected.abs().max().item())


def row_loss(loss: str, s: Any, t: Any) -> Any:
    """TinyBERT's MSELoss, DistilBERT's CosineEmbeddingLoss with targets of 1, or PKD's squares of normalised states.

    The mask drops padded positions.
    """
    s, t = s[MASK], t[MASK]
    if loss == "mse":
        return functional.mse_loss(s, t)
    if loss == "cosine":
        return functional.cosine_embedding_loss(s, t, torch.ones(len(s)))
    return (functional.normalize(s, dim=-1) - functional.normalize(t, dim=-1)).pow(2).sum(-1).mean()


@pytest.mark.parametrize("loss", ["mse", "cosine", "normalized-mse"])
@pytest.mark.parametrize(("S", "T", "projected"), [(128, 128, False), (312, 384, True), (20, 20, True), (37, 9, True)])
def test_rows(loss: str, S: int, T: int, projected: bool) -> None:
    student, teacher = numbers(1, TOKENS, S), numbers(2, TOKENS, T)
    projection = numbers(3, T, S, scale=S**-0.5) if projected else None
    x, w = tensor(student), None if projection is None else tensor(projection)
    hidden = padded(x)
    expected = row_loss(loss, hidden if w is None else functional.linear(hidden, w), padded(torch.tensor(teacher)))
    expected.backward()
    value, dstudent, dprojection = _core.match_rows(loss, student, teacher, projection, 2)
    assert value == pytest.approx(expected.item(), rel=1e-5)
    close(dstudent, x.grad)
    assert (dprojection is None) == (w is None)
    if w is not None:
        close(dprojection, w.grad)


def map_loss(loss: str, s: Any, t: Any) -> Any:
    """Scores (B, H, n, n): TinyBERT's mean of squares, or MiniLM's KL over heads and queries; masked keys are -inf."""
    heads = s.shape[1]
    real = PAIRS[:, None].expand_as(s)
    if loss == "mse":
        return ((s - t) ** 2)[real].mean()
    keys = ~MASK[:, None, None, :].expand_as(s)
    p, log_q = (x.masked_fill(keys, -torch.inf) for x in (t, s))
    divergence = functional.kl_div(
        log_q.log_softmax(-1).masked_fill(keys, 0),
        p.log_softmax(-1).masked_fill(keys, 0),
        reduction="none",
        log_target=True,
    )  # of a masked key both logarithms are 0, so that its term is
    return (divergence.sum(-1) * MASK[:, None]).sum() / (heads * TOKENS)


@pytest.mark.parametrize("loss", ["mse", "kl"])
@pytest.mark.parametrize("heads", [1, 2, 12])
def test_attention(loss: str, heads: int) -> None:
    sizes = [heads * n * n for n in LENGTHS]
    student, teacher = numbers(1, sum(sizes), scale=2), numbers(2, sum(sizes), scale=2)
    x = tensor(student)

    def maps(flat: Any) -> Any:
        pads = [(0, LONGEST - n) * 2 for n in LENGTHS]
        parts = [part.reshape(heads, n, n) for part, n in zip(flat.split(sizes), LENGTHS, strict=True)]
        return torch.stack([functional.pad(part, pad, value=7.0) for part, pad in zip(parts, pads, strict=True)])

    expected = map_loss(loss, maps(x), maps(torch.tensor(teacher)))
    expected.backward()
    value, dstudent = _core.match_attention(loss, student, teacher, STARTS, heads, 2)
    assert value == pytest.approx(expected.item(), rel=1e-5)
    close(dstudent, x.grad)


@pytest.mark.parametrize("loss", ["mse", "kl"])
@pytest.mark.parametrize(("heads", "S", "T"), [(1, 20, 31), (2, 128, 384), (12, 312, 384), (48, 96, 384)])
def test_relations(loss: str, heads: int, S: int, T: int) -> None:
    student, teacher = numbers(1, TOKENS, S), numbers(2, TOKENS, T)
    x = tensor(student)

    def relations(rows: Any) -> Any:
        split = padded(rows).unflatten(-1, (heads, -1)).transpose(1, 2)
        return split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5

    expected = map_loss(loss, relations(x), relations(torch.tensor(teacher, dtype=torch.float64)))
    expected.backward()
    value, dstudent = _core.match_relation(loss, student, teacher, STARTS, heads, 2)
    assert value == pytest.approx(expected.item(), rel=1e-5)
    close(dstudent, x.grad)
