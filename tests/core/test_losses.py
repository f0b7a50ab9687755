"""Losses against the float64 reference, in value and gradient, up to the extremes; and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference

from kdistill import _core
from kdistill.losses.kinds import LossParts
from kdistill.losses.labels import cross_entropy, label_loss
from kdistill.losses.teacher import distillation_loss, distillation_loss_parts
from kdistill.system.threads import using_num_threads

TEMPERATURES = [0.1, 1.0, 2.5, 4.0, 100.0]
SHAPES = [(1, 1), (1, 2), (7, 2), (5, 3), (64, 17)]
# The core computes in double precision: values agree to its roundings, amplified by T^2 and the subtraction of
# logarithms; a gradient is rounded once to float32, half a unit in its last place.
VALUE = 1e-10
GRADIENT = 2.0**-24


def logits(shape: tuple[int, int], seed: int, scale: float = 3.0) -> NDArray[np.float32]:
    return (scale * np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(np.float32)


def labels(shape: tuple[int, int], seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng([seed, *shape]).integers(0, shape[1], shape[0])


def check(found: tuple[float, NDArray[np.float32]], expected: tuple[float, reference.Array]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=VALUE, abs=VALUE)
    assert found[1].dtype == np.float32
    # What is below 1e-12 is the difference of two equal probabilities.
    np.testing.assert_allclose(found[1], expected[1], rtol=GRADIENT, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy(shape: tuple[int, int], scale: float) -> None:
    z, y = logits(shape, 1, scale), labels(shape)
    check(cross_entropy(z, y), reference.cross_entropy(z.astype(np.float64), y.tolist()))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_distillation_loss(shape: tuple[int, int], temperature: float, alpha: float) -> None:
    z, t, y = logits(shape, 1), logits(shape, 2), labels(shape)
    y[::3] = -100
    for chosen in (y, None):
        found = distillation_loss(z, t, chosen, alpha=alpha, temperature=temperature)
        check(found, reference.distillation_loss(z, t, chosen, alpha, temperature))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_against_finite_differences_of_the_value(temperature: float) -> None:
    z, t, y = logits((4, 3), 3, 1.0), logits((4, 3), 4, 1.0), np.array([0, -100, 2, 1])
    _, gradient = distillation_loss(z, t, y, alpha=0.4, temperature=temperature)

    def loss(x: reference.Array) -> float:
        return reference.distillation_loss(x, t.astype(np.float64), y, 0.4, temperature)[0]

    expected = reference.finite_difference(loss, z.astype(np.float64), step=1e-4 * min(temperature, 1.0))
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_logits_of_ten_thousand(temperature: float) -> None:
    z = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [0, -1e4], [-1e4, -1e4]], np.float32)
    t = np.array([[-1e4, 1e4], [-1e4, 1e4], [0, 0], [0, 1], [1e4, 9999]], np.float32)
    for y in (np.zeros(5, np.int64), np.full(5, -100), np.array([0, 1, 0, -100, 1])):
        found = distillation_loss(z, t, y, alpha=0.5, temperature=temperature)
        assert np.isfinite(found[0])
        assert np.isfinite(found[1]).all()
        check(found, reference.distillation_loss(z, t, y, 0.5, temperature))
    check(cross_entropy(z, [1, 1, 1, 1, 1]), reference.cross_entropy(z, [1, 1, 1, 1, 1]))
    assert cross_entropy(z[:1], [1])[0] == 2e4


@pytest.mark.parametrize("temperature", [1e-5, 1e-3, 1e3, 1e5])
def test_the_ends_of_the_range_of_temperatures(temperature: float) -> None:
    """Beside 64-bit mantissas: T^2 = 1e10 times the rounding of the divergence, 1e-15, is 1e-5 of a loss near 1."""
    z, t = logits((6, 4), 21), logits((6, 4), 22)
    t[0, 1] = t[0, 0]  # a tie, which a small T must not break
    student, teacher = (x.astype(np.longdouble) / np.longdouble(temperature) for x in (z, t))
    log_q, log_p = (x - x.max(1, keepdims=True) for x in (student, teacher))
    log_q, log_p = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (log_q, log_p))
    p, q = np.exp(log_p), np.exp(log_q)
    soft = np.longdouble(temperature) ** 2 * np.where(p > 0, p * (log_p - log_q), 0).sum(1).mean()
    loss, dlogits = distillation_loss(z, t, temperature=temperature)
    assert loss == pytest.approx(float(soft), rel=1e-5)
    np.testing.assert_allclose(dlogits, (temperature * (q - p) / 6).astype(float), rtol=1e-6, atol=1e-7 * temperature)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
@pytest.mark.parametrize("temperature", [1e-5, 1e5])
def test_the_largest_logits_at_the_ends_of_the_range(problem_type: str, temperature: float) -> None:
    z = np.array([[1.5e38, -1.5e38], [1.5e38, 1.5e38]], np.float32)
    loss, dlogits = distillation_loss(z, -z, temperature=temperature, problem_type=problem_type)
    assert np.isfinite(loss)
    assert np.isfinite(dlogits).all()


def test_a_gradient_that_float_cannot_hold_is_an_error() -> None:
    z = np.array([[0.0], [3e38]], np.float32)
    with pytest.raises(FloatingPointError, match=r"of 1 of 2 rows is not finite \(rows 1 of"):
        distillation_loss(z, -z, problem_type="regression")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_label_has_a_loss_and_a_gradient_of_exactly_zero(smoothing: float) -> None:
    z, t = logits((5, 1), 1), logits((5, 1), 2)
    loss, dlogits = distillation_loss(z, t, np.zeros(5, np.int64), label_smoothing=smoothing)
    assert loss == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(dlogits, 0, rtol=0, atol=1e-16)


def test_defaults_are_alpha_a_half_and_temperature_four() -> None:
    z, t, y = logits((6, 2), 5), logits((6, 2), 6), labels((6, 2))
    assert distillation_loss(z, t, y)[0] == distillation_loss(z, t, y, alpha=0.5, temperature=4.0)[0]


def test_the_parts_of_a_loss() -> None:
    z, t = logits((6, 3), 7), logits((6, 3), 8)
    y = np.array([0, 1, 2, -100, -100, 1])
    parts = distillation_loss_parts(z, t, y, alpha=0.3, temperature=2.0)
    labelled = y != -100
    assert parts.hard == pytest.approx(reference.cross_entropy(z[labelled], y[labelled].tolist())[0], rel=VALUE)
    assert parts.soft == pytest.approx(reference.distillation_loss(z, t, None, 0.0, 2.0)[0], rel=VALUE)
    assert parts[:1] == distillation_loss(z, t, y, alpha=0.3, temperature=2.0)[:1]
    assert distillation_loss_parts(z, t).hard == 0


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_rows_without_a_teacher_learn_from_their_labels_alone(problem_type: str) -> None:
    """The loss is the sum over the rows of alpha * hard + (1 - alpha) * soft, each with its own alpha, over B."""
    z, t = logits((7, 3), 9), logits((7, 3), 10)
    single = problem_type == "single_label_classification"
    y = labels((7, 3)) if single else np.abs(logits((7, 3), 11, 1.0)) % 1
    absent, unlabelled = [1, 4, 6], [4, 5]
    t[absent], y[unlabelled] = np.nan, -100 if single else np.nan
    parts = distillation_loss_parts(z, t, y, alpha=0.3, temperature=2.0, problem_type=problem_type)
    expected, gradient, soft = 0.0, np.zeros(z.shape), []
    for row in range(7):
        if row in absent and row in unlabelled:  # nothing to learn from
            continue
        if row in absent:
            loss, slope = label_loss(z[[row]], y[[row]], problem_type)
        else:
            loss, slope = distillation_loss(z[[row]], t[[row]], y[[row]], 0.3, 2.0, problem_type=problem_type)
            soft.append(distillation_loss_parts(z[[row]], t[[row]], problem_type=problem_type, temperature=2.0).soft)
        expected, gradient[row] = expected + loss / 7, slope[0] / 7
    assert parts.loss == pytest.approx(expected, rel=VALUE)
    np.testing.assert_allclose(parts.dlogits, gradient, rtol=2 * GRADIENT, atol=1e-12)
    assert parts.soft == pytest.approx(np.mean(soft), rel=VALUE)
    nobody = distillation_loss_parts(z[:4], np.full_like(z[:4], np.nan), y[:4], problem_type=problem_type)
    assert nobody[0] == pytest.approx(label_loss(z[:4], y[:4], problem_type)[0], rel=VALUE)
    assert nobody.soft == 0


def test_a_row_of_which_the_teacher_lacks_a_part_is_an_error() -> None:
    z, t = logits((3, 3), 9), logits((3, 3), 10)
    t[1, 0] = np.nan
    with pytest.raises(FloatingPointError, match=r"of 1 of 3 rows is not finite \(rows 1 of the batch\)"):
        distillation_loss(z, t, labels((3, 3)))


def test_rows_of_other_kinds_of_numbers() -> None:
    z, t = [[1, 2], [3, 4]], [[0.5, 0.25], [2, 1]]
    expected = distillation_loss(np.array(z, np.float32), np.array(t, np.float32), np.array([1, 0]))
    for kind in (np.int8, np.uint16, np.int32):
        found = distillation_loss(np.array(z, np.float64), t, np.array([1, 0], kind))
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])


GOOD = np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": [0, 2, 1]}, ValueError, "labels[1] is 2; expected 0 to 1, or -100 for a row without a label"),
        ({"labels": [0, 0, -1]}, ValueError, "labels[2] is -1; expected 0 to 1"),
        ({"labels": [0, 1]}, ValueError, "labels has 2 rows; expected 3, as logits has"),
        ({"labels": [[0, 1, 0]]}, ValueError, "labels have shape (1, 3); expected one label for each row"),
        ({"labels": [0.0, 1.0, 1.0]}, TypeError, "labels are float64; expected whole numbers"),
        ({"labels": [True, False, True]}, TypeError, "labels are bool; expected whole numbers"),
        ({"labels": ["a", "b", "c"]}, TypeError, "labels are <U1; expected whole numbers"),
        ({"teacher_logits": GOOD[:2]}, ValueError, "teacher_logits is 2 x 2; expected 3 x 2, as logits is"),
        ({"teacher_logits": GOOD[:, :1]}, ValueError, "teacher_logits is 3 x 1; expected 3 x 2, as logits is"),
        ({"teacher_logits": GOOD[0]}, ValueError, "teacher_logits has shape (2,); expected (rows, labels)"),
        ({"logits": GOOD[None]}, ValueError, "logits has shape (1, 3, 2); expected (rows, labels)"),
        ({"logits": GOOD[:0], "teacher_logits": GOOD[:0]}, ValueError, "logits is 0 x 2; expected at least one row"),
        ({"alpha": -0.1}, ValueError, "alpha is -0.1; expected a number from 0 (teacher only) to 1 (labels only)"),
        ({"alpha": 1.5}, ValueError, "alpha is 1.5"),
        ({"alpha": float("nan")}, ValueError, "alpha is nan"),
        ({"temperature": 0}, ValueError, "temperature is 0; expected a number from 1e-05 to 100000"),
        ({"temperature": -4.0}, ValueError, "temperature is -4.0"),
        ({"temperature": 9e-6}, ValueError, "temperature is 9e-06"),
        ({"temperature": 1.1e5}, ValueError, "temperature is 110000.0"),
        ({"temperature": float("inf")}, ValueError, "temperature is inf"),
        ({"temperature": float("nan")}, ValueError, "temperature is nan"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        distillation_loss(**({"logits": GOOD, "teacher_logits": GOOD} | arguments))


def test_cross_entropy_needs_a_label_for_every_row() -> None:
    with pytest.raises(ValueError, match=re.escape("labels[1] is -100, which marks a row without a label")):
        cross_entropy(GOOD, [0, -100, 1])
    with pytest.raises(ValueError, match=re.escape("labels[2] is 2; expected 0 to 1")):
        cross_entropy(GOOD, [0, 1, 2])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_name_their_rows(value: float) -> None:
    bad = np.zeros((12, 2), np.float32)
    bad[[1, 4], 1] = value
    good = np.zeros((12, 2), np.float32)
    message = re.escape("the loss of 2 of 12 rows is not finite (rows 1, 4 of the batch)")
    for call in (
        lambda: cross_entropy(bad, np.zeros(12, int)),
        lambda: distillation_loss(bad, good, np.zeros(12, int)),
        lambda: distillation_loss(bad, good),
        lambda: distillation_loss(good, bad),
        lambda: distillation_loss(bad, good, np.zeros(12, int), alpha=1.0),
    ):
        with pytest.raises(FloatingPointError, match=message):
            call()
    with pytest.raises(FloatingPointError, match=re.escape("(rows 0, 1, 2, 3, 4, 5, 6, 7, ... of the batch)")):
        cross_entropy(np.full((12, 2), value, np.float32), np.zeros(12, int))


SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def rows_of_formula(
    problem_type: str, z: reference.Array, t: reference.Array, y: reference.Array, temperature: float
) -> tuple[reference.Array, reference.Array]:
    """Hard and soft loss of each row in float64, from the formulas in kd_loss.h."""
    if problem_type == REGRESSION:
        return ((z - y) ** 2).mean(axis=1), ((z - t) ** 2).mean(axis=1)

    def logs(x: reference.Array) -> tuple[reference.Array, reference.Array]:
        return -np.logaddexp(0, -x), -np.logaddexp(0, x)  # log sigmoid(x), log(1 - sigmoid(x))

    yes, no = logs(z)
    hard = -(y * yes + (1 - y) * no).mean(axis=1)
    (p_yes, p_no), (q_yes, q_no) = logs(t / temperature), logs(z / temperature)
    soft = temperature**2 * (np.exp(p_yes) * (p_yes - q_yes) + np.exp(p_no) * (p_no - q_no)).mean(axis=1)
    return hard, soft


def targets(problem_type: str, shape: tuple[int, int], seed: int = 9) -> NDArray[np.float32]:
    rng = np.random.default_rng([seed, *shape])
    drawn = rng.integers(0, 2, shape) if problem_type == MULTI else 5 * rng.random(shape)
    return drawn.astype(np.float32)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("problem_type", [MULTI, REGRESSION])
def test_other_problem_types(problem_type: str, shape: tuple[int, int], temperature: float, alpha: float) -> None:
    z, t, y = logits(shape, 1), logits(shape, 2), targets(problem_type, shape)
    missing = np.arange(shape[0]) % 3 == 1
    y[missing] = np.nan
    wide = [x.astype(np.float64) for x in (z, t, np.where(missing[:, None], 0, y))]
    weight = np.where(missing, 0.0, alpha)

    def mean_loss(x: reference.Array) -> float:
        hard, soft = rows_of_formula(problem_type, x, wide[1], wide[2], temperature)
        return float((weight * hard + (1 - weight) * soft).mean())

    parts = distillation_loss_parts(z, t, y, alpha, temperature, problem_type=problem_type)
    hard, soft = rows_of_formula(problem_type, *wide, temperature)
    assert parts.loss == pytest.approx(mean_loss(wide[0]), rel=VALUE, abs=VALUE)
    assert parts.hard == pytest.approx(hard[~missing].mean(), rel=VALUE, abs=VALUE)
    assert parts.soft == pytest.approx(soft.mean(), rel=VALUE, abs=VALUE)
    expected = reference.finite_difference(mean_loss, wide[0], step=1e-4 * min(temperature, 1.0))
    np.testing.assert_allclose(parts.dlogits, expected, rtol=1e-5, atol=1e-7)
    if not missing.any():
        loss, dlogits = label_loss(z, y, problem_type)
        assert loss == pytest.approx(hard.mean(), rel=VALUE)
        if alpha == 1:
            np.testing.assert_array_equal(dlogits, parts.dlogits)


def test_two_labels_of_ten_thousand() -> None:
    z, t = np.array([[1e4, -1e4]], np.float32), np.array([[-1e4, -1e4]], np.float32)
    assert label_loss(z, [[0, 0]], MULTI)[0] == 5e3
    loss, dlogits = distillation_loss(z, t, None, temperature=2.0, problem_type=MULTI)
    assert loss == 4 * 5e3 / 2
    np.testing.assert_array_equal(dlogits, [[1, 0]])


def test_one_output_takes_one_number_a_row() -> None:
    assert label_loss([[1.0], [2.0]], [2, 4], REGRESSION)[0] == 2.5
    assert label_loss([[1.0], [2.0]], [[2.0], [4.0]], REGRESSION)[0] == 2.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"problem_type": "ranking"}, ValueError, "problem_type is 'ranking'; expected one of single_label"),
        ({"labels": [[0, 1]]}, ValueError, "labels has 1 rows; expected 3, as logits has"),
        ({"labels": [[0, 1, 0]] * 3}, ValueError, "labels has 3 numbers in a row; expected 2, as logits has"),
        ({"labels": [0.0, 1.0, 2.0]}, ValueError, "labels have shape (3,); expected (3, 2), a number for each logit"),
        ({"labels": [["a", "b"]] * 3}, TypeError, "labels are <U1; expected numbers"),
        ({"labels": [[0, 1], [0, np.inf], [0, 0]]}, ValueError, "labels[1][1] is inf; expected finite numbers"),
        ({"labels": [[0, 1], [0, np.nan], [0, 0]]}, ValueError, "labels[1][1] is nan; expected finite numbers"),
        (
            {"label_smoothing": 0.1, "problem_type": REGRESSION},
            ValueError,
            "label_smoothing is 0.1 and problem_type 'regression'; expected 0",
        ),
    ],
)
def test_refused_labels_of_other_problem_types(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        distillation_loss(GOOD, GOOD, **({"problem_type": MULTI} | arguments))


def test_a_loss_against_labels_needs_all_of_them() -> None:
    with pytest.raises(ValueError, match=re.escape("labels[1] is [nan], which marks a row without a label")):
        label_loss([[1.0], [2.0]], [1, np.nan], REGRESSION)


@pytest.mark.parametrize("problem_type", [MULTI, REGRESSION])
def test_not_finite_in_other_problem_types(problem_type: str) -> None:
    bad = np.zeros((12, 2), np.float32)
    bad[[2, 11], 0] = -np.inf, np.nan
    with pytest.raises(FloatingPointError, match=re.escape("2 of 12 rows is not finite (rows 2, 11 of the batch)")):
        distillation_loss(bad, np.zeros((12, 2)), problem_type=problem_type)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_label_smoothing_is_cross_entropy_with_the_mixed_target(shape: tuple[int, int]) -> None:
    z, y = logits(shape, 1), labels(shape)
    wide = z.astype(np.float64)
    log_p = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    target = np.full(shape, 0.1 / shape[1])
    target[np.arange(shape[0]), y] += 0.9
    loss, gradient = cross_entropy(z, y, label_smoothing=0.1)
    assert loss == pytest.approx(-(target * log_p).sum() / shape[0], rel=VALUE, abs=VALUE)
    np.testing.assert_allclose(gradient, (np.exp(log_p) - target) / shape[0], rtol=1e-6, atol=1e-7 / shape[0])
    # Without a teacher's part the distillation loss is the same.
    assert distillation_loss(z, -z, y, alpha=1.0, label_smoothing=0.1)[0] == pytest.approx(loss)


def weighted_rows(
    problem_type: str, z: reference.Array, y: NDArray[Any], weights: reference.Array, smoothing: float
) -> reference.Array:
    """Weighted and smoothed hard loss of each row in float64, from the formulas in kd_loss.h."""
    count = z.shape[1]
    if problem_type == SINGLE:
        target = np.full(z.shape, smoothing / count)
        target[np.arange(len(z)), y] += 1 - smoothing
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -(weights * target * log_p).sum(axis=1)
    target = (1 - smoothing) * y.astype(np.float64) + smoothing / 2
    yes, no = -np.logaddexp(0, -z), -np.logaddexp(0, z)
    return -(weights * target * yes + (1 - target) * no).mean(axis=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_weights_of_labels_in_value_and_gradient(problem_type: str, shape: tuple[int, int], smoothing: float) -> None:
    z, weights = logits(shape, 1), np.random.default_rng(shape[1]).uniform(0.1, 9, shape[1])
    y: NDArray[Any] = labels(shape) if problem_type == SINGLE else targets(problem_type, shape)
    total = weights[y].sum() if problem_type == SINGLE else len(z)
    argument = {"class_weights" if problem_type == SINGLE else "pos_weight": weights.tolist()}

    def mean_loss(x: reference.Array) -> float:
        return float(weighted_rows(problem_type, x, y, weights, smoothing).sum() / total)

    loss, gradient = label_loss(z, y, problem_type, smoothing, **argument)
    assert loss == pytest.approx(mean_loss(z.astype(np.float64)), rel=VALUE, abs=VALUE)
    expected = reference.finite_difference(mean_loss, z.astype(np.float64), step=1e-4)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_weights_act_on_the_labels_alone(problem_type: str) -> None:
    """A row without a label counts as before, and the others' weights are divided by their mean."""
    z, t, weights = logits((6, 3), 1), logits((6, 3), 2), np.array([0.5, 2.0, 4.0])
    y: NDArray[Any] = labels((6, 3)) if problem_type == SINGLE else targets(problem_type, (6, 3))
    y[[0, 4]] = -100 if problem_type == SINGLE else np.nan
    known = np.array([False, True, True, True, False, True])
    hard = np.zeros(6)
    hard[known] = weighted_rows(problem_type, z[known].astype(np.float64), y[known], weights, 0.0)
    if problem_type == SINGLE:
        hard /= weights[y[known]].mean()
    argument = {"class_weights" if problem_type == SINGLE else "pos_weight": weights}
    soft = distillation_loss(z, t, None, problem_type=problem_type, temperature=2.0)[0] * 6
    of_unlabelled = distillation_loss(z[~known], t[~known], None, problem_type=problem_type, temperature=2.0)[0] * 2
    expected = (0.3 * hard.sum() + 0.7 * (soft - of_unlabelled) + of_unlabelled) / 6
    found = distillation_loss(z, t, y, 0.3, 2.0, problem_type=problem_type, **argument)
    assert found[0] == pytest.approx(expected, rel=1e-9)
    np.testing.assert_array_equal(
        found[1][~known], distillation_loss(z, t, y, 0.3, 2.0, problem_type=problem_type)[1][~known]
    )


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_weights_of_one_change_nothing(problem_type: str) -> None:
    z, t = logits((64, 5), 1), logits((64, 5), 2)
    y: NDArray[Any] = labels((64, 5)) if problem_type == SINGLE else targets(problem_type, (64, 5))
    expected = distillation_loss(z, t, y, problem_type=problem_type)
    argument = {"class_weights" if problem_type == SINGLE else "pos_weight": np.ones(5)}
    found = distillation_loss(z, t, y, problem_type=problem_type, **argument)
    assert found[0] == pytest.approx(expected[0], rel=1e-15)
    np.testing.assert_allclose(found[1], expected[1], rtol=GRADIENT, atol=1e-12)


def test_a_batch_of_classes_that_weigh_nothing_has_no_loss() -> None:
    loss, gradient = cross_entropy(logits((4, 3), 1), [1, 1, 1, 1], class_weights=[1, 0, 1])
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
    ("problem_type", "arguments", "message"),
    [
        (
            SINGLE,
            {"class_weights": [1, 2, 3]},
            "class_weights has shape (3,); expected (2,), one number for each label",
        ),
        (SINGLE, {"class_weights": [1, np.nan]}, "class_weights[1] is nan; expected a finite number >= 0"),
        (SINGLE, {"class_weights": [-1, 2]}, "class_weights[0] is -1.0; expected a finite number >= 0"),
        (SINGLE, {"class_weights": [0, 0]}, "class_weights is 0 for every label"),
        (SINGLE, {"pos_weight": [1, 1]}, "pos_weight is given with problem_type 'single_label_classification'; expect"),
        (MULTI, {"class_weights": [1, 1]}, "expected pos_weight instead"),
        (MULTI, {"pos_weight": [1, np.inf]}, "pos_weight[1] is inf; expected a finite number >= 0"),
        (
            REGRESSION,
            {"pos_weight": [1, 1]},
            "problem_type 'regression', whose loss has no weights of labels; leave it",
        ),
    ],
)
def test_weights_that_are_refused(problem_type: str, arguments: dict[str, Any], message: str) -> None:
    y = labels((3, 2)) if problem_type == SINGLE else targets(problem_type, (3, 2))
    for call in (
        lambda: label_loss(GOOD, y, problem_type, **arguments),
        lambda: distillation_loss(GOOD, GOOD, y, problem_type=problem_type, **arguments),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(3), ValueError, "weights has 3 numbers; expected 2, one for each label"),
        (np.array([1, np.inf]), ValueError, "weights[1] is inf; expected a finite number >= 0"),
        (np.array([-1.0, 1]), ValueError, "weights[0] is -1; expected a finite number >= 0"),
        (np.ones(2, np.float32), TypeError, "weights must be an array of float64"),
        (np.ones((2, 1)), ValueError, "weights must be a C-contiguous array with 1 dimension(s)"),
    ],
)
def test_weights_that_the_core_refuses(weights: NDArray[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        _core.loss(_core.LOSS_SINGLE_LABEL, GOOD, None, np.zeros(3, np.int64), 1.0, 1.0, 0.0, 1, weights)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_label_smoothing_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match=f"label_smoothing is {share}; expected a number from 0"):
        cross_entropy(logits((2, 2), 1), [0, 1], label_smoothing=share)
    with pytest.raises(ValueError, match=f"label_smoothing is {share}; expected a number from 0"):
        distillation_loss(logits((2, 2), 1), logits((2, 2), 2), [0, 1], label_smoothing=share)


def test_label_smoothing_of_logits_that_are_not_finite() -> None:
    z = logits((3, 2), 1)
    z[1, 0] = np.inf
    with pytest.raises(FloatingPointError, match="rows 1 of the batch"):
        cross_entropy(z, [0, 1, 0], label_smoothing=0.1)


# More than is done without threads, more rows than are added up at a time, and a power of two: a row's gradient is the
# one it has alone, divided exactly.
LARGE = (2048, 20)


def large_case(problem_type: str) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[Any]]:
    y: NDArray[Any] = labels(LARGE) if problem_type == SINGLE else targets(problem_type, LARGE)
    y[::3] = -100 if problem_type == SINGLE else np.nan
    return logits(LARGE, 1), logits(LARGE, 2), y


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, REGRESSION])
def test_a_large_loss_adds_its_rows_in_their_order(problem_type: str, threads: int) -> None:
    z, t, y = large_case(problem_type)

    def parts(rows: slice) -> LossParts:
        return distillation_loss_parts(z[rows], t[rows], y[rows], 0.3, 2.0, problem_type=problem_type)

    with using_num_threads(threads):
        whole = parts(slice(None))
    alone = [parts(slice(row, row + 1)) for row in range(len(z))]
    labelled = np.isfinite(y) & (y != -100) if y.ndim == 1 else np.isfinite(y[:, 0])
    loss = hard = soft = 0.0
    for part in alone:  # sum() rounds otherwise, from Python 3.12 on
        loss, hard, soft = loss + part.loss, hard + part.hard, soft + part.soft
    assert (whole.loss, whole.hard, whole.soft) == (loss / len(z), hard / labelled.sum(), soft / len(z))
    np.testing.assert_array_equal(whole.dlogits, np.concatenate([part.dlogits for part in alone]) / len(z))


@pytest.mark.parametrize("shape", [(3, 90_000), (90_000, 3), (1, 20_000)], ids=str)
def test_the_bits_of_a_loss_do_not_depend_on_threads(shape: tuple[int, int]) -> None:
    results = []
    for threads in (1, 2, 3):
        with using_num_threads(threads):
            results.append(distillation_loss_parts(logits(shape, 1), logits(shape, 2), labels(shape), 0.3, 2.0))
    for other in results[1:]:
        assert (other.loss, other.hard, other.soft) == (results[0].loss, results[0].hard, results[0].soft)
        np.testing.assert_array_equal(other.dlogits, results[0].dlogits)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_large_loss_that_is_not_finite_names_its_first_rows(threads: int) -> None:
    z, t, y = large_case(SINGLE)
    z[[2047, 3, 1500, 1023, 1024, 700], 5] = np.nan
    with using_num_threads(threads):
        with pytest.raises(FloatingPointError, match=re.escape("6 of 2048 rows")) as raised:
            distillation_loss(z, t, y)
        assert "(rows 3, 700, 1023, 1024, 1500, 2047 of the batch)" in str(raised.value)
        z[::2] = np.inf
        with pytest.raises(FloatingPointError, match=re.escape("(rows 0, 2, 3, 4, 6, 8, 10, 12, ... of the batch)")):
            distillation_loss(z, t, y)


def test_a_number_of_threads_that_the_core_refuses() -> None:
    with pytest.raises(ValueError, match="threads is 0; expected 1 to 256"):
        _core.loss(_core.LOSS_SINGLE_LABEL, GOOD, None, np.zeros(3, np.int64), 1.0, 1.0, 0.0, 0)
