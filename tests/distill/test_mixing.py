"""Several teachers' answers as those of one: against sums over the teachers in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kdistill.data.ragged import Ragged
from kdistill.losses.mixing import CLASSES, INDICATORS, NUMBERS, SPANS, mixed_answers
from kdistill.losses.spans import span_loss
from kdistill.losses.teacher import distillation_loss

WEIGHTS = np.array([0.5, 0.2, 0.3])
RNG = np.random.default_rng(0)
LOGITS = [RNG.normal(scale=3, size=(6, 5)).astype(np.float32) for _ in WEIGHTS]
STUDENT = RNG.normal(size=(6, 5)).astype(np.float32)
STARTS = np.array([0, 4, 5, 9])
SPAN_LOGITS = [Ragged(RNG.normal(scale=3, size=(9, 2)).astype(np.float32), STARTS) for _ in WEIGHTS]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize(("kind", "share"), [(CLASSES, softmax), (INDICATORS, sigmoid)])
def test_the_softened_probabilities_are_averaged(
    kind: Any, share: Callable[[np.ndarray], np.ndarray], temperature: float
) -> None:
    mixed = mixed_answers(kind, LOGITS, WEIGHTS, temperature)
    expected = sum(w * share(z.astype(np.float64) / temperature) for w, z in zip(WEIGHTS, LOGITS, strict=True))
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(share(np.asarray(mixed, np.float64) / temperature), expected, rtol=2e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(
    ("kind", "problem_type"),
    [
        (CLASSES, "single_label_classification"),
        (INDICATORS, "multi_label_classification"),
        (NUMBERS, "regression"),
    ],
)
def test_the_gradient_is_that_of_the_weighted_sum_of_the_teachers_losses(
    kind: Any, problem_type: str, temperature: float
) -> None:
    mixed = mixed_answers(kind, LOGITS, WEIGHTS, temperature)
    settings = {"alpha": 0.0, "temperature": temperature, "problem_type": problem_type}
    loss, gradient = distillation_loss(STUDENT, mixed, **settings)
    each = [distillation_loss(STUDENT, of, **settings) for of in LOGITS]
    # The core's gradient is float32; temperature 4 multiplies the rounding of the mixture.
    np.testing.assert_allclose(gradient, sum(w * d for w, (_, d) in zip(WEIGHTS, each, strict=True)), atol=2e-6)
    assert loss <= sum(w * of for w, (of, _) in zip(WEIGHTS, each, strict=True)) + 1e-6  # the same but for a constant


def test_the_loss_is_the_divergence_from_the_mean_of_the_probabilities() -> None:
    temperature = 3.0
    p = sum(w * softmax(z.astype(np.float64) / temperature) for w, z in zip(WEIGHTS, LOGITS, strict=True))
    q = softmax(STUDENT.astype(np.float64) / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    mixed = mixed_answers(CLASSES, LOGITS, WEIGHTS, temperature)
    loss, _ = distillation_loss(STUDENT, mixed, alpha=0.0, temperature=temperature)
    assert loss == pytest.approx(expected, rel=1e-6)


def test_the_tokens_of_a_row_share_one_softmax_for_its_first_and_last_token() -> None:
    mixed = mixed_answers(SPANS, SPAN_LOGITS, WEIGHTS, 2.0)
    assert isinstance(mixed, Ragged)
    for row in range(3):
        expected = sum(
            w * softmax(of[row].T.astype(np.float64) / 2) for w, of in zip(WEIGHTS, SPAN_LOGITS, strict=True)
        )
        np.testing.assert_allclose(softmax(mixed[row].T.astype(np.float64) / 2), expected, rtol=2e-6)
    student = RNG.normal(size=(9, 2)).astype(np.float32)
    settings: dict[str, Any] = {"alpha": 0.0, "temperature": 2.0}
    ours = span_loss(student, STARTS, None, mixed.values, **settings).dlogits
    each = [span_loss(student, STARTS, None, of.values, **settings).dlogits for of in SPAN_LOGITS]
    np.testing.assert_allclose(ours, sum(w * d for w, d in zip(WEIGHTS, each, strict=True)), atol=2e-6)


def test_two_teachers_count_as_in_confidence_aware_distillation() -> None:
    """CA-MKD, equation 3, with cross-entropies at temperature 1; a row without a label has its likeliest class."""
    labels = np.array([0, 1, 2, 3, 4, -100])
    two, weights = LOGITS[:2], np.array([0.5, 0.5])
    p = [softmax(of.astype(np.float64)) for of in two]
    of_label = [np.where(labels >= 0, q[np.arange(6), np.maximum(labels, 0)], q.max(axis=1)) for q in p]
    losses = [-np.log(q) for q in of_label]
    theirs = [1 - np.exp(loss) / (np.exp(losses[0]) + np.exp(losses[1])) for loss in losses]
    expected = sum(w[:, None] * softmax(of.astype(np.float64) / 4) for w, of in zip(theirs, two, strict=True))
    mixed = mixed_answers(CLASSES, two, weights, 4.0, labels=labels, by_confidence=True)
    np.testing.assert_allclose(softmax(np.asarray(mixed, np.float64) / 4), expected, rtol=5e-6)


def test_confidence_in_several_labels_is_the_mean_over_them() -> None:
    labels = np.array([[1, 0, 1, 0, 1]] * 5 + [[np.nan] * 5], np.float32)
    p = [sigmoid(of.astype(np.float64)) for of in LOGITS]
    right = [np.where(labels == 1, q, np.where(labels == 0, 1 - q, np.maximum(q, 1 - q))) for q in p]
    confidence = np.stack([np.exp(np.log(q).mean(axis=1)) for q in right]) * WEIGHTS[:, None]
    shares = confidence / confidence.sum(axis=0)
    expected = sum(w[:, None] * sigmoid(of.astype(np.float64) / 2) for w, of in zip(shares, LOGITS, strict=True))
    mixed = mixed_answers(INDICATORS, LOGITS, WEIGHTS, 2.0, labels=labels, by_confidence=True)
    np.testing.assert_allclose(sigmoid(np.asarray(mixed, np.float64) / 2), expected, rtol=5e-6)


@pytest.mark.parametrize("spans", [[[1, 3], [0, 0], [-100, -100]], [[0, 2], [0, 0], [3, 0]]])
def test_confidence_in_a_span_is_that_of_both_of_its_ends(spans: list[list[int]]) -> None:
    labels = np.array(spans)
    confidence = np.ones((3, 3)) * WEIGHTS[:, None]
    for teacher, of in enumerate(SPAN_LOGITS):
        for row, (first, last) in enumerate(labels):
            p = softmax(of[row].T.astype(np.float64))
            ends = p.max(axis=1) if first < 0 else np.array([p[0, first], p[1, last]])
            confidence[teacher, row] *= np.sqrt(ends.prod())
    shares = confidence / confidence.sum(axis=0)
    mixed = mixed_answers(SPANS, SPAN_LOGITS, WEIGHTS, 1.0, labels=labels, by_confidence=True)
    assert isinstance(mixed, Ragged)
    for row in range(3):
        each = [softmax(of[row].T.astype(np.float64)) for of in SPAN_LOGITS]
        expected = sum(w * p for w, p in zip(shares[:, row], each, strict=True))
        np.testing.assert_allclose(softmax(mixed[row].T.astype(np.float64)), expected, rtol=5e-6)


def test_a_sure_teacher_may_be_as_wrong_as_it_likes() -> None:
    """The probabilities of its labels underflow; weights are made of their logarithms."""
    wrong = [np.array([[5000.0, 0.0]], np.float32), np.array([[6000.0, 0.0]], np.float32)]
    mixed = mixed_answers(CLASSES, wrong, np.array([0.5, 0.5]), 1.0, labels=np.array([1]), by_confidence=True)
    np.testing.assert_allclose(mixed, [[0.0, -5000.0]], rtol=1e-6)


def test_numbers_have_no_confidence() -> None:
    np.testing.assert_allclose(
        mixed_answers(NUMBERS, LOGITS, WEIGHTS, 7.0), np.einsum("t,trk->rk", WEIGHTS, np.stack(LOGITS)), rtol=1e-5
    )
    with pytest.raises(ValueError, match="weights by confidence are those of probabilities, and these answers are num"):
        mixed_answers(NUMBERS, LOGITS, WEIGHTS, 1.0, by_confidence=True)


def test_others_answer_for_a_teacher_that_has_no_answer() -> None:
    first, second, third = (of.copy() for of in LOGITS)
    first[2], second[2], first[4], second[4], third[4] = np.nan, np.nan, np.nan, np.nan, np.nan
    mixed = mixed_answers(CLASSES, [first, second, third], WEIGHTS, 2.0)
    whole = mixed_answers(CLASSES, LOGITS, WEIGHTS, 2.0)
    assert isinstance(mixed, np.ndarray)
    assert isinstance(whole, np.ndarray)
    np.testing.assert_array_equal(mixed[[0, 1, 3, 5]], whole[[0, 1, 3, 5]])
    np.testing.assert_allclose(softmax(mixed[2] / 2), softmax(LOGITS[2][2] / 2), rtol=1e-5)
    assert np.isnan(mixed[4]).all()
