"""Metrics on paper: the table that `Trainer.log_metrics` prints and the files that `Trainer.save_metrics` writes."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..system.files import read_json_object, write_json
from .directory import RESULTS_FILE


def metrics_table(split: str, metrics: Mapping[str, Any]) -> str:
    """Return the metrics as lines of equal width, in the form that transformers prints."""
    shown = {name: _shown(name, value) for name, value in sorted(metrics.items())}
    names, values = max(map(len, shown), default=0), max(map(len, shown.values()), default=0)
    return "\n".join(
        [f"***** {split} metrics *****", *(f"  {name:<{names}} = {value:>{values}}" for name, value in shown.items())]
    )


def _shown(name: str, value: Any) -> str:
    if "_runtime" in name:
        return f"{datetime.timedelta(seconds=int(value))}.{int(abs(value - int(value)) * 100):02d}"
    return str(round(value, 4) if isinstance(value, float) else value)


def save_metrics(directory: Path, split: str, metrics: Mapping[str, Any], *, combined: bool) -> None:
    """Write `<split>_results.json`; with `combined` also add the metrics to `all_results.json`.

    Raises:
        ValueError: the split is no name.
    """
    if Path(split).name != split:
        raise ValueError(f"split is {split!r}; expected a name such as 'train', 'eval' or 'test'")
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / f"{split}_results.json", dict(sorted(metrics.items())))
    if combined:
        path = directory / RESULTS_FILE
        before = read_json_object(path) if path.is_file() else {}
        write_json(path, dict(sorted({**before, **metrics}.items())))
