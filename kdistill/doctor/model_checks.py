"""Checks of teacher and student."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..data.ragged import take_rows, units
from ..distill.answers import CHECK, answers_against_labels
from ..distill.given import Given
from ..distill.partly_taught import answered_rows
from ..distill.sources import Source
from ..distill.teachers import Teacher
from ..metrics.classification import accuracy, majority_share
from ..models.head_names import LABELLED
from ..system.findings import Finding
from ..system.names import listing
from ..tasks.registry import task_for
from ..train.chosen_defaults import choose_defaults
from ..train.stages import predictions_count
from .subject import Sample, Subject, examples_of


def teacher(subject: Subject) -> Iterator[Finding]:
    """Check the answers of each teacher for sampled rows against their labels, where they are learned."""
    assert subject.judged_on is not None
    assert subject.teachers is not None
    if not predictions_count(subject.args.matches):
        text = "the teacher's predictions are not learned: prediction_weight is 0 in all stages of the matches"
        yield Finding(CHECK, "note", text)
        return
    sources = subject.teachers.sources
    for source, answers in zip(sources, subject.answers, strict=True):
        found = _of_given(subject, source) if isinstance(source, Given) else _of_teacher(subject, source, answers)
        for finding in found:
            yield finding if len(sources) == 1 else finding._replace(text=f"{source.name}: {finding.text}")


def _of_given(subject: Subject, source: Given) -> Iterator[Finding]:
    """State for how many training rows there are answers, and check these against their labels."""
    rows = subject.train
    if rows is None or rows.teacher_logits is None:
        return
    outputs = source.outputs(rows, subject.args, what="training rows")
    there = np.flatnonzero(answered_rows(outputs, rows))
    yield Finding(CHECK, "ok", source.sentence())
    some = rows.take(there)
    if subject.config.embeds or not some.labelled:
        return
    numbered = rows.reading is not None and rows.reading.numbered
    yield from answers_against_labels(take_rows(outputs, there), some.targets, subject.config, numbered=numbered)


def _of_teacher(subject: Subject, source: Source, answers: Sample) -> Iterator[Finding]:
    assert subject.judged_on is not None
    name, rows = subject.judged_on
    logits, labels = answers.logits, rows.take(answers.rows).targets
    bad = int((~np.isfinite(units(logits)).all(axis=1)).sum())
    if bad:
        outputs = "rows" if isinstance(logits, np.ndarray) else "tokens"
        text = f"the teacher's logits are not finite for {bad} of {len(units(logits))} {outputs} of {name}"
        yield Finding(CHECK, "error", text, "train it again, or take an earlier checkpoint: its weights have diverged")
        return
    if subject.config.embeds:
        yield Finding(CHECK, "ok", f"the teacher gives a text an embedding of {units(logits).shape[1]} numbers")
        return
    if not rows.labelled:
        if subject.eval is not None:
            return  # that it has no labels is an error of the run
        text = f"no row of {name} has a label, so nothing shows how good the teacher is"
        yield Finding(CHECK, "warning", text, "give labelled rows as --eval")
        return
    numbered = rows.reading is not None and rows.reading.numbered
    config = subject.config
    if isinstance(source, Teacher):
        config = config.with_trained(source.model.config.trained_with)
    found = answers_against_labels(logits, labels, config, numbered=numbered)
    task = task_for(config, rows.labels)
    if found and task.one_label:
        answers = subject.more_answers(source)  # names for all labels take more rows than to see that they are wrong
        logits, labels = answers.logits, rows.take(answers.rows).targets
        found = answers_against_labels(logits, labels, config, numbered=numbered)
    measured_on = f"{len(labels):,} {examples_of(rows)} of {name}"
    for finding in found:
        yield finding._replace(text=f"{finding.text} ({measured_on})")
    if not found and task.one_label and isinstance(logits, np.ndarray):
        text = (
            f"the teacher's accuracy is {accuracy(logits, labels):.4f} on {measured_on}; always "
            f"answering the most frequent label gives {majority_share(labels):.4f}"
        )
        yield Finding(CHECK, "ok", text)
    elif not found:
        metrics = task.evaluate(logits, labels)
        shown = ", ".join(f"{metric} {metrics[metric]:.6g}" for metric in task.default_metrics if metric in metrics)
        yield Finding(CHECK, "ok", f"the teacher has {shown} on {measured_on}")


def student(subject: Subject) -> Iterator[Finding]:
    """Compare the sizes of the student and of each teacher that is a model, and state how they read."""
    assert subject.recipe is not None
    assert subject.teachers is not None
    ours = subject.recipe.model.num_parameters()
    models, sources = subject.teachers.models, subject.teachers.sources
    text = f"the student has {ours:,} parameters" + "".join(
        f" and {'the teacher' if len(sources) == 1 else of.name} {of.model.num_parameters():,}" for of in models
    )
    largest = max((of.model.num_parameters() for of in models), default=None)
    if largest is not None and ours > largest:
        yield Finding("student", "warning", text, "take a smaller --student, such as L2-H128-A2")
    elif ours == largest:
        yield Finding("student", "note", f"{text}: they are of one size (self-distillation)")
    if alone := [of.name for of in models if of.reads_itself]:
        names = "the teacher" if len(sources) == 1 else listing(alone)
        yield Finding("student", "note", f"texts are read with a tokenizer of its own by {names}")
    if largest is None:
        yield Finding("student", "ok", text)
    elif ours < largest:
        common = ["have the same labels"] if subject.config.head in LABELLED else []
        common += [] if alone else ["read the same tokens"]
        yield Finding("student", "ok", text + ("; they " + " and ".join(common) if common else ""))


def chosen_defaults(subject: Subject) -> Iterator[Finding]:
    """Report which arguments the recipe chooses, and where new layers learn little."""
    recipe = subject.recipe
    assert recipe is not None
    assert subject.train is not None
    no_copies = recipe.objective.why_no_copies(subject.train, recipe.processing_class)
    lines = choose_defaults(subject.args, recipe.model, subject.train, no_copies) or ""
    chosen, _, pairs = (" ".join(part.split()) for part in lines.partition("note: "))
    if chosen:
        yield Finding("arguments", "ok", chosen)
    if pairs:
        yield Finding.of_message("arguments", "warning", pairs)
