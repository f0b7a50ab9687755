"""Checkpoints opened with fewer layers or another word table, beside what transformers makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch_models
import transformers

import kdistill as kd

WORD = "bert.embeddings.word_embeddings.weight"


def test_the_first_layers(tmp_path: Path) -> None:
    torch_models.torch_model(torch_models.ODD, std=0.1, seed=1).save_pretrained(tmp_path)
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path, num_hidden_layers=2).eval()
    with pytest.warns(UserWarning, match="16 tensors of layers 2 to 2 are not loaded"):
        ours = kd.BertForSequenceClassification.from_pretrained(tmp_path, num_hidden_layers=2)
    ids, types = torch_models.random_rows([5, 9, 1], torch_models.ODD, seed=2)
    with torch.inference_mode():
        expected = torch_models.torch_logits(theirs, ids, types).numpy()
    logits = ours.forward(kd.pack(torch_models.encodings(ids, types)))
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("arguments", [(1020,), (None, 64), (1013, 8), (900,), (1013,)])
def test_a_resized_word_table(arguments: tuple[int | None, ...]) -> None:
    ours, theirs = torch_models.pair(torch_models.ODD, std=0.1, seed=1)
    theirs.resize_token_embeddings(*arguments)
    ours.resize_token_embeddings(*arguments)
    expected = torch_models.torch_arrays(theirs)[WORD]
    assert ours.config.vocab_size == theirs.config.vocab_size == len(expected)
    # New rows are random in both, 3e-5 of the spread of the others around their mean.
    np.testing.assert_array_equal(ours.parameters[WORD][:1013], expected[:1013])
    np.testing.assert_allclose(ours.parameters[WORD], expected, rtol=0, atol=5 * 2**0.5 * 1e-9**0.5 * 0.1 + 1e-7)
