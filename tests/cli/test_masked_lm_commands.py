"""The commands for language models: from a text file to a student, to a report and to words under masks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.card_reading import tables
from support.small_run import write_pretrained, write_rows
from support.small_texts import documents

import kdistill as kd
from kdistill.bench import bench, exports
from kdistill.cli.main import main
from kdistill.models.head_names import MASKED
from kdistill.tasks.masked_lm import TASK

RUN = ["--max-length", "12", "--num-train-epochs", "2", "--learning-rate", "0.01", "--per-device-train-batch-size", "8"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("texts")
    write_pretrained(directory / "base")
    (directory / "train.txt").write_text("\n".join(documents(64)))
    (directory / "dev.txt").write_text("\n\n".join(documents(24, 1)))
    return directory


def figures(command: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*command, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def failure(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) != 0
    return capsys.readouterr().err


def rows(files: Path) -> list[str]:
    return ["--train", str(files / "train.txt"), "--eval", str(files / "dev.txt"), *RUN]


@pytest.fixture
def model(files: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A language model that `finetune` has made of an encoder."""
    output = files / "model"
    if not output.exists():
        inputs = ["--model", str(files / "base"), "--task", "masked-lm", *rows(files), "--output-dir", str(output)]
        made = figures(["finetune", *inputs, "--mlm-probability", "0.3"], capsys)
        assert {"eval_perplexity", "eval_accuracy", "eval_masked_tokens", "eval_loss"} <= made.keys()
        assert json.loads((output / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
        assert f"{TASK.learns_from}, starting from `base`" in (output / "README.md").read_text()
    return output


def test_a_language_model_goes_on_as_one_where_the_rows_are_texts_alone(
    files: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = write_rows(tmp_path / "rows.tsv", 24)
    ends = {
        str(files / "train.txt"): "BertForMaskedLM",
        str(labelled): "BertForSequenceClassification",
    }
    for place, (train, expected) in enumerate(ends.items()):
        out = tmp_path / str(place)
        command = ["finetune", "--model", str(model), "--train", train, "--output-dir", str(out), "--max-steps", "1"]
        figures([*command, *RUN[:2]], capsys)
        assert json.loads((out / "config.json").read_text())["architectures"] == [expected]
    other = tmp_path / "others.tsv"
    other.write_text("sentence\tsort\ngood film\t1\nbad film\t0\n")
    command = ["finetune", "--model", str(model), "--train", str(other), "--output-dir", str(tmp_path / "x")]
    assert "others.tsv has no labels; its columns are sentence, sort" in failure(command, capsys)


def test_a_language_model_from_a_text_file_to_a_student(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = ["evaluate", "--model", str(model), "--data", str(files / "dev.txt")]
    measured = figures(evaluate, capsys)
    assert measured["perplexity"] < 13
    assert {**figures(evaluate, capsys), "runtime": 0, "samples_per_second": 0} == {
        **measured,
        "runtime": 0,
        "samples_per_second": 0,
    }
    twice = figures([*evaluate, "--mlm-probability", "0.3"], capsys)
    assert twice["masked_tokens"] > 1.5 * measured["masked_tokens"]
    student = ["--teacher", str(model), "--student", "L1-H16-A2", *rows(files), "--output-dir", str(files / "student")]
    distilled = figures(["distill", *student], capsys)
    assert distilled["teacher_perplexity"] == pytest.approx(measured["perplexity"], rel=1e-6)
    card = (files / "student/README.md").read_text()
    assert "blocks of text with hidden words of" in card
    (data,) = (table for table in tables(card) if "data" in table[0])
    assert data[0].keys() == {"use", "data", "rows"}
    report = figures(["report", "--model", str(files / "student"), "--holdout", str(files / "dev.txt")], capsys)
    assert report["perplexity"] == distilled["eval_perplexity"]
    assert report["holdout"]["rows_shared_with_evaluation"] == report["holdout"]["rows"]


def test_the_doctor_knows_that_the_teacher_answers_in_each_step(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = ["--teacher", str(model), "--student", "L1-H16-A2", *rows(files), "--output-dir", str(files / "never")]
    assert main(["doctor", *student, "--json"]) == 1  # so few words that rows of both files are equal
    findings = json.loads(capsys.readouterr().out)["findings"]
    texts = [finding["text"] for finding in findings]
    assert any("the teacher answers in each step" in text for text in texts)
    assert any(text.startswith("the teacher has perplexity") for text in texts)
    assert any("hidden words of dev.txt" in text for text in texts)
    assert not any("not checked" in text for text in texts)


def test_masks_in_texts_are_filled(files: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["--text", "good [MASK] good great", "[MASK] plot film [MASK]", "--top-k", "2"]
    one, several = figures(["predict", "--model", str(model), *texts], capsys)["predictions"]
    assert [len(one), *map(len, several)] == [2, 2, 2]
    assert {"score", "token", "token_str", "sequence"} <= one[0].keys()
    output = files / "words.jsonl"
    assert main(["predict", "--model", str(model), *texts, "--output", str(output)]) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert lines == [{"index": 0, "words": one}, {"index": 1, "words": several}]


def test_bench_measures_the_logits_of_all_words(
    files: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (bench, exports):
        monkeypatch.setattr(module, "ROUNDS", 1)
    for package in ("torch", "onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
    on, data = ["bench", "--model", str(model), "--threads", "1", "--rows", "40"], ["--data", str(files / "dev.txt")]
    programs = figures([*on, *data, "--dtype", "float32", "int8"], capsys)["programs"]
    assert 0 < programs["kdistill int8"]["largest_difference"] < 1
    for given, program in (([], "artefact"), (data, "kdistill-float32")):
        (of,) = figures([*on, *given, "--export", program], capsys)["measured"]
        assert of["rows_per_second"] > 0
        assert (of["metrics"], of["metric"]) == ({}, None)


def test_the_default_batch_of_a_language_model_has_few_logits(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = {"vocab_size": 30522, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config, ids = kd.BertConfig(**shape, intermediate_size=8), np.ones(516, np.int32)
    rows = kd.Dataset(ids, np.zeros_like(ids), np.array([0, 512, 516]), np.zeros(2, np.int64))
    assert bench.default_batch_size(config, rows) == 128
    assert bench.default_batch_size(config.with_head(MASKED), rows) == 17  # 17 * 512 * 30522 * 4 < 2**30
    monkeypatch.setattr(bench, "MOST_LOGITS", 1)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(exports, "ROUNDS", 1)
    on = ["bench", "--model", str(model), "--threads", "1", "--rows", "3", "--export", "artefact"]
    assert figures(on, capsys)["batch_size"] == 1
    assert figures([*on, "--batch-size", "3"], capsys)["batch_size"] == 3


def test_trials_of_a_search_have_one_teacher_in_several_threads(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    student = ["--teacher", str(model), "--student", "L1-H16-A2", *rows(files), "--output-dir", str(files / "search")]
    found = figures(["search", *student, "--n-trials", "2", "--n-jobs", "2"], capsys)
    assert found["trials"] == {"complete": 2}
    assert found["objective"] > 1


def test_what_a_language_model_cannot_do_is_refused(
    files: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = str(write_rows(tmp_path / "rows.tsv", 24))
    kd.BertModel.from_pretrained(files / "base").save_pretrained(tmp_path / "encoder")
    encoder = str(tmp_path / "encoder")
    pairs = str(tmp_path / "pairs.tsv")
    Path(pairs).write_text("sentence1\tsentence2\ngood [MASK]\tfilm\n")
    on = ["--model", str(model)]
    train = ["--task", "masked-lm", "--model", str(files / "base"), *rows(files), "--output-dir", str(tmp_path / "out")]
    for command, message in (
        (["evaluate", *on, "--data", labelled], "lacks a head for labels"),
        (
            ["evaluate", "--model", encoder, "--task", "masked-lm", "--data", str(files / "dev.txt")],
            "cls.predictions.bias, so it has no trained head for the task",
        ),
        (["predict", *on, "--text", "good film"], "inputs[0] has no [MASK]"),
        (["predict", *on, "--text", "good [MASK]", "--threshold", "0.5"], "--threshold is 0.5, and the model fills"),
        (
            ["predict", *on, "--text", "good [MASK]", "--text-pair", "film"],
            "--text-pair is given, and the model fills",
        ),
        (["predict", *on, "--data", pairs], "pairs.tsv has pairs of texts (sentence1 and sentence2); name one column"),
        (["predict", *on, "--text", "good film [MASK]", "--max-length", "4"], "no [MASK] among its first 4 tokens"),
        (["serve", *on], "the model is one for masked-lm, and only classifiers of whole texts are served"),
        (["finetune", *train, "--num-labels", "2"], "--num-labels is 2, and hidden words have no labels; leave it out"),
        (
            [
                "distill",
                "--teacher",
                str(model),
                "--student",
                "L1-H8-A2",
                *rows(files),
                "--output-dir",
                str(tmp_path / "out"),
                "--label-names",
                "a,b",
            ],
            "--label-names is a,b, and hidden words have no labels; leave it out",
        ),
        (["finetune", *train, "--label-column", "x"], "--label-column is 'x', and a language model reads texts alone"),
        (["evaluate", *on, "--data", labelled, "--task", "text-classification"], "the model is one for masked-lm"),
    ):
        assert message in failure(command, capsys)
    asked = ["evaluate", *on, "--data", labelled, "--task", "masked-lm"]
    assert figures(asked, capsys)["masked_tokens"] > 0
    assert figures(["info", *on], capsys)["labels"] == []


def test_relations_are_learned_from_an_encoder_without_a_head(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no stage has a loss of the predictions nobody reads the head; otherwise it is missed."""
    match = '[[stage.matches]]\nkind = "relation"\nteacher_layer = -1\nstudent_layer = -1'
    for weight in (0, 1):
        (files / f"{weight}.toml").write_text(f"[[stage]]\nprediction_weight = {weight}\n{match}")
    command = ["distill", "--task", "masked-lm", "--teacher", str(files / "base"), "--student", "L1-H8-A2"]
    command += ["--train", str(files / "train.txt"), *RUN]
    error = failure([*command, "--matches", str(files / "1.toml"), "--output-dir", str(files / "no")], capsys)
    assert "has no trained head for the task" in error
    output = files / "relations"
    figures([*command, "--matches", str(files / "0.toml"), "--output-dir", str(output)], capsys)
    losses = [e for e in json.loads((output / "trainer_state.json").read_text())["log_history"] if "loss" in e]
    assert losses[-1]["match_relation_1_0_loss"] < losses[0]["match_relation_1_0_loss"]
    assert not any("soft_loss" in entry for entry in losses)
