"""Exported directories in `optimum.onnxruntime`, which needs transformers 4: `make transformers4`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "optimum.onnxruntime", reason="optimum needs transformers 4: make transformers4", exc_type=ImportError
)

import optimum.onnxruntime as optimum
import torch
import transformers
from architecture_cases import CASES, ENDINGS, Case, small
from support.eight_tokenizers import write_model_with_vocabulary

import kdistill as kd
from kdistill.exporters.onnx_check import CheckedRows, expected_outputs

TOLERANCE = 1e-4  # as in test_export_onnx.py
NAMES = {"float32": "model.onnx", "float16": "model_fp16.onnx", "int8": "model_quantized.onnx"}
TEXTS = ["The river isn't long.", "Naïve café, “déjà vu”!", "x", "Zürich is a city  of 1999"]


def opened(ending: str, directory: Path, **settings: Any) -> Any:
    """The class of optimum for a head, from the directory that `kdistill export` writes, as its users open it."""
    kind = f"ORT{'ModelForFeatureExtraction' if ending == 'Model' else f'Model{ending}'}"
    return getattr(optimum, kind).from_pretrained(directory, subfolder="onnx", **settings)


def assert_same_outputs(theirs: Any, model: Any, rows: CheckedRows, bound: float) -> None:
    """Compare all of optimum's outputs, of padded rows as tensors and as arrays, with kdistill's of packed rows."""
    present = rows.padded["attention_mask"] == 1
    expected = expected_outputs(model, rows)
    tensors = theirs(**{name: torch.tensor(of) for name, of in rows.padded.items()})
    arrays = theirs(**rows.padded)
    assert list(tensors) == list(arrays) == list(expected)
    for name, of in expected.items():
        for found in (tensors[name].numpy(), arrays[name]):
            values = found[present] if found.ndim > 1 and found.shape[:2] == present.shape else found
            assert values.dtype == np.float32
            assert values.shape == of.shape
            assert np.abs(values - of).max() < bound * max(1.0, float(np.abs(of).max()))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_architecture_and_head_has_the_logits_of_kdistill(tmp_path: Path, case: Case, ending: str) -> None:
    model = small(case, ending)
    kd.export(model, tmp_path / "out", format="onnx")
    rows = CheckedRows.of(model, (7, 1, 20, 3))
    assert max(float(np.abs(of).max()) for of in expected_outputs(model, rows).values()) > 1
    assert_same_outputs(opened(ending, tmp_path / "out"), model, rows, TOLERANCE)


@pytest.mark.parametrize("ending", ENDINGS)
def test_optimum_finds_the_shapes_of_outputs_in_the_names_of_dimensions(tmp_path: Path, ending: str) -> None:
    """It reserves memory for outputs, where it binds them, by what `batch_size` and `sequence_length` are."""
    model = small(CASES["Bert"], ending)
    kd.export(model, tmp_path / "out", format="onnx")
    padded = CheckedRows.of(model).padded
    bound = opened(ending, tmp_path / "out", use_io_binding=True)
    assert bound.use_io_binding
    found = bound(**{name: torch.tensor(of) for name, of in padded.items()})
    for name, of in opened(ending, tmp_path / "out")(**padded).items():
        np.testing.assert_allclose(found[name].numpy(), of, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_files_of_narrow_types_are_opened_by_their_names(tmp_path: Path, ending: str, dtype: str) -> None:
    model = small(CASES["Bert"], ending, initializer_range=0.1)
    for each in ("float32", dtype):
        kd.export(model, tmp_path / "out", format="onnx", dtype=each)
    theirs = opened(ending, tmp_path / "out", file_name=NAMES[dtype])
    assert theirs.path.name == NAMES[dtype]
    assert opened(ending, tmp_path / "out").path.name == NAMES["float32"]
    # float16 has 11 bits; int8 changes numbers visibly, which only an evaluation judges.
    assert_same_outputs(theirs, model, CheckedRows.of(model), {"float16": 0.01, "int8": 0.3}[dtype])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_encoder_that_embeds_texts_gives_both_outputs(tmp_path: Path, pooling: str) -> None:
    model = small(CASES["Bert"], "Model")
    assert isinstance(model, kd.BertModel)
    model = model.with_pooling(pooling, True)
    kd.export(model, tmp_path / "out", format="onnx")
    rows = CheckedRows.of(model)
    theirs = optimum.ORTModelForCustomTasks.from_pretrained(tmp_path / "out", subfolder="onnx")
    assert_same_outputs(theirs, model, rows, TOLERANCE)
    states = opened("Model", tmp_path / "out")(**rows.padded).last_hidden_state
    expected = expected_outputs(model, rows)["last_hidden_state"]
    assert np.abs(states[rows.padded["attention_mask"] == 1] - expected).max() < TOLERANCE


def exported(tmp_path: Path, model_type: str, ending: str, **fields: Any) -> tuple[Path, Path]:
    """A model with a tokenizer that was trained on many scripts, and what is exported from it."""
    write_model_with_vocabulary(
        model_type, ending, tmp_path / "model", tokens=60, seed=3, initializer_range=0.3, **fields
    )
    kd.export(tmp_path / "model", tmp_path / "out", format="onnx")
    return tmp_path / "model", tmp_path / "out"


def pipelines(task: str, ending: str, source: Path, output: Path, **settings: Any) -> tuple[Any, Any]:
    """kdistill's pipeline on the model, and that of transformers 4 on optimum's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers 4 has classes of processors that say they will go
        tokenizer = transformers.AutoTokenizer.from_pretrained(output)
        theirs = transformers.pipeline(task, model=opened(ending, output), tokenizer=tokenizer, **settings)
    return kd.pipeline(task, str(source), **settings), theirs


def check_equal(ours: Any, theirs: Any) -> None:
    """The same lists and dictionaries, numbers to the roundings of two programs."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            check_equal(ours[name], theirs[name])
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            check_equal(one, other)
    elif isinstance(theirs, float | np.floating):
        assert ours == pytest.approx(float(theirs), rel=1e-3, abs=1e-4)
    else:
        assert ours == theirs


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta"])
def test_pipelines_of_transformers_read_the_exported_tokenizer(tmp_path: Path, model_type: str) -> None:
    """Texts, pairs, tags, hidden words and states: what a user types who has the directory alone."""
    labels = {0: "bad", 1: "neutral", 2: "good"}
    ours, theirs = pipelines(
        "text-classification",
        "ForSequenceClassification",
        *exported(tmp_path / "c", model_type, "ForSequenceClassification", id2label=labels),
    )
    check_equal(ours(TEXTS, top_k=None), theirs(TEXTS, top_k=None))
    for text, pair in zip(TEXTS, reversed(TEXTS), strict=True):
        row = {"text": text, "text_pair": pair}
        check_equal(ours(row, top_k=3), theirs(row, top_k=3))
    tags = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}
    ours, theirs = pipelines(
        "token-classification",
        "ForTokenClassification",
        *exported(tmp_path / "t", model_type, "ForTokenClassification", id2label=tags),
    )
    for text in TEXTS:
        check_equal(ours(text), theirs(text))
    ours, theirs = pipelines("fill-mask", "ForMaskedLM", *exported(tmp_path / "m", model_type, "ForMaskedLM"))
    check_equal(ours(f"The {ours.tokenizer.mask_token} is long."), theirs(f"The {ours.tokenizer.mask_token} is long."))
    ours, theirs = pipelines("feature-extraction", "Model", *exported(tmp_path / "f", model_type, "Model"))
    for text in TEXTS:
        check_equal(np.asarray(ours(text)).tolist(), theirs(text))
