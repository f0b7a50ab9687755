"""A dict of evaluation sets: metrics by set, the best weights by one of them, early stopping, logs, card and search."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, sentences, small_dataset, small_model, weights
from support.small_search import distillation_trainer, search, student

from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import EarlyStoppingCallback
from kdistill.train.evaluation_sets import is_dict_of_sets, main_set
from kdistill.trainers import Trainer

SETS = {"easy": small_dataset(16, seed=1), "hard": small_dataset(24, seed=2)}


def run(directory: Path, eval_dataset: Any = SETS, *, callbacks: Any = (), **changes: Any) -> Trainer:
    args = TrainingArguments(**run_fields(directory, {"num_train_epochs": 4, "eval_steps": 1, **changes}))
    return Trainer(
        small_model(), args, train_dataset=small_dataset(32), eval_dataset=eval_dataset, callbacks=list(callbacks)
    )


def test_each_set_is_measured_as_it_is_alone(tmp_path: Path) -> None:
    metrics = run(tmp_path).evaluate()
    for name, rows in SETS.items():
        alone = run(tmp_path, rows).evaluate()
        for metric in ("loss", "accuracy", "n"):
            assert metrics[f"eval_{name}_{metric}"] == alone[f"eval_{metric}"]
    assert not {"eval_loss", "eval_accuracy"} & set(metrics)


def test_evaluate_takes_a_dict_and_the_name_of_a_set(tmp_path: Path) -> None:
    trainer = run(tmp_path, None)
    metrics = trainer.evaluate({"mine": SETS["hard"]}, metric_key_prefix="test")
    assert metrics["test_mine_n"] == 24
    assert run(tmp_path).evaluate("hard")["eval_n"] == 24


@pytest.mark.parametrize("name", SETS)
def test_one_of_the_sets_chooses_the_weights(tmp_path: Path, name: str) -> None:
    """The same weights as a run that has this set alone."""
    chosen = "eval_hard_loss" if name == "hard" else "easy_loss"
    trainer = run(tmp_path / "sets", metric_for_best_model=chosen)
    alone = run(tmp_path / "alone", SETS[name], metric_for_best_model="loss")
    results = trainer.train(), alone.train()
    assert trainer.state.best_metric == alone.state.best_metric
    assert trainer.state.best_global_step == alone.state.best_global_step
    np.testing.assert_array_equal(weights(trainer.model), weights(alone.model))
    assert trainer.results[f"eval_{name}_loss"] == alone.results["eval_loss"]
    assert {"eval_easy_accuracy", "eval_hard_accuracy"} <= set(trainer.results)
    assert not [key for key in results[0].metrics if key.startswith("eval_")]


def test_by_default_the_first_set_chooses(tmp_path: Path) -> None:
    trainer = run(tmp_path)
    assert (trainer.args.metric_for_best_model, trainer.args.greater_is_better) == ("easy_accuracy", True)
    assert trainer.recipe.main_eval_dataset is trainer.eval_dataset["easy"]


def test_a_metric_of_no_set_is_refused_before_any_work(tmp_path: Path) -> None:
    trainer = run(tmp_path, metric_for_best_model="accuracy")
    with pytest.raises(ValueError, match=r"has the sets easy, hard; expected a metric of one of them.*easy_accuracy"):
        trainer.train()
    blank = small_dataset(4)
    blank.labels[:] = -100
    with pytest.raises(ValueError, match="the set 'blank' of eval_dataset has no labels"):
        run(tmp_path, {**SETS, "blank": blank}).train()


def test_early_stopping_follows_the_chosen_set(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"metric_for_best_model": "hard_accuracy", "num_train_epochs": 9}
    trainer = run(tmp_path / "sets", callbacks=[EarlyStoppingCallback(3)], **fields)
    trainer.train()
    alone = run(
        tmp_path / "alone",
        SETS["hard"],
        callbacks=[EarlyStoppingCallback(3)],
        **(fields | {"metric_for_best_model": "accuracy"}),
    )
    alone.train()
    assert trainer.state.global_step == alone.state.global_step < 36


def test_logs_and_card_show_every_set(tmp_path: Path) -> None:
    trainer = run(tmp_path, run_name="first")
    trainer.train()
    with (tmp_path / "out" / "runs" / "first" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in SETS:
        assert sum(bool(row[f"eval_{name}_accuracy"]) for row in rows) == 16
    history = trainer.state.history()
    assert len(history) == 16
    assert {"eval_easy_loss", "eval_hard_loss"} <= set(history[0])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "easy accuracy" in card
    assert "hard evaluation loss" in card
    assert "16 evaluations" in card


def test_a_run_is_resumed_on_the_same_sets_only(tmp_path: Path) -> None:
    run(tmp_path).train()
    run(tmp_path).train(resume_from_checkpoint=True)
    other = {**SETS, "hard": small_dataset(20, seed=9)}
    with pytest.raises(ValueError, match="was evaluated on other rows"):
        run(tmp_path, other).train(resume_from_checkpoint=True)


@pytest.mark.filterwarnings("ignore:the teacher's accuracy")
def test_a_search_compares_trials_on_the_chosen_set(tmp_path: Path) -> None:
    several = distillation_trainer(tmp_path / "sets", eval_dataset=SETS, metric_for_best_model="hard_loss")
    alone = distillation_trainer(tmp_path / "alone", eval_dataset=SETS["hard"], metric_for_best_model="loss")
    assert search(several, n_trials=2) == search(alone, n_trials=2)
    own = distillation_trainer(tmp_path / "own", eval_dataset=SETS, model_init=student)
    both = search(
        own, n_trials=2, compute_objective=lambda metrics: metrics["eval_easy_loss"] + metrics["eval_hard_loss"]
    )
    assert both.objective > 0


def test_a_dict_of_columns_is_one_set() -> None:
    rows = [{"sentence": text, "label": label} for text, label in sentences(4)]
    assert not is_dict_of_sets({"text": ["good film"], "label": [1]})
    assert not is_dict_of_sets({"text": np.array(["good film"]), "label": np.array([1])})
    assert not is_dict_of_sets({})
    assert is_dict_of_sets({"a": rows, "b": "dev.tsv", "c": Path("dev.tsv"), "d": {"text": ["x"], "label": [1]}})
    assert main_set(["a", "a_b"], "eval_a_b_accuracy") == "a_b"
    assert main_set(["a", "b"], "loss") == "a"
    assert main_set([], "loss") == ""


def test_a_set_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    args = TrainingArguments(**run_fields(tmp_path, {}))
    for name in (1, None, ("a", "b")):
        with pytest.raises(TypeError, match=r"eval_dataset has a set named .* expected a str, which the names of its"):
            Trainer(small_model(), args, eval_dataset={name: small_dataset(4), "hard": small_dataset(4)})
