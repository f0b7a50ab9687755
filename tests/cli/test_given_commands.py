"""`distill` without a teacher: answers in columns or a file, into a checkpoint or a shape, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.small_run import VOCABULARY, small_config, write_model, write_pretrained, write_rows
from support.small_tags import TAG_OF, write_conll

import kdistill as kd
from kdistill.cli.main import main

QUICK = ("--num-train-epochs", "1", "--report-to", "none", "--learning-rate", "0.01")
pytestmark = pytest.mark.filterwarnings("ignore:.*no better than", "ignore:.*share text", "ignore:.*is measured on")


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    status = main([*map(str, words), "--json"])
    output = capsys.readouterr()
    assert status == 0, output.err
    return dict(json.loads(output.out.splitlines()[-1]))


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    write_model(directory / "teacher", 9)
    write_model(directory / "student", 2)
    write_pretrained(directory / "pretrained", 3)
    write_rows(directory / "train.tsv", 64)
    write_rows(directory / "dev.tsv", 30, seed=1)
    for name in ("labelled.jsonl", "labelled.npy"):
        command = ["label", "--teacher", "teacher", "--data", "train.tsv", "--output", name]
        assert main([str(directory / word) if "." in word or word == "teacher" else word for word in command]) == 0
    return directory


def same_weights(one: Path, other: Path) -> bool:
    theirs = load_file(other / "model.safetensors")
    return all((value == theirs[name]).all() for name, value in load_file(one / "model.safetensors").items())


def test_labelled_rows_teach_as_the_teacher_does(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a column, from a file matched by text, and from an array in the order of the rows."""
    command = ("distill", "--student", inputs / "student", "--eval", inputs / "dev.tsv", *QUICK, "--output-dir")
    train = ("--train", inputs / "train.tsv")
    asked = run(
        capsys, *command, tmp_path / "asked", "--teacher", inputs / "teacher", "--teacher-dtype", "float32", *train
    )
    for name, words in {
        "column": ("--train", inputs / "labelled.jsonl"),
        "file": (*train, "--teacher-logits", inputs / "labelled.jsonl"),
        "array": (*train, "--teacher-logits", inputs / "labelled.npy"),
    }.items():
        given = run(capsys, *command, tmp_path / name, *words)
        assert given["train_loss"] == asked["train_loss"]
        assert given["eval_loss"] == asked["eval_loss"]
        assert same_weights(tmp_path / name, tmp_path / "asked")
        assert "teacher_accuracy" not in given  # the evaluation rows have no answers
    figures = run(capsys, "report", "--model", tmp_path / "file")
    assert figures["teacher"]["name"] == "labelled.jsonl"
    assert (figures["teacher"]["matched_by"], figures["teacher"]["rows_covered"]) == ("text", 64)
    card = (tmp_path / "array/README.md").read_text()
    assert "answers for 64 of 64 training rows, found by position as there are neither ids nor texts" in card


def test_a_line_says_that_the_order_counts(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["distill", "--student", str(inputs / "student"), "--train", str(inputs / "train.tsv"), *QUICK]
    command += ["--teacher-logits", str(inputs / "labelled.npy"), "--output-dir", str(tmp_path / "out")]
    assert main(command) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "labelled.npy: answers for" in line]
    assert len(lines) == 1
    assert "found by position" in lines[0]


def test_students_without_a_teachers_weights(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pretrained one gets the labels that the answers name; a shape its vocabulary from --tokenizer."""
    rows = ("--train", inputs / "labelled.jsonl", *QUICK)
    run(capsys, "distill", "--student", inputs / "pretrained", *rows, "--output-dir", tmp_path / "pretrained")
    shape = ("--student", "L1-H16-A2", "--tokenizer", inputs / "student")
    run(capsys, "distill", *shape, *rows, "--output-dir", tmp_path / "shape")
    for name, layers in (("pretrained", 2), ("shape", 1)):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert (config["id2label"], config["num_hidden_layers"]) == ({"0": "negative", "1": "positive"}, layers)
        assert config["vocab_size"] == len(VOCABULARY)
        kd.pipeline("text-classification", str(tmp_path / name))("good film")


def test_a_file_beside_a_teacher_is_another_teacher(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("distill", "--student", inputs / "student", "--train", inputs / "train.tsv", *QUICK)
    teachers = (
        "--teacher",
        inputs / "teacher",
        "--teacher-logits",
        inputs / "labelled.jsonl",
        "--teacher-weights",
        "1",
        "3",
    )
    both = run(capsys, *command, *teachers, "--output-dir", tmp_path / "both")
    asked = run(capsys, *command, "--teacher", inputs / "teacher", "--output-dir", tmp_path / "asked")
    assert both["train_loss"] == pytest.approx(asked["train_loss"], rel=1e-5)  # they are of one mind
    assert "`labelled.jsonl` (weight 0.75)" in (tmp_path / "both/README.md").read_text()


def test_tags_and_their_answers(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tags = dict(enumerate(["O", *sorted(set(TAG_OF.values()))]))
    for name, seed in (("teacher", 9), ("student", 2)):
        kd.BertForTokenClassification(small_config(id2label=tags, initializer_range=0.2), seed=seed).save_pretrained(
            tmp_path / name
        )
        (tmp_path / name / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    train, dev = write_conll(tmp_path / "train.conll", 40), write_conll(tmp_path / "dev.conll", 12, seed=1)
    for rows in (train, dev):
        run(capsys, "label", "--teacher", tmp_path / "teacher", "--data", rows, "--output", rows.with_suffix(".jsonl"))
    command = ("distill", "--student", tmp_path / "student", *QUICK, "--output-dir")
    asked = run(
        capsys, *command, tmp_path / "a", "--teacher", tmp_path / "teacher", "--teacher-dtype", "float32",
        "--train", train, "--eval", dev,
    )  # fmt: skip
    given = run(capsys, *command, tmp_path / "b", "--train", tmp_path / "train.jsonl", "--eval", tmp_path / "dev.jsonl")
    assert {name: given[name] for name in ("train_loss", "eval_loss", "teacher_f1", "teacher_accuracy")} == {
        name: asked[name] for name in ("train_loss", "eval_loss", "teacher_f1", "teacher_accuracy")
    }
    assert same_weights(tmp_path / "a", tmp_path / "b")


def test_doctor_looks_at_the_answers(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flipped = np.load(inputs / "labelled.npy")
    truth = [int(line.split("\t")[1]) for line in (inputs / "train.tsv").read_text().splitlines()[1:]]
    np.save(tmp_path / "good.npy", np.eye(2, dtype=np.float32)[truth] * 4)
    np.save(tmp_path / "wrong.npy", np.eye(2, dtype=np.float32)[1 - np.array(truth)] * 4)
    np.save(tmp_path / "short.npy", flipped[:5])
    command = ["doctor", "--student", str(inputs / "student"), "--train", str(inputs / "train.tsv"), "--json"]
    found = {}
    for name in ("good", "wrong", "short"):
        main([*command, "--teacher-logits", str(tmp_path / f"{name}.npy"), "--output-dir", str(tmp_path / "out")])
        found[name] = [
            (finding["level"], finding["text"]) for finding in json.loads(capsys.readouterr().out)["findings"]
        ]
    assert any(text.startswith("answers for 64 of 64 training rows") for _, text in found["good"])
    assert not any(level == "error" for level, _ in found["good"])
    assert any(level == "error" and "with its labels in another order" in text for level, text in found["wrong"])
    assert any(level == "error" and "has 5 rows, and" in text for level, text in found["short"])


def test_what_has_no_effect_on_given_answers_is_said(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", "--student", str(inputs / "student"), "--train", str(inputs / "labelled.jsonl"), *QUICK]
    command += ["--output-dir", str(tmp_path / "out")]
    assert main([*command, "--teacher-dtype", "int8"]) == 0
    said = "--teacher-dtype is 'int8', which has no effect here: no teacher is a model"
    assert said in " ".join(capsys.readouterr().err.split())
    weights = refused(capsys, *command, "--overwrite-output-dir", "--teacher-weights", "1", "2")
    assert "--teacher-weights is 1, 2 and the number of teachers 1; expected a weight for each" in weights


def test_what_it_refuses(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, out = ("--train", inputs / "train.tsv"), ("--output-dir", tmp_path / "out")
    student = ("distill", "--student", inputs / "student")
    for command in (student, ("distill", "--student", "L1-H16-A2")):
        assert "--teacher is not given, and" in refused(capsys, *command, *rows, *out)
    assert "expected --tokenizer MODEL" in refused(
        capsys, "distill", "--student", "L1-H16-A2", "--train", inputs / "labelled.jsonl", *out
    )
    tokenizer = ("--tokenizer", inputs / "student")
    assert "has its own; leave it out" in refused(
        capsys, *student, "--train", inputs / "labelled.jsonl", *tokenizer, *out
    )
    assert "leave it out" in refused(capsys, *student, "--teacher", inputs / "teacher", *rows, *tokenizer, *out)
    assert "expected one of the two: leave out the file" in refused(
        capsys, *student, "--train", inputs / "labelled.jsonl", "--teacher-logits", inputs / "labelled.npy", *out
    )
    assert "augment is 1" in refused(capsys, *student, "--train", inputs / "labelled.jsonl", "--augment", "1", *out)
    assert "a teacher of a language model answers for hidden words" in refused(
        capsys, *student, "--task", "masked-lm", "--train", inputs / "labelled.jsonl", *out
    )
    assert not (tmp_path / "out").exists()
