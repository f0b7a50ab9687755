"""Formats of files: delimiters, quotes, long fields, damaged Parquet, and the names that Arrow keeps for labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kdistill as kd
from kdistill.data.columns import read_rows
from kdistill.data.files import DataFile, FileFormat, read_file
from kdistill.data.labels import label_indicators
from kdistill.data.sources import read_table

AWKWARD = ["plain", 'a "quoted" word', '"all"', "tab\there", "two\nlines", "semi;colon", ""]


def written(path: Path, delimiter: str) -> Path:
    """As pandas writes a frame: with quotes where they are needed."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerows([["text", "label"], *([text, str(row)] for row, text in enumerate(AWKWARD))])
    return path


@pytest.mark.parametrize(("name", "delimiter"), [("a.tsv", "\t"), ("a.csv", ";"), ("a.csv", "\t"), ("a.txt", "|")])
def test_fields_that_pandas_has_quoted(tmp_path: Path, name: str, delimiter: str) -> None:
    path = written(tmp_path / name, delimiter)
    kind = "csv" if name == "a.txt" else None
    table = read_file(path, FileFormat(kind, delimiter, quoted=True))
    assert (table["text"], table["label"]) == (AWKWARD, [str(row) for row in range(len(AWKWARD))])
    assert read_table(DataFile(str(path), FileFormat(kind, delimiter, quoted=True)))["text"] == AWKWARD
    for options in ({"sep": delimiter}, {"delimiter": delimiter}, {"delimiter": delimiter, "quoting": csv.QUOTE_ALL}):
        assert kd.load_dataset("csv", data_files=str(path), split="train", **options)["text"] == AWKWARD


def test_a_table_of_glue_keeps_its_quotes_with_a_delimiter_and_without(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"so" he said\t1\n')
    unquoted = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    for table in (read_file(tmp_path / "a.tsv"), kd.load_dataset(tmp_path / "a.tsv", split="train", **unquoted)):
        assert table["text"] == ['"so" he said']


def test_fields_of_any_length(tmp_path: Path) -> None:
    """The csv module's own limit is 131,072 characters, for the whole process."""
    limit = csv.field_size_limit()
    long = "x" * (limit + 1)
    (tmp_path / "a.csv").write_text(f"text,label\n{long},1\n")
    assert read_file(tmp_path / "a.csv")["text"] == [long]
    (tmp_path / "b.csv").write_text('text,label\n"never closed,1\n')
    with pytest.raises(ValueError, match=r"b\.csv:2: unexpected end of data"):
        read_file(tmp_path / "b.csv")
    assert csv.field_size_limit() == limit


def test_a_file_of_json_lines_has_a_row_a_line(tmp_path: Path) -> None:
    """The same object is two rows, by columns, in a file of JSON."""
    text = '{"input_ids": [2, 3], "labels": [1, 0]}\n'
    for name, ids in (("rows.jsonl", [[2, 3]]), ("rows.ndjson", [[2, 3]]), ("rows.json", [2, 3])):
        (tmp_path / name).write_text(text)
        assert read_file(tmp_path / name)["input_ids"] == ids


def test_files_without_a_header_and_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("caf\u00e9,1\n".encode("latin-1"))
    options: dict[str, Any] = {"column_names": ["text", "label"], "encoding": "latin-1"}
    table = kd.load_dataset("csv", data_files=str(tmp_path / "a.csv"), split="train", **options)
    assert dict(table.columns) == {"text": ("caf\u00e9",), "label": ("1",)}
    with pytest.raises(ValueError, match=r"a\.csv:1: not UTF-8"):
        read_file(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="encoding is 'klingon'; expected one that Python knows"):
        read_file(tmp_path / "a.csv", FileFormat(encoding="klingon"))


def test_rows_in_a_field_of_an_object(tmp_path: Path) -> None:
    rows = [{"text": "one", "label": 0}]
    (tmp_path / "a.json").write_text(json.dumps({"train": rows, "dev": [*rows, *rows]}))
    path = str(tmp_path / "a.json")
    assert len(kd.load_dataset("json", data_files=path, field="dev", split="train")) == 2
    with pytest.raises(ValueError, match=r"field is 'test'; .*a\.json holds train, dev"):
        kd.load_dataset("json", data_files=path, field="test")


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.jsonl", "{}", {"delimiter": ";"}, r"delimiter is ';', which does not apply to .*a\.jsonl, a json file"),
        ("a.csv", "text\n", {"field": "x"}, r"field is 'x', which does not apply to .*a\.csv, a csv file"),
        ("a.parquet", "", {"quoted": True}, r"quoted is True, which does not apply to .*a\.parquet, a parquet file"),
        ("a.csv", "text\n", {"delimiter": "::"}, "delimiter is '::'; expected one character"),
    ],
)
def test_options_without_a_meaning_are_refused(
    tmp_path: Path, name: str, content: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_file(tmp_path / name, FileFormat(**options))


def test_a_pipe_is_no_file_of_rows() -> None:
    with pytest.raises(FileNotFoundError, match="/dev/null is a pipe or device; save its content as a file"):
        read_file(Path("/dev/null"))


# --- Arrow ------------------------------------------------------------------------------------------------------------

CLASSES = {"names": ["entailment", "neutral", "contradiction"], "_type": "ClassLabel"}
ENTAILMENT = {0: "contradiction", 1: "entailment", 2: "neutral"}


def arrow_table(label: Any, labels: list[Any]) -> Any:
    """A table as `datasets` writes it, with its features in the schema's metadata."""
    pyarrow = pytest.importorskip("pyarrow")
    content = {"info": {"features": {"text": {"dtype": "string", "_type": "Value"}, "label": label}}}
    table = pyarrow.table({"text": ["x"] * len(labels), "label": labels})
    return table.replace_schema_metadata({"huggingface": json.dumps(content)})


def test_class_labels_of_parquet_and_of_arrow_are_matched_by_name(tmp_path: Path) -> None:
    table = arrow_table(CLASSES, [0, 1, 2, None])
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    for source in (table, tmp_path / "a.parquet", kd.load_dataset(tmp_path / "a.parquet", split="train")):
        rows = read_rows(source)
        assert list(rows.class_names) == CLASSES["names"]
        np.testing.assert_array_equal(rows.read_labels(ENTAILMENT), [1, 2, 0, -100])
        assert rows.id2label() == dict(enumerate(CLASSES["names"]))


@pytest.mark.parametrize(
    "form", [{"feature": CLASSES, "_type": "List"}, {"feature": CLASSES, "_type": "Sequence"}, [CLASSES]]
)
def test_lists_of_class_labels_are_matched_by_name(form: Any) -> None:
    rows = read_rows(arrow_table(form, [[0], [1, 2], []]))
    read = rows.read_labels(ENTAILMENT, label_indicators)
    np.testing.assert_array_equal(read, [[0, 1, 0], [1, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize("content", [b"", b"{}", b'{"info": []}', b'{"info": {"features": 3}}', b"[" * 100_000])
def test_metadata_of_another_program_names_no_label(content: bytes) -> None:
    table = arrow_table(CLASSES, [0]).replace_schema_metadata({b"huggingface": content})
    assert read_rows(table).class_names == ()


def test_files_that_call_labels_differently_are_not_put_together(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    other = {**CLASSES, "names": CLASSES["names"][::-1]}
    for name, classes in (("train-1", CLASSES), ("train-2", CLASSES), ("train-3", other)):
        parquet.write_table(arrow_table(classes, [0]), tmp_path / f"{name}.parquet")
    files = [str(tmp_path / f"train-{number}.parquet") for number in (1, 2, 3)]
    together = kd.load_dataset("parquet", data_files=files[:2], split="train")
    assert list(together.class_names["label"]) == CLASSES["names"]
    with pytest.raises(
        ValueError, match=r"train-3\.parquet calls the labels in 'label' contradiction, .*call them entailment"
    ):
        kd.load_dataset("parquet", data_files=files)


def test_names_stay_with_a_column_while_its_values_do() -> None:
    table = read_table(arrow_table(CLASSES, [0, 1, 2]))
    assert table.map(lambda row: {**row, "length": 1}).class_names == table.class_names
    assert table.map(lambda row: {"label": 2 - row["label"]}).class_names == {}


def test_damaged_parquet_names_file_and_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    texts = [f"text {row} " * 20 for row in range(200)]
    parquet.write_table(pyarrow.table({"text": texts}), path, compression="snappy", use_dictionary=False)
    whole = path.read_bytes()
    messages = []
    for place in range(4, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_file(path)
        except ValueError as error:  # a byte of text may be another without damage
            messages.append(str(error))
    assert len(messages) > 3
    assert all("a.parquet" in message and "\n" not in message for message in messages)
    for cut in (len(whole) // 2, len(whole) - 3, 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet: "):
            read_file(path)

    not_utf8 = pyarrow.array([b"fine", b"caf\xe9"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": not_utf8}), path)
    with pytest.raises(ValueError, match=r"row 1 of .*a\.parquet: column 'text' cannot be read: .*codec can't decode"):
        read_file(path)


def test_half_a_character_in_memory() -> None:
    with pytest.raises(
        ValueError, match=r"row 1 of the list: column 'sentence' holds \\udc80 at character 0, half of a"
    ):
        read_rows(["fine \u00e9", "\udc80"])


def test_a_list_of_splits_is_no_split() -> None:
    splits = [read_table(["a"]), read_table(["b"])]
    for given in (splits, tuple(splits)):
        with pytest.raises(ValueError, match=r"2 splits \(0, 1\); pass one of them, such as dataset\[0\]"):
            read_table(given)
    assert read_table(splits[:1])["sentence"] == ["a"]
