"""Places of tokens in the text, rows of words, and what truncation leaves out, with the right values by hand."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from kdistill.text.classes import AutoTokenizer
from kdistill.text.tokenizer import PreTrainedTokenizerFast

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "##s", "is", "great", "!"]
PAD, UNK, CLS, SEP, MASK, THE, FILM, S, IS, GREAT, BANG = range(len(VOCAB))


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCAB))
    return AutoTokenizer.from_pretrained(tmp_path)


def test_offsets_are_places_in_the_text_as_it_was_given(tokenizer: PreTrainedTokenizerFast) -> None:
    row = tokenizer(" The F\u00eflms!", return_offsets_mapping=True, return_special_tokens_mask=True)
    assert row["input_ids"] == [CLS, THE, FILM, S, BANG, SEP]
    assert row["offset_mapping"] == [(0, 0), (1, 4), (5, 9), (9, 10), (10, 11), (0, 0)]
    assert row["special_tokens_mask"] == [1, 0, 0, 0, 0, 1]


def test_tokens_words_and_characters_lead_to_each_other(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = tokenizer(["great", "the films"], ["!", "is great"])
    assert batch.tokens(1) == ["[CLS]", "the", "film", "##s", "[SEP]", "is", "great", "[SEP]"]
    assert batch.word_ids(1) == [None, 0, 1, 1, None, 0, 1, None]
    assert batch.sequence_ids(1) == [None, 0, 0, 0, None, 1, 1, None]
    assert batch.n_sequences == 2
    assert (batch.char_to_token(1, 4), batch.char_to_token(1, 4, sequence_index=1)) == (2, 6)
    assert batch.char_to_token(1, 3) is None, "a space has no token"
    assert (batch.word_to_tokens(1, 1), batch.word_to_tokens(1, 1, sequence_index=1)) == ((2, 4), (6, 7))
    assert (batch.token_to_chars(1, 3), batch.token_to_chars(1, 0)) == ((8, 9), None)
    assert (batch.token_to_word(1, 3), batch.token_to_sequence(1, 6)) == (1, 1)
    assert (batch.char_to_word(1, 8), batch.word_to_chars(1, 1)) == (1, (4, 9))
    with pytest.raises(IndexError, match="the index is -1; expected 0 or more"):
        batch.token_to_word(-1)


def test_rows_of_words_keep_their_words(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = tokenizer([["the", "films!"], ["great"]], is_split_into_words=True, padding=True)
    assert batch["input_ids"] == [[CLS, THE, FILM, S, BANG, SEP], [CLS, GREAT, SEP, PAD, PAD, PAD]]
    assert batch.word_ids(0) == [None, 0, 1, 1, 1, None]
    assert batch.word_ids(1) == [None, 0, None, None, None, None]
    assert tokenizer(["the", "films"], is_split_into_words=True)["input_ids"] == [CLS, THE, FILM, S, SEP]
    pairs = tokenizer([(["the"], ["great", "!"])], is_split_into_words=True)
    assert pairs["input_ids"] == [[CLS, THE, SEP, GREAT, BANG, SEP]]
    assert pairs == tokenizer([["the"]], [["great", "!"]], is_split_into_words=True)
    arrays = tokenizer(np.array(["the", "film"]), is_split_into_words=True)  # type: ignore[arg-type]
    assert arrays["input_ids"] == [CLS, THE, FILM, SEP]


def test_what_truncation_leaves_out_follows_with_an_overlap(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["the film is great !", "great"]
    rows = tokenizer(texts, truncation=True, max_length=5, stride=1, return_overflowing_tokens=True)
    assert rows["input_ids"] == [[CLS, THE, FILM, IS, SEP], [CLS, IS, GREAT, BANG, SEP], [CLS, GREAT, SEP]]
    assert rows["overflow_to_sample_mapping"] == [0, 0, 1]
    assert [rows.token_to_chars(row, 1) for row in range(3)] == [(0, 3), (9, 11), (0, 5)]
    assert rows.rows_cut == 1
    question = tokenizer(
        "great !", "the film is great", truncation="only_second", max_length=7, return_overflowing_tokens=True,
        padding="max_length", return_offsets_mapping=True, return_length=True,
    )  # fmt: skip
    assert question["input_ids"] == [[CLS, GREAT, BANG, SEP, THE, FILM, SEP], [CLS, GREAT, BANG, SEP, IS, GREAT, SEP]]
    assert question["offset_mapping"][1][4:] == [(9, 11), (12, 17), (0, 0)]
    assert question["length"] == [7, 7]


def test_rows_are_padded_on_the_side_that_is_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = tokenizer(["the film", "!"], padding=True, padding_side="left", return_offsets_mapping=True)
    assert batch["input_ids"] == [[CLS, THE, FILM, SEP], [PAD, CLS, BANG, SEP]]
    assert batch["offset_mapping"][1] == [(0, 0), (0, 0), (0, 1), (0, 0)]
    plain = tokenizer(["the film", "!"], padding=True, padding_side="left")
    assert plain["input_ids"] == batch["input_ids"]
    assert plain.word_ids(1) == [None, None, 0, None], "the mapping knows of the padding"
    assert tokenizer.pad({"input_ids": [CLS, SEP]}, padding="max_length", max_length=3, padding_side="left") == {
        "input_ids": [PAD, CLS, SEP], "attention_mask": [0, 1, 1],
    }  # fmt: skip


def test_a_pickled_result_keeps_its_columns(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = tokenizer(["the film"])
    again = pickle.loads(pickle.dumps(batch))
    assert again == batch
    with pytest.raises(ValueError, match="these rows hold no places in the text"):
        again.word_ids()
    batch.word_ids()
    assert pickle.loads(pickle.dumps(batch)).word_ids() == [None, 0, 1, None]


def test_wrong_words_and_windows_say_what_is_expected(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TypeError, match=r"text\[0\] is 'film' of type str; expected a list of words"):
        tokenizer("film", is_split_into_words=True)
    with pytest.raises(TypeError, match=r"text\[1\] is 'film' of type str; expected a list of words"):
        tokenizer([["film"], "film"], is_split_into_words=True)  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"text\[0\]\[1\] is 3 of type int; expected a word"):
        tokenizer(["film", 3], is_split_into_words=True)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="both be a list of words or both be a list of rows"):
        tokenizer(["film"], [["film"]], is_split_into_words=True)
    with pytest.raises(ValueError, match="text has 1 rows and text_pair 2"):
        tokenizer([["film"]], [["film"], ["the"]], is_split_into_words=True)
    with pytest.raises(ValueError, match=r"text\[1\] holds .* at character 1, half of a character"):
        tokenizer([["film"], ["a\ud800"]], is_split_into_words=True)
    with pytest.raises(ValueError, match="stride is 3; expected less than the 3 tokens of text that a row of max_len"):
        tokenizer("the film", max_length=5, stride=3, return_overflowing_tokens=True)
    with pytest.raises(ValueError, match="padding_side is 'top'; expected 'right' or 'left'"):
        tokenizer("film", padding=True, padding_side="top")
    with pytest.raises(ValueError, match=r"with that stride: beside its pair a text has no more tokens than"):
        tokenizer(
            "the film", "the film is great", truncation="only_second", max_length=7, stride=3,
            return_overflowing_tokens=True,
        )  # fmt: skip
