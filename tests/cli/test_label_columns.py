"""A label column that is not found, rows without a label, and columns that nobody reads: each is reported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_run import sentences, write_model

from kdistill.cli import main as cli

QUICK = ["--num-train-epochs", "1", "--per-device-train-batch-size", "8", "--eval-strategy", "no", "--json"]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_model(tmp_path / "teacher")


def write(path: Path, header: str, labels: list[str] | None = None) -> Path:
    rows = (f"{text},{label if labels is None else labels[row]}\n" for row, (text, label) in enumerate(sentences(12)))
    path.write_text(f"{header}\n" + "".join(rows))
    return path


def run(capsys: pytest.CaptureFixture[str], teacher: Path, train: Path, *words: str) -> tuple[int, str]:
    command = ["distill", "--teacher", teacher, "--student", "L1-H8-A2", "--train", train, *QUICK, *words]
    status = cli.main([str(word) for word in [*command, "--output-dir", train.with_suffix("")]])
    return status, capsys.readouterr().err


COLUMNS = [("text,Label", "Label"), ("text, label", "' label'"), ("text,sentiment", "sentiment"), ("text,zzz", "zzz")]


@pytest.mark.parametrize(("header", "column"), COLUMNS)
@pytest.mark.parametrize("alpha", ["1", "0.5"])
def test_labels_that_are_not_found_end_a_run_that_wants_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path, header: str, column: str, alpha: str
) -> None:
    status, said = run(capsys, teacher, write(tmp_path / "a.csv", header), "--alpha", alpha)
    assert status == 2
    (error,) = (line for line in said.splitlines() if "error" in line)
    assert f"alpha is {float(alpha)}, and no training row has a label" in error
    assert f"did you mean --label-column {column} " in error
    assert error.endswith(" (in Python: rename the column to 'label')?")
    assert not (tmp_path / "a" / "config.json").exists()


@pytest.mark.parametrize(("header", "column"), COLUMNS)
def test_labels_that_are_not_found_are_reported_where_nobody_asked_for_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path, header: str, column: str
) -> None:
    status, said = run(capsys, teacher, write(tmp_path / "a.csv", header))
    assert status == 0
    warnings = [line for line in said.splitlines() if line.startswith("kdistill: warning: ")]
    assert any(f"{header.split(',')[1]!r} is not used" in line and "no label column" in line for line in warnings)
    (unlabelled,) = (line for line in warnings if "no training row has a label" in line)
    assert f"did you mean --label-column {column} " in unlabelled
    assert unlabelled.endswith(" (in Python: rename the column to 'label')?")
    assert said.count("did you mean") == 1
    status, said = run(capsys, teacher, write(tmp_path / "b.csv", header), "--label-column", header.split(",")[1])
    assert (status, "used" in said, "label" in said.replace("frequent label", "")) == (0, False, False)


def test_rows_without_a_label_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label", ["0", "-", "", "1"] * 3)
    status, said = run(capsys, teacher, path)
    assert status == 0
    assert f"3 of 12 rows of {path} have the label '-', which is read as a missing label" in said
    assert "6 of 12 training rows have no label; on these the student learns from the teacher only" in said
    status, said = run(capsys, teacher, write(tmp_path / "b.csv", "text,label", [""] * 12), "--alpha", "1")
    assert status == 2
    assert said.endswith(
        "alpha is 1.0, but no training row has a label; expected labels, or alpha 0 to learn from the teacher only; "
        f"label of {tmp_path / 'b.csv'} is empty in every row\n"
    )


def test_rows_of_the_teacher_alone_need_no_warning_with_alpha_0(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "".join(f"{text}\n" for text, _ in sentences(12)))
    assert run(capsys, teacher, path, "--alpha", "0") == (0, "")


def test_evaluation_rows_without_a_label_name_the_column_that_was_meant(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path
) -> None:
    path = write(tmp_path / "a.csv", "text,Label")
    assert cli.main(["evaluate", "--model", str(teacher), "--data", str(path)]) == 2
    assert "did you mean --label-column Label " in capsys.readouterr().err
    path = write(tmp_path / "b.csv", "Text,label")
    assert cli.main(["evaluate", "--model", str(teacher), "--data", str(path)]) == 2
    assert "did you mean --text-column Text?" in capsys.readouterr().err


def test_a_prediction_needs_no_labels_and_suggests_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path
) -> None:
    path = write(tmp_path / "a.csv", "text,topic")
    assert cli.main(["predict", "--model", str(teacher), "--data", str(path), "--json"]) == 0
    said = capsys.readouterr().err
    assert "the column 'topic' is not used" in said
    assert "did you mean" not in said


def test_a_misspelt_label_column_gets_a_suggestion(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path
) -> None:
    path = write(tmp_path / "a.csv", "text,verdict")
    assert run(capsys, teacher, path, "--label-column", "verdicts")[0] == 2
    assert cli.main(["evaluate", "--model", str(teacher), "--data", str(path), "--label-column", "verdicts"]) == 2
    assert "its columns are text, verdict; did you mean 'verdict'?" in capsys.readouterr().err


def test_tables_with_another_delimiter_and_with_quotes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path
) -> None:
    """Evaluated, and trained on, reported and repeated by command.txt."""
    plain = tmp_path / "plain.jsonl"
    plain.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in sentences(12)))
    for name, separator, quote, words in (
        ("a.csv", ";", "", ["--delimiter", ";"]),
        ("a.tsv", "\t", '"', ["--quoted"]),
        ("b.csv", "\t", "", ["--delimiter", "tab", "--no-quoted"]),
    ):
        path = tmp_path / name
        lines = (f"{quote}{text}{quote}{separator}{label}\n" for text, label in sentences(12))
        path.write_text(f"text{separator}label\n" + "".join(lines))
        figures = []
        for data, options in ((plain, []), (path, words)):
            assert cli.main(["evaluate", "--model", str(teacher), "--data", str(data), "--json", *options]) == 0
            figures.append(json.loads(capsys.readouterr().out)["loss"])
        assert figures[0] == figures[1]
    out = tmp_path / "out"
    command = ["finetune", "--model", teacher, "--train", path, "--eval", path, *words, *QUICK, "--output-dir", out]
    assert cli.main([str(word) for word in command]) == 0
    assert "--delimiter tab --no-quoted" in (out / "command.txt").read_text()
    assert cli.main(["report", "--model", str(out), "--json"]) == 0


def test_predictions_for_standard_output_and_through_a_link(tmp_path: Path, teacher: Path) -> None:
    data = write(tmp_path / "a.csv", "text,label")
    (tmp_path / "link").symlink_to("target")
    for output, written in (("/dev/stdout", "out"), ("link", "target")):
        command = [sys.executable, "-m", "kdistill", "predict", "--model", teacher, "--data", data, "--output", output]
        with (tmp_path / "out").open("w") as file:
            subprocess.run(list(map(str, command)), check=True, cwd=tmp_path, stdout=file, stderr=subprocess.DEVNULL)
        lines = (tmp_path / written).read_text().splitlines()
        assert (len(lines), lines[0].split("\t")[:2]) == (13, ["index", "prediction"])
    assert (tmp_path / "link").is_symlink()
