"""Statistics beside published worked examples and beside loops over the rows in float64."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from kdistill.data.labels import NO_LABEL
from kdistill.report.assessment import (
    agreement,
    calibration_bins,
    expected_calibration_error,
    mcnemar,
    pearson_interval,
    spearman_interval,
    spread,
    wilson_interval,
)
from kdistill.tasks.registry import TASKS


def paired(only_first: int, only_second: int, both: int = 7, neither: int = 5) -> tuple[NDArray, NDArray]:
    pairs = [(1, 0)] * only_first + [(0, 1)] * only_second + [(1, 1)] * both + [(0, 0)] * neither
    first, second = np.array(pairs, dtype=bool).T
    return first, second


def test_wilson_interval_of_published_examples() -> None:
    # Brown, Cai and DasGupta (2001): the interval of 10 of 20 is symmetric about a half.
    assert wilson_interval(0.5, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    # Newcombe (1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I, method 3.
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0 / 20, 20) == pytest.approx((0.0000, 0.1611), abs=5e-5)
    assert wilson_interval(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@pytest.mark.parametrize("n", [1, 7, 60, 872, 5426])
def test_a_wilson_interval_holds_its_share_where_all_or_no_rows_are_right(n: int) -> None:
    """Rounding would put 1 above the interval of 60 of 60, and a picture has no bar of negative length."""
    assert wilson_interval(1.0, n).high == 1
    assert wilson_interval(0.0, n).low == 0


def test_intervals_of_correlations_of_published_examples() -> None:
    # Fisher's z of r = 0.6 with 28 pairs has the deviation 1/5: 0.6931 +- 0.3920 (tables of the transformation).
    assert pearson_interval(0.6, 28) == pytest.approx((0.2924, 0.7951), abs=5e-5)
    # Bonett and Wright (2000): the variance of Spearman's is (1 + r^2 / 2) / (n - 3).
    half = 1.959964 * math.sqrt(1.18 / 25)
    expected = math.tanh(math.atanh(0.6) - half), math.tanh(math.atanh(0.6) + half)
    assert spearman_interval(0.6, 28) == pytest.approx(expected, abs=1e-6)
    for value, n in ((0.6, 3), (1.0, 50), (-1.0, 50), (math.nan, 50)):
        assert pearson_interval(value, n) is None
        assert spearman_interval(value, n) is None


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        # Fagerland, Lydersen and Laake (2013, doi:10.1186/1471-2288-13-91), exact conditional test of both examples.
        (1, 7, 0.0703),
        (6, 16, 0.0525),
        (12, 5, 0.1435),
    ],
)
def test_mcnemar_of_few_pairs_is_exact(b: int, c: int, p: float) -> None:
    test = mcnemar(*paired(b, c))
    assert (test.only_first, test.only_second, test.exact) == (b, c, True)
    assert test.p_value == pytest.approx(p, abs=5e-5)
    tail = sum(Fraction(math.comb(b + c, k), 2 ** (b + c)) for k in range(min(b, c) + 1))
    assert test.p_value == pytest.approx(float(2 * tail), rel=1e-12)


def test_mcnemar_of_many_pairs() -> None:
    """Agresti (1990, section 10.1): 150 changed one way, 86 the other; with the correction 63^2 / 236 = 16.818."""
    test = mcnemar(*paired(150, 86))
    assert not test.exact
    assert test.p_value == pytest.approx(4.115e-5, rel=1e-3)
    assert mcnemar(*paired(86, 150)).p_value == test.p_value


def test_mcnemar_without_a_difference() -> None:
    for pairs in (0, 5, 40):
        assert mcnemar(*paired(pairs, pairs)).p_value == 1.0
    with pytest.raises(ValueError, match="expected the same rows"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_the_two_ways_of_mcnemar_meet() -> None:
    exact, approximate = mcnemar(*paired(6, 18)), mcnemar(*paired(7, 18))
    assert exact.exact
    assert not approximate.exact
    assert approximate.p_value == pytest.approx(0.0433, abs=0.003)  # 2 P(X <= 7) of binomial(25, 1/2)


def test_calibration_beside_a_loop_over_the_rows() -> None:
    random = np.random.default_rng(0)
    logits = (3 * random.standard_normal((500, 3))).astype(np.float32)
    labels = random.integers(0, 3, 500)
    labels[::7] = NO_LABEL
    bins = calibration_bins(logits, labels)
    members: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        if label == NO_LABEL:
            continue
        probabilities = np.exp(row) / np.exp(row).sum()
        confidence = float(probabilities.max())
        (place,) = (m for m in range(15) if m / 15 < confidence <= (m + 1) / 15)
        members[place].append((confidence, bool(row.argmax() == label)))
    n = sum(map(len, members))
    expected = 0.0
    for inside, found in zip(members, bins, strict=True):
        assert found.rows == len(inside)
        if inside:
            confidence, right = np.mean([c for c, _ in inside]), np.mean([r for _, r in inside])
            assert (found.confidence, found.accuracy) == pytest.approx((confidence, right), rel=1e-12)
            expected += len(inside) / n * abs(right - confidence)
    assert expected_calibration_error(bins) == pytest.approx(expected, rel=1e-12)


def test_calibration_by_hand() -> None:
    """Four rows of confidence 0.75, three of them right: nothing to complain of. Certain and wrong: an error of 1."""
    sure = np.array([[0, math.log(3)]] * 4, np.float32)
    assert expected_calibration_error(calibration_bins(sure, np.array([1, 1, 1, 0]))) == pytest.approx(0, abs=1e-7)
    certain = np.array([[0, 200]], np.float32)
    bins = calibration_bins(certain, np.array([0]))
    assert bins[-1].rows == 1
    assert expected_calibration_error(bins) == 1
    assert math.isnan(expected_calibration_error(calibration_bins(certain, np.array([NO_LABEL]))))


def test_right_rows_and_agreement() -> None:
    logits = np.array([[1, 2], [3, 0], [0, 1]], np.float32)
    teacher = np.array([[1, 2], [0, 3], [0, 1]], np.float32)
    np.testing.assert_array_equal(
        TASKS["single_label_classification"].right(logits, np.array([1, 1, NO_LABEL])), [True, False]
    )
    several = np.array([[1, -1], [1, 1], [-1, -1]], np.float32)
    given = np.array([[1, 0], [1, 0], [np.nan, np.nan]], np.float32)
    np.testing.assert_array_equal(TASKS["multi_label_classification"].right(several, given), [True, False])
    assert TASKS["regression"].right(logits[:, :1], np.zeros(3, np.float32)) is None
    assert agreement(logits, teacher) == pytest.approx(2 / 3)


def test_spread_of_seeds() -> None:
    values = [0.8291, 0.8337, 0.8245]
    assert spread(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)), rel=1e-12)
    assert spread([0.5]) == (0.5, None)
