"""Perplexity is the number of equally likely words that have the loss."""

import math

import pytest

from kdistill.metrics.perplexity import perplexity


def test_equally_likely_words() -> None:
    assert perplexity(math.log(1000)) == pytest.approx(1000)
    assert perplexity(0.0) == 1.0


def test_a_loss_beyond_float_is_infinite() -> None:
    assert perplexity(1e4) == math.inf
