"""`kdistill label --ray`: the shards are what `kdistill label` writes of the same rows, whoever dies meanwhile."""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.small_run import sentences, small_model, write_model

from kdistill.cli.main import main
from kdistill.system.cluster import MAX_ATTEMPTS, Cluster

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")
ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's
SHARD_ROWS = 30


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str) -> Path:
    """A teacher, and two files of 70 and 20 rows: Parquet and JSON lines."""
    monkeypatch.chdir(tmp_path)
    write_model(Path("teacher"), seed=3)
    write_model(Path("other"), seed=4)
    Path("rows").mkdir()
    rows = [{"sentence": text, "label": label, "place": number} for number, (text, label) in enumerate(sentences(90))]
    pq.write_table(pa.Table.from_pylist(rows[:70]), "rows/a.parquet")
    Path("rows/b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[70:]))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main(["label", *map(str, words), "--json"]) == 0, capsys.readouterr().err
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def refused(capsys: pytest.CaptureFixture[str], *words: Any, status: int = 2) -> str:
    assert main(["label", *map(str, words), "--json"]) == status
    return capsys.readouterr().err.strip().splitlines()[-1]


ALL = ["--data", "rows/*", "--output", "out", "--ray", "--shard-rows", SHARD_ROWS]


def shards() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path("out").glob("rows-*"))}


@pytest.mark.parametrize(
    "options",
    [
        ["--teacher", "teacher", "--probs"],
        ["--teacher", "teacher", "--dtype", "int8", "--no-teacher-cache"],
        ["--teacher", "teacher", "other", "--teacher-weights", "0.7", "0.3", "--temperature", "2"],
    ],
    ids=["one teacher", "in int8", "two teachers"],
)
def test_a_shard_is_what_the_command_without_ray_writes_of_its_rows(
    place: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    figures = run(capsys, *ALL, *options, "--n-jobs", 2)
    assert (figures["n"], figures["shards"], figures["kept_shards"]) == (90, 4, 0)
    assert [pq.read_table(f"out/{name}").num_rows for name in shards()] == [30, 30, 10, 20]
    assert pa.concat_tables([pq.read_table(f"out/{name}") for name in shards()])["place"].to_pylist() == [*range(90)]
    alone: dict[str, Any] = {}
    for number, name in enumerate(shards()):
        if number < 3:
            part = pq.read_table("rows/a.parquet").slice(SHARD_ROWS * number, SHARD_ROWS)
            pq.write_table(part, "part.parquet")
        source = "part.parquet" if number < 3 else "rows/b.jsonl"
        alone = run(capsys, "--data", source, "--output", "alone.parquet", *options)
        assert Path("alone.parquet").read_bytes() == shards()[name]
    same = ("teacher", "teacher_fingerprint", "dtype", "temperature", "labels")
    assert {name: figures[name] for name in same} == {name: alone[name] for name in same}


def test_shards_that_are_there_and_whole_are_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*ALL, "--teacher", "teacher"]
    run(capsys, *command)
    first, times = shards(), {path: path.stat().st_mtime_ns for path in Path("out").glob("rows-*")}
    Path("out/rows-00001.parquet").write_bytes(first["rows-00001.parquet"][:-1])
    Path("out/rows-00003.parquet").unlink()
    figures = run(capsys, *command)
    assert (figures["n"], figures["shards"], figures["kept_shards"]) == (90, 4, 2)
    assert shards() == first
    again = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert {path.name for path in again} == {"rows-00001.parquet", "rows-00003.parquet"}
    assert run(capsys, *command)["kept_shards"] == 4


def test_shards_of_something_else_are_an_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, *ALL, "--teacher", "teacher")
    first = shards()
    for words, what in (
        ([*ALL, "--teacher", "other"], "the teachers differ"),
        ([*ALL, "--teacher", "teacher", "--max-length", 5], "options differ"),
        ([*ALL, "--teacher", "teacher", "--data", "rows/*.jsonl"], "the files of --data"),
        ([*ALL, "--teacher", "teacher", "--output", "rows"], "holds other files"),
        ([*ALL, "--teacher", "teacher", "--output", "rows/b.jsonl"], "is a file"),
        ([*ALL, "--teacher", "teacher", "--shard-rows", 0], "--shard-rows is 0"),
        (
            ["--teacher", "teacher", "--data", "rows/b.jsonl", "--output", "x.parquet", "--n-jobs", 2],
            "belongs to --ray",
        ),
    ):
        assert what in refused(capsys, *words)
    assert shards() == first


@pytest.mark.parametrize("data", ["rows-*.tsv", "rows.json#train"])
def test_a_name_of_no_file_is_said_before_ray_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: str
) -> None:
    monkeypatch.setattr(Cluster, "__enter__", lambda _: pytest.fail("Ray was asked"))
    teacher, output = write_model(tmp_path / "teacher"), tmp_path / "out"
    said = refused(capsys, "--ray", "--teacher", teacher, "--data", tmp_path / data, "--output", output)
    assert f"{data} {'stands for no file' if '*' in data else 'does not exist'}; expected a" in said
    assert not output.exists()


def test_a_warning_of_many_parts_is_shown_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of three parts have the same warning."""
    Path("rows/a.parquet").unlink()
    with Path("rows/b.jsonl").open("a") as file:
        file.writelines(json.dumps({"sentence": "good " * 30, "label": 0, "place": 90}) + "\n" for _ in range(70))
    words = ["label", "--data", "rows/*", "--output", "out", "--ray", "--shard-rows", 30, "--teacher", "teacher"]
    assert main([*map(str, words), "--max-length", "8", "--no-teacher-cache"]) == 0
    shown = capsys.readouterr().err
    assert len(shards()) == 3
    assert [shown.count(text) for text in ("the column 'place' is not used", "30 of 30 rows")] == [1, 1]


def test_a_row_that_cannot_be_read_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("rows/b.jsonl").open("a") as file:
        file.write('{"sentence": 7, "label": 0, "place": 90}\n')
    assert "rows/b.jsonl:21" in refused(capsys, *ALL, "--teacher", "teacher")
    assert len(shards()) >= 1  # what was finished stays


ANSWERS = "ray::MapWorker(MapBatches(_Labeller)).submit"
"""The title that Ray gives a process while it answers a part."""


def processes_of(title: str) -> Iterator[int]:
    """The processes whose title begins so, as Ray names those that work."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(title.encode()):
                yield int(path.parent.name)
        except OSError:
            continue


@contextmanager
def killing(times: int, *, after: int) -> Iterator[list[int]]:
    """Kill processes while they answer, so many, once there are so many shards; yield those that were killed."""
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while len(killed) < times and not done.is_set():
            for process in processes_of(ANSWERS):
                if len(shards()) >= after and process not in killed:
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                    break
            time.sleep(0.005)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


@pytest.fixture
def many(place: Path) -> list[Any]:
    """Options for 4000 rows in four shards, and a teacher that takes its time."""
    small_model(5, hidden_size=128, num_hidden_layers=4, intermediate_size=512).save_pretrained("slow")
    (place / "slow/vocab.txt").write_bytes((place / "teacher/vocab.txt").read_bytes())
    rows = [{"sentence": text} for text, _ in sentences(4000)]
    pq.write_table(pa.Table.from_pylist(rows), "many.parquet")
    return ["--teacher", "slow", "--data", "many.parquet", "--shard-rows", 1000, "--no-teacher-cache"]


def test_the_rows_of_a_killed_process_are_answered_by_another(
    many: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with killing(1, after=1) as killed:
        figures = run(capsys, *many, "--output", "out", "--ray")
    assert len(killed) == 1
    assert (figures["n"], figures["shards"], figures["kept_shards"]) == (4000, 4, 0)
    run(capsys, *many[:4], "--output", "whole.parquet", "--no-teacher-cache")
    found = pa.concat_tables([pq.read_table(f"out/{name}") for name in shards()])
    assert found.equals(pq.read_table("whole.parquet"))


def test_a_part_that_always_kills_its_process_is_given_up(many: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """What was answered before it stays, and is kept by the next command."""
    with killing(MAX_ATTEMPTS, after=1) as killed:
        error = refused(capsys, *many, "--output", "out", "--ray", status=1)
    assert len(set(killed)) == MAX_ATTEMPTS
    assert f"{MAX_ATTEMPTS} processes died at the same work; the last: " in error
    first = shards()
    assert len(first) == 1
    gc.collect()  # the error holds the processes of Ray Data, which hold the cores; a command ends with it
    assert run(capsys, *many, "--output", "out", "--ray")["kept_shards"] == 1
    assert {name: shards()[name] for name in first} == first
