"""Text that truncation drops is not tokenised, and the tokens that are kept are those of the whole text."""

from __future__ import annotations

import random
import signal
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from support.kinds_of_tokenizers import KINDS, write_kind

from kdistill.text.blocks import BLOCK_CHARACTERS, BLOCK_ROWS, blocks_of
from kdistill.text.classes import AutoTokenizer
from kdistill.text.row_encoder import Cut
from kdistill.text.shortening import CHARACTERS_OF_A_TOKEN
from kdistill.text.tokenizer import PreTrainedTokenizerFast

PARTS = [
    "film", "great", "isn't", "x" * 130, "The", "Café", "東京", "大阪都東京", "1999", "½", "[MASK]", "<mask>", "covid",
    "[WORLD]", "a", "zzzq", "e\u0301", "\u0301", "ﬁlms", "\u0e33", "\u0600", "İ", "under_score", "!", "--", "\u2581",
    "\x00", "\u200b", "\u3000", "ἄνθρωπος", "война", "\U0001f600", "s", "</s>", "ǅ", "\u0d4e", "ﷺ", "한국어",
    ".", "...", ",", "a.b", "(", "$", "[", "[MASK].", "\u00ad.",
]  # fmt: skip
GAPS = [" "] * 12 + ["", "", "  ", "\n", " \t", "\u00a0", "\u2028"]
NOT_SHORTENED = {"words split by Regex"}


def text_of(source: random.Random, parts: int) -> str:
    few = source.sample(PARTS, source.randint(2, len(PARTS)))
    return "".join(source.choice(few) + source.choice(GAPS) for _ in range(parts))


@pytest.fixture(scope="module", params=KINDS)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any, PreTrainedTokenizerFast]:
    """The name of a kind, the tokenizer of the package tokenizers, and ours."""
    directory = tmp_path_factory.mktemp("kind")
    return request.param, write_kind(request.param, directory), AutoTokenizer.from_pretrained(directory)


def expected_row(backend: Any, row: Any, limit: int, side: str = "right", strategy: str = "longest_first") -> Any:
    """Return ids and types of a row that is tokenised whole and truncated here, by the rules of `tokenizers`."""
    whole = backend.encode(*row) if isinstance(row, tuple) else backend.encode(row)
    places: list[list[int]] = [[], []]
    for place, sequence in enumerate(whole.sequence_ids):
        if sequence is not None:
            places[sequence].append(place)
    counts = [len(places[0]), len(places[1])]
    room = limit - (len(whole.ids) - sum(counts))
    if sum(counts) > room:
        if not isinstance(row, tuple):
            counts = [room, 0]
        elif strategy == "longest_first":
            shorter, longer = (1, 0) if counts[0] > counts[1] else (0, 1)
            counts[shorter] = min(counts[shorter], room // 2)
            counts[longer] = room - counts[shorter]
        else:
            other = 1 if strategy == "only_first" else 0
            counts[1 - other] = room - counts[other]
    dropped: set[int] = set()
    for kept, own in zip(counts, places, strict=True):
        dropped.update(own[kept:] if side == "right" else own[: len(own) - kept])
    left = [place for place in range(len(whole.ids)) if place not in dropped]
    return [whole.ids[place] for place in left], [whole.type_ids[place] for place in left]


@pytest.mark.parametrize("side", ["right", "left"])
def test_kept_tokens_are_those_of_the_whole_text(both: tuple[str, Any, PreTrainedTokenizerFast], side: str) -> None:
    kind, backend, tokenizer = both
    tokenizer.truncation_side = side
    source = random.Random(f"{kind} {side}")
    cut = 0
    for _ in range(25):
        limit = source.choice([4, 5, 6, 7, 13])
        texts = [text_of(source, source.choice([3, 30, 100, 300])) for _ in range(3)]
        found = tokenizer.encode_rows(texts, limit)
        assert [row[:2] for row in found] == [expected_row(backend, text, limit, side) for text in texts]
        cut += sum(tokenizer._encoder._shortened(text, Cut(limit, side)) != text for text in texts)
    # What white space an added token swallows behind itself is not there for a part that begins behind it.
    swallows = kind == "added special tokens" and side == "left"
    assert (cut > 10) == (kind not in NOT_SHORTENED and not swallows)


@pytest.mark.parametrize("side", ["right", "left"])
def test_pairs_of_two_long_texts_keep_the_odd_token_of_the_longer_one(
    both: tuple[str, Any, PreTrainedTokenizerFast], side: str
) -> None:
    kind, backend, tokenizer = both
    tokenizer.truncation_side = side
    source = random.Random(f"{kind} {side}")
    # The package tokenizers takes time by the product of the lengths of a pair that is not shortened.
    parts = 10 if kind in NOT_SHORTENED else 40
    rows = [(text_of(source, source.randint(1, parts)), text_of(source, source.randint(1, parts))) for _ in range(20)]
    rows += [(first, first) for first, _ in rows[:5]] + [(first, first + " a") for first, _ in rows[:5]]
    for limit in (12, 13):
        expected = [expected_row(backend, row, limit, side) for row in rows]
        assert [row[:2] for row in tokenizer.encode_rows(rows, limit)] == expected


@pytest.mark.parametrize("strategy", ["only_first", "only_second"])
def test_one_text_of_a_pair_is_cut(both: tuple[str, Any, PreTrainedTokenizerFast], strategy: str) -> None:
    kind, backend, tokenizer = both
    tokenizer.truncation_side = "right"
    source = random.Random(kind)
    rows = [(text_of(source, 100), "a") for _ in range(10)]
    rows = rows if strategy == "only_first" else [(second, first) for first, second in rows]
    expected = [expected_row(backend, row, 12, strategy=strategy) for row in rows]
    assert [row[:2] for row in tokenizer.encode_rows(rows, 12, strategy)] == expected
    with pytest.raises(ValueError, match="rows cannot be cut to max_length=12"):
        tokenizer.encode_rows([(text_of(source, 30), text_of(source, 30))], 12, strategy)


def test_tokens_added_later_are_never_cut_apart(tmp_path: Path) -> None:
    write_kind("bert", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "the film " * 200
    assert len(tokenizer._encoder._shortened(text, Cut(8))) < 100
    tokenizer.add_tokens(["the film the"])
    ids = tokenizer(text, truncation=True, max_length=8)["input_ids"]
    the, film = tokenizer.convert_tokens_to_ids(["the film the", "film"])
    assert ids[1:-1] == [the, film] * 3


def test_blocks_are_bounded_by_rows_and_by_characters() -> None:
    assert [len(block) for block in blocks_of(["a"] * (2 * BLOCK_ROWS + 5))] == [BLOCK_ROWS, BLOCK_ROWS, 5]
    quarter = "a" * (BLOCK_CHARACTERS // 4)
    assert [len(block) for block in blocks_of([quarter] * 9)] == [4, 4, 1]
    assert [len(block) for block in blocks_of([quarter * 9, "a", ("a", quarter * 9)])] == [1, 1, 1]


def test_a_long_document_takes_no_memory_beyond_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kind("bert", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    document = "a great film, isn't it " * 100_000
    tokenizer._encoder._shortened(document, Cut(128))
    tracemalloc.start()
    short = tokenizer._encoder._shortened(document, Cut(128))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert len(short) <= 128 * CHARACTERS_OF_A_TOKEN
    assert len(tokenizer(document, truncation=True, max_length=128)["input_ids"]) == 128
    word = "a" * 500_000
    assert len(tokenizer._encoder._shortened(word, Cut(128))) == 101
    read = []
    encode_block = tokenizer._encoder._encode_block
    monkeypatch.setattr(
        tokenizer._encoder, "_encode_block", lambda block, *rest: read.extend(block) or encode_block(block, *rest)
    )
    assert tokenizer(word, truncation=True, max_length=128)["input_ids"] == [2, 1, 3]
    assert tokenizer(word, "film " * 10_000, truncation=True, max_length=128)["input_ids"][:3] == [2, 1, 3]
    assert max(len(text) for row in read for text in ([row] if isinstance(row, str) else row)) < 1 << 17


def test_ctrl_c_is_answered_between_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kind("words split by Regex", tmp_path)  # of a kind that cannot be shortened
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = ["a great film " * 5000] * 40
    blocks = []
    encode_block = tokenizer._encoder._encode_block

    def interrupted(block: list[Any], *arguments: Any) -> Any:
        blocks.append(sum(map(len, block)))
        if len(blocks) == 3:
            signal.raise_signal(signal.SIGINT)
        return encode_block(block, *arguments)

    monkeypatch.setattr(tokenizer._encoder, "_encode_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode_rows(rows, 128)
    assert len(blocks) == 3
    assert max(blocks) <= BLOCK_CHARACTERS
    blocks.clear()
    tokenizer._encoder._encode_block = encode_block  # type: ignore[method-assign]
    assert len(tokenizer.encode_rows(rows[:2], 128)) == 2


@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_rows_count_as_cut_when_something_was_left_out(tmp_path: Path, add_special_tokens: bool) -> None:
    write_kind("bert", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["film", "film " * 8, "film " * 10, "film " * 11, "film " * 5000, "x" * 5000, "x" * 5000 + " film" * 7]
    rows = tokenizer.encode_rows(texts, 10, add_special_tokens=add_special_tokens)
    whole = tokenizer.encode_rows(texts, None, add_special_tokens=add_special_tokens)
    assert [row.is_cut for row in rows] == [len(row.ids) > 10 for row in whole]
    assert not any(row.is_cut for row in whole)
