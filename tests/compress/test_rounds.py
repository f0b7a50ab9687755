"""`kdistill prune --rounds`: what an interrupt leaves, and what is known of a run that pruned."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.small_run import write_model, write_rows

from kdistill.cli import prune as command
from kdistill.cli import recover
from kdistill.cli.main import main
from kdistill.system.files import run_lock
from kdistill.train.directory import RunDirectory

_TIMES = ("runtime", "second", "output")


def written(directory: Path) -> list[str]:
    """Write a model and rows, and return the command without its output: two rounds of two epochs, checkpoints each."""
    model, rows = write_model(directory / "model", num_attention_heads=4), write_rows(directory / "rows.tsv", 16)
    given = f"prune --model {model} --data {rows} --eval {rows} --heads 0.25 --feed-forward 0.5 --vocabulary"
    return f"{given} --rounds=2 --num-train-epochs 2 --json".split()


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return written(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path, dict[str, Any]]:
    """The command, what it leaves when nothing interrupts it, and its figures."""
    directory = tmp_path_factory.mktemp("whole")
    words = written(directory)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*words, "--output", str(directory / "out")]) == 0
    return words, directory / "out", without_times(printed.getvalue())


def without_times(printed: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return {name: value for name, value in figures.items() if not any(word in name for word in _TIMES)}


def pruned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(list(words)) == 0, capsys.readouterr().err
    return without_times(capsys.readouterr().out)


def interrupted(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, words: list[str], *, after: bool = False
) -> int:
    """Run a command that is interrupted before a call of a function, or after it; return its status."""
    original, calls = getattr(owner, name), iter(range(1, 100))

    def counted(*given: Any, **named: Any) -> Any:
        now = next(calls) == call
        if now and not after:
            raise KeyboardInterrupt
        made = original(*given, **named)
        if now:
            raise KeyboardInterrupt
        return made

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, counted)
        return main(words)


@pytest.mark.parametrize(
    ("owner", "name", "call", "after", "begun"),
    [
        (command, "pruned", 1, False, False),
        (RunDirectory, "write_checkpoint", 1, True, True),
        (command, "pruned", 2, True, True),
        (RunDirectory, "write_checkpoint", 3, True, True),
        (recover, "_recover", 2, True, True),
    ],
    ids=["start", "first round", "before the second is told", "second round", "end"],
)
def test_what_is_interrupted_goes_on_and_ends_with_the_same_bits(
    tmp_path: Path,
    whole: tuple[list[str], Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    owner: Any,
    name: str,
    call: int,
    after: bool,
    begun: bool,
) -> None:
    words, left, expected = whole
    output = tmp_path / "out"
    again = [*words, "--output", str(output)]
    assert interrupted(monkeypatch, owner, name, call, again, after=after) == 130
    said = capsys.readouterr().err.strip()
    if begun:
        assert said.endswith("interrupted; what is done is kept. Repeat the command with --resume to continue")
        assert main(again) == 2
        assert "which holds rounds of prune; go on with them (--resume)" in capsys.readouterr().err
    else:
        assert said.endswith("kdistill: interrupted")
        assert not output.exists()
    assert pruned(capsys, *again, "--resume") == expected
    assert (output / "model.safetensors").read_bytes() == (left / "model.safetensors").read_bytes()
    assert not (output / "rounds").exists()


def test_what_was_killed_before_anything_was_told_begins_anew(
    tmp_path: Path, whole: tuple[list[str], Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    words, left, expected = whole
    output = tmp_path / "out"
    (output / "rounds" / "1" / "pruned").mkdir(parents=True)
    (output / f".prune.json.{2**31 - 1}-0123abcd.tmp").touch()  # it was being written
    again = [*words, "--output", str(output)]
    assert main(again) == 2
    assert "which holds files; expected a new directory" in capsys.readouterr().err
    assert pruned(capsys, *again, "--resume") == expected
    assert (output / "model.safetensors").read_bytes() == (left / "model.safetensors").read_bytes()


def test_two_processes_do_not_share_the_rounds(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    begun = tmp_path / "out" / "rounds" / "1" / "pruned"
    begun.mkdir(parents=True)
    with run_lock(tmp_path / "out" / "rounds"):
        assert main([*words, "--output", str(tmp_path / "out"), "--resume"]) == 2
    assert "rounds is in use by another run (process" in capsys.readouterr().err
    assert begun.is_dir()


def test_a_finished_command_is_left_as_it_is(
    whole: tuple[list[str], Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, left, expected = whole
    monkeypatch.setattr(command, "pruned", None)
    monkeypatch.setattr(recover, "_recover", None)
    assert pruned(capsys, *words, "--output", str(left), "--resume") == expected


def test_rounds_that_were_done_are_not_done_again(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = [*words, "--output", str(tmp_path / "out")]
    interrupted(monkeypatch, recover, "_recover", 2, again)
    runs: list[Path] = []
    recovering: Callable[..., None] = recover._recover

    def noted(place: Path, *given: Any) -> None:
        runs.append(place)
        recovering(place, *given)

    monkeypatch.setattr(recover, "_recover", noted)
    monkeypatch.setattr(command, "pruned", None)
    pruned(capsys, *again, "--resume")
    assert runs == [tmp_path / "out" / "rounds" / "2" / "pruned"]


def test_a_resumed_command_must_ask_for_the_same(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = [*words, "--output", str(tmp_path / "out"), "--resume"]
    interrupted(monkeypatch, recover, "_recover", 1, again)
    for changed, message in {
        ("--heads", "0.5"): "--heads is 0.5, and was 0.25 when the rounds in ",
        ("--rounds", "3"): "--rounds is 3, and was 2 when",
        ("--keep", "3"): "--keep is 3, and was None when",
        ("--label-column", "other"): "--label-column is other, and was None when",
    }.items():
        capsys.readouterr()
        assert main([*again, *changed]) == 2
        assert message in capsys.readouterr().err
    once = [word for word in again if word != "--rounds=2"]
    assert main(once) == 2
    assert "learns nothing; expected --rounds N" in capsys.readouterr().err


def test_a_report_finds_what_a_pruned_run_was_made_of(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = [word.removeprefix(f"{tmp_path}/") for word in words]
    pruned(capsys, *relative, "--output", "out")
    card = tmp_path / "out" / "README.md"
    assert "model, pruned" in card.read_text()
    told = (tmp_path / "out" / "command.txt").read_text()
    assert f", in {tmp_path}\nkdistill prune --model model --data rows.tsv" in told
    monkeypatch.chdir("/")
    assert main(["report", "--model", str(tmp_path / "out"), "--json"]) == 0, capsys.readouterr().err
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["n"] == figures["teacher"]["n"] == 16
    assert "model, pruned" in card.read_text()


def test_the_teacher_that_is_given_teaches_what_is_left(
    tmp_path: Path, whole: tuple[list[str], Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    words, *_ = whole
    other = write_model(tmp_path / "other", seed=2, hidden_size=8)
    output = tmp_path / "out"
    taught = pruned(capsys, *words, "--teacher", str(other), "--output", str(output))
    assert main(["evaluate", "--model", str(other), "--data", words[words.index("--data") + 1], "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"]
    assert taught["teacher_accuracy"] == accuracy
    assert "`other`" in (output / "README.md").read_text()
    assert main(["report", "--model", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["teacher"]["accuracy"] == accuracy


def test_a_report_on_a_model_that_no_run_left_says_what_measures_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 9)
    small = tmp_path / "small"
    assert main(["prune", "--model", str(model), "--data", str(rows), "--output", str(small), "--vocabulary"]) == 0
    capsys.readouterr()
    assert main(["report", "--model", str(small)]) == 2
    said = capsys.readouterr().err
    assert "which has no training_args.json; expected the output directory of a run" in said
    assert f"`kdistill evaluate --model {small} --data FILE`" in said
    assert main(["report", "--model", str(tmp_path / "nowhere")]) == 2
    assert "evaluate" not in capsys.readouterr().err
