"""Checks of what a run takes: disk, memory, time."""

from __future__ import annotations

import math
import os
import resource
import shutil
from collections.abc import Iterator
from itertools import compress
from pathlib import Path

import numpy as np

from ..distill.cache import cache_directory, row_bytes
from ..distill.hidden_cache import bytes_of_rows, hidden_bytes
from ..distill.matching import matched_teacher, teacher_taps
from ..distill.teachers import Teacher
from ..system.findings import Finding
from ..system.memory import available_memory, readable_size
from ..system.progress import format_duration
from ..train.byte_sizes import bytes_of
from ..train.directory import nearest_directory
from ..train.state import TrainerState
from .subject import Subject

_NEARLY = 0.8  # share of what is free above which a run may not find it free later


def disk(subject: Subject) -> Iterator[Finding]:
    """Compare what checkpoints, model and teacher cache take with what is free."""
    recipe = subject.recipe
    assert recipe is not None
    weights = 4 * recipe.model.num_flat
    count = _most_checkpoints(subject)
    averages = 0 if recipe.args.ema_decay in (None, 0) else 1
    needed = {Path(recipe.args.output_dir): weights + count * (3 + averages) * weights}
    parts = [f"{count} checkpoints and the model {readable_size(weights + count * (3 + averages) * weights)}"]
    models = subject.teachers is not None and bool(subject.teachers.models)
    if models and subject.args.teacher_cache and not subject.teacher_answers_in_steps:
        tokens = int(np.mean(recipe.train_dataset.lengths)) if recipe.model.per_token and recipe.train_dataset else None
        size = _lacking(subject) * row_bytes(recipe.model.config.num_outputs, tokens)
        needed[cache_directory()] = size
        parts.append(f"the teacher cache {readable_size(size)}")
    if (hidden := _hidden_bytes(subject)) > 0:
        needed[cache_directory()] = needed.get(cache_directory(), 0) + hidden
        parts.append(f"the hidden cache {readable_size(hidden)}")
    of_disk: dict[int, int] = {}
    free: dict[int, int] = {}
    for path, size in needed.items():
        there = nearest_directory(path)
        device = there.stat().st_dev
        of_disk[device] = of_disk.get(device, 0) + size
        free[device] = shutil.disk_usage(there).free
    fullest = max(of_disk, key=lambda device: of_disk[device] / max(free[device], 1))
    share = of_disk[fullest] / max(free[fullest], 1)
    text = f"the run writes {' and '.join(parts)}, {readable_size(free[fullest])} are free"
    remedy = (
        "keep fewer checkpoints (--save-total-limit 1), write elsewhere (--output-dir, KDISTILL_CACHE) or make room"
    )
    level = "error" if share > 1 else "warning" if share > _NEARLY else "ok"
    yield Finding("disk", level, text, remedy if level != "ok" else "")


def _hidden_bytes(subject: Subject) -> int:
    """Return the bytes that the run may add to the hidden cache: at most its budget."""
    args, rows = subject.args, subject.rows_to_learn_from or subject.train
    if args.hidden_cache is None or args.matches is None or rows is None or subject.teacher_answers_in_steps:
        return 0
    assert subject.teachers is not None
    teacher = matched_teacher(subject.teachers, args, subject.config)
    stages, lengths = teacher_taps(args, teacher.model.config, subject.config), teacher.rows_as_read(rows, args).lengths
    needed = sum(bytes_of_rows(teacher.model, taps, lengths) for taps in stages)
    return max(0, min(needed, bytes_of(args.hidden_cache) - hidden_bytes()))


def _most_checkpoints(subject: Subject) -> int:
    """Return how many checkpoints are there at a time, with the one being written."""
    args, state = subject.args, _length(subject)
    saves = {
        "no": 0,
        "epoch": state.num_train_epochs,
        "steps": state.max_steps // max(state.save_steps, 1),
        "best": _evaluations(subject, state),
    }
    written = saves[args.save_strategy]
    return written if args.save_total_limit is None else min(written, args.save_total_limit + 1)


def _evaluations(subject: Subject, state: TrainerState) -> int:
    if subject.eval is None:
        return 0
    strategies = {"no": 0, "epoch": state.num_train_epochs, "steps": state.max_steps // max(state.eval_steps, 1)}
    return strategies[subject.args.eval_strategy]


def _length(subject: Subject) -> TrainerState:
    assert subject.recipe is not None
    assert subject.plan is not None
    state = TrainerState()
    state.set_length(subject.args, subject.recipe.max_steps(subject.plan), subject.plan.steps_per_epoch)
    return state


def memory(subject: Subject) -> Iterator[Finding]:
    """Train the longest rows on a copy of the student, which takes what the run takes."""
    try:
        _ = subject.steps
    except MemoryError as error:
        yield Finding.of_message("memory", "error", str(error))
        return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    available = available_memory()
    left = "" if available is None else f", {readable_size(available)} more are free"
    yield Finding("memory", "ok", f"the run takes {readable_size(peak)}, measured on its longest rows{left}")


def duration(subject: Subject) -> Iterator[Finding]:
    """Estimate how long the run takes from steps and rows that were measured, those of each stage for itself."""
    assert subject.recipe is not None
    state, stages, sets = _length(subject), subject.steps, subject.sets_to_ask
    assert subject.plan is not None
    of_stages = [of.seconds_per_step * of.steps for of in stages]
    training = math.fsum(of_stages)
    epoch = training / state.max_steps * subject.plan.steps_per_epoch
    assert subject.teachers is not None
    of_models = [isinstance(source, Teacher) for source in subject.teachers.sources]
    answers = compress(subject.answers, of_models)
    teacher = math.fsum(
        count * of.seconds_per_token * float(rows.lengths.mean())
        for asked, of in zip(subject.rows_to_ask, answers, strict=False)  # a language model is not asked
        for which, count in asked.items()
        if (rows := sets[which])
    )
    each = [
        f"{format_duration(seconds)} for {of.steps:,}" + (f" of the stage {of.stage!r}" if of.stage else "")
        for of, seconds in zip(stages, of_stages, strict=True)
    ]
    steps = f" for {state.max_steps:,} steps" + (f": {', then '.join(each)}" if len(each) > 1 else "")
    evaluations = _evaluations(subject, state)
    evaluating = 0.0
    if subject.eval is not None and evaluations:
        evaluating = evaluations * subject.student_seconds_per_token * int(subject.eval.lengths.sum())
    lacking = f"teacher {format_duration(teacher)} for {_lacking(subject):,} {_rows(subject)} that its cache lacks"
    parts = [
        *([] if subject.teacher_answers_in_steps or not any(of_models) else [lacking]),
        f"training {format_duration(training)}{steps}",
        f"{evaluations} evaluations {format_duration(evaluating)}",
    ]
    total = math.fsum((teacher, training, evaluating))
    done = sum(of.done for of in stages)
    text = (
        f"{format_duration(epoch)} an epoch and {format_duration(total)} in all ({', '.join(parts)}), measured on "
        f"{done} step{'s' * (done != 1)}"
    )
    yield Finding("time", "ok", text)


def cache(subject: Subject) -> Iterator[Finding]:
    """Check that the teacher cache can be written, where a model has answers for it."""
    assert subject.teachers is not None
    if not subject.teachers.models:
        return
    if subject.teacher_answers_in_steps:
        text = "other words are hidden in each epoch, so the teacher answers in each step, and its cache has no part"
        yield Finding("teacher cache", "note", text)
        return
    if not subject.sets_to_ask:
        text = "predictions count in no stage of the matches, so nobody asks the teacher for any"
        yield Finding("teacher cache", "note", text)
        return
    if not subject.args.teacher_cache:
        text = "--no-teacher-cache: every run asks the teacher again"
        yield Finding("teacher cache", "note", text)
        return
    there = nearest_directory(cache_directory())
    if not os.access(there, os.W_OK | os.X_OK):
        text = f"the teacher cache {cache_directory()} cannot be written: every run asks the teacher again"
        yield Finding("teacher cache", "warning", text, "set KDISTILL_CACHE to a directory that can")
        return
    asked = subject.rows_to_ask
    total = sum(map(len, subject.sets_to_ask.values())) * len(asked)
    there_are = f"{total - _lacking(subject):,} of {total:,} {_rows(subject)} are in the teacher cache"
    if len(asked) > 1:
        there_are += f", those of {len(asked)} teachers together"
    yield Finding("teacher cache", "ok", there_are)


def _lacking(subject: Subject) -> int:
    """Return how many answers the caches of all teachers lack."""
    return sum(sum(asked.values()) for asked in subject.rows_to_ask)


def _rows(subject: Subject) -> str:
    """Return what messages call the rows that the teacher answers."""
    sets = subject.sets_to_ask.values()
    return next((rows.rows_are for rows in sets if rows.rows_are != "rows"), "rows")
