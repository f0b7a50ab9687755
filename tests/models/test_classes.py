"""The classes of models: of every architecture and head, and the one that a checkpoint names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bert_cases import SMALL, wide_model
from support.small_run import write_pretrained

import kdistill as kd
from kdistill.models.auto import load_model, model_class


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"architectures": ["BertForSequenceClassification"]}, "BertForSequenceClassification"),
        ({"architectures": ["BertForTokenClassification"]}, "BertForTokenClassification"),
        ({"architectures": ["BertForMaskedLM", "BertForTokenClassification"]}, "BertForTokenClassification"),
        ({"architectures": ["BertForMaskedLM"]}, "BertForSequenceClassification"),
        ({"architectures": ["BertModel"]}, "BertForSequenceClassification"),
        ({"architectures": []}, "BertForSequenceClassification"),
        ({"architectures": None}, "BertForSequenceClassification"),
        ({"architectures": "BertForTokenClassification"}, "BertForSequenceClassification"),
        ({"architectures": [["BertForTokenClassification"], {}]}, "BertForSequenceClassification"),
        ({}, "BertForSequenceClassification"),
        ({"model_type": "xlm-roberta"}, "XLMRobertaForSequenceClassification"),
        (
            {"model_type": "roberta", "architectures": ["RobertaForTokenClassification"]},
            "RobertaForTokenClassification",
        ),
    ],
)
def test_a_config_names_the_class(content: dict[str, Any], expected: str) -> None:
    assert model_class({"model_type": "bert"} | content) is getattr(kd, expected)


@pytest.mark.parametrize("cls", [kd.BertForSequenceClassification, kd.BertForTokenClassification])
def test_a_saved_model_is_loaded_as_its_class(tmp_path: Path, cls: Any) -> None:
    model = cls(wide_model(**SMALL).config, seed=4)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [cls.__name__]
    loaded = load_model(tmp_path, problem_type="regression")
    assert type(loaded) is cls
    assert loaded.config.problem_type == "regression"
    np.testing.assert_array_equal(loaded.flat_parameters, model.flat_parameters)


def test_a_warning_names_the_line_that_loads_whichever_way_it_goes(tmp_path: Path) -> None:
    directory = write_pretrained(tmp_path / "model")
    for kind in (kd.BertForSequenceClassification, kd.AutoModelForSequenceClassification):
        with pytest.warns(UserWarning, match=r"lacks classifier\.") as told:
            kind.from_pretrained(directory)
        assert {warning.filename for warning in told} == {__file__}
