"""Whose answers a file has: found by id, by text, by the order of the rows, and never in silence by the wrong one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import VOCABULARY
from support.small_tags import TAG_OF, tagged_sentences

import kdistill as kd
from kdistill.data.dataset import Dataset, as_dataset
from kdistill.data.sentence_rows import encode_sentences
from kdistill.data.table import Table
from kdistill.data.tagged import encode_words
from kdistill.data.teacher_columns import Answers
from kdistill.data.teacher_rows import Match, TaughtRows, TeacherSource
from kdistill.data.words import words_of
from kdistill.text.tokenizer import PreTrainedTokenizerFast

TEXTS = ["good film", "bad plot", "great scene", "awful actor"]
ROWS = [[1.0, 0.0], [2.0, 0.5], [3.0, -1.0], [4.0, 0.25]]
ORDER = [2, 0, 3, 1]
NAN = [np.nan, np.nan]


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return kd.BertTokenizerFast.from_pretrained(tmp_path)


def taught(
    tokenizer: PreTrainedTokenizerFast, rows: Any, given: Any = None, *, training: bool = True
) -> tuple[Dataset, list[Match]]:
    """Encode rows of two classes with the answers for them."""
    source = None if given is None else TeacherSource.of(given, "teacher_logits")
    matches: list[Match] = []
    encoded = TaughtRows(rows, source, training, matches.append).encoded(
        lambda plain: as_dataset(plain, tokenizer), lambda dataset: Answers(("no", "yes"), "softmax")
    )
    return encoded, matches


def rows(**more: Sequence[Any]) -> dict[str, Sequence[Any]]:
    return {"text": TEXTS, "label": [0, 1, 0, 1], **more}


def moved(values: Sequence[Any]) -> list[Any]:
    return [values[place] for place in ORDER]


def write(path: Path, **columns: Sequence[Any]) -> Path:
    """Write columns as JSON lines."""
    records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_columns_of_the_rows(tokenizer: PreTrainedTokenizerFast, recwarn: pytest.WarningsRecorder) -> None:
    dataset, matches = taught(tokenizer, rows(teacher_logits=[*ROWS[:3], None]))
    np.testing.assert_array_equal(dataset.teacher_logits, [*ROWS[:3], NAN])
    assert matches == [Match("column", 4, 3)]
    np.testing.assert_array_equal(dataset.take([3, 1]).teacher_logits, [NAN, ROWS[1]])
    assert dataset.column_use is not None
    assert dataset.column_use.unused == ()
    assert taught(tokenizer, rows())[0].teacher_logits is None


def test_a_file_of_other_order_is_matched_by_text(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", text=[*moved(TEXTS), "scene"], teacher_logits=[*moved(ROWS), [9.0, 9.0]])
    dataset, matches = taught(tokenizer, rows(), path)
    np.testing.assert_array_equal(dataset.teacher_logits, ROWS)
    assert matches == [Match("text", 4, 4, unused=1)]
    source = TeacherSource.of(path, "teacher_logits")
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_answers_are_read_under_a_name_in_an_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"rows": [{"text": TEXTS[0], "teacher_logits": ROWS[0]}]}))
    source = TeacherSource.of(f"{path}#rows", "teacher_logits")
    assert (len(source), source.sha256) == (1, hashlib.sha256(path.read_bytes()).hexdigest())


def test_ids_go_before_texts_which_must_agree(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Two rows have one text, and only the ids tell them apart."""
    texts = ["good film", "good film", "great scene", "awful actor"]
    ids = [7, 8, 9, 10]
    path = write(tmp_path / "a.jsonl", id=list(map(str, moved(ids))), text=moved(texts), teacher_logits=moved(ROWS))
    dataset, matches = taught(tokenizer, {"text": texts, "id": ids}, path)
    np.testing.assert_array_equal(dataset.teacher_logits, ROWS)
    assert matches == [Match("id", 4, 4)]
    shifted = {"text": [*texts[1:], "plot"], "id": ids}
    with pytest.raises(ValueError, match=r"have the id 8 and two texts \('great scene' and 'good film'\)"):
        taught(tokenizer, shifted, path)
    first = {"text": ["plot", *texts[1:]], "id": ids}
    in_order = write(tmp_path / "c.jsonl", id=ids, text=texts, teacher_logits=ROWS)
    with pytest.raises(ValueError, match=r"have the id 7 and two texts \('plot' and 'good film'\)"):
        taught(tokenizer, first, in_order)
    no_texts = write(tmp_path / "b.jsonl", id=moved(ids)[:3], teacher_logits=moved(ROWS)[:3])
    dataset, matches = taught(tokenizer, {"text": texts, "id": ids}, no_texts)
    np.testing.assert_array_equal(dataset.teacher_logits, [ROWS[0], NAN, ROWS[2], ROWS[3]])
    assert matches == [Match("id", 4, 3)]


def test_pairs_are_told_apart_by_both_texts(tokenizer: PreTrainedTokenizerFast) -> None:
    pair = {"sentence1": ["good film"] * 4, "sentence2": TEXTS}
    given = {name: moved(values) for name, values in pair.items()} | {"teacher_logits": moved(ROWS)}
    np.testing.assert_array_equal(taught(tokenizer, pair, given)[0].teacher_logits, ROWS)


def test_the_order_counts_where_nothing_else_tells(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([*ROWS[:3], NAN], np.float32))
    for given in (
        tmp_path / "a.npy",
        np.array([*ROWS[:3], NAN]),
        [*ROWS[:3], None],
        {"teacher_logits": [*ROWS[:3], None]},
    ):
        dataset, matches = taught(tokenizer, rows(), given)
        np.testing.assert_array_equal(dataset.teacher_logits, [*ROWS[:3], NAN])
        assert matches == [Match("position", 4, 3)]
        again, _ = taught(tokenizer, as_dataset(rows(), tokenizer), given)
        np.testing.assert_array_equal(again.teacher_logits, dataset.teacher_logits)


def test_rows_of_tokens_are_matched_by_the_texts_beside_them(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [[2, 5, 9, 3], [2, 7, 10, 3], [2, 6, 12, 3], [2, 8, 11, 3]]
    dataset, matches = taught(
        tokenizer, {"input_ids": ids, **rows()}, {"text": moved(TEXTS), "teacher_logits": moved(ROWS)}
    )
    np.testing.assert_array_equal(dataset.teacher_logits, ROWS)
    assert matches[0].how == "text"


def test_rows_to_evaluate_on_are_found_by_their_texts_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    given = {"id": [1, 2], "text": TEXTS[:2], "teacher_logits": ROWS[:2]}
    found, _ = taught(tokenizer, {"id": [1, 2], "text": [TEXTS[1], "scene"]}, given, training=False)
    np.testing.assert_array_equal(found.teacher_logits, [ROWS[1], NAN])
    others, _ = taught(tokenizer, {"id": [1, 2], "text": ["plot", "scene"]}, given, training=False)
    assert others.teacher_logits is None
    in_order, _ = taught(tokenizer, rows(), np.array(ROWS), training=False)
    assert in_order.teacher_logits is None


def test_each_word_of_a_row_has_its_answer_at_its_first_token(tokenizer: PreTrainedTokenizerFast) -> None:
    tagged = [[*row, ("", "O")] for row in tagged_sentences(6)]  # an empty word has no token
    tags = dict(enumerate(["O", *sorted(set(TAG_OF.values()))]))
    random = np.random.default_rng(0)
    answers = [random.standard_normal((len(row), len(tags))).astype(np.float32) for row in tagged]
    values: list[Any] = [of.tolist() for of in answers]
    values[2] = None
    values[3] = [None, *values[3][1:]]
    table = Table("tags.jsonl", {"tokens": [[word for word, _ in row] for row in tagged], "teacher_logits": values})

    def encode(plain: Any) -> Dataset:
        return encode_words(words_of(plain), tokenizer, max_length=6, id2label=tags)

    found: list[Match] = []
    dataset = TaughtRows(table, None, True, found.append).encoded(
        encode, lambda dataset: Answers(tuple(tags.values()), "softmax", per_part=True)
    )
    assert found == [Match("column", 6, 5)]
    assert dataset.teacher_logits is not None
    assert dataset.windows is not None
    assert len(dataset) > 6  # windows
    seen = 0
    for token, (example, word) in enumerate(
        zip(np.repeat(dataset.windows.examples, dataset.lengths), dataset.windows.words, strict=True)
    ):
        if word < 0 or example == 2 or (example == 3 and word == 0):
            assert np.isnan(dataset.teacher_logits[token]).all()
        else:
            np.testing.assert_array_equal(dataset.teacher_logits[token], answers[example][word])
            seen += 1
    assert seen == sum(len(row) - 1 for place, row in enumerate(tagged) if place != 2) - 1
    values[0] = values[0][1:]
    with pytest.raises(ValueError, match=r"has answers for \d words, and row 0 of tags.jsonl has \d; expected one for"):
        TaughtRows(table, None, True, found.append).encoded(
            encode, lambda dataset: Answers(tuple(tags.values()), "softmax", per_part=True)
        )


def test_both_texts_of_a_pair_have_an_embedding(tokenizer: PreTrainedTokenizerFast) -> None:
    values = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    pairs = {"sentence1": TEXTS, "sentence2": TEXTS[::-1], "score": [1, 2, 3, 4], "teacher_logits": values.tolist()}
    dataset = TaughtRows(pairs, None, True, lambda match: None).encoded(
        lambda plain: encode_sentences(plain, tokenizer, max_length=8),
        lambda dataset: Answers((), "none", per_part=True),
    )
    np.testing.assert_array_equal(dataset.teacher_logits, values.reshape(8, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.array(ROWS[:3]), "teacher_logits has 3 rows, and the dict 4; expected a row for each, in the same order"),
        (np.array([*ROWS, ROWS[0]]), "teacher_logits has 5 rows, and the dict 4; expected a row for each, in the same"),
        (np.array([*ROWS[:3], [np.nan, 1.0]]), "row 3 of teacher_logits: teacher_logits is [nan, 1.0]; expected"),
        (
            {"text": ["plot"], "teacher_logits": [ROWS[0]]},
            "none of the texts of the dict is in the dict: are these answ",
        ),
        ({"id": [1], "teacher_logits": [ROWS[0]]}, "has the column 'id', and the dict has not, nor has"),
        (
            {"text": [TEXTS[0], TEXTS[0]], "teacher_logits": ROWS[:2]},
            "row 1 of the dict has the text of row 0 of the dict ('good film') and other numbers; expected one answer",
        ),
        (
            {"text": TEXTS, "logits": ROWS},
            "the dict has no column 'teacher_logits' or 'teacher_probs'; its columns are",
        ),
        (np.zeros((4, 2, 2)), "has shape (4, 2, 2); expected (rows, labels)"),
    ],
)
def test_answers_that_cannot_be_matched(tokenizer: PreTrainedTokenizerFast, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        taught(tokenizer, rows(), given)


def test_other_objects_and_files_are_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="holds <U1; expected numbers"):
        taught(tokenizer, rows(), np.array(["a"] * 4))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        taught(tokenizer, rows(), str(tmp_path / "a.npy"))
    np.save(tmp_path / "pickled.npy", np.array([{}], object))
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    for name in ("pickled.npy", "cut.npy"):
        with pytest.raises(ValueError, match="cannot be read as an array of NumPy"):
            taught(tokenizer, rows(), tmp_path / name)
    np.savez(tmp_path / "several.npz", np.zeros((4, 2)))
    (tmp_path / "answers.pt").write_bytes(b"")
    for name, found, remedy in (
        ("several.npz", "holds several arrays, as numpy.savez writes them", "column teacher_logits or teacher_probs; "),
        ("answers.pt", "has an ending of no file of answers", "column teacher_logits or teacher_probs"),
    ):
        with pytest.raises(ValueError) as error:
            taught(tokenizer, rows(), tmp_path / name)
        said = str(error.value)
        assert f"teacher_logits: {tmp_path / name} {found}; expected a .npy file with one array (rows, labels)" in said
        assert remedy in said
        assert ("numpy.save('several.npy', numpy.load('several.npz')[NAME])" in said) == (name == "several.npz")
    with pytest.raises(ValueError, match=r"has answers of a teacher \('teacher_logits'\), and teacher_logits is given"):
        taught(tokenizer, rows(teacher_logits=ROWS), np.array(ROWS))
