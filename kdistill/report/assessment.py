"""Assess how far a measured accuracy can be trusted: intervals, a test of two models, agreement and calibration."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..data.labels import labelled_rows
from ..metrics.classification import softmax
from ..metrics.mcnemar import McNemar, mcnemar
from ..metrics.prediction import Labels, Logits

__all__ = [
    "CALIBRATION_BINS",
    "INTERVALS",
    "Z_95",
    "CalibrationBin",
    "Interval",
    "McNemar",
    "Spread",
    "agreement",
    "calibration_bins",
    "expected_calibration_error",
    "mcnemar",
    "pearson_interval",
    "spearman_interval",
    "spread",
    "wilson_interval",
]

Z_95 = statistics.NormalDist().inv_cdf(0.975)
CALIBRATION_BINS = 15


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class CalibrationBin(NamedTuple):
    """Rows whose confidence lies in (low, high]: how many, their mean confidence and their accuracy (0 if none)."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


class Spread(NamedTuple):
    """Mean of several runs and the sample standard deviation, divisor n - 1 (None for a single run)."""

    mean: float
    deviation: float | None


def wilson_interval(share: float, n: int) -> Interval:
    """Return the 95 % confidence interval of a share of n rows (Wilson, 1927, doi:10.1080/01621459.1927.10502953)."""
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))
    # Of 0 and 1 the share itself is a bound, which rounding can miss.
    return Interval(max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def pearson_interval(correlation: float, n: int) -> Interval | None:
    """Return the 95 % confidence interval of Pearson's correlation of n pairs (Fisher, 1921, Metron 1, 3-32).

    None where it does not exist: below four pairs, and for a correlation of 1, -1 or NaN.
    """
    return _correlation_interval(correlation, n, 1.0)


def spearman_interval(correlation: float, n: int) -> Interval | None:
    """Return that of Spearman's correlation (Bonett and Wright, 2000, doi:10.1007/BF02294183); None likewise."""
    return _correlation_interval(correlation, n, 1 + correlation**2 / 2)


def _correlation_interval(correlation: float, n: int, variance: float) -> Interval | None:
    """Return tanh(atanh(correlation) +- z sqrt(variance / (n - 3)))."""
    if n < 4 or not abs(correlation) < 1:
        return None
    centre, half = math.atanh(correlation), Z_95 * math.sqrt(variance / (n - 3))
    return Interval(math.tanh(centre - half), math.tanh(centre + half))


# By the metric whose interval each returns, of its value and the number of rows.
INTERVALS: Mapping[str, Callable[[float, int], Interval | None]] = {
    "accuracy": wilson_interval,
    "pearson": pearson_interval,
    "spearmanr": spearman_interval,
}


def agreement(logits: Logits, teacher: Logits) -> float:
    """Return the share of rows that get the same label from student and teacher; logits (n, num_labels), all rows."""
    return float((logits.argmax(axis=1) == teacher.argmax(axis=1)).mean())


def calibration_bins(logits: Logits, labels: Labels, bins: int = CALIBRATION_BINS) -> list[CalibrationBin]:
    """Sort the labelled rows into bins of equal width by their confidence, the largest of their probabilities.

    This is the reliability diagram of Guo et al. (2017, arXiv:1706.04599); bin m of M holds ((m - 1) / M, m / M].
    """
    labelled = labelled_rows(labels)
    probabilities = softmax(logits[labelled])
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels[labelled]
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = np.bincount(place, minlength=bins)
    means = [np.bincount(place, of, minlength=bins) / np.maximum(rows, 1) for of in (confidence, right)]
    return [
        CalibrationBin(m / bins, (m + 1) / bins, int(rows[m]), float(means[0][m]), float(means[1][m]))
        for m in range(bins)
    ]


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Return the ECE: the mean of |accuracy - confidence| over the bins, weighted by rows (Guo et al., equation 3).

    With the bins of `calibration_bins`; the measure is that of Naeini et al. (2015, doi:10.1609/aaai.v29i1.9602).
    NaN when there are no rows.
    """
    rows = sum(one.rows for one in bins)
    return sum(one.rows * abs(one.accuracy - one.confidence) for one in bins) / rows if rows else math.nan


def spread(values: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation of a figure over runs that differ in their seed alone."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
