"""Pictures as files: those of a report, which its model card links, and those of a search. `figures` draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.ragged import units
from ..metrics.prediction import Labels, Logits, labelled_answers
from ..system.files import atomic_path
from ..train.directory import PLOTS_DIRECTORY, RunDirectory, may_replace
from ..train.evaluate import predict
from .figures import (
    ModelPoint,
    accuracy_against_speed,
    confusion_matrix,
    parameter_importance,
    reliability_diagram,
    search_history,
    training_curves,
)
from .report import Report

DOTS_PER_INCH = 150


@dataclass(frozen=True)
class Material:
    """What the pictures of a report are drawn from.

    Attributes:
        report: the report.
        logits: those of this model, and of its teacher where there is one, on the evaluation rows, by the name in a
            legend; float32 (rows, labels), or (tokens, labels) of those that have a label. Empty without labelled rows.
        labels: of the same rows or tokens; None without any.
    """

    report: Report
    logits: Mapping[str, Logits]
    labels: Labels | None

    @classmethod
    def of(cls, report: Report) -> Material:
        """Compute the logits."""
        subject, rows = report.subject, report.subject.eval
        if rows is None or report.measured is None:
            return cls(report, {}, None)
        size = subject.args.per_device_eval_batch_size
        ours = predict(subject.model, rows, batch_size=size, prefix="", progress=lambda done, total: None).predictions
        taught = subject.teacher_logits(rows)
        logits = {subject.name: ours}
        if subject.teachers is not None and taught is not None:
            logits[f"teacher {subject.teachers.name}"] = taught
        if rows.per_token:
            answers = {name: labelled_answers(of, rows.targets) for name, of in logits.items()}
            tags = units(next(iter(answers.values()))[1])
            return cls(report, {name: units(of) for name, (of, _) in answers.items()}, tags)
        return cls(report, {name: units(of) for name, of in logits.items()}, rows.labels)


def _curves(material: Material) -> Any:
    subject = material.report.subject
    return training_curves({subject.name: subject.state}) if subject.state.history() else None


def _reliability(material: Material) -> Any:
    if material.labels is None or not material.report.subject.task.one_label:
        return None
    return reliability_diagram(material.logits, material.labels)


def _confusions(material: Material) -> Any:
    subject, labels = material.report.subject, material.labels
    if labels is None or not subject.task.one_label:
        return None
    return confusion_matrix(material.logits[subject.name], labels, list(subject.model.config.id2label.values()))


def _speed(material: Material) -> Any:
    report = material.report
    subject, speed = report.subject, report.speed
    if speed is None or report.measured is None or report.measured.intervals.get("accuracy") is None:
        return None
    measured = [(subject.name, subject.model.num_parameters(), report.measured, speed.model)]
    size = None if subject.teachers is None else subject.teachers.num_parameters
    if subject.teachers is not None and size and report.teacher is not None and speed.teacher is not None:
        measured.append((f"teacher {subject.teachers.name}", size, report.teacher, speed.teacher))
    return accuracy_against_speed(
        {
            name: ModelPoint(per_second, of.scores["accuracy"], of.intervals["accuracy"], size)
            for name, size, of, per_second in measured
        }
    )


def _importance(study: Any) -> Any:
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return parameter_importance(study) if len(complete) > 1 and len({trial.value for trial in complete}) > 1 else None


# The one list of the pictures: by the name of the file, what draws it, or returns None where there is nothing to draw.
OF_A_REPORT: dict[str, Callable[[Material], Any]] = {
    "training_curves": _curves,
    "reliability": _reliability,
    "confusion_matrix": _confusions,
    "accuracy_against_speed": _speed,
}
OF_A_SEARCH: dict[str, Callable[[Any], Any]] = {"search_history": search_history, "parameter_importance": _importance}


def draw_report(directory: Path, report: Report) -> list[str]:
    """Write the pictures of a report below `directory`, in place of earlier ones; return their paths relative to it.

    Raises:
        FileExistsError: one of them exists, and kdistill did not write it.
        ImportError: matplotlib is not installed.
    """
    material = Material.of(report)
    return _write(directory, {name: draw(material) for name, draw in OF_A_REPORT.items()})


def draw_search(directory: Path, study: Any) -> list[str]:
    """Write the pictures of a study of one direction, as `draw_report` does."""
    return _write(directory, {name: draw(study) for name, draw in OF_A_SEARCH.items()})


def _write(directory: Path, figures: Mapping[str, Any]) -> list[str]:
    RunDirectory(directory).delete_pictures()
    written = []
    for name, figure in figures.items():
        if figure is None:
            continue
        path = directory / PLOTS_DIRECTORY / f"{name}.png"
        if not may_replace(path):
            raise FileExistsError(f"{path} exists, and kdistill did not write it; move it elsewhere")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH, metadata={"Software": "kdistill"})
        written.append(path.relative_to(directory).as_posix())
    return written
