"""Model directories in the forms the hub has, written by torch and transformers: the same weights, the same logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch_models
import transformers
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

import kdistill as kd

CONFIG = {**torch_models.BERT_TINY, "vocab_size": 500, "num_labels": 3}
LENGTHS = [1, 37, 2, 12]
State = dict[str, Any]


@pytest.fixture(scope="module")
def theirs() -> Any:
    return torch_models.torch_model(CONFIG, std=0.06, seed=3)


def write_config(directory: Path, model: Any) -> None:
    model.config.save_pretrained(directory)


# --- forms of the same classifier ------------------------------------------------------------------------------------


def renamed(state: State, old: str, new: str) -> State:
    return {name.replace(old, new): tensor for name, tensor in state.items()}


def without_prefix(state: State) -> State:
    return {name.removeprefix("bert."): tensor for name, tensor in state.items()}


def gamma_and_beta(state: State) -> State:
    return renamed(renamed(state, "LayerNorm.weight", "LayerNorm.gamma"), "LayerNorm.bias", "LayerNorm.beta")


def with_position_ids(state: State) -> State:
    """The buffer that transformers saved until 4.31."""
    return {"bert.embeddings.position_ids": torch.arange(512).expand(1, -1), **state}


def with_heads(state: State) -> State:
    """Return the tensors that BertForPreTraining adds; its decoder is tied to the word embeddings."""
    words = state["bert.embeddings.word_embeddings.weight"]
    heads = {
        "cls.predictions.bias": torch.zeros(len(words)),
        "cls.predictions.decoder.weight": words,
        "cls.predictions.transform.LayerNorm.gamma": torch.ones(128),
        "cls.seq_relationship.weight": torch.zeros(2, 128),
    }
    return {**state, **heads}


def strided(state: State) -> State:
    """Views of one storage, and matrices stored by columns."""
    state = {name: tensor.T.contiguous().T if tensor.ndim == 2 else tensor for name, tensor in state.items()}
    names = [name for name in state if name.endswith("self.query.bias")]
    together = torch.stack([state[name] for name in names], dim=1)
    return {**state, **{name: together[:, index] for index, name in enumerate(names)}}


CHANGES = [without_prefix, gamma_and_beta, with_position_ids, with_heads, strided]


def write_zip(state: State, directory: Path) -> None:
    torch.save(state, directory / "pytorch_model.bin")


def write_legacy(state: State, directory: Path) -> None:
    torch.save(state, directory / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def write_safetensors(state: State, directory: Path) -> None:
    own = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    save_file(own, directory / "model.safetensors", metadata={"format": "pt"})


def write_shards(state: State, directory: Path) -> None:
    own = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    save_torch_state_dict(own, directory, max_shard_size="300KB")
    assert len(list(directory.glob("model-*.safetensors"))) > 2
    assert (directory / "model.safetensors.index.json").is_file()


def write_shards_of_bin(state: State, directory: Path) -> None:
    """As transformers wrote them before version 5: an index, and shards from torch.save."""
    names, shards = list(state), {}
    for number in range(3):
        file = f"pytorch_model-{number + 1:05}-of-00003.bin"
        shards |= dict.fromkeys(names[number::3], file)
        torch.save({name: state[name] for name in names[number::3]}, directory / file)
    index = {"metadata": {"total_size": 0}, "weight_map": shards}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))


WRITERS = [write_zip, write_legacy, write_safetensors, write_shards, write_shards_of_bin]


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__.removeprefix("write_"))
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_every_form_holds_the_same_model(
    theirs: Any, tmp_path: Path, change: Callable[[State], State], write: Callable[[State, Path], None]
) -> None:
    write_config(tmp_path, theirs)
    write(change(theirs.state_dict()), tmp_path)
    left_out = r"has 4 tensors that this model does not use: .*cls\.seq_relationship\.weight"
    with pytest.warns(UserWarning, match=left_out) if change is with_heads else nullcontext():
        ours = kd.BertForSequenceClassification.from_pretrained(tmp_path)
    for name, value in torch_models.torch_arrays(theirs).items():
        np.testing.assert_array_equal(ours.parameters[name], value, err_msg=name)


def assert_same_logits(ours: kd.BertForSequenceClassification, theirs: Any, bound: float = 1e-5) -> None:
    ids, types = torch_models.random_rows(LENGTHS, CONFIG, seed=9)
    with torch.inference_mode():
        expected = torch_models.torch_logits(theirs, ids, types).numpy()
    found = ours.forward(kd.pack(torch_models.encodings(ids, types)))
    assert np.abs(found - expected).max() <= bound * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__.removeprefix("write_"))
def test_half_precision_is_widened(theirs: Any, tmp_path: Path, write: Any, kind: Any) -> None:
    """The logits are those of transformers after the same rounding, computed in float32."""
    write_config(tmp_path, theirs)
    state = {name: tensor.to(kind) for name, tensor in theirs.state_dict().items()}
    write(state, tmp_path)
    ours = kd.BertForSequenceClassification.from_pretrained(tmp_path)
    widened = transformers.BertForSequenceClassification(theirs.config).eval()
    widened.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    assert_same_logits(ours, widened)


# --- checkpoints of other heads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["BertForPreTraining", "BertForMaskedLM", "BertModel"])
def test_pretrained_encoders_saved_by_transformers(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.BertConfig(**CONFIG)).eval()
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"lacks .*classifier\.weight|does not use") as said:
        ours = kd.BertForSequenceClassification.from_pretrained(tmp_path)
    assert any("lacks" in str(one.message) for one in said)
    assert any("cls.predictions.bias" in str(one.message) for one in said) == (kind != "BertModel")
    encoder = model if kind == "BertModel" else model.bert
    compared = 0
    for name, tensor in encoder.state_dict().items():
        if f"bert.{name}" in ours.parameters:
            np.testing.assert_array_equal(ours.parameters[f"bert.{name}"], tensor.numpy(), err_msg=name)
            compared += 1
    assert compared >= 5 + 16 * CONFIG["num_hidden_layers"]


def test_a_classifier_of_other_labels(theirs: Any, tmp_path: Path) -> None:
    """Refused, or a new classifier on the same encoder, as in transformers."""
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has 3 labels, and the model is to have 2\. .*ignore_mismatched_sizes=True"):
        kd.BertForSequenceClassification.from_pretrained(tmp_path, num_labels=2)
    options = {"num_labels": 2, "ignore_mismatched_sizes": True}
    with pytest.warns(UserWarning, match=r"classifier\.weight \(in the file \(3, 128\), here \(2, 128\)\)"):
        ours = kd.BertForSequenceClassification.from_pretrained(tmp_path, **options)
    expected = transformers.BertForSequenceClassification.from_pretrained(tmp_path, **options).eval()
    assert ours.config.num_labels == expected.config.num_labels == 2
    for name, tensor in expected.named_parameters():
        assert ours.parameters[name].shape == tuple(tensor.shape)
        if not name.startswith("classifier."):
            np.testing.assert_array_equal(ours.parameters[name], tensor.detach().numpy(), err_msg=name)
    for part in ("weight", "bias"):
        ours.parameters[f"classifier.{part}"][...] = getattr(expected.classifier, part).detach().numpy()
    assert_same_logits(ours, expected)


# --- BERT-base -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [None, write_zip, write_legacy], ids=["safetensors", "zip", "legacy"])
def test_bert_base(tmp_path: Path, write: Any) -> None:
    """As transformers saves it now, and with the names and the buffer that older files have."""
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=2)).eval()
    if write is None:
        model.save_pretrained(tmp_path)
    else:
        write_config(tmp_path, model)
        write(with_position_ids(gamma_and_beta(model.state_dict())), tmp_path)
    ours = kd.BertForSequenceClassification.from_pretrained(tmp_path)
    assert ours.num_parameters() == 109_483_778
    assert_same_logits(ours, model)
