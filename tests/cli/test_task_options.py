"""Regression and multi-label classification through the command line, and the options that ask for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import (
    run_fields,
    sentences,
    small_dataset,
    small_model,
    write_model,
    write_pretrained,
    write_rows,
)

import kdistill as kd
from kdistill.cli import main as cli
from kdistill.cli.task import TaskOptions, labels_to_learn
from kdistill.data.columns import read_rows
from kdistill.train.arguments import TrainingArguments
from kdistill.trainers import Trainer

QUICK = ["--num-train-epochs", "2", "--per-device-train-batch-size", "8", "--learning-rate", "0.01", "--json"]
NAMES = ("long", "praise", "verb")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A pretrained model whose labels have no names and whose file has no classifier."""
    return write_pretrained(tmp_path / "base")


def figures(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    status = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out.splitlines()[-1])


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert cli.main([str(word) for word in words]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "warning" not in line)
    return line


def write_tasks(directory: Path) -> dict[str, Path]:
    """The same texts with a number each, with a list of labels, and with 0.0 or 1.0 for each label."""
    rows = []
    for text, praised in sentences(24):
        given = [name for name, has in zip(NAMES, (len(text) > 20, praised, False), strict=True) if has]
        rows.append((text, given, round(0.4 + praised * 2.2, 1)))
    paths = {name: directory / name for name in ("scores.csv", "lists.jsonl", "lists.csv", "vectors.jsonl")}
    paths["scores.csv"].write_text("text,label\n" + "".join(f"{text},{score}\n" for text, _, score in rows))
    paths["lists.jsonl"].write_text("".join(json.dumps({"text": t, "labels": g}) + "\n" for t, g, _ in rows))
    paths["lists.csv"].write_text("text,label\n" + "".join(f'{text},"{given}"\n' for text, given, _ in rows))
    vectors = ((text, [float(name in given) for name in NAMES]) for text, given, _ in rows)
    paths["vectors.jsonl"].write_text("".join(json.dumps({"text": t, "labels": v}) + "\n" for t, v in vectors))
    return paths


def test_regression_from_files(capsys: pytest.CaptureFixture[str], tmp_path: Path, base: Path) -> None:
    scores = write_tasks(tmp_path)["scores.csv"]
    teacher, student, predicted = tmp_path / "teacher", tmp_path / "student", tmp_path / "predicted.tsv"
    rows = ["--train", scores, "--eval", scores]
    finetune = ["finetune", "--model", base, *rows, *QUICK]
    message = error_of(capsys, *finetune, "--output-dir", tmp_path / "refused")
    assert "scores.csv has numbers such as 0.4 for labels" in message
    assert "--problem-type regression" in message
    taught = figures(capsys, *finetune, "--problem-type", "regression", "--output-dir", teacher)
    assert {"eval_mse", "eval_pearson", "eval_spearmanr", "eval_loss"} <= taught.keys()
    config = json.loads((teacher / "config.json").read_text())
    assert (config["problem_type"], config["id2label"]) == ("regression", {"0": "LABEL_0"})
    arguments = json.loads((teacher / "training_args.json").read_text())
    assert (arguments["metric_for_best_model"], arguments["greater_is_better"]) == ("loss", False)

    distill = ["distill", "--teacher", teacher, "--student", "L1-H8-A2", *rows, *QUICK, "--output-dir", student]
    best = ["--metric-for-best-model", "pearson"]
    learned = figures(capsys, *distill, *best)
    measured = figures(capsys, "evaluate", "--model", student, "--data", scores, "--metrics", "mse", "--json")
    assert measured["mse"] == learned["eval_mse"]
    figures(capsys, "predict", "--model", student, "--data", scores, "--output", predicted, "--json")
    numbers = np.array([float(line.split("\t")[1]) for line in predicted.read_text().splitlines()[1:]])
    labels = np.array([float(line.split(",")[1]) for line in scores.read_text().splitlines()[1:]])
    assert np.mean((numbers - labels) ** 2) == pytest.approx(measured["mse"], rel=1e-5)
    history = json.loads((student / "trainer_state.json").read_text())["log_history"]
    assert learned["eval_pearson"] == max(entry["eval_pearson"] for entry in history if "eval_pearson" in entry)


@pytest.mark.parametrize("name", ["lists.jsonl", "lists.csv", "vectors.jsonl"])
def test_several_labels_from_files(capsys: pytest.CaptureFixture[str], tmp_path: Path, base: Path, name: str) -> None:
    rows = write_tasks(tmp_path)[name]
    vectors = name == "vectors.jsonl"
    finetune = ["finetune", "--model", base, "--train", rows, "--eval", rows, "--output-dir", tmp_path / "teacher"]
    # Nobody names the label that no row has, but in lists of 0.0 and 1.0 it has a place.
    task = [] if vectors else ["--label-names", ",".join(NAMES)]
    taught = figures(capsys, *finetune, *task, "--metrics", "f1_macro,f1_micro", *QUICK)
    assert taught["eval_f1"] == taught["eval_f1_micro"]
    assert "eval_f1_macro" in taught
    config = json.loads((tmp_path / "teacher" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert list(config["id2label"].values()) == ([f"LABEL_{i}" for i in range(3)] if vectors else list(NAMES))
    unlabelled = tmp_path / "unlabelled.csv"
    unlabelled.write_text("text\n" + "".join(f"{text}\n" for text, _ in sentences(24)))
    distill = ["distill", "--teacher", tmp_path / "teacher", "--student", "L1-H8-A2", "--train", unlabelled]
    words = [*distill, "--eval", rows, "--num-labels", "3", "--problem-type", "multi_label_classification", *QUICK]
    learned = figures(capsys, *words, "--metric-for-best-model", "f1_macro", "--output-dir", tmp_path / "student")
    assert {"eval_accuracy", "eval_f1", "eval_f1_macro"} <= learned.keys()
    measured = figures(capsys, "evaluate", "--model", tmp_path / "student", "--data", rows, "--json")
    assert (measured["f1"], measured["loss"]) == (learned["eval_f1"], learned["eval_loss"])


def test_options_that_do_not_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path, base: Path) -> None:
    paths = write_tasks(tmp_path)
    teacher = write_model(tmp_path / "teacher", problem_type="regression", id2label={0: "score"})
    out = ["--output-dir", tmp_path / "out"]
    distill = ["distill", "--teacher", teacher, "--student", "L1-H8-A2", "--train", paths["scores.csv"], *out]
    assert "--num-labels is 3; the teacher has 1" in error_of(capsys, *distill, "--num-labels", "3")
    message = error_of(capsys, *distill, "--problem-type", "single_label_classification")
    assert "--problem-type is single_label_classification; that of the teacher is regression" in message
    assert "the metric 'f1' is not one of a model for regression; expected one of mse" in error_of(
        capsys, *distill, "--metrics", "f1"
    )
    assert "--metric-for-best-model is 'accuracy'; expected for regression one of loss, mse" in error_of(
        capsys, *distill, "--metric-for-best-model", "accuracy"
    )
    message = error_of(capsys, *distill, "--metric-for-best-model", "aucc")
    assert "--metric-for-best-model is 'aucc'; expected for regression one of loss, mse, pearson, spearmanr" in message
    evaluate = ["evaluate", "--model", teacher, "--data", paths["scores.csv"]]
    assert "there is no metric 'auc'" in error_of(capsys, *evaluate, "--metrics", "auc")
    finetune = ["finetune", "--model", base, "--train", paths["lists.csv"], *out]
    assert "--num-labels is 0" in error_of(capsys, *finetune, "--num-labels", "0")
    assert "--num-labels is 4, and" in error_of(capsys, *finetune, "--num-labels", "4")
    assert "--label-names has 2 names" in error_of(capsys, *finetune, "--num-labels", "4", "--label-names", "a,b")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("label", "--teacher", "{model}", "--output", "{out}.jsonl"), ("doc-stride",)),
        (("quantize", "--model", "{model}", "--output", "{out}"), ("doc-stride", "mlm-probability")),
        (("prune", "--model", "{model}", "--output", "{out}", "--layers", "0"), ("doc-stride",)),
    ],
    ids=lambda value: value[0],
)
def test_options_that_only_other_models_use_are_warned_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], names: tuple[str, ...]
) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 8)
    command = [word.format(model=model, out=tmp_path / "out") for word in words] + ["--data", str(rows)]
    given = [word for name, value in zip(names, ("4", "0.3"), strict=False) for word in (f"--{name}", value)]
    assert cli.main([*command, *given]) == 0
    said = capsys.readouterr().err
    for name in names:
        assert f"--{name} has no effect here: the model is one for sequence-classification, and only models" in said


def test_labels_to_learn() -> None:
    three = kd.BertConfig(num_labels=3)
    named = kd.BertConfig(id2label={0: "negative", 1: "positive"})
    ids, names = (read_rows({"text": ["x", "y"], "label": labels}) for labels in ([0, 1], ["b", "a"]))

    def learned(config: kd.BertConfig, rows: Any, *, replace: bool = False, **options: Any) -> list[str] | None:
        labels = labels_to_learn(config, TaskOptions(**options), lambda: rows, replace=replace)
        return None if labels is None else [labels[index] for index in range(len(labels))]

    assert learned(three, ids) is None
    assert learned(three, ids, num_labels=2) == ["LABEL_0", "LABEL_1"]
    assert learned(three, names) == ["a", "b"]
    assert learned(named, names) is None
    assert learned(named, names, replace=True) == ["a", "b"]
    assert learned(named, ids, num_labels=4) == [f"LABEL_{index}" for index in range(4)]
    assert learned(named, ids, num_labels=1) == ["LABEL_0"]
    assert learned(named, ids, problem_type="regression", num_labels=3) == [f"LABEL_{index}" for index in range(3)]
    score = kd.BertConfig(id2label={0: "score"})
    assert learned(score, ids) is None
    assert learned(score, ids, problem_type="regression") is None


def test_the_best_of_a_regression_is_the_smallest_loss_unless_said_otherwise(tmp_path: Path) -> None:
    args = TrainingArguments(**run_fields(tmp_path, {}))
    assert (args.metric_for_best_model, args.greater_is_better) == ("accuracy", True)
    Trainer(small_model(id2label={0: "score"}), args)
    assert (args.metric_for_best_model, args.greater_is_better) == ("loss", False)
    Trainer(small_model(), args)
    assert (args.metric_for_best_model, args.greater_is_better) == ("accuracy", True)

    rows = [{"input_ids": [2, 5, 3], "label": 0.5}, {"input_ids": [2, 7, 3], "label": 1.5}]
    stated = TrainingArguments(**run_fields(tmp_path, {"metric_for_best_model": "accuracy"}))
    trainer = Trainer(small_model(id2label={0: "score"}), stated, train_dataset=rows, eval_dataset=rows)
    with pytest.raises(ValueError, match="metric_for_best_model is 'accuracy'; the evaluation gives eval_mse"):
        trainer.train()


def test_arguments_of_transformers_trainer_that_are_none_here() -> None:
    def loss(outputs: object, labels: object) -> None: ...

    model = small_model()
    Trainer(model, train_dataset=small_dataset(4), optimizers=(None, None), compute_loss_func=None)
    for name, value, advice in (
        ("optimizers", (object(), None), "weight_decay, adam_beta1, adam_beta2, adam_epsilon.*lr_scheduler_type"),
        ("optimizer_cls_and_kwargs", (object, {}), "the optimiser is AdamW"),
        ("compute_loss_func", loss, r"override compute_loss\(logits, labels, rows\)"),
        ("preprocess_logits_for_metrics", loss, "compute_metrics receives the logits of all rows"),
        ("evaldataset", [], "no argument 'evaldataset'; did you mean 'eval_dataset'"),
    ):
        for trainer in (Trainer, kd.DistillationTrainer):
            teacher = {} if trainer is Trainer else {"teacher_model": small_model(2)}
            with pytest.raises(TypeError, match=f"{name}.*{advice}" if name != "evaldataset" else advice):
                trainer(model, **teacher, **{name: value})


def test_what_a_trainer_is_not_given_as_a_path() -> None:
    model: Any = small_model()
    for trainer, given, message in (
        (Trainer, {"model": "student"}, "model is 'student'; expected a model of kdistill: AutoModelForSequence"),
        (Trainer, {"model": model, "args": "out"}, "args is 'out'; expected kdistill's TrainingArguments"),
        (
            Trainer,
            {"model": model, "processing_class": "student"},
            "processing_class is 'student'; expected a tokenizer of kdistill",
        ),
        (
            kd.DistillationTrainer,
            {"model": model, "teacher_model": "t"},
            "teacher_model is 't'; expected a model of kdistill",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            trainer(**given)
