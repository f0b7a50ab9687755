"""Atomic writing, manifests and the run lock, with real processes that are really killed."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT
from support.resumable_run import run_python

from kdistill.formats.safetensors import write_safetensors
from kdistill.system.files import (
    LockedError,
    atomic_path,
    atomic_write,
    delete_leftovers,
    file_lock,
    is_locked,
    json_text,
    read_json_object,
    run_lock,
    scratch_directory,
    verify_manifest,
    write_manifest,
    write_text,
)
from kdistill.system.names import as_file_name


@contextmanager
def another_process(script: str, *arguments: os.PathLike[str] | str) -> Iterator[subprocess.Popen[str]]:
    """Run Python code that prints a line and then waits; leave when it has printed, kill it at the end."""
    command = [
        sys.executable,
        "-c",
        f"import sys, time; {script}; print('ready', flush=True); time.sleep(60)",
        *arguments,
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"old")
    atomic_write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_atomic_write_gives_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def half_write(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt


def test_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt):
        half_write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_killed_write_keeps_the_old_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"old")
    script = (
        "from kdistill.system.files import atomic_path; writer = atomic_path(sys.argv[1]); "
        "temporary = writer.__enter__(); temporary.write_bytes(b'half')"
    )
    (tmp_path / ".a.tmp").write_bytes(b"somebody else's")
    with another_process(script, tmp_path / "a"):
        delete_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 3  # the writer is alive and may yet finish
    assert (tmp_path / "a").read_bytes() == b"old"
    delete_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.tmp", "a"]


def test_what_a_library_had_begun_is_deleted_with_its_directory(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from kdistill.system.files import scratch_directory; "
        "made = scratch_directory(Path(sys.argv[1])); (made.__enter__() / 'half').write_bytes(b'x')"
    )
    with another_process(script, tmp_path / "model.safetensors"):
        delete_leftovers(tmp_path)
        assert [path.name for path in tmp_path.rglob("*")][1:] == ["half"]
    delete_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())
    with scratch_directory(tmp_path / "a") as made:
        (made / "half").touch()
    assert not list(tmp_path.iterdir())


def test_file_is_synced_before_its_rename_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        events.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def record_replace(self: Path, target: Path) -> Path:
        events.append(f"replace {self.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    atomic_write(tmp_path / "a", b"x")
    temporary = events[0].removeprefix("fsync ")
    assert temporary.startswith(".a.")
    assert events == [f"fsync {temporary}", f"replace {temporary}", f"fsync {tmp_path.name}"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "runs" / "events").write_bytes(b"")
    write_manifest(tmp_path)
    return tmp_path


def test_manifest_of_an_untouched_directory_holds(checkpoint: Path) -> None:
    assert verify_manifest(checkpoint) is None
    assert json.loads((checkpoint / "manifest.json").read_text())["files"].keys() == {
        "model.safetensors",
        "runs/events",
    }
    write_manifest(checkpoint)
    assert verify_manifest(checkpoint) is None


@pytest.mark.parametrize("content", [b"Weights", b"weight", b"weights+"])
def test_manifest_names_the_damaged_file(checkpoint: Path, content: bytes) -> None:
    (checkpoint / "model.safetensors").write_bytes(content)
    assert "model.safetensors" in (verify_manifest(checkpoint) or "")


def test_manifest_names_the_missing_file(checkpoint: Path) -> None:
    (checkpoint / "runs" / "events").unlink()
    assert "events is missing" in (verify_manifest(checkpoint) or "")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"files": 3}', b'{"files": {}}', b"[" * 100_000])
def test_broken_manifest_is_damage_and_no_exception(checkpoint: Path, content: bytes) -> None:
    (checkpoint / "manifest.json").write_bytes(content)
    assert "manifest.json" in (verify_manifest(checkpoint) or "")


def test_a_lock_on_a_full_disk_is_named_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        with pytest.raises(OSError, match=rf"No space left on device: '{re.escape(str(tmp_path))}/\.kdistill\.lock'"):
            acquire(tmp_path)
    acquire(tmp_path)


def test_a_file_that_cannot_be_read_is_damage_and_no_exception(checkpoint: Path) -> None:
    """As on a failing disk: the best checkpoint of a run that has ended may be the one."""
    files = json.loads((checkpoint / "manifest.json").read_text())["files"]
    files["w" * 300] = files["model.safetensors"]  # a name that no disk takes
    (checkpoint / "manifest.json").write_text(json.dumps({"files": files}))
    assert "File name too long" in (verify_manifest(checkpoint) or "")


def test_absent_manifest_is_damage(tmp_path: Path) -> None:
    assert "manifest.json is missing" in (verify_manifest(tmp_path) or "")


HOLD = (
    "from pathlib import Path; from kdistill.system.files import run_lock; "
    "lock = run_lock(Path(sys.argv[1])); lock.__enter__()"
)


def acquire(directory: Path) -> None:
    with run_lock(directory):
        pass


def test_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    with (
        another_process(HOLD, tmp_path) as process,
        pytest.raises(BlockingIOError, match=rf"in use by another run \(process {process.pid}\)"),
    ):
        acquire(tmp_path)
    acquire(tmp_path)


def test_refused_process_leaves_the_lock_with_its_holder(tmp_path: Path) -> None:
    with another_process(HOLD, tmp_path):
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                acquire(tmp_path)


def test_lock_is_free_after_use_and_leaves_no_file(tmp_path: Path) -> None:
    for _ in range(2):
        acquire(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_lock_that_waits_and_who_holds_it(tmp_path: Path) -> None:
    """Between threads as between processes: one after the other, and seen by all while it is held."""
    path, inside, most = tmp_path / "lock", [], []

    def work() -> None:
        for _ in range(20):
            with file_lock(path, wait=True):
                inside.append(1)
                most.append(len(inside))
                assert is_locked(path)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
    assert not is_locked(path)
    path.touch()
    assert not is_locked(path)
    with file_lock(path, wait=False), pytest.raises(LockedError) as error, file_lock(path, wait=False):
        pass
    assert error.value.holder == str(os.getpid())


def test_a_lock_file_deleted_by_its_last_holder_is_not_mistaken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between this process's open and its flock, the holder deletes the file and leaves."""
    import fcntl

    flock, calls = fcntl.flock, []

    def delete_first(descriptor: int, operation: int) -> None:
        if not calls:
            (tmp_path / ".kdistill.lock").unlink()
        calls.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", delete_first)
    with run_lock(tmp_path):
        assert (tmp_path / ".kdistill.lock").exists()
    assert len(calls) == 2


def test_json_file_of_absurd_size_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file: it takes no room
    with pytest.raises(ValueError, match="1099511627776 bytes"):
        read_json_object(tmp_path / "a.json")


FORKED = """
import os, signal, sys, time
from pathlib import Path
{hold}
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(60)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
HOLDERS = {
    "run": """
from kdistill.system.files import run_lock
lock = run_lock(Path(sys.argv[1])); lock.__enter__()""",
    "journal": """
from kdistill.search.study import JournalLock
lock = JournalLock(Path(sys.argv[1], "lock")); lock.acquire()""",
    "cache": """
from kdistill.distill.cache import TeacherCache
cache = TeacherCache(Path(sys.argv[1]), "hash", 2); lock = cache._locked(); lock.__enter__()""",
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_child_that_outlives_its_killed_parent_holds_no_lock_of_it(tmp_path: Path, holder: str) -> None:
    """As the workers of a data loader do, or a server that a callback has started."""
    code = FORKED.format(hold=HOLDERS[holder])
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    assert process.returncode == -signal.SIGKILL
    child = int(process.stdout)
    try:
        os.kill(child, 0)
        (path,) = (path for path in tmp_path.iterdir() if path.is_file())
        assert not is_locked(path)
        if holder == "run":
            acquire(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_leaves_the_block_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        child = None
        try:
            with file_lock(tmp_path / "other", wait=False):
                child = os.fork()
                if child == 0:
                    raise InterruptedError
                assert os.waitpid(child, 0)[1] == 0
                assert is_locked(tmp_path / "other")
        except InterruptedError:
            os._exit(0)
        assert is_locked(tmp_path / ".kdistill.lock")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002, 0o077])
def test_every_file_and_directory_of_a_run_obeys_the_umask(tmp_path: Path, umask: int) -> None:
    code = f"""
import os, sys
os.umask({umask})
os.environ["KDISTILL_CACHE"] = {str(tmp_path / "cache")!r}
from pathlib import Path
from support.resumable_run import trainer
trainer(Path({str(tmp_path / "out")!r})).train()
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    made = [path for name in ("out", "cache") for path in (tmp_path / name, *(tmp_path / name).rglob("*"))]
    assert {"model.safetensors", "metrics.csv", "optimizer.safetensors"} <= {path.name for path in made}
    assert any(path.suffix == ".logits" for path in made)
    wrong = {
        str(path): oct(path.stat().st_mode & 0o777)
        for path in made
        if path.stat().st_mode & 0o777 != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert wrong == {}


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    for mode in (0o640, 0o600, 0o664):
        (tmp_path / "a").touch()
        (tmp_path / "a").chmod(mode)
        write_safetensors(tmp_path / "a", {"x": np.zeros(3, np.float32)})
        assert (tmp_path / "a").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "null"),
        ({"a": [float("inf"), (1, -float("inf"))]}, '{"a": [null, [1, null]]}'),
        (
            [np.float32(0.5), np.int64(3), np.bool_(True), np.arange(2), np.float64("nan")],
            "[0.5, 3, true, [0, 1], null]",
        ),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_json_is_what_every_reader_takes(value: Any, text: str) -> None:
    assert json_text(value) == text
    json.loads(json_text(value), parse_constant=pytest.fail)


def test_a_lone_surrogate_is_written_as_its_escape_and_read_back(tmp_path: Path) -> None:
    value = {"name \ud83d": "label \udc80é"}
    for ensure_ascii in (True, False):
        write_text(tmp_path / "a.json", json_text(value, ensure_ascii=ensure_ascii))
        (tmp_path / "a.json").read_text(encoding="utf-8")
        assert read_json_object(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("run", "run"),
        ("a/b", "a_b"),
        ("..", "__"),
        (".", "_"),
        ("", "_"),
        ("../..", ".._.."),
        ("\udc80", "\\udc80"),
        ("é ü", "é ü"),
    ],
)
def test_any_name_becomes_that_of_one_file(name: str, expected: str) -> None:
    assert as_file_name(name) == expected


def test_long_names_stay_different(tmp_path: Path) -> None:
    names = {as_file_name("é" * 300), as_file_name("é" * 301)}
    assert len(names) == 2
    for name in names:
        (tmp_path / name).mkdir()
