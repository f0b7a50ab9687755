"""What of an export to GGUF is decided before the package is needed: which models and tokenizers llama.cpp knows.

tests/oracle/test_export_gguf.py has the files themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.kinds_of_tokenizers import write_kind
from support.small_run import small_model, write_model

import kdistill as kd
from kdistill.exporters.gguf_model import check_can_be_bert
from kdistill.exporters.gguf_tokenizer import write_tokenizer
from kdistill.models.model import Model

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}
PRUNED_HEADS = {"pruned_heads": {0: [1], 1: [0]}}


def model(name: str, ending: str, **fields: Any) -> Model:
    made: Model = getattr(kd, name + ending)(getattr(kd, f"{name}Config")(**(SIZES | fields)))
    return made


@pytest.mark.parametrize(
    ("name", "ending", "fields"),
    [
        ("Bert", "Model", {}),
        ("Bert", "ForSequenceClassification", {"num_labels": 1}),
        ("Bert", "ForSequenceClassification", {"hidden_act": "gelu_new", "intermediate_sizes": [20, 20]}),
        ("DistilBert", "Model", {}),
        ("Electra", "Model", {"embedding_size": 16}),
        ("Roberta", "ForSequenceClassification", {}),
        ("XLMRoberta", "ForSequenceClassification", {}),
        ("Camembert", "Model", {}),
    ],
)
def test_a_model_in_the_shape_of_bert_is_taken(name: str, ending: str, fields: dict[str, Any]) -> None:
    check_can_be_bert(model(name, ending, **fields))


@pytest.mark.parametrize(
    ("name", "ending", "fields", "lacking"),
    [
        ("MPNet", "Model", {}, "relative positions"),
        ("Albert", "Model", {"embedding_size": 16}, "a product behind the embeddings"),
        ("Electra", "Model", {"embedding_size": 8}, "a product behind the embeddings"),
        ("Electra", "ForSequenceClassification", {"embedding_size": 16}, "a classifier with the activation 'gelu'"),
        ("DistilBert", "ForSequenceClassification", {}, "a classifier with the activation 'relu'"),
        ("Bert", "ForTokenClassification", {}, "the head of token-classification"),
        ("Bert", "ForQuestionAnswering", {}, "the head of question-answering"),
        ("Bert", "ForMaskedLM", {}, "the head of masked-lm"),
        ("Bert", "Model", {"hidden_act": "relu"}, "the activation 'relu'"),
        ("Bert", "Model", {"intermediate_sizes": [32, 20]}, "layers of different sizes"),
        ("Bert", "Model", PRUNED_HEADS, "attention that is narrower than the model, as after pruning heads"),
    ],
)
def test_what_llama_cpp_has_no_graph_for_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ending: str, fields: dict[str, Any], lacking: str
) -> None:
    monkeypatch.setattr("kdistill.exporters.gguf.find_spec", lambda _: object())
    tokenizer = kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "model"))
    with pytest.raises(ValueError, match=f"{name}{ending} cannot be exported .* llama.cpp has no graph for {lacking}"):
        kd.export(model(name, ending, **fields), tmp_path / "out", format="gguf", processing_class=tokenizer)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("bert without clean_text", "normalizer has clean_text False"),
        ("bert without Chinese words", "normalizer has handle_chinese_chars False"),
        ("no normalizer", r"normalizer has type \[\]"),
        ("bert and Replace", r"normalizer has type \['Replace', 'BertNormalizer'\]"),
        ("WhitespaceSplit", r"pre_tokenizer has type \['WhitespaceSplit'\]"),
        ("no post-processor", r"post_processor has around a text \[\]"),
        ("XLM-R", r"normalizer has type \['NFKC', 'Replace'\]"),
        ("BPE of words", r"normalizer has type \['NFD'"),
        ("WordLevel", "model has type 'WordLevel'"),
        ("word pieces of up to 10 letters", "model has max_input_chars_per_word 10"),
        ("added words", "added token 'covid' has normalized True"),
    ],
)
def test_a_tokenizer_with_other_stages_is_refused(tmp_path: Path, kind: str, found: str) -> None:
    write_kind(kind, tmp_path)
    tokenizer = kd.AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"the tokenizer's {found}.*, and llama.cpp reads "):
        write_tokenizer(None, tokenizer, len(tokenizer))


def test_a_tokenizer_must_fit_the_table_of_words(tmp_path: Path) -> None:
    write_kind("bert", tmp_path)
    tokenizer = kd.AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"has ids up to {len(tokenizer) - 1}, and the model embeddings for 9"):
        write_tokenizer(None, tokenizer, 9)


def test_a_file_cannot_do_without_a_tokenizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kdistill.exporters.gguf.find_spec", lambda _: object())
    with pytest.raises(ValueError, match="processing_class is None; expected the model's tokenizer, which a file"):
        kd.export(small_model(), tmp_path / "m.gguf", format="gguf")
    small_model().save_pretrained(tmp_path / "bare")
    with pytest.raises((OSError, ValueError), match="tokenizer"):
        kd.export(tmp_path / "bare", tmp_path / "m.gguf", format="gguf")
    with pytest.raises(TypeError, match="processing_class"):
        kd.export(small_model(), tmp_path / "m.gguf", format="gguf", processing_class="bert")  # type: ignore[arg-type]
    assert not (tmp_path / "m.gguf").exists()


def test_the_missing_package_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kdistill.exporters.gguf.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'needs the package gguf: pip install "kdistill\[export\]"'):
        kd.export(write_model(tmp_path / "model"), tmp_path / "m.gguf", format="gguf")
