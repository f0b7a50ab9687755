"""Runs whose figures are kept in a directory, so that a measurement of many runs can be interrupted and continued."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIDENCE = 0.95


class KeptRuns:
    """The figures of runs by name, a JSON file each.

    Args:
        directory: where the files are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __contains__(self, name: str) -> bool:
        return self._path(name).is_file()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def figures(
        self, name: str, settings: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Return the figures of a run: those that are kept, else what `measure` returns, which is kept.

        Raises:
            ValueError: the kept run had other settings.
        """
        path = self._path(name)
        wanted = json.loads(json.dumps(settings))
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["settings"] != wanted:
                raise ValueError(f"{path} is a run with {kept['settings']}; expected {wanted}: give another --results")
            return dict(kept["figures"])
        figures = measure()
        self._directory.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"settings": wanted, "figures": figures}, indent=1) + "\n", encoding="utf-8")
        shown = {key: value for key, value in figures.items() if not isinstance(value, (list, dict))}
        print(f"{name}: {shown}", file=sys.stderr, flush=True)
        return figures


def with_interval(values: Sequence[float], digits: int) -> str:
    """Return the mean of the seeds and half of its interval by Student's t (95 %), such as "0.512 ± 0.020"."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    from scipy import stats  # seqeval, which measures entities, brings it

    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {half:.{digits}f}"
