"""The end of a run on a terminal: its table, where the run is, and commands that a shell takes as they are."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from support.small_run import write_model, write_rows

from kdistill.cli import ending
from kdistill.cli import main as cli

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")


@pytest.fixture(autouse=True)
def _inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("teacher"), 1)
    write_rows(Path("train.tsv"), 40)
    write_rows(Path("dev.tsv"), 21, seed=1)


def commands_in(output: str) -> list[list[str]]:
    """The commands below "next:" as a shell splits them."""
    text = output.partition("next:\n")[2].replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines()]


@pytest.mark.parametrize("directory", ["out", "with a space", "it's", "-dash", "a$b"])
def test_a_run_ends_with_a_table_and_commands_to_paste(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distill", "--teacher", "teacher", "--student", "L1-H16-A2", "--train", "train.tsv", "--eval", "dev.tsv"]
    assert cli.main([*words, f"--output-dir={directory}", "--num-train-epochs", "1"]) == 0
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert lines[0].split() == ["accuracy", "loss", "parameters", "MB", "sentences/s"]
    assert [line.split()[0] for line in lines[1:4]] == ["student", "teacher", "majority"]
    assert max(map(len, lines)) <= 110
    assert "eval_samples_per_second" not in output
    predict, report = commands_in(output)
    path = f"./{directory}" if directory.startswith("-") else directory
    assert predict == ["kdistill", "predict", "--model", path, "--text", "..."]
    assert report == ["kdistill", "report", "--model", path]
    assert cli.main(report[1:]) == 0


def test_pairs_of_texts_are_predicted_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"good {word}\tbad {word}\t{number % 2}\n" for number, word in enumerate(["film", "plot"] * 8))
    Path("pairs.tsv").write_text(f"sentence1\tsentence2\tlabel\n{rows}")
    words = ["finetune", "--model", "teacher", "--train", "pairs.tsv", "--eval", "pairs.tsv", "--output-dir", "out"]
    assert cli.main([*words, "--num-train-epochs", "1"]) == 0
    predict, _ = commands_in(capsys.readouterr().out)
    assert predict == ["kdistill", "predict", "--model", "out", "--data", "pairs.tsv"]
    assert cli.main(predict[1:]) == 0


def test_pairs_of_a_file_without_a_header_are_predicted_as_they_were_read(capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f'"good {word}"|bad {word}|{number % 2}\n' for number, word in enumerate(["film", "plot"] * 8))
    Path("pairs.tsv").write_text(rows)
    form = ["--columns", "sentence1,sentence2,label", "--delimiter", "|", "--quoted"]
    words = ["finetune", "--model", "teacher", "--train", "pairs.tsv", "--output-dir", "out", *form]
    assert cli.main([*words, "--num-train-epochs", "1"]) == 0
    predict, _ = commands_in(capsys.readouterr().out)
    assert predict == ["kdistill", "predict", "--model", "out", "--data", "pairs.tsv", *form]
    assert cli.main(predict[1:]) == 0


def test_a_long_command_is_cut_between_options() -> None:
    words = ["kdistill", "distill", *(word for n in range(12) for word in (f"--option-{n}", f"a value {n}"))]
    text = ending._to_paste(words)
    lines = text.splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 100
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert shlex.split(text.replace("\\\n", " ")) == words


def test_outcomes_of_trials_in_words() -> None:
    trials = {"complete": 3, "fail": 1, "interrupted": 2}
    assert ending.outcomes_text(trials) == "3 complete, 1 failed, 2 interrupted"


def test_a_warning_is_given_once_by_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train.tsv", "dev.tsv"):
        Path(name).write_text(Path(name).read_text().replace("label", "verdict", 1))
    words = ["distill", "--teacher", "out", "--student", "L1-H16-A2", "--train", "train.tsv", "--eval", "dev.tsv"]
    write_rows(Path("first.tsv"), 40)
    first = ["finetune", "--model", "teacher", "--train", "first.tsv", "--output-dir", "out", "--max-steps", "1"]
    assert cli.main(first) == 0
    more = ["--label-column", "verdict", "--output-dir", "student", "--max-steps", "1"]
    assert cli.main([*words, *more]) == 0
    assert capsys.readouterr().err.count("--label-column is 'verdict'; the model was trained with 'label'") == 1


@pytest.mark.parametrize("moment", ["kdistill.report.summary.speed_at_a_glance", "kdistill.trainers.write_model_card"])
def test_an_interrupt_after_the_run_names_the_finished_model(
    moment: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, interrupt)
    words = ["finetune", "--model", "teacher", "--train", "train.tsv", "--eval", "dev.tsv", "--output-dir", "out"]
    assert cli.main([*words, "--num-train-epochs", "1"]) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "kdistill: interrupted after the run: out holds the finished model"
    assert cli.main(["evaluate", "--model", "out", "--data", "dev.tsv"]) == 0
