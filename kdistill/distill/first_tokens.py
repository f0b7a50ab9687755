"""`FirstTokens`: the states of [CLS] inside a teacher that reads texts with a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..models.model import Tap
from ..train.objective import Inside
from ..train.plan import RowIndices

AskInside = Callable[[Batch, Sequence[Tap]], Inside]
"""(batch, taps) -> what lies there inside the teacher that reads this batch."""


class FirstTokens:
    """Asks such a teacher for hidden states, and gives those of first tokens the place of the student's.

    Its other tokens are not the student's, so their states are 0 here: losses on [CLS] alone read what this returns.

    Args:
        ask: asks the teacher, for taps of hidden states.
        rows: makes the training rows as the teacher reads them, when they are first needed.
    """

    def __init__(self, ask: AskInside, rows: Callable[[], Dataset]) -> None:
        self._ask, self._make = ask, rows

    @cached_property
    def _rows(self) -> Dataset:
        return self._make()

    def __call__(self, batch: Batch, taps: Sequence[Tap], rows: RowIndices) -> Inside:
        """Return the states for the tokens of the student's batch, float32 (N, width), of `rows` of the data set."""
        theirs, _ = self._rows.batch(rows)
        found = {}
        for tap, values in self._ask(theirs, taps).items():
            found[tap] = np.zeros((len(batch.ids), values.shape[1]), np.float32)
            found[tap][batch.starts[:-1]] = values[theirs.starts[:-1]]
        return found
