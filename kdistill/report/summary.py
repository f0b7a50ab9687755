"""The short table at the end of a run: the model beside its teacher and beside the answer that needs no model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..distill.sources import Teachers
from ..metrics.prediction import labelled_answers
from ..models.model import Model
from ..system.progress import format_duration
from ..train.arguments import DistillationTrainingArguments
from .constant import constant_answer
from .measure import speed_at_a_glance
from .report import Measured, Report, Subject

WIDTH = 100
_MOST_METRICS = 4
_WIDTH_OF_NAMES = 26  # where they need it, metrics make room
# Figures beside the metrics: the title of their column, and how they are written.
_SIZES: dict[str, tuple[str, Callable[[float], str]]] = {
    "num_parameters": ("parameters", lambda number: f"{number:,}"),
    "bytes": ("MB", lambda number: f"{number / 1e6:,.1f}"),
    "sentences_per_second": ("sentences/s", lambda number: f"{number:,.0f}"),
}


def summarize(report: Report) -> dict[str, Any]:
    """Return the figures of a finished run, JSON-ready.

    Returns:
        `metrics`, the names of those that matter most, the one that chose the weights first; `model` and, where there
        is one, `teacher`, each with its metrics, `num_parameters`, `bytes` of its weights and `sentences_per_second`;
        `majority`, with the metrics of the best `answer` that does not look at the text; `rows`, those measured on, and
        `rows_are`, what they are; `train_rows`; `train_seconds`; `best_epoch` where the weights are those of the best
        of several evaluations.
    """
    subject, state = report.subject, report.subject.state
    found: dict[str, Any] = {"name": subject.name, "metrics": _main_metrics(report)}
    found["model"] = _of_model(report, subject.model, report.measured, subject.file_bytes)
    if subject.teachers is not None:
        found["teacher"] = {"name": subject.teachers.name, **_of_teachers(report, subject.teachers)}
    if report.measured is not None and subject.task.constant is not None:
        found["majority"] = constant_answer(subject, report.measured.scores)
    if report.eval is not None:
        found["eval"], found["rows"], found["rows_are"] = report.eval.name, report.eval.labelled, subject.task.rows_are
    if report.train is not None:
        found["train"], found["train_rows"] = report.train.name, report.train.rows
    found["train_seconds"] = state.train_runtime
    if subject.args.load_best_model_at_end and state.best_global_step:
        epochs = [entry["epoch"] for entry in state.log_history if entry["step"] == state.best_global_step]
        found |= {"best_epoch": epochs[0], "epochs": state.epoch} if epochs else {}
    return found


def _main_metrics(report: Report) -> list[str]:
    if report.measured is None:
        return []
    scores = report.measured.scores
    names = [report.subject.best_metric, *report.subject.task.default_metrics, *scores]
    return [name for name in dict.fromkeys(names) if name in scores][:_MOST_METRICS]


def _of_model(report: Report, model: Model, measured: Measured | None, file_bytes: int | None) -> dict[str, Any]:
    rows = report.subject.eval if report.subject.eval is not None else report.subject.train
    found: dict[str, Any] = {} if measured is None else measured.scores_and_loss
    size = model.num_parameters()
    found |= {
        "num_parameters": size,
        "bytes": 4 * size if file_bytes is None else file_bytes,
        "dtype": str(model.dtype),
    }
    if rows is not None:
        found["sentences_per_second"] = speed_at_a_glance(model, rows, report.subject.args.per_device_eval_batch_size)
    return found


def _of_teachers(report: Report, teachers: Teachers) -> dict[str, Any]:
    """Return the figures of all teachers together: their sizes add up, and so does the time that they take."""
    found: dict[str, Any] = {} if report.teacher is None else report.teacher.scores_and_loss
    size, args = teachers.num_parameters, report.subject.args
    if size is None:
        return found
    found |= {"num_parameters": size, "bytes": 4 * size}
    types = {teacher.dtype for teacher in teachers.models}
    found |= {"dtype": types.pop()} if len(types) == 1 else {}
    rows = report.subject.eval if report.subject.eval is not None else report.subject.train
    if rows is not None:
        assert isinstance(args, DistillationTrainingArguments)
        seconds = 0.0
        for teacher in teachers.models:
            read = teacher.rows_as_read(rows, args)
            seconds += 1 / speed_at_a_glance(teacher.answering, read, args.per_device_eval_batch_size)
        found["sentences_per_second"] = 1 / seconds
    teachers.release()
    return found


def compare_search(subject: Subject, best: float, metric: str) -> dict[str, Any]:
    """Return a search's best objective beside that of the teacher and of the best constant answer, as `summarize` does.

    Args:
        subject: the run that the trials vary.
        best: the objective.
        metric: the one it is.
    """
    found: dict[str, Any] = {"metrics": [metric], "model": {metric: best}}
    rows, task = subject.eval, subject.task
    if rows is None:
        return found
    taught = subject.teacher_logits(rows)
    if subject.teachers is not None and taught is not None:
        names = [metric] if metric in task.metrics else []
        scores = task.evaluate(taught, rows.targets) | task.compute(names, *labelled_answers(taught, rows.targets))
        types = {teacher.dtype for teacher in subject.teachers.models}
        found["teacher"] = {"name": subject.teachers.name} | ({"dtype": types.pop()} if len(types) == 1 else {})
        found["teacher"] |= {name: scores[name] for name in [metric] if name in scores}
    majority = constant_answer(subject, [metric])
    return found | ({"majority": majority} if metric in majority else {})


def table(summary: Mapping[str, Any], model: str = "", width: int = WIDTH) -> str:
    """Return the figures of `summarize` or `compare_search` as a table, in lines of at most `width` columns.

    Args:
        summary: the figures.
        model: the name of the first row (default: student or model, and the run's name).
        width: columns of the terminal.
    """
    of_model = summary["model"]
    metrics = [*summary["metrics"], *(["loss"] if "loss" in of_model and "loss" not in summary["metrics"] else [])]
    sizes = {name: title for name, (title, _) in _SIZES.items() if name in of_model}
    name = model or f"{'student' if 'teacher' in summary else 'model'} {summary['name']}"
    of = [(name, of_model)]
    if "teacher" in summary:
        dtype = summary["teacher"].get("dtype", "float32")
        in_type = "" if dtype == "float32" else f" in {dtype}"
        of.append((f"teacher {summary['teacher']['name']}{in_type}", summary["teacher"]))
    if "majority" in summary:
        kind = "mean" if "mse" in summary["majority"] else "majority"
        of.append((f"{kind} (always {summary['majority']['answer']})", summary["majority"]))
    wanted = min(max(len(name) for name, _ in of), _WIDTH_OF_NAMES)
    while True:
        header = ["", *metrics, *sizes.values()]
        rows = [[name, *_cells(figures, metrics, sizes)] for name, figures in of]
        if len(metrics) <= 2 or wanted + _width_beside_names([header, *rows]) <= width:
            return "\n".join(aligned(header, rows, width))
        metrics.pop()


def _width_beside_names(cells: Sequence[Sequence[str]]) -> int:
    return sum(2 + max(len(row[column]) for row in cells) for column in range(1, len(cells[0])))


def _cells(of: Mapping[str, Any], metrics: Iterable[str], sizes: Iterable[str]) -> list[str]:
    cells = [_figure(of[name]) if name in of else "" for name in metrics]
    return cells + [_SIZES[name][1](of[name]) if name in of else "" for name in sizes]


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """Return the rows that the table of `summarize` was measured on and the time that the training took."""
    lines = []
    if "eval" in summary:
        lines.append(f"measured on the {summary['rows']:,} {summary['rows_are']} of {summary['eval']}")
    of = f" on the {summary['train_rows']:,} rows of {summary['train']}" if "train" in summary else ""
    best = f"; weights of epoch {summary['best_epoch']:.4g}, the best" if "best_epoch" in summary else ""
    lines.append(f"trained for {duration(summary['train_seconds'])}{of}{best}")
    return lines


def duration(seconds: float) -> str:
    """Return seconds as people say them: "17 seconds", "3.5 minutes", or h:mm:ss from an hour on."""
    if seconds < 10:
        return f"{seconds:.1f} seconds"
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else format_duration(seconds)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a table as lines: the first column to the left, shortened to what the width leaves, the others right."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(1, len(header))]
    first = min(max(len(row[0]) for row in cells), max(width - sum(widths) - 2 * len(widths), 10))
    lines = (
        f"{shortened(row[0], first):{first}}"
        + "".join(f"  {cell:>{size}}" for cell, size in zip(row[1:], widths, strict=True))
        for row in cells
    )
    return [line.rstrip() for line in lines]


def shortened(text: str, width: int) -> str:
    """Return text of printable characters without its middle, where it is longer than `width`."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) <= width:
        return text
    end = (width - 3) // 2
    return f"{text[: width - 3 - end]}...{text[len(text) - end :]}"
