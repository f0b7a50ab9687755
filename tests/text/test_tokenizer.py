"""Tokenizer files and calls, on a vocabulary small enough to write the expected ids by hand."""

from __future__ import annotations

import copy
import json
import pickle
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdistill.text.classes import AutoTokenizer
from kdistill.text.tokenizer import PreTrainedTokenizerFast

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "##s", "is", "great", "!", "The", "cafe"]
PAD, UNK, CLS, SEP, MASK, THE, FILM, S, IS, GREAT, BANG, CAPITAL_THE, CAFE = range(len(VOCAB))


def write_vocab(directory: Path, tokens: list[str] = VOCAB, **settings: object) -> Path:
    (directory / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    if settings:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(write_vocab(tmp_path))


def test_vocab_alone_lowers_case_strips_accents_and_cuts_words_into_pieces(tokenizer: PreTrainedTokenizerFast) -> None:
    encodings = tokenizer(["The films is GREAT!", "thé café zebra", "a [MASK] film", ""])
    assert encodings["input_ids"] == [
        [CLS, THE, FILM, S, IS, GREAT, BANG, SEP],
        [CLS, THE, CAFE, UNK, SEP],
        [CLS, UNK, MASK, FILM, SEP],
        [CLS, SEP],
    ]
    assert encodings["token_type_ids"] == [[0] * 8, [0] * 5, [0] * 5, [0] * 2]
    assert encodings.attention_mask == [[1] * 8, [1] * 5, [1] * 5, [1] * 2]


def test_a_single_text_gives_flat_lists(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("the film")["input_ids"] == [CLS, THE, FILM, SEP]
    assert tokenizer("the film", add_special_tokens=False)["input_ids"] == [THE, FILM]


def test_do_lower_case_false_in_the_configuration_keeps_case_and_accents(tmp_path: Path) -> None:
    write_vocab(tmp_path, do_lower_case=False)
    cased = AutoTokenizer.from_pretrained(tmp_path)
    assert not cased.do_lower_case
    assert cased("The café the GREAT")["input_ids"] == [CLS, CAPITAL_THE, UNK, THE, UNK, SEP]
    lowered = AutoTokenizer.from_pretrained(tmp_path, do_lower_case=True)
    assert lowered("The café")["input_ids"] == [CLS, THE, CAFE, SEP]


def test_there_is_one_tokenizer_fast_or_not(tmp_path: Path) -> None:
    write_vocab(tmp_path)
    fast = AutoTokenizer.from_pretrained(tmp_path, use_fast=True)
    with pytest.warns(UserWarning, match="use_fast is ignored: there is one kind of tokenizer"):
        slow = AutoTokenizer.from_pretrained(tmp_path, use_fast=False)
    assert fast("The films") == slow("The films")


def test_the_configuration_goes_before_tokenizer_json(tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(write_vocab(tmp_path)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert AutoTokenizer.from_pretrained(tmp_path)("The")["input_ids"] == [CLS, CAPITAL_THE, SEP]
    (tmp_path / "tokenizer_config.json").unlink()
    assert AutoTokenizer.from_pretrained(tmp_path)("The")["input_ids"] == [CLS, THE, SEP]


def test_padding_and_truncation_stored_in_tokenizer_json_are_ignored(tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(write_vocab(tmp_path)).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    path.write_text(json.dumps(content))
    rows = AutoTokenizer.from_pretrained(tmp_path)(["the film is great !", "film"])["input_ids"]
    assert rows == [[CLS, THE, FILM, IS, GREAT, BANG, SEP], [CLS, FILM, SEP]]


def test_pairs_have_types_and_are_cut_as_the_strategy_says(tokenizer: PreTrainedTokenizerFast) -> None:
    first, second = ["the film is great"], ["great !"]
    whole = tokenizer(first, second)
    assert whole["input_ids"] == [[CLS, THE, FILM, IS, GREAT, SEP, GREAT, BANG, SEP]]
    assert whole["token_type_ids"] == [[0, 0, 0, 0, 0, 0, 1, 1, 1]]
    cut = tokenizer(first, second, truncation=True, max_length=7)
    assert cut["input_ids"] == [[CLS, THE, FILM, SEP, GREAT, BANG, SEP]]
    assert cut["token_type_ids"] == [[0, 0, 0, 0, 1, 1, 1]]
    only_second = tokenizer(first, second, truncation="only_second", max_length=8)
    assert only_second["input_ids"] == [[CLS, THE, FILM, IS, GREAT, SEP, GREAT, SEP]]


def test_what_is_cut_and_when(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_vocab(tmp_path, model_max_length=5))
    text = ["the film is great !"]
    assert tokenizer.model_max_length == 5
    assert tokenizer(text, truncation=True)["input_ids"] == [[CLS, THE, FILM, IS, SEP]]
    assert tokenizer(text, truncation=True, max_length=3)["input_ids"] == [[CLS, THE, SEP]]
    assert tokenizer(text, max_length=4)["input_ids"] == [[CLS, THE, FILM, SEP]]
    with pytest.warns(UserWarning, match=r"a row has 7 tokens, more than this model's 5; pass truncation=True"):
        assert len(tokenizer(text, truncation=False)["input_ids"][0]) == 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer(["the film is"])


def test_padding_when_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    longest = tokenizer(["the film", "great"], padding=True)
    assert longest["input_ids"] == [[CLS, THE, FILM, SEP], [CLS, GREAT, SEP, PAD]]
    assert longest["attention_mask"] == [[1, 1, 1, 1], [1, 1, 1, 0]]
    fixed = tokenizer(["great"], padding="max_length", max_length=5, return_tensors="np")
    np.testing.assert_array_equal(fixed["input_ids"], [[CLS, GREAT, SEP, PAD, PAD]])
    np.testing.assert_array_equal(fixed["attention_mask"], [[1, 1, 1, 0, 0]])
    assert fixed["token_type_ids"].dtype == np.int64


def test_pairs_as_tuples(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer([("the film", "great"), ("is", "!")]) == tokenizer(["the film", "is"], ["great", "!"])
    with pytest.raises(TypeError, match=r"text\[0\] is \('the', 'film', 'is'\) of type tuple"):
        tokenizer([("the", "film", "is")])  # type: ignore[list-item]


def test_columns_and_widths_can_be_chosen(tokenizer: PreTrainedTokenizerFast) -> None:
    few = tokenizer(["the film"], return_token_type_ids=False, return_attention_mask=False)
    assert few == {"input_ids": [[CLS, THE, FILM, SEP]]}
    wide = tokenizer(["the film is", "great"], padding=True, pad_to_multiple_of=4)
    assert wide["input_ids"] == [[CLS, THE, FILM, IS, SEP, PAD, PAD, PAD], [CLS, GREAT, SEP] + [PAD] * 5]


def test_encoding_one_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.encode("the film") == [CLS, THE, FILM, SEP]
    assert tokenizer.encode("the film", "great", truncation=True, max_length=5) == [CLS, THE, SEP, GREAT, SEP]
    assert tokenizer.encode("the", add_special_tokens=False) == [THE]
    np.testing.assert_array_equal(tokenizer.encode("the", return_tensors="np"), [[CLS, THE, SEP]])
    with pytest.raises(TypeError, match="encode takes one string, and a call a list"):
        tokenizer.encode(["the"])  # type: ignore[arg-type]


def test_rows_are_padded_later(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"input_ids": [CLS, THE, SEP], "label": 1}, {"input_ids": np.array([CLS, SEP]), "label": 0}]
    padded = tokenizer.pad(rows, return_tensors="np")
    np.testing.assert_array_equal(padded["input_ids"], [[CLS, THE, SEP], [CLS, SEP, PAD]])
    np.testing.assert_array_equal(padded["attention_mask"], [[1, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(padded["label"], [1, 0])
    batch = tokenizer(["the film", ""])
    assert tokenizer.pad(batch, padding="max_length", max_length=5) == tokenizer(
        ["the film", ""], padding="max_length", max_length=5
    )
    assert batch["input_ids"] == [[CLS, THE, FILM, SEP], [CLS, SEP]], "the rows given are left alone"
    assert tokenizer.pad({"input_ids": [CLS, SEP]}, padding="max_length", max_length=3) == {
        "input_ids": [CLS, SEP, PAD],
        "attention_mask": [1, 1, 0],
    }
    with pytest.raises(ValueError, match="the rows have no input_ids; they have label"):
        tokenizer.pad([{"label": 1}])
    for wrong in ([], ["film"]):
        with pytest.raises(TypeError, match="encoded_inputs must be a dict of columns or a list of dicts"):
            tokenizer.pad(wrong)  # type: ignore[arg-type]


def test_what_is_saved_loads_with_the_same_ids(tmp_path: Path) -> None:
    source, saved, alone = (tmp_path / name for name in ("source", "saved", "alone"))
    source.mkdir()
    alone.mkdir()
    tokenizer = AutoTokenizer.from_pretrained(write_vocab(source, do_lower_case=False, model_max_length=9))
    tokenizer.save_pretrained(saved)
    assert {path.name for path in saved.iterdir()} == {
        "tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json",
    }  # fmt: skip
    for name in ("vocab.txt", "tokenizer_config.json"):
        (alone / name).write_bytes((saved / name).read_bytes())
    texts = ["The films is great !", "the café", "[MASK]"]
    for directory in (saved, alone):
        again = AutoTokenizer.from_pretrained(directory)
        assert again(texts) == tokenizer(texts)
        assert again.model_max_length == 9
        assert again.content_hash == tokenizer.content_hash


def test_the_content_hash_tells_tokenizers_apart_and_calls_leave_it(tmp_path: Path) -> None:
    lowered = AutoTokenizer.from_pretrained(write_vocab(tmp_path))
    before = lowered.content_hash
    lowered(["the film is great"], truncation=True, max_length=3, padding=True)
    assert lowered.content_hash == before
    assert AutoTokenizer.from_pretrained(tmp_path, do_lower_case=False).content_hash != before
    assert AutoTokenizer.from_pretrained(write_vocab(tmp_path, [*VOCAB, "more"])).content_hash != before


def test_a_vocabulary_with_a_doubled_token_is_not_saved_as_vocab_txt(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_vocab(tmp_path, ["[PAD]", "twice", "twice", *VOCAB[1:]]))
    tokenizer.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "vocab.txt").exists()
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("twice film") == tokenizer("twice film")


def test_vocabulary_lines_end_at_newlines_only(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_vocab(tmp_path, [*VOCAB, "a\u2028b", "\u0085", "last"]))
    assert tokenizer.vocab["last"] == len(VOCAB) + 2


def test_vocabulary_and_decoding(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [CLS, THE, FILM, S, BANG, SEP]
    assert tokenizer.vocab == {token: index for index, token in enumerate(VOCAB)}
    assert tokenizer.vocab_size == len(tokenizer) == len(VOCAB)
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id) == (PAD, CLS, SEP)
    assert (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.mask_token) == (UNK, MASK, "[MASK]")
    assert tokenizer.tokenize("The films!") == ["the", "film", "##s", "!"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "the", "film", "##s", "!", "[SEP]"]
    assert tokenizer.convert_tokens_to_ids(["film", "zebra"]) == [FILM, UNK]
    with pytest.raises(ValueError, match="at character 1, half of a character"):
        tokenizer.convert_tokens_to_ids(["a\ud800"])
    assert tokenizer.decode(np.array(ids)) == "[CLS] the films! [SEP]"
    assert tokenizer.batch_decode([ids], skip_special_tokens=True) == ["the films!"]
    assert tokenizer.decode([[THE], [FILM, S]]) == ["the", "films"]
    assert tokenizer.decode(np.array([[THE, S], [FILM, S]])) == ["thes", "films"]
    assert tokenizer.decode(FILM) == "film"
    assert tokenizer.get_vocab() == tokenizer.vocab
    assert tokenizer.convert_ids_to_tokens(ids, skip_special_tokens=True) == ["the", "film", "##s", "!"]
    assert tokenizer.convert_tokens_to_string(["the", "film", "##s"]) == "the films"
    assert tokenizer.tokenize("the", "film", add_special_tokens=True) == ["[CLS]", "the", "[SEP]", "film", "[SEP]"]
    assert (tokenizer.num_special_tokens_to_add(), tokenizer.num_special_tokens_to_add(pair=True)) == (2, 3)
    assert dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)) == {
        "[UNK]": UNK, "[SEP]": SEP, "[PAD]": PAD, "[CLS]": CLS, "[MASK]": MASK,
    }  # fmt: skip
    with pytest.raises(IndexError, match="token id 99 is not in the vocabulary of 13 entries"):
        tokenizer.convert_ids_to_tokens(99)


def test_decoded_text_is_cleaned_up_when_the_files_or_the_call_say_so(tmp_path: Path) -> None:
    words = ["it", "'", "s", "don", "t", ".", "film"]
    write_vocab(tmp_path, [*VOCAB[:5], *words], clean_up_tokenization_spaces=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("it's film.", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "it's film."
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == "it ' s film."
    tokenizer.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").decode(ids) == "it's film."


def test_copies_and_pickles(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_vocab(tmp_path, do_lower_case=False, model_max_length=9))
    for again in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert again("The film [MASK]") == tokenizer("The film [MASK]")
        assert again.model_max_length == 9
        assert again.content_hash == tokenizer.content_hash


class Hesitating:
    """A backend that lets other threads in between setting the truncation and encoding."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def enable_truncation(self, *args: Any, **kwargs: Any) -> None:
        self.backend.enable_truncation(*args, **kwargs)
        time.sleep(0.01)


def test_threads_that_cut_do_not_disturb_threads_that_do_not(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer._encoder, "_backend", Hesitating(tokenizer._backend))

    def lengths(max_length: int | None) -> set[int]:
        return {len(tokenizer("the film is great !", max_length=max_length)["input_ids"]) for _ in range(20)}

    with ThreadPoolExecutor(2) as threads:
        cut, deeper = threads.map(lengths, [4, 5])
    assert (cut, deeper) == ({4}, {5})


def test_special_tokens_under_other_names(tmp_path: Path) -> None:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "film"]
    names = {"pad_token": "<pad>", "unk_token": {"content": "<unk>"}, "cls_token": "<s>", "sep_token": "</s>"}
    tokenizer = AutoTokenizer.from_pretrained(write_vocab(tmp_path, tokens, **names))
    assert tokenizer(["film zebra", ""], padding=True)["input_ids"] == [[0, 4, 3, 2], [0, 2, 1, 1]]
    assert tokenizer.mask_token_id is None


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json or vocab\.txt"):
        AutoTokenizer.from_pretrained(tmp_path)
    write_vocab(tmp_path, ["just", "words"])
    with pytest.raises(ValueError, match=r"vocab.txt has 2 entries and none of them is '\[UNK\]'"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer.json is not valid JSON"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ValueError, match=r"is not a tokenizer.json that `tokenizers` reads"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"tokenizer_config.json holds a JSON list; expected an object"):
        AutoTokenizer.from_pretrained(tmp_path)


def test_wrong_arguments_say_what_is_expected(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TypeError, match=r"text\[1\] is None of type NoneType; expected a string"):
        tokenizer(["film", None])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="text is 3 of type int; expected a string or a list of strings"):
        tokenizer(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="text has 2 rows and text_pair 1"):
        tokenizer(["film", "film"], ["film"])
    with pytest.raises(TypeError, match="both be a string or both be a list"):
        tokenizer(["film"], "film")
    with pytest.raises(ValueError, match="max_length is 2; expected an integer of at least 3"):
        tokenizer("film", truncation=True, max_length=2)
    with pytest.raises(ValueError, match=r"rows cannot be cut to max_length=4 \(only_second\)"):
        tokenizer("the film is great", "film", truncation="only_second", max_length=4)
    with pytest.raises(ValueError, match="truncation is 'first'; expected"):
        tokenizer("film", truncation="first")
    with pytest.raises(ValueError, match="padding is 'left'; expected"):
        tokenizer("film", padding="left")
    with pytest.raises(ValueError, match='padding="max_length" needs a max_length'):
        tokenizer("film", padding="max_length")
    with pytest.raises(ValueError, match="return_tensors is 'pt'"):
        tokenizer("film", return_tensors="pt")
    with pytest.raises(ValueError, match="rows of different lengths; pass padding=True"):
        tokenizer(["film", "the film"], return_tensors="np")
    with pytest.raises(AttributeError, match="BatchEncoding has no 'ids'; it has input_ids"):
        _ = tokenizer("film").ids
