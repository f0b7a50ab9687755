"""Data sets at the door: what a model has no place for is refused before any work, with its row."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support.small_run import small_config, small_dataset

from kdistill.train.arguments import TrainingArguments
from kdistill.train.encoding import encode_for

FITTING = {"input_ids": [2, 5, 3], "token_type_ids": [0, 0, 1], "labels": 1}
LONGEST = {"input_ids": [12] * 16, "token_type_ids": [1] * 16, "labels": 0}
ARGS = TrainingArguments(disable_tqdm=True)


def test_what_just_fits_is_taken() -> None:
    assert encode_for(small_config(), [FITTING, LONGEST], None, ARGS).lengths.tolist() == [3, 16]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [2] * 17}, r"row 2 of the data set has 17 tokens; .* 16 positions: .*max_length=16"),
        ({"input_ids": [2, 13, 3]}, "row 2 of the data set has 13 among its input_ids; the model knows 0 to 12"),
        ({"input_ids": [2, -1, 3]}, "row 2 of the data set has -1 among its input_ids"),
        ({"input_ids": [2], "token_type_ids": [2]}, "row 2 of the data set has 2 among its token_type_ids"),
    ],
)
def test_what_does_not_fit_names_its_row(row: dict[str, Any], message: str) -> None:
    whole = {"token_type_ids": [0] * len(row["input_ids"]), "labels": 0} | row
    with pytest.raises(ValueError, match=message):
        encode_for(small_config(), [FITTING, LONGEST, whole, whole], None, ARGS)


def test_padding_is_that_of_the_configuration() -> None:
    rows = [{"input_ids": [2, 5, 3, 4, 4], "labels": 0}]
    assert encode_for(small_config(pad_token_id=4), rows, None, ARGS).lengths.tolist() == [3]
    assert encode_for(small_config(pad_token_id=None), rows, None, ARGS).lengths.tolist() == [5]


@pytest.mark.parametrize("label", [2, -1, 1_600_000_000_000])
def test_a_label_of_an_encoded_row_must_be_one_of_the_model_s(label: int) -> None:
    """Counting up to it would take all memory."""
    rows = dataclasses.replace(small_dataset(4), labels=np.array([0, -100, label, 1]))
    with pytest.raises(ValueError, match=f"row 2 of the data set has the label {label}; the model has labels 0 to 1"):
        encode_for(small_config(), rows, None, ARGS)
