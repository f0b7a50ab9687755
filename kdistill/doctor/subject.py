"""`Subject`: what the checks look at, a run that has not begun, of which parts may be missing."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..data.dataset import Dataset
from ..data.ragged import Outputs, outputs_of, starts_of
from ..data.sentences import Sentences
from ..distill.cache import cached_rows
from ..distill.objective import Distillation
from ..metrics.prediction import Labels
from ..models.configuration import Config
from ..models.model import Model
from ..tasks.registry import task_for
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.loop import training_step
from ..train.objective import BatchLoss
from ..train.plan import EpochPlan, RowIndices
from ..train.recipe import Recipe

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
    """Steps of training that were measured on a copy of the student."""

    done: int
    seconds_per_step: float


@dataclass(frozen=True)
class Subject:
    """A run that has not begun. A part that could not be made is None.

    Attributes:
        args: the training arguments.
        names: what messages call the rows, by "train" and "eval".
        config: the student's, or what is known of it: the names of the labels.
        teacher: the teacher.
        train, eval: the encoded rows.
        recipe: all that makes the run; None when a part of it is missing.
        plan: the rows of each step, of `rows_to_learn_from`.
        rows_to_learn_from: the training rows with their augmented copies.
        tokenizer: the one that encoded the rows; None where words stand for tokens, see `plain.words_of`.
    """

    args: DistillationTrainingArguments
    names: Mapping[str, str]
    config: Config
    teacher: Model | None = None
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
        return None if self.train is None else (self.names["train"], self.train)

    @cached_property
    def rows_to_ask(self) -> dict[str, int]:
        """How many rows the teacher has to answer that its cache lacks, by "train" and "eval"."""
        assert self.teacher is not None
        sets = {"train": self.rows_to_learn_from or self.train, "eval": self.eval}
        return {
            which: int((~cached_rows(self.teacher, rows)).sum()) if self.args.teacher_cache else len(rows)
            for which, rows in sets.items()
            if rows is not None
        }

    @cached_property
    def answers(self) -> Sample:
        """The teacher's answers for sampled rows of `judged_on`, those with a label where there are any."""
        return self._sample(_ROWS_FOR_EACH_LABEL, _TEACHER_SECONDS)

    @property
    def more_answers(self) -> Sample:
        """The teacher's answers for twice as many rows, in up to five times the time."""
        return self._sample(2 * _ROWS_FOR_EACH_LABEL, 5 * _TEACHER_SECONDS)

    def _sample(self, rows_for_each_label: int, seconds: float) -> Sample:
        assert self.teacher is not None
        assert self.judged_on is not None
        _, rows = self.judged_on
        labelled = np.flatnonzero(rows.have_labels())
        of = labelled if len(labelled) else np.arange(len(rows))
        most = max(SAMPLED_ROWS, rows_for_each_label * self.teacher.config.num_labels)
        chosen = np.random.default_rng(0).permutation(of)[:most]
        return sample(self.teacher, rows, chosen, seconds=seconds)

    @cached_property
    def steps(self) -> Steps:
        """Steps of a copy of the student, which leave the student as it is. The first one has the longest rows.

        The teacher's logits count as zero in them, and the learning rate is 0.
        """
        recipe, plan, dataset = self.recipe, self.plan, self.rows_to_learn_from
        assert recipe is not None
        assert plan is not None
        assert dataset is not None
        assert isinstance(recipe.objective, Distillation)
        model = copy.deepcopy(recipe.model)
        copied = recipe.replace(model=model)
        copied.ready_model()
        optimizer = copied.new_optimizer()
        optimizer.lr = 0.0
        objective = Distillation(recipe.objective.teacher)
        zeros = np.zeros((len(dataset.ids) if model.per_token else len(dataset), model.config.num_outputs), np.float32)
        objective.teacher_logits = outputs_of(zeros, dataset.starts, model.per_token)

        def loss(logits: Outputs, labels: Labels, rows: RowIndices) -> BatchLoss:
            return objective(logits, labels, rows, args=self.args, task=task_for(model.config, labels))

        def step(rows: RowIndices) -> None:
            training_step(
                optimizer,
                dataset,
                rows,
                batch_size=self.args.per_device_train_batch_size,
                max_grad_norm=self.args.max_grad_norm,
                loss=loss,
                on_event=lambda _: None,
            )

        longest = np.argsort(-dataset.lengths, kind="stable")[: self.args.per_device_train_batch_size]
        step(longest)
        begun, count = time.monotonic(), 0
        for rows in plan.rows_of_epoch(0, 0):
            step(rows)
            count += 1
            if time.monotonic() - begun > _STEP_SECONDS:
                break
        return Steps(count, (time.monotonic() - begun) / count)

    @cached_property
    def student_seconds_per_token(self) -> float:
        """Seconds that the student takes for a token when it is evaluated."""
        assert self.recipe is not None
        assert self.judged_on is not None
        model, rows = copy.deepcopy(self.recipe.model), self.judged_on[1]
        chosen = np.random.default_rng(0).permutation(len(rows))[:SAMPLED_ROWS]
        return sample(model, rows, chosen, seconds=_STUDENT_SECONDS).seconds_per_token


def sample(model: Model, dataset: Dataset, rows: RowIndices, *, seconds: float) -> Sample:
    """Return the model's answers for these rows, or for the first of them when time is up."""
    logits, done, begun, timed_from = [], 0, time.monotonic(), 0
    for start in range(0, len(rows), _BLOCK_ROWS):
        batch, _ = dataset.batch(rows[start : start + _BLOCK_ROWS])
        logits.append(model.forward(batch))
        done = min(start + _BLOCK_ROWS, len(rows))
        if start == 0 and done < len(rows):  # packing the weights is no part of a row
            timed_from, begun = done, time.monotonic()
        if time.monotonic() - begun > seconds:
            break
    tokens = int(dataset.lengths[rows[timed_from:done]].sum()) or int(dataset.lengths[rows[:done]].sum())
    outputs = outputs_of(np.concatenate(logits), starts_of(dataset.lengths[rows[:done]]), model.per_token)
    return Sample(rows[:done], outputs, (time.monotonic() - begun) / tokens)
