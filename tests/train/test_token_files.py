"""Token files: a run on them has the bits of a run on the text, and what does not fit is said."""

from __future__ import annotations

import json
import random
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import VOCABULARY, run_fields, sentences, small_model, weights, write_model, write_rows
from support.small_texts import documents, language_model, text_fields
from support.token_directories import change_a_byte, content, interrupt_in_shard

import kdistill as kd
from kdistill.data import token_header, token_writer
from kdistill.data.dataset import Dataset
from kdistill.data.sources import read_table
from kdistill.data.token_files import TokenFiles
from kdistill.train.encoding import encode_for


@pytest.fixture
def tokenizer(tmp_path: Path) -> kd.PreTrainedTokenizerFast:
    return kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "model"))


def encoded(source: Any, tokenizer: kd.PreTrainedTokenizerFast, output: Path, **settings: Any) -> TokenFiles:
    settings = {"max_length": 16, "shard_rows": 7, "quiet": True} | settings
    return kd.encode(source, tokenizer, output, **settings)


def json_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def assert_same(ours: Dataset, theirs: Dataset) -> None:
    for name in ("ids", "types", "starts", "labels", "lengths"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert mine.dtype == other.dtype, name
        np.testing.assert_array_equal(mine, other)
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.reading == theirs.reading
    assert (ours.per_token, ours.column_use is None) == (theirs.per_token, theirs.column_use is None)


PAIRS = [
    {"sentence1": a, "sentence2": b, "label": label}
    for (a, label), (b, _) in zip(sentences(20), sentences(20, 1), strict=True)
]


@pytest.mark.parametrize(
    ("labels", "config", "settings"),
    [
        ([0, 1], {}, {}),
        (["negative", "positive"], {}, {}),
        (["positive", "negative"], {}, {}),  # not in the order in which they occur
        (["1", ""], {}, {}),  # some are missing
        (["-", "positive"], {}, {}),  # so is a mark
        ([None, None], {}, {}),  # all are
        ([["a"], ["b", "a"], []], {"id2label": {0: "a", 1: "b"}, "problem_type": "multi_label_classification"}, {}),
        ([0.5, -2, 3.25], {"id2label": {0: "score"}, "problem_type": "regression"}, {}),
        ([0.5, None, 3.25], {"id2label": {0: "score"}, "problem_type": "regression"}, {"problem_type": "regression"}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is read as a missing label")
def test_rows_of_token_files_are_those_of_the_text(
    tmp_path: Path,
    tokenizer: kd.PreTrainedTokenizerFast,
    labels: list[Any],
    config: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    rows = [{"text": text, "label": labels[row % len(labels)]} for row, (text, _) in enumerate(sentences(20))]
    path, args = json_lines(tmp_path / "rows.jsonl", rows), kd.TrainingArguments(disable_tqdm=True)
    files = encoded(path, tokenizer, tmp_path / "tokens", **settings)
    model = small_model(**config)
    assert len(files.header.shards) == 3
    assert_same(encode_for(model.config, files, tokenizer, args), encode_for(model.config, path, tokenizer, args))


@pytest.mark.filterwarnings("ignore:.*longer than 9 tokens and truncated")
def test_pairs_and_rows_that_are_cut_are_those_of_the_text(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast
) -> None:
    path, args = json_lines(tmp_path / "rows.jsonl", PAIRS), kd.TrainingArguments(disable_tqdm=True, max_length=9)
    files = encoded(path, tokenizer, tmp_path / "tokens", max_length=9)
    assert files.header.cut > 0
    config = small_model().config
    theirs = encode_for(config, path, tokenizer, args)
    with pytest.warns(UserWarning, match="longer than 9 tokens"):
        ours = encode_for(config, files, tokenizer, args)
    assert_same(ours, theirs)
    assert ours.types.any()
    without_types = encode_for(config, files, tokenizer.with_token_types(False), args)
    assert not without_types.types.any()


@pytest.mark.filterwarnings("ignore:.*no better than always answering")
def test_a_distillation_has_the_bits_of_one_on_the_text_and_the_same_answers_in_the_cache(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "rows.tsv", 40)
    files, found = encoded(path, tokenizer, tmp_path / "tokens"), []
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    sizes = []
    for source in (path, str(files.path)):
        fields = run_fields(tmp_path / str(len(found)), {"alpha": 0.5})
        trainer = kd.DistillationTrainer(
            small_model(3),
            kd.DistillationTrainingArguments(**fields),  # type: ignore[arg-type]
            teacher_model=small_model(2),
            train_dataset=source,
            eval_dataset=source,
            processing_class=tokenizer,
        )
        trainer.train()
        found.append((weights(trainer.model), trainer.state.trained_on, trainer.model.config.to_dict()))
        sizes.append(sum(file.stat().st_size for file in (tmp_path / "cache").iterdir()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]
    assert sizes[0] == sizes[1]


def test_running_text_hides_the_words_that_it_hides_in_the_text(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(documents(20)) + "\n")
    files = encoded(path, tokenizer, tmp_path / "tokens", task="masked-lm", max_length=12)
    found = []
    for source in (path, files):
        args = kd.TrainingArguments(**text_fields(tmp_path / str(len(found)), eval_strategy="no"))
        trainer = kd.Trainer(language_model(), args, train_dataset=source, processing_class=tokenizer)
        trainer.train()
        found.append(np.array(trainer.model.flat_parameters))
    np.testing.assert_array_equal(found[0], found[1])


def test_several_files_are_one_after_another(tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast) -> None:
    for part in range(3):
        write_rows(tmp_path / f"part-{part}.tsv", 10, seed=part)
    files = encoded(str(tmp_path / "part-*.tsv"), tokenizer, tmp_path / "tokens")
    texts = [text for part in range(3) for text, _ in sentences(10, part)]
    ids, starts = files.array("ids"), files.array("starts")
    assert [tokenizer.decode(ids[a + 1 : b - 1]) for a, b in pairwise(starts)] == texts


@pytest.mark.parametrize(("name", "blank"), [("rows.tsv", "sentence\tlabel\n"), ("rows.jsonl", "\n\n")])
def test_files_without_rows_are_passed_over(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, name: str, blank: str
) -> None:
    rows = write_rows(tmp_path / "some.tsv", 10)
    before, behind = tmp_path / name, tmp_path / f"behind-{name}"
    for empty in (before, behind):
        empty.write_text(blank)
    files = encoded([before, rows, behind], tokenizer, tmp_path / "tokens")
    assert len(files) == 10
    with pytest.raises(ValueError, match=rf"{name} has no rows"):
        encoded(before, tokenizer, tmp_path / "none")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"tokenizer": None}, TypeError, "tokenizer is None; expected the model's"),
        ({"data": [{"text": "good"}]}, TypeError, "data holds {'text': 'good'}; expected files"),
        ({"shard_rows": 2.5}, ValueError, "shard_rows is 2.5; expected a whole number >= 1"),
        ({"doc_stride": "3", "task": "token-classification"}, ValueError, "doc_stride is '3'; expected a whole"),
    ],
)
def test_what_cannot_be_encoded_is_said(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    fields = {"data": write_rows(tmp_path / "rows.tsv", 3), "tokenizer": tokenizer, "output": tmp_path / "no"}
    with pytest.raises(error, match=re.escape(said)):
        kd.encode(**fields | given)
    assert not (tmp_path / "no").exists()


def test_texts_that_are_kept_are_given_to_a_teacher_with_another_tokenizer(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast
) -> None:
    path = json_lines(tmp_path / "rows.jsonl", [{**row, "sentence2": "caf\xe9 \U0001f600"} for row in PAIRS])
    args, config = kd.TrainingArguments(disable_tqdm=True), small_model().config
    files = encoded(path, tokenizer, tmp_path / "tokens", keep_texts=True)
    ours = encode_for(config, files, tokenizer, args, keep_texts=True)
    theirs = encode_for(config, path, tokenizer, args, keep_texts=True)
    assert ours.texts is not None
    assert theirs.texts is not None
    assert ours.texts.inputs() == theirs.texts.inputs()
    order = random.Random(1).sample(range(20), 20)
    assert ours.take(order).texts.inputs() == theirs.take(order).texts.inputs()  # type: ignore[union-attr]
    without = encoded(path, tokenizer, tmp_path / "others")
    with pytest.raises(ValueError, match="--keep-texts"):
        encode_for(config, without, tokenizer, args, keep_texts=True)


@pytest.mark.filterwarnings("ignore:.*no better than always answering")
def test_augmented_copies_are_made_of_tokens(tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast) -> None:
    path = write_rows(tmp_path / "rows.tsv", 16)
    files, found = encoded(path, tokenizer, tmp_path / "tokens"), []
    for source in (path, files):
        fields = run_fields(tmp_path / str(len(found)), {"augment": 2, "max_steps": 3, "eval_strategy": "no"})
        trainer = kd.DistillationTrainer(
            small_model(3),
            kd.DistillationTrainingArguments(**fields),  # type: ignore[arg-type]
            teacher_model=small_model(2),
            train_dataset=source,
            processing_class=tokenizer,
        )
        trainer.train()
        found.append(weights(trainer.model))
    np.testing.assert_array_equal(found[0], found[1])


def other_tokenizer(directory: Path) -> kd.PreTrainedTokenizerFast:
    write_model(directory)
    (directory / "vocab.txt").write_text("\n".join([*VOCABULARY[:-2], "scene", "actor"]) + "\n")
    return kd.AutoTokenizer.from_pretrained(directory)


def test_what_the_text_would_have_made_otherwise_is_refused_with_what_to_do(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast
) -> None:
    config = small_model().config
    files = encoded(write_rows(tmp_path / "rows.tsv", 20), tokenizer, tmp_path / "tokens", max_length=6)
    args = kd.TrainingArguments(disable_tqdm=True, max_length=6)

    def refused(
        config: Any = config, source: Any = files, tokenizer: Any = tokenizer, args: Any = args, **more: Any
    ) -> str:
        with pytest.raises(ValueError, match=r".") as error:
            encode_for(config, source, tokenizer, args, **more)
        return str(error.value)

    assert "another tokenizer" in refused(tokenizer=other_tokenizer(tmp_path / "other"))
    assert "give --max-length 6" in refused(args=kd.TrainingArguments(disable_tqdm=True))
    assert "encode the rows anew with --max-length 5" in refused(
        args=kd.TrainingArguments(disable_tqdm=True, max_length=5)
    )
    assert "encode the rows anew with --text-column sentence" in refused(text_column="sentence")
    assert "encode the rows anew with --task masked-lm" in refused(config=language_model().config)
    assert "encode the rows anew with --task token-classification" in refused(
        config=config.with_head("token-classification")
    )
    assert "encode the rows anew with --task question-answering" in refused(
        config=config.with_head("question-answering")
    )
    assert "'up'" in refused(
        source=encoded(json_lines(tmp_path / "up.jsonl", [{"text": "good", "label": "up"}]), tokenizer, tmp_path / "up")
    )
    numbers = encoded(tmp_path / "rows.tsv", tokenizer, tmp_path / "numbers", max_length=6, problem_type="regression")
    assert "give --problem-type regression" in refused(source=numbers)
    with pytest.raises(ValueError, match="holds token files, and here rows of text are read"):
        read_table(str(files.path))
    assert kd.load_dataset(str(files.path)).header == files.header
    with pytest.raises(TypeError, match="takes no split="):
        kd.load_dataset(str(files.path), split="train")


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_an_interrupted_encoding_goes_on_behind_the_last_whole_shard(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    names = {0: "negative", 1: "positive"}
    rows = [{"text": text, "label": names[1 - label]} for text, label in sentences(20)]
    path = json_lines(tmp_path / "rows.jsonl", rows)
    whole = content(encoded(path, tokenizer, tmp_path / "whole").path)
    calls = interrupt_in_shard(monkeypatch, "encode_texts", shard)
    with pytest.raises(KeyboardInterrupt):
        encoded(path, tokenizer, tmp_path / "tokens")
    assert (tmp_path / "tokens").exists() == bool(shard)
    if shard:
        with pytest.raises(ValueError, match="is not finished"):
            TokenFiles(tmp_path / "tokens")
        with (tmp_path / "tokens" / "ids.bin").open("ab") as file:
            file.write(b"half of a shard")
    encoded(path, tokenizer, tmp_path / "tokens")
    assert len(calls) == 1 + 3  # that which was interrupted is the only one made twice
    assert content(tmp_path / "tokens") == whole


@pytest.mark.parametrize("damage", ["byte", "truncated", "missing"])
@pytest.mark.parametrize("name", ["ids", "types", "starts", "lengths", "labels.ordered"])
def test_a_damaged_shard_is_named_and_made_anew(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, name: str, damage: str
) -> None:
    rows = [{"sentence1": row["sentence1"], "sentence2": row["sentence2"], "label": 1 - row["label"]} for row in PAIRS]
    path = json_lines(tmp_path / "rows.jsonl", rows)
    files = encoded(path, tokenizer, tmp_path / "tokens")
    whole, damaged = content(files.path), files.path / f"{name}.bin"
    if damage == "missing":
        damaged.unlink()
    elif damage == "byte":
        change_a_byte(damaged)
    else:
        held = damaged.read_bytes()
        damaged.write_bytes(held[: len(held) // 2])
    with pytest.raises(ValueError, match=rf"{name}\.bin .*: shard {1 if damage == 'missing' else 2} of 3 of"):
        TokenFiles(files.path)
    with pytest.warns(UserWarning, match="it is made anew"):
        encoded(path, tokenizer, files.path)
    assert content(files.path) == whole


def test_a_tokenizer_that_is_missing_is_named_and_written_anew(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast
) -> None:
    path = write_rows(tmp_path / "rows.tsv", 8)
    files = encoded(path, tokenizer, tmp_path / "tokens")
    shutil.rmtree(files.path / "tokenizer")
    with pytest.raises(ValueError, match="tokens lacks its directory 'tokenizer'"):
        TokenFiles(files.path)
    assert encoded(path, tokenizer, files.path).tokenizer.content_hash == tokenizer.content_hash


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast) -> None:
    path = write_rows(tmp_path / "rows.tsv", 8)
    with pytest.raises(FileExistsError, match="which holds other files"):
        encoded(path, tokenizer, tmp_path)
    with pytest.raises(FileExistsError, match="which is a file"):
        encoded(path, tokenizer, path)
    files = encoded(path, tokenizer, tmp_path / "tokens")
    kept = content(files.path)
    with pytest.raises(FileExistsError, match=r"\(max_length differ\)"):
        encoded(path, tokenizer, files.path, max_length=8)
    with pytest.raises(FileExistsError, match="the tokenizer"):
        encoded(path, other_tokenizer(tmp_path / "other"), files.path)
    encoded(path, tokenizer, files.path)  # nothing to do
    assert content(files.path) == kept
    write_rows(path, 9)
    with pytest.raises(FileExistsError, match="the files of --data"):
        encoded(path, tokenizer, files.path)
    (files.path / "tokens.json").write_text('{"format": "another"}')
    with pytest.raises(ValueError, match="is not what `kdistill encode` writes"):
        TokenFiles(files.path)
    (files.path / "tokens.json").write_text(json.dumps({"format": token_header.FORMAT, "version": 1}))
    with pytest.raises(ValueError, match=r"has version 1; .* encode the rows anew, into another directory"):
        encoded(path, tokenizer, files.path)


def test_rows_in_a_folder_or_in_an_object_that_have_changed_are_noticed(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast
) -> None:
    rows, text = tmp_path / "rows.json", tmp_path / "texts" / "good" / "0.txt"
    text.parent.mkdir(parents=True)
    for number, words in enumerate(("good", "good film")):
        rows.write_text(json.dumps({"train": [{"text": words}]}))
        text.write_text(words)
        for output, source in (("rows", f"{rows}#train"), ("texts", tmp_path / "texts")):
            if number:
                with pytest.raises(FileExistsError, match="the files of --data"):
                    encoded(source, tokenizer, tmp_path / "tokens" / output)
            else:
                encoded(source, tokenizer, tmp_path / "tokens" / output)


def test_a_full_disk_is_an_error_that_names_the_file_and_loses_nothing(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync = write_rows(tmp_path / "rows.tsv", 20), token_writer.os.fsync
    whole = content(encoded(path, tokenizer, tmp_path / "whole").path)
    calls: list[int] = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 18:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(token_writer.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*\.bin'"):
        encoded(path, tokenizer, tmp_path / "tokens")
    monkeypatch.undo()
    encoded(path, tokenizer, tmp_path / "tokens")
    assert content(tmp_path / "tokens") == whole


def test_two_processes_do_not_write_into_one_directory(tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast) -> None:
    path = write_rows(tmp_path / "rows.tsv", 8)
    (tmp_path / "tokens").mkdir()
    with (
        token_writer.file_lock(tmp_path / "tokens" / token_writer.LOCK_FILE, wait=False),
        pytest.raises(BlockingIOError, match="is being written by process"),
    ):
        encoded(path, tokenizer, tmp_path / "tokens")


def test_labels_that_begin_behind_the_first_rows_are_refused(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast
) -> None:
    rows: list[dict[str, Any]] = [{"text": text} for text, _ in sentences(10)]
    path = json_lines(tmp_path / "rows.jsonl", [*rows, {"text": "good", "label": 1}])
    with pytest.raises(ValueError, match=r"rows.jsonl:8: a column of labels \('label'\), which the first 7 rows lack"):
        encoded(path, tokenizer, tmp_path / "tokens")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.tsv", "sentence\tcategory\na fine film\t1\n"),
        ("rows.tsv", "words\tlabel\na fine film\t1\n"),
        ("rows.tsv", "sentence\na fine film\n"),
        ("rows.jsonl", '{"sentence": "a fine film", "labels": 1}\n'),
    ],
)
def test_a_file_with_other_columns_is_refused(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, name: str, content: str
) -> None:
    first, second = tmp_path / "first.tsv", tmp_path / name
    write_rows(first, 7)
    second.write_text(content)
    with pytest.raises(
        ValueError, match=rf"{name}:.*: no column '\w+', .* among '(sentence|words)'.*the same names in"
    ):
        encoded([first, second], tokenizer, tmp_path / "tokens")


def test_rows_may_lack_a_label_that_others_have(tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast) -> None:
    rows: list[dict[str, Any]] = [{"text": text, "label": label} for text, label in sentences(7)]
    path = json_lines(tmp_path / "rows.jsonl", [*rows, *({"text": text} for text, _ in sentences(9))])
    with pytest.warns(
        UserWarning, match="rows.jsonl:8: the rows from here on have no 'label' among 'text' and are"
    ) as found:
        files = encoded(path, tokenizer, tmp_path / "tokens")
    assert len(found) == 1
    read = kd.data.labels.label_ids  # type: ignore[attr-defined]
    labels = files.dataset(None, read, max_length=16, types=True, texts=False).labels
    assert labels.tolist() == [row["label"] for row in rows] + [-100] * 9
