"""The metadata of a model card: the YAML header that the Hugging Face hub reads, `model-index` included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Self

from ..system.files import json_text
from ..train.encoding import IN_MEMORY
from .report import Report

# For those who open the file: the hub and its library read past it.
_NO_MODEL_INDEX = (
    "# Without model-index, whose results belong to a data set: name it with --dataset-tags or --dataset-name."
)


@dataclass(frozen=True)
class CardMetadata:
    """Facts for the card that a person has to give.

    Attributes:
        language: ISO 639 codes.
        license: an identifier of the hub.
        tags: further tags.
        datasets: ids of the data sets on the hub that the rows are from.
        dataset_names: what people call them (default: by their ids).
    """

    language: tuple[str, ...] = ()
    license: str | None = None
    tags: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    dataset_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        language: str | Sequence[str] | None,
        license: str | None,
        tags: str | Sequence[str] | None,
        datasets: str | Sequence[str] | None,
        dataset_names: str | Sequence[str] | None,
    ) -> Self:
        """Return the metadata of values that may be one, several or None."""
        return cls(_as_tuple(language), license, _as_tuple(tags), _as_tuple(datasets), _as_tuple(dataset_names))


def _as_tuple(values: str | Sequence[str] | None) -> tuple[str, ...]:
    several = (values,) if isinstance(values, str) else tuple(values or ())
    return tuple(value for value in several if value)


def header(report: Report, metadata: CardMetadata) -> str:
    """Write the header with its dashes (https://huggingface.co/docs/hub/model-cards#model-card-metadata)."""
    subject = report.subject
    task = subject.task
    tags = [
        subject.model.config.model_type,
        task.pipeline_tag,
        "kdistill",
        *(["knowledge-distillation"] if subject.teachers else []),
    ]
    entries: dict[str, Any] = {
        "language": list(metadata.language),
        "license": metadata.license,
        "library_name": "sentence-transformers" if subject.model.config.embeds else "transformers",
        "pipeline_tag": task.pipeline_tag,
        "tags": [*tags, *metadata.tags],
        "base_model": subject.started_from if _is_hub_id(subject.started_from) else None,
        "datasets": list(metadata.datasets),
        "metrics": [task.card_metric] if task.card_metric in _scores(report) else [],
        "model-index": _model_index(report, metadata),
    }
    # JSON is YAML, and its quotes leave no name to be taken for a number, a date or a list.
    lines = [f"{name}: {json_text(value)}" for name, value in entries.items() if value not in (None, [])]
    if report.measured is not None and not entries["model-index"]:
        lines.append(_NO_MODEL_INDEX)
    return "\n".join(["---", *lines, "---"])


def _scores(report: Report) -> set[str]:
    """Return the names of what was measured on evaluation rows or held-out ones."""
    holdout = None if report.holdout is None else report.holdout.measured
    return {name for measured in (report.measured, holdout) if measured is not None for name in measured.scores}


def _model_index(report: Report, metadata: CardMetadata) -> list[dict[str, Any]]:
    """Return the results as the hub takes them; empty when there are none, or nobody has named the data set.

    A result there belongs to a data set, which the name of a file is not: transformers leaves it out as well. The file
    names the split.
    """
    called = metadata.dataset_names or metadata.datasets
    if not called:
        return []
    dataset = {"type": (metadata.datasets or called)[0], "name": ", ".join(called)}
    measured = [(report.eval, report.measured)]
    measured += [] if report.holdout is None else [(report.holdout.data, report.holdout.measured)]
    tag = report.subject.task.pipeline_tag
    task = {"type": tag, "name": tag.replace("-", " ").title()}
    results = [
        {
            "task": task,
            "dataset": dataset | ({} if data.name == IN_MEMORY else {"split": PurePath(data.name).stem}),
            "metrics": [
                {"type": name, "value": value, "name": name}
                for name, value in of.scores_and_loss.items()
                if name != "threshold"  # which is no metric
            ],
        }
        for data, of in measured
        if data is not None and of is not None
    ]
    return [{"name": report.subject.name, "results": results}] if results else []


def _is_hub_id(name: str | None) -> bool:
    return name is not None and name.count("/") == 1
