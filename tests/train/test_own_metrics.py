"""Metrics of a user's function: whatever kind they are, the run ends, and its files hold what JSON can."""

from __future__ import annotations

import csv
import decimal
import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model

from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.train.own_metrics import plain_metrics
from kdistill.train.state import TrainerState, read_figures
from kdistill.trainers import Trainer

REPORT = {"negative": {"f1": np.float64(0.5), "support": np.int64(4)}, "macro": [np.float32(0.25), 1]}


class Tensor:
    """As those of torch: one number, which `item` and `tolist` return."""

    def tolist(self) -> float:
        return 0.75


def run_of(directory: Path, metrics: Any, **changes: object) -> Trainer:
    args = TrainingArguments(**run_fields(directory, {"report_to": "all", "run_name": "logs", **changes}))
    return Trainer(
        small_model(),
        args,
        train_dataset=small_dataset(16),
        eval_dataset=small_dataset(8, seed=1),
        compute_metrics=lambda prediction: metrics,
    )


def strict(path: Path) -> Any:
    """Read JSON as the standard has it, without NaN and infinity."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.int64(7), 7),
        (np.uint8(7), 7),
        (True, 1),
        (np.bool_(False), 0),
        (np.array(0.5), 0.5),
        (np.array(3), 3),
        (Tensor(), 0.75),
        (decimal.Decimal("0.5"), 0.5),
        (2**70, 2**70),
    ],
)
def test_numbers_of_any_kind_are_numbers_in_every_file(tmp_path: Path, value: Any, expected: float) -> None:
    run = run_of(tmp_path, {"own": value}, metric_for_best_model="own")
    run.train()
    out = tmp_path / "out"
    assert run.results["eval_own"] == expected
    assert type(run.results["eval_own"]) is type(expected)
    assert strict(out / "all_results.json")["eval_own"] == expected
    with (out / "runs" / "logs" / "metrics.csv").open(newline="") as file:
        assert {float(row["eval_own"]) for row in csv.DictReader(file) if row["eval_own"]} == {float(expected)}
    assert run.failed == {}
    assert run.state.best_metric == expected
    again = run_of(tmp_path, {"own": value}, metric_for_best_model="own")
    again.load_finished_run()
    assert again.state == run.state


def test_what_is_no_number_is_kept_in_json_alone_and_said(tmp_path: Path) -> None:
    metrics = {"report": REPORT, "per_class": np.array([0.5, 0.25]), "note": "fine", "f1": 0.5}
    run = run_of(tmp_path, metrics)
    with pytest.warns(UserWarning, match=r"returned 'report', 'per_class', 'note', which is not a number") as warned:
        run.train()
    assert len({str(warning.message) for warning in warned}) == 1
    kept = {"negative": {"f1": 0.5, "support": 4}, "macro": [0.25, 1]}
    for name in ("all_results.json", "trainer_state.json"):
        content = strict(tmp_path / "out" / name)
        entry = content if name == "all_results.json" else content["log_history"][-2]
        assert entry["eval_report"] == kept
        assert entry["eval_per_class"] == [0.5, 0.25]
        assert entry["eval_note"] == "fine"
    logs = tmp_path / "out" / "runs" / "logs"
    assert "eval_report" in (logs / "metrics.jsonl").read_text()
    header = (logs / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "eval_f1" in header
    assert not {"eval_report", "eval_per_class", "eval_note"} & set(header)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "f1" in card
    assert "per_class" not in card


class Failing:
    """A value whose own methods fail, as those of a tensor on a device that is gone."""

    def tolist(self) -> Any:
        raise RuntimeError("broken by the test")

    def __float__(self) -> float:
        raise RuntimeError("broken by the test")


def holds_itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["itself"] = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(None, object(), {1, 2}, [object()], 1j, {"deep": [None]}),
        *(Failing(), {"deep": Failing()}, holds_itself(), functools.reduce(lambda inner, _: [inner], range(900), 1.0)),
        pytest.param(10**400, id="huge"),
        [10**400],
    ],
)
def test_what_json_cannot_hold_is_left_out_and_said(tmp_path: Path, value: Any) -> None:
    run = run_of(tmp_path, {"odd": value, "f1": 0.5})
    with pytest.warns(UserWarning, match="compute_metrics returned 'odd', which JSON cannot hold: it is left out"):
        run.train()
    results = strict(tmp_path / "out" / "all_results.json")
    assert results["eval_f1"] == 0.5
    assert "eval_odd" not in results


@pytest.mark.parametrize("metrics", [None, 0.5, [("f1", 0.5)], {3: 0.5}])
def test_what_is_no_dictionary_of_metrics_is_one_error(tmp_path: Path, metrics: Any) -> None:
    run = run_of(tmp_path, metrics)
    with pytest.raises(
        TypeError, match=r"compute_metrics returned .*; expected a (dictionary of metrics by|text as its)"
    ):
        run.train()
    assert run.optimizer is None


def test_a_best_metric_that_no_evaluation_gives_is_said_before_the_first_step(tmp_path: Path) -> None:
    class NoStep(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            pytest.fail("a step was begun")

    args = TrainingArguments(**run_fields(tmp_path, {"metric_for_best_model": "f1"}))
    run = Trainer(small_model(), args, train_dataset=small_dataset(8), eval_dataset=small_dataset(8))
    run.add_callback(NoStep())
    with pytest.raises(
        ValueError, match="metric_for_best_model is 'f1'; the evaluation gives eval_accuracy, eval_loss"
    ):
        run.train()


@pytest.mark.filterwarnings("ignore:compute_metrics returned")
def test_a_best_metric_that_is_no_number_is_one_error(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"f1": [0.5, 0.5]}, metric_for_best_model="f1")
    with pytest.raises(ValueError, match=r"metric_for_best_model is 'f1', which is not a number: \[0\.5, 0\.5\]"):
        run.train()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_null_and_read_as_nan(tmp_path: Path, value: float) -> None:
    run = run_of(tmp_path, {"own": value}, metric_for_best_model="own")
    with pytest.warns(UserWarning, match="no evaluation gave a finite 'own'"):
        run.train()
    out = tmp_path / "out"
    for path in [*out.rglob("*.json"), out / "runs" / "logs" / "metrics.jsonl"]:
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(line, parse_constant=pytest.fail)
    assert strict(out / "all_results.json")["eval_own"] is None
    assert math.isnan(read_figures(out / "all_results.json")["eval_own"])
    read = [entry["eval_own"] for entry in TrainerState.load(out).log_history if "eval_own" in entry]
    assert len(read) == 2
    assert all(map(math.isnan, read))
    assert run.state.best_metric is None
    header = (out / "README.md").read_text().split("---")[1]
    assert "NaN" not in header
    assert "Infinity" not in header
    again = run_of(tmp_path, {"own": value}, metric_for_best_model="own")
    again.load_finished_run()
    assert math.isnan(again.results["eval_own"])


def test_a_run_with_nan_among_its_metrics_is_resumed(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                raise InterruptedError

    whole = run_of(tmp_path / "whole", {"own": math.nan})
    whole.train()
    cut = run_of(tmp_path, {"own": math.nan})
    cut.add_callback(Stop())
    with pytest.raises(InterruptedError):
        cut.train()
    run_of(tmp_path, {"own": math.nan}).train(resume_from_checkpoint=True)
    one, other = ((path / "out" / "model.safetensors").read_bytes() for path in (tmp_path / "whole", tmp_path))
    assert one == other


def test_plain_numbers_stay_as_they_are() -> None:
    metrics = {"a": 0.1, "b": 3, "c": 1e300}
    assert plain_metrics(metrics) == metrics


def test_what_a_user_logs_is_as_plain_as_what_is_measured(tmp_path: Path) -> None:
    class Logging(Trainer):
        def compute_loss(self, logits: Any, labels: Any, rows: Any) -> Any:
            loss, gradient = super().compute_loss(logits, labels, rows)
            self.log({"own": np.float32(0.5), "of_rows": np.array([1, 2]), "odd": object()})
            return np.float32(loss), gradient

    args = TrainingArguments(**run_fields(tmp_path, {"report_to": "all"}))
    run = Logging(small_model(), args, train_dataset=small_dataset(16), eval_dataset=small_dataset(8, seed=1))
    with pytest.warns(UserWarning, match="log was given 'odd', which JSON cannot hold"):
        run.train()
    assert strict(tmp_path / "out" / "trainer_state.json")["log_history"][0] == {
        "own": 0.5, "of_rows": [1, 2], "epoch": 0.0, "step": 0,
    }  # fmt: skip
