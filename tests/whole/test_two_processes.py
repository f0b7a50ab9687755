"""Two training processes at once: in one output directory, and on one teacher cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import TESTS
from support.resumable_run import result, run_python

from kdistill.distill import cache

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")

# Says that it is ready, and goes on when a line comes.
WAITS = """
import os, sys, warnings
from pathlib import Path
from support.resumable_run import trainer
from kdistill.train.callbacks import TrainerCallback
warnings.simplefilter("ignore")
out, os.environ["KDISTILL_CACHE"], event = sys.argv[1:]

class Wait(TrainerCallback):
    waited = False

def wait(*arguments, **keywords):
    if not Wait.waited:
        Wait.waited = True
        print("ready", flush=True)
        sys.stdin.readline()

setattr(Wait, event, wait)
trainer(Path(out), callbacks=[Wait()]).train()
"""


def waiting(out: Path, cache_directory: Path, event: str) -> subprocess.Popen[str]:
    """A run in a process of its own that waits, the first time that `event` happens, until it is told to go on."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", WAITS, str(out), str(cache_directory), event],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def go_on(*processes: subprocess.Popen[str]) -> None:
    """Let them run at the same time, to the end."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def test_one_output_directory(tmp_path: Path, resumable_result: dict[str, Any]) -> None:
    """The second process is refused, whatever it wants to do there, and the first does not notice."""
    out = tmp_path / "out"
    first = waiting(out, tmp_path / "cache", "on_save")
    code = """
from pathlib import Path
from support.resumable_run import trainer
trainer(Path({out!r}), overwrite_output_dir={overwrite}).train(resume_from_checkpoint={resume})
"""
    for overwrite, resume in ((False, True), (True, False), (False, False)):
        second = run_python(code.format(out=str(out), overwrite=overwrite, resume=resume))
        message = f"BlockingIOError: {out} is in use by another run (process {first.pid}); wait for it"
        assert second.stderr.strip().splitlines()[-1].startswith(message), second.stderr
    go_on(first)
    assert result(out) == resumable_result


def test_one_teacher_cache(tmp_path: Path, resumable_result: dict[str, Any]) -> None:
    """Both find it empty and fill it at the same time; both are right, and so is who comes later."""
    outs = [tmp_path / "one", tmp_path / "two"]
    go_on(*[waiting(out, tmp_path / "cache", "on_init_end") for out in outs])
    for out in outs:
        assert result(out) == resumable_result
    (file,) = cache.info(tmp_path / "cache")
    later = waiting(tmp_path / "later", tmp_path / "cache", "on_init_end")
    go_on(later)
    assert result(tmp_path / "later") == resumable_result
    assert cache.info(tmp_path / "cache") == [file], "the third process found everything there"
