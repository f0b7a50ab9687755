"""`kdistill predict`: rows from files, from the command line and from standard input, and how the answer is written."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import WORDS, sentences, small_model, write_model, write_rows

import kdistill as kd
from kdistill.cli import main as cli

TEXTS = [text for text, _ in sentences(5)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = cli.main(["predict", *(str(word) for word in words)])
    return status, *capsys.readouterr()


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    status, output, errors = run(capsys, *words)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    return errors


def table(output: str) -> tuple[list[str], list[list[str]]]:
    header, *lines = csv.reader(io.StringIO(output), delimiter="\t", strict=True)
    return header, lines


def pipe(monkeypatch: pytest.MonkeyPatch, content: str, *, terminal: bool = False) -> None:
    stream = io.TextIOWrapper(io.BytesIO(content.encode()), encoding="utf-8")
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdin", stream)


def test_typed_texts_have_the_predictions_of_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    """The same table from a TSV, from `--text`, from a .txt file, from `-` and from a pipe; the text is last."""
    (tmp_path / "lines.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    _, of_file, _ = run(capsys, "--model", model, "--data", write_rows(tmp_path / "rows.tsv", 5))
    header, lines = table(of_file)
    assert header == ["index", "prediction", "score_negative", "score_positive", "text"]
    assert [line[-1] for line in lines] == TEXTS
    assert run(capsys, "--model", model, "--text", *TEXTS[:2], "--text", *TEXTS[2:])[1] == of_file
    assert run(capsys, "--model", model, "--data", tmp_path / "lines.txt")[1] == of_file
    assert run(capsys, "--model", model, "--text", "--good film", "-- bad plot")[0] == 0
    (tmp_path / "predict.toml").write_text(f"text = {json.dumps(TEXTS)}\n")
    assert run(capsys, "--model", model, "--config", tmp_path / "predict.toml")[1] == of_file
    for words in (["--data", "-"], []):
        pipe(monkeypatch, "\n".join(TEXTS) + "\n")
        assert run(capsys, "--model", model, *words)[1] == of_file


def test_a_terminal_or_an_empty_pipe_is_told_what_is_expected(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    pipe(monkeypatch, "", terminal=True)
    assert 'predict has no rows: expected --data FILE, --text "...", or a text a line on standard input' in error_of(
        capsys, "--model", model
    )
    pipe(monkeypatch, "")
    assert "standard input is empty; expected a text a line, or --data FILE or --text" in error_of(
        capsys, "--model", model
    )


def test_typed_pairs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--text-pair` and a TSV on standard input; a model of pairs wants them. The logits are those of the pair."""
    record: Any = {"kdistill": {"text_column": "claim", "text_pair_column": "proof"}}
    model = write_model(tmp_path / "model", extra=record)
    status, output, errors = run(capsys, "--model", model, "--text", "good film", "--text-pair", "bad plot")
    assert (status, "warning" in errors) == (0, False)
    header, (line,) = table(output)
    assert header[-2:] == ["text", "text_pair"]
    assert line[-2:] == ["good film", "bad plot"]
    loaded, tokenizer = kd.BertForSequenceClassification.from_pretrained(model), kd.AutoTokenizer.from_pretrained(model)
    (logits,) = loaded(**tokenizer(["good film"], ["bad plot"])).logits.astype(np.float64)
    assert float(line[2]) == pytest.approx(np.exp(logits[0]) / np.exp(logits).sum(), rel=1e-5)
    pipe(monkeypatch, "good film\tbad plot\n")
    assert run(capsys, "--model", model, "--columns", "claim,proof")[1] == output
    assert "the model was trained on pairs of texts; expected --text-pair beside each --text" in error_of(
        capsys, "--model", model, "--text", "good film"
    )


def test_json_of_typed_texts_is_what_a_pipeline_returns(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    classify = kd.pipeline("text-classification", str(model))
    _, output, _ = run(capsys, "--model", model, "--text", *TEXTS, "--json")
    assert json.loads(output)["predictions"] == classify(TEXTS)
    _, output, _ = run(capsys, "--model", model, "--text", *TEXTS, "--top-k", "2", "--json")
    assert (output.count("\n"), json.loads(output)["predictions"]) == (1, classify(TEXTS, top_k=2))


def test_the_best_labels(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    """Compared with the table of all scores; more than there are labels are all."""
    _, output, _ = run(capsys, "--model", model, "--text", *TEXTS)
    of_all = [dict(zip(["negative", "positive"], map(float, line[2:4]), strict=True)) for line in table(output)[1]]
    for count in (1, 2, 9):
        header, lines = table(run(capsys, "--model", model, "--text", *TEXTS, "--top-k", count)[1])
        columns = ["label_1", "score_1", "label_2", "score_2"][: 2 * count]
        assert header == ["index", "prediction", *columns, "text"]
        for line, scores in zip(lines, of_all, strict=True):
            ranked = sorted(scores, key=lambda name: -scores[name])[:count]
            assert line[1] == ranked[0]
            assert line[2:-1:2] == ranked
            assert [float(score) for score in line[3:-1:2]] == [scores[name] for name in ranked]


def test_a_threshold_of_one_label_leaves_unsure_rows_without_a_prediction(
    capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    _, lines = table(run(capsys, "--model", model, "--text", *TEXTS)[1])
    best = [max(map(float, line[2:4])) for line in lines]
    between = (min(best) + max(best)) / 2
    _, above = table(run(capsys, "--model", model, "--text", *TEXTS, "--threshold", between)[1])
    assert [line[1] for line in above] == [
        line[1] if score > between else "" for line, score in zip(lines, best, strict=True)
    ]
    assert {line[1] for line in above} > {""}
    assert [line[2:] for line in above] == [line[2:] for line in lines]


def test_a_threshold_of_several_labels_goes_before_the_models(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    record: Any = {"kdistill": {"threshold": 0.999}}
    model = write_model(tmp_path / "model", problem_type="multi_label_classification", extra=record)
    words = ["--model", model, "--text", *TEXTS]
    _, lines = table(run(capsys, *words)[1])
    assert {line[1] for line in lines} == {""}
    scores = np.array([[float(score) for score in line[2:4]] for line in lines])
    between = float(np.median(scores))
    _, lines = table(run(capsys, *words, "--threshold", between)[1])
    names = ["negative", "positive"]
    assert [line[1] for line in lines] == [
        ",".join(name for name, score in zip(names, of, strict=True) if score > between) for of in scores
    ]
    assert json.loads(run(capsys, *words, "--json")[1])["predictions"] == [[]] * 5
    (first, *_) = json.loads(run(capsys, *words, "--threshold", 1e-9, "--json")[1])["predictions"]
    assert [label["score"] for label in first] == sorted((label["score"] for label in first), reverse=True)
    assert {label["label"] for label in first} == set(names)


def test_options_that_do_not_fit_the_model_or_each_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    numbers = write_model(tmp_path / "numbers", id2label={0: "score"}, problem_type="regression")
    for option in ("--threshold 0.5", "--top-k 1"):
        found = error_of(capsys, "--model", numbers, "--text", "good film", *option.split())
        assert (
            f"{option}, and the model gives numbers, which have no labels; leave it out".replace(" ", " is ", 1)
            in found
        )
    for value in ("0", "1", "-0.5", "nan"):
        assert f"--threshold is {float(value)}; expected a probability between 0 and 1" in error_of(
            capsys, "--model", model, "--text", "good film", f"--threshold={value}"
        )
    for option, expected in (("--top-k", "at least 1"), ("--digits", "1 to 17")):
        assert f"{option} is 0; expected {expected}" in error_of(capsys, "--model", model, "--text", "a", option, "0")
    rows = write_rows(tmp_path / "rows.tsv", 3)
    assert "--data and --text are given; expected one of the two" in error_of(
        capsys, "--model", model, "--data", rows, "--text", "good film"
    )
    assert "--text-pair is given 2 times and --text 1; expected as often" in error_of(
        capsys, "--model", model, "--text", "good film", "--text-pair", "one", "two"
    )


def test_json_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path) -> None:
    words = ["--model", model, "--text", *TEXTS, "--output", tmp_path / "out.jsonl"]
    assert run(capsys, *words)[0] == 0
    classify = kd.pipeline("text-classification", str(model))
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["index"] for record in records] == list(range(5))
    assert [record["text"] for record in records] == TEXTS
    for record, result in zip(records, classify(TEXTS, top_k=None), strict=True):
        assert record["prediction"] == result[0]["label"]
        assert record["scores"] == {label["label"]: label["score"] for label in result}
    assert run(capsys, *words, "--top-k", 1)[0] == 0
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["top"] for record in records] == classify(TEXTS, top_k=1)


def test_a_regression_keeps_its_table_and_has_the_text_last(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = write_model(tmp_path / "numbers", id2label={0: "score"}, problem_type="regression")
    header, lines = table(run(capsys, "--model", model, "--text", *TEXTS, "--digits", 17)[1])
    assert header == ["index", "prediction", "text"]
    logits = [of["score"] for of in kd.pipeline("text-classification", str(model))(TEXTS)]
    assert [float(line[1]) for line in lines] == logits


def test_a_model_trained_on_another_column_reads_plain_text_in_silence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nobody named the column of a .txt file or of a piped text, so there is nothing to report."""
    record: Any = {"kdistill": {"text_column": "review"}}
    model = write_model(tmp_path / "model", extra=record)
    (tmp_path / "lines.txt").write_text("good film\n")
    for words in (["--data", tmp_path / "lines.txt"], ["--text", "good film"]):
        status, _, errors = run(capsys, "--model", model, *words, "--json")
        assert (status, errors) == (0, "")


def test_rows_of_token_ids_have_no_text(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path) -> None:
    (tmp_path / "ids.jsonl").write_text(json.dumps({"input_ids": [2, 5 + len(WORDS) - 1, 3]}) + "\n")
    header, lines = table(run(capsys, "--model", model, "--data", tmp_path / "ids.jsonl")[1])
    assert header == ["index", "prediction", "score_negative", "score_positive"]
    expected = small_model().config.num_labels
    assert len(lines[0]) == 2 + expected
