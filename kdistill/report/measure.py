"""Measure a report: the model and those it is compared with, on rows that chose it and rows that did not."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset
from ..data.labels import NO_LABEL, labelled_rows
from ..data.overlap import find_overlap
from ..data.ragged import Outputs, take_rows, units
from ..metrics.mcnemar import mcnemar
from ..metrics.prediction import Labels, Logits, labelled_answers
from ..models.model import Model
from ..models.trained_with import EVALUATION_ROWS
from ..system.cpu import cpu_name
from ..system.threads import get_num_threads, isa_level
from ..tasks.base import Task
from ..tasks.registry import ChosenMetrics, task_for
from ..train.arguments import DistillationTrainingArguments
from ..train.evaluate import predict
from ..train.evaluation_sets import metric_prefix
from ..train.own_metrics import own_metrics
from ..train.state import numbers_of
from .assessment import (
    INTERVALS,
    Interval,
    agreement,
    calibration_bins,
    expected_calibration_error,
)
from .finished import check_comparable, differences, load_run
from .per_class import PerClass
from .report import Comparison, DataFacts, Holdout, Measured, Questions, Report, Speed, Subject

# Arguments in which the same student without a teacher may differ: they weigh and cache the teacher's part.
OF_THE_TEACHER = ("alpha", "temperature", "teacher_cache", "teacher_dtype", "teacher_weighting")
# Passes over these rows, at least so many and for at least so long; their median counts.
SPEED_ROWS, SPEED_PASSES, SPEED_SECONDS = 256, 3, 0.5

# A first look, at so many rows, and then for so long.
GLANCE_ROWS, GLANCE_SECONDS = 8, 0.4


def make_report(subject: Subject, questions: Questions) -> Report:
    """Measure the subject on its evaluation rows, and answer `questions`.

    Warns of held-out rows that share text with training or evaluation rows.

    Raises:
        ValueError: runs cannot be compared (other rows, another shape, other arguments, a teacher where none was
            expected, one seed twice), or there are no labelled rows to compare them on.
    """
    rows = subject.eval if subject.eval is not None and subject.eval.labelled else None
    if rows is None and (questions.without_teacher or questions.seed_runs):
        raise ValueError("eval_dataset has no labelled rows; expected rows to compare the runs on")
    measured = teacher = None
    each_teacher: list[Measured | None] = []
    without_teacher, seeds = [], {}
    if rows is not None:
        taught = subject.teacher_logits(rows)
        measured = _measured_run(subject, subject.model, rows, taught)
        measured = replace(measured, scores=measured.scores | _own_scores(subject, measured))
        teacher = _measured_teacher(subject, rows, taught)
        if teacher is not None:
            teacher = replace(teacher, scores=teacher.scores | _teachers_own_scores(subject, teacher))
        each_teacher = _measured_each(subject, rows)
        without_teacher = _without_teacher(subject, questions, rows, taught, measured)
        seeds = _seeds(subject, questions, rows, taught, measured)
    return Report(
        subject=subject,
        train=None if subject.train is None else DataFacts.of(subject.data_names["train"], subject.train, subject.task),
        eval=None if subject.eval is None else DataFacts.of(subject.data_names["eval"], subject.eval, subject.task),
        measured=measured,
        teacher=teacher,
        each_teacher=each_teacher,
        without_teacher=without_teacher,
        seeds=seeds,
        holdout=None if questions.holdout is None else _holdout(subject, *questions.holdout),
        speed=_speed(subject) if questions.speed else None,
        search_trials=questions.search_trials,
    )


def _own_scores(subject: Subject, measured: Measured) -> dict[str, float]:
    """Return the scores that are known from the evaluation of these weights alone.

    They are those of the user's `compute_metrics`, and those of further evaluation sets.
    """
    others = ("loss", "n", "runtime", "samples_per_second")
    known = {*measured.scores, *others, *(f"{name}_{other}" for name in subject.eval_sets for other in others)}
    main = metric_prefix("eval", subject.main_eval_set)
    named = {
        name.removeprefix(f"{main}_").removeprefix("eval_"): value
        for name, value in subject.results.items()
        if name.startswith("eval_")
    }
    return {name: value for name, value in numbers_of(named).items() if name not in known}


def _teachers_own_scores(subject: Subject, teacher: Measured) -> dict[str, float]:
    """Return what `compute_metrics` made of the teacher in the run."""
    named = {
        name.removeprefix("teacher_"): value for name, value in subject.results.items() if name.startswith("teacher_")
    }
    return {name: value for name, value in numbers_of(named).items() if name not in teacher.scores_and_loss}


def _measured_run(subject: Subject, model: Model, rows: Dataset, taught: Outputs | None) -> Measured:
    size = subject.args.per_device_eval_batch_size
    logits = predict(model, rows, batch_size=size, prefix="", progress=lambda done, total: None).predictions
    return _measured(logits, rows, task_for(model.config, rows.labels), subject.chosen_metrics, taught)


def _measured_teacher(subject: Subject, rows: Dataset, taught: Outputs | None) -> Measured | None:
    if taught is None or subject.teachers is None:
        return None
    config = subject.model.config
    task = subject.teachers.task(config, rows.labels)
    chosen_on = subject.eval if config.trained_with.threshold_rows == EVALUATION_ROWS else None
    logits = None if chosen_on is None else subject.teacher_logits(chosen_on)
    if chosen_on is not None and logits is not None:
        task = subject.teachers.task_suited_to(config, logits, chosen_on)
    return _measured(taught, rows, task, subject.chosen_metrics)


def _measured_each(subject: Subject, rows: Dataset) -> list[Measured | None]:
    """Measure each of several teachers; None for one that lacks an answer."""
    if subject.teachers is None or len(subject.teachers) == 1:
        return []
    alone = [replace(subject, teachers=teacher) for teacher in subject.teachers.alone()]
    return [_measured_teacher(one, rows, one.teacher_logits(rows)) for one in alone]


def _measured(
    logits: Outputs, rows: Dataset, task: Task, chosen: ChosenMetrics | None, taught: Outputs | None = None
) -> Measured:
    labels = rows.targets
    scores = task.evaluate(logits, labels) | own_metrics(chosen, logits, labels, task)
    loss, n = scores.pop("loss", math.nan), int(scores.pop("n"))
    scores |= {} if task.threshold is None else {"threshold": task.threshold}
    return Measured(
        n=n,
        loss=loss,
        scores=scores,
        intervals=_intervals(scores, n) if _independent(task, rows) else {},
        ece=expected_calibration_error(calibration_bins(*_in_units(logits, labels))) if task.one_label else None,
        agreement=_agreement(logits, taught, rows) if task.one_label and taught is not None else None,
        right=task.right(logits, labels),
        per_class=PerClass.of(task, logits, labels),
    )


def _independent(task: Task, rows: Dataset) -> bool:
    """Return whether a score is one of independent answers: those for the tokens of a text are not."""
    return not task.per_token and (task.right_rows is not None or rows.labels.ndim == 1)


def _in_units(logits: Outputs, labels: Any) -> tuple[Logits, Labels]:
    """Return logits and labels of all rows; of tokens, of those that have a label."""
    return (logits, labels) if isinstance(logits, np.ndarray) else tuple(map(units, labelled_answers(logits, labels)))


def _agreement(logits: Outputs, taught: Outputs, rows: Dataset) -> float:
    """Return the `agreement` with the teacher on all rows, or on all tokens that a student learns."""
    ours, theirs = units(logits), units(taught)
    part = rows.labels != NO_LABEL if rows.per_token else slice(None)
    return agreement(ours[part], theirs[part])


def _intervals(scores: Mapping[str, float], n: int) -> dict[str, Interval]:
    """Return the intervals of those scores that have one on n rows, each with one answer."""
    found = {name: INTERVALS[name](value, n) for name, value in scores.items() if name in INTERVALS}
    return {name: interval for name, interval in found.items() if interval is not None}


def _without_teacher(
    subject: Subject, questions: Questions, rows: Dataset, taught: Outputs | None, ours: Measured
) -> list[Comparison]:
    """Measure the runs without a teacher; that of this seed comes first."""
    comparisons = []
    for path in questions.without_teacher:
        run = load_run(path)
        check_comparable(run, subject.state, subject.model.config)
        if run.has_teacher:
            raise ValueError(
                f"the run {run.name!r} had a teacher (alpha {run.state.args['alpha']}); expected one without: "
                "the same command with --alpha 1"
            )
        theirs = _measured_run(subject, run.model, rows, taught)
        comparisons.append(
            Comparison(
                name=run.name,
                seed=run.seed,
                measured=theirs,
                mcnemar=None if ours.right is None or theirs.right is None else mcnemar(ours.right, theirs.right),
                differences=differences(run, subject.args, but=(*OF_THE_TEACHER, "seed")),
            )
        )
    _refuse_twice([comparison.seed for comparison in comparisons])
    return sorted(comparisons, key=lambda comparison: comparison.seed != subject.args.seed)


def _seeds(
    subject: Subject, questions: Questions, rows: Dataset, taught: Outputs | None, ours: Measured
) -> dict[int, Measured]:
    """Measure the same run with other seeds; returns them and this model by seed."""
    found = [(subject.args.seed, ours)] if questions.seed_runs else []
    for path in questions.seed_runs:
        run = load_run(path)
        check_comparable(run, subject.state, subject.model.config)
        other = differences(run, subject.args, but=("seed", "teacher_cache"))
        if other or run.state.trained_on != subject.state.trained_on:
            what = ", ".join(f"{name} ({there} there, {here} here)" for name, (there, here) in other.items())
            raise ValueError(f"the run {run.name!r} differs in more than its seed: in {what or 'its teacher'}")
        found.append((run.seed, _measured_run(subject, run.model, rows, taught)))
    _refuse_twice([seed for seed, _ in found])
    return dict(sorted(found, key=lambda one: one[0]))


def _refuse_twice(seeds: list[int]) -> None:
    twice = [seed for seed in seeds if seeds.count(seed) > 1]
    if twice:
        raise ValueError(f"seed {twice[0]} is there twice; expected runs of different seeds (this run's counts too)")


def _holdout(subject: Subject, name: str, rows: Dataset) -> Holdout:
    if not rows.labelled:
        raise ValueError(f"holdout {name!r} has no labels; expected a label in at least one row")
    labelled = labelled_rows(rows.targets)
    training = None if subject.train is None else find_overlap(rows, subject.train).of_examples(rows)
    evaluation = None if subject.eval is None else find_overlap(rows, subject.eval).of_examples(rows)
    shared = np.zeros(len(labelled), bool)
    for what, overlap in (("training", training), ("evaluation", evaluation)):
        if overlap is not None:
            shared |= overlap.shared
            _warn_of_shared_text(name, what, overlap.shared)
    taught = subject.teacher_logits(rows)
    apart = None
    if shared.any() and (labelled & ~shared).any():
        places = np.flatnonzero(~(shared if rows.windows is None else shared[rows.windows.examples]))
        theirs = None if taught is None else take_rows(taught, places)
        apart = _measured_run(subject, subject.model, rows.take(places), theirs)
    return Holdout(
        data=DataFacts.of(name, rows, subject.task),
        measured=_measured_run(subject, subject.model, rows, taught),
        teacher=_measured_teacher(subject, rows, taught),
        training=training,
        evaluation=evaluation,
        apart=apart,
    )


def _warn_of_shared_text(name: str, what: str, shared: NDArray[np.bool_]) -> None:
    if shared.any():
        warnings.warn(
            f"{int(shared.sum())} of the {len(shared)} rows of the holdout {name!r} share text with the {what} rows "
            f"(the first is row {int(shared.argmax())}): they do not measure how good the model is on new text",
            stacklevel=5,
        )


def _speed(subject: Subject) -> Speed | None:
    """Time both models on the same rows, evenly spread over the evaluation rows, or else the training rows."""
    source = subject.eval if subject.eval is not None else subject.train
    if source is None:
        return None
    places = np.linspace(0, len(source) - 1, min(SPEED_ROWS, len(source))).astype(np.int64)
    rows = _rows_to_time(source, places)
    size = subject.args.per_device_eval_batch_size
    teacher = None
    if subject.teachers is not None and subject.teachers.num_parameters is not None:
        assert isinstance(subject.args, DistillationTrainingArguments)
        seconds = 0.0
        for each in subject.teachers.models:
            seconds += 1 / sentences_per_second(each.answering, each.rows_as_read(rows, subject.args), size)
            each.release()
        teacher = 1 / seconds
    return Speed(
        model=sentences_per_second(subject.model, rows, size),
        teacher=teacher,
        rows=len(rows),
        rows_are=source.rows_are,
        batch_size=size,
        threads=get_num_threads(),
        cpu=cpu_name(),
        isa_level=isa_level(),
    )


def _rows_to_time(source: Dataset, places: NDArray[np.int64]) -> Dataset:
    """Return the rows at these places without labels; of a language model with those that it is to predict."""
    some = source.take(places) if source.masking is None else source.masked(places, 0)
    return some if some.hidden else some.without_labels()


def sentences_per_second(model: Model, rows: Dataset, batch_size: int) -> float:
    """Return rows per second in batches: the median of several passes after a first one that does not count."""
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) <= SPEED_PASSES or time.perf_counter() - began < SPEED_SECONDS:
        started = time.perf_counter()
        predict(model, rows, batch_size=batch_size, prefix="", progress=lambda done, total: None)
        seconds.append(time.perf_counter() - started)
    return len(rows) / statistics.median(seconds[1:])


def speed_at_a_glance(model: Model, rows: Dataset, batch_size: int) -> float:
    """Return rows per second in batches, measured for about `GLANCE_SECONDS`; see `sentences_per_second`."""

    def seconds(n: int) -> float:
        places = np.linspace(0, len(rows) - 1, n).astype(np.int64)
        some = _rows_to_time(rows, places)
        started = time.perf_counter()
        predict(model, some, batch_size=batch_size, prefix="", progress=lambda done, total: None)
        return time.perf_counter() - started

    few = min(GLANCE_ROWS, len(rows))
    seconds(few)  # packs the weights
    enough = min(max(int(few * GLANCE_SECONDS / seconds(few)), few), len(rows))
    return enough / seconds(enough)
