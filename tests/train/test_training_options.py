"""Each argument does what it says: when a run evaluates, logs, saves and uploads, and which rows it reads."""

from __future__ import annotations

import json
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import VOCABULARY, run_fields, small_dataset, small_model, weights, write_rows

from kdistill.data.sampler import RandomSampler
from kdistill.text.classes import AutoTokenizer
from kdistill.train import publishing
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.train.recipe import Provenance
from kdistill.trainers import DistillationTrainer, Trainer


def run(directory: Path, rows: int = 32, callbacks: Any = None, **changes: Any) -> Trainer:
    """A finished run of 4 steps an epoch, 2 epochs, that neither evaluates nor saves nor logs unless told to."""
    never = {"eval_strategy": "no", "save_strategy": "no", "logging_strategy": "no"}
    trainer = Trainer(
        small_model(),
        TrainingArguments(**run_fields(directory, never | changes)),
        train_dataset=small_dataset(rows),
        eval_dataset=small_dataset(16, seed=1),
        callbacks=callbacks,
    )
    trainer.train()
    return trainer


def steps(trainer: Trainer, name: str) -> list[int]:
    return [int(entry["step"]) for entry in trainer.state.log_history if name in entry]


def saved(directory: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in (directory / "out").glob("checkpoint-*"))


@pytest.mark.parametrize(("share", "expected"), [(0.25, [2, 4, 6, 8]), (0.3, [3, 6, 8]), (3, [3, 6, 8])])
def test_intervals_are_steps_or_a_share_of_the_run(tmp_path: Path, share: float, expected: list[int]) -> None:
    strategies = dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "steps")
    intervals = dict.fromkeys(("eval_steps", "save_steps", "logging_steps"), share)
    trainer = run(tmp_path, **strategies, **intervals, load_best_model_at_end=False)
    assert steps(trainer, "loss") == steps(trainer, "eval_loss") == saved(tmp_path) == expected


def test_strategies_by_epochs_and_never(tmp_path: Path) -> None:
    strategies = dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "epoch")
    trainer = run(tmp_path / "epoch", **strategies)
    assert steps(trainer, "loss") == steps(trainer, "eval_loss") == saved(tmp_path / "epoch") == [4, 8]
    trainer = run(tmp_path / "never")
    assert steps(trainer, "loss") == steps(trainer, "eval_loss") == saved(tmp_path / "never") == []
    assert len(trainer.state.log_history) == 1  # the run's own figures


def test_a_run_that_ends_inside_of_an_epoch(tmp_path: Path) -> None:
    strategies = dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "epoch")
    trainer = run(tmp_path, **strategies, max_steps=6)
    assert trainer.state.global_step == 6
    assert steps(trainer, "loss") == steps(trainer, "eval_loss") == saved(tmp_path) == [4, 6]


def test_max_steps_goes_over_the_rows_as_often_as_it_takes(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="^num_train_epochs has no effect here: max_steps takes precedence$"):
        trainer = run(tmp_path, max_steps=11, num_train_epochs=1)
    assert (trainer.state.global_step, trainer.state.epoch) == (11, 2.75)


def test_an_evaluation_ends_the_training_inside_of_an_epoch(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs) -> None:
            control.should_training_stop = True

    class Epochs(TrainerCallback):
        seen: list[str] = []  # noqa: RUF012

        def on_epoch_begin(self, *args: object, **kwargs: object) -> None:
            self.seen.append("begin")

        def on_epoch_end(self, *args: object, **kwargs: object) -> None:
            self.seen.append("end")

    trainer = run(tmp_path, eval_strategy="steps", eval_steps=2, logging_strategy="epoch", callbacks=[Stop, Epochs])
    assert trainer.state.global_step == 2
    assert steps(trainer, "loss") == [2]
    assert Epochs.seen == ["begin", "end"]


def test_first_step_is_logged(tmp_path: Path) -> None:
    trainer = run(tmp_path, logging_strategy="steps", logging_steps=3, logging_first_step=True)
    assert steps(trainer, "loss") == [1, 3, 6, 8]


def test_evaluation_before_the_first_step(tmp_path: Path) -> None:
    trainer = run(tmp_path, eval_on_start=True, eval_strategy="epoch")
    assert steps(trainer, "eval_loss") == [0, 4, 8]
    untrained = Trainer(small_model(), TrainingArguments(disable_tqdm=True), eval_dataset=small_dataset(16, seed=1))
    assert trainer.state.log_history[0]["eval_loss"] == untrained.evaluate()["eval_loss"]


def test_first_evaluation_is_put_off(tmp_path: Path) -> None:
    for delay, expected in ((5, [6, 8]), (4, [4, 6, 8])):
        by_steps = run(tmp_path / f"steps{delay}", eval_strategy="steps", eval_steps=2, eval_delay=delay)
        assert steps(by_steps, "eval_loss") == expected
    for delay, expected in ((1.5, [8]), (1, [4, 8])):
        by_epochs = run(tmp_path / f"epochs{delay}", eval_strategy="epoch", eval_delay=delay)
        assert steps(by_epochs, "eval_loss") == expected


def test_only_the_best_is_saved(tmp_path: Path) -> None:
    trainer = run(
        tmp_path,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model="loss",
        load_best_model_at_end=False,
    )
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    best = [step for step in range(1, 9) if losses[step - 1] < min(losses[: step - 1], default=np.inf)]
    assert saved(tmp_path) == best


@pytest.mark.parametrize(("accumulation", "expected"), [(1, [8, 8, 8]), (2, [16, 8])])
def test_last_batch_is_left_out(tmp_path: Path, accumulation: int, expected: list[int]) -> None:
    seen: list[list[int]] = []

    class Noting(Trainer):
        def compute_loss(self, logits, labels, rows):
            seen.append(rows.tolist())
            return super().compute_loss(logits, labels, rows)

    fields = {"dataloader_drop_last": True, "gradient_accumulation_steps": accumulation, "eval_strategy": "no"}
    args = TrainingArguments(**run_fields(tmp_path, fields))
    trainer = Noting(small_model(), args, train_dataset=small_dataset(29))
    trainer.train()
    order = [RandomSampler(29, args.seed).permutation(epoch)[:24].tolist() for epoch in range(2)]
    assert [row for batch in seen for row in batch] == order[0] + order[1]
    assert trainer.state.global_step == 2 * len(expected)


def test_no_batch_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataloader_drop_last is True and 5 rows do not fill a batch of 8"):
        run(tmp_path, rows=5, dataloader_drop_last=True)


def test_seeds(tmp_path: Path) -> None:
    """`data_seed` is that of the order alone: without dropout `seed` makes no difference beside it."""
    results = {}
    for seed, data_seed in ((1, 7), (2, 7), (1, 8), (7, None)):
        args = TrainingArguments(
            **run_fields(
                tmp_path / f"{seed}-{data_seed}", {"seed": seed, "data_seed": data_seed, "eval_strategy": "no"}
            )
        )
        model = small_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        trainer = Trainer(model, args, train_dataset=small_dataset(32))
        trainer.train()
        results[seed, data_seed] = weights(trainer.model)
    np.testing.assert_array_equal(results[1, 7], results[2, 7])
    np.testing.assert_array_equal(results[1, 7], results[7, None])
    assert not np.array_equal(results[1, 7], results[1, 8])


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The uploads that would have been made."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(publishing, "upload", lambda *values, **named: calls.append((values, named)) or "address")
    return calls


def test_every_checkpoint_is_uploaded(tmp_path: Path, uploads: list[Any]) -> None:
    hub = {"push_to_hub": True, "hub_token": "hf_x", "hub_revision": "trial", "hub_strategy": "every_save"}
    run(tmp_path, save_strategy="epoch", **hub)
    out = tmp_path / "out"
    assert [values for values, _ in uploads] == [(out / "checkpoint-4", "out"), (out, "out")]
    for values, named in uploads:
        assert (named["token"], named["revision"]) == ("hf_x", "trial")
        sent = [
            path.name
            for path in values[0].iterdir()
            if path.is_file() and not any(fnmatch(path.name, pattern) for pattern in named["ignore"])
        ]
        assert {"model.safetensors", "config.json", "training_args.json"} <= set(sent)
        assert not {"optimizer.safetensors", "manifest.json", "command.txt"} & set(sent)
        assert "hf_x" not in (values[0] / "training_args.json").read_text()


def test_run_name_and_logging_dir(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(tmp_path, report_to="tensorboard", logging_dir=str(tmp_path / "logs"), run_name="tenth")
    assert list((tmp_path / "logs").glob("events*"))
    assert not (tmp_path / "out" / "runs").exists()
    assert (tmp_path / "out" / "README.md").read_text().count("# tenth\n") == 1


def test_command_is_left_beside_the_arguments(tmp_path: Path) -> None:
    args = TrainingArguments(**run_fields(tmp_path, {"eval_strategy": "no"}))
    Trainer(small_model(), args, train_dataset=small_dataset(8)).train()
    assert not (tmp_path / "out" / "command.txt").exists()
    args.overwrite_output_dir = True
    provenance = Provenance(command="kdistill finetune")
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(8), provenance=provenance)
    assert trainer.command == "kdistill finetune"
    trainer.train()
    assert (tmp_path / "out" / "command.txt").read_text() == "kdistill finetune\n"
    assert json.loads((tmp_path / "out" / "training_args.json").read_text())["overwrite_output_dir"] is True


def test_clipping(tmp_path: Path) -> None:
    """The logged norm is that before clipping; 0 never clips, which a bound out of reach does not either."""
    results = []
    for bound in (0, 1e9, 1e-3):
        fields = {"max_grad_norm": bound, "max_steps": 1, "logging_strategy": "steps", "adam_epsilon": 1.0}
        trainer = run(tmp_path / str(bound), **fields)
        results.append((weights(trainer.model), trainer.state.log_history[0]["grad_norm"]))
    assert results[0][1] == results[1][1] == results[2][1] > 0.1
    np.testing.assert_array_equal(results[0][0], results[1][0])
    before = weights(small_model())
    free, clipped = (np.linalg.norm(after - before) for after, _ in results[1:])
    assert clipped < 0.01 * free


def test_rows_are_cut_to_max_length(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    rows = write_rows(tmp_path / "rows.tsv", 20)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    def lengths(max_length: int | None) -> np.ndarray:
        args = TrainingArguments(**run_fields(tmp_path, {"max_length": max_length}))
        return Trainer(small_model(), args, train_dataset=rows, processing_class=tokenizer).train_dataset.lengths

    whole = lengths(None)
    assert whole.max() == 10
    cut = int((whole > 5).sum())
    with pytest.warns(UserWarning, match=rf"{cut} of 20 rows \({cut / 20:.1%} of rows.tsv\) were longer than 5 tokens"):
        assert lengths(5).max() == 5


@pytest.mark.parametrize("quiet", [True, False])
def test_progress_is_shown_unless_disabled(tmp_path: Path, capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    run(tmp_path, disable_tqdm=quiet, logging_strategy="epoch")
    shown = capsys.readouterr().err
    assert (shown == "") == quiet
    assert ("epoch 1 of 2: loss" in shown) == (not quiet)


def test_nothing_is_done_twice_when_an_evaluation_stops_the_training(tmp_path: Path) -> None:
    saves = []

    class Stop(TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs) -> None:
            control.should_training_stop = True

        def on_save(self, args, state, control, **kwargs) -> None:
            saves.append(state.global_step)

    every = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = run(tmp_path, callbacks=[Stop], **every)
    assert saves == steps(trainer, "eval_loss") == [2]


@pytest.mark.parametrize("kind", ["labels", "teacher"])
def test_labels_are_smoothed(tmp_path: Path, kind: str) -> None:
    """The first logged loss, from its formula; the evaluation's loss stays that of the labels as they are."""
    fields = {"label_smoothing_factor": 0.3, "max_steps": 1, "per_device_train_batch_size": 32, "learning_rate": 0.0}
    fields |= {"eval_strategy": "no", "logging_strategy": "steps"}
    dataset, still = small_dataset(32), {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    logits = small_model(**still).forward(dataset.batch(np.arange(32))[0]).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    plain = -log_p[np.arange(32), dataset.labels].mean()
    expected = 0.7 * plain - 0.3 * log_p.mean()
    common = {"train_dataset": dataset, "eval_dataset": dataset}
    trainer: Trainer
    if kind == "labels":
        trainer = Trainer(small_model(**still), TrainingArguments(**run_fields(tmp_path, fields)), **common)
    else:
        args = DistillationTrainingArguments(**run_fields(tmp_path, fields), alpha=1.0)
        trainer = DistillationTrainer(small_model(**still), args, teacher_model=small_model(7), **common)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the teacher's accuracy")
        trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain, rel=1e-5)
    assert abs(plain - expected) > 1e-3
