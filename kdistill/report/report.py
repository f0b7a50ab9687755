"""The report on a finished run: how good, beside which others, how sure, how fast. `card` writes it down."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset
from ..data.overlap import Overlap
from ..data.ragged import Outputs
from ..distill.given import Given
from ..distill.objective import Distillation
from ..distill.partly_taught import answered_rows
from ..distill.sources import Source, Teachers
from ..distill.teachers import Teacher
from ..metrics.classification import majority_share
from ..metrics.mcnemar import McNemar
from ..models.checkpoint import WEIGHTS_FILES
from ..models.model import Model
from ..tasks.base import Task
from ..tasks.registry import ChosenMetrics, task_for
from ..train.arguments import DistillationTrainingArguments, TrainingArguments
from ..train.evaluation_sets import evaluation_sets
from ..train.recipe import Recipe
from ..train.state import TrainerState
from .assessment import Interval, Spread, spread
from .per_class import PerClass, class_rows, confused_rows


@dataclass(frozen=True)
class Subject:
    """The finished run that is reported on, and the data it is measured with.

    Attributes:
        eval: the rows that it was evaluated on; of several sets the one that chose the weights.
        eval_sets: the names of the sets (an empty one for the only set), ...
        main_eval_set: ... and that of `eval` among them.
        results: the content of the run's all_results.json.
        chosen_metrics: measures the metrics that were chosen by name, of every model of the report; None: there are
            none, and those of a user's function are known from `results` alone.
        file_bytes: size of the file of its weights (None: not written).
    """

    name: str
    started_from: str | None
    model: Model
    args: TrainingArguments
    state: TrainerState
    train: Dataset | None
    eval: Dataset | None
    eval_sets: tuple[str, ...]
    main_eval_set: str
    data_names: Mapping[str, str]
    teachers: Teachers | None
    results: Mapping[str, float]
    chosen_metrics: ChosenMetrics | None
    file_bytes: int | None

    @classmethod
    def of_run(cls, name: str, recipe: Recipe, state: TrainerState, results: Mapping[str, float]) -> Self:
        """Return the finished run of `recipe` as the subject of a report that calls it `name`."""
        weights = Path(recipe.args.output_dir, WEIGHTS_FILES[0])
        return cls(
            name=name,
            started_from=recipe.provenance.started_from,
            model=recipe.model,
            args=recipe.args,
            state=state,
            train=recipe.train_dataset,
            eval=recipe.main_eval_dataset,
            eval_sets=tuple(evaluation_sets(recipe.eval_dataset)),
            main_eval_set=recipe.main_eval_set,
            data_names=recipe.provenance.data_names(),
            teachers=recipe.objective.teachers if isinstance(recipe.objective, Distillation) else None,
            results=results,
            chosen_metrics=recipe.compute_metrics if isinstance(recipe.compute_metrics, ChosenMetrics) else None,
            file_bytes=weights.stat().st_size if weights.is_file() else None,
        )

    @property
    def task(self) -> Task:
        """The task of the model on its evaluation rows, or else its training rows."""
        rows = self.eval if self.eval is not None else self.train
        return task_for(self.model.config, None if rows is None else rows.labels)

    @property
    def best_metric(self) -> str:
        """The metric that chooses the best weights, without the name of its evaluation set."""
        name = self.args.metric_for_best_model.removeprefix("eval_")
        return name.removeprefix(f"{self.main_eval_set}_") if self.main_eval_set else name

    def types(self) -> dict[str, str]:
        """Return the compute type that the model is measured in, and the one that its training multiplied in."""
        return {"dtype": str(self.model.dtype), "training_dtype": self.args.training_dtype}

    def teacher_logits(self, rows: Dataset) -> Outputs | None:
        """Return the logits of the teacher, or of several together, see `Teachers.logits`.

        None without one, or where a row has no answer.
        """
        if self.teachers is None:
            return None
        assert isinstance(self.args, DistillationTrainingArguments)
        found = self.teachers.logits(rows, self.model.config, self.args)
        return found if answered_rows(found, rows).all() else None


@dataclass(frozen=True)
class Questions:
    """Questions to a report, beside how good the model is on its evaluation rows.

    Attributes:
        without_teacher: output directories of the same run without a teacher.
        seed_runs: output directories of the same run with other seeds.
        holdout: name of rows that chose nothing, and the rows.
        speed: whether to measure sentences per second.
        search_trials: trials of a hyperparameter search that were scored on the evaluation rows.
    """

    without_teacher: Sequence[str | os.PathLike[str]] = ()
    seed_runs: Sequence[str | os.PathLike[str]] = ()
    holdout: tuple[str, Dataset] | None = None
    speed: bool = False
    search_trials: int | None = None


@dataclass(frozen=True)
class DataFacts:
    """Rows: their name, how many there are, how many have a label, and the share of the most frequent label.

    What is read in several windows is one row. The share is that of words where these have the labels, and None where
    there is not exactly one label for each.
    """

    name: str
    rows: int
    labelled: int
    majority_share: float | None

    @classmethod
    def of(cls, name: str, dataset: Dataset, task: Task) -> DataFacts:
        """Count the rows of `dataset`."""
        share = majority_share(dataset.labels) if task.one_label else math.nan
        return cls(name, dataset.num_examples, dataset.labelled, None if math.isnan(share) else share)


@dataclass(frozen=True)
class Measured:
    """One model on n labelled rows.

    Attributes:
        n: the labelled rows.
        loss: against the labels.
        scores: metrics of the task by name; those of the model reported on and its teacher include what the run
            measured besides.
        intervals: 95 % confidence intervals, by the score that has one.
        ece: expected calibration error, where each row has one label.
        agreement: share of all rows that get the teacher's label, where each row has one label and there is a teacher.
        right: which rows are right, bool (n,); None where nothing is right or wrong.
        per_class: each class by itself; None where there are none.
    """

    n: int
    loss: float
    scores: dict[str, float]
    intervals: dict[str, Interval]
    ece: float | None
    agreement: float | None
    right: NDArray[np.bool_] | None = field(repr=False)
    per_class: PerClass | None = field(repr=False)

    @property
    def scores_and_loss(self) -> dict[str, float]:
        """The scores, and the loss as the last of them."""
        return {**self.scores, "loss": self.loss}

    def figures(self) -> dict[str, Any]:
        """Return the figures, JSON-ready, without the single rows."""
        found: dict[str, Any] = {"n": self.n, "loss": self.loss, **self.scores}
        for name, (low, high) in self.intervals.items():
            found |= {f"{name}_low": low, f"{name}_high": high}
        found |= {"ece": self.ece, "agreement": self.agreement}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Comparison:
    """The same student without a teacher: another run, and McNemar's test between the two, with this model as first.

    Attributes:
        differences: arguments, beside those of the teacher, that are not the same, by name: (there, here).
    """

    name: str
    seed: int
    measured: Measured
    mcnemar: McNemar | None
    differences: dict[str, tuple[Any, Any]]

    def figures(self) -> dict[str, Any]:
        """Return the comparison, JSON-ready."""
        test = {"mcnemar": self.mcnemar._asdict()} if self.mcnemar is not None else {}
        changed = {name: list(values) for name, values in self.differences.items()}
        return {"name": self.name, "seed": self.seed, **self.measured.figures(), **test, "differences": changed}


@dataclass(frozen=True)
class Holdout:
    """Rows that chose nothing, and the text they share with training and evaluation rows.

    What is read in several windows is one row.

    Attributes:
        training: shared with training rows (None: there are none).
        evaluation: shared with evaluation rows (None: there are none).
        apart: measured on the rows that share no text with either (None: no row does, or all do).
    """

    data: DataFacts
    measured: Measured
    teacher: Measured | None
    training: Overlap | None
    evaluation: Overlap | None
    apart: Measured | None

    def figures(self) -> dict[str, Any]:
        """Return the figures on these rows, JSON-ready."""
        found = {"name": self.data.name, "rows": self.data.rows, **self.measured.figures()}
        for name, overlap in (("training", self.training), ("evaluation", self.evaluation)):
            if overlap is not None:
                found[f"rows_shared_with_{name}"] = int(overlap.shared.sum())
        for name, measured in (("teacher", self.teacher), ("apart", self.apart)):
            if measured is not None:
                found[name] = measured.figures()
        return found


class Speed(NamedTuple):
    """Sentences per second in batches on this machine; None where there is no teacher.

    `rows_are` is what was counted, see `Dataset.rows_are`.
    """

    model: float
    teacher: float | None
    rows: int
    rows_are: str
    batch_size: int
    threads: int
    cpu: str
    isa_level: str


@dataclass(frozen=True)
class Report:
    """All that was found out.

    Attributes:
        teacher: the teacher, or several together.
        each_teacher: each of several, None for one that lacks an answer; empty for one teacher.
        without_teacher: the run that is compared, that of the same seed if there is one, comes first.
        seeds: by seed, this model included; empty when no other was given.
    """

    subject: Subject
    train: DataFacts | None
    eval: DataFacts | None
    measured: Measured | None
    teacher: Measured | None
    each_teacher: list[Measured | None]
    without_teacher: list[Comparison]
    seeds: dict[int, Measured]
    holdout: Holdout | None
    speed: Speed | None
    search_trials: int | None

    @property
    def class_rows(self) -> list[dict[str, Any]]:
        """Each class on the evaluation rows, beside the teacher's, see `per_class.class_rows`."""
        if self.measured is None or self.measured.per_class is None:
            return []
        teacher = None if self.teacher is None else self.teacher.per_class
        return class_rows(self.subject.model.config.id2label, self.measured.per_class, teacher)

    @property
    def confused_rows(self) -> list[dict[str, Any]]:
        """The pairs of classes that are confused on the evaluation rows, see `per_class.confused_rows`."""
        if self.measured is None or self.measured.per_class is None:
            return []
        return confused_rows(self.subject.model.config.id2label, self.measured.per_class)

    def figures(self) -> dict[str, Any]:
        """Return the report, JSON-ready: this model's figures on top, the others' in nested dictionaries."""
        subject, speed = self.subject, self.speed
        found: dict[str, Any] = {"name": subject.name, "num_parameters": subject.model.num_parameters()}
        found |= {"file_bytes": subject.file_bytes, **subject.types()}
        if self.measured is not None:
            found |= self.measured.figures()
        if speed is not None:
            found |= {"sentences_per_second": speed.model, "threads": speed.threads, "cpu": speed.cpu}
        if subject.teachers is not None:
            teachers, size = subject.teachers, subject.teachers.num_parameters
            found["teacher"] = {"name": teachers.name} | ({} if size is None else {"num_parameters": size})
            found["teacher"] |= teachers.models[0].type_figures() if len(teachers) == len(teachers.models) == 1 else {}
            found["teacher"] |= _figures_of_given(teachers.sources[0]) if len(teachers) == 1 else {}
            found["teacher"] |= {} if self.teacher is None else self.teacher.figures()
            found["teacher"] |= {} if speed is None else {"sentences_per_second": speed.teacher}
            if len(teachers) > 1:
                found["teachers"] = list(self._figures_of_teachers())
        if self.without_teacher:
            found["without_teacher"] = [comparison.figures() for comparison in self.without_teacher]
        if self.seeds:
            found["seeds"] = {str(seed): measured.figures() for seed, measured in self.seeds.items()}
            found["over_seeds"] = {name: of._asdict() for name, of in spreads(self.seeds.values()).items()}
        if self.holdout is not None:
            found["holdout"] = self.holdout.figures()
        if self.search_trials:
            found["search_trials"] = self.search_trials
        for name, rows in (("per_class", self.class_rows), ("confusions", self.confused_rows)):
            found |= {name: rows} if rows else {}
        return found

    def _figures_of_teachers(self) -> Iterator[dict[str, Any]]:
        """Yield the figures of each of several teachers."""
        teachers = self.subject.teachers
        assert teachers is not None
        each: list[Measured | None] = [*self.each_teacher] or [None] * len(teachers)
        for source, weight, measured in zip(teachers.sources, teachers.weights.tolist(), each, strict=True):
            found: dict[str, Any] = {"name": source.name, "weight": weight}
            if isinstance(source, Teacher):
                found |= {"num_parameters": source.model.num_parameters(), **source.type_figures()}
            found |= _figures_of_given(source)
            yield found | ({} if measured is None else measured.figures())


def _figures_of_given(source: Source) -> dict[str, Any]:
    """Return what is known of answers that came with the rows; {} of other teachers."""
    return source.figures() if isinstance(source, Given) else {}


def spreads(runs: Iterable[Measured]) -> dict[str, Spread]:
    """Return mean and standard deviation over runs of each score that all have, and of the loss, by name."""
    scores = [run.scores_and_loss for run in runs]
    common = [name for name in scores[0] if all(name in of for of in scores)] if scores else []
    return {name: spread([of[name] for of in scores]) for name in common}
