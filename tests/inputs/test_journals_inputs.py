"""Journals of a study that were damaged or edited: each gives one sentence with file and line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.paths import INPUTS

from kdistill.search.study import open_journal

optuna = pytest.importorskip("optuna")
FOLDER = INPUTS / "journals"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())


def test_every_file_has_its_value() -> None:
    assert {path.name for path in FOLDER.iterdir()} - {"expected.json"} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_journal_is_read_or_its_line_is_named(tmp_path: Path, name: str) -> None:
    path = Path(shutil.copy(FOLDER / name, tmp_path))
    if isinstance(EXPECTED[name], list):
        study = optuna.load_study(study_name="search", storage=open_journal(path))
        assert [trial.value for trial in study.trials] == EXPECTED[name]
        return
    with pytest.raises(ValueError, match="damaged or was edited") as error:
        open_journal(path)
    assert str(error.value).startswith(f"{path}, {EXPECTED[name]}")
    assert path.read_bytes() == (FOLDER / name).read_bytes()
