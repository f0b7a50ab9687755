"""Standard streams that are closed, full or without a reader, and logs on a full disk: the training goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.resumable_run import run_python
from support.small_run import write_model, write_rows

# Progress in lines without a pause between them, and no terminal.
LOUD = """
import sys
from kdistill.system import progress
progress.SECONDS_BETWEEN_LINES = progress.SHORTEST_SUMMED_UP = 0
from kdistill.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 16)
    words = ["finetune", "--model", str(model), "--train", str(rows), "--eval", str(rows), "--num-train-epochs", "2"]
    words += ["--output-dir", str(tmp_path / "out"), "--per-device-train-batch-size", "4"]
    return [sys.executable, "-P", "-c", LOUD, *words]


def assert_finished(out: Path) -> None:
    assert json.loads((out / "all_results.json").read_text())["eval_n"] == 16
    assert (out / "trainer_state.json").is_file()
    assert (out / "README.md").is_file()
    assert not list(out.glob(".*"))


def in_a_shell(command: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would redirect it; the exit status is that of the command alone."""
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(exec 0<&-)"])
def test_without_stderr_the_figures_are_printed(tmp_path: Path, command: list[str], redirection: str) -> None:
    done = in_a_shell([*command, "--json"] if redirection == "2>&-" else command, redirection)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert_finished(tmp_path / "out")


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_without_stdout_the_run_ends_and_one_line_says_that_the_figures_are_lost(
    tmp_path: Path, command: list[str], redirection: str
) -> None:
    done = in_a_shell([*command, "--json"], redirection)
    assert done.returncode == 1
    why = {">&-": "Bad file descriptor", ">/dev/full": "No space left on device"}[redirection]
    assert done.stderr == f"kdistill: error: the results could not be written: {why}\n"
    assert_finished(tmp_path / "out")


@pytest.mark.parametrize("redirection", [">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_with_neither_the_run_ends(tmp_path: Path, command: list[str], redirection: str) -> None:
    """No file of the run takes the number of a closed stream, into which something might be printed."""
    done = in_a_shell(command, redirection)
    assert done.returncode == 1
    assert_finished(tmp_path / "out")


def test_a_reader_that_leaves_after_a_line_ends_nothing(tmp_path: Path, command: list[str]) -> None:
    done = in_a_shell(command, "2>&1 | head -1")
    assert len(done.stdout.splitlines()) == 1
    assert done.returncode == 141
    assert_finished(tmp_path / "out")


def test_a_reader_of_figures_that_is_gone_is_status_141(tmp_path: Path, command: list[str]) -> None:
    done = in_a_shell(command, "| true")
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert_finished(tmp_path / "out")


IN_PYTHON = """
import os, sys, warnings
from pathlib import Path
from support.small_run import run_fields, small_dataset, small_model
from kdistill import Trainer, TrainingArguments
from kdistill.system import progress
progress.SECONDS_BETWEEN_LINES = progress.SHORTEST_SUMMED_UP = 0
{before}
args = TrainingArguments(**run_fields(Path({place!r}), {{"disable_tqdm": False}}))
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    Trainer(small_model(), args, train_dataset=small_dataset(16), eval_dataset=small_dataset(8)).train()
Path({place!r}, "warned").write_text("\\n".join(str(warning.message) for warning in warned))
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("sys.stderr = None", ""),
        ("sys.stderr.close()", ""),
        ("os.dup2(os.open('/dev/full', os.O_WRONLY), 2)", "No space left on device"),
        ("r, w = os.pipe(); os.close(r); os.dup2(w, 2)", "Broken pipe"),
    ],
)
def test_in_python_progress_ends_with_a_warning_and_the_run_does_not(tmp_path: Path, before: str, said: str) -> None:
    run_python(IN_PYTHON.format(before=before, place=str(tmp_path)))
    assert (tmp_path / "out" / "trainer_state.json").is_file()
    warned = (tmp_path / "warned").read_text()
    assert ("the progress of train is no longer shown" in warned) == bool(said)
    assert said in warned


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few kilobytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("report_to", ["files", "all"])
@pytest.mark.parametrize("room", [0, 4096])
def test_logs_on_a_full_disk_end_and_the_training_does_not(
    tmp_path: Path, small_disk: Path, command: list[str], report_to: str, room: int
) -> None:
    (small_disk / "filler").write_bytes(b"x" * (8192 - room))
    command += ["--logging-dir", str(small_disk / "logs"), "--logging-strategy", "steps", "--logging-steps", "1"]
    done = subprocess.run(
        [*command, "--num-train-epochs", "12", "--json", "--report-to", report_to],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "end here, and the training goes on" in line]
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    assert "Traceback" not in done.stderr
    assert_finished(tmp_path / "out")


def test_a_logging_directory_that_is_a_file_ends_the_logs_alone(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [*command, "--json", "--logging-dir", str(tmp_path / "file")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "the training goes on" in done.stderr
    assert_finished(tmp_path / "out")


def test_a_closed_stream_is_of_the_process_and_not_of_its_caller() -> None:
    """What `main` does to streams that are whole is nothing."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from kdistill.cli.main import main; main(['info']); print('after')"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout.endswith("after\n")
