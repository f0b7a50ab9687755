"""The loss of rows that have a number of logits each, and of spans, against the float64 reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference

from kdistill import _core
from kdistill.losses.spans import span_loss
from kdistill.system.threads import using_num_threads

LENGTHS = [1, 5, 2, 400, 17]
STARTS = np.cumsum([0, *LENGTHS])
# As test_losses.py: computed in double, a gradient rounded once.
VALUE, GRADIENT = 1e-10, 2.0**-24


def numbers(seed: int, *shape: int) -> NDArray[np.float32]:
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def smoothed(z: reference.Array, label: int, share: float) -> tuple[float, reference.Array]:
    """Return the cross-entropy of one row against its smoothed label, and its gradient."""
    target = (1 - share) * np.eye(len(z))[label] + share / len(z)
    return float(-(target * reference.log_softmax(z)).sum()), reference.softmax(z) - target


def expected_loss(
    rows: list[reference.Array],
    teacher: list[reference.Array] | None,
    labels: list[int],
    alpha: float,
    temperature: float,
    share: float,
) -> tuple[float, reference.Array]:
    """Return the mean over the rows, each taken alone, and the gradient, row behind row."""
    loss, gradients = 0.0, []
    for r, z in enumerate(rows):
        weight = 0.0 if labels[r] == -100 else 1.0 if teacher is None else alpha
        gradient = np.zeros(len(z))
        if weight:
            hard, dhard = smoothed(z, labels[r], share)
            loss, gradient = loss + weight * hard, gradient + weight * dhard
        if teacher is not None:
            soft, dsoft = reference.distillation_loss(z[None], teacher[r][None], None, 0.0, temperature)
            loss, gradient = loss + (1 - weight) * soft, gradient + (1 - weight) * dsoft[0]
        gradients.append(gradient)
    return loss / len(rows), np.concatenate(gradients) / len(rows)


def ragged(z: Any, t: Any, y: Any, threads: int = 2, **changes: Any) -> Any:
    options = {"alpha": 0.3, "temperature": 2.5, "smoothing": 0.1} | changes
    starts = options.pop("starts", STARTS)
    kind = options.pop("kind", _core.LOSS_SINGLE_LABEL)
    weights = options.pop("weights", None)
    return _core.loss(kind, z, t, y, *options.values(), threads, weights, starts)


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_rows_of_different_lengths_are_the_rows_one_by_one(with_teacher: bool, share: float) -> None:
    z, t = numbers(1, STARTS[-1]), numbers(2, STARTS[-1]) if with_teacher else None
    labels = [0, 4, -100, 399, 3]
    loss, dlogits, *_, not_finite, _ = ragged(z, t, np.array(labels), smoothing=share)
    rows = np.split(z.astype(np.float64), STARTS[1:-1])
    teacher = None if t is None else np.split(t.astype(np.float64), STARTS[1:-1])
    value, gradient = expected_loss(rows, teacher, labels, 0.3, 2.5, share)
    assert loss == pytest.approx(value, rel=VALUE)
    np.testing.assert_allclose(dlogits, gradient, rtol=GRADIENT, atol=1e-12)
    assert not_finite == 0


def test_equal_lengths_have_the_bits_of_a_table() -> None:
    z, t, y = numbers(1, 40, 9), numbers(2, 40, 9), np.arange(40) % 9
    plain = _core.loss(_core.LOSS_SINGLE_LABEL, z, t, y, 0.3, 2.5, 0.1, 2)
    loss, dlogits, *rest = ragged(z.ravel(), t.ravel(), y, starts=np.arange(41) * 9)
    assert (loss, *rest) == (plain[0], *plain[2:])
    np.testing.assert_array_equal(dlogits, plain[1].ravel())


def test_any_number_of_threads_gives_the_same_bits() -> None:
    starts = np.cumsum([0, *np.random.default_rng(0).integers(1, 300, 400)])
    z, t, y = numbers(1, starts[-1]), numbers(2, starts[-1]), np.zeros(400, np.int64)
    first, *others = (ragged(z, t, y, threads, starts=starts) for threads in (1, 2, 3, 5))
    for other in others:
        assert (other[0], *other[2:]) == (first[0], *first[2:])
        np.testing.assert_array_equal(other[1], first[1])


def test_a_row_that_is_not_finite_is_named() -> None:
    z = numbers(1, STARTS[-1])
    z[STARTS[3] + 7] = np.nan
    assert ragged(z, None, np.zeros(5, np.int64))[4:] == (1, (3,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts": np.array([0, 1, 1, 425])}, r"starts\[1\] is 1 and the next 1; expected at least one logit a row"),
        ({"starts": np.array([0, 500, 425])}, r"starts\[0\] is 0 and the next 500; expected at least one"),
        ({"starts": np.array([0, 424])}, "starts must run from 0 to 425, the number of logits"),
        ({"starts": np.array([425])}, "starts must run from 0 to 425"),
        ({"labels": np.array([0, 5, 0, 0, 0])}, r"labels\[1\] is 5; expected 0 to 4, or -100 for a row"),
        ({"labels": np.zeros(4, np.int64)}, "labels has 4 rows; expected 5, as starts has"),
        ({"teacher": np.zeros(3, np.float32)}, "teacher_logits has 3 numbers; expected 425, as logits has"),
        ({"weights": np.ones(5)}, "weights were given with starts; expected None"),
        ({"kind": _core.LOSS_REGRESSION}, "starts were given; expected None, but with LOSS_SINGLE_LABEL"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    labels, teacher = changes.pop("labels", np.zeros(5, np.int64)), changes.pop("teacher", None)
    with pytest.raises(ValueError, match=message):
        ragged(numbers(1, 425), teacher, labels, **changes)


def spans() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    return (
        numbers(1, STARTS[-1], 2),
        numbers(2, STARTS[-1], 2),
        np.array([[0, 0], [1, 4], [-100, -100], [7, 390], [3, 3]]),
    )


@pytest.mark.parametrize("with_teacher", [False, True])
def test_a_span_is_its_first_and_its_last_token(with_teacher: bool) -> None:
    z, t, labels = spans()
    parts = span_loss(z, STARTS, labels, t if with_teacher else None, alpha=0.3, temperature=2.5, label_smoothing=0.1)
    value, gradient = 0.0, np.empty(z.shape)
    for end in (0, 1):
        rows, teacher = (np.split(array[:, end].astype(np.float64), STARTS[1:-1]) for array in (z, t))
        loss, gradient[:, end] = expected_loss(
            rows, teacher if with_teacher else None, labels[:, end].tolist(), 0.3, 2.5, 0.1
        )
        value += loss / 2
    assert parts.loss == pytest.approx(value, rel=VALUE)
    assert parts.dlogits.dtype == np.float32
    np.testing.assert_allclose(parts.dlogits, gradient / 2, rtol=GRADIENT, atol=1e-12)


def test_a_span_has_the_same_bits_with_any_number_of_threads() -> None:
    z, t, labels = spans()
    with using_num_threads(1):
        one = span_loss(z, STARTS, labels, t)
    with using_num_threads(3):
        three = span_loss(z, STARTS, labels, t)
    assert (one.loss, one.hard, one.soft) == (three.loss, three.hard, three.soft)
    np.testing.assert_array_equal(one.dlogits, three.dlogits)


def test_rows_without_a_span_add_nothing_without_a_teacher() -> None:
    z, _, labels = spans()
    parts = span_loss(z, STARTS, np.full_like(labels, -100))
    assert (parts.loss, parts.hard, parts.soft) == (0, 0, 0)
    assert not parts.dlogits.any()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("labels", [[0, 0], [1, 5], [0, 0], [0, 0], [0, 0]], r"labels\[1\]\[1\] is 5; expected 0 to 4, a token"),
        ("labels", [[0, 0]], r"labels have shape \(1, 2\); expected \(5, 2\)"),
        ("logits", np.zeros((425, 3)), r"logits has shape \(425, 3\); expected \(tokens, 2\)"),
        ("logits", np.zeros((424, 2)), "logits has 424 rows; expected 425, the tokens of starts"),
        ("starts", [0, 3, 3], "starts must begin with 0 and grow with every row"),
        ("teacher_logits", np.zeros((5, 2)), "teacher_logits has 5 rows; expected 425"),
    ],
)  # fmt: skip
def test_a_span_that_does_not_fit_is_refused(place: str, value: Any, message: str) -> None:
    z, t, labels = spans()
    with pytest.raises(ValueError, match=message):
        span_loss(**({"logits": z, "starts": STARTS, "labels": labels, "teacher_logits": t} | {place: value}))


def test_labels_of_spans_are_whole_numbers() -> None:
    with pytest.raises(TypeError, match="labels are float64; expected whole numbers"):
        span_loss(numbers(1, 425, 2), STARTS, np.zeros((5, 2)))


def test_the_row_of_an_end_that_is_not_finite_is_named() -> None:
    z, _, labels = spans()
    z[STARTS[3] + 5, 1] = np.inf
    with pytest.raises(FloatingPointError, match=r"1 of 10 rows is not finite \(rows 3 of the batch\)"):
        span_loss(z, STARTS, labels)
