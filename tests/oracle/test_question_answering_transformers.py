"""Question answering against transformers: logits, loss, gradients and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from support.small_questions import question_model

import kdistill as kd
from kdistill.data.batch import pack
from kdistill.losses.spans import span_loss

# A softmax over tokens does not change when all of their logits grow alike, so these gradients are truly zero.
ZERO = ("qa_outputs.bias", "bert.encoder.layer.1.output.LayerNorm.bias")
ROWS = [[2, 5, 3, 6, 7, 8, 3], [2, 9, 3, 10, 3], [2, 11, 6, 3, 12, 5, 7, 8, 9, 3]]
TYPES = [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]]


@pytest.fixture
def both(tmp_path: Path) -> tuple[kd.BertForQuestionAnswering, transformers.BertForQuestionAnswering]:
    ours = question_model(seed=4, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ours.save_pretrained(tmp_path)
    theirs, report = transformers.BertForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path)) is type(theirs)
    return ours, theirs


def padded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    width = max(map(len, ROWS))
    ids, types, mask = (np.zeros((len(ROWS), width), np.int64) for _ in range(3))
    for row, (tokens, kinds) in enumerate(zip(ROWS, TYPES, strict=True)):
        ids[row, : len(tokens)], types[row, : len(tokens)], mask[row, : len(tokens)] = tokens, kinds, 1
    return ids, types, mask


def test_logits_of_every_token(both: tuple[kd.BertForQuestionAnswering, transformers.BertForQuestionAnswering]) -> None:
    ours, theirs = both
    ids, types, mask = padded()
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types))
    found = ours(ids, attention_mask=mask, token_type_ids=types)
    lists = ours(ROWS, token_type_ids=TYPES)
    for name in ("start_logits", "end_logits"):
        wanted = expected[name].numpy()
        np.testing.assert_allclose(found[name][mask == 1], wanted[mask == 1], rtol=0, atol=1e-5 * np.abs(wanted).max())
        for row, values in enumerate(lists[name]):
            np.testing.assert_array_equal(values, found[name][row, : len(values)])


@pytest.mark.parametrize("positions", [([3, 0, 4], [5, 0, 4]), ([3, 9, 4], [3, 5, 8]), ([99, 1, 99], [2, 2, 1])])
def test_loss_as_the_mean_of_both_means(
    both: tuple[kd.BertForQuestionAnswering, transformers.BertForQuestionAnswering],
    positions: tuple[list[int], list[int]],
) -> None:
    """Padded logits take part in the softmax of transformers, so rows of one length are compared."""
    ours, theirs = both
    ids = [row[:5] for row in ROWS]
    with torch.no_grad():
        expected = theirs(
            torch.tensor(ids), start_positions=torch.tensor(positions[0]), end_positions=torch.tensor(positions[1])
        )
    found = ours(ids, start_positions=positions[0], end_positions=positions[1])
    assert found.loss == pytest.approx(float(expected.loss), rel=1e-5)
    assert found[0] == found.loss
    assert ours(ids).loss is None


def test_gradients_of_all_tensors(
    both: tuple[kd.BertForQuestionAnswering, transformers.BertForQuestionAnswering],
) -> None:
    ours, theirs = both
    labels = np.array([[3, 5], [0, 0], [6, 8]])
    losses = []
    for row, (ids, types) in enumerate(zip(ROWS, TYPES, strict=True)):
        positions = (torch.tensor(labels[row, end : end + 1]) for end in range(2))
        start, end = positions
        output = theirs(
            torch.tensor([ids]), token_type_ids=torch.tensor([types]), start_positions=start, end_positions=end
        )
        losses.append(output.loss)
    torch.stack(losses).mean().backward()
    batch = pack({"input_ids": ROWS, "token_type_ids": TYPES})
    logits = ours.forward(batch, train=True)
    parts = span_loss(logits, batch.starts, labels, alpha=1.0)
    ours.backward(parts.dlogits)
    assert parts.loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    for name, tensor in theirs.named_parameters():
        expected = tensor.grad.numpy()
        if name not in ZERO and not name.endswith("attention.self.key.bias"):
            difference = np.linalg.norm(ours.gradients[name] - expected) / np.linalg.norm(expected)
            assert difference < 1e-4, name


def test_wrong_positions_are_named() -> None:
    ours = question_model()
    for positions, message in (
        (([1, 2], [1, 2, 3]), r"start_positions have shape \(2,\); expected \(3,\)"),
        (([99] * 3, [1, 2, 3]), "start_positions are all outside of their rows"),
        (([0.5, 2, 3], [1, 2, 3]), "start_positions are float64; expected whole numbers"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            ours(ROWS, start_positions=positions[0], end_positions=positions[1])
