"""Weights as torch and transformers write them, and configurations as transformers reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdistill.formats.safetensors import read_safetensors
from kdistill.formats.torch_bin import read_torch_bin
from kdistill.models.architecture import SEQUENCE
from kdistill.models.architectures.bert import BERT
from kdistill.models.checkpoint import read_weights, write_weights
from kdistill.models.config import BertConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
TINY = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}


def save(state: Any, path: Path, legacy: bool) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)


def assert_same(ours: Any, theirs: Any) -> None:
    """Bit for bit, after torch's own widening to float32."""
    expected = theirs.detach().to(torch.float32).contiguous().numpy()
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    np.testing.assert_array_equal(ours.view(np.uint32), expected.view(np.uint32))


@FORMATS
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "float64"])
def test_every_precision(tmp_path: Path, legacy: bool, kind: str) -> None:
    torch.manual_seed(0)
    special = torch.tensor([0.0, -0.0, float("inf"), 1e-40, 65504.0, 2.0**-24])
    state = {"w": torch.randn(5, 7).to(getattr(torch, kind)), "s": special.to(getattr(torch, kind))}
    save(state, tmp_path / "w.bin", legacy)
    stored = read_torch_bin(tmp_path / "w.bin")
    for name, tensor in state.items():
        assert_same(stored[name].read(), tensor)


@FORMATS
def test_tied_strided_and_odd_tensors(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(60.0).view(3, 4, 5)
    state = {
        "base": base,
        "tied": base,
        "transposed": base.transpose(0, 2),
        "slice": base[1:, ::2, 3:],
        "column": base[:, 0, 2],
        "element": base[2, 3, 4],
        "scalar": torch.tensor(7.0),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(base.sum(0)),
        "ids": torch.arange(512).expand(1, -1),
        "flags": torch.tensor([True, False]),
    }
    save(state, tmp_path / "w.bin", legacy)
    stored = read_torch_bin(tmp_path / "w.bin")
    assert list(stored) == list(state)
    for name, tensor in state.items():
        assert stored[name].is_float == tensor.is_floating_point()
        if tensor.is_floating_point():
            assert_same(stored[name].read(), tensor)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_safetensors_written_by_transformers_in_shards(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**TINY)).to(getattr(torch, kind))
    model.save_pretrained(tmp_path, max_shard_size="1MB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    check_directory(tmp_path, model)


def check_directory(directory: Path, model: Any) -> None:
    state = model.state_dict()
    weights = read_weights(
        directory, {name: tuple(tensor.shape) for name, tensor in state.items()}, BERT.names(SEQUENCE)
    )
    assert set(weights) == set(state)
    for name, tensor in state.items():
        assert_same(weights[name], tensor)


@FORMATS
def test_pretraining_checkpoint_gives_encoder_and_pooler(tmp_path: Path, legacy: bool) -> None:
    """As the hub's BERT checkpoints: heads cls.*, gamma and beta, a decoder tied to the word embeddings."""
    torch.manual_seed(0)
    pretrained = transformers.BertForPreTraining(transformers.BertConfig(**TINY)).state_dict()
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in pretrained.items()
    }
    save(renamed, tmp_path / "pytorch_model.bin", legacy)
    classifier = transformers.BertForSequenceClassification(transformers.BertConfig(**TINY)).state_dict()
    weights = read_weights(
        tmp_path, {name: tuple(tensor.shape) for name, tensor in classifier.items()}, BERT.names(SEQUENCE)
    )
    assert set(weights.missing) == {"classifier.weight", "classifier.bias"}
    assert weights.ignored
    assert all(name.startswith("cls.") for name in weights.ignored)
    for name in weights:
        assert_same(weights[name], pretrained[name])


def test_what_is_written_opens_in_transformers(tmp_path: Path) -> None:
    config = BertConfig(**TINY, id2label={0: "no", 1: "yes", 2: "perhaps"}, classifier_dropout=0.2)
    config.save_pretrained(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    shapes = transformers.BertForSequenceClassification(theirs).state_dict()
    random = np.random.default_rng(0)
    arrays = {name: random.standard_normal(tuple(tensor.shape), np.float32) for name, tensor in shapes.items()}
    write_weights(tmp_path, arrays)
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(model, transformers.BertForSequenceClassification)
    assert model.dtype == torch.float32
    assert not any(report.values())
    assert model.config.id2label == {0: "no", 1: "yes", 2: "perhaps"}
    assert model.config.classifier_dropout == 0.2
    for name, tensor in model.state_dict().items():
        assert_same(arrays[name], tensor)


def test_config_has_the_names_and_defaults_of_transformers() -> None:
    theirs = transformers.BertConfig().to_dict()
    ours = BertConfig().to_dict()
    written_here = {"architectures", "dtype"}
    assert {name: ours[name] for name in ours.keys() - written_here} == {
        name: theirs[name] for name in ours.keys() - written_here
    }


def test_config_written_by_transformers_comes_back(tmp_path: Path) -> None:
    theirs = transformers.BertConfig(**TINY, num_labels=5, hidden_act="gelu_new", problem_type="regression")
    theirs.save_pretrained(tmp_path)
    ours = BertConfig.from_pretrained(tmp_path)
    assert ours == BertConfig(**TINY, num_labels=5, hidden_act="gelu_new", problem_type="regression")
    ours.save_pretrained(tmp_path)
    again = transformers.AutoConfig.from_pretrained(tmp_path)
    changed = {"architectures", "dtype", "_name_or_path"}
    assert {k: v for k, v in again.to_dict().items() if k not in changed} == {
        k: v for k, v in theirs.to_dict().items() if k not in changed
    }


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_safetensors_written_by_torch(tmp_path: Path, kind: str) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state = {"a": torch.randn(3, 5).to(getattr(torch, kind)), "b": torch.randn(()).to(getattr(torch, kind))}
    save_file(state, tmp_path / "w")
    stored = read_safetensors(tmp_path / "w")
    for name, tensor in state.items():
        assert_same(stored[name].read(), tensor)
