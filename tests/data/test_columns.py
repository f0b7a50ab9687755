"""Reading rows: files and objects, columns by convention or by name, labels as ids or names, and what is refused."""

from __future__ import annotations

import gzip
import json
import lzma
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdistill.data.columns import read_rows
from kdistill.data.labels import NO_LABEL
from kdistill.data.sources import read_table
from kdistill.data.table import Table

SENTIMENT = {0: "negative", 1: "positive"}


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


def test_tsv_is_read_without_quoting_and_with_lines_ending_at_newlines_only(tmp_path: Path) -> None:
    texts = ['a "quoted word', '"whole"', "it 's", "line\u2028separator \u0085 inside", "", "\\t stays"]
    path = write(tmp_path / "train.tsv", "sentence\tlabel\r\n" + "".join(f"{text}\t1\r\n" for text in texts))
    rows = read_rows(path)
    assert rows.texts == texts
    assert rows.pairs is None
    assert rows.labels == ["1"] * len(texts)


@pytest.mark.parametrize(("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_file_may_start_with_a_byte_order_mark_be_compressed_and_lack_the_last_newline(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    content = "\ufeffsentence\tlabel\ngood\t1\nbad\t0".encode()
    (tmp_path / f"a.tsv{suffix}").write_bytes(compress(content))
    rows = read_rows(tmp_path / f"a.tsv{suffix}")
    assert (rows.texts, rows.labels) == (["good", "bad"], ["1", "0"])


def test_empty_lines_end_a_file_but_are_rows_of_a_single_column(tmp_path: Path) -> None:
    assert read_rows(write(tmp_path / "a.tsv", "sentence\tlabel\ngood\t1\n\n\n")).texts == ["good"]
    assert read_rows(write(tmp_path / "b.tsv", "sentence\ngood\n\nbad\n\n")).texts == ["good", "", "bad", ""]


@pytest.mark.parametrize(("row", "fields"), [("good", 1), ("good\t1\textra", 3), ("", 1)])
def test_a_ragged_tsv_row_names_file_and_line(tmp_path: Path, row: str, fields: int) -> None:
    path = write(tmp_path / "train.tsv", f"sentence\tlabel\nfine\t0\n{row}\nfine\t1\n")
    with pytest.raises(
        ValueError, match=rf"train\.tsv:3: {fields} fields; the header names 2 columns \(sentence, label"
    ):
        read_rows(path)


def test_csv_with_quotes_keeps_line_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\n"two\nlines, and ""quotes""",1\n\nplain,0\nragged\n')
    with pytest.raises(ValueError, match=r"a\.csv:6: 1 fields; the header names 2 columns"):
        read_rows(path)
    rows = read_rows(write(path, path.read_text().removesuffix("ragged\n")))
    assert rows.texts == ['two\nlines, and "quotes"', "plain"]
    with pytest.raises(ValueError, match=r"a\.csv:5: label '0' is not one of the model's labels: 1 \(x\)"):
        rows.read_labels({1: "x"})
    with pytest.raises(ValueError, match=r"a\.csv:2: unexpected end of data"):
        read_rows(write(path, 'text,label\n"never closed,1\n'))


def test_jsonl(tmp_path: Path) -> None:
    records = [{"sentence": "good", "label": 1}, {"sentence": "who knows"}, {"sentence": "bad", "label": "negative"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records)) + "\n\n")
    rows = read_rows(path)
    assert rows.texts == ["good", "who knows", "bad"]
    np.testing.assert_array_equal(rows.read_labels(SENTIMENT), [1, NO_LABEL, 0])
    with pytest.raises(ValueError, match=r"a\.jsonl:2: not valid JSON"):
        read_rows(write(path, '{"sentence": "good"}\n{"sentence": \n'))
    with pytest.raises(TypeError, match=r"a\.jsonl:3: column 'sentence' holds None of type NoneType; expected text"):
        read_rows(write(path, '{"sentence": "good"}\n\n{"label": 1}\n'))
    with pytest.raises(ValueError, match=r"a\.jsonl:1: expected a JSON object, found int"):
        read_rows(write(path, "1\n"))


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"sentence": ["good", "bad"], "label": [1, None]}), tmp_path / "a.parquet")
    rows = read_rows(tmp_path / "a.parquet")
    assert rows.texts == ["good", "bad"]
    np.testing.assert_array_equal(rows.read_labels(), [1, NO_LABEL])


class HubDataset:
    """The part of a datasets.Dataset that is read."""

    column_names = ("idx", "text", "labels")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> list[Any]:
        return {"idx": [0, 1], "text": ["good", "bad"], "labels": [1, 0]}[name]


@pytest.mark.parametrize(
    "source",
    [
        [{"text": "good", "labels": 1}, {"text": "bad", "labels": 0}],
        {"text": ["good", "bad"], "labels": np.array([1, 0])},
        HubDataset(),
    ],
)
def test_objects(source: Any) -> None:
    rows = read_rows(source)
    assert rows.texts == ["good", "bad"]
    np.testing.assert_array_equal(rows.read_labels(SENTIMENT), [1, 0])


def test_plain_texts_have_no_labels() -> None:
    rows = read_rows(["good", "bad"])
    assert (rows.texts, rows.labels, len(rows)) == (["good", "bad"], None, 2)
    np.testing.assert_array_equal(rows.read_labels(SENTIMENT), [NO_LABEL, NO_LABEL])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("question1", "question2"),
        ("question", "sentence"),
        ("#1 String", "#2 String"),
    ],
)
def test_pairs_by_convention(first: str, second: str) -> None:
    rows = read_rows({"index": [0], second: ["b"], first: ["a"], "label": [0]})
    assert (rows.texts, rows.pairs) == (["a"], ["b"])


@pytest.mark.parametrize("name", ["label", "labels", "gold_label", "is_duplicate", "Quality"])
def test_labels_by_convention(name: str) -> None:
    assert read_rows({"text": ["a"], "score": [0.5], name: [1]}).labels == [1]


def test_named_columns_go_before_the_convention() -> None:
    source = {"sentence": ["no"], "phrase": ["yes"], "other": ["pair"], "label": [0], "stars": [1]}
    rows = read_rows(source, text_column="phrase", text_pair_column="other", label_column="stars")
    assert (rows.texts, rows.pairs, rows.labels) == (["yes"], ["pair"], [1])
    assert read_rows(source, text_column="phrase").pairs is None


def test_a_missing_column_says_which_there_are_and_what_to_pass(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "id\tphrase\n0\tgood\n")
    with pytest.raises(
        ValueError, match=r"a\.tsv has no text column: .*its columns are id, phrase\. Name it with --text-column"
    ):
        read_rows(path)
    for argument in ("text_column", "text_pair_column", "label_column"):
        names: dict[str, Any] = {"text_column": "phrase", argument: "sentance"}
        with pytest.raises(ValueError, match=rf"{argument}='sentance': .*its columns are id, phrase"):
            read_rows(path, **names)


def test_label_names_go_before_numbers() -> None:
    rows = read_rows({"text": ["a", "b", "c", "d"], "label": ["positive", "0", " 1", None]})
    np.testing.assert_array_equal(rows.read_labels(SENTIMENT), [1, 0, 1, NO_LABEL])
    stars = read_rows({"text": ["a", "b"], "label": ["1", "2"]})
    np.testing.assert_array_equal(stars.read_labels({0: "1", 1: "2"}), [0, 1])


@pytest.mark.parametrize("missing", [None, "", float("nan"), np.float32("nan"), NO_LABEL])
def test_rows_without_a_label(missing: Any) -> None:
    assert read_rows({"text": ["a"], "label": [missing]}).read_labels(SENTIMENT)[0] == NO_LABEL


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        (2, ValueError, r"row 1 of the dict: label 2 is not one of the model's labels: 0 \(negative\), 1 \(positive\)"),
        (-2, ValueError, "row 1 of the dict: label -2 is not one of"),
        ("postive", ValueError, "row 1 of the dict: label 'postive' is not one of"),
        (-1, ValueError, "label -1 is how GLUE marks rows whose label is withheld"),
        ("-1", ValueError, "label -1 is how GLUE marks rows whose label is withheld"),
        (0.5, ValueError, "row 1 of the dict: label 0.5 is not one of the model's labels"),
        ("0.5", ValueError, "row 1 of the dict: label '0.5' is not one of the model's labels"),
        (math.inf, ValueError, "row 1 of the dict: label inf is not one of"),
        (b"1", TypeError, "row 1 of the dict: label b'1' is a bytes; expected an integer id or a label's name"),
        (True, TypeError, "label True is a bool"),
        ([1], TypeError, r"label \[1\] is a list"),
    ],
)
def test_labels_that_are_refused(label: Any, error: type[Exception], message: str) -> None:
    rows = read_rows({"text": ["a", "b"], "label": [0, label]})
    with pytest.raises(error, match=message):
        rows.read_labels(SENTIMENT)


def test_whole_numbers_may_be_floats_as_frames_with_missing_values_write_them(tmp_path: Path) -> None:
    rows = read_rows({"text": ["a", "b", "c"], "label": [1.0, float("nan"), np.float32(0)]})
    np.testing.assert_array_equal(rows.read_labels(SENTIMENT), [1, NO_LABEL, 0])
    rows = read_rows(write(tmp_path / "a.csv", "text,label\na,1.0\nb,\nc,0.0\n"))
    np.testing.assert_array_equal(rows.read_labels(SENTIMENT), [1, NO_LABEL, 0])
    assert rows.id2label() == {0: "LABEL_0", 1: "LABEL_1"}


def test_class_names_of_the_source_are_the_model_s_in_any_order_and_case() -> None:
    columns = {"text": ["a", "b", "c"], "label": [0, 1, None]}
    rows = read_rows(Table("hub", columns, class_names={"label": ("Positive", "Negative")}))
    np.testing.assert_array_equal(rows.read_labels({0: "NEGATIVE", 1: "positive"}), [1, 0, NO_LABEL])
    np.testing.assert_array_equal(rows.read_labels({0: "LABEL_0", 1: "LABEL_1"}), [0, 1, NO_LABEL])
    assert rows.id2label() == {0: "Positive", 1: "Negative"}
    withheld = Table("hub", {"text": ["a"], "label": [-1]}, class_names={"label": ("positive", "negative")})
    with pytest.raises(ValueError, match=r"row 0 of hub: label -1 is how GLUE marks .* withheld"):
        read_rows(withheld).read_labels(SENTIMENT)


def test_lists_in_fields_are_lists(tmp_path: Path) -> None:
    """As JSON, and as pandas writes a column of lists; labels that only look like one stay as they are."""
    fields = ["[0, 1]", "['a', 'b']", '["a"]', "[]", "[neutral]", "0.5", ""]
    expected = [[0, 1], ["a", "b"], ["a"], [], "[neutral]", "0.5", ""]
    assert (
        read_rows(write(tmp_path / "a.tsv", "\n".join(["text\tlabel", *(f"x\t{f}" for f in fields)]))).labels
        == expected
    )
    records = [{"text": "x", "labels": labels} for labels in ([0, 1], ["a"], 0.5, None)]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records)))
    assert read_rows(path).labels == [[0, 1], ["a"], 0.5, None]


def test_several_label_columns_give_the_names_of_those_that_are_1(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,toxic,insult,x\na,1,0,7\nb,0.0,1.0,7\nc,1,1,7\nd,0,0,7\ne,,,7\n")
    rows = read_rows(path, label_column="toxic, insult")
    assert rows.labels == [["toxic"], ["insult"], ["toxic", "insult"], [], None]
    assert rows.id2label() == {0: "toxic", 1: "insult"}
    with pytest.raises(ValueError, match=r"a\.csv:2: column 'x' holds '7'; of several label columns each is 0 or 1"):
        read_rows(path, label_column="toxic,x")
    with pytest.raises(ValueError, match=r"label_column='insults': .*a\.csv has no such column"):
        read_rows(path, label_column="toxic,insults")
    assert read_rows({"text": ["a"], "a,b": [3]}, label_column="a,b").labels == [3]


def test_a_label_out_of_range_names_file_and_line(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "dev.tsv", "sentence\tlabel\ngood\t1\nbad\t7\n"))
    with pytest.raises(ValueError, match=r"dev\.tsv:3: label '7' is not one of the model's labels"):
        rows.read_labels(SENTIMENT)


def test_label_map_of_rows() -> None:
    assert read_rows({"text": ["a", "b"], "label": ["2", "0"]}).id2label() == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert read_rows({"text": ["a", "b", "c"], "label": ["pos", "neg", ""]}).id2label() == {0: "neg", 1: "pos"}
    with pytest.raises(ValueError, match="the list has no labels; its columns are sentence"):
        read_rows(["a"]).id2label()
    with pytest.raises(ValueError, match="label 'pos' is not an id of 0 or more; give id2label="):
        read_rows({"text": ["a"], "label": ["pos"]}).read_labels()


def test_sources_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.tsv does not exist; expected a \.tsv"):
        read_rows(tmp_path / "none.tsv")
    with pytest.raises(FileNotFoundError, match="is a directory"):
        read_rows(str(tmp_path))
    with pytest.raises(ValueError, match=r"a\.xlsx: unknown file type"):
        read_rows(write(tmp_path / "a.xlsx", "x"))
    with pytest.raises(ValueError, match=r"a\.tsv is empty; expected rows"):
        read_rows(write(tmp_path / "a.tsv", ""))
    with pytest.raises(ValueError, match=r"a\.tsv:1: expected a header line"):
        read_rows(write(tmp_path / "a.tsv", "\n"))
    with pytest.raises(ValueError, match=r"a\.tsv has no rows"):
        read_rows(write(tmp_path / "a.tsv", "sentence\tlabel\n"))
    with pytest.raises(ValueError, match=r"a\.tsv:1: expected a header line of different column names"):
        read_rows(write(tmp_path / "a.tsv", "sentence\tsentence\na\tb\n"))
    (tmp_path / "latin.tsv").write_bytes(b"sentence\nok\ncaf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.tsv:3: not UTF-8"):
        read_rows(tmp_path / "latin.tsv")
    for name, compress in (("cut.tsv.gz", gzip.compress), ("cut.tsv.xz", lzma.compress)):
        (tmp_path / name).write_bytes(compress(b"sentence\n" * 999)[:-9])
        with pytest.raises(ValueError, match=rf"{name} cannot be read"):
            read_rows(tmp_path / name)
    with pytest.raises(TypeError, match="a data set given as int; expected the path of a file"):
        read_rows(3)
    with pytest.raises(TypeError, match="a data set given as list"):
        read_rows([("a", 1)])
    with pytest.raises(ValueError, match="the columns of the dict differ in length"):
        read_rows({"text": ["a", "b"], "label": [1]})
    with pytest.raises(TypeError, match="column 'text' of the dict is a str; expected a list"):
        read_rows({"text": "a"})


def test_names_of_files_are_not_read_as_texts(tmp_path: Path) -> None:
    names = [str(write(tmp_path / name, "sentence\na\n")) for name in ("a.tsv", "b.tsv")]
    with pytest.raises(ValueError, match=r"the list names files, such as '.*a\.tsv'; expected texts, or several files"):
        read_table(names)
    texts = [*names, "good.tsv", "\0.tsv", f"{'a' * 300}.tsv"]
    assert read_table(texts)["sentence"] == texts


def test_the_place_of_a_row(tmp_path: Path) -> None:
    assert read_table(["a", "b"]).where(1) == "row 1 of the list"
    path = write(tmp_path / "a.tsv", "sentence\na\nb\n")
    assert read_table(path).where(1) == f"{path}:3"
