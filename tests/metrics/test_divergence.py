"""The divergence of a model's answers from a reference's, against sums written out row by row."""

from __future__ import annotations

import math

import numpy as np

from kdistill.metrics import divergence

RANDOM = np.random.default_rng(0)
REFERENCE = RANDOM.normal(0, 3, (40, 3)).astype(np.float32)
LOGITS = (REFERENCE + RANDOM.normal(0, 0.5, (40, 3))).astype(np.float32)


def test_of_classes_is_that_of_softmax_distributions() -> None:
    total = 0.0
    for ours, theirs in zip(LOGITS.tolist(), REFERENCE.tolist(), strict=True):
        p = [math.exp(x) / sum(map(math.exp, theirs)) for x in theirs]
        q = [math.exp(x) / sum(map(math.exp, ours)) for x in ours]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    np.testing.assert_allclose(divergence.of_classes(LOGITS, REFERENCE), total / 40, rtol=1e-12)


def test_of_indicators_is_that_of_all_sets_of_labels() -> None:
    total = 0.0
    for ours, theirs in zip(LOGITS.tolist(), REFERENCE.tolist(), strict=True):
        for chosen in range(8):  # each set of the three labels, whose probability is a product
            p = q = 1.0
            for label, (x, y) in enumerate(zip(ours, theirs, strict=True)):
                sign = 1 if chosen >> label & 1 else -1
                p, q = p / (1 + math.exp(-sign * y)), q / (1 + math.exp(-sign * x))
            total += p * math.log(p / q)
    np.testing.assert_allclose(divergence.of_indicators(LOGITS, REFERENCE), total / 40, rtol=1e-10)


def test_of_numbers_is_that_of_normal_distributions_as_wide_as_the_references_answers() -> None:
    """The divergence of two normal distributions, integrated by the trapezoidal rule."""
    points = np.linspace(-60, 60, 200_001)
    total = 0.0
    for column in range(3):
        width = float(np.std(REFERENCE[:, column].astype(np.float64)))
        for x, y in zip(LOGITS[:4, column].tolist(), REFERENCE[:4, column].tolist(), strict=True):
            log_p, log_q = -((points - y) ** 2) / (2 * width**2), -((points - x) ** 2) / (2 * width**2)
            p = np.exp(log_p) / (width * math.sqrt(2 * math.pi))
            total += float(np.trapezoid(p * (log_p - log_q), points))
    of_four = divergence.of_numbers(
        np.concatenate([LOGITS[:4], REFERENCE[4:]]), REFERENCE
    )  # the other rows are 0 apart and set the width
    np.testing.assert_allclose(of_four, total / 40, rtol=1e-8)


def test_equal_answers_are_zero_apart_and_others_than_a_constant_infinitely_far() -> None:
    for of in (divergence.of_classes, divergence.of_indicators, divergence.of_numbers):
        assert of(REFERENCE, REFERENCE) == 0
    constant = np.ones((5, 1), np.float32)
    assert divergence.of_numbers(constant, constant) == 0
    assert divergence.of_numbers(constant + 1, constant) == math.inf


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1000.0, -1000.0]], np.float32)
    assert divergence.of_classes(-logits, logits) == 2000
    assert divergence.of_indicators(-logits, logits) == 2000
