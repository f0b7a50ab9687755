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
from kdistill.distill.cache import teacher_logits

CACHE_DEFAULTS = dict(teacher_logits.__kwdefaults__ or {})


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


def test_the_logits_are_the_teachers_in_every_format(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
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


def test_of_several_teachers_the_mean_of_their_probabilities(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    teachers, rows = (
        [write_model(tmp_path / f"teacher{seed}", seed) for seed in (5, 6)],
        write_rows(tmp_path / "r.tsv", 8),
    )
    command = ("--teacher", *teachers, "--teacher-weights", "0.25", "0.75", "--data", rows, "--output")
    figures = run(capsys, *command, tmp_path / "a.npy")
    assert figures["teacher"] == "teacher5 + teacher6"
    each = [np.exp(logits_of(of, [text for text, _ in sentences(8)]).astype(np.float64)) for of in teachers]
    one, other = (of / of.sum(axis=1, keepdims=True) for of in each)
    found = np.exp(np.load(tmp_path / "a.npy").astype(np.float64))
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), 0.25 * one + 0.75 * other, rtol=1e-6)
    figures = run(capsys, *command, tmp_path / "a.jsonl", "--temperature", "3", "--probs")
    assert figures["temperature"] == 3
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {line["teacher_temperature"] for line in lines} == {3.0}
    warm = [of ** (1 / 3) for of in each]
    one_warm, other_warm = (of / of.sum(axis=1, keepdims=True) for of in warm)
    logits = np.array([[*line["teacher_logits"].values()] for line in lines])
    found = np.exp(logits / 3)
    mean = 0.25 * one_warm + 0.75 * other_warm
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), mean, rtol=1e-6)
    probabilities = np.array([[*line["teacher_probs"].values()] for line in lines])
    np.testing.assert_allclose(probabilities, 0.25 * one + 0.75 * other, rtol=1e-6)  # those at temperature 1
    third = write_model(tmp_path / "third", id2label={0: "bad", 1: "good"})
    assert "expected the same task and labels: name both with --label-names" in refused(
        capsys, "--teacher", teachers[0], third, "--data", rows, "--output", tmp_path / "b.npy"
    )


def test_a_temperature_without_an_average_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    teacher, rows = write_model(tmp_path / "teacher"), write_rows(tmp_path / "r.tsv", 4)
    out = ("--data", rows, "--output", tmp_path / "a.jsonl", "--temperature", "2")
    assert "there is one --teacher; leave it out" in refused(capsys, "--teacher", teacher, *out)
    numbers = {"id2label": {0: "score"}, "problem_type": "regression"}
    both = [write_model(tmp_path / f"number{seed}", seed, **numbers) for seed in (1, 2)]
    assert "their answers are numbers without probabilities" in refused(capsys, "--teacher", *both, *out)


def test_a_teacher_is_named_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("teacher"))
    (tmp_path / "link").symlink_to("teacher")
    write_model(Path("other"), 2)
    out = ("--data", write_rows(tmp_path / "r.tsv", 4), "--output", "a.npy")
    for teachers, found in {
        ("teacher", "other", "teacher"): "--teacher has teacher twice; ",
        ("teacher", "./teacher/"): "--teacher has ./teacher/ twice, also as teacher; ",
        ("other", "teacher", "link"): "--teacher has link twice, also as teacher; ",
        ("owner/model", "owner/model"): "--teacher has owner/model twice; ",
    }.items():
        assert f"{found}expected each once: --teacher-weights" in refused(capsys, "--teacher", *teachers, *out)
    assert run(capsys, "--teacher", "teacher", "other", *out)["teacher"] == "teacher + other"


def test_an_interrupted_command_leaves_no_file_and_goes_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, rows = write_model(tmp_path / "teacher", 77), write_rows(tmp_path / "rows.tsv", 40)
    forward, calls = kd.BertForSequenceClassification.forward, []

    def interrupted(self: Any, batch: Any, train: bool = False) -> Any:
        calls.append(len(batch.starts) - 1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return forward(self, batch, train)

    monkeypatch.setattr("kdistill.distill.cache.teacher_logits.__kwdefaults__", {**CACHE_DEFAULTS, "batch_tokens": 64})
    monkeypatch.setattr(kd.BertForSequenceClassification, "forward", interrupted)
    command = ["label", "--teacher", str(teacher), "--data", str(rows), "--output", str(tmp_path / "a.jsonl")]
    assert main(command) == 130
    assert "the teacher cache has what was answered. Repeat the command to go on" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.tsv", "teacher"]
    monkeypatch.setattr(kd.BertForSequenceClassification, "forward", forward)
    assert run(capsys, *command[1:])["cached_rows"] == calls[0]


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
