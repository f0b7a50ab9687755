"""`kdistill encode`, and the commands that take its directory in place of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_run import sentences, write_model, write_pretrained, write_rows

from kdistill.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0, capsys.readouterr().err
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def test_a_model_is_fine_tuned_on_token_files_as_on_the_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, names = write_pretrained(tmp_path / "model"), {0: "pos", 1: "neg"}
    rows = [{"text": text, "label": names[label]} for text, label in sentences(20)]
    for part in range(2):
        lines = "".join(json.dumps(row) + "\n" for row in rows[part * 10 : part * 10 + 10])
        (tmp_path / f"part-{part}.jsonl").write_text(lines)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokens = tmp_path / "tokens"
    data = ("--data", tmp_path / "part-*.jsonl", "--tokenizer", model)
    figures = run(capsys, "encode", *data, "--output", tokens, "--shard-rows", 7, "--max-length", 16)
    assert (figures["n"], figures["shards"], figures["truncated"]) == (20, 4, 0)
    assert (figures["num_labels"], figures["labels"]) == (2, ["neg", "pos"])
    for name, source in (("text", tmp_path / "rows.jsonl"), ("tokens", tokens)):
        words = ("--train", source, "--eval", source, "--output-dir", tmp_path / name, "--max-steps", 3)
        run(capsys, "finetune", "--model", model, *words)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "text" / file).read_bytes() == (tmp_path / "tokens" / file).read_bytes()
    answers = [
        run(capsys, "evaluate", "--model", tmp_path / "text", "--data", of) for of in (tmp_path / "rows.jsonl", tokens)
    ]
    assert answers[0]["accuracy"] == answers[1]["accuracy"]


def test_doctor_looks_at_token_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    teacher, rows = write_model(tmp_path / "teacher"), write_rows(tmp_path / "rows.tsv", 20)
    run(capsys, "encode", "--data", rows, "--tokenizer", teacher, "--output", tmp_path / "tokens")
    words = ("--teacher", teacher, "--student", "L1-H8-A2", "--train", tmp_path / "tokens")
    main(["doctor", *map(str, words), "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]
    assert any("has 20 rows of 2 labels" in finding["text"] for finding in found)
    assert not [finding for finding in found if "token files" in finding["text"]]


def test_commands_that_read_rows_give_for_tokens_what_they_give_for_the_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 20)
    encode = ("encode", "--data", rows, "--tokenizer", model, "--output")
    run(capsys, *encode, tmp_path / "tokens")
    run(capsys, *encode, tmp_path / "with-texts", "--keep-texts")
    sources = {"rows.tsv": rows, "tokens": tmp_path / "tokens", "with-texts": tmp_path / "with-texts"}

    def outputs(ending: str, *words: Any) -> dict[str, bytes]:
        found = {}
        for name, source in sources.items():
            path = tmp_path / f"{words[0]}-{name}{ending}"
            run(capsys, *words, "--data", source, "--output", path)
            path = path / "model.safetensors" if path.is_dir() else path
            found[name] = path.read_bytes()
        return found

    predicted = outputs(".tsv", "predict", "--model", model)
    assert predicted["with-texts"] == predicted["rows.tsv"]
    without = [line.rsplit(b"\t", 1)[0] for line in predicted["rows.tsv"].splitlines()]
    assert predicted["tokens"].splitlines() == without
    for words in (("prune", "--model", model, "--heads", 0.5), ("quantize", "--model", model)):
        assert len(set(outputs("", *words).values())) == 1
    assert len(set(outputs(".npy", "label", "--teacher", model).values())) == 1
    shape = ("--student", "L1-H8-A2", "--tokenizer", model, "--teacher-logits", tmp_path / "label-tokens.npy")
    for name in ("rows.tsv", "tokens"):
        words = ("--train", sources[name], "--output-dir", tmp_path / f"student-{name}", "--max-steps", 2)
        run(capsys, "distill", *shape, *words)
    students = [tmp_path / f"student-{name}" / "model.safetensors" for name in ("rows.tsv", "tokens")]
    assert students[0].read_bytes() == students[1].read_bytes()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("label", "--teacher", "MODEL", "--data", "TOKENS", "--output", "new.jsonl"), "expected a name in .npy"),
        (
            ("prune", "--model", "MODEL", "--data", "TOKENS", "--output", "new", "--vocabulary"),
            "expected the file that they were made of",
        ),
        (("encode", "--data", "TOKENS", "--tokenizer", "MODEL", "--output", "new"), "expected the text that they were"),
        (("encode", "--data", "no-*.tsv", "--tokenizer", "MODEL", "--output", "new"), "no-*.tsv stands for no file"),
        (
            ("finetune", "--model", "MODEL", "--train", "TOKENS", "--output-dir", "new", "--columns", "text,label"),
            "need no --columns",
        ),
    ],
)
def test_what_token_files_cannot_do_is_one_error(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 8)
    run(capsys, "encode", "--data", rows, "--tokenizer", model, "--output", tmp_path / "tokens")
    places = {"MODEL": str(model), "TOKENS": str(tmp_path / "tokens")}
    assert main([places.get(word, word) for word in command]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert expected in error
    assert not (tmp_path / "new").exists()
