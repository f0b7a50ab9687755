"""Checks of the rows: labels, texts, and what training and evaluation share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..data.dataset import Dataset
from ..data.labels import label_counts, labelled_rows
from ..data.overlap import find_overlap
from ..data.ragged import Ragged
from ..data.sentences import Sentences
from ..data.spans import Spans
from ..distill.row_keys import row_keys
from ..system.findings import Finding
from ..system.names import listing
from ..tasks.registry import task_for
from ..train.encoding import cut_rows_sentence
from ..train.recipe import NO_EVALUATION
from .subject import Subject, examples_of

_RARE = 5  # rows of a label from which hardly anything can be learned
_MAJORITY = 0.8  # share of one label above which accuracy hides the others
_SHARED = 0.1  # share of evaluation rows that training rows hold, above which an evaluation misleads
_EQUAL = 0.01  # share of equal rows, which short texts alone seldom make
_CUT = 0.05  # share of cut rows that is more than a few long texts
_CONTRADICTING = 0.01
_FEW = 100
_WIDE = 20.0  # mean or deviation of numbers that a new classifier takes long to reach
_LISTED = 5


def labels(subject: Subject) -> Iterator[Finding]:
    """Check which labels occur how often in the rows."""
    for name, rows in subject.sets().items():
        if isinstance(rows.windows, Sentences):
            continue  # embeddings have no labels
        missing = rows.unlabelled
        if rows is subject.eval and 0 < missing < len(rows):
            text = f"{missing:,} of {len(rows):,} {rows.rows_are} of {name} have no label and are not measured"
            yield Finding("labels", "note", text)
        if isinstance(rows.windows, Spans):
            questions = rows.windows.questions
            text = f"{name} has {len(questions):,} questions, {questions.answerless:,} of them without an answer"
            yield Finding("labels", "ok", text)
        task = task_for(subject.config, rows.labels)
        if rows.labelled and task.constant is not None:
            of = _of_classes if task.one_label else _of_several if task.names_labels else _of_numbers
            yield from of(subject, name, rows)


def _of_classes(subject: Subject, name: str, rows: Dataset) -> Iterator[Finding]:
    names, counts = subject.config.id2label, label_counts(rows.labels, subject.config.num_labels)
    units = "words" if rows.per_token else "rows"
    there, total = np.flatnonzero(counts), int(counts.sum())
    most = int(counts.argmax())
    share = counts[most] / total
    if len(there) == 1:
        lost = "its metrics measure nothing" if rows is subject.eval else "there is nothing to tell apart"
        text = f"all {total:,} {units} with a label in {name} have the label {names[most]!r}: {lost}"
        yield Finding("labels", "error", text, "take a sample of rows of all labels")
        return
    if rows is subject.eval and subject.train is not None and subject.train.labelled:
        known = label_counts(subject.train.labels, len(counts))
        unseen = [names[int(label)] for label in there if not known[label]]
        if unseen:
            count = "1 label" if len(unseen) == 1 else f"{len(unseen)} labels"
            train = subject.names["train"]
            text = f"{count} of {name} without any {units[:-1]} in {train}: {listing(map(repr, unseen), _LISTED)}"
            yield Finding("labels", "warning", text, "add training rows with them; both files should be of one source")
    if share >= _MAJORITY and task_for(subject.config, rows.labels).best_metric == "accuracy":
        text = f"{share:.1%} of the labels of {name} are {names[most]!r}: accuracy hides how the others are learned"
        yield Finding("labels", "warning", text, "choose by another metric: --metric-for-best-model f1_macro")
    rare = [f"{names[int(label)]!r} ({counts[label]})" for label in there if counts[label] < _RARE]
    if rare and rows is subject.train:
        have = "label of {} has" if len(rare) == 1 else "labels of {} have"
        text = f"{len(rare)} {have.format(name)} fewer than {_RARE} {units}: {listing(rare, _LISTED)}"
        yield Finding("labels", "warning", text, "add rows of them, with or without labels")
    absent = [repr(names[int(label)]) for label in np.flatnonzero(counts == 0)]
    if absent and rows is subject.train:
        text = f"{len(absent)} of the teacher's labels occur in no {units[:-1]} of {name}: {listing(absent, _LISTED)}"
        yield Finding("labels", "note", text)
    text = (
        f"{name} has {total:,} {units} of {len(there)} labels, {counts[there].min():,} to {counts.max():,} {units} each"
    )
    yield Finding("labels", "ok", text)


def _of_several(subject: Subject, name: str, rows: Dataset) -> Iterator[Finding]:
    given = rows.labels[labelled_rows(rows.labels)]
    names, counts = subject.config.id2label, given.sum(axis=0)
    none = float((given.sum(axis=1) == 0).mean())
    if none == 1:
        text = f"no row of {name} has any of the {len(names)} labels"
        yield Finding("labels", "error", text, "check --label-column")
        return
    never = [repr(names[int(label)]) for label in np.flatnonzero(counts == 0)]
    if never and rows is subject.train:
        text = f"{len(never)} of {len(names)} labels occur in no row of {name}: {listing(never, _LISTED)}"
        yield Finding("labels", "warning", text, "add training rows with them")
    text = (
        f"{name} has {len(given):,} rows with {given.sum(axis=1).mean():.2f} of {len(names)} labels on average, "
        f"{none:.1%} with none; a label is in {int(counts.min()):,} to {int(counts.max()):,} rows"
    )
    yield Finding("labels", "ok", text)


def _of_numbers(subject: Subject, name: str, rows: Dataset) -> Iterator[Finding]:
    given = rows.labels[labelled_rows(rows.labels)]
    mean, deviation = float(given.mean()), float(given.std())
    if deviation == 0:
        text = f"all {len(given):,} labels of {name} are {mean:g}: there is nothing to learn or to measure"
        yield Finding("labels", "error", text, "take a sample of rows with other numbers")
    elif max(abs(mean), deviation) > _WIDE:
        text = f"the labels of {name} have a mean of {mean:.4g} and a deviation of {deviation:.4g}"
        yield Finding("labels", "warning", text, "scale them to about 0 to 1, which a new classifier reaches at once")
    else:
        text = f"{name} has {len(given):,} labels from {given.min():.4g} to {given.max():.4g}, on average {mean:.4g}"
        yield Finding("labels", "ok", text)


def texts(subject: Subject) -> Iterator[Finding]:
    """Check for rows that hold no text, and for those that are cut."""
    for name, rows in subject.sets().items():
        empty = int((rows.lengths <= subject.special_tokens(rows)).sum())
        if empty:
            text = f"{empty:,} of {len(rows):,} {rows.rows_are} of {name} have no text"
            yield Finding("texts", "warning", text, "leave them out, or name the right column with --text-column")
        cut = cut_rows_sentence(rows, name)
        if cut is not None:
            assert rows.reading is not None
            many = rows.reading.cut > _CUT * len(rows)
            yield Finding("texts", "warning" if many else "note", cut, _remedy_for_cut(subject, rows))
        if subject.tokenizer is None:
            continue
        text = (
            f"{name} has {len(rows):,} {rows.rows_are} of {int(np.median(rows.lengths))} tokens (median), at most "
            f"{int(rows.lengths.max())}"
        )
        yield Finding("texts", "ok", text)


def _remedy_for_cut(subject: Subject, rows: Dataset) -> str:
    assert rows.reading is not None
    positions = subject.config.max_tokens
    if rows.reading.max_length is not None and rows.reading.max_length < positions:
        return f"raise --max-length; the model reads up to {positions} tokens"
    return "the model reads no more; put what decides at the beginning, or split these texts"


def columns(subject: Subject) -> Iterator[Finding]:
    """Check which columns are read."""
    for rows in subject.sets().values():
        use = rows.column_use
        if rows is subject.eval and not (rows.labelled or subject.config.embeds):
            continue  # the error about it lists the columns
        if use is not None and use.unused:
            remedy = "if they hold text or label, name them: --text-column, --text-pair-column, --label-column"
            yield Finding("columns", "note", use.unused_sentence(), remedy)
        elif use is not None:
            label = f"the label in {listing(use.labels)}" if use.labels else "no label"
            yield Finding("columns", "ok", f"{use.source}: texts are in {listing(use.texts)}, {label}")


def repeated_texts(subject: Subject) -> Iterator[Finding]:
    """Check for training rows with the same text."""
    rows = subject.train
    if rows is None:
        return
    name = subject.names["train"]
    _, first, of = np.unique(row_keys(rows), return_index=True, return_inverse=True)
    repeated = len(rows) - len(first)
    labelled, labels = rows.have_labels() & (not isinstance(rows.windows, Sentences)), rows.labels
    if rows.per_token:  # equal texts have as many tokens, so their labels can be compared as bytes
        labels = np.array([row.tobytes() for row in Ragged(rows.labels, rows.starts)], dtype=object)
    differs = labelled & labelled[first][of] & (labels != labels[first][of]).reshape(len(rows), -1).any(axis=1)
    contradicting = len(np.unique(of[differs]))
    if contradicting:
        text = f"{contradicting:,} of {len(first):,} texts of {name} occur with different labels"
        level = "warning" if contradicting > _CONTRADICTING * len(first) else "note"
        yield Finding("repeated texts", level, text, "keep one label of each")
        return
    text = f"{repeated:,} of {len(rows):,} {rows.rows_are} of {name} repeat an earlier one"
    if repeated > len(rows) / 2:
        yield Finding("repeated texts", "warning", text, "keep each once; more epochs do the same")
    else:
        yield Finding("repeated texts", "ok", text)


def shared_texts(subject: Subject) -> Iterator[Finding]:
    """Check for evaluation rows that training rows hold too."""
    if subject.train is None or subject.eval is None:
        return
    overlap = find_overlap(subject.eval, subject.train)
    total, share = int(overlap.shared.sum()), float(overlap.shared.mean())
    train, name = subject.names["train"], subject.names["eval"]
    text = (
        f"{total:,} of {len(subject.eval):,} {subject.eval.rows_are} of {name} ({share:.1%}) share text with {train}: "
        f"{int(overlap.equal.sum()):,} are equal to a row, {int(overlap.inside.sum()):,} are a phrase of one and "
        f"{int(overlap.around.sum()):,} hold one"
    )
    if share >= _SHARED:
        yield Finding(
            "shared texts",
            "error",
            f"{text}; the figures will look better than the student is",
            "take evaluation rows whose texts are in no training row, or delete those from the training rows",
        )
    elif overlap.equal.mean() >= _EQUAL:
        yield Finding("shared texts", "warning", text, "leave the equal rows out of either file")
    else:
        yield Finding("shared texts", "ok", text)


def evaluation(subject: Subject) -> Iterator[Finding]:
    """Check that there are rows to measure the student on."""
    if "eval" not in subject.names and subject.args.eval_strategy != "no":
        yield Finding("evaluation", "warning", NO_EVALUATION, "give labelled rows as --eval")


def evaluation_size(subject: Subject) -> Iterator[Finding]:
    """Check that there are rows enough to measure the student on."""
    if subject.eval is None or not subject.eval.labelled or subject.config.embeds:
        return
    rows, count = subject.eval, subject.eval.labelled
    if rows.hidden:
        words = int((rows.labels >= 0).sum())
        text = f"the student is measured on {words:,} hidden words of {subject.names['eval']}"
        yield Finding("evaluation", "ok", text)
        return
    text = f"the student is measured on {count:,} {examples_of(rows)} of {subject.names['eval']}"
    task, margin = task_for(subject.config, rows.labels), 1.96 * _deviation(count)
    few = count < _FEW
    if task.right_rows is not None and not task.labels_per_token:  # one answer, right or wrong, for each example
        figure, scale = ("exact_match", 100) if isinstance(rows.windows, Spans) else ("accuracy", 1)
        best = f"an {figure} of {0.9 * scale:g}"
        if few:
            least = f"{scale * (0.9 - margin):.{2 if scale == 1 else 0}f}"
            text = f"{text}: {best} is one of {least} to {scale} with other {examples_of(rows)}"
        else:
            text = f"{text}: {best} is right within {scale * margin:.{3 if scale == 1 else 1}f}"
    yield Finding("evaluation", "warning" if few else "ok", text, "give more rows as --eval" if few else "")


def _deviation(count: int) -> float:
    """Return the standard deviation of an accuracy of 0.9 on so many rows."""
    return float(np.sqrt(0.9 * 0.1 / count))
