"""The threshold of several labels: chosen on data while training, kept with the model, used by all that measures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_run import LABELS, run_fields, small_dataset, small_model, write_model

import kdistill as kd
from kdistill.cli import main as cli
from kdistill.data.dataset import Dataset
from kdistill.metrics.classification import micro
from kdistill.models.config import BertConfig
from kdistill.models.trained_with import TrainedWith
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.trainers import DistillationTrainer, Trainer

MULTI = "multi_label_classification"
pytestmark = pytest.mark.filterwarnings("ignore:the teacher's")


def rare_labels(rows: int = 48, seed: int = 0) -> Dataset:
    """Rows of which one in four with a good word has the first label, and one in eight the second."""
    dataset = small_dataset(rows, seed)
    order = np.arange(rows)
    labels = np.stack([order % 8 == 1, order % 8 == 3], axis=1).astype(np.float32)
    return Dataset(dataset.ids, dataset.types, dataset.starts, labels)


def run(directory: Path, evaluated: bool = True, callbacks: Any = None, **changes: Any) -> Trainer:
    never = {} if evaluated else {"eval_strategy": "no"}
    trainer = Trainer(
        small_model(problem_type=MULTI),
        TrainingArguments(**run_fields(directory, {"learning_rate": 0.003} | never | changes)),
        train_dataset=rare_labels(),
        eval_dataset=rare_labels(32, 1) if evaluated else None,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer


def f1_micro(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float(2 * (said & true).sum() / (said.sum() + true.sum()))


def best_f1(trainer: Trainer, rows: Dataset) -> tuple[float, float]:
    """The best F1 of any threshold, tried one by one, and the F1 at that of the model."""
    logits = trainer.model.forward(rows.batch(np.arange(len(rows)))[0]).astype(np.float64)
    probabilities, true = 1 / (1 + np.exp(-logits)), rows.labels == 1
    kept = trainer.model.config.trained_with.threshold
    tried = [0.0, *np.unique(probabilities).tolist()]
    return max(micro("f1", probabilities > t, true) for t in tried), micro("f1", probabilities > kept, true)


def kept(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())["kdistill"]
    return {name: value for name, value in config.items() if name.startswith("threshold")}


def test_a_run_keeps_the_best_threshold_of_its_evaluation_rows(tmp_path: Path) -> None:
    trainer = run(tmp_path)
    best, found = best_f1(trainer, rare_labels(32, 1))
    assert found == best > 0
    results = json.loads((tmp_path / "out/all_results.json").read_text())
    assert results["eval_f1"] == best == trainer.evaluate()["eval_f1"]
    assert results["eval_threshold"] == results["threshold"] != 0.5
    assert results["threshold_rows"] == "evaluation"
    assert kept(tmp_path / "out") == {"threshold": results["threshold"], "threshold_rows": "evaluation"}
    card = (tmp_path / "out/README.md").read_text()
    assert "has the best micro F1 on them, which flatters the figures slightly" in card
    assert f"{results['threshold']:.4f}" in card


def test_a_run_without_evaluation_rows_chooses_on_training_rows(tmp_path: Path) -> None:
    trainer = run(tmp_path, evaluated=False)
    best, found = best_f1(trainer, rare_labels())
    assert found == best > 0
    assert kept(tmp_path / "out")["threshold_rows"] == "training"
    assert "eval_f1" not in trainer.results
    assert trainer.results["threshold"] == kept(tmp_path / "out")["threshold"]
    assert "has the best micro F1 on training rows" in (tmp_path / "out/README.md").read_text()


def test_weights_that_no_evaluation_saw_get_their_threshold_at_the_end(tmp_path: Path) -> None:
    trainer = run(tmp_path, eval_strategy="steps", eval_steps=5, load_best_model_at_end=False, save_strategy="no")
    assert trainer.state.global_step % 5
    best, found = best_f1(trainer, rare_labels(32, 1))
    assert found == best
    assert kept(tmp_path / "out")["threshold_rows"] == "evaluation"


def test_the_best_checkpoint_has_the_threshold_of_its_evaluation(tmp_path: Path) -> None:
    trainer = run(tmp_path, num_train_epochs=6, learning_rate=0.02)
    at_best = [
        entry["eval_threshold"]
        for entry in trainer.state.log_history
        if entry["step"] == trainer.state.best_global_step and "eval_threshold" in entry
    ]
    assert [kept(tmp_path / "out")["threshold"]] == at_best
    assert kept(Path(trainer.state.best_model_checkpoint or "")) == kept(tmp_path / "out")
    thresholds = {entry["eval_threshold"] for entry in trainer.state.log_history if "eval_threshold" in entry}
    assert len(thresholds) > 1


class Stop(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 9:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_threshold(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "halves", callbacks=[Stop()])
    args = TrainingArguments(**run_fields(tmp_path / "halves", {"learning_rate": 0.003}))
    rows = {"train_dataset": rare_labels(), "eval_dataset": rare_labels(32, 1)}
    resumed = Trainer(small_model(problem_type=MULTI), args, **rows)
    resumed.train(resume_from_checkpoint=True)
    assert kept(tmp_path / "halves/out") == kept(tmp_path / "whole/out")
    assert resumed.results["eval_f1"] == whole.results["eval_f1"]
    finished = Trainer(small_model(problem_type=MULTI), args, **rows)
    finished.load_finished_run()
    assert finished.evaluate()["eval_f1"] == whole.results["eval_f1"]


def test_a_given_threshold_is_kept(tmp_path: Path) -> None:
    trainer = run(tmp_path, threshold=0.125)
    assert kept(tmp_path / "out") == {"threshold": 0.125}
    assert "eval_threshold" not in trainer.results
    assert trainer.results["threshold"] == 0.125


def test_training_forgets_the_threshold_of_the_weights_that_it_began_with(tmp_path: Path) -> None:
    model = small_model(problem_type=MULTI)
    model.config = model.config.with_trained(TrainedWith(threshold=0.99))
    args = TrainingArguments(**run_fields(tmp_path, {"max_steps": 1}))
    trainer = Trainer(model, args, train_dataset=rare_labels(), eval_dataset=rare_labels(32, 1))
    with pytest.warns(UserWarning, match="all 32 predictions are empty"):
        assert trainer.evaluate()["eval_f1"] == 0
    trainer.train()
    best, found = best_f1(trainer, rare_labels(32, 1))
    assert found == best > 0


def test_a_student_chooses_its_own_threshold(tmp_path: Path) -> None:
    teacher = small_model(2, problem_type=MULTI)
    teacher.config = teacher.config.with_trained(TrainedWith(threshold=0.01))
    args = DistillationTrainingArguments(**run_fields(tmp_path, {"teacher_cache": False}))
    rows = {"train_dataset": rare_labels(), "eval_dataset": rare_labels(32, 1)}
    trainer = DistillationTrainer(small_model(problem_type=MULTI), args, teacher_model=teacher, **rows)
    trainer.train()
    best, found = best_f1(trainer, rare_labels(32, 1))
    assert found == best
    assert trainer.teacher_metrics["threshold"] == 0.01


@pytest.mark.filterwarnings("ignore:all 32 predictions are empty")
def test_a_teacher_without_a_threshold_is_measured_as_its_student(tmp_path: Path) -> None:
    """At the best threshold for the evaluation rows, or at 0.5 where the student's is given."""
    teacher, rows = small_model(2, problem_type=MULTI), rare_labels(32, 1)
    probabilities = 1 / (1 + np.exp(-teacher.forward(rows.batch(np.arange(32))[0]).astype(np.float64)))
    true, found = rows.labels == 1, {}
    for threshold in (None, 0.5):
        fields = {"teacher_cache": False, "max_steps": 1, "threshold": threshold}
        args = DistillationTrainingArguments(**run_fields(tmp_path / str(threshold), fields))
        model = small_model(problem_type=MULTI)
        trainer = DistillationTrainer(model, args, teacher_model=teacher, train_dataset=rows, eval_dataset=rows)
        trainer.train()
        found[threshold] = trainer.teacher_metrics
    assert found[None]["f1"] == max(micro("f1", probabilities > t, true) for t in [0.0, *probabilities.ravel()])
    assert found[0.5]["f1"] == micro("f1", probabilities > 0.5, true)
    card = (tmp_path / "None/out/README.md").read_text()
    assert "and the teacher's is chosen likewise" in card
    assert f"| {found[None]['f1']:.4f} |" in card


def test_metrics_by_name_are_at_the_same_threshold(tmp_path: Path) -> None:
    trainer = Trainer(
        small_model(problem_type=MULTI),
        TrainingArguments(**run_fields(tmp_path, {"learning_rate": 0.003, "metric_for_best_model": "f1_micro"})),
        train_dataset=rare_labels(),
        eval_dataset=rare_labels(32, 1),
        compute_metrics=kd.choose_metrics("f1_micro"),
    )
    trainer.train()
    evaluations = [entry for entry in trainer.state.log_history if "eval_f1" in entry]
    assert all(entry["eval_f1_micro"] == entry["eval_f1"] > 0 for entry in evaluations)
    assert trainer.evaluate()["eval_f1_micro"] == trainer.results["eval_f1"]


def test_other_evaluation_sets_are_measured_at_the_threshold_of_the_main_one(tmp_path: Path) -> None:
    sets = {"other": rare_labels(24, 5), "main": rare_labels(32, 1)}
    args = TrainingArguments(
        **run_fields(tmp_path, {"learning_rate": 0.003, "metric_for_best_model": "main_average_precision"})
    )
    trainer = Trainer(small_model(problem_type=MULTI), args, train_dataset=rare_labels(), eval_dataset=sets)
    trainer.train()
    assert trainer.results["eval_main_threshold"] == trainer.model.config.trained_with.threshold
    assert "eval_other_threshold" not in trainer.results
    assert trainer.evaluate()["eval_other_f1"] == trainer.results["eval_other_f1"]


def test_the_best_weights_of_several_labels_have_the_best_average_precision(tmp_path: Path) -> None:
    trainer = run(tmp_path, num_train_epochs=4)
    evaluations = [entry for entry in trainer.state.log_history if "eval_f1" in entry]
    assert trainer.args.metric_for_best_model == "average_precision"
    assert trainer.state.best_metric == max(entry["eval_average_precision"] for entry in evaluations)
    assert all("eval_top_1" in entry for entry in evaluations)


@pytest.mark.parametrize("threshold", [0, 1, -0.5, float("nan"), "a", True])
def test_thresholds_that_cannot_be(threshold: Any) -> None:
    message = f"threshold is {threshold!r}; expected a probability between 0 and 1"
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingArguments("x", threshold=threshold)


def test_a_threshold_for_a_model_without_one(tmp_path: Path) -> None:
    args = TrainingArguments(**run_fields(tmp_path, {"threshold": 0.3, "eval_strategy": "no"}))
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(16))
    expected = r"threshold is 0\.3 for a model for single_label_classification; expected no threshold \(in Python"
    for call in (trainer.train, lambda: trainer.evaluate(small_dataset(8))):
        with pytest.raises(ValueError, match=expected):
            call()


def write_topics(path: Path, probabilities: NDArray[Any] | None = None) -> Path:
    rows = [{"text": text, "labels": ["positive"] if "good" in text else []} for text in ("good film", "bad plot")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_commands_measure_at_the_threshold_that_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model", problem_type=MULTI), write_topics(tmp_path / "rows.jsonl")
    options = ["--model", str(model), "--data", str(rows)]
    assert cli.main(["evaluate", *options, "--threshold", "0.9999", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["f1"] == 0
    assert re.search(
        r"all 2 predictions are empty: the highest probability is 0\.\d+, and a label needs more than the threshold, "
        r"0\.9999; choose another with --threshold",
        captured.err,
    )
    assert cli.main(["evaluate", *options, "--threshold", "0.0001", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["f1"] == 2 * 1 / (4 + 1)
    assert "empty" not in captured.err
    assert cli.main(["predict", *options, "--threshold", "0.0001"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in lines[1:3]] == [",".join(LABELS.values())] * 2
    assert cli.main(["evaluate", *options, "--threshold", "1.5"]) == 2
    assert "threshold is 1.5; expected a probability between 0 and 1" in capsys.readouterr().err


def test_a_report_at_another_threshold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model", problem_type=MULTI), write_topics(tmp_path / "rows.jsonl")
    run = ["finetune", "--model", model, "--train", rows, "--eval", rows, "--output-dir", tmp_path / "out", "--json"]
    assert cli.main([*map(str, run), "--num-train-epochs", "1"]) == 0
    before = BertConfig.from_pretrained(tmp_path / "out").trained_with.threshold
    capsys.readouterr()
    report = ["report", "--model", str(tmp_path / "out"), "--json"]
    assert cli.main([*report, "--threshold", "0.0001"]) == 0
    assert json.loads(capsys.readouterr().out)["f1"] == 2 * 1 / (4 + 1)
    assert BertConfig.from_pretrained(tmp_path / "out").trained_with.threshold == before
    assert cli.main([*report, "--threshold", "0"]) == 2
    assert "--threshold is 0.0; expected a probability between 0 and 1" in capsys.readouterr().err
