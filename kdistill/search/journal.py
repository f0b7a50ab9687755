"""The check of a study's journal: a damaged or edited line is found and named before Optuna meets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def check_journal(path: Path) -> None:
    """Raise `ValueError`, which names file and line, for a journal that Optuna cannot replay. A missing one is fine."""
    if not path.is_file():
        return
    lines = path.read_bytes().splitlines()
    records = [_record(path, number, line) for number, line in enumerate(lines, start=1)]
    if not _replays(records):
        return
    # The first record that cannot be replayed: fewer than `good` can, `bad` cannot.
    good, bad = 0, len(records)
    while bad - good > 1:
        middle = (good + bad) // 2
        if _replays(records[:middle]):
            bad = middle
        else:
            good = middle
    raise _damaged(path, bad, _replays(records[:bad]))


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise _damaged(path, number, f"it is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise _damaged(path, number, "it is not a JSON object")
    return record


def _check_values(trial: Any, directions: int) -> None:
    values = trial.values or []
    if trial.state.name == "COMPLETE" and len(values) != directions:
        raise ValueError(f"trial {trial.number} has the objective {values!r}; expected {directions} numbers")
    for value in (*values, *trial.intermediate_values.values()):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"trial {trial.number} has {value!r} among its objectives; expected numbers")


def _damaged(path: Path, number: int, reason: str) -> ValueError:
    return ValueError(
        f"{path}, line {number}: {reason}; the study's journal is damaged or was edited: put the line right, or choose "
        "another storage or output_dir"
    )


def _replays(records: list[dict[str, Any]]) -> str:
    """Return why Optuna cannot replay the records, or an empty string when it can."""
    from optuna.storages.journal import BaseJournalBackend, JournalStorage

    class Records(BaseJournalBackend):  # type: ignore[misc]  # mypy does not see Optuna
        def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
            yield from records[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            raise NotImplementedError

    try:
        storage = JournalStorage(Records())
        for study in storage.get_all_studies():
            for trial in storage.get_all_trials(study._study_id):
                trial._validate()
                _check_values(trial, len(study.directions))
    except (LookupError, TypeError, ValueError, AssertionError, AttributeError, ArithmeticError) as error:
        return f"Optuna cannot read it ({type(error).__name__}: {error})"
    return ""
