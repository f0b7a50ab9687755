"""Token files of questions: the windows, the answers and the bits of a run on the file itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_fields, question_model, question_tokenizer, questions
from support.small_run import VOCABULARY, weights
from support.token_directories import change_a_byte, content, interrupt_in_shard

import kdistill as kd
from kdistill.cli.main import main
from kdistill.data.dataset import Dataset
from kdistill.data.spans import Spans
from kdistill.data.token_files import TokenFiles
from kdistill.train.encoding import encode_for

ROWS = questions(20, without_answer=0.3)


@pytest.fixture
def tokenizer(tmp_path: Path) -> kd.PreTrainedTokenizerFast:
    return question_tokenizer(tmp_path)


def encoded(source: Any, tokenizer: kd.PreTrainedTokenizerFast, output: Path, **settings: Any) -> TokenFiles:
    own = {"max_length": 10, "doc_stride": 2, "shard_rows": 7, "quiet": True, "task": "question-answering"}
    return kd.encode(source, tokenizer, output, **(own | settings))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def without(*names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in names} for row in ROWS]


def write_squad(path: Path) -> Path:
    """The rows in SQuAD's own form, two questions to an article."""
    articles = []
    for first in range(0, len(ROWS), 2):
        paragraphs = []
        for row in ROWS[first : first + 2]:
            given = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
            answers = [{"text": text, "answer_start": start} for text, start in given]
            question = {"id": row["id"], "question": row["question"], "answers": answers}
            paragraphs.append({"context": row["context"], "qas": [question | {"is_impossible": not answers}]})
        articles.append({"title": "films", "paragraphs": paragraphs})
    path.write_text(json.dumps({"version": "v2.0", "data": articles}))
    return path


def assert_same(ours: Dataset, theirs: Dataset) -> None:
    mine, other = ours.windows, theirs.windows
    assert isinstance(mine, Spans)
    assert isinstance(other, Spans)
    pairs = [(getattr(ours, name), getattr(theirs, name)) for name in ("ids", "types", "starts", "labels", "lengths")]
    pairs += [(getattr(mine, name), getattr(other, name)) for name in ("examples", "offsets", "context")]
    for one, another in pairs:
        assert one.dtype == another.dtype
        np.testing.assert_array_equal(one, another)
    for name in ("ids", "questions", "contexts", "answers"):
        assert list(getattr(mine.questions, name)) == list(getattr(other.questions, name)), name
    assert mine.questions.columns == other.questions.columns
    assert (ours.fingerprint(), ours.reading) == (theirs.fingerprint(), theirs.reading)
    assert (ours.labelled, ours.num_examples) == (theirs.labelled, 20)


@pytest.mark.parametrize(
    "given",
    [
        ROWS,
        without("id"),
        without("answers"),
        [{**row, "answers": None} if place % 3 else row for place, row in enumerate(ROWS)],
        [{**row, "question": f"  {row['question']} \U0001f600\xe9"} for row in ROWS],
        "squad",
    ],
)
def test_rows_of_token_files_are_those_of_the_file(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, given: Any
) -> None:
    squad = given == "squad"
    path = write_squad(tmp_path / "rows.json") if squad else write(tmp_path / "rows.jsonl", given)
    files = encoded(path, tokenizer, tmp_path / "tokens", max_length=8, shard_rows=4 if squad else 7)
    assert len(files.header.shards) == 3
    assert files.header.cut > 3
    args = kd.TrainingArguments(disable_tqdm=True, max_length=8, doc_stride=2)
    ours, theirs = (encode_for(question_model().config, source, tokenizer, args) for source in (files, path))
    assert_same(ours, theirs)
    order = [len(theirs) - 1, 3, 0]
    taken, expected = ours.take(order).windows, theirs.take(order).windows
    assert isinstance(taken, Spans)
    assert isinstance(expected, Spans)
    assert taken.questions.answers == expected.questions.answers
    assert taken.questions.table.where(2) == f"row 0 of {tmp_path / 'tokens'}"


@pytest.mark.filterwarnings("ignore:the teacher's loss against the answers")
def test_a_distillation_has_the_bits_and_the_figures_of_one_on_the_file(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "rows.jsonl", questions(20))
    files, found = encoded(path, tokenizer, tmp_path / "tokens"), []
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    for source in (path, str(files.path)):
        trainer = kd.DistillationTrainer(
            question_model(3),
            kd.DistillationTrainingArguments(**question_fields(tmp_path / str(len(found)), alpha=0.5)),
            teacher_model=question_model(2),
            train_dataset=source,
            eval_dataset=source,
            processing_class=tokenizer,
        )
        trainer.train()
        measured = trainer.evaluate()
        found.append((weights(trainer.model), trainer.state.trained_on, measured["eval_f1"], measured["eval_loss"]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_commands_take_the_directory(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = write(tmp_path / "rows.jsonl", questions(12)), tmp_path / "model"
    question_model(4).save_pretrained(model)
    (model / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    windows = ["--max-length", "10", "--doc-stride", "2"]
    words = ["--data", str(path), "--tokenizer", str(model), "--output", str(tmp_path / "tokens"), *windows, "--json"]
    assert main(["encode", "--task", "question-answering", *words]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n"], figures["truncated"], figures["windows"] > 12) == (12, 0, True)
    for source, name in ((path, "by-file"), (tmp_path / "tokens", "by-tokens")):
        answers = ["--output", str(tmp_path / f"{name}.jsonl"), "--disable-tqdm"]
        assert main(["predict", "--model", str(model), "--data", str(source), *answers, *windows]) == 0
        run = ["--output-dir", str(tmp_path / name), "--max-steps", "2", "--report-to", "none", "--disable-tqdm"]
        rows = ["--train", str(source), "--eval", str(source)]
        assert main(["finetune", "--model", str(model), *rows, *run, *windows]) == 0
    for name in ("{}.jsonl", "{}/model.safetensors"):
        by_file, by_tokens = ((tmp_path / name.format(which)).read_bytes() for which in ("by-file", "by-tokens"))
        assert by_file == by_tokens


def test_what_does_not_fit_is_refused_with_what_to_do(tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    files = encoded(path, tokenizer, tmp_path / "tokens")

    def refused(model: Any, **fields: Any) -> str:
        with pytest.raises(ValueError, match=r".") as error:
            encode_for(model, files, tokenizer, kd.TrainingArguments(disable_tqdm=True, **fields))
        return str(error.value)

    config, cut = question_model().config, files.header.cut
    assert (
        f"with {cut} of 20 rows in windows that share 2 tokens, and here they share 3; give --doc-stride 2"
    ) in refused(config, max_length=10)
    assert f"{cut} of 20 rows cut into windows of 10 tokens" in refused(config, doc_stride=2)
    assert "was encoded with --task question-answering, and the model is" in refused(config.with_head("masked-lm"))
    again = write(tmp_path / "again.jsonl", [*ROWS[:9], {**ROWS[9], "id": "q1"}])
    with pytest.raises(ValueError, match="the id 'q1' is that of question 1 and of question 9, counted from 0"):
        encoded(again, tokenizer, tmp_path / "again")
    moved = [*ROWS[:9], {**ROWS[9], "answers": {"text": ["good"], "answer_start": [99]}}]
    with pytest.raises(ValueError, match=r"moved.jsonl:10: the answer 'good' is not at its answer_start 99"):
        encoded(write(tmp_path / "moved.jsonl", moved), tokenizer, tmp_path / "moved")


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_an_interrupted_encoding_goes_on_behind_the_last_whole_shard(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    path = write(tmp_path / "rows.jsonl", without("id"))
    whole = content(encoded(path, tokenizer, tmp_path / "whole").path)
    calls = interrupt_in_shard(monkeypatch, "encode_questions", shard)
    with pytest.raises(KeyboardInterrupt):
        encoded(path, tokenizer, tmp_path / "tokens")
    encoded(path, tokenizer, tmp_path / "tokens")
    assert len(calls) == 1 + 3
    assert content(tmp_path / "tokens") == whole


@pytest.mark.parametrize("name", ["labels", "examples", "offsets", "context", "texts"])
def test_a_damaged_shard_is_named_and_made_anew(
    tmp_path: Path, tokenizer: kd.PreTrainedTokenizerFast, name: str
) -> None:
    files = encoded(write(tmp_path / "rows.jsonl", ROWS), tokenizer, tmp_path / "tokens")
    whole, damaged = content(files.path), files.path / f"{name}.bin"
    change_a_byte(damaged)
    with pytest.raises(ValueError, match=rf"{name}\.bin .*: shard 2 of 3 of"):
        TokenFiles(files.path)
    with pytest.warns(UserWarning, match="it is made anew"):
        encoded(tmp_path / "rows.jsonl", tokenizer, files.path)
    assert content(files.path) == whole
