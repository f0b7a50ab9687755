"""`Subject`: what the checks look at, a run that has not begun, of which parts may be missing."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.labels import labelled_rows
from ..data.ragged import Outputs, outputs_of, starts_of
from ..data.sentences import Sentences
from ..data.spans import Spans
from ..distill.cache import cached_rows
from ..distill.objective import Distillation
from ..distill.sources import Source, Teachers
from ..distill.teachers import Teacher
from ..metrics.prediction import Labels
from ..models.configuration import Config
from ..models.heads import MaskedLanguageModel
from ..models.model import Model
from ..tasks.registry import task_for
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.evaluate import outputs_of_batch
from ..train.loop import training_step
from ..train.matches import Stage
from ..train.objective import BatchLoss, LearnedLoss, RunLength
from ..train.plan import EpochPlan, RowIndices
from ..train.recipe import Recipe
from ..train.stages import predictions_count, stage_ends, stages_of

# Rows that go through the teacher at most, or so many for each label; and seconds after which no more are taken.
SAMPLED_ROWS, _ROWS_FOR_EACH_LABEL, _TEACHER_SECONDS = 512, 10, 3.0
_BLOCK_ROWS = 32
_STEP_SECONDS = 1.0
_STUDENT_SECONDS = 0.3


class Sample(NamedTuple):
    """The answers of a model for some rows, and how long they took.

    Attributes:
        rows: places of the rows in their data set.
        logits: float32 (rows, num_labels), or a `Ragged` of float32 (tokens, num_labels).
        seconds_per_token: measured on all rows but the first ones.
    """

    rows: RowIndices
    logits: Outputs
    seconds_per_token: float


class Steps(NamedTuple):
    """Steps of a stage of training that were measured on a copy of the student.

    Attributes:
        stage: the name of the stage; "" where it has none.
        steps: how many the run has of it.
        done: how many were measured.
        seconds_per_step: of these.
    """

    stage: str
    steps: int
    done: int
    seconds_per_step: float


@dataclass(frozen=True)
class Subject:
    """A run that has not begun. A part that could not be made is None.

    Attributes:
        args: the training arguments.
        names: what messages call the rows, by "train" and "eval".
        config: the student's, or what is known of it: the names of the labels.
        teachers: the teachers.
        train, eval: the encoded rows.
        recipe: all that makes the run; None when a part of it is missing.
        plan: the rows of each step, of `rows_to_learn_from`.
        rows_to_learn_from: the training rows with their augmented copies.
        tokenizer: the one that encoded the rows; None where words stand for tokens, see `plain.words_of`.
    """

    args: DistillationTrainingArguments
    names: Mapping[str, str]
    config: Config
    teachers: Teachers | None = None
    train: Dataset | None = None
    eval: Dataset | None = None
    recipe: Recipe | None = None
    plan: EpochPlan | None = None
    rows_to_learn_from: Dataset | None = None
    tokenizer: PreTrainedTokenizerFast | None = None

    def sets(self) -> dict[str, Dataset]:
        """Return the rows that there are, by what messages call them."""
        return {self.names[which]: rows for which, rows in (("train", self.train), ("eval", self.eval)) if rows}

    def special_tokens(self, rows: Dataset) -> int:
        """Return how many tokens a row without text has."""
        if rows.reading is None:
            return 0
        if self.tokenizer is None:
            return 1
        pair = rows.reading.columns.text_pair is not None and not isinstance(rows.windows, Sentences)
        return self.tokenizer.num_special_tokens_to_add(pair=pair)

    @property
    def judged_on(self) -> tuple[str, Dataset] | None:
        """The name and the rows that the teacher is judged on: those to evaluate on, if they have labels."""
        if self.eval is not None and (self.eval.labelled or self.train is None):
            return self.names["eval"], self.eval
        return None if self._train_to_judge is None else (self.names["train"], self._train_to_judge)

    @cached_property
    def _train_to_judge(self) -> Dataset | None:
        """The training rows; of a language model with the words hidden that the first epoch hides."""
        rows = self.train
        return rows if rows is None or rows.masking is None else rows.masked(np.arange(len(rows)), 0)

    @property
    def teacher_answers_in_steps(self) -> bool:
        """Whether the teacher answers in each step, and nothing of it is cached."""
        return self.train is not None and self.train.masking is not None

    @property
    def sets_to_ask(self) -> dict[str, Dataset]:
        """The rows that each model has to answer before the first step, by "train" and "eval".

        A language model answers in each step instead; and predictions that count in no stage are not learned.
        """
        if self.teacher_answers_in_steps:
            return {}
        learned = predictions_count(self.args.matches)
        sets = {"train": (self.rows_to_learn_from or self.train) if learned else None, "eval": self.eval}
        return {which: rows for which, rows in sets.items() if rows is not None}

    @cached_property
    def rows_to_ask(self) -> list[dict[str, int]]:
        """How many of `sets_to_ask` the cache of each model lacks."""
        assert self.teachers is not None
        if self.teacher_answers_in_steps:
            return []
        return [
            {which: self._lacking(teacher, rows) for which, rows in self.sets_to_ask.items()}
            for teacher in self.teachers.models
        ]

    def _lacking(self, teacher: Teacher, rows: Dataset) -> int:
        if not self.args.teacher_cache:
            return len(rows)
        return int((~cached_rows(teacher.model, teacher.rows_as_read(rows, self.args))).sum())

    @cached_property
    def answers(self) -> list[Sample]:
        """The answers of each teacher for sampled rows of `judged_on`, those with a label where there are any."""
        assert self.teachers is not None
        return [self._sample(source, _ROWS_FOR_EACH_LABEL, _TEACHER_SECONDS) for source in self.teachers.sources]

    def more_answers(self, source: Source) -> Sample:
        """Return a teacher's answers for twice as many rows, in up to five times the time."""
        return self._sample(source, 2 * _ROWS_FOR_EACH_LABEL, 5 * _TEACHER_SECONDS)

    def _sample(self, source: Source, rows_for_each_label: int, seconds: float) -> Sample:
        assert self.judged_on is not None
        _, rows = self.judged_on
        labelled = labelled_rows(rows.targets)
        of = np.flatnonzero(labelled) if labelled.any() else np.arange(len(labelled))
        most = max(SAMPLED_ROWS, rows_for_each_label * self.config.num_labels)
        chosen = rows_of_examples(rows, np.random.default_rng(0).permutation(of)[:most])
        if isinstance(source, Teacher) and not source.reads_itself:
            return sample(source.model, rows, chosen, seconds=seconds)
        some, args, begun = rows.take(chosen), copy.copy(self.args), time.monotonic()
        args.teacher_cache = False
        outputs = source.outputs(some, args, what="sampled rows")
        return Sample(chosen, outputs, (time.monotonic() - begun) / len(some.ids))

    @cached_property
    def steps(self) -> list[Steps]:
        """Steps of each stage with a copy of the student, which leave the student as it is.

        The first one of a stage has the longest rows. The teacher's logits count as zero in them, save those of a
        language model, and the learning rate is 0.
        """
        recipe, plan, dataset = self.recipe, self.plan, self.rows_to_learn_from
        assert recipe is not None
        assert plan is not None
        assert dataset is not None
        assert isinstance(recipe.objective, Distillation)
        model, objective = copy.deepcopy(recipe.model), Distillation(recipe.objective.teachers)
        objective.rows = dataset
        if not self.teacher_answers_in_steps:
            answers = len(dataset.ids) if model.per_token else len(dataset)
            zeros = np.zeros((answers, model.config.num_outputs), np.float32)
            objective.answers = (outputs_of(zeros, dataset.starts, model.per_token),) * len(objective.teachers)
        copied = recipe.replace(model=model, objective=objective)
        copied.ready_model()
        inner, length = copied.inner_loss(plan), RunLength(recipe.max_steps(plan), plan.steps_per_epoch)
        optimizer = copied.new_optimizer(inner)
        optimizer.lr = 0.0
        args = self.args  # as they are in the stage that is measured

        def loss(logits: Outputs, labels: Labels, rows: RowIndices) -> BatchLoss:
            return objective(logits, labels, rows, args=args, task=task_for(model.config, labels))

        def learn_hidden_words(batch: Batch, words: Labels, share: float) -> LearnedLoss:
            assert isinstance(model, MaskedLanguageModel)
            return objective.learn_hidden_words(model, batch, words, share=share, args=args, inner=inner)

        def step(rows: RowIndices, place: int) -> None:
            if inner is not None:
                inner.begin_step(place, dataset.lengths[rows])
            training_step(
                optimizer,
                dataset,
                rows,
                batch_size=args.per_device_train_batch_size,
                max_grad_norm=args.max_grad_norm,
                loss=loss,
                learn_hidden_words=learn_hidden_words,
                inner=inner,
                on_event=lambda _: None,
            )

        longest = np.argsort(-dataset.lengths, kind="stable")[: args.per_device_train_batch_size]
        stages = stages_of(args.matches) or (Stage(),)
        measured, place = [], 0
        for stage, end in zip(stages, stage_ends(stages, *length), strict=True):
            if end == place:
                continue
            args = objective.args_of_step(self.args, place, length)
            step(longest, place)
            begun, count = time.monotonic(), 0
            for rows in plan.rows_of_epoch(0, 0):
                step(rows, place)
                count += 1
                if time.monotonic() - begun > _STEP_SECONDS / len(stages):
                    break
            measured.append(Steps(stage.name, end - place, count, (time.monotonic() - begun) / count))
            place = end
        return measured

    @cached_property
    def student_seconds_per_token(self) -> float:
        """Seconds that the student takes for a token when it is evaluated."""
        assert self.recipe is not None
        assert self.judged_on is not None
        model, rows = copy.deepcopy(self.recipe.model), self.judged_on[1]
        chosen = np.random.default_rng(0).permutation(len(rows))[:SAMPLED_ROWS]
        return sample(model, rows, chosen, seconds=_STUDENT_SECONDS).seconds_per_token


def examples_of(rows: Dataset) -> str:
    """Return what messages call the examples of a data set, which may have several windows each."""
    return "questions" if isinstance(rows.windows, Spans) else "rows"


def rows_of_examples(rows: Dataset, examples: NDArray[np.int64]) -> RowIndices:
    """Return the places of all rows of these examples, in the order of the examples."""
    if rows.windows is None:
        return examples
    first = np.searchsorted(rows.windows.examples, examples)
    behind = np.searchsorted(rows.windows.examples, examples, side="right")
    return np.concatenate([np.arange(*bounds) for bounds in zip(first, behind, strict=True)])


def sample(model: Model, dataset: Dataset, rows: RowIndices, *, seconds: float) -> Sample:
    """Return the model's answers for these rows, or for the first of them when time is up: whole examples in any case.

    Args:
        model: the model.
        dataset: the rows.
        rows: their places; the windows of an example follow each other.
        seconds: how long to go on.
    """
    of = rows if dataset.windows is None else dataset.windows.examples[rows]
    logits, done, begun, timed_from = [], 0, time.monotonic(), 0
    for start in range(0, len(rows), _BLOCK_ROWS):
        batch, labels = dataset.batch(rows[start : start + _BLOCK_ROWS])
        logits.append(outputs_of_batch(model, batch, labels))
        done = min(start + _BLOCK_ROWS, len(rows))
        if start == 0 and done < len(rows):  # packing the weights is no part of a row
            timed_from, begun = done, time.monotonic()
        if time.monotonic() - begun > seconds and of[done - 1] != of[min(done, len(of) - 1)]:
            break
    tokens = int(dataset.lengths[rows[timed_from:done]].sum()) or int(dataset.lengths[rows[:done]].sum())
    outputs = outputs_of(np.concatenate(logits), starts_of(dataset.lengths[rows[:done]]), model.per_token)
    return Sample(rows[:done], outputs, (time.monotonic() - begun) / tokens)
