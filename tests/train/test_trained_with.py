"""What a model was trained with is kept with it and used by everything that reads rows for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_tokenizer
from support.small_run import (
    VOCABULARY,
    run_fields,
    sentences,
    small_config,
    small_dataset,
    small_model,
    write_model,
    write_pretrained,
    write_rows,
)

import kdistill as kd
from kdistill.cli import main as cli
from kdistill.models.config import BertConfig
from kdistill.tasks.predictions import predictions_of
from kdistill.tasks.registry import task_for

QUICK = ["--num-train-epochs", "1", "--per-device-train-batch-size", "8", "--learning-rate", "0.01", "--json"]


def figures(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[dict[str, Any], str]:
    """The figures of a command and what it wrote on standard error."""
    status = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out.splitlines()[-1]), captured.err


def record(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "config.json").read_text()).get("kdistill", {})


def write_reviews(path: Path, n: int, seed: int = 0) -> Path:
    """Rows whose columns have names that no convention knows, beside a decoy that one does."""
    lines = [f"{text},{label},{'bad ' * 9}" for text, label in sentences(n, seed)]
    path.write_text("review,stars,text\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, dict[str, Any], Path]:
    """A model trained at 5 tokens on such rows, its own evaluation, and the rows of that."""
    train, rows = write_reviews(tmp_path / "train.csv", 40), write_reviews(tmp_path / "eval.csv", 30, seed=9)
    base, output = write_pretrained(tmp_path / "base"), tmp_path / "model"
    found, said = figures(
        *(capsys, "finetune", "--model", base, "--train", train, "--eval", rows, "--output-dir", output, *QUICK),
        *("--max-length", 5, "--text-column", "review", "--label-column", "stars"),
    )
    for name, count in (("train.csv", 40), ("eval.csv", 30)):
        assert said.count(f" of {count} rows") == said.count(f"of {name}) were longer than 5 tokens") == 1
    return output, found, rows


def test_length_and_columns_are_kept_and_used_by_every_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, trained: tuple[Path, dict[str, Any], Path]
) -> None:
    model, own, rows = trained
    assert record(model) == {"max_length": 5, "text_column": "review", "label_column": "stars"}
    found, said = figures(capsys, "evaluate", "--model", model, "--data", rows, "--json")
    assert (found["loss"], found["accuracy"]) == (own["eval_loss"], own["eval_accuracy"])
    assert said.count("were longer than 5 tokens and truncated") == 1
    out = ["--output", tmp_path / "out.tsv", "--digits", 17]
    figures(capsys, "predict", "--model", model, "--data", rows, *out, "--json")
    classify = kd.pipeline(model=model, truncation=True)
    texts = [line.split(",")[0] for line in rows.read_text().splitlines()[1:]]
    lines = (tmp_path / "out.tsv").read_text().splitlines()[1:]
    predicted = [line.split("\t")[1] for line in lines]
    assert predicted == [result["label"] for result in classify(texts)]
    best = [max(map(float, line.split("\t")[2:4])) for line in lines]
    assert [result["score"] for result in classify(texts)] == pytest.approx(best, rel=1e-6)
    assert "of 30 rows" in figures(capsys, "bench", "--model", model, "--data", rows, "--rows", 8, "--json")[1]
    report, _ = figures(capsys, "report", "--model", model, "--holdout", rows, "--json")
    assert report["holdout"]["loss"] == own["eval_loss"]


def test_given_arguments_win_and_the_difference_is_said(
    capsys: pytest.CaptureFixture[str], trained: tuple[Path, dict[str, Any], Path]
) -> None:
    model, own, rows = trained
    found, said = figures(capsys, "evaluate", "--model", model, "--data", rows, "--json", "--max-length", 16)
    assert found["loss"] != own["eval_loss"]
    assert said.count("--max-length is 16; the model was trained with 5") == 1
    found, said = figures(capsys, "evaluate", "--model", model, "--data", rows, "--json", "--text-column", "text")
    assert found["loss"] != own["eval_loss"]
    assert "--text-column is 'text'; the model was trained with 'review'" in said
    with pytest.warns(UserWarning, match="max_length is 7; the model was trained with 5"):
        kd.pipeline(model=model)("good film", max_length=7)


def test_rows_without_the_columns_of_the_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, trained: tuple[Path, dict[str, Any], Path]
) -> None:
    found, said = figures(
        capsys, "evaluate", "--model", trained[0], "--data", write_rows(tmp_path / "other.tsv", 30, seed=9), "--json"
    )
    assert found["loss"] == trained[1]["eval_loss"]  # the same texts and labels under other names
    assert re.search("was trained on the column review, which .*other.tsv lacks; sentence is read", said)
    assert re.search("was trained on the column stars, which .*other.tsv lacks; label is read", said)


def test_a_student_reads_as_its_teacher(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, trained: tuple[Path, dict[str, Any], Path]
) -> None:
    teacher, _, rows = trained
    for name, student in (("shape", "L1-H16-A2"), ("checkpoint", write_model(tmp_path / "student", 5))):
        output = tmp_path / name
        words = ("--teacher", teacher, "--student", student, "--train", rows, "--eval", rows, "--output-dir", output)
        figures(capsys, "distill", *words, *QUICK)
        assert record(output) == record(teacher)


def test_teacher_and_student_that_differ(tmp_path: Path) -> None:
    teacher, student = small_model(1), small_model(2)
    teacher.config = teacher.config.replace(extra={"kdistill": {"max_length": 9, "threshold": 0.3}})
    student.config = student.config.replace(extra={"kdistill": {"max_length": 7}})
    with pytest.warns(UserWarning, match="student was trained with max_length 7 and the teacher with 9"):
        trainer = kd.DistillationTrainer(student, teacher_model=teacher)
    assert trainer.model.config.extra["kdistill"] == {"max_length": 7}
    made = kd.BertForSequenceClassification.from_teacher(teacher, teacher.config)
    assert made.config.extra["kdistill"] == {"max_length": 9}


def test_a_command_warns_once_of_a_teacher_that_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed, length in (("teacher", 1, 9), ("student", 2, 7)):
        model = kd.BertForSequenceClassification.from_pretrained(write_model(tmp_path / name, seed=seed))
        model.config = model.config.replace(extra={"kdistill": {"max_length": length}})
        model.save_pretrained(tmp_path / name)
    rows = write_rows(tmp_path / "rows.tsv", 16)
    words = ("--teacher", tmp_path / "teacher", "--student", tmp_path / "student", "--train", rows, "--eval", rows)
    _, said = figures(capsys, "distill", *words, "--output-dir", tmp_path / "out", *QUICK)
    assert said.count("student was trained with max_length 7 and the teacher with 9") == 1


COLUMNS = {"text_column": "sentence1", "text_pair_column": "sentence2", "label_column": "score"}


def write_trained(directory: Path, kind: Any, **record: Any) -> Path:
    """The directory of a model that was trained with this, with a tokenizer; an encoder embeds texts."""
    tags = {0: "LABEL_0", 1: "LABEL_1"} if kind is kd.BertModel else {0: "O", 1: "B-thing", 2: "I-thing"}
    model = kind(small_config(id2label=tags, extra={"kdistill": record}), seed=1)
    (model.with_pooling("mean") if kind is kd.BertModel else model).save_pretrained(directory)
    question_tokenizer(directory)
    return directory


@pytest.mark.filterwarnings("ignore:.*initialised at random", "ignore:.*tensors that this model does not use")
def test_the_columns_of_another_task_are_not_kept(tmp_path: Path) -> None:
    embedder = write_trained(tmp_path / "embedder", kd.BertModel, max_length=9, **COLUMNS)
    assert kd.AutoModel.from_pretrained(embedder).config.trained_with.given() == {"max_length": 9, **COLUMNS}
    assert kd.AutoConfig.from_pretrained(embedder).trained_with.given() == {"max_length": 9, **COLUMNS}
    for auto in (kd.AutoModelForTokenClassification, kd.AutoModelForSequenceClassification):
        assert auto.from_pretrained(embedder).config.trained_with.given() == {"max_length": 9}
    language_model = write_trained(tmp_path / "lm", kd.BertForMaskedLM, text_column="review")  # it begins any task
    begun = kd.AutoModelForSequenceClassification.from_pretrained(language_model)
    assert begun.config.trained_with.given() == {"text_column": "review"}


def test_an_embedder_that_begins_to_tag_reads_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = write_trained(tmp_path / "student", kd.BertModel, **COLUMNS)
    columns = {"text_column": "tokens", "label_column": "tags"}
    teacher = write_trained(tmp_path / "teacher", kd.BertForTokenClassification, **columns)
    rows = [{"tokens": ["good", "film"], "tags": ["O", "B-thing"], "sentence1": ["bad"], "score": ["O"]}] * 8
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command in (["distill", "--teacher", teacher, "--student"], ["finetune", "--model"]):
        words = [*command, student, "--train", tmp_path / "rows.jsonl", "--output-dir", tmp_path / command[0]]
        _, said = figures(capsys, *words, *QUICK)
        assert "was trained" not in said
        assert {name: of for name, of in record(tmp_path / command[0]).items() if "column" in name} == columns


def test_a_trainer_of_a_saved_model_cuts_as_its_training(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    tokenizer, rows = kd.AutoTokenizer.from_pretrained(tmp_path), write_rows(tmp_path / "rows.tsv", 20)
    args = kd.TrainingArguments(**run_fields(tmp_path, {"max_length": 5, "num_train_epochs": 1, "eval_strategy": "no"}))
    with pytest.warns(UserWarning, match="were longer than 5 tokens"):
        kd.Trainer(small_model(), args, train_dataset=rows, processing_class=tokenizer).train()
    again = kd.Trainer(
        kd.BertForSequenceClassification.from_pretrained(tmp_path / "out"),
        kd.TrainingArguments(**run_fields(tmp_path, {})),
        processing_class=tokenizer,
    )
    with pytest.warns(UserWarning, match="were longer than 5 tokens"):
        assert again.predict(rows).predictions.shape == (20, 2)


def test_tokenized_rows_are_not_cut_and_this_is_said(tmp_path: Path) -> None:
    rows = small_dataset(20)
    longer = int((rows.lengths > 5).sum())
    args = kd.TrainingArguments(**run_fields(tmp_path, {"max_length": 5, "num_train_epochs": 1, "eval_strategy": "no"}))
    with pytest.warns(
        UserWarning, match=rf"{longer} of 20 rows .* longer than max_length 5: rows that are already tokenized"
    ):
        trainer = kd.Trainer(small_model(), args, train_dataset=rows)
    trainer.train()
    assert "kdistill" not in trainer.model.config.extra


def test_a_training_on_one_label_a_row_states_its_problem_type(tmp_path: Path) -> None:
    args = kd.TrainingArguments(**run_fields(tmp_path, {"num_train_epochs": 1, "eval_strategy": "no"}))
    kd.Trainer(small_model(), args, train_dataset=small_dataset(16)).train()
    saved = kd.BertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert saved.config.problem_type == "single_label_classification"


def test_runs_of_older_versions_without_a_problem_type_are_resumed(tmp_path: Path) -> None:
    def trainer() -> kd.Trainer:
        args = kd.TrainingArguments(**run_fields(tmp_path, {"eval_strategy": "no"}))
        return kd.Trainer(small_model(), args, train_dataset=small_dataset(16))

    trainer().train()
    config = tmp_path / "out" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"problem_type": None}))
    again = trainer()
    again.train(resume_from_checkpoint=True)
    assert again.results["train_loss"] > 0


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        (["a"], "'kdistill' is a list; expected a dict"),
        ({"max_length": "128"}, "'max_length' under 'kdistill' is '128'; expected a whole number of at least 3"),
        ({"max_length": True}, "'max_length' under 'kdistill' is True"),
        ({"text_column": 3}, "'text_column' under 'kdistill' is 3; expected the name of a column"),
        ({"label_column": ""}, "'label_column' under"),
        ({"threshold_rows": "x"}, "'threshold_rows' under 'kdistill' is 'x'; expected 'evaluation' or 'training'"),
        ({"threshold": 1}, "'threshold' under 'kdistill' is 1; expected a probability between 0 and 1"),
    ],
)
def test_a_wrong_value_is_ignored_with_a_warning(stored: Any, fault: str) -> None:
    content = {**small_config().to_dict(), "kdistill": stored}
    with pytest.warns(UserWarning, match=f"{fault}.*ignored"):
        config = BertConfig.from_dict(content)
    assert config.trained_with.given() == {}


def test_a_classifier_keeps_nothing_that_only_other_heads_use(tmp_path: Path) -> None:
    stored = {"max_length": 16, "doc_stride": 2, "n_best": 5, "max_answer_length": 4, "no_answers": True}
    args = kd.TrainingArguments(**run_fields(tmp_path, {"max_steps": 1, "doc_stride": 3, "eval_strategy": "no"}))
    texts, labels = zip(*sentences(8), strict=True)
    with pytest.warns(UserWarning, match="doc_stride has no effect here"):
        trainer = kd.Trainer(
            small_model(extra={"kdistill": stored}),
            args,
            train_dataset={"text": list(texts), "label": list(labels)},
            processing_class=question_tokenizer(tmp_path),
        )
    trainer.train()
    assert record(tmp_path / "out") == {"max_length": 16, "text_column": "text", "label_column": "label"}


def test_unknown_keys_are_kept(tmp_path: Path) -> None:
    stored = {"max_length": 9, "of_a_later_version": [1]}
    small_model(extra={"kdistill": stored}).save_pretrained(tmp_path)
    model = kd.BertForSequenceClassification.from_pretrained(tmp_path)
    model.config = model.config.replace(hidden_dropout_prob=0.0)
    model.save_pretrained(tmp_path / "again")
    assert record(tmp_path / "again") == stored


def test_a_threshold_decides_which_labels_are_predicted(tmp_path: Path) -> None:
    rows = [{"input_ids": [2, word, 3]} for word in range(5, 13)]
    model = small_model(1, problem_type="multi_label_classification")
    trainer = kd.Trainer(model)
    probabilities = 1 / (1 + np.exp(-trainer.predict(rows).predictions.astype(np.float64)))
    ordered = np.sort(probabilities, axis=None)
    above = np.searchsorted(ordered, 0.5)
    threshold = float(ordered[above:].mean() if above < len(ordered) else ordered.mean())
    labels = (probabilities > threshold).astype(float).tolist()
    labelled = [{**row, "labels": of} for row, of in zip(rows, labels, strict=True)]
    assert trainer.evaluate(labelled)["eval_accuracy"] < 1
    model.config = model.config.replace(extra={"kdistill": {"threshold": threshold}})
    assert trainer.evaluate(labelled)["eval_accuracy"] == 1
    with (tmp_path / "out.tsv").open("w") as file:
        predictions_of(task_for(model.config), trainer.predict(rows).predictions, ["a", "b"]).write_tsv(file)
    predicted = [line.split("\t")[1] for line in (tmp_path / "out.tsv").read_text().splitlines()[1:]]
    named = [",".join(name for name, p in zip("ab", of, strict=True) if p > threshold) for of in probabilities]
    assert predicted == named
