"""int8 artefacts are not misread by transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_run import sentences, write_model
from transformers import AutoModelForSequenceClassification
from transformers.utils import is_compressed_tensors_available

import kdistill as kd


@pytest.mark.skipif(is_compressed_tensors_available(), reason="compressed-tensors opens the model")
def test_transformers_names_the_package_that_opens_an_artefact(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in sentences(8)]
    kd.quantize(write_model(tmp_path / "model"), rows, tmp_path / "int8")
    with pytest.raises(ImportError, match="compressed-tensors"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "int8")
