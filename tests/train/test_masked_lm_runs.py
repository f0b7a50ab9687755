"""Runs of language models: what is hidden when, what is measured, distillation, bits, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference
from support.small_questions import question_tokenizer
from support.small_run import small_config
from support.small_texts import documents, language_model, text_fields

import kdistill as kd
from kdistill.data.dataset import Dataset
from kdistill.data.overlap import find_overlap
from kdistill.train.encoding import encode_for

TRAIN, EVAL = documents(48), documents(24, seed=1)


def trainer(directory: Path, model: Any = None, *, teacher: Any = None, **changes: Any) -> kd.Trainer:
    directory.mkdir(exist_ok=True)
    own = {name: changes.pop(name) for name in ("train_dataset", "eval_dataset", "compute_metrics") if name in changes}
    given: dict[str, Any] = {
        "train_dataset": TRAIN,
        "eval_dataset": EVAL,
        "processing_class": question_tokenizer(directory),
    } | own
    fields = text_fields(directory, **changes)
    model = language_model() if model is None else model
    if teacher is None:
        return kd.Trainer(model, kd.TrainingArguments(**fields), **given)
    return kd.DistillationTrainer(model, kd.DistillationTrainingArguments(**fields), teacher_model=teacher, **given)


def weights(of: kd.Trainer) -> NDArray[np.float32]:
    return np.array(of.model.flat_parameters)


def rows_of(of: kd.Trainer) -> Dataset:
    rows = of.eval_dataset
    assert isinstance(rows, Dataset)
    return rows


def test_a_run_learns_the_words_and_its_figures_are_those_of_the_logits(tmp_path: Path) -> None:
    made = trainer(tmp_path, num_train_epochs=8)
    before = made.evaluate()
    made.train()
    after = made.evaluate()
    assert after["eval_perplexity"] < 0.6 * before["eval_perplexity"]
    rows = rows_of(made)
    hidden = rows.labels != -100
    logits = made.model.forward(rows.batch(np.arange(len(rows)))[0])[hidden].astype(np.float64)
    words = rows.labels[hidden]
    loss, _ = reference.cross_entropy(logits, words.tolist())
    assert after["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert after["eval_perplexity"] == pytest.approx(np.exp(loss), rel=1e-5)
    assert after["eval_accuracy"] == pytest.approx((logits.argmax(axis=1) == words).mean())
    assert (after["eval_masked_tokens"], after["eval_n"]) == (hidden.sum(), rows.labelled)
    assert made.evaluate()["eval_loss"] == after["eval_loss"] == trainer(tmp_path, made.model).evaluate()["eval_loss"]
    assert made.results["eval_perplexity"] == min(
        entry["eval_perplexity"] for entry in made.state.log_history if "eval_perplexity" in entry and entry["step"]
    )


def test_evaluation_rows_have_their_words_hidden_once(tmp_path: Path) -> None:
    """So does text that is learned from, in another way, and special tokens stay."""
    made = trainer(tmp_path, eval_dataset=TRAIN)
    rows, text = rows_of(made), made.train_dataset
    assert text is not None
    np.testing.assert_array_equal(rows.text_ids, text.ids)
    assert find_overlap(rows, text).equal.all()
    hidden = rows.labels != -100
    assert 0.08 < hidden[text.ids > 4].mean() < 0.22  # 0.15, of 450 words
    assert not hidden[text.ids <= 4].any()
    assert (text.masked(np.arange(len(text)), 0).labels != rows.labels).any()


def test_a_step_learns_the_words_that_its_epoch_hides(tmp_path: Path) -> None:
    """Micro-batches share a step's hidden words, as one batch of all of them does."""
    seen: list[tuple[NDArray[np.int64], float]] = []

    class Watched(kd.Trainer):
        def _learn_hidden_words(self, batch: Any, words: Any, share: float) -> Any:
            seen.append((words, share))
            return super()._learn_hidden_words(batch, words, share)

    fields = text_fields(tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=2, num_train_epochs=2)
    fields |= {"eval_strategy": "no", "data_seed": 5, "mlm_probability": 0.3}
    tokenizer = question_tokenizer(tmp_path)
    made = Watched(
        language_model(), kd.TrainingArguments(**fields), train_dataset=TRAIN[:16], processing_class=tokenizer
    )
    made.train()
    rows = made.train_dataset
    assert rows is not None
    assert rows.masking is not None
    masking = kd.Masking(mask_token_id=4, vocab_size=13, special_ids=(0, 1, 2, 3, 4), seed=5, mlm_probability=0.3)
    plan = made.recipe.new_plan(rows)
    expected = []
    for epoch in range(2):
        for step in plan.rows_of_epoch(epoch, 0):
            labels = [masking(rows.batch([row])[0], np.array([row]), epoch)[1] for row in step.tolist()]
            counts = [(words != -100).sum() for words in labels]
            expected += [
                (np.concatenate(labels[i : i + 8]), sum(counts[i : i + 8]) / sum(counts))
                for i in range(0, len(step), 8)
            ]
    assert len(seen) == len(expected) > 4
    for (words, share), (their_words, their_share) in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(words, their_words)
        assert share == pytest.approx(their_share)


def test_bits_depend_neither_on_threads_nor_on_an_interrupt(tmp_path: Path) -> None:
    results = []
    for threads in (1, 3):
        kd.set_num_threads(threads)
        made = trainer(tmp_path / str(threads))
        made.train()
        results.append(weights(made))
    np.testing.assert_array_equal(*results)

    class Stops(kd.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == state.max_steps - 2:
                raise KeyboardInterrupt

    made = trainer(tmp_path / "interrupted", save_strategy="steps", save_steps=4)
    made.add_callback(Stops())
    with pytest.raises(KeyboardInterrupt):
        made.train()
    again = trainer(tmp_path / "interrupted", save_strategy="steps", save_steps=4)
    again.train(resume_from_checkpoint=True)
    np.testing.assert_array_equal(weights(again), results[0])


def test_a_student_learns_words_and_what_its_teacher_expects(tmp_path: Path) -> None:
    """A step has the gradient of `masked_loss` with the same words hidden; the teacher reads the same batch."""
    teacher = language_model(seed=7)
    found: dict[str, NDArray[np.float32]] = {}

    class Looks(kd.TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found.update({name: np.array(of) for name, of in kwargs["model"].gradients.items()})

    changes = {"max_steps": 1, "per_device_train_batch_size": 16, "alpha": 0.3, "temperature": 2.0, "max_grad_norm": 0}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    made = trainer(tmp_path, language_model(**no_dropout), teacher=teacher, eval_strategy="no", **changes)
    made.add_callback(Looks())
    rows = made.train_dataset
    assert rows is not None
    step = next(made.recipe.new_plan(rows).rows_of_epoch(0, 0))
    made.train()
    masking = kd.Masking(mask_token_id=4, vocab_size=13, special_ids=(0, 1, 2, 3, 4), seed=1)
    hidden, words = masking(rows.batch(step)[0], step, 0)
    model = language_model(**no_dropout)
    loss = model.masked_loss(hidden, words, train=True, teacher=teacher, alpha=0.3, temperature=2.0)
    for name, gradient in model.gradients.items():
        np.testing.assert_array_equal(found[name], gradient, err_msg=name)
    entry = next(entry for entry in made.state.log_history if "soft_loss" in entry)
    assert (entry["loss"], entry["hard_loss"], entry["soft_loss"]) == pytest.approx((loss.loss, loss.hard, loss.soft))


LAST = ("hidden", 2)
TRIPLE: dict[str, Any] = {"matches": "distilbert", "alpha": 2 / 7, "temperature": 2.0}
"""The weights 5, 2, 1 of DistilBERT's code, a seventh of them."""


def gradients_of_a_step(made: kd.Trainer) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}

    class Looks(kd.TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found.update({name: np.array(of) for name, of in kwargs["model"].gradients.items()})

    made.add_callback(Looks())
    made.train()
    return found


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_step_has_the_triple_loss_of_distilbert(tmp_path: Path, accumulated: int) -> None:
    """Words count by the hidden words of a micro-batch, directions by its tokens: both as in one batch."""
    teacher = language_model(seed=7)
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    changes = {"max_steps": 1, "max_grad_norm": 0, "eval_strategy": "no", "mlm_probability": 0.3, **TRIPLE}
    changes |= {"per_device_train_batch_size": 16 // accumulated, "gradient_accumulation_steps": accumulated}
    made = trainer(tmp_path, language_model(**no_dropout), teacher=teacher, **changes)
    rows = made.train_dataset
    assert rows is not None
    step = next(made.recipe.new_plan(rows).rows_of_epoch(0, 0))
    found = gradients_of_a_step(made)
    masking = kd.Masking(mask_token_id=4, vocab_size=13, special_ids=(0, 1, 2, 3, 4), seed=1, mlm_probability=0.3)
    hidden, words = masking(rows.batch(step)[0], step, 0)
    model = language_model(**no_dropout)
    ours, theirs = (
        model.masked_pass(hidden, words, train=True, taps=[LAST]),
        teacher.masked_pass(hidden, words, taps=[LAST]),
    )
    s, t = (of.taps[LAST].astype(np.float64) for of in (ours, theirs))
    lengths = np.linalg.norm(s, axis=1, keepdims=True), np.linalg.norm(t, axis=1, keepdims=True)
    cosines = (s * t).sum(axis=1, keepdims=True) / (lengths[0] * lengths[1])
    gradient = -(t / lengths[1] - cosines * s / lengths[0]) / lengths[0] / len(s) / 7
    loss = ours.loss(teacher=theirs, alpha=2 / 7, temperature=2.0, gradients={LAST: gradient.astype(np.float32)})
    largest = max(np.abs(of).max() for of in model.gradients.values())
    for name, expected in model.gradients.items():
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=3e-6 * largest, err_msg=name)
    entry = next(entry for entry in made.state.log_history if "soft_loss" in entry)
    assert entry["loss"] == pytest.approx(loss.loss + (1 - cosines.mean()) / 7, rel=1e-5)
    assert (entry["hard_loss"], entry["soft_loss"]) == pytest.approx((loss.hard, loss.soft), rel=1e-5)


def test_with_matches_bits_depend_neither_on_threads_nor_on_an_interrupt(tmp_path: Path) -> None:
    """Also into a narrower student, whose projection is resumed with it."""

    def new(directory: Path, **changes: Any) -> kd.Trainer:
        student = language_model(3, hidden_size=8, intermediate_size=16)
        return trainer(directory, student, teacher=language_model(seed=7), num_train_epochs=2, **TRIPLE, **changes)

    results = []
    for threads in (1, 3):
        kd.set_num_threads(threads)
        made = new(tmp_path / str(threads))
        made.train()
        results.append(weights(made))
    np.testing.assert_array_equal(*results)

    class Stops(kd.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == state.max_steps - 2:
                raise KeyboardInterrupt

    steps = {"save_strategy": "steps", "save_steps": 4}
    made = new(tmp_path / "interrupted", **steps)
    made.add_callback(Stops())
    with pytest.raises(KeyboardInterrupt):
        made.train()
    again = new(tmp_path / "interrupted", **steps)
    again.train(resume_from_checkpoint=True)
    np.testing.assert_array_equal(weights(again), results[0])


def test_relations_alone_hide_no_word_and_leave_the_head_alone(tmp_path: Path) -> None:
    """Without a loss of the predictions both models read the text as it is."""
    teacher, student = language_model(seed=7), language_model(3, hidden_size=8, intermediate_size=16)
    read: list[NDArray[np.int32]] = []
    masked_pass = type(teacher).masked_pass

    def watched(self: Any, batch: Any, labels: Any, **given: Any) -> Any:
        if labels is None:
            read.append(batch.ids)
        else:
            pytest.fail("words were hidden")
        return masked_pass(self, batch, labels, **given)

    relations = kd.Stage([kd.Match("relation", teacher_layer=-1, student_layer=-1)], prediction_weight=0)
    with pytest.warns(UserWarning, match=r"^eval_dataset has no effect here: .* no hidden word is learned"):
        made = trainer(tmp_path, student, teacher=teacher, eval_strategy="no", max_steps=1, matches=[relations])
    rows = made.train_dataset
    assert rows is not None
    step = next(made.recipe.new_plan(rows).rows_of_epoch(0, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(teacher), "masked_pass", watched)
        gradients = gradients_of_a_step(made)
    assert len(read) == 2
    for ids in read:
        np.testing.assert_array_equal(ids, rows.batch(step)[0].ids)
    assert not any(of.any() for name, of in gradients.items() if name.startswith("cls."))
    assert gradients["bert.encoder.layer.1.attention.self.query.weight"].any()
    assert "hard_loss" not in made.state.log_history[0]
    assert made.state.log_history[0]["loss"] > 0
    assert not any("perplexity" in name for name in made.results)
    assert "perplexity its exponential" not in (tmp_path / "out" / "README.md").read_text()


def test_a_distillation_is_measured_beside_its_teacher_and_reported(tmp_path: Path) -> None:
    teacher = trainer(tmp_path / "teacher", num_train_epochs=8)
    teacher.train()
    made: Any = trainer(tmp_path / "student", language_model(seed=3, num_hidden_layers=1), teacher=teacher.model)
    made.train()
    assert made.teacher_metrics["perplexity"] == pytest.approx(teacher.evaluate(EVAL)["eval_perplexity"])
    assert made.results["teacher_perplexity"] == made.teacher_metrics["perplexity"]
    card = (tmp_path / "student/out/README.md").read_text()
    assert "It predicts words that are hidden in a text." in card
    assert "blocks of text with hidden words of" in card
    assert "perplexity its exponential" in card
    assert 'kd.pipeline("fill-mask"' in card
    assert "labelled rows" not in card


def test_rows_of_token_ids_are_blocks(tmp_path: Path) -> None:
    tokenizer = question_tokenizer(tmp_path)
    encoded = [{**tokenizer(text), "labels": [0]} for text in TRAIN[:8] if len(text.split()) < 10]
    args = kd.TrainingArguments(str(tmp_path), disable_tqdm=True)
    rows = encode_for(language_model().config, encoded, tokenizer, args, training=True)
    assert rows.masking is not None
    assert np.split(rows.ids, rows.starts[1:-1])[1].tolist() == encoded[1]["input_ids"]


def test_another_loss_of_logits_is_refused(tmp_path: Path) -> None:
    class Own(kd.Trainer):
        def compute_loss(self, logits: Any, labels: Any, rows: Any) -> Any:
            return super().compute_loss(logits, labels, rows)

    args = kd.TrainingArguments(**text_fields(tmp_path, eval_strategy="no"))
    made = Own(language_model(), args, train_dataset=TRAIN, processing_class=question_tokenizer(tmp_path))
    with pytest.raises(TypeError, match=r"Own.compute_loss would not be called: the logits of a language model exist"):
        made.train()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_weights": [1.0, 2.0]}, "class_weights"),
        ({"mlm_probability": 0.0}, "mlm_probability is 0.0; expected"),
        ({"mlm_probability": 0.001, "eval_dataset": EVAL[:2]}, "mlm_probability 0.001 hides none of the"),
        ({"threshold": 0.5}, "threshold is 0.5 for a model for masked-lm"),
        ({"teacher": language_model(7), "augment": 1}, "augment is 1, and a language model has other words hidden"),
        ({"teacher": language_model(7, vocab_size=16)}, "the teacher has 16 outputs and the student 13"),
    ],
)
def test_what_has_no_meaning_for_a_language_model_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **changes).train()


def test_words_that_are_hidden_are_not_learned_from(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    with pytest.raises(ValueError, match="the words of the data set are hidden already; expected text"):
        trainer(tmp_path, train_dataset=made.eval_dataset)


def test_a_classifier_begins_with_a_language_model(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.save_model(tmp_path / "saved")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = kd.BertForSequenceClassification.from_pretrained(tmp_path / "saved", config=small_config())
    texts = [str(one.message) for one in said]
    assert any("tensors that this model does not use: cls.predictions.bias" in text for text in texts)
    assert any("classifier.weight" in text and "initialised at random" in text for text in texts)
    name = "bert.encoder.layer.0.output.dense.weight"
    np.testing.assert_array_equal(model.parameters[name], made.model.parameters[name])
