"""Language models: their logits, their loss in blocks beside that of the logits, training and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference
from support.bert_cases import SMALL, wide_model

import kdistill as kd
from kdistill.losses.teacher import distillation_loss_parts

ROWS = [[5, 6, 7, 8, 9], [1], [3, 4, 2, 2, 9, 30, 11, 12]]
WORD = "bert.embeddings.word_embeddings.weight"
WORDS = {0: 3, 4: 9, 5: 1, 9: 20, 13: 2}  # token of the packed batch -> its label


def model_of(seed: int = 0, **changes: Any) -> kd.BertForMaskedLM:
    model = kd.BertForMaskedLM(wide_model(**SMALL | changes).config, seed=seed)
    rng = np.random.default_rng(seed)
    for name, view in model.parameters.items():
        view[:] = rng.normal(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.2, view.shape)
    return model


def labels_of() -> NDArray[np.int64]:
    labels = np.full(14, -100)
    for token, word in WORDS.items():
        labels[token] = word
    return labels


def in_rows(flat: NDArray[np.int64]) -> list[list[int]]:
    return [part.tolist() for part in np.split(flat, [5, 6])]


def test_a_call_returns_logits_of_each_token() -> None:
    model = model_of()
    outputs = model(ROWS)
    assert outputs.loss is None
    assert [row.shape for row in outputs.logits] == [(len(row), model.config.vocab_size) for row in ROWS]
    np.testing.assert_array_equal(np.concatenate(outputs.logits), model.forward(ROWS))
    listed = np.array([*WORDS])
    np.testing.assert_array_equal(model.forward(ROWS, rows=listed), model.forward(ROWS)[listed])


def test_a_call_with_labels_returns_the_loss_alone() -> None:
    model = model_of()
    outputs = model(ROWS, labels=in_rows(labels_of()))
    logits = model.forward(ROWS)[[*WORDS]].astype(np.float64)
    assert outputs.logits is None
    assert outputs[0] == outputs.loss == pytest.approx(reference.cross_entropy(logits, [*WORDS.values()])[0], rel=3e-6)


def test_padded_rows_have_the_loss_of_lists() -> None:
    model = model_of()
    ids, mask = np.zeros((3, 8), np.int64), np.zeros((3, 8), np.int64)
    labels = np.full((3, 8), -100)
    for i, (row, words) in enumerate(zip(ROWS, in_rows(labels_of()), strict=True)):
        ids[i, : len(row)], mask[i, : len(row)], labels[i, : len(row)] = row, 1, words
    assert model(ids, mask, labels=labels).loss == model(ROWS, labels=in_rows(labels_of())).loss
    assert model(ids, mask).logits.shape == (3, 8, model.config.vocab_size)


@pytest.mark.parametrize("with_teacher", [False, True])
def test_the_loss_and_its_gradients_are_those_of_the_logits(with_teacher: bool) -> None:
    blocks, whole, labels = model_of(), model_of(), labels_of()
    teacher = model_of(seed=1, num_hidden_layers=1) if with_teacher else None
    rows = np.flatnonzero(labels != -100)
    settings = {"alpha": 0.3, "temperature": 2.0, "label_smoothing": 0.1}
    logits = whole.forward(ROWS, train=True, rows=rows)
    theirs = logits if teacher is None else teacher.forward(ROWS, rows=rows)
    parts = distillation_loss_parts(logits, theirs, labels[rows], **settings | ({} if with_teacher else {"alpha": 1.0}))
    whole.backward(parts.dlogits)
    found = blocks.masked_loss(kd.pack(ROWS), labels, train=True, teacher=teacher, **settings)
    assert found.tokens == len(WORDS)
    assert found[:2] == pytest.approx(parts[:1] + parts[2:3], rel=3e-6)
    assert found.soft == pytest.approx(parts.soft, rel=3e-6, abs=1e-9)
    for name, gradient in whole.gradients.items():
        # Key biases are truly zero: what rounding leaves there is compared with the largest gradient.
        error = np.abs(blocks.gradients[name] - gradient).max()
        assert error <= 3e-6 * max(np.abs(each).max() for each in whole.gradients.values()), name


def cosine_loss(ours: Any, theirs: Any) -> tuple[float, Any]:
    """Return the mean of 1 - cos over the rows, as CosineEmbeddingLoss, and its gradient by `ours`."""
    s, t = (rows.astype(np.float64) for rows in (ours, theirs))
    lengths = np.linalg.norm(s, axis=1, keepdims=True), np.linalg.norm(t, axis=1, keepdims=True)
    cosines = (s * t).sum(axis=1, keepdims=True) / (lengths[0] * lengths[1])
    gradient = -(t / lengths[1] - cosines * s / lengths[0]) / lengths[0] / len(s)
    return float((1 - cosines).mean()), gradient.astype(np.float32)


def test_a_loss_inside_the_encoder_goes_back_with_that_of_the_words() -> None:
    """The gradient of a sum is the sum of the gradients: of the words alone, and of the taps alone."""
    labels, taps = labels_of(), [("hidden", 2)]
    teacher, (both, words, inside) = model_of(seed=1), (model_of() for _ in range(3))
    settings = {"alpha": 0.3, "temperature": 2.0}
    theirs = teacher.masked_pass(ROWS, labels, taps=taps)
    found = {}
    for model, of_words in ((both, True), (inside, False)):
        ours = model.masked_pass(ROWS, labels if of_words else None, train=True, taps=taps)
        assert ours.rows.tolist() == ([*WORDS] if of_words else [])
        _, gradient = cosine_loss(ours.taps[taps[0]], theirs.taps[taps[0]])
        found[of_words] = ours.loss(teacher=theirs if of_words else None, **settings, gradients={taps[0]: gradient})
    assert found[False] == (0, 0, 0, 0)
    assert found[True] == words.masked_loss(ROWS, labels, train=True, teacher=teacher, **settings)
    assert both.tokens_in_step == inside.tokens_in_step == 14
    largest = max(np.abs(each).max() for each in both.gradients.values())
    for name, gradient in both.gradients.items():
        error = np.abs(words.gradients[name] + inside.gradients[name] - gradient).max()
        assert error <= 3e-6 * largest, name
    assert not inside.gradients["cls.predictions.transform.dense.weight"].any()


def test_a_masked_pass_hands_out_what_lies_inside_the_encoder() -> None:
    model, taps = model_of(), [("hidden", layer) for layer in range(3)]
    found = model.masked_pass(ROWS, labels_of(), taps=taps).taps
    states = model(ROWS, output_hidden_states=True).hidden_states
    assert [*found] == taps
    for tap, state in zip(taps, states, strict=True):
        np.testing.assert_array_equal(found[tap], np.concatenate(state))


def test_a_masked_pass_gives_its_loss_once() -> None:
    model, labels = model_of(), labels_of()
    passed = model.masked_pass(ROWS, labels)
    passed.loss()
    with pytest.raises(RuntimeError, match="without a forward pass of the model that left the outputs out"):
        passed.loss()
    with pytest.raises(TypeError, match="teacher is a pass of the same model; expected one of another model, or None"):
        passed.loss(teacher=model.masked_pass(ROWS, labels))


def test_training_lowers_the_loss_and_keeps_the_decoder_tied() -> None:
    model, labels = model_of(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), labels_of()
    optimizer = kd.AdamW(model, lr=1e-3)
    losses = []
    for _ in range(10):
        losses.append(model.masked_loss(kd.pack(ROWS), labels, train=True).loss)
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]
    logits = model.forward(ROWS)
    fresh = kd.BertForMaskedLM(model.config)
    for name, view in fresh.parameters.items():
        view[:] = model.parameters[name]
    np.testing.assert_array_equal(fresh.forward(ROWS), logits)


def test_rows_belong_to_language_models() -> None:
    with pytest.raises(
        ValueError, match="rows were given; expected None, as this model's head chooses its rows itself"
    ):
        wide_model(**SMALL).forward([[1, 2]], rows=np.array([0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels": np.zeros(3, np.int64)},
            r"labels are int64 of shape \(3,\); expected whole numbers of shape \(14,\)",
        ),
        ({"labels": np.zeros(14)}, r"labels are float64 of shape \(14,\); expected whole numbers"),
        ({"labels": np.full(14, 10_000)}, r"labels\[0\] is 10000; expected 0 to"),
        ({"alpha": 2}, "alpha is 2; expected a number from 0 to 1"),
        ({"temperature": 0}, "temperature is 0; expected a number from 1e-05"),
        ({"label_smoothing": -1}, "label_smoothing is -1; expected a number from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of().masked_loss(kd.pack(ROWS), **{"labels": labels_of()} | changes)


def test_a_teacher_is_another_language_model() -> None:
    model, classifier = model_of(), wide_model(**SMALL)
    for teacher, found in ((model, "the model itself"), (classifier, "a BertForSequenceClassification")):
        with pytest.raises(TypeError, match=f"teacher is {found}; expected another model that predicts masked words"):
            model.masked_loss(kd.pack(ROWS), labels_of(), teacher=teacher)  # type: ignore[arg-type]


def test_a_call_needs_a_labelled_token() -> None:
    with pytest.raises(ValueError, match="labels are -100 for every token; expected at least one"):
        model_of()(ROWS, labels=[[-100] * len(row) for row in ROWS])


def test_tokens_that_are_not_finite_are_named() -> None:
    model = model_of()
    model.parameters["cls.predictions.bias"][3] = np.inf
    with pytest.raises(FloatingPointError, match=r"loss of 5 of 5 tokens is not finite \(tokens 0, 4, 5, 9, 13 of the"):
        model.masked_loss(kd.pack(ROWS), labels_of(), train=True)
    assert not any(gradient.any() for gradient in model.gradients.values())


def test_a_decoder_that_is_not_tied_has_a_weight_of_its_own(tmp_path: Path) -> None:
    tied = model_of()
    config = kd.BertConfig.from_dict({**tied.config.to_dict(), "tie_word_embeddings": False})
    model = kd.BertForMaskedLM(config, seed=3)
    assert {*model.parameters} - {*tied.parameters} == {"cls.predictions.decoder.weight"}
    model.load_state_dict({**tied.parameters, "cls.predictions.decoder.weight": tied.parameters[WORD]})
    np.testing.assert_array_equal(model.forward(ROWS), tied.forward(ROWS))
    assert model(ROWS, labels=in_rows(labels_of())).loss == tied(ROWS, labels=in_rows(labels_of())).loss
    model.parameters["cls.predictions.decoder.weight"][:] *= 2
    model.save_pretrained(tmp_path)
    loaded = kd.AutoModelForMaskedLM.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.forward(ROWS), model.forward(ROWS))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_model_with_packed_weights_alone_has_its_decoder(dtype: str, tmp_path: Path) -> None:
    """The word embeddings are then there twice, as a table and packed; the decoder is float32 in every compute type."""
    if kd.show_config()["compute"].get(dtype) is None:
        pytest.skip(f"this CPU has no kernels for {dtype}")
    model = model_of()
    model.save_pretrained(tmp_path)
    loaded = kd.AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=dtype)
    np.testing.assert_array_equal(loaded.forward(ROWS), model.freeze(dtype).forward(ROWS))
