"""`kdistill label`: a teacher's answers as data, in three formats, for every task whose answers a file can hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_model
from support.small_run import VOCABULARY, sentences, small_config, small_model, write_model, write_rows
from support.small_tags import TAG_OF, write_conll
from support.small_texts import language_model

import kdistill as kd
from kdistill.cli.main import main
from kdistill.data.sources import read_table
from kdistill.data.teacher_columns import teacher_column_of


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main(["label", *map(str, words), "--json"]) == 0, capsys.readouterr().err
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert main(["label", *map(str, words)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def saved(directory: Path, model: Any) -> Path:
    model.save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return directory


def logits_of(model: Path, texts: list[str]) -> np.ndarray:
    tokenizer = kd.AutoTokenizer.from_pretrained(model)
    loaded = kd.AutoModelForSequenceClassification.from_pretrained(model)
    return np.concatenate([loaded.forward(kd.pack(tokenizer([text]))) for text in texts])


def test_the_logits_are_the_teachers_in_every_format(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    teacher, rows = write_model(tmp_path / "teacher"), write_rows(tmp_path / "rows.tsv", 20)
    expected = logits_of(teacher, [text for text, _ in sentences(20)])
    command = ("--teacher", teacher, "--data", rows, "--output")
    figures = run(capsys, *command, tmp_path / "a.parquet")
    assert (figures["n"], figures["cached_rows"], figures["labels"]) == (20, 0, ["negative", "positive"])
    assert (
        figures["teacher_fingerprint"]
        == kd.AutoModelForSequenceClassification.from_pretrained(teacher).weights_digest()
    )
    assert run(capsys, *command, tmp_path / "a.jsonl", "--probs")["cached_rows"] == 20  # it goes on where it was
    run(capsys, *command, tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)
    table = read_table(tmp_path / "a.parquet")
    assert table["sentence"] == [text for text, _ in sentences(20)]
    assert table["label"] == [str(label) for _, label in sentences(20)]
    np.testing.assert_array_equal(np.array(table["teacher_logits"], np.float32), expected)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [list(line["teacher_logits"]) for line in lines] == [["negative", "positive"]] * 20
    np.testing.assert_array_equal(
        np.array([[*line["teacher_logits"].values()] for line in lines], np.float32), expected
    )
    softmax = np.exp(expected.astype(np.float64))
    softmax /= softmax.sum(axis=1, keepdims=True)
    np.testing.assert_allclose([[*line["teacher_probs"].values()] for line in lines], softmax, rtol=1e-6)
    metadata = pytest.importorskip("pyarrow.parquet").read_schema(tmp_path / "a.parquet").metadata
    assert metadata[b"teacher_fingerprint"].decode() == figures["teacher_fingerprint"]
    assert json.loads(metadata[b"label_names"]) == ["negative", "positive"]
    assert (metadata[b"teacher"], metadata[b"teacher_dtype"]) == (b"teacher", b"float32")


def test_several_labels_and_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.tsv", 8)
    several = saved(tmp_path / "several", small_model(problem_type="multi_label_classification"))
    run(capsys, "--teacher", several, "--data", rows, "--output", tmp_path / "several.jsonl", "--probs")
    lines = [json.loads(line) for line in (tmp_path / "several.jsonl").read_text().splitlines()]
    for line in lines:
        for name, logit in line["teacher_logits"].items():
            assert line["teacher_probs"][name] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-6)
    number = saved(tmp_path / "number", small_model(id2label={0: "LABEL_0"}))
    run(capsys, "--teacher", number, "--data", rows, "--output", tmp_path / "number.jsonl")
    values = [json.loads(line)["teacher_logits"] for line in (tmp_path / "number.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal(np.array(values, np.float32), logits_of(number, [text for text, _ in sentences(8)]))
    assert "--probs is given, and the teacher's answers are numbers without probabilities" in refused(
        capsys, "--teacher", number, "--data", rows, "--output", tmp_path / "b.jsonl", "--probs"
    )


def test_each_word_has_an_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tags = dict(enumerate(["O", *sorted(set(TAG_OF.values()))]))
    teacher = saved(tmp_path / "tagger", kd.BertForTokenClassification(small_config(id2label=tags), seed=1))
    rows = write_conll(tmp_path / "rows.conll", 12)
    for name in ("a.jsonl", "a.parquet"):
        run(capsys, "--teacher", teacher, "--data", rows, "--output", tmp_path / name, "--max-length", "6")
        table = read_table(tmp_path / name)
        assert [len(of) for of in table["teacher_logits"]] == [len(of) for of in table["tokens"]]
        column = teacher_column_of(table)
        assert column is not None
        assert column.label_names() == list(tags.values())
    assert "rows of words have different numbers of answers; expected .parquet" in refused(
        capsys, "--teacher", teacher, "--data", rows, "--output", tmp_path / "a.npy"
    )


def test_embeddings_of_pairs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    encoder = kd.BertModel(small_config(initializer_range=0.3), seed=1).with_pooling("mean", normalize=True)
    teacher = saved(tmp_path / "embedder", encoder)
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("sentence1\tsentence2\tscore\ngood film\tgreat film\t4\nbad plot\tawful plot\t3\n")
    run(capsys, "--teacher", teacher, "--data", pairs, "--output", tmp_path / "a.npy")
    found = np.load(tmp_path / "a.npy")
    assert found.shape == (2, 2, 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, rtol=1e-6)
    run(capsys, "--teacher", teacher, "--data", pairs, "--output", tmp_path / "a.jsonl")
    lines = [json.loads(line)["teacher_logits"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal(np.array(lines, np.float32), found)


def test_what_it_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    teacher, rows = write_model(tmp_path / "teacher"), write_rows(tmp_path / "rows.tsv", 4)
    asks = saved(tmp_path / "asks", question_model())
    hides = saved(tmp_path / "hides", language_model())
    out = ("--output", tmp_path / "a.jsonl")
    for model, message in (
        (asks, "has logits for each token of a window"),
        (hides, "answers for hidden words, which are others in each epoch"),
    ):
        assert message in refused(capsys, "--task", _task(model), "--teacher", model, "--data", rows, *out)
    command = ("--teacher", teacher, "--data", rows, "--output")
    assert "expected a name that ends in .parquet, .jsonl, .npy" in refused(capsys, *command, tmp_path / "a.tsv")
    assert "--probs is given, and" in refused(capsys, *command, tmp_path / "a.npy", "--probs")
    run(capsys, *command, tmp_path / "a.jsonl")
    before = hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    assert "has answers of a teacher already ('teacher_logits')" in refused(
        capsys, "--teacher", teacher, "--data", tmp_path / "a.jsonl", "--output", tmp_path / "b.jsonl"
    )
    assert "which this command reads; choose another file" in refused(
        capsys, "--teacher", teacher, "--data", tmp_path / "a.jsonl", *out
    )
    assert hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest() == before


def _task(model: Path) -> str:
    return "question-answering" if model.name == "asks" else "masked-lm"
