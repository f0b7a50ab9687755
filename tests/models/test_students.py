"""Students from teachers of another architecture, and of another vocabulary."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import kdistill as kd
from kdistill.models.config import shape_of_student, student_config
from kdistill.models.registry import ARCHITECTURES
from kdistill.models.vocabularies import common_tokens

SIZES = {
    "vocab_size": 41, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 20,
}  # fmt: skip
IDS = [[5, 6, 7], [8, 9]]


def teacher(name: str) -> Any:
    """A model with wide weights, of 12 tokens at most."""
    kind = getattr(kd, f"{name}Config")
    positions = 12 + kind().first_position
    model = getattr(kd, f"{name}ForSequenceClassification")(kind(**SIZES, max_position_embeddings=positions), seed=3)
    rng = np.random.default_rng(4)
    with model.writing() as flat:
        flat += rng.normal(0, 0.3, flat.shape).astype(np.float32)
    return model


@pytest.mark.parametrize("student", ["Bert", "DistilBert"])
@pytest.mark.parametrize("name", [architecture.name for architecture in ARCHITECTURES.values()])
@pytest.mark.parametrize("width", [24, 8])
def test_every_architecture_teaches_a_bert_and_a_distilbert(name: str, student: str, width: int) -> None:
    given = teacher(name)
    config = getattr(kd, f"{student}Config")(
        **(SIZES | {"num_hidden_layers": 2, "hidden_size": width}), max_position_embeddings=12
    )
    made = getattr(kd, f"{student}ForSequenceClassification").from_teacher(given, config, seed=1)
    assert np.isfinite(made(IDS).logits).all()
    assert made.has_new_layers == (width != 24)
    if width == 24:
        layers = [0, 0] if name == "Albert" else [1, 3]
        ours, theirs = made.stored_names(), given.stored_names()
        for layer, source in enumerate(layers):
            np.testing.assert_array_equal(
                made.parameters[ours.stored(f"layer.{layer}.up")], given.parameters[theirs.stored(f"layer.{source}.up")]
            )


def test_a_distilbert_of_all_layers_sees_what_its_bert_teacher_does() -> None:
    """Token type 0 goes into the positions; so the encoders agree on texts (arXiv:1910.01108, which drops it)."""
    given = teacher("Bert")
    config = kd.DistilBertConfig(**SIZES, max_position_embeddings=12)
    made = kd.DistilBertForSequenceClassification.from_teacher(given, config)
    hidden = [model(IDS, output_hidden_states=True).hidden_states[-1] for model in (given, made)]
    for ours, theirs in zip(*hidden, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_by_default_every_second_layer_is_copied() -> None:
    given = teacher("Bert")
    config = kd.DistilBertConfig(**(SIZES | {"num_hidden_layers": 2}), max_position_embeddings=12)
    made = kd.DistilBertForSequenceClassification.from_teacher(given, config)
    for layer in range(2):
        np.testing.assert_array_equal(
            made.parameters[f"distilbert.transformer.layer.{layer}.attention.q_lin.weight"],
            given.parameters[f"bert.encoder.layer.{2 * layer + 1}.attention.self.query.weight"],
        )


WORDPIECE = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": 3, "[UNK]": 4, "film": 5, "##s": 6, "über": 7, "good": 8}
BYTES = {
    "<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "Ġfilm": 5, "film": 6, "s": 7, "Ġs": 8, "ĠÃ¼ber": 9,
    "Ã": 10,
}  # fmt: skip
UNIGRAM = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "▁film": 4, "s": 5, "▁über": 6, "▁": 7, "<mask>": 8}


@pytest.mark.parametrize(
    ("theirs", "pairs"),
    [
        (BYTES, {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>", "[UNK]": "<unk>",
                 "film": "Ġfilm", "##s": "s", "über": "ĠÃ¼ber"}),
        (UNIGRAM, {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>", "[UNK]": "<unk>",
                   "film": "▁film", "##s": "s", "über": "▁über"}),
        (WORDPIECE, {token: token for token in WORDPIECE}),
    ],
    ids=["byte-level BPE", "Unigram", "WordPiece"],
)  # fmt: skip
def test_tokens_that_two_kinds_of_vocabularies_share(theirs: dict[str, int], pairs: dict[str, str]) -> None:
    found = common_tokens(WORDPIECE, theirs)
    expected = {WORDPIECE[ours]: theirs[other] for ours, other in pairs.items()}
    assert dict(zip(found.ours.tolist(), found.theirs.tolist(), strict=True)) == expected


# The ids of MPNet's vocabulary: it has BERT's special tokens inside, of which it uses [UNK] alone.
MPNET = {
    "<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "[PAD]": 4, "[unused0]": 5, "[UNK]": 6, "[CLS]": 7, "[SEP]": 8,
    "[MASK]": 9, "film": 10, "##s": 11, "über": 12, "<mask>": 13,
}  # fmt: skip
IN_A_PROCESS = f"""
from tokenizers import Tokenizer, models
from kdistill.models.vocabularies import common_tokens
theirs = Tokenizer(models.WordPiece({MPNET}, unk_token="[UNK]")).get_vocab()
print(*zip(*(ids.tolist() for ids in common_tokens({WORDPIECE}, theirs))))
"""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_of_two_tokens_for_the_same_the_one_that_models_use_is_taken_in_every_process(seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", IN_A_PROCESS]
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert found == "(0, 1) (1, 0) (2, 2) (3, 13) (4, 6) (5, 10) (6, 11) (7, 12)\n"


def test_a_special_token_that_is_not_used_is_compared_by_its_text() -> None:
    orders = MPNET, dict(reversed(MPNET.items()))
    for ours, theirs in ((one, other) for one in orders for other in orders):
        same = common_tokens(ours, theirs)
        assert same.ours.tolist() == same.theirs.tolist() == list(range(len(MPNET)))
    added = {**WORDPIECE, "<s>": 9, "<mask>": 10, "<unk>": 11}  # BERT's keep their use
    found = common_tokens(WORDPIECE, dict(reversed(added.items())))
    assert found.theirs.tolist() == found.ours.tolist() == list(range(len(WORDPIECE)))


def test_a_student_of_another_vocabulary_takes_the_tokens_that_both_know() -> None:
    given = teacher("Roberta")
    config = kd.BertConfig(**(SIZES | {"vocab_size": 9}), max_position_embeddings=12)
    arguments: dict[str, Any] = {"vocabulary": WORDPIECE, "teacher_vocabulary": BYTES}
    made = kd.BertForSequenceClassification.from_teacher(given, config, seed=2, **arguments)
    words = made.parameters["bert.embeddings.word_embeddings.weight"]
    theirs = given.parameters["roberta.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(words[:8], theirs[[1, 0, 2, 4, 3, 5, 7, 9]])
    new = kd.BertForSequenceClassification(config, seed=2).parameters["bert.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(words[8], new[8])
    with pytest.raises(ValueError, match=r"config.vocab_size is 9; the teacher's is 41, .* or give both vocabularies"):
        kd.BertForSequenceClassification.from_teacher(given, config)
    with pytest.raises(ValueError, match="one of vocabulary and teacher_vocabulary is None"):
        kd.BertForSequenceClassification.from_teacher(given, config, vocabulary=WORDPIECE)
    with pytest.raises(ValueError, match="no token in common"):
        kd.BertForSequenceClassification.from_teacher(given, config, vocabulary=WORDPIECE, teacher_vocabulary={"x": 1})
    with pytest.raises(TypeError, match=r"vocabulary is of type list; .*get_vocab\(\)"):
        kd.BertForSequenceClassification.from_teacher(given, config, vocabulary=[], teacher_vocabulary=BYTES)
    wrong: dict[str, Any] = {"vocabulary": {"film": 90}, "teacher_vocabulary": {"film": 1}}
    with pytest.raises(ValueError, match="vocabulary has the id 90; expected ids below 9"):
        kd.BertForSequenceClassification.from_teacher(given, config, **wrong)


def test_a_student_with_narrow_tables_is_refused() -> None:
    config = kd.AlbertConfig(**SIZES, max_position_embeddings=12)
    with pytest.raises(ValueError, match="config is of type AlbertConfig, with embeddings of a width of their own"):
        kd.AlbertForSequenceClassification.from_teacher(teacher("Bert"), config)


def language_model(name: str, seed: int = 3, **changes: Any) -> Any:
    """A language model with wide weights."""
    kind = getattr(kd, f"{name}Config")
    config = kind(**(SIZES | changes), max_position_embeddings=12 + kind().first_position)
    model = getattr(kd, f"{name}ForMaskedLM")(config, seed=seed)
    rng = np.random.default_rng(4)
    with model.writing() as flat:
        flat += rng.normal(0, 0.3, flat.shape).astype(np.float32)
    return model


@pytest.mark.parametrize("name", [architecture.name for architecture in ARCHITECTURES.values()])
def test_a_language_model_of_all_layers_starts_as_its_teacher(name: str) -> None:
    """The head is copied, too: with every layer the student has the teacher's logits."""
    if name in ("Albert", "Electra"):
        pytest.skip("with embeddings of a width of their own it has no student of its architecture")
    given = language_model(name)
    made = type(given).from_teacher(given, given.config, seed=5)
    np.testing.assert_array_equal(made.forward(IDS), given.forward(IDS))


def test_a_language_models_head_goes_to_another_architecture_and_vocabulary() -> None:
    given = language_model("Roberta")
    config = kd.BertConfig(**(SIZES | {"vocab_size": 9}), max_position_embeddings=12)
    arguments: dict[str, Any] = {"vocabulary": WORDPIECE, "teacher_vocabulary": BYTES}
    made = kd.BertForMaskedLM.from_teacher(given, config, seed=2, **arguments)
    theirs, new = given.parameters["lm_head.bias"], 0.0
    np.testing.assert_array_equal(
        made.parameters["cls.predictions.bias"], np.append(theirs[[1, 0, 2, 4, 3, 5, 7, 9]], new)
    )
    for ours, source in (("dense.weight", "dense.weight"), ("LayerNorm.weight", "layer_norm.weight")):
        np.testing.assert_array_equal(
            made.parameters[f"cls.predictions.transform.{ours}"], given.parameters[f"lm_head.{source}"]
        )


@pytest.mark.parametrize("width", [24, 8])
def test_a_decoder_of_its_own_takes_the_words(width: int) -> None:
    given = language_model("Bert")
    shape = {**given.config.to_dict(), "hidden_size": width, "tie_word_embeddings": False}
    made = kd.BertForMaskedLM.from_teacher(given, kd.BertConfig.from_dict(shape))
    np.testing.assert_array_equal(
        made.parameters["cls.predictions.decoder.weight"], made.parameters["bert.embeddings.word_embeddings.weight"]
    )


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForSequenceClassification"])
def test_a_narrower_language_model_begins_with_how_often_words_occur(head: str) -> None:
    """Its words are long vectors, principal components; its logits are as small as a new model's nevertheless.

    Those have a variance of about hidden_size * initializer_range**2 = 0.003, so the loss is that of the shares of the
    words, of all words alike log(words), and 0.0015.
    """
    config = kd.BertConfig(**(SIZES | {"vocab_size": 500}), max_position_embeddings=12)
    given = getattr(kd, f"Bert{head}")(config, seed=3)
    with given.writing() as flat:
        flat += np.random.default_rng(4).normal(0, 0.3, flat.shape).astype(np.float32)
    rows = [[*range(i, i + 10)] for i in range(0, 490, 10)]
    counts = np.arange(500) ** 2
    for of in (None, counts):
        made = kd.BertForMaskedLM.from_teacher(given, config.replace(hidden_size=8), token_counts=of)
        shares = np.ones(500) if of is None else of + 1.0
        expected = -np.log(shares / shares.sum())[:490].mean()
        assert made(rows, labels=rows).loss == pytest.approx(expected, abs=0.02)
        assert np.abs(made.parameters["bert.embeddings.word_embeddings.weight"]).mean() > 0.3


@pytest.mark.parametrize(("layers", "copied"), [(1, [0]), (2, [1]), (5, [1, 4]), (6, [1, 3, 5])])
def test_half_of_a_teacher_copies_every_second_layer(layers: int, copied: list[int]) -> None:
    """Layers that were pruned apart have the shapes of those that are copied."""
    pruned = {"pruned_heads": {0: [1], layers - 1: [0]}, "intermediate_sizes": [*range(8, 8 + layers)]}
    config = kd.BertConfig(**(SIZES | {"num_hidden_layers": layers}), **pruned)
    given = kd.BertForSequenceClassification(config, seed=3)
    shape = shape_of_student("half", config)
    assert shape is not None
    made = kd.BertForSequenceClassification.from_teacher(given, student_config(config, shape), seed=1)
    assert not made.has_new_layers
    assert made.config.layer_shapes() == tuple(config.layer_shapes()[layer] for layer in copied)
    for place, layer in enumerate(copied):
        np.testing.assert_array_equal(made.tensors[f"layer.{place}.up"], given.tensors[f"layer.{layer}.up"])
