"""The same ids as transformers' tokenizer, from each kind of file, and on what is saved here."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdistill.data.columns import read_rows
from kdistill.text.classes import AutoTokenizer

transformers = pytest.importorskip("transformers")

# What SST-2's plain sentences do not hold: case, accents, other scripts, special tokens, control and format characters.
TRICKY = [
    "",
    "   ",
    "The Café-owner's NAÏVE résumé: 100%!",
    "[MASK] and [SEP] inside [UNK] text, [mask] too",
    "东京 and 大阪 mixed with latin",
    "tab\there\u00a0nbsp\u2028line\u200bzero\x00nul\x7f",
    "İstanbul ẞ ﬁne e\u0301 \U0001f600",
    "x" * 101 + " " + "y" * 99,
]


@pytest.fixture(params=["bert-base-uncased", "minilm-l6-sst2"])
def model_files(request: pytest.FixtureRequest, shared_dir: Path) -> Path:
    return shared_dir / "models" / request.param


@pytest.fixture(scope="module")
def texts(shared_dir: Path) -> list[str]:
    dev = read_rows(shared_dir / "data" / "SST-2" / "dev.tsv").texts
    assert len(dev) == 872
    return dev + [text.title() for text in dev[:100]] + TRICKY


@pytest.fixture(scope="module")
def both() -> Callable[[Path], tuple[Any, Any]]:
    """transformers' and our tokenizer of a directory, each loaded once."""

    @functools.cache
    def load(directory: Path) -> tuple[Any, Any]:
        return transformers.AutoTokenizer.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)

    return load


def only_vocab(model_files: Path, directory: Path, do_lower_case: bool | None) -> Path:
    shutil.copy(model_files / "vocab.txt", directory / "vocab.txt")
    if do_lower_case is not None:
        (directory / "tokenizer_config.json").write_text(
            f'{{"do_lower_case": {str(do_lower_case).lower()}, "tokenizer_class": "BertTokenizer"}}'
        )
    return directory


def test_tokenizer_json(model_files: Path, texts: list[str]) -> None:
    expected = transformers.AutoTokenizer.from_pretrained(model_files)(texts, padding=False, truncation=False)
    found = AutoTokenizer.from_pretrained(model_files)(texts, truncation=False)
    assert found["input_ids"] == expected["input_ids"]
    assert found["token_type_ids"] == expected["token_type_ids"]


@pytest.mark.parametrize("do_lower_case", [None, True, False])
def test_vocab_alone(model_files: Path, texts: list[str], tmp_path: Path, do_lower_case: bool | None) -> None:
    only_vocab(model_files, tmp_path, do_lower_case)
    expected = transformers.BertTokenizer.from_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"] == expected(texts)["input_ids"]


def test_configuration_against_tokenizer_json(shared_dir: Path, texts: list[str], tmp_path: Path) -> None:
    shutil.copy(shared_dir / "models" / "bert-base-uncased" / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}')
    expected = transformers.AutoTokenizer.from_pretrained(tmp_path)(texts, padding=False, truncation=False)
    assert AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"] == expected["input_ids"]


@pytest.mark.parametrize("arguments", [{"max_length": 16}, {"max_length": 40, "truncation": "only_second"}])
def test_pairs_and_truncation(model_files: Path, texts: list[str], arguments: dict[str, Any]) -> None:
    first = [text[:20] for text in texts[:200]]
    second = ["a longer second sentence, which is never the shorter one of the pair : " + text for text in first]
    arguments = {"truncation": True, **arguments}
    expected = transformers.AutoTokenizer.from_pretrained(model_files)(first, second, **arguments)
    found = AutoTokenizer.from_pretrained(model_files)(first, second, **arguments)
    assert max(map(len, expected["input_ids"])) == arguments["max_length"]
    assert found["input_ids"] == expected["input_ids"]
    assert found["token_type_ids"] == expected["token_type_ids"]


def test_padded_arrays_and_decoding(model_files: Path, texts: list[str]) -> None:
    theirs, ours = transformers.AutoTokenizer.from_pretrained(model_files), AutoTokenizer.from_pretrained(model_files)
    expected = theirs(texts[:50], padding=True, truncation=True, max_length=20, return_tensors="np")
    found = ours(texts[:50], padding=True, truncation=True, max_length=20, return_tensors="np")
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert (found[name] == expected[name]).all()
    row = [int(token_id) for token_id in found["input_ids"][0]]
    assert ours.decode(row, skip_special_tokens=True) == theirs.decode(row, skip_special_tokens=True)
    assert ours.convert_ids_to_tokens(row) == theirs.convert_ids_to_tokens(row)
    assert ours.vocab == theirs.vocab


FIRST, SECOND = ["the film is great", "it's bad, isn't it?"], ["no", "yes it is : the worst"]
LONG = "Unaffable reviewers: the film's 100th minute, \u6771\u4eac and caf\u00e9s, isn't it?"
ENCODED = [{"input_ids": [101, 5, 102], "label": 1}, {"input_ids": [101, 102], "label": 0}]
CALLS: dict[str, Callable[[Any], Any]] = {
    "one text": lambda t: t("the film"),
    "texts": lambda t: t(FIRST),
    "tuple": lambda t: t(tuple(FIRST)),
    "pairs": lambda t: t(FIRST, SECOND),
    "pairs by name": lambda t: t(text=FIRST, text_pair=SECOND),
    "list of pairs": lambda t: t(list(zip(FIRST, SECOND, strict=True))),
    "longest first": lambda t: t(FIRST, SECOND, truncation="longest_first", max_length=6),
    "only first": lambda t: t(FIRST, SECOND, truncation="only_first", max_length=10),
    "do not truncate": lambda t: t(FIRST, truncation="do_not_truncate"),
    "padded": lambda t: t(FIRST, padding=True),
    "padded to max_length": lambda t: t(FIRST, padding="max_length", max_length=12, truncation=True),
    "padded to less than there is": lambda t: t(FIRST, padding="max_length", max_length=4),
    "padded to a multiple": lambda t: t(FIRST, padding=True, pad_to_multiple_of=8),
    "arrays": lambda t: t(FIRST, padding=True, return_tensors="np"),
    "array of one": lambda t: t("the film", return_tensors="np"),
    "no types": lambda t: t(FIRST, return_token_type_ids=False),
    "no mask": lambda t: t(FIRST, return_attention_mask=False),
    "no special tokens": lambda t: t(FIRST, add_special_tokens=False),
    "offsets": lambda t: t(FIRST, SECOND, return_offsets_mapping=True, padding=True),
    "offsets as arrays": lambda t: t(FIRST, return_offsets_mapping=True, padding=True, return_tensors="np"),
    "offsets of one text": lambda t: t("The films!", return_offsets_mapping=True, return_length=True),
    "special tokens as mask": lambda t: t(FIRST, SECOND, return_special_tokens_mask=True, padding=True),
    "padded on the left": lambda t: t(FIRST, padding=True, padding_side="left", return_special_tokens_mask=True),
    "words": lambda t: t([["the", "films"], ["unaffable", "", "x y"]], is_split_into_words=True, return_length=True),
    "words of one row": lambda t: t(["the", "films"], is_split_into_words=True, return_offsets_mapping=True),
    "pairs of words": lambda t: t([["the", "films"]], [["unaffable", "!"]], is_split_into_words=True),
    "windows": lambda t: t(
        FIRST,
        [LONG, "short"],
        truncation="only_second",
        max_length=16,
        stride=2,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length",
        return_length=True,
    ),
    "windows of one text": lambda t: t(LONG, max_length=9, truncation=True, stride=3, return_overflowing_tokens=True),
    "windows of words": lambda t: t(
        [LONG.split(), ["a"]],
        max_length=7,
        truncation=True,
        stride=1,
        return_overflowing_tokens=True,
        is_split_into_words=True,
    ),
    "encode": lambda t: t.encode("the film"),
    "encode a pair": lambda t: t.encode("the film", "is great", truncation=True, max_length=6),
    "encode to an array": lambda t: t.encode("the film", return_tensors="np"),
    "pad rows": lambda t: t.pad(ENCODED),
    "pad rows to arrays": lambda t: t.pad(ENCODED, return_tensors="np"),
    "pad a batch": lambda t: t.pad(t(FIRST), padding="max_length", max_length=16),
    "pad one row": lambda t: t.pad({"input_ids": [101, 102]}, padding="max_length", max_length=4),
    "decode": lambda t: t.decode(t(FIRST[1])["input_ids"]),
    "decode without special tokens": lambda t: t.decode(t(FIRST[1])["input_ids"], skip_special_tokens=True),
    "decode cleaned up": lambda t: t.decode(t(FIRST[1])["input_ids"], clean_up_tokenization_spaces=True),
    "decode as it is": lambda t: t.decode(t(FIRST[1])["input_ids"], clean_up_tokenization_spaces=False),
    "decode an id": lambda t: t.decode(1996),
    "decode an array": lambda t: t.decode(np.array([101, 1996, 2143])),
    "decode rows": lambda t: t.decode([[101, 1996], [2143]]),
    "batch_decode": lambda t: t.batch_decode(t(FIRST, padding=True)["input_ids"], skip_special_tokens=True),
    "tokenize": lambda t: t.tokenize("The films!"),
    "tokenize a pair": lambda t: t.tokenize("The films!", pair="again"),
    "tokenize with special tokens": lambda t: t.tokenize("The films!", add_special_tokens=True),
    "tokens to ids": lambda t: (t.convert_tokens_to_ids("film"), t.convert_tokens_to_ids(["the", "zzzq"])),
    "ids to tokens": lambda t: (t.convert_ids_to_tokens(1996), t.convert_ids_to_tokens([101, 1996])),
    "ids to tokens without special ones": lambda t: t.convert_ids_to_tokens([101, 1996], skip_special_tokens=True),
    "tokens to text": lambda t: t.convert_tokens_to_string(["the", "film", "##s", "!"]),
    "vocabulary": lambda t: (t.vocab, t.get_vocab(), len(t), t.vocab_size),
    "special tokens": lambda t: {name: str(token) for name, token in t.special_tokens_map.items()},
    "all special tokens": lambda t: (sorted(t.all_special_tokens), sorted(t.all_special_ids)),
    "special tokens to add": lambda t: (t.num_special_tokens_to_add(), t.num_special_tokens_to_add(pair=True)),
    "attributes": lambda t: (t.padding_side, t.truncation_side, t.pad_token_type_id, list(t.model_input_names)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_calls_give_the_same(model_files: Path, both: Callable[[Path], tuple[Any, Any]], call: Any) -> None:
    theirs, ours = both(model_files)
    expected, found = call(theirs), call(ours)
    if hasattr(expected, "keys"):
        assert list(found) == list(expected)
        for name in found:
            assert type(found[name]) is type(expected[name])
            np.testing.assert_equal(found[name], expected[name])
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected, strict=True)
    else:
        assert found == expected


PLACES: dict[str, Callable[[Any], Any]] = {
    "texts": lambda t: t([LONG, "", "x" * 120]),
    "pairs": lambda t: t(FIRST, [LONG, ""], padding=True),
    "padded on the left": lambda t: t([LONG, "a"], padding=True, padding_side="left"),
    "words": lambda t: t([LONG.split(), ["a", "", "b"]], is_split_into_words=True),
    "windows": lambda t: t(FIRST, [LONG, LONG], truncation="only_second", max_length=20, stride=4,
                           return_overflowing_tokens=True),
    "cut on the left": lambda t: t([LONG], truncation=True, max_length=9),
}  # fmt: skip


@pytest.mark.parametrize("call", PLACES.values(), ids=PLACES.keys())
def test_tokens_words_and_characters_are_mapped_the_same(
    model_files: Path, both: Callable[[Path], tuple[Any, Any]], call: Any, request: pytest.FixtureRequest
) -> None:
    theirs, ours = both(model_files)
    sides = theirs.truncation_side, ours.truncation_side
    if "cut on the left" in request.node.name:
        theirs.truncation_side = ours.truncation_side = "left"
    expected, found = call(theirs), call(ours)
    theirs.truncation_side, ours.truncation_side = sides
    pairs = expected.n_sequences
    assert found.n_sequences == pairs
    for row, ids in enumerate(found["input_ids"]):
        for name in ("tokens", "word_ids", "sequence_ids"):
            assert getattr(found, name)(row) == getattr(expected, name)(row), name
        for token in range(len(ids)):
            for name in ("token_to_word", "token_to_chars", "token_to_sequence"):
                assert getattr(found, name)(row, token) == getattr(expected, name)(row, token), name
        for index in range(len(LONG)):
            for sequence in range(pairs):
                for name in ("char_to_token", "char_to_word", "word_to_tokens"):
                    assert getattr(found, name)(row, index, sequence) == getattr(expected, name)(row, index, sequence)
        for word in {word for word in found.word_ids(row) if word is not None} if pairs == 1 else ():
            assert found.word_to_chars(row, word) == expected.word_to_chars(row, word)
    assert found.tokens() == expected.tokens()
    assert found.token_to_chars(1) == expected.token_to_chars(1)


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_what_is_saved_opens_in_transformers(
    model_files: Path, texts: list[str], tmp_path: Path, do_lower_case: bool
) -> None:
    ours = AutoTokenizer.from_pretrained(model_files, do_lower_case=do_lower_case, model_max_length=512)
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(texts)["input_ids"] == ours(texts)["input_ids"]
    assert theirs.model_max_length == 512
    assert (theirs.pad_token, theirs.mask_token_id) == (ours.pad_token, ours.mask_token_id)
    ids = ours("it's a film, isn't it?")["input_ids"]
    assert theirs.decode(ids) == ours.decode(ids)
    (tmp_path / "tokenizer.json").unlink()
    from_vocab = transformers.BertTokenizer.from_pretrained(tmp_path)
    assert from_vocab(texts)["input_ids"] == ours(texts)["input_ids"]
