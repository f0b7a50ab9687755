"""int8 artefacts are not misread by transformers, and with compressed-tensors they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.small_architectures import write_encoder
from support.small_run import sentences, write_model
from transformers.utils import is_compressed_tensors_available

import kdistill as kd
from kdistill.models.auto import load_trained
from kdistill.models.registry import ARCHITECTURES

IDS = [[2, 5, 9, 3], [2, 6, 7, 3]]
compressed_tensors = pytest.mark.skipif(not is_compressed_tensors_available(), reason="needs compressed-tensors")


def quantized(directory: Path, model_type: str, head: str, **settings: Any) -> Path:
    encoder = write_encoder(model_type, directory / "encoder")
    model = getattr(kd, f"{ARCHITECTURES[model_type].name}For{head}").from_pretrained(encoder, seed=3)
    rows = kd.Dataset(*kd.pack(IDS), np.full(len(IDS), -100))
    data: Any = {
        "MaskedLM": ["good film great plot"],
        "TokenClassification": [{"tokens": ["good", "film"], "labels": [0, 1]}],
    }.get(head, rows)
    tokenizer = kd.AutoTokenizer.from_pretrained(encoder)
    kd.quantize(model, data, directory / "int8", processing_class=tokenizer, **settings)
    return directory / "int8"


@pytest.mark.skipif(is_compressed_tensors_available(), reason="compressed-tensors opens the model")
def test_transformers_names_the_package_that_opens_an_artefact(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in sentences(8)]
    kd.quantize(write_model(tmp_path / "model"), rows, tmp_path / "int8")
    with pytest.raises(ImportError, match="compressed-tensors"):
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "int8")


@compressed_tensors
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("float_embeddings", [False, True])
@pytest.mark.parametrize(
    ("model_type", "head"),
    [*((model_type, "SequenceClassification") for model_type in ARCHITECTURES), ("bert", "TokenClassification")],
)
def test_transformers_gives_the_logits_of_an_artefact(
    tmp_path: Path, model_type: str, head: str, float_embeddings: bool
) -> None:
    path = quantized(tmp_path, model_type, head, float_embeddings=float_embeddings)
    expected = load_trained(path).forward(IDS)
    model = getattr(transformers, f"AutoModelFor{head}").from_pretrained(path).eval()
    with torch.no_grad():
        found = model(input_ids=torch.tensor(IDS)).logits.numpy().reshape(expected.shape)
    # Rows are rounded after other sums, by up to a 127th of their largest number.
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02)


@compressed_tensors
@pytest.mark.filterwarnings("ignore")
def test_a_table_that_is_a_product_too_is_refused_at_the_load(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tied to the head, for kdistill alone"):
        transformers.AutoModelForMaskedLM.from_pretrained(quantized(tmp_path / "a", "bert", "MaskedLM"))
    path = quantized(tmp_path / "b", "bert", "MaskedLM", float_embeddings=True)
    expected = load_trained(path).forward(IDS)
    with torch.no_grad():
        model = transformers.AutoModelForMaskedLM.from_pretrained(path).eval()
        found = model(input_ids=torch.tensor(IDS)).logits.numpy().reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05)
