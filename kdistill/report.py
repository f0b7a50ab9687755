"""The model card README.md: what was trained on what, how, how well, and on which machine."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .arguments import TrainingArguments
from .config import BertConfig
from .data import Dataset
from .assessment import wilson_interval
from .metrics import majority_share
from .progress import format_duration
from .rows import labelled_rows
from .runtime import show_config
from .state import TrainerState

_LISTED_GROUPS = ("training", "optimiser", "distillation", "evaluation")


@dataclass(frozen=True)
class DataFacts:
    """One set of rows: its name, how many there are, how many have a label, the share of the most frequent label
    (NaN: rows have no single label)."""

    name: str
    rows: int
    labelled: int
    majority_share: float

    @classmethod
    def of(cls, name: str, dataset: Dataset | None) -> DataFacts | None:
        """Count the rows of `dataset`; None for None."""
        if dataset is None:
            return None
        labelled = int(labelled_rows(dataset.labels).sum())
        share = majority_share(dataset.labels) if dataset.labels.dtype.kind == "i" else math.nan
        return cls(name, len(dataset), labelled, share)


@dataclass(frozen=True)
class TeacherFacts:
    """The teacher: its name, its size and its accuracy on the evaluation rows (None: not measured)."""

    name: str
    num_parameters: int
    accuracy: float | None


@dataclass(frozen=True)
class CardFacts:
    """All that the model card tells."""

    name: str
    started_from: str | None
    config: BertConfig
    num_parameters: int
    args: TrainingArguments
    state: TrainerState
    results: dict[str, float]
    train: DataFacts | None
    eval: DataFacts | None
    teacher: TeacherFacts | None


def model_card(facts: CardFacts) -> str:
    """Write the card as Markdown with the hub's YAML header."""
    sections = [
        _header(facts),
        _introduction(facts),
        _results(facts),
        _data(facts),
        _training(facts),
        _environment(facts),
        _usage(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _header(facts: CardFacts) -> str:
    tags = ["bert", "text-classification", "kdistill"] + (["knowledge-distillation"] if facts.teacher else [])
    lines = ["library_name: transformers", "pipeline_tag: text-classification", f"metrics: [{_metric(facts)}]"]
    return "\n".join(["---", *lines, f"tags: [{', '.join(tags)}]", "---"])


def _metric(facts: CardFacts) -> str:
    return {"regression": "mse", "multi_label_classification": "f1"}.get(facts.config.problem_type or "", "accuracy")


def _introduction(facts: CardFacts) -> str:
    config = facts.config
    labels = ", ".join(config.id2label.values())
    how = f"distilled from the teacher `{facts.teacher.name}`" if facts.teacher else "fine-tuned on labelled rows"
    start = f", starting from `{facts.started_from}`" if facts.started_from else ""
    return (
        f"# {facts.name}\n\n"
        f"BERT with {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
        f"{config.num_attention_heads} heads and {facts.num_parameters:,} parameters, {how}{start} with kdistill. "
        + (
            "It gives a text a number."
            if config.problem_type == "regression"
            else f"It sorts text into the labels {labels}."
        )
    )


def _results(facts: CardFacts) -> str:
    results, measured_on = facts.results, facts.eval
    if "eval_loss" not in results or measured_on is None:
        return "## Results\n\nThe model was not evaluated: nothing is known of how good it is."
    n = int(results["eval_n"])
    if math.isnan(measured_on.majority_share):
        left_out = ("eval_n", "eval_runtime", "eval_samples_per_second")
        named = (
            (k.removeprefix("eval_"), v) for k, v in results.items() if k.startswith("eval_") and k not in left_out
        )
        table = _table(("metric", f"value (n = {n})"), ((name, f"{value:.4f}") for name, value in named))
        return f"## Results\n\nOn the {n} labelled rows of `{measured_on.name}`:\n\n{table}\n\n{_choice(facts)}"
    low, high = wilson_interval(results["eval_accuracy"], n)
    rows = [
        ("this model", facts.num_parameters, results["eval_accuracy"]),
        ("always the most frequent label", None, measured_on.majority_share),
    ]
    if facts.teacher is not None and facts.teacher.accuracy is not None:
        rows.insert(0, (f"teacher `{facts.teacher.name}`", facts.teacher.num_parameters, facts.teacher.accuracy))
    table = _table(
        ("", "parameters", f"accuracy (n = {n})"),
        ((name, "" if size is None else f"{size:,}", f"{accuracy:.4f}") for name, size, accuracy in rows),
    )
    return "\n\n".join(
        [
            f"## Results\n\nOn the {n} labelled rows of `{measured_on.name}`:",
            table,
            f"With {n} rows, the 95 % confidence interval of this model's accuracy is {low:.4f} to {high:.4f}. Its "
            f"cross-entropy there is {results['eval_loss']:.4f}. {_choice(facts)}",
            _history(facts.state),
        ]
    )


def _choice(facts: CardFacts) -> str:
    """How the weights were chosen, which decides how far the accuracy can be trusted."""
    state = facts.state
    evaluations = sum("eval_loss" in entry for entry in state.log_history)
    if not (facts.args.load_best_model_at_end and state.best_global_step):
        return "The weights are those of the last step; the evaluation rows had no part in choosing them."
    return (
        f"The weights are those of step {state.best_global_step}, the best {facts.args.metric_for_best_model} of "
        f"{evaluations} evaluations on these same rows, so expect slightly less on new ones."
    )


def _history(state: TrainerState) -> str:
    by_step: dict[int, dict[str, float]] = {}
    for entry in state.log_history:
        if "loss" in entry or "eval_loss" in entry:
            by_step.setdefault(int(entry["step"]), {}).update(entry)
    columns = ("loss", "eval_loss", "eval_accuracy")
    return _table(
        ("epoch", "step", "training loss", "evaluation loss", "accuracy"),
        (
            (f"{entry['epoch']:.2f}", str(step), *(f"{entry[name]:.4f}" if name in entry else "" for name in columns))
            for step, entry in sorted(by_step.items())
        ),
    )


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{share:.1%}"


def _data(facts: CardFacts) -> str:
    uses = [(use, data) for use, data in (("training", facts.train), ("evaluation", facts.eval)) if data is not None]
    table = _table(
        ("use", "data", "rows", "with label", "most frequent label"),
        (
            (use, f"`{data.name}`", f"{data.rows:,}", f"{data.labelled:,}", _percent(data.majority_share))
            for use, data in uses
        ),
    )
    return f"## Data\n\n{table}"


def _training(facts: CardFacts) -> str:
    args = facts.args
    table = _table(
        ("argument", "value"),
        (
            (f"`{field.name}`", f"{getattr(args, field.name)}")
            for field in fields(args)
            if field.metadata["group"] in _LISTED_GROUPS
        ),
    )
    duration = format_duration(facts.state.train_runtime)
    return f"## Training\n\n{facts.state.global_step:,} steps of AdamW in {duration}.\n\n{table}"


def _environment(facts: CardFacts) -> str:
    rows = [("CPU", _cpu_name()), *((name, str(value)) for name, value in show_config().items())]
    rows += [(name, version(name)) for name in ("tokenizers", "safetensors")]
    return f"## Environment\n\n{_table(('what', 'which'), rows)}"


def _usage(facts: CardFacts) -> str:
    return f"""## Use

```python
import kdistill as kd  # transformers loads it too: pipeline("text-classification", model=...)

tokenizer = kd.AutoTokenizer.from_pretrained("{facts.name}")
model = kd.BertForSequenceClassification.from_pretrained("{facts.name}")
logits = model(**tokenizer(["a text", "another text"])).logits  # (2, {facts.config.num_labels})
```"""


def _cpu_name() -> str:
    """As Linux tells it; `platform` knows no more than the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else []
    return names[0] if names else platform.machine()


def _table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
