"""Files of rows as other programs write them: what is read of each, or a part of the error or warning.

A name may have options of a command behind it, or the part of a JSON file: `rows.json#train --columns text,label`.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from support.paths import INPUTS

from kdistill.cli.data_files import FORMAT, data_file
from kdistill.data.columns import Rows, read_rows
from kdistill.tasks.registry import TASKS

FOLDER = INPUTS / "tables"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
SINGLE = "single_label_classification"


def read(case: str) -> Rows:
    name, *options = case.split()
    given = dict.fromkeys(FORMAT) | {
        option[2:]: value for option, value in zip(options[::2], options[1::2], strict=True)
    }
    return read_rows(data_file(str(FOLDER / name), given))


def test_every_file_has_a_value_and_every_value_a_file() -> None:
    names = {case.split()[0].split("#")[0] for case in EXPECTED}
    assert {path.name for path in FOLDER.iterdir()} == {*names, "expected.json"}


@pytest.mark.parametrize("case", EXPECTED)
def test_a_file_is_read_as_its_author_meant_it(case: str) -> None:
    expected = EXPECTED[case]
    if "error" in expected:
        with pytest.raises(ValueError) as error:
            read(case).id2label()
        assert expected["error"] in str(error.value)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = read(case)
    said = [str(warning.message) for warning in caught]
    if "warning" in expected:
        (warning,) = said
        assert expected["warning"] in warning
        return
    assert (rows.texts, rows.pairs, said) == (expected["texts"], expected.get("pairs"), [])
    assert [list(row) if np.ndim(row) else row for row in labels_of(rows, expected)] == expected["labels"]


def labels_of(rows: Rows, expected: dict[str, Any]) -> list[Any]:
    task = TASKS[expected.get("problem_type", SINGLE)]
    names = expected.get("id2label")
    id2label = {int(index): name for index, name in names.items()} if names else None
    if task.one_label:
        return list(rows.read_labels(id2label, task.read_labels).tolist())
    id2label = {index: f"LABEL_{index}" for index in range(28 if task.names_labels else 1)}
    read = rows.read_labels(id2label, task.read_labels)
    if not task.names_labels:
        return list(read.tolist())
    return [None if np.isnan(row).any() else np.flatnonzero(row).tolist() for row in read]
