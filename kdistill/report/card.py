"""Write the model card README.md: a report as Markdown, under the metadata that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..distill.sources import Teachers
from ..distill.teachers import Teacher
from ..models.layer_shapes import in_words
from ..system.cpu import cpu_name
from ..system.files import json_text, write_text
from ..system.progress import format_duration
from ..system.threads import show_config
from ..train.directory import CARD_FILE, CLASSES_FILE, CONFUSIONS_FILE, may_replace
from ..train.presets import STUDENT_PRESETS
from ..train.without_effect import is_used_by
from .markdown import code, line, table
from .measure import make_report
from .metadata import CardMetadata, header
from .per_class import tsv_of
from .pictures import draw_report
from .report import Questions, Report, Subject
from .results import holdout_sections, result_sections

_LISTED_GROUPS = ("training", "optimiser", "distillation", "evaluation")


def write_model_card(directory: Path, subject: Subject, questions: Questions, metadata: CardMetadata) -> Report:
    """Measure the subject, write its model card README.md into `directory` and return the report.

    With `args.plots` the pictures are written too, and the card shows them.

    Where there are classes, per_class.tsv and confusions.tsv hold all of those that the card shows the worst of.

    Raises what `measure.make_report` raises, and warns as it does; `FileExistsError` for a README.md that is no card.
    """
    path = directory / CARD_FILE
    if not may_replace(path):
        raise FileExistsError(f"{path} exists, and kdistill did not write it; move it elsewhere")
    report = make_report(subject, questions)
    pictures = draw_report(directory, report) if subject.args.plots else []
    for name, rows in ((CLASSES_FILE, report.class_rows), (CONFUSIONS_FILE, report.confused_rows)):
        if rows:
            write_text(directory / name, tsv_of(rows))
    write_text(path, model_card(report, metadata, pictures))  # last: without it, a resumed run writes them all
    return report


def model_card(report: Report, metadata: CardMetadata, pictures: Sequence[str] = ()) -> str:
    """Write the card as Markdown with the hub's YAML header (https://huggingface.co/docs/hub/model-cards).

    `pictures` are the paths of those to show, relative to the card.
    """
    sections = [
        header(report, metadata),
        _introduction(report),
        *result_sections(report),
        *holdout_sections(report),
        *_pictures(pictures),
        _data(report),
        _training(report),
        _environment(),
        _usage(report),
    ]
    return "\n\n".join(sections) + "\n"


def _introduction(report: Report) -> str:
    subject, config = report.subject, report.subject.model.config
    how = subject.task.learns_from
    if subject.teachers is not None:
        how = f"distilled from {_teachers(subject.teachers)}"
    start = f", starting from {code(subject.started_from)}" if subject.started_from else ""
    use, layers = subject.task.description(list(config.id2label.values())), config.num_hidden_layers
    return (
        f"# {line(subject.name)}\n\n"
        f"{config.kind} with {layers} layer{'s' * (layers > 1)}, hidden size {config.hidden_size}, "
        f"{in_words(config.layer_shapes())[0]} heads and {subject.model.num_parameters():,} parameters, "
        f"{how}{start} with kdistill. {use}"
    )


def _teachers(teachers: Teachers) -> str:
    """Return the names of the teachers with their architectures, and what each counts."""
    each = []
    for source, weight in zip(teachers.sources, teachers.weights.tolist(), strict=True):
        facts = [source.model.config.kind] if isinstance(source, Teacher) else []
        facts += [f"weight {weight:.3g}"] if len(teachers) > 1 else []
        each.append(code(source.name) + (f" ({', '.join(facts)})" if facts else ""))
    return f"the teacher {each[0]}" if len(each) == 1 else f"the teachers {', '.join(each[:-1])} and {each[-1]}"


def _pictures(pictures: Sequence[str]) -> Iterator[str]:
    if pictures:
        shown = (f"![{Path(path).stem.replace('_', ' ')}]({path})" for path in pictures)
        yield "\n\n".join(["## Pictures", *shown])


def _data(report: Report) -> str:
    held = None if report.holdout is None else report.holdout.data
    made = report.subject.task.makes_labels
    uses = (("training", report.train), ("evaluation", report.eval), ("held out", held))
    rows = (
        [use, code(of.name), f"{of.rows:,}", "" if made else f"{of.labelled:,}", _percent(of.majority_share)]
        for use, of in uses
        if of is not None
    )
    return f"## Data\n\n{table(['use', 'data', 'rows', 'with label', 'most frequent label'], rows)}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _training(report: Report) -> str:
    args, state = report.subject.args, report.subject.state
    head = report.subject.model.config.head
    listed = [field.name for field in fields(args) if field.metadata["group"] in _LISTED_GROUPS]
    listed = [name for name in listed if is_used_by(name, head)]
    values = {name: getattr(args, name) for name in listed}
    values |= {"gradient_accumulation_steps": args.micro_batches_per_step}  # as the run's files have it
    arguments = table(["argument", "value"], ([f"`{name}`", f"{value}"] for name, value in values.items()))
    duration = format_duration(state.train_runtime)
    together = f", by {state.ranks} processes that shared the micro-batches" if state.ranks > 1 else ""
    chosen = ""
    if args.recipe in STUDENT_PRESETS:
        chosen = f" The recipe {code(args.recipe)} chose what nobody gave of the student's shape and of the arguments."
    return f"## Training\n\n{state.global_step:,} steps of AdamW in {duration}{together}.{chosen}\n\n{arguments}"


def _environment() -> str:
    config = show_config()
    rows = [["CPU", cpu_name()], ["kdistill", str(config.pop("version"))]]
    rows += [[name, str(value)] for name, value in config.items()]
    rows += [[name, _version(name)] for name in ("tokenizers", "safetensors")]
    return f"## Environment\n\nWhere this card was written:\n\n{table(['what', 'which'], rows)}"


def _version(package: str) -> str:
    """Return the version of an installed package; some are installed without the files that state it."""
    try:
        return str(version(package))
    except PackageNotFoundError:
        return "unknown"


def _usage(report: Report) -> str:
    task, name = report.subject.task, json_text(report.subject.name, ensure_ascii=False)  # a string of Python as well
    lines = task.usage(task.pipeline_tag, name, report.subject.model)
    return "\n".join(["## Use", "", "```python", *lines, "```"])
