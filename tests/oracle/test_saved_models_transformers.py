"""Models saved by kdistill open in transformers, and the other way round, with the same logits."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch_models
import transformers

import kdistill as kd
from kdistill import keywords

CONFIG = {
    **torch_models.ODD,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 96,
    "type_vocab_size": 3,
    "id2label": {0: "no", 1: "maybe", 2: "yes"},
    "label2id": {"no": 0, "maybe": 1, "yes": 2},
}
del CONFIG["num_labels"]
LENGTHS = [1, 96, 2, 37, 9]


def logits_of(ours: kd.BertForSequenceClassification, theirs: Any) -> tuple[Any, Any]:
    ids, types = torch_models.random_rows(LENGTHS, CONFIG, seed=9)
    with torch.inference_mode():
        expected = torch_models.torch_logits(theirs, ids, types).numpy()
    return ours.forward(kd.pack(torch_models.encodings(ids, types))), expected


@pytest.fixture
def pair() -> tuple[kd.BertForSequenceClassification, Any]:
    return torch_models.pair(CONFIG, std=0.06, seed=10)


@pytest.mark.parametrize(
    "opener",
    [transformers.BertForSequenceClassification, transformers.AutoModelForSequenceClassification],
    ids=["BertForSequenceClassification", "AutoModelForSequenceClassification"],
)
def test_saved_by_kdistill_opens_in_transformers(
    pair: tuple[kd.BertForSequenceClassification, Any], tmp_path: Path, opener: Any
) -> None:
    ours, _ = pair
    ours.save_pretrained(tmp_path)
    opened, loading = opener.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    for name, value in opened.named_parameters():
        np.testing.assert_array_equal(value.detach().numpy(), ours.parameters[name])
    logits, expected = logits_of(ours, opened.eval())
    assert np.abs(logits - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    assert opened.config.id2label == CONFIG["id2label"]
    assert opened.config.label2id == CONFIG["label2id"]
    for field in ("hidden_act", "layer_norm_eps", "max_position_embeddings", "type_vocab_size", "vocab_size"):
        assert getattr(opened.config, field) == CONFIG[field], field


def test_saved_by_kdistill_opens_as_a_plain_encoder(
    pair: tuple[kd.BertForSequenceClassification, Any], tmp_path: Path
) -> None:
    ours, theirs = pair
    ours.save_pretrained(tmp_path)
    opened = transformers.AutoModel.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.inference_mode():
        expected = theirs.bert(ids).pooler_output
        torch.testing.assert_close(opened(ids).pooler_output, expected, rtol=0.0, atol=1e-5)


def test_saved_by_transformers_opens_in_kdistill(
    pair: tuple[kd.BertForSequenceClassification, Any], tmp_path: Path
) -> None:
    _, theirs = pair
    theirs.save_pretrained(tmp_path)
    opened = kd.BertForSequenceClassification.from_pretrained(tmp_path)
    logits, expected = logits_of(opened, theirs)
    assert np.abs(logits - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    assert opened.config.id2label == CONFIG["id2label"]


def test_bare_encoder_saved_by_transformers_opens_with_a_new_classifier(
    pair: tuple[kd.BertForSequenceClassification, Any], tmp_path: Path
) -> None:
    _, theirs = pair
    theirs.bert.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"lacks classifier\.weight"):
        opened = kd.BertForSequenceClassification.from_pretrained(tmp_path, seed=1)
    for part in ("weight", "bias"):
        opened.parameters[f"classifier.{part}"][...] = getattr(theirs.classifier, part).detach().numpy()
    logits, expected = logits_of(opened, theirs)
    assert np.abs(logits - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


def test_round_trip_through_both_keeps_the_config(
    pair: tuple[kd.BertForSequenceClassification, Any], tmp_path: Path
) -> None:
    ours, _ = pair
    ours.save_pretrained(tmp_path / "ours")
    transformers.BertForSequenceClassification.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    again = kd.BertForSequenceClassification.from_pretrained(tmp_path / "theirs")
    for field in (*CONFIG, "hidden_dropout_prob", "attention_probs_dropout_prob", "pad_token_id", "initializer_range"):
        assert getattr(again.config, field) == getattr(ours.config, field), field


@pytest.mark.parametrize("problem_type", ["regression", "multi_label_classification"])
def test_a_saved_problem_type_is_that_of_transformers(problem_type: str, tmp_path: Path) -> None:
    labels = np.array([[1.0, 0.0, 1.0]], np.float32)
    config = {**torch_models.ODD, "num_labels": 3, "problem_type": problem_type}
    ours = kd.BertForSequenceClassification(kd.BertConfig(**config), seed=1)
    ours.save_pretrained(tmp_path)
    opened = transformers.BertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert opened.config.problem_type == problem_type
    with torch.inference_mode():
        expected = opened(torch.tensor([[3, 1, 4]]), labels=torch.tensor(labels)).loss.item()
    assert ours([[3, 1, 4]], labels=labels).loss == pytest.approx(expected, rel=1e-5)


def test_transformers_keeps_what_a_model_was_trained_with(
    pair: tuple[kd.BertForSequenceClassification, Any], tmp_path: Path
) -> None:
    ours, _ = pair
    ours.config = ours.config.replace(extra={"kdistill": {"max_length": 64, "text_column": "review"}})
    ours.save_pretrained(tmp_path / "ours")
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours")
    opened.save_pretrained(tmp_path / "theirs")
    again = kd.BertForSequenceClassification.from_pretrained(tmp_path / "theirs")
    assert again.config.extra["kdistill"] == {"max_length": 64, "text_column": "review"}


def test_outputs_have_the_names_and_places_of_a_model_output(
    pair: tuple[kd.BertForSequenceClassification, Any],
) -> None:
    ours, theirs = pair
    rows = {"input_ids": [[2, 7, 3], [2, 9, 3]]}
    for labels in (None, [0, 2]):
        given = {} if labels is None else {"labels": labels}
        expected = theirs(torch.tensor(rows["input_ids"]), **{name: torch.tensor(v) for name, v in given.items()})
        found = ours(**rows, **given)
        assert list(found) == list(expected)
        assert len(found) == len(expected) == len(found.to_tuple())
        for place, name in enumerate(expected):
            np.testing.assert_array_equal(found[place], found[name])
            np.testing.assert_allclose(found[place], expected[place].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_model_of_transformers_by_mistake(pair: tuple[kd.BertForSequenceClassification, Any]) -> None:
    ours, theirs = pair
    for name, call in (
        ("model", lambda: kd.Trainer(theirs)),
        ("teacher_model", lambda: kd.DistillationTrainer(ours, teacher_model=theirs)),
        ("teacher", lambda: kd.BertForSequenceClassification.from_teacher(theirs, ours.config)),
        ("model", lambda: kd.pipeline(model=theirs)),
    ):
        with pytest.raises(TypeError, match=f"^{name} is of type transformers.BertForSequenceClassification"):
            call()
    with pytest.raises(TypeError, match=r"^config is of type transformers\.BertConfig"):
        kd.BertForSequenceClassification(theirs.config)


def test_every_keyword_of_loading_in_transformers_is_known() -> None:
    """The named arguments, and those that the source takes out of **kwargs, which differ between versions."""
    known = {*keywords.NAMES, *inspect.signature(kd.BertForSequenceClassification.from_pretrained).parameters}
    known |= {*inspect.signature(kd.BertTokenizer.from_pretrained).parameters, "pretrained_model_name_or_path"}
    for function in (
        transformers.PreTrainedModel.from_pretrained,
        transformers.PreTrainedConfig.from_pretrained,
        transformers.PreTrainedConfig._get_config_dict,
        transformers.PreTrainedTokenizerBase.from_pretrained,
        transformers.AutoModelForSequenceClassification.from_pretrained,
        transformers.AutoTokenizer.from_pretrained,
    ):
        named = [*inspect.signature(function).parameters.values()]
        names = {one.name for one in named if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
        names |= set(re.findall(r'kwargs\.pop\(\s*"(\w+)"', inspect.getsource(function)))
        assert names - known - {"cls", "_configuration_file"} == set(), function


def test_pipelines_of_transformers_feed_a_distilbert_no_token_types(tmp_path: Path) -> None:
    """The tokenizer of a BERT teacher gives them; the student that is saved with it has none."""
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film"]) + "\n"
    )
    tokenizer = kd.BertTokenizer.from_pretrained(tmp_path)
    assert tokenizer.has_token_types
    config = kd.DistilBertConfig(vocab_size=7, dim=8, n_heads=2, n_layers=1, hidden_dim=8, max_position_embeddings=16)
    model = kd.DistilBertForSequenceClassification(config, seed=1)
    args = kd.TrainingArguments(str(tmp_path / "out"), disable_tqdm=True)
    kd.Trainer(model, args, processing_class=tokenizer).save_model()
    theirs = transformers.pipeline("text-classification", model=str(tmp_path / "out"), top_k=None)
    found = theirs({"text": "good film", "text_pair": "film"})
    expected = kd.pipeline("text-classification", model=str(tmp_path / "out"), top_k=None)(
        {"text": "good film", "text_pair": "film"}
    )
    assert [of["label"] for of in found] == [of["label"] for of in expected]
    assert [of["score"] for of in found] == pytest.approx([of["score"] for of in expected], abs=1e-6)
