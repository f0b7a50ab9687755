"""`kdistill quantize`, and the commands that take what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.small_run import write_model, write_rows

from kdistill.cli.main import main


def figures_of(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, object]:
    assert main([*map(str, words), "--json"]) == 0
    figures: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return figures


def test_a_model_in_int8_goes_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 30)
    int8, as_before = tmp_path / "int8", tmp_path / "as before"
    made = figures_of(capsys, "quantize", "--model", model, "--data", rows, "--output", int8)
    figures_of(capsys, "quantize", "--model", model, "--data", rows, "--output", as_before, "--float-embeddings")
    assert made["n"] == 30
    assert made["bytes_before"] == (model / "model.safetensors").stat().st_size
    measured = figures_of(capsys, "evaluate", "--model", int8, "--data", rows)
    assert [measured["dtype"], measured["accuracy"]] == ["int8", made["after"]["accuracy"]]
    same = figures_of(capsys, "evaluate", "--model", as_before, "--data", rows)
    expected = figures_of(capsys, "evaluate", "--model", model, "--data", rows, "--dtype", "int8")
    assert same["loss"] == expected["loss"]
    labelled = figures_of(capsys, "label", "--teacher", int8, "--data", rows, "--output", tmp_path / "labelled.jsonl")
    assert labelled["dtype"] == "int8"
    assert figures_of(capsys, "predict", "--model", int8, "--text", "good film")["dtype"] == "int8"
    assert "kdistill int8" in figures_of(capsys, "bench", "--model", int8, "--rows", "4")["programs"]
    student = ["distill", "--teacher", int8, "--student", "L1-H8-A1", "--train", rows, "--eval", rows]
    assert figures_of(capsys, *student, "--output-dir", tmp_path / "run", "--max-steps", "2")["eval_n"] == 30
    for given, dtype in (("auto", "int8"), ("float32", "float32")):
        run = [*student, "--output-dir", tmp_path / given, "--max-steps", "2", "--teacher-dtype", given]
        figures_of(capsys, *run)
        assert json.loads((tmp_path / given / "trainer_state.json").read_text())["settled"]["teacher_dtype"] == dtype
    reported = figures_of(capsys, "report", "--model", tmp_path / "float32")
    assert reported["teacher"]["dtype"] == "float32"


def test_a_student_copies_the_layers_of_a_teacher_in_int8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 30)
    int8 = tmp_path / "int8"
    figures_of(capsys, "quantize", "--model", model, "--data", rows, "--output", int8)
    parts = ["--teacher", int8, "--train", rows, "--eval", rows]
    main([*map(str, ["doctor", *parts, "--student", "half", "--output-dir", tmp_path / "checked", "--json"])])
    findings = json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]
    assert [of["level"] for of in findings if of["check"] == "student"] == ["ok"]
    for number, student in enumerate((["--student", "half"], ["--student", "self"], ["--student", "L1-H16-A2"])):
        run = tmp_path / f"run {number}"
        figures_of(capsys, "distill", *parts, *student, "--output-dir", run, "--max-steps", "2")
        assert json.loads((run / "trainer_state.json").read_text())["settled"]["teacher_dtype"] == "int8"


def test_a_model_in_int8_is_not_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 10)
    figures_of(capsys, "quantize", "--model", model, "--data", rows, "--output", tmp_path / "int8")
    run = ["--train", rows, "--output-dir", tmp_path / "run"]
    for command in (
        ["finetune", "--model", tmp_path / "int8"],
        ["distill", "--teacher", model, "--student", tmp_path / "int8"],
        ["doctor", "--teacher", model, "--student", tmp_path / "int8", "--json"],
    ):
        assert main([*map(str, [*command, *run])]) > 0
        said = capsys.readouterr()
        assert "an int8 artefact, which only evaluates" in said.err + said.out
    assert not (tmp_path / "run").exists()


def test_an_output_that_holds_files_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 10)
    before = sorted(model.iterdir())
    assert main(["quantize", "--model", str(model), "--data", str(rows), "--output", str(model)]) == 2
    assert "--output is" in capsys.readouterr().err
    assert sorted(model.iterdir()) == before


def test_a_report_measures_an_artefact_and_completes_its_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 30)
    held, int8 = write_rows(tmp_path / "held.tsv", 20, seed=5), tmp_path / "int8"
    figures_of(capsys, "quantize", "--model", model, "--data", rows, "--output", int8)
    expected = {data: figures_of(capsys, "evaluate", "--model", int8, "--data", data) for data in (rows, held)}
    before = (int8 / "README.md").read_text()
    for _ in range(2):  # the second takes the place of the first
        found = figures_of(capsys, "report", "--model", int8, "--eval", rows, "--holdout", held)
    assert found["dtype"] == "int8"
    assert [found["accuracy"], found["loss"]] == [expected[rows]["accuracy"], expected[rows]["loss"]]
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert found["holdout"]["accuracy"] == expected[held]["accuracy"]
    assert found["file_bytes"] == (int8 / "model.safetensors").stat().st_size
    assert "training_dtype" not in found
    card = (int8 / "README.md").read_text()
    titles = [line for line in card.splitlines() if line.startswith("## ")]
    assert titles == ["## Results", "## Measured", "## Format", "## Use"]
    assert f"| accuracy | {found['accuracy']:.4f} |" in card
    begin, end = card.index("## Measured"), card.index("## Format")
    assert card[:begin] + card[end:] == before
    (int8 / "README.md").unlink()
    assert main(["report", "--model", str(int8), "--eval", str(rows)]) == 0
    assert "README.md, which quantize wrote, is missing, so the figures are not kept" in capsys.readouterr().err
    assert not (int8 / "README.md").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "--eval is missing"),
        (["--eval", "rows.tsv", "--seed-runs", "other"], "--seed-runs is given"),
        (["--eval", "rows.tsv", "--license", "mit"], "--license is given"),
        (["--eval", "unlabelled.txt"], "label"),
        (["--eval", "rows.tsv", "--plots"], "--plots is given"),
    ],
)
def test_a_report_on_an_artefact_needs_rows_and_nothing_of_a_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    error: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.tsv", 10)
    (tmp_path / "unlabelled.txt").write_text("good film\nbad plot\n")
    figures_of(capsys, "quantize", "--model", write_model(tmp_path / "model"), "--data", "rows.tsv", "--output", "int8")
    assert main(["report", "--model", "int8", *words]) > 0
    assert error in capsys.readouterr().err
