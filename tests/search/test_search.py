"""A trial against training by hand: what it trains, reports, shares and leaves, and how it may end."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, sentences, small_dataset, small_model, weights, write_model
from support.small_search import SPACE, distillation_trainer, eval_loss, reports, search, states, student

import kdistill as kd
from kdistill import trainers
from kdistill.models.classes import BertForSequenceClassification
from kdistill.search.study import open_journal
from kdistill.search.trials import _arguments_of_trial
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.callbacks import EarlyStoppingCallback, TrainerCallback
from kdistill.train.chosen_defaults import choose_defaults
from kdistill.trainers import DistillationTrainer

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.parametrize("load_best", [True, False])
def test_a_trial_is_a_run_with_its_hyperparameters(tmp_path: Path, load_best: bool) -> None:
    """The objective is that of the weights that the run keeps: the best epoch's or the last one's."""
    space = {**SPACE, "learning_rate": {"type": "float", "low": 0.05, "high": 0.5}}  # the loss does not only fall
    trainer = distillation_trainer(tmp_path, load_best_model_at_end=load_best, metric_for_best_model="loss")
    best = search(trainer, n_trials=8, hp_space=space)
    objectives, last = [], []
    for trial in trainer.study.trials:
        fields = {"load_best_model_at_end": load_best, "metric_for_best_model": "loss", **trial.params}
        run = distillation_trainer(tmp_path / f"by-hand-{trial.number}", **fields)
        run.train()
        losses = {round(e["epoch"]): e["eval_loss"] for e in run.state.log_history if "eval_loss" in e}
        assert trial.intermediate_values == losses
        assert trial.value == run.evaluate()["eval_loss"]
        objectives.append(trial.value)
        last.append(trial.intermediate_values[trial.params["num_train_epochs"]])
    assert (objectives == last) is not load_best
    assert best == (str(np.argmin(objectives)), min(objectives), trainer.study.best_trial.params)
    assert best._fields == ("run_id", "objective", "hyperparameters")


def test_trials_in_two_threads_have_the_bits_of_those_in_one(tmp_path: Path) -> None:
    found = []
    for jobs in (1, 2):
        directory = tmp_path / str(jobs)
        journal = directory / "queued.journal"
        study = optuna.create_study(storage=open_journal(journal), study_name="search", direction="minimize")
        for rate in (1e-3, 3e-3, 1e-2, 2e-2, 3e-2):
            study.enqueue_trial({"num_train_epochs": 3, "learning_rate": rate, "alpha": rate * 10})
        trainer = distillation_trainer(directory)
        search(trainer, n_trials=5, n_jobs=jobs, storage=journal, compute_objective=eval_loss)
        assert states(trainer) == ["COMPLETE"] * 5
        found.append(reports(trainer.study))
    assert found[0] == found[1]
    assert len({value for values in found[0].values() for value in values.values()}) == 15


def test_the_cores_are_split_and_trials_run_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=30)
    threads: list[int] = []

    class Meet(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs) -> None:
            together.wait()
            threads.append(kd.get_num_threads())

    before = kd.get_num_threads()
    kd.set_num_threads(5)
    try:
        search(distillation_trainer(tmp_path, callbacks=[Meet()]), n_trials=4, n_jobs=2)
        assert threads == [2] * 4
        assert kd.get_num_threads() == 5
    finally:
        kd.set_num_threads(before)


def test_rows_are_tokenised_and_the_teacher_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[Any] = []
    encode = trainers.encode_for

    def noting(config, source, *rest, **columns):
        sources.append(source)
        return encode(config, source, *rest, **columns)

    monkeypatch.setattr(trainers, "encode_for", noting)
    model = write_model(tmp_path / "teacher", 7)
    teacher, tokenizer = BertForSequenceClassification.from_pretrained(model), kd.AutoTokenizer.from_pretrained(model)
    rows = [{"sentence": text, "label": label} for text, label in sentences(40)]
    computed, seen = [], []
    forward = teacher.forward
    monkeypatch.setattr(teacher, "forward", lambda batch: computed.append(len(batch.starts) - 1) or forward(batch))

    class Watch(DistillationTrainer):
        def compute_loss(self, logits, labels, rows):
            seen.append((id(self.train_dataset.ids), id(self.objective.answers[0])))
            return super().compute_loss(logits, labels, rows)

    args = DistillationTrainingArguments(**run_fields(tmp_path, {"teacher_cache": False}))
    trainer = Watch(
        args=args,
        model_init=student,
        teacher_model=teacher,
        processing_class=tokenizer,
        train_dataset=rows,
        eval_dataset=rows[:10],
    )
    search(trainer, n_trials=4, n_jobs=2)
    assert len(sources) == 2
    assert sum(computed) == len({row["sentence"] for row in rows}) + len({row["sentence"] for row in rows[:10]})
    assert len(set(seen)) == 1


def test_trainer_is_as_before_and_trains_with_the_best(tmp_path: Path) -> None:
    trainer = distillation_trainer(tmp_path)
    first, arguments = weights(trainer.model), trainer.args.to_dict()
    best = search(trainer)
    np.testing.assert_array_equal(weights(trainer.model), first)
    assert (trainer.args.to_dict(), trainer.state.global_step) == (arguments | {"search_trials": 3}, 0)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["runs", "study.journal", "study.journal.workers"]
    assert sorted(path.name for path in (out / "runs").iterdir()) == ["run-0", "run-1", "run-2"]
    for name, value in best.hyperparameters.items():
        setattr(trainer.args, name, value)
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] == best.objective
    assert "a hyperparameter search scored 3 trials on them" in (out / "README.md").read_text()


def test_each_trial_has_its_own_callbacks(tmp_path: Path) -> None:
    """A counter of patience that trials shared would end later ones after their first epoch."""
    callback = EarlyStoppingCallback(early_stopping_patience=2)
    trainer = distillation_trainer(tmp_path, callbacks=[callback], num_train_epochs=5)
    search(trainer, hp_space=lambda trial: {"learning_rate": 1e-9}, n_trials=3)
    assert [len(trial.intermediate_values) for trial in trainer.study.trials] == [3, 3, 3]
    assert callback.early_stopping_patience_counter == 0


def test_model_init_gets_the_trial_and_must_make_a_new_model(tmp_path: Path) -> None:
    trials: list[Any] = []

    def new(trial: Any) -> BertForSequenceClassification:
        trials.append(trial)
        return small_model(2)

    search(distillation_trainer(tmp_path / "new", model_init=new))
    assert [None if trial is None else trial.number for trial in trials] == [None, 0, 1, 2]
    only = small_model(2)
    with pytest.raises(RuntimeError, match="model_init returned a model that it made before"):
        search(distillation_trainer(tmp_path / "same", model_init=lambda: only))


def test_names_of_trials(tmp_path: Path) -> None:
    names: list[tuple[str | None, str]] = []

    class Names(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs) -> None:
            names.append((args.run_name, args.output_dir))

    trainer = distillation_trainer(tmp_path, callbacks=[Names()])
    search(trainer, n_trials=1)
    search(trainer, n_trials=2, hp_name=lambda trial: f"try {trial.number}")
    assert names == [("run-0", f"{tmp_path}/out/run-0"), ("try 1", f"{tmp_path}/out/try 1")]


@pytest.mark.parametrize(
    ("space", "error"),
    [
        (lambda trial: {"learning_rate": 1e30 if trial.number == 1 else 1e-3}, "FloatingPointError: step"),
        (
            lambda trial: {"dataloader_drop_last": True, "per_device_train_batch_size": 8 + 800 * (trial.number == 1)},
            "ValueError: dataloader_drop_last is True and 40 rows",
        ),
        (lambda trial: {"alpha": 0.5 + (trial.number == 1)}, "ValueError: alpha is 1.5"),
    ],
)
def test_failed_trial_is_recorded(tmp_path: Path, space: Any, error: str) -> None:
    trainer = distillation_trainer(tmp_path)
    best = search(trainer, hp_space=space)
    assert states(trainer) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trainer.study.trials[1].user_attrs["error"].startswith(error)
    assert trainer.args.search_trials == 2
    assert best.run_id in "02"


def test_objective_that_is_not_a_number(tmp_path: Path) -> None:
    values = iter([1.0, np.nan, np.nan, 3.0, 3.0, 2.0, 2.0])  # the first is asked for before the trials, which have two
    trainer = distillation_trainer(tmp_path)
    best = search(trainer, hp_space=lambda trial: {"num_train_epochs": 2}, compute_objective=lambda _: next(values))
    assert states(trainer) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "the objective is nan" in trainer.study.trials[0].user_attrs["error"]
    assert best[:2] == ("2", 2.0)


class EveryOther(optuna.pruners.BasePruner):
    """Ends trials of odd number after their first report."""

    def prune(self, study: Any, trial: Any) -> bool:
        return trial.number % 2 == 1


def test_pruned_trials_stop_after_the_epoch_that_says_so(tmp_path: Path) -> None:
    trainer = distillation_trainer(tmp_path)
    search(trainer, n_trials=4, pruner=EveryOther(), n_jobs=2)
    assert states(trainer) == ["COMPLETE", "PRUNED"] * 2
    assert trainer.args.search_trials == 4
    for trial in trainer.study.trials:
        epochs = trial.params["num_train_epochs"] if trial.number % 2 == 0 else 1
        assert list(trial.intermediate_values) == list(range(1, epochs + 1))


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_hopeless_trials_are_pruned_by_their_epochs(tmp_path: Path, pruner: str) -> None:
    """Rates that learn nothing in nine epochs come after some that learn."""
    journal, rates = tmp_path / "queued.journal", [1e-2, 2e-2] * 3 + [1e-7] * 4
    study = optuna.create_study(storage=open_journal(journal), study_name="search", direction="minimize")
    for rate in rates:
        study.enqueue_trial({"learning_rate": rate})
    trainer = distillation_trainer(tmp_path, num_train_epochs=9, train_dataset=small_dataset(80))
    space = {"learning_rate": {"type": "float", "low": 1e-7, "high": 1e-1, "log": True}}
    best = search(
        trainer, n_trials=len(rates), pruner=pruner, hp_space=space, storage=journal, compute_objective=eval_loss
    )
    assert best.hyperparameters["learning_rate"] > 1e-7
    hopeless = trainer.study.trials[6:]
    pruned = [trial for trial in hopeless if trial.state.name == "PRUNED"]
    assert len(pruned) == len(hopeless) if pruner == "median" else pruned
    assert all(0 < len(trial.intermediate_values) < 9 for trial in pruned)


def test_last_evaluation_prunes_nothing(tmp_path: Path) -> None:
    trainer = distillation_trainer(tmp_path, num_train_epochs=1)
    search(trainer, n_trials=2, pruner=EveryOther(), hp_space=lambda trial: {})
    assert states(trainer) == ["COMPLETE"] * 2


def test_evaluations_by_steps_and_at_the_end_alone(tmp_path: Path) -> None:
    """40 rows in batches of 8: five steps an epoch."""
    steps = distillation_trainer(tmp_path / "steps", eval_strategy="steps", eval_steps=4, save_strategy="no")
    search(steps, n_trials=1, hp_space=lambda trial: {})
    assert list(steps.study.trials[0].intermediate_values) == [4, 8, 10]
    part = distillation_trainer(tmp_path / "part", num_train_epochs=2.4)
    search(part, n_trials=1, hp_space=lambda trial: {})
    assert list(part.study.trials[0].intermediate_values) == [1, 2, 3]
    never = distillation_trainer(tmp_path / "never", eval_strategy="no")
    search(never, n_trials=1, hp_space=lambda trial: {})
    assert list(never.study.trials[0].intermediate_values) == [2]


def test_a_trial_that_averages_its_weights_is_measured_by_the_average(tmp_path: Path) -> None:
    """Also when nothing is evaluated before its end, where the average has already taken the weights' place."""
    averaging = {"ema_decay": 0.9, "eval_strategy": "no", "save_strategy": "no"}
    trainer = distillation_trainer(tmp_path, **averaging)
    best = search(trainer, n_trials=1, hp_space=lambda trial: {}, compute_objective=eval_loss, direction="minimize")
    run, plain = (
        distillation_trainer(tmp_path / name, **(averaging | changes))
        for name, changes in (("by-hand", {}), ("plain", {"ema_decay": 0.0}))
    )
    run.train()
    plain.train()
    assert best.objective == run.evaluate()["eval_loss"] != plain.evaluate()["eval_loss"]


@pytest.mark.parametrize("name", ["../../elsewhere", "..", "/elsewhere", "a/b"])
def test_the_name_of_a_trial_is_one_name_below_the_output_directory(tmp_path: Path, name: str) -> None:
    args = _arguments_of_trial(TrainingArguments(str(tmp_path)), name, {})
    assert args.run_name == name
    assert Path(args.output_dir).parent == tmp_path
    assert Path(args.logging_dir).parent == tmp_path / "runs"
    for place in (args.output_dir, args.logging_dir):
        assert os.path.normpath(place) == place


def test_a_trial_has_the_chosen_values_of_a_run_with_its_own(tmp_path: Path) -> None:
    trained = {}

    class Remembers(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            trained[args.per_device_train_batch_size] = args.learning_rate

    args = DistillationTrainingArguments(
        output_dir=str(tmp_path / "out"), recipe="auto", max_steps=1, eval_strategy="no", disable_tqdm=True
    )
    trainer = DistillationTrainer(
        args=args,
        model_init=student,
        teacher_model=small_model(7),
        train_dataset=small_dataset(40),
        eval_dataset=small_dataset(24, seed=1),
        callbacks=[Remembers],
    )
    for size in (8, 128):
        space = {"per_device_train_batch_size": {"type": "categorical", "choices": [size]}}
        search(trainer, hp_space=space, n_trials=1, study_name=str(size))
    assert trained == {8: 5e-4, 128: 2e-3}
    assert args.chosen["learning_rate"] == 1e-3


def test_all_trials_have_the_copies_that_a_recipe_chose() -> None:
    """Even with an alpha of 1, with which a run makes none: the copies are among the rows that all of them learn."""
    args = DistillationTrainingArguments(recipe="tiny")
    model, rows = small_model(num_hidden_layers=1), small_dataset(40)
    choose_defaults(args, model, rows)
    trial = _arguments_of_trial(args, "run-0", {"alpha": 1.0})
    choose_defaults(trial, model, rows)
    assert (trial.augment, trial.per_device_train_batch_size) == (24, 64)
