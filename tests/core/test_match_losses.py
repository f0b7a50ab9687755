"""Losses on what taps hand out, against their formulas in float64 and finite differences of these."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import match_formulas
from support.reference import Array, finite_difference, softmax

from kdistill import _core

Floats = NDArray[np.float32]
# Values are means in double of squares or divergences in float32, whose terms are all positive. A gradient is off by
# the roundings of a few float32 operations, behind products of sums over a width too: of its largest number.
VALUE, GRADIENT = 2e-6, 5e-6
ROWS = ["mse", "cosine", "normalized-mse"]
MAPS = ["mse", "kl"]
LENGTHS = [3, 1, 17, 40, 5]


def numbers(seed: int, *shape: int, scale: float = 1.0) -> Floats:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def starts_of(lengths: list[int]) -> NDArray[np.int64]:
    return np.cumsum([0, *lengths])


def check_gradient(found: Floats | None, loss: Callable[[Array], float], at: Floats) -> None:
    """Compare some 60 numbers of a gradient with differences of the formula."""
    assert found is not None
    assert found.dtype == np.float32
    assert found.shape == at.shape
    rng = np.random.default_rng(9)
    flat = rng.choice(at.size, min(60, at.size), replace=False)
    indices = [tuple(int(i) for i in np.unravel_index(each, at.shape)) for each in flat]
    expected = finite_difference(loss, at.astype(np.float64), 1e-4, indices)
    np.testing.assert_allclose([found[i] for i in indices], expected, rtol=0, atol=GRADIENT * np.abs(found).max())


@pytest.mark.parametrize("loss", ROWS)
@pytest.mark.parametrize(("R", "S"), [(1, 1), (1, 7), (60, 33), (200, 128)])
def test_rows_of_equal_width(loss: str, R: int, S: int) -> None:
    student, teacher = numbers(1, R, S), numbers(2, R, S)
    if loss != "mse" and S == 1:
        student, teacher = abs(student), -abs(teacher)  # two directions are all there are
    value, dstudent, dprojection = _core.match_rows(loss, student, teacher, None, 2)
    assert dprojection is None
    assert value == pytest.approx(match_formulas.rows(loss, *exact(student, teacher)), rel=VALUE)
    if S > 1 or loss == "mse":
        check_gradient(dstudent, lambda x: match_formulas.rows(loss, x, exact(teacher)[0]), student)
    else:
        assert not dstudent.any()


def exact(*arrays: Floats) -> list[Array]:
    return [array.astype(np.float64) for array in arrays]


@pytest.mark.parametrize("loss", ROWS)
@pytest.mark.parametrize(("R", "S", "T"), [(1, 5, 3), (60, 33, 50), (100, 128, 384), (7, 300, 20)])
def test_rows_behind_a_projection(loss: str, R: int, S: int, T: int) -> None:
    student, teacher, projection = numbers(1, R, S), numbers(2, R, T), numbers(3, T, S, scale=S**-0.5)
    value, dstudent, dprojection = _core.match_rows(loss, student, teacher, projection, 2)
    s, t, w = exact(student, teacher, projection)
    assert value == pytest.approx(match_formulas.rows(loss, s, t, w), rel=VALUE)
    check_gradient(dstudent, lambda x: match_formulas.rows(loss, x, t, w), student)
    check_gradient(dprojection, lambda x: match_formulas.rows(loss, s, t, x), projection)


@pytest.mark.parametrize("loss", ["cosine", "normalized-mse"])
@pytest.mark.parametrize("which", ["student", "teacher", "both"])
def test_a_row_of_zeros_has_no_direction(loss: str, which: str) -> None:
    student, teacher = numbers(1, 4, 6), numbers(2, 4, 6)
    rest = match_formulas.rows(loss, *exact(student[1:], teacher[1:]))
    for array, name in ((student, "student"), (teacher, "teacher")):
        if which in (name, "both"):
            array[0] = 0
    value, dstudent, _ = _core.match_rows(loss, student, teacher, None, 1)
    of_zeros = 1.0 if loss == "cosine" else float(which != "both")
    assert value == pytest.approx((3 * rest + of_zeros) / 4, rel=VALUE)
    assert not dstudent[0].any()
    assert dstudent[1:].all()


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("loss", ["cosine", "normalized-mse"])
def test_directions_do_not_depend_on_lengths(loss: str, scale: float) -> None:
    student, teacher = numbers(1, 4, 6), numbers(2, 4, 6)
    value, dstudent, _ = _core.match_rows(loss, student, teacher, None, 1)
    scaled, dscaled, _ = _core.match_rows(loss, student * np.float32(scale), teacher, None, 1)
    assert scaled == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(dscaled * scale, dstudent, rtol=1e-5)


@pytest.mark.parametrize("loss", MAPS)
@pytest.mark.parametrize(("heads", "lengths"), [(1, [1]), (2, [1, 1, 2]), (5, LENGTHS), (3, [130, 33]), (12, [9] * 4)])
def test_scores_of_attention(loss: str, heads: int, lengths: list[int]) -> None:
    size = heads * sum(n * n for n in lengths)
    student, teacher = numbers(1, size, scale=2), numbers(2, size, scale=2)
    value, dstudent = _core.match_attention(loss, student, teacher, starts_of(lengths), heads, 2)

    def maps_of(flat: Array) -> list[Array]:
        cuts = heads * np.cumsum([n * n for n in lengths])[:-1]
        return [part.reshape(heads, n, n) for part, n in zip(np.split(flat, cuts), lengths, strict=True)]

    s, t = (maps_of(each) for each in exact(student, teacher))
    assert value == pytest.approx(match_formulas.maps(loss, s, t), rel=VALUE, abs=1e-12)
    if max(lengths) > 1 or loss == "mse":
        check_gradient(dstudent, lambda x: match_formulas.maps(loss, maps_of(x), t), student)
    else:
        assert not dstudent.any()


@pytest.mark.parametrize("loss", MAPS)
@pytest.mark.parametrize(
    ("heads", "S", "T", "lengths"),
    [
        (1, 5, 3, [1]),
        (2, 6, 40, [1, 3]),
        (4, 20, 12, LENGTHS),
        (12, 312, 384, [6, 11]),
        (48, 48, 96, [7]),
        (2, 32, 34, [65]),
    ],
)
def test_relations(loss: str, heads: int, S: int, T: int, lengths: list[int]) -> None:
    student, teacher = numbers(1, sum(lengths), S), numbers(2, sum(lengths), T)
    value, dstudent = _core.match_relation(loss, student, teacher, starts_of(lengths), heads, 2)
    s, t = exact(student, teacher)
    assert value == pytest.approx(match_formulas.relation(loss, s, t, lengths, heads), rel=VALUE, abs=1e-12)
    if max(lengths) > 1 or loss == "mse":
        check_gradient(dstudent, lambda x: match_formulas.relation(loss, x, t, lengths, heads), student)
    else:
        assert not dstudent.any()


@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_divergences_of_very_sure_softmaxes(scale: float) -> None:
    """Logarithms and exponentials whose arguments reach far beyond what float32 can exponentiate."""
    heads, n = 2, 20
    student, teacher = numbers(1, heads * n * n, scale=scale), numbers(2, heads * n * n, scale=scale)
    value, dstudent = _core.match_attention("kl", student, teacher, starts_of([n]), heads, 1)
    maps = [[each.reshape(heads, n, n)] for each in exact(student, teacher)]
    assert value == pytest.approx(match_formulas.maps("kl", *maps), rel=VALUE)
    assert np.isfinite(dstudent).all()


@pytest.mark.parametrize("n", [3, 15, 16, 17, 80])
@pytest.mark.parametrize("difference", [1.0, 1e-2, 1e-4])
def test_divergences_of_almost_equal_softmaxes(difference: float, n: int) -> None:
    """A divergence of 1e-9 keeps the digits of a large one."""
    teacher = numbers(1, n * n, scale=2)
    student = (teacher + difference * numbers(2, n * n)).astype(np.float32)
    value, dstudent = _core.match_attention("kl", student, teacher, starts_of([n]), 1, 1)
    s, t = (each.reshape(1, n, n) for each in exact(student, teacher))
    assert value == pytest.approx(match_formulas.maps("kl", [s], [t]), rel=VALUE)
    expected = (softmax(s) - softmax(t)).ravel() / n
    np.testing.assert_allclose(dstudent, expected, rtol=0, atol=GRADIENT * np.abs(expected).max())


@pytest.mark.parametrize("loss", MAPS)
def test_equal_scores_have_no_loss_and_no_gradient(loss: str) -> None:
    scores = numbers(1, 3 * 40 * 40, scale=4)
    value, dscores = _core.match_attention(loss, scores, scores.copy(), starts_of([40]), 3, 2)
    assert value == 0
    assert not dscores.any()


def calls() -> list[tuple[str, Callable[[int], Any]]]:
    lengths = LENGTHS * 8
    N, squares = sum(lengths), sum(n * n for n in lengths)
    starts, student, teacher = starts_of(lengths), numbers(1, N, 24), numbers(2, N, 36)
    wide, other, projection = numbers(3, N, 300), numbers(4, N, 300), numbers(5, 300, 300)  # of several tiles
    flat, given = numbers(6, 12 * squares), numbers(7, 12 * squares)
    found: list[tuple[str, Callable[[int], Any]]] = []
    for loss in ROWS:
        found += [
            (f"{loss}", lambda threads, loss=loss: _core.match_rows(loss, wide, other, None, threads)),
            (f"{loss}, W", lambda threads, loss=loss: _core.match_rows(loss, wide, other, projection, threads)),
        ]
    for loss in MAPS:
        found += [
            (f"{loss}", lambda threads, loss=loss: _core.match_attention(loss, flat, given, starts, 12, threads)),
            (
                f"{loss}, X",
                lambda threads, loss=loss: _core.match_relation(loss, student, teacher, starts, 12, threads),
            ),
        ]
    return found


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in calls()])
def test_any_number_of_threads_gives_the_same_bits(call: Callable[[int], Any]) -> None:
    value, *gradients = call(1)
    for threads in (2, 3, 5):
        other, *others = call(threads)
        assert other == value
        for one, two in zip(gradients, others, strict=True):
            np.testing.assert_array_equal(one, two)


def test_what_is_given_is_left_as_it_is() -> None:
    arrays = numbers(1, 9, 4), numbers(2, 9, 4), numbers(3, 4, 4)
    copies = [array.copy() for array in arrays]
    _core.match_rows("mse", *arrays, 2)
    _core.match_rows("mse", *arrays[:2], None, 2)
    _core.match_relation("kl", *arrays[:2], starts_of([4, 5]), 2, 2)
    _core.match_attention("kl", arrays[0].ravel(), arrays[1].ravel(), starts_of([6]), 1, 2)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


BAD = pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])


@BAD
@pytest.mark.parametrize("loss", ROWS)
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("projected", [False, True])
def test_rows_that_are_not_finite(loss: str, which: int, projected: bool, bad: float) -> None:
    arrays: list[Any] = [numbers(1, 9, 4), numbers(2, 9, 4), numbers(3, 4, 4) if projected else None]
    if arrays[which] is None:
        return
    arrays[which][3, 1] = bad
    place = "projection is not finite" if which == 2 else f"row 3 of {('student', 'teacher')[which]} is not finite"
    with pytest.raises(FloatingPointError, match=f"{place}.*; expected finite numbers"):
        _core.match_rows(loss, *arrays, 2)


@BAD
@pytest.mark.parametrize("loss", MAPS)
@pytest.mark.parametrize("which", [0, 1])
def test_maps_that_are_not_finite(loss: str, which: int, bad: float) -> None:
    starts, rows = starts_of([3, 5, 2]), [numbers(1, 10, 6), numbers(2, 10, 6)]
    rows[which][4, 3] = bad
    with pytest.raises(
        FloatingPointError, match=f"{('student', 'teacher')[which]} is not finite in sequence 1, head 1"
    ):
        _core.match_relation(loss, *rows, starts, 2, 2)
    scores = [numbers(1, 2 * 38), numbers(2, 2 * 38)]
    scores[which][2 * 9 + 25 + 7] = bad
    name = ("student_scores", "teacher_scores")[which]
    with pytest.raises(FloatingPointError, match=f"{name} is not finite in sequence 1, head 1"):
        _core.match_attention(loss, *scores, starts, 2, 2)


def test_numbers_whose_squares_are_too_large() -> None:
    huge = np.full((2, 3), 1e30, np.float32)
    with pytest.raises(
        FloatingPointError, match="row 0 of student is not finite, or its loss is too large for float32"
    ):
        _core.match_rows("mse", huge, -huge, None, 1)


def test_gradients_behind_a_projection_that_are_too_large() -> None:
    """The loss is finite; student and projection in turn have a gradient that is not."""
    for student, projection in ((1e-8, 3e22), (1e22, 1e-8)):
        arrays = [
            np.full(shape, x, np.float32) for shape, x in (((1, 2), student), ((1, 3), 1e17), ((3, 2), projection))
        ]
        with pytest.raises(FloatingPointError, match="the gradient of student or of projection is too large"):
            _core.match_rows("mse", *arrays, 1)


GOOD = numbers(1, 6, 4)
STARTS = starts_of([2, 4])  # of 20 scores a head


def refused(call: Callable[..., Any], given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call(*given.values())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loss": "mae"}, ValueError, "loss is 'mae'; expected one of mse, cosine, normalized-mse"),
        ({"loss": 1}, TypeError, "must be str"),
        ({"threads": 0}, ValueError, "threads is 0; expected 1 to 256"),
        ({"student": GOOD.astype(float)}, TypeError, "student must be an array of float32, not of float64"),
        ({"student": GOOD.ravel()}, ValueError, "student must be a C-contiguous array with 2 dimension(s); it has 1"),
        ({"teacher": GOOD[:, ::2]}, ValueError, "teacher is not C-contiguous, aligned and in the byte order"),
        ({"teacher": GOOD[:5]}, ValueError, "teacher has 5 rows; expected 6, as student has"),
        ({"student": GOOD[:0]}, ValueError, "student is 0 x 4 and teacher has 4 columns; expected at least one"),
        ({"teacher": numbers(2, 6, 5)}, ValueError, "4 columns and teacher 5; give a projection of 5 x 4"),
        ({"projection": numbers(3, 4, 5)}, ValueError, "projection is 4 x 5; expected 4 x 4"),
        ({"projection": [[1.0]]}, TypeError, "projection must be a NumPy array of float32"),
    ],
)
def test_rows_that_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"loss": "mse", "student": GOOD, "teacher": GOOD, "projection": None, "threads": 1}
    refused(_core.match_rows, good | changes, error, message)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loss": "cosine"}, ValueError, "loss is 'cosine'; expected one of mse, kl"),
        ({"student": GOOD}, ValueError, "student_scores must be a C-contiguous array with 1 dimension(s); it has 2"),
        ({"teacher": numbers(1, 39)}, ValueError, "teacher_scores has 39 numbers; expected 40"),
        ({"heads": 1}, ValueError, "student_scores has 40 numbers; expected heads n n of each sequence"),
        ({"heads": 3}, ValueError, "student_scores has 40 numbers; expected heads n n of each sequence"),
        ({"student": numbers(1, 41), "teacher": numbers(1, 41)}, ValueError, "student_scores has 41 numbers; expected"),
        ({"heads": 0}, ValueError, "heads is 0; expected at least 1"),
        ({"starts": np.array([0, 2**62])}, ValueError, "expected heads n n of each sequence of n tokens, with 2 heads"),
        ({"starts": np.array([0])}, ValueError, "starts must run from 0 to 40, the number of tokens, and have a seq"),
        ({"starts": np.array([0, 2, 2])}, ValueError, "starts[1] is 2 and the next 2; expected at least one token"),
        ({"starts": np.array([0, 7, 2])}, ValueError, "starts[0] is 0 and the next 7; expected at least one token"),
        ({"starts": STARTS.astype(np.int32)}, TypeError, "starts must be an array of int64"),
    ],
)
def test_scores_that_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    scores = numbers(1, 40)
    good = {"loss": "mse", "student": scores, "teacher": scores, "starts": STARTS, "heads": 2, "threads": 1}
    refused(_core.match_attention, good | changes, error, message)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"teacher": GOOD[:5]}, ValueError, "teacher has 5 rows; expected 6, as student has"),
        ({"teacher": numbers(2, 6, 5)}, ValueError, "divides the columns of student, 4, and of teacher, 5"),
        ({"heads": 3}, ValueError, "heads is 3; expected a number that divides the columns of student, 4"),
        ({"heads": -1}, ValueError, "heads is -1; expected at least 1"),
        ({"starts": starts_of([2, 3])}, ValueError, "starts must run from 0 to 6, the number of tokens"),
        ({"threads": 257}, ValueError, "threads is 257; expected 1 to 256"),
    ],
)
def test_relations_that_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"loss": "kl", "student": GOOD, "teacher": GOOD, "starts": STARTS, "heads": 2, "threads": 1}
    refused(_core.match_relation, good | changes, error, message)
