"""Rows read in parts: the same columns, places and errors as those of a file that is read whole."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from kdistill.data import streams
from kdistill.data.files import DataFile, FileFormat, read_file
from kdistill.data.streams import parts_of
from kdistill.data.table import Table

ROWS = [(f"good film {row}", row % 3) for row in range(7)]
TSV = "sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS)
CSV = "sentence,label\r\n" + "".join(f'"{text}, ""bad""\n plot",{label}\r\n' for text, label in ROWS)
JSON_LINES = "".join(json.dumps({"sentence": text, "label": label}) + "\n" for text, label in ROWS)
SPANNING = "\n".join(json.dumps({"text": text, "label": label}, indent=1) for text, label in ROWS)


def whole_and_in_parts(path: Path, rows: int, **how: Any) -> tuple[Table, list[Table]]:
    return read_file(path, FileFormat(**how)), [
        part.table for part in parts_of(DataFile(str(path), FileFormat(**how)), rows)
    ]


def written(path: Path, content: str, encoding: str = "utf-8") -> Path:
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opened(path, "wb") as file:  # type: ignore[operator]
        file.write(content.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("rows.tsv", TSV, {}),
        ("rows.tsv.gz", TSV, {}),
        ("rows.tsv", "\ufeff" + TSV + "\n\n", {}),
        ("rows.tsv", "text\n\na film\n\n", {}),  # an empty line is a row where there is one column
        ("rows.tsv", TSV, {"column_names": ("sentence", "label")}),
        ("rows.tsv", TSV.split("\n", 1)[1], {"column_names": ("sentence", "label")}),
        ("rows.csv", CSV, {}),
        ("rows.csv.xz", CSV, {}),
        ("rows.csv", CSV.replace(",", ";"), {"delimiter": ";"}),
        ("rows.txt", "a film\n\ngood\u2028plot\nlast", {}),
        ("rows.txt", TSV, {"delimiter": "\t"}),
        ("rows.jsonl", JSON_LINES, {}),
        ("rows.ndjson.gz", JSON_LINES, {}),
        ("rows.json", JSON_LINES, {}),
        ("rows.jsonl", SPANNING, {}),
        ("rows.jsonl", JSON_LINES.replace("\n", " "), {}),
        ("rows.json", json.dumps([{"text": text} for text, _ in ROWS]), {}),  # read whole
        ("rows.jsonl", '{"text": "a film"}\n', {}),
        ("rows.tsv", TSV.replace("\n", "\r"), {}),  # old Macs
    ],
)
@pytest.mark.parametrize("rows", [3, 100])
def test_parts_are_the_rows_of_the_whole_file(
    tmp_path: Path, name: str, content: str, how: dict[str, Any], rows: int
) -> None:
    whole, parts = whole_and_in_parts(written(tmp_path / name, content), rows, **how)
    assert all(len(part) <= rows for part in parts)
    assert {column: [value for part in parts for value in part[column]] for column in whole.columns} == {
        column: list(values) for column, values in whole.columns.items()
    }
    assert [part.where(row) for part in parts for row in range(len(part))] == [
        whole.where(row) for row in range(len(whole))
    ]


def test_columns_of_parquet_with_one_name_are_refused_whole_and_in_parts(tmp_path: Path) -> None:
    pyarrow, path = pytest.importorskip("pyarrow"), tmp_path / "rows.parquet"
    columns = [pyarrow.array(["good"]), pyarrow.array(["bad"])]
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns, ["text", "text"]), path)
    for read in (read_file, lambda path: next(parts_of(DataFile(str(path)), 3))):
        with pytest.raises(
            ValueError, match=r"rows.parquet: expected different column names, found \['text', 'text'\]"
        ):
            read(path)


def test_parts_of_parquet_are_its_rows_with_the_names_of_their_labels(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    named = table.replace_schema_metadata({"class_names": json.dumps({"label": ["a", "b", "c"]})})
    parquet.write_table(named, tmp_path / "rows.parquet", row_group_size=4)
    whole, parts = whole_and_in_parts(tmp_path / "rows.parquet", 3)
    assert [row for part in parts for row in part] == list(whole)
    assert parts[-1].where(0) == whole.where(6)
    assert {tuple(part.class_names["label"]) for part in parts} == {("a", "b", "c")}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.tsv", TSV + "no label\n"),
        ("rows.tsv", TSV + "\n" + TSV),  # an empty line between rows
        ("rows.csv", CSV + '"never closed\n'),
        ("rows.jsonl", JSON_LINES + '{"text": "broken}\n' + JSON_LINES),
        ("rows.jsonl", JSON_LINES + '["a list"]\n'),
        ("rows.tsv", ""),
        ("rows.jsonl", JSON_LINES + '{"text": 1, "text": 2}\n'),
    ],
)
def test_what_is_wrong_is_said_with_the_same_place(tmp_path: Path, name: str, content: str) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(ValueError, match=r"rows\.") as whole:
        read_file(path)
    with pytest.raises(ValueError, match=r"rows\.") as parts:
        list(parts_of(DataFile(str(path)), 3))
    assert str(parts.value).split(":")[:2] == str(whole.value).split(":")[:2]


def test_a_line_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(TSV.encode() + "caf\xe9\t1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"rows\.tsv:9: not UTF-8"):
        list(parts_of(DataFile(str(path)), 3))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.tsv.gz", TSV * 100)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"rows\.tsv\.gz cannot be read"):
        list(parts_of(DataFile(str(path)), 3))


def test_json_lines_are_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "rows.jsonl", JSON_LINES)

    def refuse(*_: Any) -> None:
        raise AssertionError("read whole")

    monkeypatch.setattr(streams, "read_file", refuse)
    shares = [part.share for part in parts_of(DataFile(str(path)), 3)]
    assert len(shares) == 3
    assert shares == sorted(shares)
