"""Those who teach: the protocol that each of them follows, and several of them with weights."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.blocks import BLOCK_UNITS, blocks_of_rows
from ..data.dataset import Dataset
from ..data.ragged import Outputs
from ..losses.mixing import Mixing, mixed_answers
from ..metrics.prediction import Labels
from ..models.configuration import Config
from ..models.head_names import MASKED
from ..models.model import Model
from ..system.names import listing
from ..tasks.base import Task
from ..tasks.registry import task_for
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.world import World
from .functions import TeacherFunction
from .teacher_type import AUTO
from .teachers import Teacher, reader_for_both

BY_CONFIDENCE = "confidence"
"""The value of `teacher_weighting` with which a teacher counts more in rows of which it is sure."""


class Source(Protocol):
    """Whatever teaches: a model (`teachers.Teacher`), a function, logits that the data holds.

    The methods are called in this order; `needs_texts` before rows are read.

    Attributes:
        name: what a model card calls it.
        metrics: on the evaluation rows, as an evaluation of the student names them; `Distillation.prepare` puts them
            here.
    """

    name: str
    metrics: dict[str, Any]

    def needs_texts(self, student: Config, reader: PreTrainedTokenizerFast | None) -> bool:
        """Return whether rows must keep their texts (`Dataset.texts`) for this teacher.

        Args:
            student: the student's configuration.
            reader: the tokenizer that reads the rows; None where they are tokenised already.
        """

    def check_student(self, student: Model, reader: PreTrainedTokenizerFast | None) -> None:
        """Raise ValueError for a student that cannot learn from this teacher."""

    def outputs(self, rows: Dataset, args: DistillationTrainingArguments, *, what: str) -> Outputs:
        """Return the teacher's outputs for all rows, float32 (rows, num_outputs), or of each token a `Ragged`.

        They are logits, or the numbers of a regression or of embeddings. A row of NaN has no answer of this teacher.

        Args:
            rows: the rows, in the order of the result.
            args: the training arguments.
            what: what a progress bar calls the rows.

        Raises:
            FloatingPointError: outputs are infinite, or NaN where the teacher has to have an answer.
        """

    def fingerprint(self) -> str:
        """Return a hash of all that the outputs depend on beside the rows."""


class Teachers:
    """Those whom a student learns from, and what each of them counts.

    Attributes:
        sources: the teachers.
        weights: of each, float64 (teachers,), adding up to 1.
        models: those of them that are models.
        functions: those of them that are functions.
        metrics: of all together, see `logits`; of one teacher its own.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None = None) -> None:
        if not sources:
            raise ValueError("teacher_model is an empty list; expected a teacher at least")
        self.sources = tuple(sources)
        self.weights = weights_of_teachers(weights, len(sources))
        self.models = [source for source in sources if isinstance(source, Teacher)]
        self.functions = [source for source in sources if isinstance(source, TeacherFunction)]
        self.metrics: dict[str, Any] = {}
        self._kept: tuple[Dataset, tuple[Outputs, ...]] | None = None

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def name(self) -> str:
        """What a model card calls them."""
        if len(self) == 1:
            return self.sources[0].name
        return " + ".join(f"{of.name} ({weight:.3g})" for of, weight in zip(self.sources, self.weights, strict=True))

    def reader(self, tokenizer: PreTrainedTokenizerFast | None, student: Config) -> PreTrainedTokenizerFast | None:
        """Return the tokenizer that reads rows for the student and all teachers that can do with it.

        Args:
            tokenizer: the student's.
            student: its configuration.
        """
        for teacher in self.models:
            tokenizer = reader_for_both(tokenizer, student, teacher.model.config, teacher.tokenizer)
        return tokenizer

    @property
    def num_parameters(self) -> int | None:
        """The parameters of all together; None where one of them is no model."""
        if len(self.models) < len(self):
            return None
        return sum(teacher.model.num_parameters() for teacher in self.models)

    @property
    def answers_for_hidden_words(self) -> bool:
        """Whether they are language models."""
        return any(teacher.model.config.head == MASKED for teacher in self.models)

    def needs_texts(self, student: Config, reader: PreTrainedTokenizerFast | None) -> bool:
        """Return whether rows must keep their texts for any of them."""
        needs = [source.needs_texts(student, reader) for source in self.sources]  # each remembers it
        return any(needs)

    def check_student(self, student: Model, reader: PreTrainedTokenizerFast | None) -> None:
        """Raise ValueError for a student that cannot learn from them."""
        for source in self.sources:
            source.check_student(student, reader)
        if student.config.head == MASKED and (len(self) > 1 or not self.models):
            raise ValueError(
                f"teacher_model is {listing([of.name for of in self.sources])}, and a language model learns from one "
                "language model, which answers in each step; expected one"
            )
        width = student.config.num_outputs
        wider = [of.name for of in self.models if student.config.embeds and of.model.config.num_outputs > width]
        if wider and len(self) > 1:
            raise ValueError(
                f"teacher_model is {listing([of.name for of in self.sources])}, and the embeddings of {listing(wider)} "
                f"have more than the student's {width} numbers: each would be learned along directions of its own, so "
                "that a mean of several means nothing; expected one teacher, or a student as wide as all of them"
            )

    def check_arguments(self, args: DistillationTrainingArguments, task: Task) -> None:
        """Warn of arguments that have no effect on these teachers: a narrow type without a model, weights of one.

        Raises ValueError for weights by confidence where answers have no probabilities.
        """
        if not self.models and args.teacher_dtype not in (AUTO, "float32"):
            warnings.warn(
                f"teacher_dtype is {args.teacher_dtype!r}, which has no effect here: no teacher is a model",
                stacklevel=6,
            )
        if args.teacher_weighting != BY_CONFIDENCE:
            return
        if len(self) == 1:
            warnings.warn(
                f"teacher_weighting is {BY_CONFIDENCE!r}, which has no effect here: there is one teacher", stacklevel=6
            )
        elif task.mixing is None or task.mixing.log_confidence is None:
            raise ValueError(
                f"teacher_weighting is {BY_CONFIDENCE!r}, and the answers of models for {task.name} are no "
                "probabilities; expected 'fixed'"
            )

    def outputs(
        self,
        rows: Dataset,
        args: DistillationTrainingArguments,
        *,
        what: str,
        keep: bool = False,
    ) -> tuple[Outputs, ...]:
        """Return the outputs of each teacher, see `Source.outputs`.

        With `keep` they are remembered, in place of those kept before, so that a report on the same rows need not ask.
        """
        kept = self._kept
        if not keep and kept is not None and kept[0].ids is rows.ids:
            return kept[1]
        found = tuple(source.outputs(rows, args, what=what) for source in self.sources)
        if keep:
            self._kept = rows, found
        return found

    def alone(self) -> Iterator[Teachers]:
        """Yield each of them without the others, with its outputs that are kept."""
        for place, source in enumerate(self.sources):
            one = Teachers([source])
            if self._kept is not None:
                rows, outputs = self._kept
                one._kept = rows, (outputs[place],)
            yield one

    def share(self, rows: Dataset, args: DistillationTrainingArguments, world: World, *, what: str) -> None:
        """Let each of several processes ask for its share of the rows, so that none asks for all.

        They give each other what functions have answered; the answers of models go into the teacher cache.
        """
        if world.size == 1 or rows.hidden:
            return
        for function in self.functions:
            function.share(rows, args, world, what=what)
        if args.teacher_cache:
            self._fill_cache(rows, args, world, what)

    def _fill_cache(self, rows: Dataset, args: DistillationTrainingArguments, world: World, what: str) -> None:
        """Put the answers of models for this process's share of the rows into the teacher cache.

        Where processes have no directory for the cache in common, they give each other theirs. Of many rows a process
        asks for a part of its share at a time, for rows in files are copied into memory.
        """
        for teacher in self.models:
            teacher.exchange(rows, args, world)  # those of an earlier run, which a host may lack
        parts = list(blocks_of_rows(rows.starts, world.size * BLOCK_UNITS))
        for number, part in enumerate(parts, 1):
            mine = np.arange(part.start + world.rank, part.stop, world.size)
            share = rows.take(mine) if len(mine) else None
            shown = what if len(parts) == 1 else f"{what}, part {number} of {len(parts)}"
            for teacher in self.models:
                if share is not None:
                    teacher.outputs(share, args, what=shown)
        for teacher in self.models:
            teacher.exchange(rows, args, world)

    def mixed(
        self, outputs: Sequence[Outputs], task: Task, args: DistillationTrainingArguments, labels: Labels | None
    ) -> Outputs:
        """Return the outputs of the teachers for some rows as those of one, at the temperature of the loss.

        Args:
            outputs: of each teacher, for the same rows.
            task: the student's.
            args: the temperature, and whether teachers count by their confidence.
            labels: of the rows.
        """
        if len(outputs) == 1:
            return outputs[0]
        assert task.mixing is not None
        return mixed_answers(
            task.mixing,
            outputs,
            self.weights,
            args.temperature,
            labels=labels,
            by_confidence=args.teacher_weighting == BY_CONFIDENCE,
        )

    def together(self, outputs: Sequence[Outputs], mixing: Mixing | None) -> Outputs:
        """Return the outputs of the teachers as those of one that is to be measured.

        That has the mean of their probabilities at temperature 1. The confidence in a label has no part in it, for
        then the labels would be known to what is measured against them.
        """
        if len(outputs) == 1:
            return outputs[0]
        assert mixing is not None
        return mixed_answers(mixing, outputs, self.weights, 1.0)

    def logits(self, rows: Dataset, student: Config, args: DistillationTrainingArguments) -> Outputs:
        """Return what is measured of them on some rows, see `together`."""
        return self.together(
            self.outputs(rows, args, what="rows of the report"), self.task(student, rows.labels).mixing
        )

    def task(self, student: Config, labels: Labels) -> Task:
        """Return the task of all together on these labels; of one model its own, with a threshold of its own."""
        if len(self) == 1:
            return task_of(self.sources[0], student, labels)
        return task_for(student.with_trained(student.trained_with.at_threshold(None)), labels)

    def has_threshold(self) -> bool:
        """Return whether the config of the only one states a threshold."""
        return len(self) == 1 and bool(self.models) and self.models[0].model.config.trained_with.threshold is not None

    def task_suited_to(self, student: Config, logits: Outputs, rows: Dataset) -> Task:
        """Return `task` at its threshold, or without one at the best for these rows, their `logits` for them.

        So they are compared with a student whose threshold was chosen on the same rows.
        """
        task = self.task(student, rows.labels)
        return task if self.has_threshold() else task.suited_to(logits, rows.targets)

    def fingerprint(self) -> str:
        """Return a hash of what they answer, and of what each counts where there are several."""
        if len(self) == 1:
            return self.sources[0].fingerprint()
        parts = [f"{of.fingerprint()} {weight!r}" for of, weight in zip(self.sources, self.weights, strict=True)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def keep_types(self, settled: Mapping[str, Any], args: DistillationTrainingArguments) -> None:
        """Let models answer in the compute types that were chosen before, see `Teacher.keep_type`."""
        self._kept = None
        each = settled.get("teachers", [settled])
        for place, teacher in enumerate(self.models):
            teacher.keep_type(each[place] if place < len(each) else {}, args)

    def settled_types(self) -> dict[str, Any]:
        """Return the compute types of models and the checks that chose them, ready for JSON."""
        each = [{} if of.choice is None else of.choice.settled() for of in self.models]
        return each[0] if len(each) == 1 else {"teachers": each} if any(each) else {}

    def release(self) -> None:
        """Give back the memory of models that is needed for answers alone."""
        for teacher in self.models:
            teacher.release()


def task_of(source: Source, student: Config, labels: Labels) -> Task:
    """Return a teacher's task on these labels: a model's own, else the student's without its threshold."""
    if isinstance(source, Teacher):
        return source.task(student, labels)
    return task_for(student.with_trained(replace(student.trained_with, threshold=None)), labels)


def weights_of_teachers(weights: Sequence[float] | None, count: int) -> NDArray[np.float64]:
    """Return weights that add up to 1. Raises ValueError for another number of them, or any not above 0."""
    if weights is None:
        return np.full(count, 1 / count)
    found = np.asarray(weights, np.float64)
    if found.shape != (count,):
        raise ValueError(
            f"teacher_weights is {_shown(weights)} and the number of teachers {count}; expected a weight for each, in "
            "their order"
        )
    if not (np.isfinite(found).all() and (found > 0).all()):
        raise ValueError(
            f"teacher_weights is {_shown(weights)}; expected numbers above 0: leave out a teacher that is to have no "
            "part"
        )
    return np.asarray(found / math.fsum(found))


def _shown(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:g}" if isinstance(weight, float | int) else repr(weight) for weight in weights)
