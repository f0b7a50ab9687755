"""Files that a user named: links are followed, and pipes, devices and open files are written into."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kdistill.system.output import check_new_directory, check_output, is_stream, open_output


def put(path: Path | str, text: str = "new") -> None:
    with open_output(path) as file:
        file.write(text)


def test_a_file_is_replaced_whole_and_the_target_of_a_link_stays_one(tmp_path: Path) -> None:
    target, link, chain = tmp_path / "elsewhere" / "target", tmp_path / "link", tmp_path / "chain"
    target.parent.mkdir()
    link.symlink_to("elsewhere/target")
    chain.symlink_to(link)
    for path in (tmp_path / "plain", link, chain):
        put(path, path.name)
    assert (tmp_path / "plain").read_text() == "plain"
    assert (link.is_symlink(), chain.is_symlink(), target.read_text()) == (True, True, "chain")
    with pytest.raises(TypeError), open_output(chain) as file:
        file.writelines(["half", 3])  # type: ignore[list-item]
    assert target.read_text() == "chain"
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "plain", "link", "chain"}


def test_a_pipe_gets_the_text_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    put(pipe)
    reader.join()
    assert read == ["new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("through", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_in_a_file_is_written_behind_what_it_holds(tmp_path: Path, through: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    script = f"import sys; sys.path[:0] = {sys.path!r}; from kdistill.system.output import open_output\n"
    script += (
        f"print('before', flush=True)\nwith open_output({through!r}) as file: file.write('new\\n')\nprint('after')"
    )
    for _ in range(2):
        with (tmp_path / "log").open("a") as log:
            subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, stdout=log)
    assert (tmp_path / "log").read_text() == "before\nnew\nafter\n" * 2
    assert (tmp_path / "link").is_symlink()


def test_a_full_device_is_named() -> None:
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        put("/dev/full")
    put("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_what_is_a_stream(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    shared = Path("/dev/shm")
    for path in (tmp_path / "none", tmp_path / "circle", tmp_path, *([shared / "none"] if shared.is_dir() else [])):
        assert is_stream(path) is (path == tmp_path)
    assert is_stream("/dev/fd/7")


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("none/file")
    (tmp_path / "dangling-file").symlink_to("file")
    with pytest.raises(IsADirectoryError, match=r"--output is .*, a directory; expected the file to write"):
        check_output("--output", tmp_path)
    for path in (tmp_path / "none" / "file", tmp_path / "dangling"):
        with pytest.raises(FileNotFoundError, match="there is no such directory to write it into"):
            check_output("--output", path)
    for fine in (tmp_path / "new", tmp_path / "dangling-file", "/dev/stdout", "/dev/null"):
        check_output("--output", fine)


def test_no_new_directory_is_put_in_the_place_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (".", tmp_path):
        with pytest.raises(FileExistsError, match=r"output is '.*', which exists and is the working directory"):
            check_new_directory("output", path)
