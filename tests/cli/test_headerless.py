"""Every command with rows reads files without a header, parts of a JSON file and folders of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_run import sentences, write_model, write_pretrained

from kdistill.cli import main as cli

QUICK = ["--num-train-epochs", "1", "--per-device-train-batch-size", "8", "--learning-rate", "0.01", "--json"]


def figures(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[dict[str, Any], str]:
    assert cli.main([str(word) for word in words]) == 0
    output, said = capsys.readouterr()
    return json.loads(output.splitlines()[-1]), said


def test_a_run_on_files_without_a_header_and_everything_after_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The report, called elsewhere, reads the run's rows again, by the options in its command.txt."""
    monkeypatch.chdir(tmp_path)
    teacher = write_model(tmp_path / "teacher")
    parts = {"train": sentences(16), "dev": sentences(9, seed=1)}
    (tmp_path / "parts.json").write_text(json.dumps(parts))
    rows, columns = tmp_path / "parts.json#dev", ["--columns", "phrase,label", "--text-column", "phrase"]
    run = figures(
        capsys,
        *("distill", "--teacher", teacher, "--student", "L1-H8-A2", *columns, *QUICK),
        *("--train", "parts.json#train", "--eval", "parts.json#dev", "--output-dir", tmp_path / "out"),
    )[0]
    assert run["eval_n"] == 9
    model = ["--model", tmp_path / "out"]
    measured, said = figures(capsys, "evaluate", *model, "--data", rows, *columns[:2], "--json")
    assert (measured["accuracy"], said) == (run["eval_accuracy"], "")
    monkeypatch.chdir("/")
    report, _ = figures(capsys, "report", *model, "--json")
    assert report["n"] == 9
    assert figures(capsys, "predict", *model, "--data", rows, *columns[:2], "--json")[0]["n"] == 9
    assert figures(capsys, "bench", *model, "--data", rows, *columns[:2], "--rows", 4, "--json")[0]


def test_a_folder_of_texts_is_trained_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = write_pretrained(tmp_path / "model")
    for number, (text, label) in enumerate(sentences(12)):
        folder = tmp_path / "texts" / ("good" if label else "bad")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(text)
    out = ["--output-dir", tmp_path / "out"]
    rows = tmp_path / "texts"
    run, _ = figures(capsys, "finetune", "--model", model, "--train", rows, "--eval", rows, *out, *QUICK)
    assert run["eval_n"] == 12
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}


def test_several_labels_with_commas_and_names_in_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """GoEmotions' own form: text, ids with commas, a comment's id. Without names the ids give the labels."""
    model = write_pretrained(tmp_path / "model")
    labels = ["0", "1,2", "2", "0,1"]
    lines = [f"{text}\t{labels[row % 4]}\te{row}" for row, (text, _) in enumerate(sentences(12))]
    (tmp_path / "rows.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "names.txt").write_text("joy\nlove\nfear\n")
    words = ["finetune", "--model", model, "--train", tmp_path / "rows.tsv", "--eval", tmp_path / "rows.tsv"]
    words += ["--columns", "text,labels,id", "--problem-type", "multi_label_classification", *QUICK]
    for options, names in (
        (["--label-names", tmp_path / "names.txt"], ["joy", "love", "fear"]),
        ([], ["LABEL_0", "LABEL_1", "LABEL_2"]),
    ):
        out = tmp_path / names[0]
        run, said = figures(capsys, *words, *options, "--output-dir", out)
        assert (run["eval_n"], "not used" in said) == (12, False)
        config = json.loads((out / "config.json").read_text())
        assert (config["problem_type"], [*config["id2label"].values()]) == ("multi_label_classification", names)
