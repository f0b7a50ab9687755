"""Configurations beside those of transformers: names, defaults, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import transformers

import kdistill as kd

NAMES = ("Bert", "DistilBert", "Roberta", "XLMRoberta", "Camembert", "Electra", "Albert", "MPNet")
# Fields that change nothing here, or that only have one value here.
ELSEWHERE = {
    "use_cache", "is_decoder", "add_cross_attention", "tie_word_embeddings", "bos_token_id", "eos_token_id",
    "chunk_size_feed_forward", "return_dict", "output_hidden_states", "output_attentions", "is_encoder_decoder",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_fields_have_the_names_and_defaults_of_transformers(name: str) -> None:
    ours, theirs = getattr(kd, f"{name}Config")(), getattr(transformers, f"{name}Config")()
    common = set(transformers.PreTrainedConfig().to_dict())
    for field, value in theirs.to_dict().items():
        if field not in common | ELSEWHERE or field in ("id2label", "label2id", "problem_type"):
            assert getattr(ours, field) == value, field
    assert ours.model_type == theirs.model_type
    for field, own in theirs.attribute_map.items():
        assert getattr(ours, field) == getattr(ours, own)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_the_same_configuration_on_both_sides(name: str, tmp_path: Path) -> None:
    kind = getattr(kd, f"{name}Config")
    ours = kind(id2label={0: "no", 1: "yes"}, max_position_embeddings=70, num_hidden_layers=3)
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(theirs).__name__ == kind.__name__
    assert (theirs.num_hidden_layers, theirs.max_position_embeddings, theirs.id2label[1]) == (3, 70, "yes")
    theirs.save_pretrained(tmp_path / "theirs")
    assert kd.AutoConfig.from_pretrained(tmp_path / "theirs") == ours
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [f"{name}ForSequenceClassification"]
