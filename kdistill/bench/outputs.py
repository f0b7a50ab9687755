"""`KeptOutputs`: what is kept of the outputs of a model for rows, to compare programs by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..models.model import Model

_WORDS = 64


class KeptOutputs(NamedTuple):
    """The columns of a model's outputs that are kept.

    All of them, whatever the head gives. Of a language model, whose logits of all rows would not fit into memory, they
    are those of a few words, spread over the vocabulary: the programs compute all.

    Attributes:
        columns: of the outputs.
        per_token: whether there is an output for each token, instead of one for each row.
        every: one column of so many is kept, the first included.
    """

    columns: int
    per_token: bool
    every: int = 1

    @classmethod
    def of(cls, model: Model) -> KeptOutputs:
        """Return what is kept of this model's."""
        from ..tasks.registry import task_for

        config = model.config
        if not task_for(config).makes_labels:
            return cls(config.num_outputs, model.per_token)
        return cls(config.vocab_size, model.per_token, max(1, config.vocab_size // _WORDS))

    @property
    def width(self) -> int:
        """The number of columns that are kept."""
        return len(range(0, self.columns, self.every))

    def __call__(self, outputs: Any) -> NDArray[np.float32]:
        """Return what is kept of outputs (..., columns), in memory of its own where that is less than all."""
        found: NDArray[np.float32] = outputs if self.every == 1 else outputs[..., :: self.every].copy()
        return found
