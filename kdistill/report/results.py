"""The sections of a model card on how good the model is, on the evaluation rows and on rows that chose nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..data.overlap import MIN_PHRASE_TOKENS
from ..distill.given import Given
from ..distill.sources import Teachers
from ..distill.teachers import Teacher
from ..metrics.mcnemar import FEW_DISCORDANT_PAIRS, McNemar
from ..tasks.base import Task
from ..train.directory import CLASSES_FILE, CONFUSIONS_FILE
from ..train.evaluation_sets import metric_prefix
from .assessment import CALIBRATION_BINS, Spread
from .chosen import choice, threshold_of_training_rows
from .constant import constant_answer
from .markdown import code, table, table_of
from .per_class import worst
from .report import Comparison, Measured, Report, spreads

_INTERVALS = {
    "accuracy": "Wilson's (1927) for the accuracy",
    "pearson": "Fisher's (1921) for Pearson's correlation",
    "spearmanr": "Bonett and Wright's (2000) for Spearman's",
}
_MOST_CLASSES = 10


def result_sections(report: Report) -> Iterator[str]:
    """Yield what the evaluation rows show: figures beside the teacher's, classes, seeds, the course of the training."""
    data, measured = report.eval, report.measured
    if data is None or measured is None:
        text = "The model was not evaluated: nothing is known of how good it is."
        yield f"## Results\n\n{text}{threshold_of_training_rows(report)}"
        if report.speed is not None:
            yield _models(report)
    else:
        yield f"## Results\n\nOn the {measured.n:,} {report.subject.task.rows_are} of {code(data.name)}:"
        yield _models(report)
        yield _reading(measured, report.subject.task)
    if report.speed is not None:
        speed = report.speed
        yield (
            f"Speed is that of {speed.rows} {'' if speed.rows_are == 'rows' else f'{speed.rows_are} '}of these rows in "
            f"batches of {speed.batch_size}, on "
            f"{speed.threads} thread{'s' * (speed.threads > 1)} of this machine ({speed.cpu}, {speed.isa_level})."
        )
    yield _types(report)
    if measured is not None:
        yield choice(report)
        for comparison in report.without_teacher[:1]:
            yield _without_teacher(comparison, report.subject.task)
        if report.seeds or len(report.without_teacher) > 1:
            yield _seeds(report)
        yield from _classes(report)
        if report.subject.state.log_history:
            yield f"### Course of the training\n\n{_history(report)}"


def _models(report: Report) -> str:
    """Write a row for each model, a column for each thing measured of any of them."""
    subject, speed = report.subject, report.speed
    rows: list[dict[str, str]] = []
    if subject.teachers is not None:
        rows += _rows_of_teachers(report, subject.teachers)
    rows.append(_sizes("this model", subject.model.num_parameters(), subject.file_bytes, speed and speed.model))
    rows[-1] |= _columns(report.measured)
    rows += [
        {"": f"the same without a teacher, {code(other.name)}", **_columns(other.measured)}
        for other in report.without_teacher[:1]
    ]
    constant = {} if report.measured is None else constant_answer(subject, report.measured.scores)
    if constant:
        what = "the most frequent labels" if subject.task.names_labels else "the mean"
        what = "the most frequent label" if subject.task.one_label else what
        answer = f"always {what}, {code(constant.pop('answer'))}"
        rows.append({"": answer} | {name: f"{value:.4f}" for name, value in constant.items()})
    return table_of(rows)


def _rows_of_teachers(report: Report, teachers: Teachers) -> Iterator[dict[str, str]]:
    """Yield a row for each teacher, and one for several together."""
    for source, measured in zip(teachers.sources, report.each_teacher, strict=False):  # of one teacher there is none
        size = source.model.num_parameters() if isinstance(source, Teacher) else None
        yield _row_of_teacher(f"teacher {code(source.name)}", size, None, measured)
    name = f"teacher {code(teachers.name)}" if len(teachers) == 1 else "the teachers together"
    yield _row_of_teacher(name, teachers.num_parameters, report.speed and report.speed.teacher, report.teacher)


def _row_of_teacher(name: str, size: int | None, speed: float | None, measured: Measured | None) -> dict[str, str]:
    return ({"": name} if size is None else _sizes(name, size, 4 * size, speed)) | _columns(measured)


def _sizes(name: str, num_parameters: int, file_bytes: int | None, speed: float | None) -> dict[str, str]:
    row = {"": name, "parameters": f"{num_parameters:,}"}
    row |= {} if file_bytes is None else {"weights, MB": f"{file_bytes / 1e6:.1f}"}
    return row | ({} if speed is None else {"sentences/s": f"{speed:,.0f}"})


def _columns(measured: Measured | None) -> dict[str, str]:
    if measured is None:
        return {}
    row = {}
    for name, value in measured.scores.items():
        row[name] = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        if name in measured.intervals:
            low, high = measured.intervals[name]
            row[f"95 % interval of {name}"] = f"{low:.4f} to {high:.4f}"
    row["loss"] = f"{measured.loss:.4f}"
    row |= {} if measured.ece is None else {"ECE": f"{measured.ece:.4f}"}
    return row | ({} if measured.agreement is None else {"agrees with teacher": f"{measured.agreement:.4f}"})


def _labelled(task: Task) -> str:
    """Return what has a label each: rows, or words."""
    return "words" if task.labels_per_token else "rows"


def _reading(measured: Measured, task: Task) -> str:
    """Explain the columns."""
    parts = [task.loss_is]
    sources = " and ".join(_INTERVALS[name] for name in measured.intervals)
    if sources:
        parts.insert(0, f"Intervals of 95 % are {sources}, on {measured.n:,} rows.")
    if task.metrics_are:
        parts.append(task.metrics_are)
    if task.labels_per_token:
        entities = "; f1, precision and recall count entities, as seqeval does" if "f1" in measured.scores else ""
        parts.append(f"Accuracy is that of the words' tags{entities}.")
    if measured.ece is not None:
        parts.append(
            f"ECE, the expected calibration error, is the mean distance of accuracy and confidence in "
            f"{CALIBRATION_BINS} bins of equal width (Guo et al., 2017, arXiv:1706.04599)."
        )
    if measured.agreement is not None:
        parts.append(f"Agreement is the share of {_labelled(task)} that get the teacher's label.")
    parts.append("Weights are counted as float32.")
    return " ".join(parts)


def _types(report: Report) -> str:
    """State in which types the models multiplied."""
    subject = report.subject
    types = subject.types()
    text = f"This model was trained in {types['training_dtype']} and computes in {types['dtype']}"
    teachers = [] if subject.teachers is None else subject.teachers.models
    for teacher in teachers:
        if teacher.choice is not None:
            text += f"; {'the teacher' if len(teachers) == 1 else code(teacher.name)} {teacher.choice.sentence()}"
    return f"{text}.{_given(subject.teachers)}"


def _given(teachers: Teachers | None) -> str:
    """State how the answers that came with the rows were found for them; "" without any."""
    text = ""
    for source in () if teachers is None else teachers.sources:
        if isinstance(source, Given):
            sha256 = source.figures().get("sha256")
            file = "" if sha256 is None else f" (sha256 {sha256})"
            text += f" The teacher {code(source.name)}{file} was asked elsewhere: {source.sentence()}."
    return text


def _without_teacher(other: Comparison, task: Task) -> str:
    text = f"The same student without a teacher is the run {code(other.name)}, trained on the labels alone"
    if other.differences:
        listed = (f"`{name}` ({there} there, {here} here)" for name, (there, here) in other.differences.items())
        text += f"; beside the teacher it differs in {', '.join(listed)}"
    if other.mcnemar is None:
        return f"{text}."
    right = f" A row is right when {task.right_when}." if task.right_when else ""
    return f"{text}. {_tested(other.mcnemar)}{right}"


def _tested(test: McNemar) -> str:
    kind = (
        "the exact test, on the binomial distribution"
        if test.exact
        else "the chi-square approximation with the continuity correction of Edwards (1948)"
    )
    verdict = (
        "a difference that chance alone seldom makes"
        if test.p_value < 0.05
        else "no more of a difference than chance makes"
    )
    return (
        f"{test.only_first} rows only this model has right, {test.only_second} only the other: McNemar's test (1947; "
        f"{kind}, taken for {'fewer than' if test.exact else 'at least'} {FEW_DISCORDANT_PAIRS} such rows) gives "
        f"p = {test.p_value:.4g}, {verdict}."
    )


def _classes(report: Report) -> Iterator[str]:
    """Write the classes, or the worst of many, and the pairs that are confused most."""
    rows = report.class_rows
    if not rows:
        return
    shown: Sequence[Mapping[str, Any]] = rows
    labelled = _labelled(report.subject.task)
    text = f"Support is the number of {labelled} that have the label."
    if len(rows) > _MOST_CLASSES:
        shown = worst(rows, _MOST_CLASSES)
        text = f"The {len(shown)} of {len(rows)} labels with the lowest F1; `{CLASSES_FILE}` holds all. {text}"
    missed = sum(row["support"] > 0 and not row["predicted"] for row in rows)
    if missed:
        text += f" **The model predicts {missed:,} of the labels for no {labelled[:-1]}.**"
    yield f"### Each label\n\n{text}\n\n{table_of([_figures_of(row) for row in shown])}"
    pairs = report.confused_rows
    if pairs:
        named = [{labelled if name == "rows" else name: of for name, of in row.items()} for row in pairs]
        few = table_of([_figures_of(row) for row in named[:_MOST_CLASSES]])
        rest = "" if len(pairs) <= _MOST_CLASSES else f" `{CONFUSIONS_FILE}` holds all {len(pairs)} pairs."
        yield f"The share is that of the label's {labelled} which got the predicted label instead.{rest}\n\n{few}"


def _figures_of(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.replace("_", " "): f"{value:.4f}" if isinstance(value, float) else str(value)
        for name, value in row.items()
    }


def _seeds(report: Report) -> str:
    """Write mean and deviation over seeds, of this recipe and of the one without a teacher."""
    alone = {comparison.seed: comparison.measured for comparison in report.without_teacher}
    rows = [
        {"": name, "seeds": ", ".join(map(str, runs))}
        | {score: _spread(of) for score, of in spreads(runs.values()).items()}
        for name, runs in (("this recipe", report.seeds), ("without a teacher", alone))
        if len(runs) > 1
    ]
    return (
        f"### Other seeds\n\n{table_of(rows)}\n\n"
        "Mean and sample standard deviation over runs that differ in their seed alone, on the same rows."
    )


def _spread(of: Spread) -> str:
    return f"{of.mean:.4f}" if of.deviation is None else f"{of.mean:.4f} (deviation {of.deviation:.4f})"


def _history(report: Report) -> str:
    task = report.subject.task
    shown = {"loss": "training loss"}
    for name in report.subject.eval_sets or ("",):
        prefix, of = metric_prefix("eval", name), f"{name} " if name else ""
        shown[f"{prefix}_loss"] = f"{of}evaluation loss"
        for metric in (task.best_metric, task.card_metric, report.subject.best_metric):
            shown.setdefault(f"{prefix}_{metric}", f"{of}{metric}")
    return table(
        ["epoch", "step", *shown.values()],
        (
            [
                f"{entry['epoch']:.2f}",
                f"{entry['step']:.0f}",
                *(f"{entry[name]:.4f}" if name in entry else "" for name in shown),
            ]
            for entry in report.subject.state.history()
        ),
    )


def holdout_sections(report: Report) -> Iterator[str]:
    """Yield the figures on rows that chose nothing, and which text they share with the others."""
    holdout = report.holdout
    if holdout is None:
        return
    rows_of = f"{holdout.measured.n:,} {report.subject.task.rows_are} of {code(holdout.data.name)}"
    yield f"## Rows that chose nothing\n\nOn the {rows_of}:"
    rows = [("teacher", holdout.teacher), ("this model", holdout.measured)]
    rows.append(("this model, rows that share no text with the others", holdout.apart))
    yield table_of([{"": name, "rows": f"{of.n:,}", **_columns(of)} for name, of in rows if of is not None])
    for what, overlap in (("training", holdout.training), ("evaluation", holdout.evaluation)):
        if overlap is None:
            continue
        total = int(overlap.shared.sum())
        if total:
            yield (
                f"**{total:,} of the {holdout.data.rows:,} rows share text with the {what} rows**: "
                f"{int(overlap.equal.sum()):,} are equal to one, {int(overlap.inside.sum()):,} are a phrase of one, "
                f"and {int(overlap.around.sum()):,} hold one of at least {MIN_PHRASE_TOKENS} tokens as a phrase. "
                "Such rows do not measure how good the model is on new text."
            )
        else:
            yield f"No row shares text with the {what} rows."
