"""Full disks, directories that cannot be written: one error, and everything written before is still there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.resumable_run import result, run_python, trainer
from support.small_run import write_model, write_rows

from kdistill.system.files import verify_manifest

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
LIMIT = "[Errno 27] File too large"  # what a write beyond RLIMIT_FSIZE gives
FULL = "[Errno 28] No space left on device"


def check_kept(out: Path, expected: dict[str, Any]) -> None:
    """There are whole checkpoints, nothing half-written, and the run goes on to the same bits."""
    checkpoints = list(out.glob("checkpoint-*"))
    assert checkpoints
    assert [verify_manifest(checkpoint) for checkpoint in checkpoints] == [None] * len(checkpoints)
    assert not list(out.rglob(".*"))
    assert not (out / "model.safetensors").exists()
    trainer(out).train(resume_from_checkpoint=True)
    assert result(out) == expected


# After the first checkpoint, a file of this name is too large to be written again.
FILES_STAY_SMALL = """
import resource, sys
from pathlib import Path
from support.resumable_run import trainer
from kdistill.train.callbacks import TrainerCallback
out = Path(sys.argv[1])

class Limit(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        size = (out / f"checkpoint-{{state.global_step}}" / {file!r}).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))

trainer(out, callbacks=[Limit()]).train()
"""


@pytest.mark.parametrize("file", ["optimizer.safetensors", "model.safetensors"])
def test_a_file_that_may_not_grow_further(tmp_path: Path, resumable_result: dict[str, Any], file: str) -> None:
    code = f"import sys; sys.argv = ['', {str(tmp_path)!r}]" + FILES_STAY_SMALL.format(file=file)
    process = run_python(code)
    message = process.stderr.strip().splitlines()[-1]
    assert message.startswith(f"OSError: {LIMIT}: '{tmp_path}/.partial-checkpoint-"), process.stderr
    check_kept(tmp_path, resumable_result)


def mount(*arguments: str) -> None:
    command = ["mount", "-t", "tmpfs", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint and a bit."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount("-o", "size=256k", "tmpfs", str(disk))
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk(small_disk: Path, resumable_result: dict[str, Any]) -> None:
    out = small_disk / "out"
    run = trainer(out)
    with pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: '.*partial-checkpoint"):
        run.train()
    mount("-o", "remount,size=8m", "tmpfs", str(small_disk))
    check_kept(out, resumable_result)


def test_a_full_disk_under_a_command(small_disk: Path, tmp_path: Path) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 60)
    command = [sys.executable, "-m", "kdistill", "finetune", "--json", "--model", str(model), "--train", str(rows)]
    command += ["--eval", str(rows), "--output-dir", str(small_disk / "out"), "--num-train-epochs", "9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"kdistill: error: {FULL}: '{small_disk}/out/.partial-checkpoint-")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A directory without write permission."""
    unwritable = tmp_path / "unwritable"
    unwritable.mkdir(mode=0o555)
    return unwritable


# Permission bits do not stop root, so root gives up its capabilities (capset(2)) and is then an ordinary owner of its
# files. Becoming another user would not do: that user may not be able to read the checkout and its environment.
WITHOUT_RIGHTS = """
import ctypes, os, sys
from pathlib import Path
from support.resumable_run import trainer
out, os.environ["KDISTILL_CACHE"] = sys.argv[1:]
if os.getuid() == 0:
    version_3, this_process, nothing = 0x20080522, 0, [0] * 6
    libc = ctypes.CDLL(None, use_errno=True)
    header, capabilities = (ctypes.c_uint32 * 2)(version_3, this_process), (ctypes.c_uint32 * 6)(*nothing)
    if libc.capset(header, capabilities):
        raise OSError(ctypes.get_errno(), "capset")
trainer(Path(out)).train()
"""


def without_rights(out: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return run_python(f"import sys; sys.argv = ['', {str(out)!r}, {str(cache)!r}]" + WITHOUT_RIGHTS)


@pytest.mark.parametrize("name", ["", "new"])
def test_an_output_directory_that_cannot_be_written(unwritable: Path, tmp_path: Path, name: str) -> None:
    process = without_rights(unwritable / name, tmp_path / "cache")
    last = process.stderr.strip().splitlines()[-1]
    assert last == f"PermissionError: output_dir '{unwritable / name}' cannot be written: Permission denied"
    assert list(unwritable.iterdir()) == []


def test_a_teacher_cache_that_cannot_be_written(unwritable: Path, resumable_result: dict[str, Any]) -> None:
    """The run does without it."""
    out = unwritable.with_name("out")
    out.mkdir()
    process = without_rights(out, unwritable)
    assert process.returncode == 0, process.stderr
    assert "the teacher cache cannot be used ([Errno 13] Permission denied" in process.stderr
    assert result(out) == resumable_result
    assert list(unwritable.iterdir()) == []
