"""Hostile files end in one clear error that names the file: no code run, no memory taken, nothing written elsewhere."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hostile.make import Hostile, hostile_files
from support.readers import CLEAN, READERS, manifest

HOSTILE = hostile_files()
# Far below what the bombs would take, far above what reading an honest file of that size does.
MOST_BYTES = 80 << 20


@pytest.mark.parametrize("hostile", HOSTILE, ids=[f"{each.reader}: {each.name}" for each in HOSTILE])
def test_a_hostile_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: Hostile) -> None:
    home = tmp_path / "home"
    inside = tmp_path / "inside"
    for directory in (home, inside):
        directory.mkdir()
    monkeypatch.chdir(home)
    tracemalloc.start()
    try:
        with pytest.raises(CLEAN, match=hostile.message) as caught:
            READERS[hostile.reader](inside, hostile.data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(inside) in str(caught.value), "the message does not name the file"
    assert peak < MOST_BYTES + 2 * len(hostile.data)
    assert not list(home.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "inside"]


@pytest.mark.parametrize(
    "content",
    [
        b'{"files": {"../outside": {"size": 0}}}',
        b'{"files": {"/etc/hostname": {"size": 0}}}',
        b'{"files": {"config.json": [[[]]]}}',
        b'{"files": {"a\\u0000b": {}}}',
        b'{"files": 3}',
        b"[" * 100_000,
        b"",
    ],
)
def test_a_manifest_is_wrong_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "outside").write_text("")
    said = manifest(tmp_path / "run", content)
    assert said is not None
    assert str(tmp_path / "run") in said
