"""What the tables of architectures promise: classes, configurations, messages, keys of cached logits."""

from __future__ import annotations

import ast
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT

import kdistill as kd
from kdistill.models.classes import CLASSES
from kdistill.models.head_names import ENDINGS
from kdistill.models.heads import KINDS
from kdistill.models.registry import ARCHITECTURES

SMALL = {
    "vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20,
    "max_position_embeddings": 14,
}  # fmt: skip
IDS = [[5, 6, 7], [8, 9]]
EVERY = pytest.mark.parametrize("name", [architecture.name for architecture in ARCHITECTURES.values()])


def small(name: str, ending: str = "ForSequenceClassification", **changes: Any) -> Any:
    return getattr(kd, name + ending)(getattr(kd, f"{name}Config")(**(SMALL | changes)), seed=1)


def test_the_lists_for_readers_and_type_checkers_are_those_of_the_tables() -> None:
    stub = ast.parse((ROOT / "kdistill" / "models" / "classes.pyi").read_text())
    listed = {
        node.name: (ast.unparse(node.bases[0]), ast.unparse(node.body[0].annotation))  # type: ignore[attr-defined]
        for node in stub.body
        if isinstance(node, ast.ClassDef)
    }
    expected = {
        architecture.name + ENDINGS[head]: (kind.__name__, architecture.config.__name__)
        for architecture in ARCHITECTURES.values()
        for head, kind in KINDS.items()
    }
    assert listed == expected
    assert {*CLASSES, *(name.replace("Model", "") + "Config" for name in CLASSES if name.endswith("Model"))} <= {
        *kd.__all__
    }


@EVERY
def test_a_class_is_found_by_pickle_and_described(name: str) -> None:
    for ending in ENDINGS.values():
        cls = getattr(kd, name + ending)
        assert pickle.loads(pickle.dumps(cls)) is cls
        assert cls.config_class.kind in cls.__doc__
    model = small(name)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)
    assert again.config == model.config


@EVERY
def test_nothing_is_said_of_a_pooler_that_a_head_does_not_read(tmp_path: Path, name: str) -> None:
    small(name, "Model").save_pretrained(tmp_path)
    for ending in ("ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM"):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            getattr(kd, f"{name}{ending}").from_pretrained(tmp_path)
        assert not [str(one.message) for one in said if "does not use" in str(one.message)], ending


@EVERY
def test_a_configuration_answers_to_the_names_of_bert(name: str) -> None:
    config = getattr(kd, f"{name}Config")(**SMALL)
    assert {field: getattr(config, field) for field in SMALL} == SMALL
    assert config.replace(hidden_dropout_prob=0.3).hidden_dropout_prob == 0.3
    assert eval(repr(config), vars(kd) | {f"{name}Config": type(config)}) == config
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(AttributeError, match=f"{name}Config.* has no attribute 'hiden_size'"):
        _ = config.hiden_size


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: kd.DistilBertConfig(dim=100, n_heads=3), ValueError, "dim 100 is not a multiple of n_heads 3"),
        (lambda: kd.DistilBertConfig(dim=24, hidden_size=24), TypeError, "hidden_size and dim are one field"),
        (lambda: kd.DistilBertConfig(qa_dropout=1), ValueError, "qa_dropout is 1.0; expected 0 <="),
        (lambda: kd.DistilBertConfig(n_layer=1), TypeError, "DistilBertConfig has no argument 'n_layer'.*'n_layers'"),
        (lambda: kd.AlbertConfig(num_hidden_groups=2), ValueError, "num_hidden_groups must be 1; .* kind of ALBERT"),
        (lambda: kd.AlbertConfig(inner_group_num=2), ValueError, "inner_group_num must be 1"),
        (lambda: kd.AlbertConfig(embedding_size=0), ValueError, "embedding_size is 0; expected 1 to"),
        (lambda: kd.RobertaConfig(pad_token_id=None), ValueError, "pad_token_id is None; expected the padding token"),
        (lambda: kd.RobertaConfig(max_position_embeddings=2), ValueError, "max_position_embeddings is 2; .* than 2"),
        (lambda: kd.MPNetConfig(relative_attention_num_buckets=64), ValueError, "num_buckets must be 32; .* of MPNet"),
        (lambda: kd.BertForSequenceClassification(kd.RobertaConfig()), TypeError, "RobertaForSequenceClassification"),
        (lambda: kd.AutoConfig.for_model("gpt2"), ValueError, "which kdistill does not compute; .* bert, distilbert"),
        (lambda: small("Bert", "ForQuestionAnswering", num_labels=3), ValueError, "num_labels is 3; expected 2"),
    ],
)
def test_what_cannot_be_is_named(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize("model_type", ["deberta-v2", "modernbert", "gpt2"])
def test_another_architecture_is_refused_with_the_list(tmp_path: Path, model_type: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    for load in (kd.AutoModel.from_pretrained, kd.AutoConfig.from_pretrained, kd.BertModel.from_pretrained):
        with pytest.raises(ValueError, match=rf"config\.json: model_type is '{model_type}'.*distilbert.*roberta"):
            load(tmp_path)


def test_a_class_refuses_another_architecture_with_the_way_to_it(tmp_path: Path) -> None:
    small("Roberta").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model_type is 'roberta'; expected 'bert' for BertConfig: AutoConfig and"):
        kd.BertForSequenceClassification.from_pretrained(tmp_path)
    assert type(kd.AutoModelForSequenceClassification.from_pretrained(tmp_path)) is kd.RobertaForSequenceClassification


def test_models_that_compute_otherwise_have_other_keys() -> None:
    """ELECTRA as wide as its tables has BERT's tensors, and another activation in its head."""
    bert, electra = small("Bert"), small("Electra", embedding_size=24)
    assert bert.flat_parameters.size == electra.flat_parameters.size
    electra.load_flat(bert.flat_parameters)
    assert bert.weights_hash() != electra.weights_hash()


def test_a_model_without_token_types_ignores_them() -> None:
    model = small("DistilBert")
    given = {"input_ids": IDS, "token_type_ids": [[0, 0, 1], [0, 1]]}
    np.testing.assert_array_equal(model(given).logits, model(IDS).logits)


def test_a_text_is_as_long_as_positions_allow() -> None:
    for name, longest in (("Bert", 14), ("Roberta", 12)):
        model = small(name)
        assert model.config.max_tokens == longest
        model([[5] * longest])
        with pytest.raises(ValueError, match=f"has {longest + 1} tokens; the model has {longest} positions"):
            model([[5] * (longest + 1)])


def test_losses_of_calls() -> None:
    tokens = small("Bert", "ForTokenClassification", num_labels=3)
    logits = tokens.forward(IDS)
    expected, _ = kd.cross_entropy(logits[[0, 2, 4]], np.array([1, 0, 2]))
    assert tokens(IDS, labels=[[1, -100, 0], [-100, 2]]).loss == expected
    with pytest.raises(ValueError, match=r"labels\[0\] has shape \(2,\); expected \(3,\)"):
        tokens(IDS, labels=[[1, 0], [0, 2]])
    with pytest.raises(ValueError, match="-100 for every token"):
        tokens(IDS, labels=[[-100] * 3, [-100] * 2])
    spans = small("Bert", "ForQuestionAnswering")
    with pytest.raises(ValueError, match="end_positions is None, and the other is given; expected both, or neither"):
        spans(IDS, start_positions=[1, 9])
    result = spans(IDS, start_positions=[1, 9], end_positions=[2, 9])

    def lost(row: Any, place: int) -> float:
        return float(np.log(np.exp(row.astype(np.float64)).sum()) - row[place])

    both = (lost(result.start_logits[0], 1) + lost(result.end_logits[0], 2)) / 2
    assert result.loss == pytest.approx(both, rel=1e-6)  # a span outside of its row counts as none
