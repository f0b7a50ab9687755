"""Golden logits: which rows of an artefact they are of, how far a model is from them, and what that decides."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.small_run import VOCABULARY, labelled_rows, sentences, small_config, small_dataset, small_model
from support.small_texts import language_model

import kdistill as kd
from kdistill.compress import int8
from kdistill.models.auto import load_trained
from kdistill.models.golden import Golden, computed_by
from kdistill.models.quantization import read_quantization

ROWS = labelled_rows(24)
BATCH = kd.pack([[2, 5, 9, 3], [2, 6, 3], [2, 7, 8, 3]])


def answering(logits: np.ndarray) -> Any:
    """A model with these logits, whatever it is asked."""
    return SimpleNamespace(head="sequence", forward=lambda batch: logits)


def test_a_distance_is_the_largest_difference_and_infinite_where_there_is_none() -> None:
    logits = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    golden = Golden.of(answering(logits), BATCH)
    assert golden.distance(answering(logits)) == 0
    assert golden.distance(answering(logits + np.float32([[0, 0], [0, -0.5], [0.25, 0]]))) == 0.5
    assert golden.distance(answering(logits * np.float32("nan"))) == np.inf
    assert golden.distance(answering(logits[:, :1])) == np.inf  # it would broadcast
    assert golden.distance(answering(logits[:1])) == np.inf


def test_they_are_of_rows_spread_over_all_each_cut_to_its_first_tokens(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "GOLDEN_TOKENS", 4)
    monkeypatch.setattr(int8, "GOLDEN_ROWS", 3)
    kd.quantize(original, small_dataset(24), tmp_path / "int8")
    texts = [sentences(24)[place][0].split() for place in (0, 11, 23)]
    expected = [[2, *(VOCABULARY.index(word) for word in words), 3][:4] for words in texts]
    golden = Golden.read(tmp_path / "int8")
    assert [of.tolist() for of in np.split(golden.batch.ids, golden.batch.starts[1:-1])] == expected
    np.testing.assert_array_equal(golden.logits, load_trained(tmp_path / "int8").forward(expected))


def test_of_a_language_model_they_are_of_every_sixteenth_token_for_the_words_of_the_rows(tmp_path: Path) -> None:
    model = language_model()
    ids = np.random.default_rng(0).integers(5, 12, 40).astype(np.int32)
    golden = Golden.of(model, kd.pack([ids[:16].tolist(), ids[16:30].tolist(), ids[30:].tolist()]))
    expected = np.concatenate([model.forward([row]) for row in (ids[:16], ids[16:30], ids[30:])])
    np.testing.assert_array_equal(golden.logits, expected[[0, 16, 32]][:, np.unique(ids)])


@pytest.mark.parametrize("float_embeddings", [True, False])
def test_twice_what_int8_changes_is_allowed_and_at_least_a_share_of_the_largest(
    original: Path, tmp_path: Path, float_embeddings: bool
) -> None:
    kd.quantize(original, ROWS, tmp_path / "int8", float_embeddings=float_embeddings)
    golden, stated = Golden.read(tmp_path / "int8"), read_quantization(tmp_path / "int8")
    assert stated is not None
    changed = float(np.abs(load_trained(original).forward(golden.batch) - golden.logits).max())
    least = 0.02 * float(np.abs(golden.logits).max())
    assert stated.golden_tolerance == max(2 * changed, least)


def test_an_artefact_with_like_logits_before_and_after_has_the_least_tolerance(tmp_path: Path) -> None:
    model = small_model()
    with model.writing() as flat:
        flat[:] = 0  # but for the classifier's bias
        kd.models.parameters.TensorViews(flat, model.layout)["classifier.bias"][:] = 3, -5
    kd.quantize(model, small_dataset(8), tmp_path / "int8")
    stated = read_quantization(tmp_path / "int8")
    assert stated is not None
    assert stated.golden_tolerance == pytest.approx(0.02 * 5)


@pytest.mark.parametrize(("share", "dtype"), [(0.5, "int8"), (1.5, "float32")])
def test_the_tolerance_parts_logits_that_are_taken_from_those_that_are_not(
    artefact: Path, tmp_path: Path, share: float, dtype: str
) -> None:
    (tmp_path / "int8").mkdir()
    for file in artefact.iterdir():
        (tmp_path / "int8" / file.name).write_bytes(file.read_bytes())
    stated, path = read_quantization(artefact), tmp_path / "int8" / "model.safetensors"
    assert stated is not None
    tensors = load_file(path)
    tensors["golden.logits"] = tensors["golden.logits"] + np.float32(share * stated.golden_tolerance)
    save_file(tensors, path, {"format": "pt"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert str(load_trained(tmp_path / "int8").dtype) == dtype


def test_a_model_with_other_layers_or_another_head_is_not_checked(artefact: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fewer = kd.BertForSequenceClassification.from_pretrained(artefact, num_hidden_layers=1)
        tagger = kd.BertForTokenClassification.from_pretrained(artefact)
    assert not [w for w in caught if "golden" in str(w.message)]
    assert [str(fewer.dtype), str(tagger.dtype)] == ["int8", "int8"]
    assert computed_by(fewer) != computed_by(load_trained(artefact)) != computed_by(tagger)
    of_spans = kd.BertForQuestionAnswering(small_config())  # which computes as a tagger with two labels does
    assert computed_by(of_spans) != computed_by(tagger)
