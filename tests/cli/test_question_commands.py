"""The commands for models that answer questions: from SQuAD's file to a student and to answers as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_questions import questions
from support.small_run import write_pretrained

import kdistill as kd
from kdistill.cli.main import main

SHORT = ["--max-length", "10", "--doc-stride", "2", "--num-train-epochs", "1"]


def squad(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as SQuAD 2.0 writes them, an article for each."""
    articles = []
    for row in rows:
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        found = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
        question = {"id": row["id"], "question": row["question"], "answers": found, "is_impossible": not found}
        articles.append({"title": "x", "paragraphs": [{"context": row["context"], "qas": [question]}]})
    return {"version": "v2.0", "data": articles}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("questions")
    write_pretrained(directory / "base")
    config = json.loads((directory / "base/config.json").read_text()) | {"architectures": ["BertModel"]}
    (directory / "base/config.json").write_text(json.dumps(config))
    (directory / "train.json").write_text(json.dumps(squad(questions(200, without_answer=0.2))))
    rows = questions(40, 1, without_answer=0.2)
    (directory / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "ask.jsonl").write_text("".join(json.dumps(row | {"answers": None}) + "\n" for row in rows))
    return directory


def figures(command: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*command, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def failure(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) != 0
    return capsys.readouterr().err


@pytest.fixture
def model(files: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A model that `finetune` has made, from the columns alone."""
    output = files / "model"
    if not output.exists():
        inputs = [
            "--model",
            str(files / "base"),
            "--train",
            str(files / "train.json"),
            "--eval",
            str(files / "dev.jsonl"),
        ]
        found = figures(["finetune", *inputs, "--output-dir", str(output), *SHORT, "--learning-rate", "0.01"], capsys)
        assert {"eval_exact_match", "eval_f1", "eval_NoAns_f1", "threshold"} <= found.keys()
    return output


def test_a_model_is_made_measured_distilled_and_reported(
    files: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads((model / "config.json").read_text())["architectures"] == ["BertForQuestionAnswering"]
    card = (model / "README.md").read_text()
    assert 'pipeline_tag: "question-answering"' in card
    assert "above which no answer is given, has the best F1" in card
    measured = figures(["evaluate", "--model", str(model), "--data", str(files / "dev.jsonl")], capsys)
    assert measured["n"] == 40
    assert {"exact_match", "f1", "HasAns_exact", "NoAns_exact", "loss"} <= measured.keys()
    student = ["--teacher", str(model), "--student", "L1-H16-A2", "--train", str(files / "train.json")]
    student += ["--eval", str(files / "dev.jsonl"), "--output-dir", str(tmp_path / "student")]
    found = figures(["distill", *student, "--num-train-epochs", "1"], capsys)
    assert {"teacher_f1", "eval_f1"} <= found.keys()
    reported = figures(["report", "--model", str(tmp_path / "student")], capsys)
    assert reported["teacher"]["f1"] == pytest.approx(found["teacher_f1"])
    speed = figures(["bench", "--model", str(model), "--data", str(files / "dev.jsonl"), "--rows", "8"], capsys)
    assert speed["rows"] == 8


def test_answers_are_json_lines(files: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "answers.jsonl"
    asked = ["predict", "--model", str(model), "--data", str(files / "ask.jsonl")]
    assert figures([*asked, "--output", str(output), "--top-k", "3"], capsys)["n"] == 40
    rows = [json.loads(line) for line in (files / "ask.jsonl").read_text().splitlines()]
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    for answer, row in zip(answers, rows, strict=True):
        assert row["context"][answer["start"] : answer["end"]] == answer["answer"]
        assert 1 <= len(answer["n_best"]) <= 3
        assert 0 <= answer["score"] <= 1
    sure = figures([*asked, "--output", str(output), "--threshold", "0.000001"], capsys)
    assert sure["n"] == 40
    assert {json.loads(line)["answer"] for line in output.read_text().splitlines()} == {""}
    typed = ["predict", "--model", str(model), "--text", "good", "--text-pair", "bad good film"]
    (only,) = figures(typed, capsys)["predictions"]
    assert only.keys() == {"id", "answer", "score", "start", "end"}


@pytest.fixture
def stating_nothing(files: Path, model: Path, tmp_path: Path) -> Path:
    """The model as another program would have saved it: nothing says that questions may have no answer."""
    other = tmp_path / "other"
    kd.AutoModelForQuestionAnswering.from_pretrained(model).save_pretrained(other)
    kd.AutoTokenizer.from_pretrained(model).save_pretrained(other)
    config = json.loads((other / "config.json").read_text())
    del config["kdistill"]
    (other / "config.json").write_text(json.dumps(config))
    return other


def test_a_teacher_that_states_nothing_teaches_questions_without_an_answer(
    files: Path, stating_nothing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", "--teacher", str(stating_nothing), "--student", "L1-H16-A2"]
    command += ["--train", str(files / "train.json"), "--output-dir", str(tmp_path / "student"), *SHORT]
    found = figures([*command, "--eval", str(files / "dev.jsonl")], capsys)
    assert {"teacher_NoAns_f1", "eval_NoAns_f1"} <= found.keys()


def test_predicting_needs_no_rule_for_questions_without_an_answer(
    files: Path, stating_nothing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers that the rows have are not looked at: the model answers each question."""
    given = []
    for name in ("dev", "ask"):
        output = tmp_path / f"{name}-answers.jsonl"
        command = ["predict", "--model", str(stating_nothing), "--data", str(files / f"{name}.jsonl")]
        figures([*command, "--max-length", "10", "--output", str(output)], capsys)
        given.append(output.read_text())
    assert given[0] == given[1]
    assert all(json.loads(line)["answer"] for line in given[0].splitlines())


def test_what_cannot_be_is_one_message(
    files: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [
        "finetune",
        "--task",
        "question-answering",
        "--model",
        str(files / "base"),
        "--output-dir",
        str(tmp_path / "x"),
    ]
    train = ["--train", str(files / "train.json")]
    for command, message in (
        ([*made, *train, "--label-names", "a,b"], "--label-names is a,b, and answers to questions have no labels"),
        ([*made, *train, "--problem-type", "regression"], "a model for question-answering has none: only text-class"),
        ([*made, *train, "--num-labels", "3"], "--num-labels is 3; a model that answers questions has 2 outputs"),
        ([*made, *train, "--max-length", "10", "--doc-stride", "7"], "--doc-stride is 7, the tokens that two windows"),
        ([*made, "--train", str(files / "ask.jsonl")], "rows without a label"),
        (["predict", "--model", str(model), "--text", "good"], "expected --text-pair, the context"),
        (["predict", "--model", str(model), "--data", str(files / "dev.jsonl"), "--output", "x.tsv"], "in .jsonl"),
        (
            ["predict", "--model", str(model), "--data", str(files / "dev.jsonl"), "--top-k", "4", "--n-best", "3"],
            "--top-k is 4; expected at most --n-best, which is 3",
        ),
        (["evaluate", "--model", str(model), "--data", str(files / "ask.jsonl")], "has no labels"),
        (["evaluate", "--task", "text-classification", "--model", str(model), "--data", "x"], "--task is text-class"),
    ):
        assert message in failure(command, capsys)


def test_a_length_that_the_model_has_not_is_a_warning(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows of 16 tokens, as many as the model has positions, where longer ones were asked for."""
    asked = questions(1)[0] | {
        "context": " ".join(["bad film awful"] * 8),
        "answers": {"text": ["bad"], "answer_start": [0]},
    }
    (tmp_path / "long.jsonl").write_text(json.dumps(asked) + "\n")
    words = ["finetune", "--task", "question-answering", "--model", str(files / "base"), "--max-steps", "1"]
    words += ["--train", str(tmp_path / "long.jsonl"), "--doc-stride", "2", "--report-to", "none", "--max-length"]
    for length, warned in (("17", True), ("16", False)):
        assert main([*words, length, "--output-dir", str(tmp_path / length)]) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert ("--max-length is 17; the model, or its tokenizer, reads at most 16 tokens, and" in said) == warned


def test_impossible_questions_are_refused_by_a_model_that_answers_each(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.json").write_text(json.dumps(squad(questions(100))))
    inputs = [
        "--model",
        str(files / "base"),
        "--train",
        str(tmp_path / "train.json"),
        "--output-dir",
        str(tmp_path / "x"),
    ]
    figures(["finetune", *inputs, *SHORT], capsys)
    command = ["evaluate", "--model", str(tmp_path / "x"), "--data", str(files / "dev.jsonl")]
    message = failure(command, capsys)
    assert "questions have no answer, the first is" in message
    assert "give --threshold 0.5" in message
    assert "NoAns_f1" in figures([*command, "--threshold", "0.5"], capsys)
