"""Tables: their operations, and the sources and files that become one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdistill.data.files import read_file
from kdistill.data.sources import read_table
from kdistill.data.table import Table


@pytest.fixture
def table() -> Table:
    return Table(
        "the test", {"text": ["a", "b", "c"], "label": [1, 0, 1]}, ["f:2", "f:3", "f:5"], {"label": ("n", "p")}
    )


def test_columns_rows_and_sizes(table: Table) -> None:
    assert (len(table), table.num_rows, table.column_names) == (3, 3, ["text", "label"])
    assert table["label"] == [1, 0, 1]
    assert table[-1] == {"text": "c", "label": 1}
    assert list(table) == [{"text": text, "label": label} for text, label in (("a", 1), ("b", 0), ("c", 1))]
    assert repr(table) == "Table('the test', columns: text, label; 3 rows)"
    with pytest.raises(KeyError, match="the test has no column 'labels'; its columns are text, label"):
        table["labels"]
    with pytest.raises(IndexError):
        table[3]
    with pytest.raises(ValueError, match=r"differ in length: \{'a': 1, 'b': 2\}"):
        Table("the test", {"a": [1], "b": [1, 2]})


@pytest.mark.parametrize("batch_size", [1, 2, 3, 1000])
def test_map_gives_the_same_by_rows_and_by_batches(table: Table, batch_size: int) -> None:
    rows = table.map(lambda row: {"upper": row["text"].upper(), "label": row["label"] + 10})
    batches = table.map(
        lambda batch: {"upper": [t.upper() for t in batch["text"]], "label": [v + 10 for v in batch["label"]]},
        batched=True,
        batch_size=batch_size,
    )
    for mapped in (rows, batches):
        assert dict(mapped.columns) == {"text": ["a", "b", "c"], "label": [11, 10, 11], "upper": ["A", "B", "C"]}
        assert mapped.where(2) == "f:5"
    assert table["label"] == [1, 0, 1]
    assert table.map(lambda row: {"n": 1}, remove_columns="text").column_names == ["label", "n"]


def test_map_refuses_what_is_no_row(table: Table) -> None:
    with pytest.raises(TypeError, match="the mapped function returned a list; expected a dict of columns"):
        table.map(lambda row: [1])  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="differ in length"):
        table.map(lambda batch: {"n": [1]}, batched=True)


def test_columns_are_renamed_and_removed_and_rows_selected(table: Table) -> None:
    renamed = table.rename_column("label", "labels")
    assert renamed.column_names == ["text", "labels"]
    assert renamed.class_names == {"labels": ("n", "p")}
    assert table.remove_columns(["label"]).column_names == ["text"]
    selected = table.select(np.array([2, 0]))
    assert dict(selected.columns) == {"text": ["c", "a"], "label": [1, 1]}
    assert [selected.where(row) for row in range(2)] == ["f:5", "f:2"]
    with pytest.raises(ValueError, match="has a column 'text' already"):
        table.rename_column("label", "text")
    for operation in (lambda: table.rename_column("y", "z"), lambda: table.remove_columns("y")):
        with pytest.raises(KeyError, match="no column 'y'"):
            operation()


def test_rows_are_filtered_and_shuffled(table: Table) -> None:
    positive = table.filter(lambda row: row["label"])
    assert (positive["text"], positive.where(1)) == (["a", "c"], "f:5")
    shuffled = table.shuffle(seed=1)
    assert sorted(shuffled["text"]) == ["a", "b", "c"]
    assert shuffled["text"] == table.shuffle(seed=1)["text"]
    for row in range(3):
        assert table["text"].index(shuffled[row]["text"]) == ["f:2", "f:3", "f:5"].index(shuffled.where(row))
    assert len({tuple(table.shuffle(seed)["text"]) for seed in range(20)}) > 3


@pytest.mark.parametrize(("test_size", "count"), [(0.25, 3), (0.01, 1), (4, 4), (9, 9)])
def test_a_table_is_split_in_two(test_size: float, count: int) -> None:
    table = Table("the test", {"n": list(range(10))})
    splits = table.train_test_split(test_size, seed=3)
    assert {name: len(split) for name, split in splits.items()} == {"train": 10 - count, "test": count}
    assert sorted(splits["train"]["n"] + splits["test"]["n"]) == table["n"]
    assert splits["test"]["n"] == table.train_test_split(test_size, seed=3)["test"]["n"]
    for wrong in (0, 10, 0.0, 1.0, -1):
        with pytest.raises(ValueError, match=r"of 10 rows; expected rows in both splits"):
            table.train_test_split(wrong, seed=3)


def test_map_takes_the_arguments_of_datasets(table: Table) -> None:
    def added(text: str, label: int, row: int, plus: int = 0) -> dict[str, Any]:
        return {"n": label + row + plus, "t": text}

    mapped = table.map(added, with_indices=True, input_columns=["text", "label"], fn_kwargs={"plus": 10})
    assert (mapped["n"], mapped["t"]) == ([11, 11, 13], ["a", "b", "c"])
    batches = table.map(
        lambda texts, rows: {"n": [f"{text}{row}" for text, row in zip(texts, rows, strict=True)]},
        with_indices=True,
        input_columns="text",
        batched=True,
        batch_size=2,
        drop_last_batch=True,
        remove_columns=None,
    )
    assert (batches["n"], batches["text"], batches.where(1)) == (["a0", "b1"], ["a", "b"], "f:3")
    assert table.map(lambda row: None).columns == table.columns
    with pytest.warns(UserWarning, match="^map works in memory, in this process, and ignores num_proc, desc$"):
        table.map(lambda row: None, num_proc=4, desc="x", load_from_cache_file=False)
    with pytest.raises(TypeError, match=r"map has no argument 'num_procs'; did you mean 'num_proc'\?"):
        table.map(lambda row: None, num_procs=4)
    with pytest.raises(KeyError, match="no column 'texts'"):
        table.map(added, input_columns="texts")


def test_a_map_to_another_number_of_rows_forgets_their_places(table: Table) -> None:
    twice = table.map(lambda batch: {"n": batch["label"] * 2}, batched=True, remove_columns=["text", "label"])
    assert (twice["n"], twice.where(5)) == ([1, 0, 1] * 2, "row 5 of the test")


def test_rows_are_filtered_as_datasets_filters_them(table: Table) -> None:
    assert table.filter(lambda row, index: index > 0, with_indices=True)["text"] == ["b", "c"]
    assert table.filter(lambda text: text != "b", input_columns="text")["text"] == ["a", "c"]
    kept = table.filter(lambda batch: [label == 1 for label in batch["label"]], batched=True, batch_size=2)
    assert kept["text"] == ["a", "c"]
    with pytest.raises(ValueError, match="shorter"):
        table.filter(lambda batch: [True], batched=True)
    for operation in (
        lambda: table.filter(bool, num_proc=2),
        lambda: table.select([0], keep_in_memory=True),
        lambda: table.shuffle(keep_in_memory=True),
        lambda: table.train_test_split(1, keep_in_memory=True),
    ):
        with pytest.warns(UserWarning, match="works in memory, in this process, and ignores "):
            operation()


def test_an_order_may_come_from_numpy(table: Table) -> None:
    order = np.random.default_rng(3).permutation(3)
    assert table.shuffle(generator=np.random.default_rng(3))["text"] == [table["text"][row] for row in order]
    assert table.shuffle()["text"] == table.shuffle(0)["text"] == table.shuffle(None)["text"]
    splits = table.train_test_split(1, generator=np.random.default_rng(3))
    assert splits["test"]["text"] == [table["text"][order[0]]]


@pytest.mark.parametrize(
    ("sizes", "train", "test"),
    [
        ({"train_size": 0.65}, 6, 4),
        ({"train_size": 3}, 3, 7),
        ({"test_size": 0.21, "train_size": 0.5}, 5, 3),
        ({}, 7, 3),
        ({"test_size": np.int64(2)}, 8, 2),
    ],
)
def test_sizes_of_a_split_in_two(sizes: dict[str, Any], train: int, test: int) -> None:
    table = Table("the test", {"n": list(range(10))})
    splits = table.train_test_split(**sizes)
    assert (len(splits["train"]), len(splits["test"])) == (train, test)
    assert len(set(splits["train"]["n"] + splits["test"]["n"])) == train + test
    in_order = table.train_test_split(**sizes, shuffle=False)
    assert in_order["train"]["n"] + in_order["test"]["n"] == list(range(train + test))
    with pytest.raises(ValueError, match="test_size is 6, train_size 5: 6 and 5 of 10 rows; expected rows in both"):
        table.train_test_split(6, 5)


def test_a_stratified_split_gives_each_label_its_share() -> None:
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    table = Table("the test", {"label": labels, "n": list(range(100))})
    splits = table.train_test_split(0.2, stratify_by_column="label", seed=5)
    counts = {name: [split["label"].count(label) for label in "abc"] for name, split in splits.items()}
    assert counts == {"train": [48, 24, 8], "test": [12, 6, 2]}
    assert sorted(splits["train"]["n"] + splits["test"]["n"]) == table["n"]
    assert splits["test"]["n"] == table.train_test_split(20, stratify_by_column="label", seed=5)["test"]["n"]
    assert splits["test"]["n"] != sorted(splits["test"]["n"])
    odd = table.train_test_split(test_size=7, train_size=11, stratify_by_column="label")
    assert (len(odd["test"]), len(odd["train"])) == (7, 11)
    with pytest.raises(ValueError, match=r"'n' of the test has 100 values, \d+ in 1 rows"):
        table.train_test_split(0.2, stratify_by_column="n")
    with pytest.raises(KeyError, match="no column 'labels'"):
        table.train_test_split(0.2, stratify_by_column="labels")
    with pytest.raises(ValueError, match="shuffle is False and stratify_by_column is given"):
        table.train_test_split(0.2, shuffle=False, stratify_by_column="label")


# --- files -----------------------------------------------------------------------------------------------------------

AWKWARD = [
    "plain",
    "with, comma",
    'a "quoted" word',
    "two\nlines",
    'all, of "it"\r\nat once',
    "",
    " spaces ",
    "tab\there",
]


def test_csv_written_by_the_csv_module_comes_back(tmp_path: Path) -> None:
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, quoting=quoting)
            writer.writerows([["text", "label"], *([text, "x"] for text in AWKWARD)])
        assert read_file(tmp_path / "a.csv")["text"] == AWKWARD


def test_csv_with_semicolons_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;label\ngood;1\n")
    with pytest.raises(ValueError, match=r"a\.csv:1: one column 'text;label': separated by semicolons\?"):
        read_file(tmp_path / "a.csv")


def test_json_as_a_list_and_as_lines(tmp_path: Path) -> None:
    records = [{"text": text, "label": index} for index, text in enumerate(AWKWARD)]
    (tmp_path / "list.json").write_text(json.dumps(records, indent=1))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, records)))
    for name in ("list.json", "lines.json"):
        assert list(read_file(tmp_path / name)) == records
    (tmp_path / "list.json").write_text('[{"text": "a"}, 3]')
    with pytest.raises(ValueError, match=r"row 1 of .*list\.json: expected a JSON object, found int"):
        read_file(tmp_path / "list.json")
    (tmp_path / "list.json").write_text('[{"text": "a"}')
    with pytest.raises(ValueError, match=r"list\.json: not valid JSON"):
        read_file(tmp_path / "list.json")


def test_a_kind_is_for_names_that_do_not_tell(tmp_path: Path) -> None:
    (tmp_path / "rows.data").write_text("text,label\ngood,1\n")
    (tmp_path / "rows.tsv").write_text("text\tlabel\ngood\t1\n")
    for name in ("rows.data", "rows.tsv"):
        assert read_file(tmp_path / name, "csv")["label"] == ["1"]
    with pytest.raises(ValueError, match=r"rows\.data: unknown file type"):
        read_file(tmp_path / "rows.data")


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_text("not parquet")
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet"):
        read_file(tmp_path / "a.parquet")


# --- objects ---------------------------------------------------------------------------------------------------------


class TorchDataset:
    """As people write them for PyTorch: a length, and a dict of tensors for each row."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index not in (0, 1):
            raise IndexError(index)
        return {"input_ids": np.array([2, 5 + index, 3]), "labels": np.int64(index)}


def test_a_data_set_of_rows_by_number() -> None:
    table = read_table(TorchDataset())
    assert dict(table.columns) == {"input_ids": [[2, 5, 3], [2, 6, 3]], "labels": [0, 1]}
    assert table.where(1) == "row 1 of the data set"


def test_arrays_become_lists() -> None:
    table = read_table({"text": np.array(["a", "b"]), "labels": np.eye(2)})
    assert dict(table.columns) == {"text": ["a", "b"], "labels": [[1.0, 0.0], [0.0, 1.0]]}
    assert read_table([{"text": "a", "labels": np.array([1, 0])}])["labels"] == [[1, 0]]


def test_a_pyarrow_table() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = read_table(pyarrow.table({"text": ["a", "b"], "label": [1, None]}))
    assert dict(table.columns) == {"text": ["a", "b"], "label": [1, None]}


def test_of_several_splits_one_must_be_chosen(table: Table) -> None:
    assert read_table({"train": table}) is table
    with pytest.raises(ValueError, match=r"2 splits \(train, test\); pass one of them, such as dataset\['train'\]"):
        read_table({"train": table, "test": table})


def test_a_long_quoted_field_is_shown_with_its_end_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"a ""quoted"" word ' + "and more " * 9 + '"\t1\n')
    with pytest.warns(UserWarning, match=r'such as "a ""quoted"" word (and more )+and m\.\.\., and their quotes'):
        read_table(str(path))
