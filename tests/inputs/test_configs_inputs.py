"""config.json files as others write them, with the values that transformers reads from them."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from support.paths import INPUTS

from kdistill.models.config import BertConfig

FOLDER = INPUTS / "configs"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text())


def test_every_file_has_a_value_and_every_value_a_file() -> None:
    assert {path.name for path in FOLDER.iterdir()} - {"expected.json"} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_configuration_is_read_as_expected(tmp_path: Path, name: str) -> None:
    expected = EXPECTED[name]
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_bytes((FOLDER / name).read_bytes())
    if "error" in expected:
        with pytest.raises((TypeError, ValueError), match=re.escape(expected["error"])):
            BertConfig.from_pretrained(tmp_path / name)
        return
    warning = expected.get("warning")
    with nullcontext() if warning is None else pytest.warns(UserWarning, match=re.escape(warning)):
        config = BertConfig.from_pretrained(tmp_path / name)
    for field, value in expected["values"].items():
        holder = config if hasattr(config, field) else config.trained_with
        assert json.loads(json.dumps(getattr(holder, field))) == value
