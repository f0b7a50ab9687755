"""Checks of teacher and student."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..data.ragged import units
from ..distill.answers import CHECK, answers_against_labels
from ..metrics.classification import accuracy, majority_share
from ..models.head_names import LABELLED
from ..system.findings import Finding
from ..tasks.registry import task_for
from ..train.chosen_defaults import choose_defaults
from .subject import Subject, examples_of


def teacher(subject: Subject) -> Iterator[Finding]:
    """Check the teacher's answers for sampled rows against their labels."""
    assert subject.judged_on is not None
    assert subject.teacher is not None
    name, rows = subject.judged_on
    answers = subject.answers
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
    config = subject.config.with_trained(subject.teacher.config.trained_with)
    found = answers_against_labels(logits, labels, config, numbered=numbered)
    task = task_for(config, rows.labels)
    if found and task.one_label:
        answers = subject.more_answers  # names for all labels take more rows than to see that they are wrong
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
    """Compare the sizes of student and teacher."""
    assert subject.recipe is not None
    assert subject.teacher is not None
    ours, theirs = subject.recipe.model.num_parameters(), subject.teacher.num_parameters()
    text = f"the student has {ours:,} parameters and the teacher {theirs:,}"
    if ours >= theirs:
        yield Finding("student", "warning", text, "take a smaller --student, such as L2-H128-A2")
    else:
        labels = " and have the same labels" if subject.config.head in LABELLED else ""
        yield Finding("student", "ok", f"{text}; they read the same tokens{labels}")


def chosen_defaults(subject: Subject) -> Iterator[Finding]:
    """Report which arguments are chosen for a student with new layers, and where these learn little."""
    assert subject.recipe is not None
    assert subject.train is not None
    lines = choose_defaults(subject.args, subject.recipe.model, subject.train) or ""
    chosen, _, pairs = (" ".join(part.split()) for part in lines.partition("note: "))
    if chosen:
        yield Finding("arguments", "ok", chosen)
    if pairs:
        yield Finding.of_message("arguments", "warning", pairs)
