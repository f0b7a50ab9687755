"""The commands for models that embed texts: a student of a teacher's embeddings, its figures, and its vectors."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.card_reading import tables
from support.small_run import VOCABULARY, sentences, small_config, write_rows

import kdistill as kd
from kdistill.bench import bench, exports
from kdistill.cli.main import main

TASK = ["--task", "feature-extraction"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("embeddings")
    encoder = kd.BertModel(small_config(initializer_range=0.3), seed=1)
    encoder.save_pretrained(directory / "encoder")
    encoder.with_pooling("mean", normalize=True).save_pretrained(directory / "teacher")
    for name in ("encoder", "teacher"):
        (directory / name / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    write_rows(directory / "train.tsv", 120)
    lines = [
        f"{a}\t{b}\t{row % 6}"
        for row, ((a, _), (b, _)) in enumerate(zip(sentences(40, 1), sentences(40, 2), strict=True))
    ]
    (directory / "pairs.tsv").write_text("sentence1\tsentence2\tscore\n" + "\n".join(lines) + "\n")
    return directory


def figures(command: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*command, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def failure(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def student(files: Path) -> Path:
    """A student that `distill` has made."""
    command = ["distill", "--teacher", str(files / "teacher"), "--student", "L1-H16-A2"]
    command += ["--train", str(files / "train.tsv"), "--eval", str(files / "pairs.tsv")]
    command += ["--output-dir", str(files / "student"), "--num-train-epochs", "2", "--learning-rate", "0.01"]
    assert main([*command, "--embedding-loss", "cosine", "--json"]) == 0
    return files / "student"


def test_a_student_is_measured_and_reported(
    files: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads((student / "all_results.json").read_text())
    assert {"eval_mse", "eval_cosine", "eval_spearman_cosine", "teacher_spearman_cosine"} <= results.keys()
    assert (student / "1_Pooling/config.json").is_file()
    measured = figures(["evaluate", "--model", str(student), "--data", str(files / "pairs.tsv")], capsys)
    assert measured["n"] == 40
    assert measured["spearman_cosine"] == pytest.approx(results["eval_spearman_cosine"], abs=1e-12)
    assert not measured.keys() & {"loss", "mse"}
    reported = figures(["report", "--model", str(student)], capsys)
    (data,) = (table for table in tables((student / "README.md").read_text()) if "data" in table[0])
    assert [(row["use"], row["rows"]) for row in data] == [("training", "120"), ("evaluation", "40")]
    assert reported["cosine"] == pytest.approx(results["eval_cosine"])
    assert reported["teacher"]["spearman_cosine"] == pytest.approx(results["teacher_spearman_cosine"])
    again = ["distill", "--teacher", str(files / "teacher"), "--student", str(student), "--train"]
    again += [str(files / "train.tsv"), "--output-dir", str(tmp_path / "x"), "--max-steps", "1"]
    assert figures(again, capsys)["output_dir"] == str(tmp_path / "x")


def test_embeddings_are_a_matrix_or_json_lines(
    files: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["predict", "--model", str(student)]
    assert (
        figures([*asked, "--data", str(files / "train.tsv"), "--output", str(tmp_path / "x.npy")], capsys)["n"] == 120
    )
    matrix = np.load(tmp_path / "x.npy")
    assert (matrix.shape, matrix.dtype) == ((120, 16), np.float32)
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, rtol=1e-6)
    pairs = [*asked, "--data", str(files / "pairs.tsv"), "--output"]
    assert figures([*pairs, str(tmp_path / "y.npy")], capsys)["n"] == 40
    assert np.load(tmp_path / "y.npy").shape == (40, 2, 16)
    figures([*pairs, str(tmp_path / "y.jsonl")], capsys)
    rows = [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    assert rows[3].keys() == {"index", "embedding", "embedding_pair", "text", "text_pair"}
    np.testing.assert_array_equal(np.float32(rows[3]["embedding_pair"]), np.load(tmp_path / "y.npy")[3, 1])
    typed = figures([*asked, "--text", "good film", "--text", "bad"], capsys)
    model = kd.AutoModel.from_pretrained(student).freeze()
    np.testing.assert_array_equal(np.float32(typed["predictions"]), model.forward([[2, 5, 9, 3], [2, 7, 3]]))
    (pair,) = figures([*asked, "--text", "good film", "--text-pair", "bad"], capsys)["predictions"]
    assert pair == typed["predictions"]
    assert main([*asked, "--text", "bad"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "bad"


def test_an_encoder_without_a_pooling_takes_the_mean(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", *TASK, "--teacher", str(files / "encoder"), "--student", str(files / "encoder"), "--train"]
    command += [str(files / "train.tsv"), "--output-dir", str(tmp_path / "x"), "--max-steps", "1", "--json"]
    assert main(command) == 0
    assert (
        "no files of sentence-transformers that state a pooling: its texts are embedded by" in capsys.readouterr().err
    )
    report = ["report", "--model", str(tmp_path / "x"), "--json"]
    assert main(report) == 0


def test_an_embedder_that_is_called_a_language_model_embeds_texts(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As all-mpnet-base-v2 is: the files of sentence-transformers tell what it does."""
    shutil.copytree(files / "teacher", tmp_path / "called")
    content = json.loads((tmp_path / "called/config.json").read_text())
    (tmp_path / "called/config.json").write_text(json.dumps(content | {"architectures": ["BertForMaskedLM"]}))
    on = ["--model", str(tmp_path / "called"), "--data", str(files / "train.tsv"), "--doc-stride", "2"]
    assert main(["prune", *on, "--vocabulary", "--output", str(tmp_path / "pruned")]) == 0
    assert "the model is one for feature-extraction, and only models for" in " ".join(capsys.readouterr().err.split())


def test_bench_measures_embeddings_by_the_scores_of_pairs(
    files: Path, student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (bench, exports):
        monkeypatch.setattr(module, "ROUNDS", 1)
    for package in ("torch", "onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
    on, pairs = ["bench", "--model", str(student), "--threads", "1"], ["--data", str(files / "pairs.tsv")]
    programs = figures([*on, "--rows", "9", "--dtype", "float32", "int8"], capsys)["programs"]
    assert programs["kdistill"]["sentences_per_second"] > 0
    assert 0 < programs["kdistill int8"]["largest_difference"] < 0.1
    own, artefact = figures([*on, *pairs, "--export", "kdistill-float32", "artefact"], capsys)["measured"]
    measured = figures(["evaluate", "--model", str(student), *pairs], capsys)
    assert own["metric"] == artefact["metric"] == "spearman_cosine"
    assert own["metrics"]["spearman_cosine"] == pytest.approx(measured["spearman_cosine"], abs=1e-6)
    assert artefact["metrics"]["spearman_cosine"] == pytest.approx(measured["spearman_cosine"], abs=0.05)


def test_a_search_varies_a_student(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "space.toml").write_text('[learning_rate]\ntype = "float"\nlow = 1e-3\nhigh = 1e-2\n')
    command = ["search", "--teacher", str(files / "teacher"), "--student", "L1-H16-A2", "--n-trials", "2"]
    command += ["--train", str(files / "train.tsv"), "--eval", str(files / "pairs.tsv"), "--max-steps", "2"]
    command += ["--hp-space", str(tmp_path / "space.toml"), "--output-dir", str(tmp_path / "x")]
    assert figures(command, capsys)["trials"]["complete"] == 2


def test_what_cannot_be_is_one_message(
    files: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, model = ["--train", str(files / "train.tsv")], ["--model", str(student)]
    output = ["--output-dir", str(tmp_path / "x")]
    distill = ["distill", "--teacher", str(files / "teacher"), *train, *output, "--student"]
    for command, message in (
        (
            ["finetune", *TASK, "--model", str(files / "encoder"), *train, *output],
            "embeddings have no labels that fine",
        ),
        ([*distill, "L1-H32-A2"], "hidden_size is 32; it can be at most the teacher's, 16"),
        ([*distill, "L1-H16-A2", "--label-names", "a,b"], "--label-names is a,b, and embeddings have no labels"),
        ([*distill, "L1-H16-A2", "--task", "text-classification"], "the teacher is one for feature-extraction"),
        (["evaluate", *model, "--data", str(files / "train.tsv")], "expected pairs of texts with a score"),
        (["evaluate", *model, "--data", str(files / "pairs.tsv"), "--per-class"], "feature-extraction has no classes"),
        (
            ["predict", *model, "--text", "x", "--top-k", "2"],
            "--top-k is 2, and the model gives each text an embedding",
        ),
        (["predict", *model, "--text", "x", "--output", "x.tsv"], "embeddings are written as JSON lines"),
        (["serve", *model], "only classifiers of whole texts are served"),
    ):
        assert message in failure(command, capsys)
    assert not (tmp_path / "x").exists()
