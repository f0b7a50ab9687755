"""The course of a run against `transformers.Trainer` on the same rows: steps, rates, events, callbacks."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import torch
import transformers
from support.small_run import run_fields, small_dataset, small_model

import kdistill as kd
from kdistill.search.study import BestRun
from kdistill.trainers import Trainer

ROWS = 28
pytestmark = pytest.mark.filterwarnings("ignore")  # those of other packages


def record_into(events: list[tuple[str, int]]) -> Any:
    """A callback of transformers that keeps each event and its step."""

    class Recorder(transformers.TrainerCallback):
        def __getattribute__(self, name: str) -> Any:
            if not name.startswith("on_"):
                return super().__getattribute__(name)
            return lambda args, state, control, **kwargs: events.append((name[3:], state.global_step))

    return Recorder()


class Rows(torch.utils.data.Dataset):
    def __init__(self, dataset: kd.Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.dataset.ids[self.dataset.starts[index] : self.dataset.starts[index + 1]]
        return {"input_ids": ids.tolist(), "label": int(self.dataset.labels[index])}


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    width = max(len(row["input_ids"]) for row in rows)
    padded = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
    return {
        "input_ids": padded,
        "attention_mask": (padded != 0).long(),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


def both_runs(
    directory: Path, fields: dict[str, Any], callbacks: Any = list
) -> tuple[Trainer, list[tuple[str, int]], Any, list[tuple[str, int]]]:
    """The same arguments in a run here and in one of transformers, each with the events that it had."""
    events: tuple[list[tuple[str, int]], list[tuple[str, int]]] = ([], [])
    train, held_out = small_dataset(ROWS), small_dataset(16, seed=1)
    scores = iter([1.0, 2.0, 1.0, 3.0, 2.0, 1.0, 0.0, 0.0, 9.0]), iter([1.0, 2.0, 1.0, 3.0, 2.0, 1.0, 0.0, 0.0, 9.0])
    fields = {"metric_for_best_model": "score", "learning_rate": 0.01} | fields
    ours = Trainer(
        small_model(),
        kd.TrainingArguments(**run_fields(directory / "ours", fields)),
        train_dataset=train,
        eval_dataset=held_out,
        compute_metrics=lambda prediction: {"score": next(scores[0])},
        callbacks=[*callbacks(), record_into(events[0])],
    )
    ours.train()
    small_model().save_pretrained(directory / "model")
    theirs = transformers.Trainer(
        transformers.BertForSequenceClassification.from_pretrained(directory / "model"),
        transformers.TrainingArguments(**run_fields(directory / "theirs", fields), use_cpu=True, report_to="none"),
        data_collator=collate,
        train_dataset=Rows(train),
        eval_dataset=Rows(held_out),
        compute_metrics=lambda prediction: {"score": next(scores[1])},
        callbacks=[*callbacks(), record_into(events[1])],
    )
    theirs.train()
    return ours, events[0], theirs, events[1]


def only(events: list[tuple[str, int]], *names: str) -> list[tuple[str, int]]:
    return [event for event in events if event[0] in names]


STEPPING = (
    *("train_begin", "train_end", "epoch_begin", "epoch_end", "step_begin", "step_end"),
    *("substep_end", "pre_optimizer_step", "optimizer_step"),
)
EPOCHS = {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"}
STEPS = {
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "logging_strategy": "steps",
    "load_best_model_at_end": False,
}


@pytest.mark.parametrize(
    "fields",
    [
        EPOCHS,
        EPOCHS | {"gradient_accumulation_steps": 2, "num_train_epochs": 3},
        EPOCHS | {"max_steps": 6},
        EPOCHS | {"max_steps": 11, "num_train_epochs": 1},
        EPOCHS | {"num_train_epochs": 1.5},
        EPOCHS | {"dataloader_drop_last": True},
        EPOCHS | {"eval_delay": 1.5},
        EPOCHS | {"eval_on_start": True},
        STEPS | {"eval_steps": 2, "save_steps": 2, "logging_steps": 2},
        STEPS | {"eval_steps": 0.3, "save_steps": 0.3, "logging_steps": 0.3, "logging_first_step": True},
        STEPS | {"eval_steps": 2, "save_steps": 4, "logging_steps": 1, "eval_delay": 3},
        STEPS | {"eval_steps": 1, "save_strategy": "best", "logging_steps": 4},
    ],
    ids=str,
)
def test_course_of_a_run(tmp_path: Path, fields: dict[str, Any]) -> None:
    ours, our_events, theirs, their_events = both_runs(tmp_path, fields)
    assert only(our_events, *STEPPING) == only(their_events, *STEPPING)
    assert only(our_events, "evaluate") == only(their_events, "evaluate")
    saves = only(our_events, "save")
    assert saves == only(their_events, "save")
    assert (ours.state.global_step, ours.state.max_steps) == (theirs.state.global_step, theirs.state.max_steps)
    assert ours.state.epoch == pytest.approx(theirs.state.epoch)
    assert (ours.state.best_metric, ours.state.best_global_step) == (
        theirs.state.best_metric,
        theirs.state.best_global_step,
    )
    logged = [{int(e["step"]) for e in run.state.log_history if "loss" in e} for run in (ours, theirs)]
    assert logged[0] - {ours.state.max_steps} == logged[1] - {
        ours.state.max_steps
    }  # here the last one is always logged


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"])
def test_learning_rates_of_a_run(tmp_path: Path, scheduler: str) -> None:
    fields = {"lr_scheduler_type": scheduler, "logging_steps": 1, "num_train_epochs": 3}
    fields |= {} if scheduler == "constant" else {"warmup_steps": 3}
    ours, _, theirs, _ = both_runs(tmp_path, STEPS | fields | {"eval_strategy": "no", "save_strategy": "no"})
    rates = [[e["learning_rate"] for e in run.state.log_history if "loss" in e] for run in (ours, theirs)]
    assert len(rates[0]) == 12
    assert rates[0] == pytest.approx(rates[1], abs=1e-9)


@pytest.mark.parametrize("scheduler", ["reduce_lr_on_plateau", "greedy"])
def test_learning_rates_that_follow_evaluations(tmp_path: Path, scheduler: str) -> None:
    settings = {"mode": "max", "patience": 0, "factor": 0.5, "min_lr": 0.0}
    fields = {"lr_scheduler_type": scheduler, "lr_scheduler_kwargs": settings, "num_train_epochs": 4}
    fields |= {"logging_steps": 1, "eval_steps": 2, "save_strategy": "no"}
    ours, _, theirs, _ = both_runs(tmp_path, STEPS | fields)
    rates = [[e["learning_rate"] for e in run.state.log_history if "loss" in e] for run in (ours, theirs)]
    assert len({*rates[0]}) > 1
    assert rates[0] == pytest.approx(rates[1])


@pytest.mark.parametrize("owner", [kd, transformers], ids=["kdistill", "transformers"])
@pytest.mark.parametrize(("patience", "threshold"), [(1, 0.0), (2, 0.0), (3, 0.5)])
def test_early_stopping(tmp_path: Path, owner: Any, patience: int, threshold: float) -> None:
    """Also the callback of transformers in a trainer of kdistill; and the other way round."""
    fields = {**EPOCHS, "num_train_epochs": 8, "load_best_model_at_end": True, "per_device_train_batch_size": ROWS}
    ours, our_events, theirs, their_events = both_runs(
        tmp_path, fields, callbacks=lambda: [owner.EarlyStoppingCallback(patience, threshold)]
    )
    assert ours.state.global_step == theirs.state.global_step
    assert ours.state.best_global_step == theirs.state.best_global_step
    assert only(our_events, *STEPPING, "save") == only(their_events, *STEPPING, "save")


def test_a_search_is_called_and_answers_as_in_transformers() -> None:
    """The same arguments in the same order (ours behind them), and the fields of the best run but their summary."""
    theirs = list(inspect.signature(transformers.Trainer.hyperparameter_search).parameters)
    ours = list(inspect.signature(Trainer.hyperparameter_search).parameters)
    assert theirs[-1] == "kwargs"
    assert ours[: len(theirs) - 1] == theirs[:-1]
    assert BestRun._fields == transformers.trainer_utils.BestRun._fields[:3]
