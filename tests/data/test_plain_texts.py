"""Files without a header, plain text and folders of texts, as `load_dataset` and the label options take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kdistill as kd
from kdistill.cli.task import read_label_names
from kdistill.data.columns import read_rows
from kdistill.data.files import file_and_field
from kdistill.data.headers import header_that_is_a_row
from kdistill.data.labels import label_ids, label_indicators


def write_documents(folder: Path) -> Path:
    for label, texts in {"pos": ["good", "great"], "neg": ["bad"]}.items():
        (folder / label).mkdir(parents=True)
        for number, text in enumerate(texts):
            (folder / label / f"{number}.txt").write_text(text)
        (folder / label / ".DS_Store").write_bytes(b"\xff")
    return folder


def test_columns_of_a_file_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("one,0\ntwo,1\n")
    (tmp_path / "a.json").write_text(json.dumps({"train": [["one", 0], ["two", 1]], "dev": [["three", 1]]}))
    for option in ("column_names", "columns", "names"):
        table = kd.load_dataset(tmp_path / "a.csv", split="train", **{option: ["text", "label"]})
        assert table.columns == {"text": ("one", "two"), "label": ("0", "1")}
    table = kd.load_dataset(f"{tmp_path}/a.json#train", split="train", columns=["text", "label"])
    assert list(table) == [{"text": "one", "label": 0}, {"text": "two", "label": 1}]
    table = kd.load_dataset(
        "json", data_files=f"{tmp_path}/a.json", field="dev", split="train", columns=["text", "label"]
    )
    assert list(table) == [{"text": "three", "label": 1}]
    with pytest.raises(ValueError, match="the column names are 'text', 'text'; expected different names"):
        kd.load_dataset(tmp_path / "a.csv", columns=["text", "text"])


def test_a_file_whose_name_has_a_sign_is_that_file(tmp_path: Path) -> None:
    for name in ("a.json", "a.json#train"):
        (tmp_path / name).write_text("[]")
    assert file_and_field(tmp_path / "a.json#train") == (tmp_path / "a.json#train", None)
    assert file_and_field(tmp_path / "a.json#dev") == (tmp_path / "a.json", "dev")
    assert file_and_field(tmp_path / "b.json#dev") == (tmp_path / "b.json#dev", None)


def test_folders_of_texts(tmp_path: Path) -> None:
    """As sklearn.load_files reads them: labels and files in the order of their names."""
    folder = write_documents(tmp_path / "train")
    expected = [("bad", "neg"), ("good", "pos"), ("great", "pos")]
    rows = read_rows(folder)
    assert list(zip(rows.texts, rows.labels or [], strict=True)) == expected
    assert rows.table.where(2) == str(folder / "pos" / "1.txt")
    assert list(map(tuple, zip(*kd.load_dataset(folder)["train"].columns.values(), strict=True))) == expected
    write_documents(tmp_path / "test")
    assert {split: len(table) for split, table in kd.load_dataset(tmp_path).items()} == {"train": 3, "test": 3}
    for file in folder.glob("*/*.txt"):
        file.rename(file.with_suffix(""))  # as in 20 newsgroups
    assert read_rows(folder).texts == ["bad", "good", "great"]
    (folder / "pos" / "0").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"pos/0:1: not UTF-8 .*--encoding cp1252"):
        read_rows(folder)
    (tmp_path / "empty" / "label").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"empty is a directory; name a file in it, or a folder of texts"):
        read_rows(tmp_path / "empty")


def test_a_folder_without_labels_holds_texts(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.txt").write_text(f"text {number}\n")
    rows = read_rows(tmp_path)
    assert (rows.texts, rows.labels) == (["text 1\n", "text 2\n"], None)


def test_load_dataset_of_plain_text(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one, two\nthree\n")
    assert kd.load_dataset(tmp_path / "lines.txt", split="train")["text"] == ["one, two", "three"]


@pytest.mark.parametrize(
    ("names", "guess"),
    [
        (["A plane is taking off.", "An air plane is taking off.", "5.000"], "sentence1,sentence2,label"),
        (["My favourite food is anything I cook.", "4,27", "eebbqej"], "text,label,column3"),
        (["I am still waiting on my card?", "card_arrival"], "text,label"),
        (["1", "oh no"], "label,text"),
        (["0.5", "x", "y"], "label,text,column3"),
    ],
)
def test_a_row_in_the_place_of_the_header_is_noticed(names: list[str], guess: str) -> None:
    assert f"as in --columns {guess} (" in header_that_is_a_row(names)


@pytest.mark.parametrize(
    "names",
    [
        ["text", "label"],
        ["#1 ID", "#2 String"],
        ["Review Text", "Rating"],
        ["Customer review text", "y"],
        ["", "Unnamed: 0"],
    ],
)
def test_names_are_no_row(names: list[str]) -> None:
    assert header_that_is_a_row(names) == ""


def test_a_file_of_words_and_tags_under_another_name_says_how_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    for content in ("Anna\tB-person\nlives\tO\n\nYork\tB-city\n", "O\tO\nlives\tO\n"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"looks like a word and its tag .*is read with --task token-cl"):
            kd.load_dataset(str(path))


NAMES = {0: "joy", 1: "love", 2: "a, b"}


def test_labels_with_commas_between_them() -> None:
    """Ids or names, as GoEmotions and `kdistill predict` write them; a name may hold a comma."""
    read = label_indicators(["0,1", "2", "", "love, joy", 'joy,"a, b"', "a, b", "-"], NAMES, str)
    expected: list[Any] = [[1, 1, 0], [0, 0, 1], [np.nan] * 3, [1, 1, 0], [1, 0, 1], [0, 0, 1], [np.nan] * 3]
    np.testing.assert_array_equal(read, np.array(expected, np.float32))
    with pytest.raises(ValueError, match="label 'hate' is not one of"):
        label_indicators(["joy,hate"], NAMES, str)
    with pytest.raises(ValueError, match=r"label .0,1. is several of the model.s labels; .*--problem-type multi_label"):
        label_ids(["0", "0,1"], NAMES, str)


def test_joined_labels_of_a_new_model_are_reported() -> None:
    rows = read_rows({"text": ["one", "two", "three"], "label": ["joy", "love", "joy,love"]})
    with pytest.warns(UserWarning, match="labels such as 'joy,love' beside 'joy'.*--problem-type multi_label"):
        assert len(rows.id2label()) == 3


def test_label_names_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("joy\r\nlove, or so\r\n\r\n")
    (tmp_path / "labels.json").write_text('["joy", "love"]')
    (tmp_path / "other.json").write_text('{"joy": 0}')
    assert read_label_names(str(tmp_path / "labels.txt")) == ["joy", "love, or so"]
    assert read_label_names(str(tmp_path / "labels.json")) == ["joy", "love"]
    assert read_label_names("joy, love") == ["joy", "love"]
    assert read_label_names("joy") == ["joy"]
    with pytest.raises(FileNotFoundError, match=r"--label-names is 'lables.txt', and there is no such file"):
        read_label_names("lables.txt")
    (tmp_path / "broken.json").write_text("joy")
    with pytest.raises(ValueError, match=r"--label-names is '.*broken.json', which is not valid JSON: Expecting value"):
        read_label_names(str(tmp_path / "broken.json"))
    with pytest.raises(ValueError, match="which holds no list of names; expected a name a line"):
        read_label_names(str(tmp_path / "other.json"))
    with pytest.raises(ValueError, match="--label-names has 'joy' twice"):
        read_label_names("joy,love,joy")
