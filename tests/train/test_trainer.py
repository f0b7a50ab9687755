"""The training loop against one written out by hand, and what a run leaves behind."""

from __future__ import annotations

import json
import math
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.card_reading import row_of
from support.small_run import VOCABULARY, run_fields, small_dataset, small_model, weights, write_rows

from kdistill.data.dataset import Dataset
from kdistill.data.labels import NO_LABEL
from kdistill.data.sampler import RandomSampler
from kdistill.losses.labels import cross_entropy
from kdistill.metrics.classification import majority_share
from kdistill.metrics.prediction import EvalPrediction
from kdistill.models.classes import BertForSequenceClassification
from kdistill.text.classes import AutoTokenizer
from kdistill.text.collator import DataCollatorWithPadding
from kdistill.train import publishing
from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.train.optim import AdamW, clip_grad_norm_
from kdistill.train.state import TrainerState
from kdistill.trainers import Trainer


def arguments(directory: Path, **changes: Any) -> TrainingArguments:
    return TrainingArguments(**run_fields(directory, changes))


class Recorder(TrainerCallback):
    """Keeps the step of each event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def on_log(self, args, state, control, **kwargs) -> None:
        self.events.append(("log", state.global_step))

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        self.events.append(("evaluate", state.global_step))

    def on_save(self, args, state, control, **kwargs) -> None:
        self.events.append(("save", state.global_step))


def test_equals_a_loop_written_out_by_hand(tmp_path: Path) -> None:
    dataset, seed, lr, epochs = small_dataset(30), 5, 0.01, 3
    adam = {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-4, "weight_decay": 0.1}
    args = arguments(tmp_path, num_train_epochs=epochs, seed=seed, max_grad_norm=0.5, warmup_steps=3, **adam)
    trainer = Trainer(small_model(), args, train_dataset=dataset, eval_dataset=small_dataset(10, seed=1))
    trainer.train()

    model = small_model()
    model.dropout_seed = seed
    optimizer = AdamW(model, lr=lr, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1)
    steps, step = 4 * epochs, 0  # 30 rows: three batches of 8 and one of 6
    for epoch in range(epochs):
        order = RandomSampler(30, seed).permutation(epoch)
        for rows in (order[:8], order[8:16], order[16:24], order[24:]):
            optimizer.lr = lr * (step / 3 if step < 3 else (steps - step) / (steps - 3))
            batch, labels = dataset.batch(rows)
            _, dlogits = cross_entropy(model.forward(batch, train=True), labels)
            model.backward(dlogits)
            clip_grad_norm_(model, 0.5)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        if trainer.state.best_global_step == step:
            best = weights(model)
    np.testing.assert_array_equal(weights(trainer.model), best)
    last = np.array(BertForSequenceClassification.from_pretrained(tmp_path / "out" / "checkpoint-12").flat_parameters)
    np.testing.assert_array_equal(last, weights(model))


def test_learns_rows_that_one_word_decides(tmp_path: Path) -> None:
    args = arguments(tmp_path, num_train_epochs=12)
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(96), eval_dataset=small_dataset(50, seed=1))
    before = trainer.evaluate()["eval_accuracy"]
    output = trainer.train()
    assert trainer.evaluate()["eval_accuracy"] > max(before, 0.9)
    assert output.global_step == 144
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    assert output.training_loss == pytest.approx(np.mean(losses))


@pytest.mark.parametrize(("size", "accumulation"), [(4, 3), (5, 2), (1, 12)])
def test_accumulated_gradients_give_the_update_of_the_larger_batch(
    tmp_path: Path, size: int, accumulation: int
) -> None:
    """With dropout, unequal micro-batches (5 + 4 of the last 9) and a short last group.

    With a large epsilon AdamW's update is proportional to the gradient; with a small one it would blow up the rounding
    of the key biases, whose true gradient is zero.
    """
    models = []
    for name, batch, times in (("whole", size * accumulation, 1), ("parts", size, accumulation)):
        args = arguments(
            tmp_path / name,
            num_train_epochs=1,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=times,
            eval_strategy="no",
            adam_epsilon=1.0,
        )
        trainer = Trainer(small_model(), args, train_dataset=small_dataset(29))
        assert trainer.train().global_step == math.ceil(29 / (size * accumulation))
        models.append(weights(trainer.model))
    assert not np.array_equal(models[0], weights(small_model()))
    np.testing.assert_allclose(models[1], models[0], atol=1e-7)


def test_every_row_once_in_each_epoch(tmp_path: Path) -> None:
    class Noting(Trainer):
        seen: list[int] = []  # noqa: RUF012

        def compute_loss(self, logits, labels, rows):
            np.testing.assert_array_equal(labels, self.train_dataset.labels[rows])
            self.seen.extend(rows.tolist())
            return super().compute_loss(logits, labels, rows)

    args = arguments(tmp_path, eval_strategy="no", gradient_accumulation_steps=2, data_seed=9)
    trainer = Noting(small_model(), args, train_dataset=small_dataset(29))
    trainer.train()
    assert trainer.seen[:29] == RandomSampler(29, 9).permutation(0).tolist()
    assert trainer.seen[29:] == RandomSampler(29, 9).permutation(1).tolist()


def test_evaluation_against_its_definition(tmp_path: Path) -> None:
    dataset = small_dataset(21)
    labels = dataset.labels.copy()
    labels[[0, 7]] = NO_LABEL
    dataset = Dataset(dataset.ids, dataset.types, dataset.starts, labels)
    trainer = Trainer(small_model(), arguments(tmp_path, per_device_eval_batch_size=4))
    metrics = trainer.evaluate(dataset)
    output = trainer.predict(dataset)

    logits = trainer.model.forward(dataset.batch(np.arange(21))[0])
    np.testing.assert_array_equal(output.predictions, logits)
    np.testing.assert_array_equal(output.label_ids, labels)
    kept, wide = labels != NO_LABEL, logits.astype(np.float64)
    log_probabilities = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    assert metrics["eval_n"] == 19
    assert metrics["eval_accuracy"] == (logits.argmax(axis=1) == labels)[kept].mean()
    assert metrics["eval_loss"] == pytest.approx(-log_probabilities[kept, labels[kept]].mean(), rel=1e-5)
    assert trainer.state.log_history[-1]["eval_accuracy"] == metrics["eval_accuracy"]


def test_predict_needs_no_labels_but_evaluate_does(tmp_path: Path) -> None:
    dataset = small_dataset(5)
    unlabelled = Dataset(dataset.ids, dataset.types, dataset.starts, np.full(5, NO_LABEL))
    trainer = Trainer(small_model(), arguments(tmp_path))
    assert set(trainer.predict(unlabelled).metrics) == {"test_runtime", "test_samples_per_second"}
    with pytest.raises(ValueError, match=r"eval_dataset \(--eval or --data\) has no labels"):
        trainer.evaluate(unlabelled)
    with pytest.raises(ValueError, match="eval_dataset is None"):
        trainer.evaluate()


def scripted(values: list[float]) -> Any:
    """A compute_metrics that returns these values of `score`, one per call."""
    remaining = iter(values)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        assert prediction.predictions.shape == (10, 2)
        return {"score": next(remaining)}

    return compute_metrics


@pytest.mark.parametrize(
    ("greater", "values", "best"), [(True, [1, 3, 3, 2], 8), (False, [2, 3, 1, 1], 12), (True, [math.nan, 0, 0, 0], 8)]
)
def test_best_model_at_the_end(tmp_path: Path, greater: bool, values: list[float], best: int) -> None:
    args = arguments(
        tmp_path,
        num_train_epochs=4,
        metric_for_best_model="score",
        greater_is_better=greater,
        save_total_limit=1,
    )
    trainer = Trainer(
        small_model(),
        args,
        train_dataset=small_dataset(30),
        eval_dataset=small_dataset(10),
        compute_metrics=scripted([float(value) for value in values]),
    )
    trainer.train()
    out = tmp_path / "out"
    assert trainer.state.best_model_checkpoint == str(out / f"checkpoint-{best}")
    assert {path.name for path in out.glob("checkpoint-*")} == {f"checkpoint-{best}", "checkpoint-16"}
    kept = BertForSequenceClassification.from_pretrained(out / f"checkpoint-{best}")
    np.testing.assert_array_equal(weights(trainer.model), weights(kept))
    assert (out / "model.safetensors").read_bytes() == (out / f"checkpoint-{best}" / "model.safetensors").read_bytes()
    assert json.loads((out / "all_results.json").read_text())["eval_score"] == trainer.state.best_metric


def test_unknown_metric_for_the_best_model(tmp_path: Path) -> None:
    args = arguments(tmp_path, metric_for_best_model="f1")
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(8), eval_dataset=small_dataset(8))
    with pytest.raises(ValueError, match="metric_for_best_model is 'f1'; the evaluation gives eval_accuracy"):
        trainer.train()


def test_what_happens_when(tmp_path: Path) -> None:
    recorder = Recorder()
    args = arguments(
        tmp_path,
        max_steps=10,
        logging_strategy="steps",
        logging_steps=4,
        eval_strategy="steps",
        eval_steps=3,
        save_strategy="steps",
        save_steps=6,
        load_best_model_at_end=False,
    )
    trainer = Trainer(
        small_model(), args, train_dataset=small_dataset(24), eval_dataset=small_dataset(8), callbacks=[recorder]
    )
    assert trainer.train().global_step == 10
    evaluations = [step for event, step in recorder.events if event == "evaluate"]
    saves = [step for event, step in recorder.events if event == "save"]
    assert evaluations == [3, 6, 9, 10]
    assert saves == [6, 10]
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [4, 8, 10]


def test_a_callback_stops_the_training(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            control.should_training_stop = state.global_step == 3

    args = arguments(tmp_path, eval_strategy="no")
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(30), callbacks=[Stop()])
    assert trainer.train().global_step == 3


def test_fractions_of_epochs(tmp_path: Path) -> None:
    args = arguments(tmp_path, num_train_epochs=1.5, eval_strategy="no")
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(24))
    assert trainer.train().global_step == 5  # 3 steps an epoch, rounded up
    assert trainer.state.epoch == 5 / 3


class Poisoned(Trainer):
    """Its model's logits for row 20 of the training data are NaN."""

    def compute_loss(self, logits, labels, rows):
        return super().compute_loss(np.where((rows == 20)[:, None], np.float32(np.nan), logits), labels, rows)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_loss_that_is_not_finite(tmp_path: Path, accumulation: int) -> None:
    args = arguments(
        tmp_path,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulation,
        eval_strategy="no",
        save_strategy="steps",
        save_steps=1,
    )
    trainer = Poisoned(small_model(), args, train_dataset=small_dataset(24))
    step = RandomSampler(24, args.seed).permutation(0).tolist().index(20) // (2 * accumulation) + 1
    assert step > 1
    with pytest.raises(FloatingPointError, match=f"^step {step}: the loss is not finite, from row 20 of the training"):
        trainer.train()
    last = BertForSequenceClassification.from_pretrained(tmp_path / "out" / f"checkpoint-{step - 1}")
    np.testing.assert_array_equal(weights(trainer.model), weights(last))
    assert not trainer.model.flat_gradients.any()
    assert not (tmp_path / "out" / f"checkpoint-{step}").exists()


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = small_model()
    model.parameters["classifier.weight"][0, 0] = np.inf
    before = weights(model)
    args = arguments(tmp_path, eval_strategy="no", per_device_train_batch_size=12)
    trainer = Trainer(model, args, train_dataset=small_dataset(24))
    with pytest.raises(
        FloatingPointError, match=r"^step 1: the loss is not finite, from rows (\d+, ){7}\d+ and 4 other"
    ):
        trainer.train()
    np.testing.assert_array_equal(weights(model), before)


def test_rows_without_a_label_are_refused(tmp_path: Path) -> None:
    dataset = small_dataset(8)
    dataset.labels[3] = NO_LABEL
    trainer = Trainer(small_model(), arguments(tmp_path), train_dataset=dataset)
    with pytest.raises(ValueError, match=r"train_dataset \(--train\) has 1 rows without a label of 8"):
        trainer.train()


def test_evaluation_rows_without_labels_are_refused_before_training(tmp_path: Path) -> None:
    rows = small_dataset(8)
    unlabelled = Dataset(rows.ids, rows.types, rows.starts, np.full(8, NO_LABEL))
    trainer = Trainer(small_model(), arguments(tmp_path), train_dataset=rows, eval_dataset=unlabelled)
    with pytest.raises(ValueError, match=r"eval_dataset \(--eval or --data\) has no labels"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_without_evaluation_rows(tmp_path: Path) -> None:
    trainer = Trainer(small_model(), arguments(tmp_path), train_dataset=small_dataset(8))
    with pytest.warns(UserWarning, match="no eval_dataset"):
        trainer.train()
    assert "The model was not evaluated" in (tmp_path / "out" / "README.md").read_text()


def test_what_a_run_leaves(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    args = arguments(tmp_path, seed=33)
    trainer = Trainer(
        small_model(),
        args,
        train_dataset=write_rows(tmp_path / "rows.tsv", 20),
        eval_dataset=str(write_rows(tmp_path / "held-out.tsv", 11)),
        processing_class=tokenizer,
    )
    trainer.train()
    out = tmp_path / "out"
    model_files = {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json"}
    assert model_files | {"README.md", "all_results.json", "trainer_state.json", "training_args.json"} <= {
        path.name for path in out.iterdir()
    }
    assert model_files | {"optimizer.safetensors", "trainer_state.json", "manifest.json"} <= {
        path.name for path in (out / "checkpoint-3").iterdir()
    }
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert json.loads((out / "training_args.json").read_text()) == args.to_dict()
    results = json.loads((out / "all_results.json").read_text())
    assert results["eval_n"] == 11
    assert results["eval_accuracy"] == trainer.evaluate()["eval_accuracy"]
    assert {"train_loss", "train_runtime", "epoch", "eval_loss"} <= set(results)
    card = (out / "README.md").read_text()
    assert row_of(card, "this model")["accuracy"] == f"{results['eval_accuracy']:.4f}"
    assert "On the 11 labelled rows" in card
    for fact in ("`rows.tsv`", "`held-out.tsv`", "| `seed` | 33 |", "best accuracy of 2 evaluations"):
        assert fact in card
    assert str(tmp_path) not in card


def test_directory_that_holds_something_is_refused(tmp_path: Path) -> None:
    args = arguments(tmp_path, eval_strategy="no")
    Trainer(small_model(), args, train_dataset=small_dataset(8)).train()
    saved = (tmp_path / "out" / "model.safetensors").read_bytes()
    again = Trainer(small_model(2), args, train_dataset=small_dataset(8))
    with pytest.raises(FileExistsError, match="contains a run; resume it"):
        again.train()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == saved

    small_model().save_pretrained(tmp_path / "teacher")
    args = arguments(tmp_path, eval_strategy="no", output_dir=str(tmp_path / "teacher"))
    for resume, args.overwrite_output_dir in ((None, False), (True, False), (None, True)):
        with pytest.raises(
            FileExistsError, match=r"contains config\.json, model\.safetensors, which no run of kdistill wrote"
        ):
            Trainer(small_model(2), args, train_dataset=small_dataset(8)).train(resume_from_checkpoint=resume)
    assert sorted(path.name for path in (tmp_path / "teacher").iterdir()) == ["config.json", "model.safetensors"]


def test_overwriting_deletes_the_old_run_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    Trainer(small_model(), arguments(tmp_path, eval_strategy="no"), train_dataset=small_dataset(30)).train()
    (out / "notes.txt").write_text("mine")
    args = arguments(tmp_path, eval_strategy="no", overwrite_output_dir=True)
    Trainer(small_model(), args, train_dataset=small_dataset(8)).train()
    assert {path.name for path in out.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    assert (out / "notes.txt").read_text() == "mine"


def test_overwriting_run_that_fails_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    """Else --resume would take the old run's results for its own."""
    Trainer(small_model(), arguments(tmp_path, eval_strategy="no"), train_dataset=small_dataset(30)).train()
    args = arguments(tmp_path, eval_strategy="no", overwrite_output_dir=True, per_device_train_batch_size=24)
    with pytest.raises(FloatingPointError):
        Poisoned(small_model(), args, train_dataset=small_dataset(24)).train()
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert not left & {"all_results.json", "trainer_state.json", "model.safetensors", "checkpoint-4", "checkpoint-8"}


def test_state_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "trainer_state.json").write_text('{"global_step": 3, "is_world_process_zero": true}')
    trainer = Trainer(small_model(), arguments(tmp_path, eval_strategy="no"), train_dataset=small_dataset(8))
    with pytest.raises(FileExistsError, match=r"contains trainer_state\.json, which no run of kdistill wrote"):
        trainer.train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match=r"trainer_state\.json is of another program .*is_world_process_zero"):
        TrainerState.load(tmp_path / "out")


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    args = arguments(tmp_path, eval_strategy="no", output_dir=str(tmp_path / "file" / "out"))
    with pytest.raises(OSError, match=r"output_dir .* cannot be written"):
        Trainer(small_model(), args, train_dataset=small_dataset(8)).train()


def test_model_init_makes_a_new_model_for_each_training(tmp_path: Path) -> None:
    args = arguments(tmp_path, eval_strategy="no", overwrite_output_dir=True)
    trainer = Trainer(model_init=small_model, args=args, train_dataset=small_dataset(16))
    trainer.train()
    first, first_weights = trainer.model, weights(trainer.model)
    trainer.train()
    assert trainer.model is not first
    np.testing.assert_array_equal(weights(trainer.model), first_weights)
    for_a_search = Trainer(model_init=lambda trial: small_model(3) if trial is None else None, args=args)
    np.testing.assert_array_equal(weights(for_a_search.model), weights(small_model(3)))
    with pytest.raises(ValueError, match="model and model_init: found both"):
        Trainer(small_model(), args, model_init=small_model)
    with pytest.raises(ValueError, match="model and model_init: found neither"):
        Trainer(args=args)


def test_names_of_transformers_in_the_constructor(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    args = arguments(tmp_path, eval_strategy="no")
    collator = DataCollatorWithPadding(tokenizer)
    rows = write_rows(tmp_path / "rows.tsv", 16)
    trainer = Trainer(small_model(), args, tokenizer=tokenizer, data_collator=collator, train_dataset=rows)
    assert trainer.processing_class is tokenizer
    trainer.train()
    plain = Trainer(small_model(), arguments(tmp_path / "2", eval_strategy="no"), train_dataset=trainer.train_dataset)
    plain.train()
    np.testing.assert_array_equal(weights(trainer.model), weights(plain.model))
    with pytest.raises(ValueError, match="processing_class and tokenizer, its older name, are both given"):
        Trainer(small_model(), args, tokenizer=tokenizer, processing_class=tokenizer)
    with pytest.raises(TypeError, match=r"data_collator is .*; expected None or a DataCollatorWithPadding"):
        Trainer(small_model(), args, data_collator=lambda rows: rows)
    hides = type("DataCollatorForLanguageModeling", (), {})()
    with pytest.raises(TypeError, match=r"leave it out: a Trainer hides the words .* see mlm_probability of Training"):
        Trainer(small_model(), args, data_collator=hides)
    for wrong in ({"return_tensors": "pt"}, {"padding": "left"}, {"padding": "max_length"}):
        with pytest.raises(ValueError, match=r"^(return_tensors|padding|max_length) is .*; expected"):
            DataCollatorWithPadding(tokenizer, **wrong)


def test_push_to_hub_uploads_the_model_and_not_the_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: list[Any] = []
    monkeypatch.setattr(publishing, "upload", lambda *values, **named: uploads.append((values, named)) or "address")
    monkeypatch.setattr(publishing, "check_upload", lambda *_: None)
    args = arguments(tmp_path, eval_strategy="no", push_to_hub=True, hub_model_id="me/tiny", hub_private_repo=True)
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(16))
    trainer.train()
    (((directory, repository), named),) = uploads
    assert (directory, repository, named["private"]) == (tmp_path / "out", "me/tiny", True)
    assert any(fnmatch("checkpoint-2/model.safetensors", pattern) for pattern in named["ignore"])
    assert not any(fnmatch("model.safetensors", pattern) for pattern in named["ignore"])
    assert trainer.push_to_hub() == "address"
    trainer.push_to_hub(commit_message="second try", language="de")
    assert (uploads[1][1]["message"], uploads[2][1]["message"]) == ("kdistill: 4 steps", "second try")
    assert '"de"' in (tmp_path / "out/README.md").read_text()


def test_majority_share() -> None:
    assert majority_share(np.array([0, 1, 1, NO_LABEL, 1])) == 0.75
