"""Losses of embeddings against their formulas in float64, finite differences, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.reference import finite_difference

from kdistill.losses.embeddings import embedding_loss

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (RNG.standard_normal((7, 5)).astype(np.float32) for _ in range(2))


def mse(student: NDArray[Any], teacher: NDArray[Any]) -> float:
    return float(((student.astype(np.float64) - teacher) ** 2).mean())


def cosine(student: NDArray[Any], teacher: NDArray[Any]) -> float:
    a, b = student.astype(np.float64), teacher.astype(np.float64)
    return float((1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


FORMULAS = {"mse": mse, "cosine": cosine}


@pytest.mark.parametrize("loss", FORMULAS)
def test_the_loss_is_its_formula(loss: str) -> None:
    parts = embedding_loss(STUDENT, TEACHER, loss)
    assert parts.loss == pytest.approx(FORMULAS[loss](STUDENT, TEACHER), rel=1e-14)
    assert (parts.soft, parts.hard) == (parts.loss, 0.0)


@pytest.mark.parametrize("loss", FORMULAS)
def test_the_gradient_is_that_of_finite_differences(loss: str) -> None:
    gradient = embedding_loss(STUDENT, TEACHER, loss).dlogits
    expected = finite_difference(lambda at: FORMULAS[loss](at, TEACHER), STUDENT.astype(np.float64), step=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)  # the gradient is float32


def test_the_cosine_does_not_depend_on_lengths() -> None:
    assert embedding_loss(3 * STUDENT, TEACHER / 7, "cosine").loss == pytest.approx(cosine(STUDENT, TEACHER), rel=1e-6)
    assert embedding_loss(STUDENT, STUDENT, "cosine").loss == pytest.approx(0, abs=1e-15)


def test_a_vector_of_length_0_has_the_cosine_0_and_no_gradient() -> None:
    parts = embedding_loss(np.zeros((2, 5), np.float32), TEACHER[:2], "cosine")
    assert parts.loss == 1.0
    assert not parts.dlogits.any()


def test_what_is_not_finite_names_its_row() -> None:
    student = STUDENT.copy()
    student[3, 1] = np.nan
    with pytest.raises(FloatingPointError, match=r"the loss of 1 of 7 rows is not finite \(rows 3 of the batch\)"):
        embedding_loss(student, TEACHER, "cosine")


def test_other_losses_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="loss is 'l1'; expected one of 'mse', 'cosine'"):
        embedding_loss(STUDENT, TEACHER, "l1")
    with pytest.raises(ValueError, match=r"targets has shape \(7, 4\); expected \(7, 5\), as embeddings has"):
        embedding_loss(STUDENT, TEACHER[:, :4])
