"""`load_dataset`: files by kind, split and pattern, and what is left to the `datasets` package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kdistill as kd
from kdistill.data.dataset import as_dataset
from kdistill.data.table import DatasetDict, Table


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, *texts: str) -> str:
    separator = "," if name.endswith(".csv") else "\t"
    lines = [f"{text}{separator}{len(text)}" for text in texts]
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f"text{separator}label", *lines]) + "\n")
    return name


def test_one_file_is_the_split_train() -> None:
    write("a.csv", "x", "yy")
    for loaded in (
        kd.load_dataset("csv", data_files="a.csv"),
        kd.load_dataset("a.csv"),
        kd.load_dataset(Path("a.csv")),
    ):
        assert isinstance(loaded, DatasetDict)
        assert list(loaded) == ["train"]
        assert dict(loaded["train"].columns) == {"text": ("x", "yy"), "label": ("1", "2")}
    assert kd.load_dataset("csv", data_files="a.csv", split="train")["text"] == ["x", "yy"]


def test_files_by_split_and_one_after_another() -> None:
    files = {"train": [write("a.csv", "x"), write("b.csv", "y", "z")], "validation": write("c.tsv", "v")}
    loaded = kd.load_dataset("csv", data_files=files)
    assert {name: table["text"] for name, table in loaded.items()} == {"train": ["x", "y", "z"], "validation": ["v"]}
    assert [loaded["train"].where(row) for row in range(3)] == ["a.csv:2", "b.csv:2", "b.csv:3"]
    assert kd.load_dataset("csv", data_files="[ab].csv")["train"]["text"] == ["x", "y", "z"]
    Path("b.csv").write_text("text,score\nx,1\n")
    with pytest.raises(ValueError, match=r"b\.csv:2: the columns are 'text', 'score', and in the files before it 'te"):
        kd.load_dataset("csv", data_files=files)


def test_the_splits_of_a_directory_are_in_its_names() -> None:
    for name in ("train-2.csv", "train-1.csv", "Dev.tsv", "test.csv", "trainer.csv", "notes.csv"):
        write(f"rows/{name}", name)
    loaded = kd.load_dataset("rows")
    assert {name: table["text"] for name, table in loaded.items()} == {
        "train": ["train-1.csv", "train-2.csv"],
        "validation": ["Dev.tsv"],
        "test": ["test.csv"],
    }
    assert kd.load_dataset("rows", data_files="notes.csv", split="train")["text"] == ["notes.csv"]
    write("hub/README.csv", "x")
    write("hub/data/test-00000-of-00001.csv", "y")
    assert kd.load_dataset("hub", split="test")["text"] == ["y"]
    Path("empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no file whose name begins with train, .*data_files="):
        kd.load_dataset("empty")


def test_the_shared_rows(shared_dir: Path) -> None:
    loaded = kd.load_dataset(shared_dir / "data" / "SST-2")
    assert {name: len(table) for name, table in loaded.items()} == {"train": 67349, "validation": 872, "test": 1821}


def test_operations_apply_to_every_split() -> None:
    loaded = kd.load_dataset("csv", data_files={"a": write("a.csv", "x"), "b": write("b.csv", "y")})
    changed = (
        loaded.map(lambda batch: {"n": [len(text) for text in batch["text"]]}, batched=True)
        .rename_column("label", "labels")
        .remove_columns("text")
    )
    assert isinstance(changed, DatasetDict)
    assert changed.column_names == {"a": ["labels", "n"], "b": ["labels", "n"]}
    assert changed.num_rows == {"a": 1, "b": 1}
    assert loaded.filter(lambda row: row["text"] == "x").num_rows == {"a": 1, "b": 0}


def test_a_split_is_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "x", "yy"]))
    tokenizer = kd.AutoTokenizer.from_pretrained(tmp_path)
    loaded = kd.load_dataset("csv", data_files={"train": write("a.csv", "x", "yy"), "dev": write("b.csv", "yy")})
    encoded = loaded.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True)
    for split in (loaded["train"], encoded["train"]):
        dataset = as_dataset(split, tokenizer)
        assert (dataset.ids.tolist(), dataset.labels.tolist()) == ([2, 4, 3, 2, 5, 3], [1, 2])
    with pytest.raises(ValueError, match=r"2 splits \(train, dev\); pass one of them"):
        as_dataset(loaded, tokenizer)


def test_what_is_refused() -> None:
    write("a.csv", "x")
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist"):
        kd.load_dataset("none.csv")
    with pytest.raises(FileNotFoundError, match=r"there is no file 'none\*\.csv'"):
        kd.load_dataset("csv", data_files="none*.csv")
    with pytest.raises(ValueError, match="needs data_files="):
        kd.load_dataset("json")
    with pytest.raises(ValueError, match=r"split is 'test'; the files give train"):
        kd.load_dataset("csv", data_files="a.csv", split="test")
    with pytest.raises(
        TypeError, match=r"load_dataset takes no usecols= for local files; they are .* with sep=, delim"
    ):
        kd.load_dataset("csv", data_files="a.csv", usecols=[0])
    with pytest.raises(TypeError, match=r"no delimeter= for local files; did you mean 'delimiter'\?"):
        kd.load_dataset("csv", data_files="a.csv", delimeter=";")
    with pytest.raises(ValueError, match='quotechar is "\'"; expected'):
        kd.load_dataset("csv", data_files="a.csv", quotechar="'")
    for options in ({"header": None}, {"header": 0, "names": ["x"]}, {"header": 1}):
        with pytest.raises(ValueError, match=f"header is {options['header']}; leave it out for a file with a header"):
            kd.load_dataset("csv", data_files="a.csv", **options)
    named = kd.load_dataset("csv", data_files="a.csv", header=None, names=["a", "b"], split="train")
    assert (named["a"], named["b"]) == (["text", "x"], ["label", "1"])
    with pytest.raises(TypeError, match=r"load_dataset takes no name= for local files"):
        kd.load_dataset("a.csv", "sst2")


def test_names_on_the_hub_are_for_the_package_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    package = SimpleNamespace(load_dataset=lambda *args, **kwargs: asked.append((args, kwargs)) or "theirs")
    monkeypatch.setitem(sys.modules, "datasets", package)
    assert kd.load_dataset("glue", "sst2", split="train", revision="main") == "theirs"
    assert asked == [(("glue", "sst2"), {"data_files": None, "split": "train", "revision": "main"})]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"no file or directory 'glue'; .*pip install \"kdistill\[datasets\]\""):
        kd.load_dataset("glue", "sst2")


def test_a_table_is_not_changed_by_who_reads_it() -> None:
    table = Table("the test", {"text": ["x"], "label": [0]})
    table["text"].append("y")
    assert len(table) == 1


@pytest.mark.parametrize(
    ("split", "texts"),
    [
        ("train[:2]", "ab"),
        ("train[2:4]", "cd"),
        ("train[-2:]", "fg"),
        ("train[:-5]", "ab"),
        ("train[:50%]", "abcd"),  # 3.5 rows, rounded to even as datasets does
        ("train[20%:40%]", "bc"),
        ("train[-30%:]", "fg"),
        ("train[:2]+test", "abx"),
        ("test + train[5:]", "xfg"),
        ("train[10:]", ""),
        ("all", "abcdefgx"),
    ],
)
def test_slices_of_splits(split: str, texts: str) -> None:
    files = {"train": write("a.csv", *"abcdefg"), "test": write("b.csv", "x")}
    loaded = kd.load_dataset("csv", data_files=files, split=split)
    assert "".join(loaded["text"]) == texts
    assert all(text in Path(loaded.where(row).split(":")[0]).read_text() for row, text in enumerate(texts))
    both = kd.load_dataset("csv", data_files=files, split=[split, "test"])
    assert [table["text"] for table in both] == [list(texts), ["x"]]


@pytest.mark.parametrize("split", ["train[:200%]", "train[1]", "train[a:]", "train[:5%](up)", "", "train+"])
def test_slices_that_are_none(split: str) -> None:
    with pytest.raises(ValueError, match=r"split is '.*'; expected a name or a slice such as 'train\[:10%\]'"):
        kd.load_dataset("csv", data_files=write("a.csv", "a"), split=split)


def test_percent_of_the_same_number_of_rows() -> None:
    path = write("a.csv", *(str(row) for row in range(250)))
    assert len(kd.load_dataset(path, split="train[:10%](pct1_dropremainder)")) == 20
    with pytest.raises(ValueError, match="train has 1 rows; expected 100 or more for pct1_dropremainder"):
        kd.load_dataset(write("b.csv", "x"), split="train[:10%](pct1_dropremainder)")


def test_options_about_caches_are_ignored_with_a_warning() -> None:
    path = write("a.csv", "x")
    with pytest.warns(UserWarning, match="reads local files whole and ignores cache_dir, num_proc$"):
        loaded = kd.load_dataset(path, cache_dir="cache", num_proc=2, streaming=False, revision=None)
    assert loaded["train"]["text"] == ["x"]


def test_a_directory_of_files_may_be_given_as_data_dir() -> None:
    write("rows/train.csv", "x")
    for loaded in (kd.load_dataset("csv", data_dir="rows"), kd.load_dataset(".", data_dir="rows")):
        assert loaded["train"]["text"] == ["x"]


def test_features_name_the_labels() -> None:
    names = SimpleNamespace(names=["n", "p"])
    loaded = kd.load_dataset(write("a.csv", "x"), features={"text": SimpleNamespace(), "label": names}, split="train")
    assert loaded.class_names == {"label": ("n", "p")}
