"""Cut text beyond any possible use before it is tokenised, where that provably cannot change the tokens that are kept.

A text of which 128 tokens are kept needs a few hundred of its characters, and the package `tokenizers` takes a hundred
bytes of memory for each. A text may be cut between two words when the pipeline treats what stands before the cut as if
the text ended there. That holds before a space between two letters or digits when

- each stage of the normalizer looks at single characters, or at sequences that do not hold such a space,
- the pre-tokenizer ends a word before each such space,
- no added token holds white space, so that none lies across the cut,
- the model looks at one word at a time, and without chance (dropout).

With BERT's own pipeline a cut may also stand before other white space, between two Chinese characters, and beside
ASCII's punctuation that no added token holds: such characters are words of their own. Each word gives at least one
token, so as many words as tokens are kept suffice; a row that comes out too short all the same is tokenised whole by
the caller.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Texts of up to this many characters for each token that is kept stay whole: they are cheap.
CHARACTERS_OF_A_TOKEN = 16
_CHUNK = 1 << 16
_NORMALIZERS = ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "StripAccents")
# Pre-tokenizers that end a word at each space, and those that cut words further.
_SPLITTING = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
_CUTTING = ("Digits", "Punctuation")
_MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
_LETTER, _ASCII_LETTER, _CHINESE = r"[^\W_]", r"[A-Za-z0-9]", r"[\u4e00-\u9fff]"


class Shortener:
    """Cuts texts for one tokenizer.

    Args:
        backend: the tokenizer.
        count: returns the tokens of a text, without special tokens.
        from_end: whether the last tokens are kept (`truncation_side` "left").
    """

    def __init__(self, backend: Tokenizer, count: Callable[[str], int], from_end: bool) -> None:
        content = json.loads(backend.to_str())
        self._count = count
        self._from_end = from_end
        added = content["added_tokens"]
        # Tokens that swallow the white space behind them would find none of it at the beginning of a part.
        self._has_parts = not any(token["rstrip"] for token in added)
        texts = _added_texts(backend, added)
        places = _places(content, texts) if _are_whole_words(texts) else None
        self._places = None if places is None or (from_end and not self._has_parts) else re.compile(places)
        self._long_word = None if places is None else _long_word(content)

    def cut(self, text: str, tokens: int) -> str:
        """Return a part of `text` that has the same first (last) `tokens` tokens, or the text itself."""
        reach = tokens * CHARACTERS_OF_A_TOKEN
        if self._places is None or len(text) <= reach:
            return text
        while True:
            part = text[-reach:] if self._from_end else text[:reach]
            found = [place.start() for place in self._places.finditer(part)]
            if len(found) >= tokens:
                part = part[found[-tokens] :] if self._from_end else part[: found[tokens - 1]]
                break
            if reach >= len(text):
                part = text
                break
            reach *= 4
        return self.with_short_words(part) if len(part) > tokens * CHARACTERS_OF_A_TOKEN else part

    def with_short_words(self, text: str) -> str:
        """Return a text of the same tokens, in which words that are unknown for their length are just long enough."""
        return text if self._long_word is None else self._long_word.sub(r"\1", text)

    def cut_pair(self, first: str, second: str, tokens: int, strategy: str) -> tuple[str, str]:
        """Return parts of a pair that are truncated to the same `tokens` tokens in all, or the pair itself."""
        if strategy == "only_first":
            return self.cut(first, tokens), self.cut(second, tokens + 1)
        if strategy == "only_second":
            return self.cut(first, tokens + 1), self.cut(second, tokens)
        short_first, short_second = self.cut(first, tokens), self.cut(second, tokens)
        if (short_first, short_second) == (first, second) or not self._has_parts:
            return first, second
        # longest_first gives the odd token to the longer text, so the longer must stay the longer.
        if self._is_longer(self.with_short_words(first), self.with_short_words(second)):
            return self.cut(first, max(tokens, self._count(short_second) + 1)), short_second
        return short_first, self.cut(second, max(tokens, self._count(short_first)))

    def _is_longer(self, first: str, second: str) -> bool:
        """Return whether the first text has more tokens, reading no more of either than that takes."""
        chunks = self._chunks(first), self._chunks(second)
        ahead = 0
        while True:
            behind = 0 if ahead <= 0 else 1
            chunk = next(chunks[behind], None)
            if chunk is None:
                return behind == 1
            ahead += self._count(chunk) if behind == 0 else -self._count(chunk)

    def _chunks(self, text: str) -> Iterator[str]:
        """Cut a text into parts that have its tokens together."""
        start = 0
        while self._places is not None and (place := self._places.search(text, start + _CHUNK)) is not None:
            yield text[start : place.start()]
            start = place.start()
        yield text[start:]


def _added_texts(backend: Tokenizer, added: list[Mapping[str, Any]]) -> list[str]:
    """Return the texts of the added tokens, as they are and as the normalizer leaves them."""
    texts = [token["content"] for token in added]
    if backend.normalizer is not None:
        texts += [backend.normalizer.normalize_str(text) for text in texts]
    return texts


def _are_whole_words(texts: list[str]) -> bool:
    """Return whether no added token can lie across a space, or across two Chinese characters."""
    return not any(re.search(rf"\s|\u2581|{_CHINESE}", text) for text in texts)


def _places(content: Mapping[str, Any], added_texts: list[str]) -> str | None:
    """Return a pattern of the places at which a text may be cut, None if there are none."""
    normalizers = _stages(content["normalizer"], "normalizers")
    kinds = [stage["type"] for stage in normalizers]
    if not all(stage["type"] in _NORMALIZERS or _keeps_words(stage) for stage in normalizers):
        return None
    model = content["model"]
    if model["type"] not in _MODELS or model.get("dropout") or not _splits(content["pre_tokenizer"]):
        return None
    # SentencePiece's table works on grapheme clusters, whose borders are certain in ASCII.
    letter = _ASCII_LETTER if "Precompiled" in kinds else _LETTER
    at_spaces = f"(?<={letter})(?= {letter})"
    words = [stage["type"] for stage in _stages(content["pre_tokenizer"], "pretokenizers")]
    is_bert = kinds == ["BertNormalizer"] and normalizers[0]["handle_chinese_chars"] and words == ["BertPreTokenizer"]
    return "|".join((at_spaces, *_places_of_bert(added_texts))) if is_bert else at_spaces


def _places_of_bert(added_texts: list[str]) -> Iterator[str]:
    """Yield patterns of further places, with BERT's own normalizer and pre-tokenizer."""
    yield f"(?<={_CHINESE})(?={_CHINESE})"
    yield r"(?<=[!-~])(?=[ \t\n\r]+[!-~])"
    if free := "".join(sorted(set(string.punctuation).difference(*added_texts))):
        yield rf"(?<=[!-~])(?=[{re.escape(free)}])|(?<=[{re.escape(free)}])(?=[!-~])"


def _stages(stage: Any, name: str) -> list[Mapping[str, Any]]:
    """Return the stages of a pipeline without nesting."""
    if stage is None:
        return []
    if stage["type"] == "Sequence":
        return [inner for part in stage[name] for inner in _stages(part, name)]
    return [stage]


def _keeps_words(stage: Mapping[str, Any]) -> bool:
    """Return whether a normalizer replaces only what holds neither a single space nor a letter nor a digit."""
    if stage["type"] != "Replace":
        return False
    if stage["pattern"] == {"Regex": " {2,}"}:
        return True
    text = stage["pattern"].get("String")
    return bool(text) and not any(character.isspace() or character.isalnum() for character in text)


def _splits(pre_tokenizer: Any) -> bool:
    stages = _stages(pre_tokenizer, "pretokenizers")
    kinds = [stage["type"] for stage in stages]
    if kinds == ["ByteLevel"]:
        return bool(stages[0]["use_regex"])
    if kinds == ["Metaspace"]:
        return bool(stages[0]["split"])
    if kinds[-1:] == ["Metaspace"] and stages[-1]["prepend_scheme"] == "always":
        kinds.pop()
    return any(kind in _SPLITTING for kind in kinds) and all(kind in (*_SPLITTING, *_CUTTING) for kind in kinds)


def _long_word(content: Mapping[str, Any]) -> re.Pattern[str] | None:
    """Return a pattern of words that are unknown to WordPiece for their length, as group 1 is; None without one."""
    kinds = [stage["type"] for stage in _stages(content["pre_tokenizer"], "pretokenizers")]
    normalizers = [stage["type"] for stage in _stages(content["normalizer"], "normalizers")]
    inside_words = any(
        token["content"][0].isalnum() or token["content"][-1].isalnum() for token in content["added_tokens"]
    )
    longest = content["model"].get("max_input_chars_per_word")
    if longest is None or inside_words or "Precompiled" in normalizers or not all(kind in _SPLITTING for kind in kinds):
        return None
    return re.compile(rf"({_ASCII_LETTER}{{{longest + 1}}}){_ASCII_LETTER}+")
