"""`kdistill bench --export`: one process a program, and what is said of those that do not run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.small_run import small_config, small_model, write_model, write_rows
from support.small_texts import language_model

import kdistill as kd
from kdistill.bench import exports
from kdistill.bench.other_runtimes import CannotRunError, load_torch, padded
from kdistill.bench.outputs import KeptOutputs
from kdistill.cli import main as cli
from kdistill.data.dataset import Dataset


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 2, "PAUSE_SECONDS": 0.0, "SINGLES": 3}.items():
        monkeypatch.setattr(exports, name, value)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    return cli.main(["bench", *map(str, words)]), *capsys.readouterr()


def test_each_program_has_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 20)
    monkeypatch.setattr(exports, "find_spec", lambda package: None)  # as if onnx were not installed
    programs = ("kdistill-float32", "artefact", "onnxruntime-float32")
    status, output, errors = run(capsys, "--model", model, "--data", rows, "--json", "--export", *programs)
    assert (status, errors) == (0, "")
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert (figures["rows"], figures["threads"]) == (20, kd.get_num_threads())
    own, artefact, graph = figures["measured"]
    assert graph == {
        "model": str(model),
        "program": programs[2],
        "threads": kd.get_num_threads(),
        "left_out": "not installed (onnx)",
    }
    labels = [int(line.split("\t")[1]) for line in rows.read_text().splitlines()[1:]]
    texts = [line.split("\t")[0] for line in rows.read_text().splitlines()[1:]]
    loaded, tokenizer = (
        kd.AutoModelForSequenceClassification.from_pretrained(model),
        kd.AutoTokenizer.from_pretrained(model),
    )
    answers = loaded.forward([tokenizer(text)["input_ids"] for text in texts]).argmax(axis=1)
    assert own["metrics"]["accuracy"] == (answers == labels).mean()
    assert own["metric"] == artefact["metric"] == "accuracy"
    assert own["bytes"] == (model / "model.safetensors").stat().st_size
    assert 0 < artefact["bytes"] != own["bytes"]
    for of in (own, artefact):
        assert of["p99_ms"] >= of["median_ms"] > 0
        assert min(of["rows_per_second"], of["alone_per_second"]) > 0
        assert of["start_seconds"] > 0
        assert of["peak_bytes"] > 1 << 24  # an interpreter with NumPy


def test_the_table_names_the_cpu_and_what_did_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exports, "find_spec", lambda package: None)
    words = ("--model", "L1-H8-A2", "--rows", 5, "--batch-size", 2, "--threads", 1)
    status, output, _ = run(capsys, *words, "--export", "kdistill-int8", "openvino-int8")
    assert status == 0
    head, _, titles, line, own, _, left_out = output.splitlines()
    assert head == f"L1-H8-A2: 5 rows, batch size 2, 1 thread, {exports.cpu_name()}"
    assert [cell.strip() for cell in titles.split("|")[1:-1]][::4] == ["program", "no labels"]
    assert own.startswith("| kdistill-int8 | ")
    assert len(titles) == len(line) == len(own)
    assert left_out == "openvino-int8: not installed (onnx)"


def test_a_tagger_is_measured_on_the_tags_of_rows_and_on_rows_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "model"))
    tagger = kd.BertForTokenClassification(small_config(id2label={0: "O", 1: "B-x"}))
    tagger.save_pretrained(tmp_path / "tagger")
    tokenizer.save_pretrained(tmp_path / "tagger")
    row = {"tokens": ["good", "film"], "tags": ["O", "B-x"]}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    words = ("--model", tmp_path / "tagger", "--export", "kdistill-float32", "--rows", 3, "--json")
    ((of_rows,), (made_up,)) = (
        json.loads(run(capsys, *words, *data)[1].splitlines()[-1])["measured"]
        for data in (("--data", tmp_path / "rows.jsonl"), ())
    )
    tags = tagger.forward([tokenizer("good film")["input_ids"]])[1:3].argmax(axis=1)
    assert of_rows["metrics"]["accuracy"] == (tags == [0, 1]).mean()
    assert (made_up["metrics"], made_up["metric"]) == ({}, None)
    assert made_up["rows_per_second"] > 0


def test_an_artefact_that_falls_back_to_float32_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows, artefact = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 9), tmp_path / "int8"
    kd.quantize(model, rows, artefact)
    tensors = load_file(artefact / "model.safetensors")
    tensors["golden.logits"] = tensors["golden.logits"] + np.float32(1)
    save_file(tensors, artefact / "model.safetensors")
    words = ("--model", artefact, "--data", rows, "--export", "kdistill-int8", "artefact")
    measured = json.loads(run(capsys, *words, "--json")[1].splitlines()[-1])["measured"]
    assert "does not give its golden logits in int8 here" in measured[0]["warnings"][0]
    assert measured[1]["left_out"] == "cannot run it: it is in int8 already"


def test_a_process_that_dies_is_said_to_have_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    figures = json.loads(run(capsys, "--model", "L1-H8-A2", "--rows", 5, "--export", "kdistill-int8", "--json")[1])
    assert figures["measured"][0]["left_out"] == "failed: its process ended with status -9"


def test_a_process_that_dies_in_a_round_leaves_the_others_their_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure, dying = exports._Process.measure, iter([False, True, False])

    def one_dies(process: exports._Process) -> None:
        if next(dying):
            process._process.kill()
        measure(process)

    monkeypatch.setattr(exports._Process, "measure", one_dies)
    words = ("--model", "L1-H8-A2", "--rows", 5, "--export", "kdistill-float32", "kdistill-int8", "--json")
    lives, died = json.loads(run(capsys, *words)[1])["measured"]
    assert lives["rows_per_second"] > 0
    assert died == {
        "model": "L1-H8-A2",
        "program": "kdistill-int8",
        "threads": kd.get_num_threads(),
        "left_out": "failed: its process ended with status -9",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--export", "all", "--dtype", "int8"], "--dtype is given beside --export"),
        (["--variants", "L1-H8-A2"], "--variants is given without --export"),
        (["--export", "tensorrt"], "argument --export: invalid choice: 'tensorrt'"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    status, output, errors = run(capsys, "--model", "L1-H8-A2", *words)
    assert (status, output) == (2, "")
    assert message in errors


def test_few_words_of_a_language_model_are_kept_of_the_logits_of_all() -> None:
    model = language_model(vocab_size=200)
    kept = KeptOutputs.of(model)
    logits = model.forward([[2, 5, 3]])
    np.testing.assert_array_equal(kept(logits), logits[:, ::3])
    assert (kept.width, kept.per_token) == (67, True)
    assert kept(logits).base is None  # nothing holds the others in memory
    assert KeptOutputs.of(small_model()) == (2, False, 1)


def test_what_transformers_has_no_form_for_is_told_by_the_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", object())  # not used before the refusal
    for field, value in {"pruned_heads": {1: [0]}, "intermediate_sizes": [8, 32]}.items():
        small_model(**{field: value}).save_pretrained(tmp_path / field)
        with pytest.raises(CannotRunError, match=f"its config.json has {field}, and in transformers"):
            load_torch(tmp_path / field)


def test_padded_keeps_the_types_of_pairs() -> None:
    ids, types = np.arange(1, 6, dtype=np.int32), np.array([0, 1, 1, 0, 1], np.int32)
    rows = Dataset(ids, types, np.array([0, 3, 5]), np.zeros(2, np.int64))
    batch = padded(rows, np.array([0, 1]))
    assert batch.types is not None
    assert batch.types.tolist() == [[0, 1, 1], [0, 1, 0]]
    zeros = Dataset(ids, np.zeros_like(types), rows.starts, rows.labels)
    assert padded(zeros, np.array([1])).types is None
