"""Data as `datasets`, pandas and PyTorch hold and write it, read as transformers' users give it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import small_run

import kdistill as kd
from kdistill.data.columns import read_rows
from kdistill.data.dataset import Dataset, as_dataset
from kdistill.data.label_values import MISSING_MARKS
from kdistill.data.labels import NO_LABEL, label_ids, label_indicators
from kdistill.data.sources import read_table

datasets = pytest.importorskip("datasets")
pandas = pytest.importorskip("pandas")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

AWKWARD = [
    "plain",
    "with, comma",
    'a "quoted" word',
    "two\nlines",
    'all, of "it"\nat once',
    " spaces ",
    "tab\there",
    "é 东",
]
LABELS = [0, 1, 1, 0, 1, 0, 1, 0]


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return small_run.write_model(tmp_path / "model")


@pytest.fixture
def tokenizer(model_dir: Path) -> kd.BertTokenizer:
    return kd.AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture
def sentiment() -> Any:
    """A DatasetDict of the shape of GLUE's SST-2; the labels of the test rows are withheld."""
    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
            "idx": datasets.Value("int32"),
        }
    )

    def split(n: int, seed: int, withheld: bool = False) -> Any:
        texts, labels = zip(*small_run.sentences(n, seed), strict=True)
        columns = {"sentence": texts, "label": [-1] * n if withheld else labels, "idx": list(range(n))}
        return datasets.Dataset.from_dict(columns, features=features)

    return datasets.DatasetDict({"train": split(40, 0), "validation": split(16, 1), "test": split(4, 2, withheld=True)})


def assert_same(found: Dataset, expected: Dataset) -> None:
    for name in ("ids", "types", "starts", "labels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


# --- files -----------------------------------------------------------------------------------------------------------

WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "json": lambda frame, path: frame.to_json(path, orient="records"),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("missing", [False, True])
def test_files_written_by_pandas(tmp_path: Path, suffix: str, missing: bool) -> None:
    """A missing label makes pandas hold, and write, the others as floats."""
    labels = [None, *LABELS[1:]] if missing else LABELS
    path = tmp_path / f"rows.{suffix}"
    WRITERS[suffix](pandas.DataFrame({"text": AWKWARD, "label": labels}), path)
    rows = read_rows(path)
    assert rows.texts == AWKWARD
    np.testing.assert_array_equal(rows.read_labels(small_run.LABELS), [NO_LABEL if missing else 0, *LABELS[1:]])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_files_written_by_datasets(tmp_path: Path, sentiment: Any, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    getattr(sentiment["train"], "to_json" if suffix == "jsonl" else f"to_{suffix}")(path)
    rows = read_rows(path)
    assert rows.texts == sentiment["train"]["sentence"]
    np.testing.assert_array_equal(rows.read_labels(small_run.LABELS), sentiment["train"]["label"])


def test_files_are_read_as_datasets_reads_them(tmp_path: Path) -> None:
    pandas.DataFrame({"text": AWKWARD, "label": LABELS}).to_csv(tmp_path / "a.csv", index=False)
    expected = datasets.load_dataset("csv", data_files=str(tmp_path / "a.csv"), cache_dir=str(tmp_path / "cache"))
    found = kd.load_dataset("csv", data_files=str(tmp_path / "a.csv"))
    assert list(found) == list(expected)
    assert found["train"]["text"] == list(expected["train"]["text"])
    np.testing.assert_array_equal(read_rows(found["train"]).read_labels(), expected["train"]["label"])


def test_what_is_no_local_file_is_left_to_datasets(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    loaded = kd.load_dataset(
        "text", data_files=str(tmp_path / "a.txt"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(loaded, datasets.Dataset)
    assert read_rows(loaded).texts == ["one", "two"]


# --- objects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        [1.0, float("nan"), 0.0],
        pandas.array([1, None, 0], dtype="Int64"),
        pandas.Categorical(["positive", None, "negative"]),
        pandas.array(["positive", None, "negative"], dtype="string"),
        [1, None, 0],
    ],
    ids=["float", "Int64", "category", "string", "object"],
)
def test_frames_and_their_missing_labels(labels: Any) -> None:
    rows = read_rows(pandas.DataFrame({"text": ["a", "b", "c"], "label": labels}, index=[7, 7, 9]))
    assert rows.texts == ["a", "b", "c"]
    np.testing.assert_array_equal(rows.read_labels(small_run.LABELS), [1, NO_LABEL, 0])


def test_a_frame_that_misses_a_text_is_refused() -> None:
    with pytest.raises(TypeError, match="row 1 of the data frame: column 'text' holds None"):
        read_rows(pandas.DataFrame({"text": ["a", None], "label": [0, 1]}))


def test_splits_as_they_are_and_one_too_many(sentiment: Any) -> None:
    rows = read_rows(sentiment["train"])
    assert rows.texts == list(sentiment["train"]["sentence"])
    assert rows.id2label() == {0: "negative", 1: "positive"}
    with pytest.raises(
        ValueError, match=r"3 splits \(train, validation, test\); pass one of them, such as dataset\['tr"
    ):
        read_rows(sentiment)
    assert len(read_rows(datasets.DatasetDict({"train": sentiment["train"]}))) == 40
    with pytest.raises(ValueError, match="label -1 is how GLUE marks rows whose label is withheld"):
        read_rows(sentiment["test"]).read_labels(small_run.LABELS)
    assert read_rows(sentiment["test"].remove_columns("label")).labels is None
    shuffled = sentiment["train"].shuffle(seed=1).select(range(9))
    assert read_rows(shuffled).texts == list(shuffled["sentence"])


def test_labels_in_another_order_than_the_model_s_go_by_name(sentiment: Any, tokenizer: kd.BertTokenizer) -> None:
    other = as_dataset(sentiment["train"], tokenizer, id2label={0: "POSITIVE", 1: "NEGATIVE"})
    np.testing.assert_array_equal(other.labels, 1 - np.array(sentiment["train"]["label"]))


@pytest.mark.parametrize("kind", ["numpy", "torch", "pandas", "arrow"])
def test_whatever_format_a_data_set_is_set_to(sentiment: Any, tokenizer: kd.BertTokenizer, kind: str) -> None:
    expected = as_dataset(sentiment["train"], tokenizer)
    encoded = sentiment["train"].map(lambda batch: tokenizer(batch["sentence"]), batched=True)
    assert_same(as_dataset(encoded.with_format(kind), None), expected)
    assert_same(as_dataset(encoded.with_format(kind, columns=["input_ids", "label"]), None), expected)


def test_data_sets_that_are_read_one_row_after_another(sentiment: Any, tokenizer: kd.BertTokenizer) -> None:
    expected = as_dataset(sentiment["train"], tokenizer)
    assert_same(as_dataset(sentiment["train"].to_iterable_dataset(), tokenizer), expected)


def test_a_pytorch_data_set(sentiment: Any, tokenizer: kd.BertTokenizer) -> None:
    class Encoded(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        """As in transformers' guide to custom data sets."""

        def __init__(self, encodings: Any, labels: Any) -> None:
            self.encodings, self.labels = encodings, labels

        def __getitem__(self, index: int) -> dict[str, Any]:
            item = {name: torch.tensor(values[index]) for name, values in self.encodings.items()}
            return {**item, "labels": torch.tensor(self.labels[index])}

        def __len__(self) -> int:
            return len(self.labels)

    split = sentiment["train"]
    data = Encoded(tokenizer(list(split["sentence"]), padding=True, truncation=True), split["label"])
    assert_same(as_dataset(data, None), as_dataset(split, tokenizer))


@pytest.mark.parametrize("padding", [False, True, "max_length"])
@pytest.mark.parametrize("columns", [["attention_mask", "token_type_ids"], ["token_type_ids"], ["attention_mask"], []])
def test_rows_encoded_by_transformers(
    model_dir: Path, sentiment: Any, tokenizer: kd.BertTokenizer, padding: Any, columns: list[str]
) -> None:
    theirs = transformers.BertTokenizer.from_pretrained(model_dir)

    def encode(batch: Any) -> Any:
        encodings = theirs(batch["sentence"], padding=padding, max_length=16, truncation=True)
        return {name: encodings[name] for name in ["input_ids", *columns]}

    encoded = sentiment["train"].map(encode, batched=True, remove_columns=["sentence", "idx"])
    found = as_dataset(encoded, None, pad_token_id=theirs.pad_token_id)
    assert_same(found, as_dataset(sentiment["train"], tokenizer, max_length=16))


# --- the notebook's own flow -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the teacher's accuracy is")  # a random one will do
def test_the_notebook_s_flow_trains_the_same_student_as_a_file(sentiment: Any, model_dir: Path, tmp_path: Path) -> None:
    tokenizer = kd.AutoTokenizer.from_pretrained(model_dir)

    def process(examples: Any) -> Any:
        return tokenizer(examples["sentence"], truncation=True, max_length=16)

    tokenized = sentiment.map(process, batched=True)
    tokenized = tokenized.rename_column("label", "labels")
    labels = tokenized["train"].features["labels"].names
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    assert names["id2label"] == small_run.LABELS

    def train(train_dataset: Any, eval_dataset: Any, directory: str) -> tuple[Any, dict[str, float]]:
        student = kd.BertForSequenceClassification.from_pretrained(model_dir, **names)
        arguments = small_run.run_fields(tmp_path / directory, {"num_train_epochs": 1})
        trainer = kd.DistillationTrainer(
            student,
            kd.DistillationTrainingArguments(**arguments),
            teacher_model=small_run.small_model(seed=3),
            processing_class=tokenizer,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
        )
        trainer.train()
        return student, trainer.evaluate()

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not used")  # a column of row numbers is nothing to report
        student, metrics = train(tokenized["train"], tokenized["validation"], "notebook")
    for split in ("train", "validation"):
        lines = [f"{row['sentence']}\t{row['label']}" for row in sentiment[split]]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    from_files, file_metrics = train(tmp_path / "train.tsv", tmp_path / "validation.tsv", "files")
    np.testing.assert_array_equal(small_run.weights(student), small_run.weights(from_files))
    assert metrics["eval_accuracy"] == file_metrics["eval_accuracy"]


def test_mapping_twice_finds_the_first_result(sentiment: Any, tokenizer: kd.BertTokenizer) -> None:
    """`datasets` keys its cache by the pickled function, so calling the tokenizer must not change its pickle."""
    from datasets.fingerprint import Hasher

    before = Hasher.hash(tokenizer)
    tokenizer(["good film"], truncation=True, max_length=3, padding=True)
    assert Hasher.hash(tokenizer) == before


# --- class labels, slices and splits ----------------------------------------------------------------------------------

CLASSES = ["entailment", "neutral", "contradiction"]
MODEL = {0: "contradiction", 1: "entailment", 2: "neutral"}


@pytest.mark.parametrize("form", ["memory", "arrow", "iterable", "stream", "parquet", "torch"])
@pytest.mark.parametrize("lists", [False, True])
def test_class_labels_are_matched_by_name_wherever_they_are(tmp_path: Path, form: str, lists: bool) -> None:
    kind = datasets.ClassLabel(names=CLASSES)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Sequence(kind) if lists else kind}
    )
    labels = [[0], [1, 2], []] if lists else [0, 1, 2]
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": labels}, features=features)
    path = tmp_path / "rows.parquet"
    data.to_parquet(path)
    source = {
        "memory": data,
        "arrow": data.data.table,
        "iterable": data.to_iterable_dataset(),
        "stream": datasets.IterableDataset.from_generator(lambda: iter(data), features=features),
        "parquet": path,
        "torch": data.with_format("torch"),
    }[form]
    rows = read_rows(source)
    assert list(rows.class_names) == CLASSES
    reader = label_indicators if lists else label_ids
    expected = [[0, 1, 0], [1, 0, 1], [0, 0, 0]] if lists else [1, 2, 0]
    np.testing.assert_array_equal(rows.read_labels(MODEL, reader), expected)


@pytest.mark.parametrize(
    "spec",
    [
        "train[:10%]",
        "train[33%:66%]",
        "train[-3:]",
        "train[:-5]",
        "train[4:9]",
        "train[-15%:]",
        "train[:3]+test",
        "all",
    ],
)
@pytest.mark.parametrize("rows", [7, 25])
def test_slices_are_those_of_datasets(tmp_path: Path, spec: str, rows: int) -> None:
    for name, count in (("train", rows), ("test", 3)):
        frame = pandas.DataFrame({"text": [f"{name} {row}" for row in range(count)]})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    files = {name: str(tmp_path / f"{name}.csv") for name in ("train", "test")}
    found = kd.load_dataset("csv", data_files=files, split=spec)
    expected = datasets.load_dataset("csv", data_files=files, split=spec, cache_dir=str(tmp_path / "cache"))
    assert found["text"] == list(expected["text"])
    instruction = datasets.ReadInstruction("train", to=50, unit="%")
    assert kd.load_dataset("csv", data_files=files, split=instruction).num_rows == len(
        datasets.load_dataset("csv", data_files=files, split=instruction, cache_dir=str(tmp_path / "cache"))
    )
    assert kd.load_dataset("csv", data_files=files, split=datasets.Split.TRAIN).num_rows == rows


@pytest.mark.parametrize(
    "sizes", [{"test_size": 0.2}, {"test_size": 7}, {"train_size": 0.5}, {"test_size": 5, "train_size": 9}]
)
@pytest.mark.parametrize("how", [{}, {"shuffle": False}, {"stratify_by_column": "label"}])
def test_splits_in_two_have_the_sizes_of_datasets(sizes: dict[str, Any], how: dict[str, Any]) -> None:
    labels = [row % 3 for row in range(41)]
    features = datasets.Features({"label": datasets.ClassLabel(num_classes=3), "n": datasets.Value("int64")})
    theirs = datasets.Dataset.from_dict({"label": labels, "n": list(range(41))}, features=features)
    expected = theirs.train_test_split(**sizes, **how, seed=1)
    found = read_table({"label": labels, "n": list(range(41))}).train_test_split(**sizes, **how, seed=1)
    for name in ("train", "test"):
        assert len(found[name]) == len(expected[name])
        if "shuffle" in how:
            assert found[name]["n"] == list(expected[name]["n"])
        if how.get("stratify_by_column"):
            counts = [np.bincount(split[name]["label"], minlength=3) for split in (found, expected)]
            assert np.abs(counts[0] - counts[1]).max() <= 1


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json"])
def test_frames_in_every_form_that_pandas_writes(tmp_path: Path, suffix: str) -> None:
    frame, path = pandas.DataFrame({"text": AWKWARD, "label": LABELS}), str(tmp_path / f"rows.{suffix}")
    writes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"sep": ";"}, {"sep": ";"}),
        ({"sep": "\t"}, {"delimiter": "\t"}),
    ]
    if suffix == "json":
        writes = [({"orient": orient}, {}) for orient in ("records", "columns", "split", "table")]
        writes.append(({"orient": "records", "indent": 2}, {}))
    for written, read in writes:
        (frame.to_json if suffix == "json" else partial(frame.to_csv, index=False))(path, **written)
        found = kd.load_dataset("json" if suffix == "json" else "csv", data_files=path, split="train", **read)
        assert found["text"] == AWKWARD
        np.testing.assert_array_equal(read_rows(found).read_labels(), LABELS)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_truth_values_of_frames(tmp_path: Path, suffix: str) -> None:
    frame, path = pandas.DataFrame({"text": ["a", "b"], "label": [True, False]}), tmp_path / f"rows.{suffix}"
    WRITERS[suffix](frame, path)
    for source in (frame, path):
        np.testing.assert_array_equal(read_rows(source).read_labels({0: "no", 1: "yes"}), [1, 0])


def test_marks_for_missing_values_are_those_of_pandas_and_snli_s() -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    of_numbers = {"1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "#NA", "#N/A N/A", ""}
    assert (STR_NA_VALUES - of_numbers) | {"-"} == MISSING_MARKS
