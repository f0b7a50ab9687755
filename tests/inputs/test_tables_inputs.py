"""Files of rows as other programs write them: what is read of each, or a part of the error or warning."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from support.paths import INPUTS

from kdistill.data.columns import read_rows

FOLDER = INPUTS / "tables"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())


def test_every_file_has_a_value_and_every_value_a_file() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*EXPECTED, "expected.json"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_is_read_as_its_author_meant_it(name: str) -> None:
    expected = EXPECTED[name]
    if "error" in expected:
        with pytest.raises(ValueError) as error:
            read_rows(FOLDER / name).id2label()
        assert expected["error"] in str(error.value)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = read_rows(FOLDER / name)
    said = [str(warning.message) for warning in caught]
    if "warning" in expected:
        (warning,) = said
        assert expected["warning"] in warning
        return
    assert (rows.texts, said) == (expected["texts"], [])
    assert rows.read_labels().tolist() == expected["labels"]
