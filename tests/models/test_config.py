"""BertConfig: transformers' names and defaults, and an error for every configuration that cannot be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from kdistill.models.config import BertConfig


def test_defaults_are_bert_base() -> None:
    """The values are those of the BERT-base checkpoint published with arXiv:1810.04805."""
    config = BertConfig()
    shape = (config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads)
    assert shape == (30522, 768, 12, 12)
    assert (config.intermediate_size, config.max_position_embeddings, config.type_vocab_size) == (3072, 512, 2)
    assert (config.hidden_act, config.layer_norm_eps, config.initializer_range) == ("gelu", 1e-12, 0.02)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.classifier_dropout) == (
        0.1,
        0.1,
        None,
    )
    assert (config.num_labels, config.id2label) == (2, {0: "LABEL_0", 1: "LABEL_1"})


@pytest.mark.parametrize(
    "labels",
    [
        {"id2label": {1: "positive", 0: "negative"}},
        {"id2label": {"0": "negative", "1": "positive"}},
        {"label2id": {"positive": 1, "negative": 0}},
        {"id2label": {"0": "negative", "1": "positive"}, "label2id": {"negative": "0", "positive": "1"}},
        {"id2label": {0: "negative", 1: "positive"}, "label2id": {"positive": 1, "negative": 0}, "num_labels": 2},
    ],
)
def test_labels_in_any_form(labels: dict[str, Any]) -> None:
    config = BertConfig(**labels)
    assert list(config.id2label.items()) == [(0, "negative"), (1, "positive")]
    assert list(config.label2id.items()) == [("negative", 0), ("positive", 1)]
    assert config.num_labels == 2


def test_num_labels_alone_names_them_by_number() -> None:
    assert BertConfig(num_labels=3).label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert BertConfig(num_labels=1).id2label == {0: "LABEL_0"}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_hidden_layers": 1_000_000}, "num_hidden_layers is 1000000; expected 1 to 4096"),
        ({"vocab_size": 0}, "vocab_size is 0; expected 1 to"),
        ({"hidden_size": -768}, "hidden_size is -768"),
        ({"num_hidden_layers": 2**31}, "num_hidden_layers is 2147483648"),
        ({"max_position_embeddings": 10**30}, "max_position_embeddings"),
        ({"hidden_size": 100, "num_attention_heads": 3}, "hidden_size 100 is not a multiple of num_attention_heads 3"),
        (
            {"hidden_act": "mish"},
            "hidden_act is 'mish'; expected one of gelu, gelu_python, .*, relu, silu, swish, tanh",
        ),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0"),
        ({"attention_probs_dropout_prob": -0.1}, "attention_probs_dropout_prob is -0.1"),
        ({"classifier_dropout": float("nan")}, "classifier_dropout is nan"),
        ({"layer_norm_eps": 0}, "layer_norm_eps is 0"),
        ({"initializer_range": float("inf")}, "initializer_range is inf"),
        ({"initializer_range": 10**400}, "initializer_range is inf"),
        ({"initializer_range": -0.02}, "initializer_range is -0.02"),
        ({"pad_token_id": 30522}, "pad_token_id is 30522; expected 0 to 30521"),
        ({"problem_type": "ranking"}, "problem_type is 'ranking'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type must be 'absolute'"),
        ({"is_decoder": True}, "is_decoder must be False"),
        ({"add_cross_attention": True}, "add_cross_attention must be False"),
        ({"pruned_heads": {"0": [12]}}, "a head of pruned_heads\\['0'\\] is 12; expected 0 to 11"),
        ({"pruned_heads": {12: [0]}}, "a layer of pruned_heads is 12; expected 0 to 11"),
        ({"pruned_heads": {3: range(12)}}, "leaves layer 3 none of its 12 heads"),
        ({"intermediate_sizes": [5] * 11}, "expected 12 numbers of at least 1, one for each layer"),
        ({"intermediate_sizes": [5] * 11 + [0]}, "expected 12 numbers of at least 1"),
        ({"num_labels": 0}, "num_labels is 0"),
        ({"num_labels": 10**12}, "num_labels is 1000000000000"),
        ({"num_labels": 3, "id2label": {0: "a", 1: "b"}}, "num_labels is 3, but 2 labels are named"),
        ({"id2label": {}}, "without gaps"),
        ({"id2label": {0: "a", 2: "b"}}, r"the ids \[0, 2\]"),
        ({"id2label": {0: "a", 1: "a"}}, "one label to two ids"),
        ({"label2id": {"a": 0, "b": 0}}, "one id to two labels"),
        ({"quantization_config": {"bits": 4}}, "quantization_config must be {}"),
    ],
)
def test_impossible_value(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        BertConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hiden_size": 128}, "no argument 'hiden_size'; did you mean 'hidden_size'"),
        ({"nmu_labels": 3}, "did you mean 'num_labels'"),
        ({"xyzzy": 3}, "no argument 'xyzzy'$"),
        ({"hidden_size": 768.0}, "hidden_size is 768.0, a float; expected an int"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True, a bool"),
        ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob is '0.1', a str"),
        ({"id2label": ["a", "b"]}, "id2label is a list; expected a dict"),
        ({"id2label": {0: "a", 1: 2}}, "the label 2; expected a str"),
        ({"label2id": {"a": 0, "b": "x"}}, "an id in label2id is 'x'"),
    ],
)
def test_wrong_type_or_name(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(TypeError, match=match):
        BertConfig(**changes)


def test_is_immutable_and_replace_checks_again() -> None:
    config = BertConfig(num_labels=3)
    for name in ("hidden_size", "label2id"):  # run_glue.py of transformers assigns the latter
        with pytest.raises(
            dataclasses.FrozenInstanceError, match=rf"{name} of a .* assigned; .*{name}=.*config\.replace"
        ):
            setattr(config, name, 3)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot be deleted"):
        del config.hidden_size
    assert config.replace(hidden_size=24) == BertConfig(num_labels=3, hidden_size=24)
    assert config.replace(id2label={0: "no", 1: "yes"}).label2id == {"no": 0, "yes": 1}
    with pytest.raises(ValueError, match="not a multiple"):
        config.replace(hidden_size=25)


def test_repr_is_the_call_that_makes_it() -> None:
    config = BertConfig(hidden_size=128, num_attention_heads=2, id2label={0: "no", 1: "yes"}, classifier_dropout=0.3)
    assert eval(repr(config)) == config
    assert repr(BertConfig()) == "BertConfig()"


def test_saved_config_comes_back_with_what_it_does_not_know(tmp_path: Path) -> None:
    content = {
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 60, "num_attention_heads": 5,
        "id2label": {"0": "nein", "1": "já", "2": "?"}, "finetuning_task": "sst-2", "torch_dtype": "float16",
        "position_embedding_type": "absolute", "nested": {"a": [1, None]},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = BertConfig.from_pretrained(tmp_path)
    assert config.extra == {"finetuning_task": "sst-2", "nested": {"a": [1, None]}}
    changed = BertConfig.from_pretrained(tmp_path, num_labels=2, hidden_dropout_prob=0)
    assert changed == config.replace(num_labels=2, hidden_dropout_prob=0)
    with pytest.raises(TypeError, match=r"^BertConfig has no argument 'droput'"):
        BertConfig.from_pretrained(tmp_path, droput=0)
    config.save_pretrained(tmp_path / "new" / "directory")
    again = BertConfig.from_pretrained(tmp_path / "new" / "directory")
    assert again == config
    assert again.extra == config.extra
    written = json.loads((tmp_path / "new" / "directory" / "config.json").read_text())
    assert written["architectures"] == ["BertForSequenceClassification"]
    assert written["id2label"] == {"0": "nein", "1": "já", "2": "?"}
    assert written["dtype"] == "float32"
    assert "torch_dtype" not in written


@pytest.mark.parametrize(
    ("label2id", "said"),
    [
        ({"a": 1, "b": 0}, "label2id gives 'a' the id 1 and id2label 0"),
        ({"a": 0}, "label2id gives 'b' the id None and id2label 1"),
        ({"a": 0, "b": "x"}, "label2id gives 'b' the id 'x' and id2label 1"),
        ({"a": 0, "b": 1, "c": 2}, "label2id has 'c', which id2label lacks"),
    ],
)
def test_id2label_decides_where_label2id_disagrees(label2id: dict[str, Any], said: str) -> None:
    """As in transformers, which reads the names of predictions from id2label."""
    with pytest.warns(UserWarning, match=f"{said}; id2label takes precedence"):
        config = BertConfig(id2label={0: "a", 1: "b"}, label2id=label2id)
    assert config.label2id == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("output_attentions", True), ("output_hidden_states", True), ("return_dict", False), ("torchscript", True),
        ("auto_map", {"AutoModel": "modeling.Model"}),
    ],
)  # fmt: skip
def test_a_setting_that_changes_what_transformers_does_is_said(tmp_path: Path, field: str, value: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", field: value}))
    with pytest.warns(UserWarning, match=f"^{field} is .* in the configuration, which is ignored: "):
        config = BertConfig.from_pretrained(tmp_path)
    assert config.to_dict()[field] == value
    assert config.replace(hidden_dropout_prob=0.0).extra[field] == value  # said once


def test_what_changes_nothing_is_accepted_in_silence() -> None:
    """Values of config.json files that transformers has written over the years, and null for every optional field."""
    harmless = {
        "chunk_size_feed_forward": 8, "tie_word_embeddings": False, "use_cache": True, "gradient_checkpointing": True,
        "output_attentions": False, "output_hidden_states": None, "return_dict": True, "torchscript": False,
        "is_decoder": None, "pruned_heads": {}, "position_embedding_type": None, "add_cross_attention": False,
        "directionality": "bidi", "pooler_type": "first_token_transform", "classifier_dropout": None,
        "problem_type": None, "pad_token_id": None, "id2label": None, "label2id": None, "num_labels": None,
        "torch_dtype": None, "architectures": None, "quantization_config": None,
    }  # fmt: skip
    assert BertConfig.from_dict({"model_type": "bert", **harmless}) == BertConfig(pad_token_id=None)
    assert BertConfig(finetuning_task="sst2", use_cache=True).extra == {"finetuning_task": "sst2", "use_cache": True}


def test_number_of_labels_in_old_files() -> None:
    assert BertConfig.from_dict({"model_type": "bert", "_num_labels": 5}).num_labels == 5
    assert BertConfig.from_dict({"model_type": "bert", "num_labels": 5}).num_labels == 5


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"model_type": "roberta"}', "model_type is 'roberta'"),
        ('{"model_type": ["bert"]}', "model_type"),
        ('{"model_type": "bert", "hidden_size": 1000}', "hidden_size 1000 is not a multiple"),
        ('{"model_type": "bert", "hidden_size": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"model_type": "bert", "layer_norm_eps": NaN}', "layer_norm_eps is nan"),
        ('{"model_type": "bert", "is_decoder": true}', "is_decoder"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "JSON list; expected an object"),
        ('{"model_type": "bert"', "not valid JSON"),
        ("", "not valid JSON"),
        ("\x00\xff", "not valid JSON"),
    ],
)
def test_bad_config_file_is_named(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "config.json").write_text(content, "latin-1")
    with pytest.raises(ValueError, match=rf"config\.json.*{match}"):
        BertConfig.from_pretrained(tmp_path)


def test_wrong_type_in_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": "768"}')
    with pytest.raises(TypeError, match=r"config\.json: hidden_size is '768'"):
        BertConfig.from_pretrained(tmp_path)


def test_shared_teacher(shared_dir: Path) -> None:
    config = BertConfig.from_pretrained(shared_dir / "models" / "minilm-l6-sst2")
    assert config == BertConfig(
        hidden_size=384, num_hidden_layers=6, intermediate_size=1536, id2label={0: "negative", 1: "positive"}
    )
