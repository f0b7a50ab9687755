"""`GradientSum`: the gradient of a step, of micro-batches that one process or several have computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.model import Model
from .auxiliary import Auxiliary
from .world import Flat, World

_NO_WORDS = np.zeros(0, np.intp)


class GradientSum:
    """The sum of the gradients of a step's micro-batches, added in their order, whoever has computed them.

    Each micro-batch has a gradient of its own, summed from 0, and these are added one behind the other, each number
    once. So the bits depend on the micro-batches alone: n processes with a of them each give those of one process with
    n * a. A sum over processes in an order of MPI's choice, such as Allreduce's, would not.

    Of the numbers that every micro-batch has a gradient of, each process adds up a part and hands it to the others. Of
    the word embeddings only the rows of words that occur travel, and each process adds them up itself.

    Args:
        model: the model to train.
        auxiliary: what is trained beside it.
        world: the processes.
    """

    def __init__(self, model: Model, auxiliary: Auxiliary | None, world: World) -> None:
        self._model, self._auxiliary, self._world = model, auxiliary, world
        self._words, self._is_touched = np.zeros((0, 0), np.float32), np.zeros(0, np.bool_)
        self._touched: list[NDArray[np.intp]] = []  # words of this step, each once, in the order of their first use
        self._sums: list[Flat] = []
        self._count = 0

    def _whole(self) -> list[Flat]:
        """Return the arrays that travel whole: each micro-batch has a gradient of all their numbers."""
        _, dense = self._model.gradients_to_write()
        return [dense] if self._auxiliary is None else [dense, self._auxiliary.flat_gradients]

    def begin(self) -> None:
        """Begin a step. The model's gradients are 0."""
        if not self._sums:  # memory that nobody needs who has one micro-batch a step
            words, _ = self._model.gradients_to_write()
            self._words = np.zeros(words.shape, np.float32)  # its pages are taken when they are first written
            self._is_touched = np.zeros(len(words), np.bool_)
            self._sums = [np.zeros(_size(self._world.slice_of(whole.size)), np.float32) for whole in self._whole()]
        for ids in self._touched:
            self._words[ids] = 0
            self._is_touched[ids] = False
        self._touched, self._count = [], 0

    def add(self, mine: Any, givers: int) -> list[Any]:
        """Add the gradients of a micro-batch on each of the first `givers` ranks, and set them to 0.

        All processes call it together.

        Args:
            mine: what the others are to know of this process's micro-batch; None where it has none.
            givers: how many processes have one.

        Returns:
            What each of them has given, in the order of the micro-batches.
        """
        words, _ = self._model.gradients_to_write()
        # Integers narrower than intp NumPy widens as it indexes, and takes any where it gets no memory for that.
        ids = self._model.core.touched_rows().astype(np.intp) if len(words) else _NO_WORDS
        given = self._world.gather((mine, ids, words[ids]))[:givers]
        for total, whole in zip(self._sums, self._whole(), strict=True):
            for place, part in enumerate(self._world.parts_of(whole, givers)):
                if place + self._count:
                    total += part
                else:
                    total[:] = part
        self._count += givers
        for _, ids, rows in given:
            new = ids[~self._is_touched[ids]]
            self._touched.append(new)  # first: what an error leaves behind, the next step clears
            self._is_touched[new] = True
            self._words[ids] += rows
        self._clear()
        return [of for of, _, _ in given]

    def _clear(self) -> None:
        self._model.zero_grad()
        if self._auxiliary is not None:
            self._auxiliary.zero_grad()

    def hand_over(self) -> None:
        """Let the gradients of the model, and of what is trained beside it, be the sum. All processes call it."""
        words, _ = self._model.gradients_to_write()
        for total, whole in zip(self._sums, self._whole(), strict=True):
            self._world.joined(total, whole)
        if not len(words):
            self._model.core.touch_rows(None)
        for ids in self._touched:
            self._model.core.touch_rows(ids.astype(np.int32))
            words[ids] = self._words[ids]


def _size(of: slice) -> int:
    return int(of.stop - of.start)
