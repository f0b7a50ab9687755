"""The class of a checkpoint: written by the model that saves it, found again by who loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bert_cases import SMALL, wide_model

from kdistill.models import classes
from kdistill.models.classes import BertForSequenceClassification, load_model, model_class


class Another(BertForSequenceClassification):
    """A second class to choose from."""


@pytest.fixture
def two_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "CLASSES", (BertForSequenceClassification, Another))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"architectures": ["BertForSequenceClassification"]}, BertForSequenceClassification),
        ({"architectures": ["Another"]}, Another),
        ({"architectures": ["BertForMaskedLM", "Another"]}, Another),
        ({"architectures": ["BertForMaskedLM"]}, BertForSequenceClassification),
        ({"architectures": []}, BertForSequenceClassification),
        ({"architectures": None}, BertForSequenceClassification),
        ({"architectures": "Another"}, BertForSequenceClassification),
        ({"architectures": [["Another"], {}]}, BertForSequenceClassification),
        ({}, BertForSequenceClassification),
    ],
)
@pytest.mark.usefixtures("two_classes")
def test_a_config_names_the_class(content: dict[str, Any], expected: type) -> None:
    assert model_class(content) is expected


@pytest.mark.usefixtures("two_classes")
@pytest.mark.parametrize("cls", [BertForSequenceClassification, Another])
def test_a_saved_model_is_loaded_as_its_class(tmp_path: Path, cls: type[BertForSequenceClassification]) -> None:
    model = cls(wide_model(**SMALL).config, seed=4)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [cls.__name__]
    loaded = load_model(tmp_path, problem_type="regression")
    assert type(loaded) is cls
    assert loaded.config.problem_type == "regression"
    np.testing.assert_array_equal(loaded.flat_parameters, model.flat_parameters)
