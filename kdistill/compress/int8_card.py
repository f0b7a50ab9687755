"""The model card of an int8 artefact."""

from __future__ import annotations

from typing import Any

from ..models.model import Model
from ..system.files import json_text
from ..tasks.registry import task_for

_MEASURED = "Measured"
_TRANSFORMERS = "  # transformers opens it with the package compressed-tensors"


def card(model: Model, original: str | None, rows: str, name: str, figures: dict[str, Any]) -> str:
    """Return a card as Markdown, under the metadata that the Hugging Face hub reads.

    Args:
        model: the artefact.
        original: what the model that it was made of is called; None: nobody knows.
        rows: what the rows are called that both were measured on.
        name: what the artefact is called.
        figures: of `quantize`.
    """
    task = task_for(model.config)
    use = task.description(list(model.config.id2label.values()))
    opened = figures["embeddings"] == "float32" or not model.architecture.head(model.head, model.config).get("tied")
    made_of = "a model" if original is None else f"the model `{original}`"
    sections = [
        _header(model, original),
        f"# {name}",
        f"This is {made_of} in int8, made by kdistill. {use}",
        f"## Results\n\n{_results(figures, rows)}",
        f"## Format\n\n{_format(figures)}",
        "## Use\n\n```python\n"
        f"import kdistill as kd{_TRANSFORMERS if opened else ''}\n\n"
        f"model = kd.{type(model).__name__}.from_pretrained({json_text(name, ensure_ascii=False)})\n```",
    ]
    return "\n\n".join(sections) + "\n"


def with_measured(text: str, rows: str, figures: dict[str, Any]) -> str:
    """Return a card that has also, in place of those of an earlier report, the figures of one.

    Args:
        text: the card.
        rows: what the rows are called.
        figures: of the report, as `kdistill report` has them; those that are numbers, and of the holdout too, are told.
    """
    sections = [section for section in text.split("\n## ") if not section.startswith(f"{_MEASURED}\n")]
    others = [place for place, section in enumerate(sections) if section.startswith("Results\n")]
    holdout = figures.get("holdout", {})
    tables = [f"On the {figures['n']:,} rows of `{rows}`, in {figures['dtype']}:\n\n{_table(figures)}"]
    if holdout:
        tables.append(f"On the {holdout['n']:,} rows of `{holdout['name']}`:\n\n{_table(holdout)}")
    place = others[0] + 1 if others else len(sections)
    sections.insert(place, "\n\n".join([_MEASURED, *tables]) + "\n")
    return "\n## ".join(sections)


def _table(figures: dict[str, Any]) -> str:
    numbers = ((name, value) for name, value in figures.items() if isinstance(value, int | float) and name != "n")
    return "\n".join(["| figure | value |", "| --- | --- |", *(f"| {name} | {_shown(of)} |" for name, of in numbers)])


def _header(model: Model, original: str | None) -> str:
    tag = task_for(model.config).pipeline_tag
    entries: dict[str, Any] = {
        "library_name": "kdistill",
        "pipeline_tag": tag,
        "tags": [model.config.model_type, tag, "kdistill", "int8", "compressed-tensors"],
    }
    if original is not None and original.count("/") == 1:
        entries |= {"base_model": original, "base_model_relation": "quantized"}
    return "\n".join(["---", *(f"{key}: {json_text(value)}" for key, value in entries.items()), "---"])


def _results(figures: dict[str, Any], rows: str) -> str:
    lines = [f"On the {figures['n']:,} rows of `{rows}`:"]
    before, after = figures.get("before", {}), figures.get("after", {})
    if before:
        table = [f"| {name} | {_shown(value)} | {_shown(after[name])} |" for name, value in before.items()]
        lines.append("\n".join(["| metric | before | int8 |", "| --- | --- | --- |", *table]))
    if "mcnemar" in figures:
        test = figures["mcnemar"]
        lines.append(
            f"Right are {figures['right_before']:,} before and {figures['right_after']:,} in int8. The original alone "
            f"has {test['only_first']} right, int8 alone {test['only_second']}: McNemar's test, p = "
            f"{test['p_value']:.3g}."
        )
    if "agreement" in figures:
        agreement, divergence = figures["agreement"], figures["divergence"]
        lines.append(f"Agreement with the original: {agreement:.4f}; mean divergence from it: {divergence:.2e}.")
    return "\n\n".join(lines)


def _format(figures: dict[str, Any]) -> str:
    tables = "int8, with a scale for each row" if figures["embeddings"] == "int8" else "float32"
    size, share = figures["bytes_after"] / 1e6, figures["size_ratio"]
    return (
        "Weights of the encoder's products are int8 with a float32 scale for each output; rows are rounded as they "
        f"come, with a scale for each token. Embeddings are {tables}. The file has {size:.1f} MB, {share:.3f} of the "
        f"original's. It holds the logits of {figures['golden_rows']} rows, too: kdistill computes them when it loads "
        f"the model and, where they differ by more than {figures['golden_tolerance']:.3g}, goes on in float32 with a "
        "warning."
    )


def _shown(value: float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
