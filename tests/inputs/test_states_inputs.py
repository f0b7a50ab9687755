"""States of runs, trainer_state.json, as this and other versions and programs write them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.paths import INPUTS

from kdistill.train.state import TrainerState

STATES = INPUTS / "states"
EXPECTED: dict[str, Any] = json.loads((STATES / "expected.json").read_text())


def test_every_file_has_its_value() -> None:
    assert EXPECTED.keys() == {path.name for path in STATES.iterdir()} - {"expected.json"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_state_is_read_as_it_was_meant(tmp_path: Path, name: str) -> None:
    shutil.copy(STATES / name, tmp_path / "trainer_state.json")
    expected = EXPECTED[name]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            TrainerState.load(tmp_path)
        return
    state = TrainerState.load(tmp_path)
    found = {"total_loss": state.total_loss, **state.log_history[-1]}
    for figure, value in expected.items():
        if value == "nan":
            assert math.isnan(found[figure])
        else:
            assert found[figure] == (math.inf if value == "inf" else value)
