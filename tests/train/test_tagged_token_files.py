"""Token files of words with tags: the windows, the labels and the bits of a run on the file itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import VOCABULARY, run_fields, small_config, weights, write_model
from support.small_tags import tagged_sentences
from support.token_directories import change_a_byte, content, interrupt_in_shard

import kdistill as kd
from kdistill.data.dataset import Dataset
from kdistill.data.token_files import TokenFiles
from kdistill.train.encoding import encode_for

TAGS = {0: "O", 1: "B-praise", 2: "B-thing", 3: "I-praise", 4: "I-thing"}
WORDS = [*VOCABULARY, "##s", "##ly"]
SENTENCES = [
    [(f"{word}{('', 's', 'sly')[n % 3]}", tag) for n, (word, tag) in enumerate(row)] for row in tagged_sentences(20)
]


@pytest.fixture
def tokenizer(tmp_path: Path) -> kd.PreTrainedTokenizerFast:
    write_model(tmp_path / "model", vocab_size=len(WORDS))
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return kd.AutoTokenizer.from_pretrained(tmp_path / "model")


def config(**changes: Any) -> Any:
    return small_config(vocab_size=len(WORDS), id2label=TAGS, **changes).with_head("token-classification")


def tagger(seed: int, **changes: Any) -> kd.BertForTokenClassification:
    return kd.BertForTokenClassification(config(initializer_range=0.2, **changes), seed=seed)


def encoded(source: Any, tokenizer: kd.PreTrainedTokenizerFast, output: Path, **settings: Any) -> TokenFiles:
    settings = {"max_length": 10, "shard_rows": 7, "quiet": True, "task": "token-classification"} | settings
    return kd.encode(source, tokenizer, output, **settings)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(**changes: Any) -> list[dict[str, Any]]:
    """Rows of words, some with more tokens than a window has; `changes` are columns by name: (row, tags) -> value."""
    found: list[dict[str, Any]] = [{"tokens": [word for word, _ in row]} for row in SENTENCES]
    for name, value in changes.items():
        for number, row in enumerate(SENTENCES):
            found[number][name] = value(number, [tag for _, tag in row])
    return found


def spans(number: int, tags: list[str]) -> list[dict[str, Any]]:
    """The text of a row of words has one space between two of them."""
    found, start = [], 0
    for word, tag in SENTENCES[number]:
        found += [] if tag == "O" else [{"start": start, "end": start + len(word), "label": tag[2:]}]
        start += len(word) + 1
    return found


def pieces() -> list[dict[str, Any]]:
    return [
        {"data": [{"text": f"{word} ", **({} if tag == "O" else {"entity": tag[2:]})} for word, tag in row]}
        for row in SENTENCES
    ]


def assert_same(ours: Dataset, theirs: Dataset) -> None:
    assert ours.windows is not None
    assert theirs.windows is not None
    pairs = [(getattr(ours, name), getattr(theirs, name)) for name in ("ids", "types", "starts", "labels", "lengths")]
    pairs += [(getattr(ours.windows, name), getattr(theirs.windows, name)) for name in ("examples", "words")]
    for mine, other in pairs:
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.reading == theirs.reading
    assert ours.per_token
    assert (ours.labelled, ours.unlabelled, ours.num_examples) == (theirs.labelled, theirs.unlabelled, 20)


@pytest.mark.parametrize(
    "given",
    [
        rows(tags=lambda _, tags: tags),
        rows(ner_tags=lambda _, tags: [{name: number for number, name in TAGS.items()}[tag] for tag in tags]),
        rows(tags=lambda row, tags: tags if row % 3 else None),  # of some rows nobody knows them
        rows(tags=lambda row, tags: ["", *tags[1:]] if row % 3 else [-100, *tags[1:]]),  # nor of some words
        rows(tags=lambda row, tags: ["-", *tags[1:]]),  # so does a mark say
        rows(),
        [{"text": " ".join(word for word, _ in row), "entities": spans(n, [])} for n, row in enumerate(SENTENCES)],
        pieces(),
    ],
)
@pytest.mark.parametrize("all_tokens", [False, True])
@pytest.mark.filterwarnings("ignore:.*is read as a missing label")
def test_rows_of_token_files_are_those_of_the_file(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, given: list[dict[str, Any]], all_tokens: bool
) -> None:
    path = write(tmp_path / "rows.jsonl", given)
    files = encoded(path, tokenizer, tmp_path / "tokens")
    assert len(files.header.shards) == 3
    assert files.header.cut > 3
    args = kd.TrainingArguments(disable_tqdm=True, label_all_tokens=all_tokens, max_length=10)
    ours, theirs = (encode_for(config(), source, tokenizer, args, training=True) for source in (files, path))
    assert_same(ours, theirs)
    assert (ours.labels[files.array("further") > 0] >= 0).any() == (all_tokens and theirs.labelled > 0)


def test_names_of_tags_that_a_file_states_are_kept(tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = ["B-thing", "O", "B-praise", "I-thing"]
    given = rows(tags=lambda _, tags: [names.index(tag) for tag in tags])
    of_tags = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}
    about = {"huggingface": json.dumps({"info": {"features": {"tags": of_tags}}})}
    pq.write_table(pa.Table.from_pylist(given).replace_schema_metadata(about), tmp_path / "rows.parquet")
    files = encoded(tmp_path / "rows.parquet", tokenizer, tmp_path / "tokens")
    assert list(files.header.class_names) == names
    args = kd.TrainingArguments(disable_tqdm=True, max_length=10)
    assert_same(*(encode_for(config(), of, tokenizer, args) for of in (files, tmp_path / "rows.parquet")))


@pytest.mark.filterwarnings("ignore:the teacher's F1 of entities", "ignore:.*have no label; on these")
def test_a_distillation_has_the_bits_of_one_on_the_file(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "rows.jsonl", rows(tags=lambda row, tags: tags if row % 4 else None))
    files, found = encoded(path, tokenizer, tmp_path / "tokens"), []
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    for source in (path, str(files.path)):
        fields = {"alpha": 0.5, "max_length": 10, "label_all_tokens": True, "augment": 1}
        trainer = kd.DistillationTrainer(
            tagger(3),
            kd.DistillationTrainingArguments(**run_fields(tmp_path / str(len(found)), fields)),  # type: ignore[arg-type]
            teacher_model=tagger(2),
            train_dataset=source,
            eval_dataset=source,
            processing_class=tokenizer,
        )
        trainer.train()
        found.append((weights(trainer.model), trainer.state.trained_on, trainer.evaluate()["eval_f1"]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_words_that_are_kept_are_given_to_a_teacher_with_another_tokenizer(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast
) -> None:
    given = [
        {**row, "tokens": [*row["tokens"][:-1], 'caf\xe9 "\U0001f600"']} for row in rows(tags=lambda _, tags: tags)
    ]
    path = write(tmp_path / "rows.jsonl", given)
    args = kd.TrainingArguments(disable_tqdm=True, max_length=10)
    files = encoded(path, tokenizer, tmp_path / "tokens", keep_texts=True)
    ours, theirs = (encode_for(config(), of, tokenizer, args, keep_texts=True).windows for of in (files, path))
    assert ours is not None
    assert list(ours.texts) == list(theirs.texts) == [row["tokens"] for row in given]  # type: ignore[union-attr,arg-type]
    assert ours.texts[3:5] == theirs.texts[3:5]  # type: ignore[union-attr,index]
    without = encoded(path, tokenizer, tmp_path / "others")
    with pytest.raises(ValueError, match="--keep-texts"):
        encode_for(config(), without, tokenizer, args, keep_texts=True)


def test_what_the_file_would_have_made_otherwise_is_refused_with_what_to_do(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast
) -> None:
    path = write(tmp_path / "rows.jsonl", rows(tags=lambda _, tags: tags))
    files = encoded(path, tokenizer, tmp_path / "tokens", doc_stride=3)

    def refused(model: Any, source: Any = files, **fields: Any) -> str:
        with pytest.raises(ValueError, match=r".") as error:
            encode_for(model, source, tokenizer, kd.TrainingArguments(disable_tqdm=True, **fields))
        return str(error.value)

    cut = files.header.cut
    assert (
        f"with {cut} of 20 rows in windows that share 3 tokens, and here they share 2; give --doc-stride 3"
    ) in refused(config(), max_length=10)
    assert f"was encoded with {cut} of 20 rows cut into windows of 10 tokens" in refused(config(), doc_stride=3)
    args = kd.TrainingArguments(disable_tqdm=True, max_length=10, doc_stride=3)
    assert_same(*(encode_for(config(), of, tokenizer, args) for of in (files, path)))
    classes = small_config(vocab_size=len(WORDS))
    assert "was encoded with --task token-classification, and the model is one for text" in refused(classes)
    assert "'B-praise'" in refused(config().replace(id2label={0: "O", 1: "B-person"}), max_length=10, doc_stride=3)
    of_texts = encoded(write(tmp_path / "texts.jsonl", [{"text": "good"}]), tokenizer, tmp_path / "texts", task=None)
    assert "was encoded without --task token-classification" in refused(config(), of_texts)
    short_rows = write(tmp_path / "short.jsonl", rows(tags=lambda _, tags: tags)[:2])
    short = encoded(short_rows, tokenizer, tmp_path / "short", max_length=64)  # where nothing is cut, any will do
    encode_for(
        config(max_position_embeddings=64), short, tokenizer, kd.TrainingArguments(disable_tqdm=True, doc_stride=5)
    )
    with pytest.raises(ValueError, match="doc_stride is 3, and only rows of words and questions become"):
        encoded(path, tokenizer, tmp_path / "no", task=None, doc_stride=3)
    with pytest.raises(ValueError, match="text_pair_column is 'tags', and tokens have no pairs"):
        encoded(path, tokenizer, tmp_path / "no", text_pair_column="tags")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("row", "error", "said"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, ValueError, "rows.jsonl:21: 2 tokens and 1 tags"),
        ({"tokens": ["a"], "tags": "O"}, TypeError, "rows.jsonl:21: label 'O' is a str; expected a list with a tag"),
        ({"tokens": ["a"], "tags": [{"a": 1}]}, TypeError, "rows.jsonl:21: label {'a': 1} is a dict"),
        ({"tokens": ["a"], "ner_tags": ["O"]}, ValueError, "rows.jsonl:21: .*'ner_tags'|no column 'tags'"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, row: dict[str, Any], error: type[Exception], said: str
) -> None:
    path = write(tmp_path / "rows.jsonl", [*rows(tags=lambda _, tags: tags), row])
    with pytest.raises(error, match=said):
        encoded(path, tokenizer, tmp_path / "tokens", shard_rows=20)


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_an_interrupted_encoding_goes_on_behind_the_last_whole_shard(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    path = write(tmp_path / "rows.jsonl", rows(tags=lambda _, tags: tags))
    whole = content(encoded(path, tokenizer, tmp_path / "whole", keep_texts=True).path)
    calls = interrupt_in_shard(monkeypatch, "cut_words", shard)
    with pytest.raises(KeyboardInterrupt):
        encoded(path, tokenizer, tmp_path / "tokens", keep_texts=True)
    encoded(path, tokenizer, tmp_path / "tokens", keep_texts=True)
    assert len(calls) == 1 + 3
    assert content(tmp_path / "tokens") == whole


@pytest.mark.parametrize("name", ["labels.ordered", "examples", "words", "further", "texts"])
def test_a_damaged_shard_is_named_and_made_anew(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, name: str
) -> None:
    path = write(tmp_path / "rows.jsonl", rows(tags=lambda _, tags: tags))
    files = encoded(path, tokenizer, tmp_path / "tokens", keep_texts=True)
    whole, damaged = content(files.path), files.path / f"{name}.bin"
    change_a_byte(damaged)
    with pytest.raises(ValueError, match=rf"{name}\.bin .*: shard 2 of 3 of"):
        TokenFiles(files.path)
    with pytest.warns(UserWarning, match="it is made anew"):
        encoded(path, tokenizer, files.path, keep_texts=True)
    assert content(files.path) == whole
