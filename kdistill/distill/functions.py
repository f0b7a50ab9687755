"""`TeacherFunction`: a function that teaches, such as a model of another library."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset
from ..data.ragged import Outputs
from ..models.configuration import Config
from ..models.head_names import ENCODER, SEQUENCE
from ..models.model import Model
from ..system.foreign import package_of
from ..system.progress import Progress
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.world import ALONE, World
from .cache import TeacherCache, cache_directory, warn_unusable
from .row_keys import KEY_BYTES

Function = Callable[[list[Any]], Any]
"""(rows) -> logits (rows, num_labels). A row is a text, or (text, second text) of a pair."""


class TeacherFunction:
    """A function that gives logits for texts; what it gives is kept by text.

    It is called with lists of texts, of pairs (text, second text), or, where rows are token ids alone, of dicts with
    `input_ids` and `token_type_ids`, at most `per_device_eval_batch_size` at a time, each different row once in a run:
    by one of the processes that train together. It returns logits, (n, num_labels): an array, a tensor or lists of
    numbers. Of a regression they are its numbers, of a student that embeds texts embeddings of its width.

    Answers stay in memory for the run. They are stored in the teacher cache only where name and version are given,
    which then stand for the weights that nobody can see in a function: give another version when the answers change.

    Args:
        function: the function.
        name: what a model card calls it, and with `version` the teacher cache.
        version: of its answers; None: they are not stored.

    Attributes:
        name: see above.
        metrics: on the evaluation rows, see `sources.Source`.
    """

    def __init__(self, function: Function, name: str | None = None, version: str | None = None) -> None:
        if not callable(function):
            raise TypeError(f"function is of type {type(function).__name__}; expected a function of a list of rows")
        if version is not None and name is None:
            raise ValueError(f"version is {version!r} and name is None; expected both, for the teacher cache has both")
        self._function, self._version = function, version
        self.name = getattr(function, "__name__", "a function") if name is None else name
        self.metrics: dict[str, Any] = {}
        self._width = 0
        self._known: dict[bytes, NDArray[np.float32]] = {}

    def needs_texts(self, student: Config, reader: PreTrainedTokenizerFast | None) -> bool:
        """Return that rows keep their texts."""
        return True

    def check_student(self, student: Model, reader: PreTrainedTokenizerFast | None) -> None:
        """Raise ValueError for a student with answers for each token."""
        if student.config.head not in (SEQUENCE, ENCODER):
            raise ValueError(
                f"teacher_model is the function {self.name}, and model is one for {student.config.head}; expected one "
                "that answers for whole texts, as a function does"
            )
        self._width = student.config.num_outputs

    def outputs(self, rows: Dataset, args: DistillationTrainingArguments, *, what: str) -> Outputs:
        """Return the function's logits for all rows, float32 (rows, num_labels), asking for those that are not known.

        Raises:
            FloatingPointError: logits are not finite; names the first row.
            TypeError: what the function returns are no numbers.
            ValueError: it returns another number of rows or of logits.
        """
        keys = self._learn(rows, args, ALONE, what)
        return np.stack([self._known[key] for key in keys])

    def share(self, rows: Dataset, args: DistillationTrainingArguments, world: World, *, what: str) -> None:
        """Ask for this process's share of the rows and take the answers of the others, which call this together.

        So each different row is asked once by all of them, with the same others in a call as by one process.

        Args:
            rows: the same in all processes.
            args: see `outputs`.
            world: the processes.
            what: see `outputs`.

        Raises:
            FloatingPointError, TypeError, ValueError: see `outputs`.
        """
        self._learn(rows, args, world, what)

    def _learn(self, rows: Dataset, args: DistillationTrainingArguments, world: World, what: str) -> list[bytes]:
        """Know the answers for all rows, and return the key of each row."""
        inputs = _inputs_of(rows)
        keys = [_key_of(row) for row in inputs]
        missing = {key: place for place, key in enumerate(keys) if key not in self._known}
        if not missing and world.size == 1:
            return keys
        cache = self._open(args) if missing else None
        if cache is not None:
            self._recall(cache, [*missing])
        place_of = {key: place for place, key in enumerate(keys)}
        listed = sorted(place_of, key=place_of.__getitem__)  # the same in all processes
        known = np.array(world.gather(np.array([key in self._known for key in listed])))  # bool (processes, keys)
        asked = np.flatnonzero(~known.any(axis=0))
        giver = known.argmax(axis=0)  # the first that has a row gives it
        size = args.per_device_eval_batch_size
        giver[asked] = np.arange(len(asked)) // size % world.size
        mine = asked[giver[asked] == world.rank]
        with Progress(f"{self.name}, {what}", unit="rows", quiet=args.disable_tqdm) as progress:
            for first in range(0, len(mine), size):
                progress(first, len(mine))
                block = [listed[number] for number in mine[first : first + size]]
                places = [place_of[key] for key in block]
                self._known |= zip(block, self._asked([inputs[place] for place in places], places), strict=True)
                if cache is not None:
                    cache = self._store(cache, block)
            progress(len(mine), len(mine))
        if world.size > 1:
            lacking = [listed[number] for number in np.flatnonzero(~known[world.rank] & (giver != world.rank))]
            self._exchange(listed, np.flatnonzero(~known.all(axis=0) & (giver == world.rank)), world)
            if cache is not None and lacking:
                found, _ = cache.lookup(_as_array(lacking))
                if not found.all():  # it is none that they have in common
                    self._store(cache, [key for key, there in zip(lacking, found, strict=True) if not there])
        return keys

    def _recall(self, cache: TeacherCache, keys: list[bytes]) -> None:
        """Take what the cache has for these keys."""
        found, logits = cache.lookup(_as_array(keys))
        self._known |= {keys[place]: logits[place] for place in np.flatnonzero(found)}

    def _exchange(self, listed: list[bytes], mine: NDArray[np.int64], world: World) -> None:
        """Give the others the answers of the keys with these numbers, and take theirs."""
        values = np.array([self._known[listed[number]] for number in mine], np.float32)
        for numbers, theirs in world.gather((mine, values)):
            self._known |= {listed[number]: of for number, of in zip(numbers, theirs, strict=True)}

    def _store(self, cache: TeacherCache, keys: list[bytes]) -> TeacherCache | None:
        """Append what is known of these keys, and return the cache; None where it cannot be written."""
        try:
            cache.append(_as_array(keys), np.array([self._known[key] for key in keys], np.float32))
        except OSError as error:
            warn_unusable(error)
            return None
        return cache

    def fingerprint(self) -> str:
        """Return a hash of name and version, which is all that is known of a function."""
        return hashlib.sha256(f"function {self.name}\n{self._version}".encode()).hexdigest()

    def _asked(self, rows: list[Any], places: Sequence[int]) -> NDArray[np.float32]:
        """Call the function, and return its logits once they are what they have to be."""
        returned = self._function(rows)
        if package_of(returned) == "torch":  # NumPy takes no tensor that has a gradient, is elsewhere or is bfloat16
            returned = returned.detach().cpu().double()
        try:
            values = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"{self.name} returned {type(returned).__name__}, which is no array of numbers ({error}); expected "
                f"logits ({len(rows)}, {self._width})"
            ) from error
        if values.shape != (len(rows), self._width):
            raise ValueError(
                f"{self.name} returned logits of shape {values.shape} for {len(rows)} rows; expected "
                f"({len(rows)}, {self._width}): a row for each, in their order, with a logit for each label"
            )
        logits = values.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(bad):
            raise FloatingPointError(
                f"the logits of {self.name} are not finite for {len(bad)} of {len(rows)} rows, the first is row "
                f"{places[bad[0]]}: {rows[bad[0]]!r:.80}"
            )
        return logits

    def _open(self, args: DistillationTrainingArguments) -> TeacherCache | None:
        """Return the function's file in the teacher cache; None where it has none."""
        if self._version is None or not args.teacher_cache:
            return None
        try:
            return TeacherCache(Path(cache_directory()), f"{self.fingerprint()} {self._width}", self._width)
        except OSError as error:
            warn_unusable(error)
            return None


def _inputs_of(rows: Dataset) -> list[Any]:
    """Return the rows as a function gets them: their texts, or their token ids where they hold none."""
    if rows.texts is not None:
        return rows.texts.inputs()
    bounds = list(zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True))
    return [
        {"input_ids": rows.ids[first:end].tolist(), "token_type_ids": rows.types[first:end].tolist()}
        for first, end in bounds
    ]


def _key_of(row: str | tuple[str, str] | Mapping[str, list[int]]) -> bytes:
    """Return the BLAKE2b of a row, the same for equal rows alone."""
    return hashlib.blake2b(repr(row).encode(), digest_size=KEY_BYTES).digest()


def _as_array(keys: list[bytes]) -> NDArray[np.void]:
    return np.frombuffer(b"".join(keys), dtype=f"V{KEY_BYTES}")
