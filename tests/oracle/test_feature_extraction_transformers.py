"""Embeddings beside transformers' pipeline and, where it is installed, beside sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

import kdistill as kd

TEXTS = [
    "A film that's good!",
    "no",
    "What would it be, if nobody had told her about the river and the boat?",
    "Ünïted",
]


@pytest.fixture(scope="module")
def directory(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("model")
    config = kd.BertConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=60, initializer_range=0.4
    )
    kd.BertModel(config, seed=2).save_pretrained(directory)
    kd.AutoTokenizer.from_pretrained(shared_dir / "models" / "bert-base-uncased").save_pretrained(directory)
    return directory


def check(ours: Any, theirs: Any) -> None:
    """Compare nested lists of the same form."""
    assert isinstance(ours, list) == isinstance(theirs, list)
    if isinstance(ours, list) and isinstance(ours[0], list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            check(one, other)
        return
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)  # numbers up to 4, sums of float32


def test_vectors_of_tokens_are_those_of_transformers(directory: Path) -> None:
    ours = kd.pipeline("feature-extraction", directory)
    theirs = transformers.pipeline("feature-extraction", str(directory), device="cpu")
    for inputs in (TEXTS, TEXTS[0], [TEXTS[1]]):
        check(ours(inputs), theirs(inputs))
    one, other = ours(TEXTS[2], return_tensors=True), theirs(TEXTS[2], return_tensors=True)
    assert one.shape == tuple(other.shape)
    np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [False, True])
def test_embeddings_and_their_gradients_are_those_of_torch(directory: Path, mode: str, normalize: bool) -> None:
    theirs = transformers.BertModel.from_pretrained(directory).eval()
    ours = kd.AutoModel.from_pretrained(
        directory, pooling=mode, normalize=normalize, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    tokenizer = kd.AutoTokenizer.from_pretrained(directory)
    target = np.random.default_rng(0).standard_normal((len(TEXTS), 48)).astype(np.float32)
    embedded = ours.forward(tokenizer(TEXTS), train=True)
    ours.backward(2 * (embedded - target) / target.size)

    given = {name: torch.tensor(value) for name, value in tokenizer(TEXTS, padding=True).items()}
    states, mask = theirs(**given).last_hidden_state, given["attention_mask"][..., None].float()
    expected = (states * mask).sum(1) / mask.sum(1) if mode == "mean" else states[:, 0]
    expected = torch.nn.functional.normalize(expected) if normalize else expected
    np.testing.assert_allclose(embedded, expected.detach().numpy(), rtol=0, atol=2e-5)
    torch.nn.functional.mse_loss(expected, torch.tensor(target)).backward()
    for name, parameter in theirs.named_parameters():
        if not name.startswith("pooler") and not name.endswith("key.bias"):
            assert parameter.grad is not None
            difference = np.linalg.norm(ours.gradients[name] - parameter.grad.numpy())
            assert difference <= 1e-4 * float(parameter.grad.norm()), name


@pytest.mark.filterwarnings("ignore")  # those of sentence-transformers about its own names
@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [False, True])
def test_sentence_transformers_opens_what_is_saved(directory: Path, tmp_path: Path, mode: str, normalize: bool) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = kd.AutoModel.from_pretrained(directory, pooling=mode, normalize=normalize).freeze()
    tokenizer = kd.AutoTokenizer.from_pretrained(directory)
    model.save_pretrained(tmp_path / "ours")
    tokenizer.save_pretrained(tmp_path / "ours")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    expected = theirs.encode(TEXTS)
    np.testing.assert_allclose(model.forward(tokenizer(TEXTS)), expected, rtol=0, atol=2e-5)
    theirs.save(str(tmp_path / "theirs"))
    again = kd.pipeline("feature-extraction", tmp_path / "theirs", pooling="model")
    assert again.model.config.pooling == model.config.pooling
    np.testing.assert_array_equal(again(TEXTS), model.forward(tokenizer(TEXTS)))
