"""Real commands that SIGTERM ends at random moments and that are repeated until they are done."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.interrupts import Calls, counted
from support.resumable_run import run_python, untimed
from support.small_run import write_model, write_rows
from support.small_search import outcome

from kdistill import trainers  # noqa: F401  # so that the counted calls are not those of imports
from kdistill.cli import commands, distillation, main  # noqa: F401
from kdistill.search.study import open_journal

INTERRUPTS, TERMINATED = 4, 128 + signal.SIGTERM


def run(words: list[str], at: int | None, calls_file: str) -> None:
    """Run a command that gets SIGTERM before the nth call of a function in any thread; write how many it made."""
    calls = Calls(at, lambda: os.kill(os.getpid(), signal.SIGTERM))
    threading.setprofile(calls)
    with counted(calls):
        status = main.main(words)
    Path(calls_file).write_text(str(calls.count))
    sys.exit(status)


def command(words: list[str], directory: Path, at: int | None = None) -> tuple[int, str]:
    """Run a command in a process of its own; return its status and the last line of its standard error."""
    code = f"import test_interrupted_commands as it; it.run({words!r}, {at}, {str(directory / 'calls')!r})"
    process = run_python(code, KDISTILL_CACHE=str(directory / "cache"))
    assert process.returncode in (0, TERMINATED), process.stderr
    return process.returncode, (process.stderr.splitlines() or [""])[-1]


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    teacher, student = write_model(tmp_path / "teacher", seed=3), write_model(tmp_path / "student", seed=2)
    rows = write_rows(tmp_path / "rows.tsv", 60)
    return f"""--teacher {teacher} --student {student} --train {rows} --eval {rows} --per-device-train-batch-size 4
        --learning-rate 0.01 --disable-tqdm --report-to none""".split()


def interrupted_until_done(words: list[str], directory: Path, seed: int) -> list[str]:
    """Repeat a command with some interrupts, and then without; return what each interrupt has left to read."""
    calls, chance, said = int((directory / "calls").read_text()), random.Random(seed), []
    for _ in range(INTERRUPTS):
        # Before a third it begins; and it makes fewer calls than at first, as the teacher's logits are there by now.
        status, last = command(words, directory, chance.randrange(calls // 3, 3 * calls // 4))
        if status == 0:
            break
        said.append(last)
    assert command(words, directory)[0] == 0
    return said


def read(path: Path) -> Any:
    return untimed(json.loads(path.read_text()))


def test_a_distillation_ends_with_the_same_bits(tmp_path: Path, inputs: list[str]) -> None:
    words = ["distill", *inputs, "--enable-jit-checkpoint", "--num-train-epochs=3", "--gradient-accumulation-steps=2"]
    expected = tmp_path / "expected"
    assert command([*words, "--output-dir", str(expected)], tmp_path)[0] == 0
    out = tmp_path / "out"
    said = interrupted_until_done([*words, "--output-dir", str(out), "--resume"], tmp_path, seed=3)
    kept = [line for line in said if " is kept. Repeat the command with --resume to continue" in line]
    assert kept, said
    assert (out / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    for name in ("all_results.json", "trainer_state.json"):
        assert read(out / name) == read(expected / name)
    assert sorted(path.name for path in out.glob("checkpoint-*")) == sorted(
        path.name for path in expected.glob("checkpoint-*")
    )


def test_a_search_ends_with_the_same_study(tmp_path: Path, inputs: list[str]) -> None:
    optuna = pytest.importorskip("optuna")
    words = ["search", *inputs, "--n-trials=3"]
    expected, out = tmp_path / "expected", tmp_path / "out"
    assert command([*words, "--output-dir", str(expected)], tmp_path)[0] == 0
    said = interrupted_until_done([*words, "--output-dir", str(out)], tmp_path, seed=0)
    assert any("finished trials are kept" in line for line in said), said
    studies = [
        outcome(optuna.load_study(study_name="search", storage=open_journal(directory / "study.journal")))
        for directory in (expected, out)
    ]
    assert studies[0] == studies[1]
    assert (out / "best_run.toml").read_bytes() == (expected / "best_run.toml").read_bytes()
