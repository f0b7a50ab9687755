"""A part of a tokenizer's vocabulary: which entries spelling needs, and the tokenizer.json that is left with a part."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How Unigram and BPE with byte_fallback write a byte that is no part of a known character.
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def reduced(content: Mapping[str, Any], ids: Iterable[int]) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Return a tokenizer.json with these entries, and those without which the others would not be spelled.

    Args:
        content: the tokenizer.json.
        ids: of the entries to keep.

    Returns:
        The tokenizer.json, and the ids of its entries in the given one, int64, ascending.

    Raises:
        ValueError: an id is none of the vocabulary, or the model has another kind of vocabulary.
    """
    check_can_be_subset(content)
    known, wanted = {*entries_of(content).values()}, {*map(int, ids)}
    if wanted - known:
        raise ValueError(f"the vocabulary has no entry {min(wanted - known)}; expected ids of its {len(known)}")
    kept = np.array(sorted(with_parts(content, wanted | spelling_entries(content))), np.int64)
    return subset(content, kept.tolist()), kept


def check_can_be_subset(content: Mapping[str, Any]) -> None:
    """Raise ValueError for the tokenizer.json of a model whose vocabulary is not understood here."""
    kind = content["model"]["type"]
    if kind not in _REBUILT:
        raise ValueError(
            f"the tokenizer's model is {kind}; expected one of {', '.join(_REBUILT)}, whose vocabulary can be pruned"
        )


def entries_of(content: Mapping[str, Any]) -> dict[str, int]:
    """Return token -> id of all entries of a tokenizer.json, added tokens included."""
    vocab = content["model"]["vocab"]
    own = vocab if isinstance(vocab, dict) else {token: index for index, (token, _) in enumerate(vocab)}
    return {**own, **{token["content"]: token["id"] for token in content["added_tokens"]}}


def spelling_entries(content: Mapping[str, Any]) -> set[int]:
    """Return the ids without which the tokenizer would no longer spell or mark what it does.

    They are single characters in each place of a word (of BPE of bytes that is each byte), the tokens of bytes that
    unknown characters fall back to, the unknown token, added tokens, and those of the post-processor. Of Unigram also
    the entry with the lowest score, since the unknown token's score follows from it.
    """
    model = content["model"]
    prefix, suffix = _marks(model)
    found = {
        index
        for token, index in entries_of(content).items()
        if len(token.removeprefix(prefix).removesuffix(suffix)) == 1 or _BYTE.fullmatch(token)
    }
    found |= {token["id"] for token in content["added_tokens"]} | _ids_of_processor(content["post_processor"])
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        found |= {scores.index(min(scores))} | ({model["unk_id"]} if model["unk_id"] is not None else set())
    elif model.get("unk_token") in model["vocab"]:
        found.add(model["vocab"][model["unk_token"]])
    return found


def with_parts(content: Mapping[str, Any], ids: Collection[int]) -> set[int]:
    """Return ids with those of the tokens that BPE makes on its way to them; of other models the ids as they are.

    So every merge that leads to one of them stays, and a word of these tokens is cut as before: the merges that were
    applied to it are all there, in their order, and none is there that was not.
    """
    model = content["model"]
    if model["type"] != "BPE":
        return set(ids)
    ranks = {pair: rank for rank, pair in enumerate(map(_pair, model["merges"]))}
    prefix, suffix = _marks(model)
    vocab, wanted, found = model["vocab"], set(ids), set(ids)
    for token, index in vocab.items():
        if index in wanted:
            found |= {vocab[part] for part in _parts_of(token, ranks, prefix, suffix) if part in vocab}
    return found


def matching_entries(content: Mapping[str, Any], word: str) -> set[int]:
    """Return the ids of all entries of WordPiece that a word, as the normalizer leaves it, could be cut into."""
    vocab, prefix = content["model"]["vocab"], _marks(content["model"])[0]
    spans = ((start, end) for start in range(len(word)) for end in range(start + 1, len(word) + 1))
    pieces = ((prefix if start else "") + word[start:end] for start, end in spans)
    return {vocab[piece] for piece in pieces if piece in vocab}


def subset(content: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return a tokenizer.json with the entries of these ids alone, which are numbered anew in their order.

    Args:
        content: the tokenizer.json.
        kept: ids, ascending; those of `spelling_entries` and `with_parts` among them.
    """
    places = {old: new for new, old in enumerate(kept)}
    model = _REBUILT[content["model"]["type"]](content["model"], places)
    added = [{**token, "id": places[token["id"]]} for token in content["added_tokens"]]
    processor = _renumbered(content["post_processor"], places)
    return {**content, "model": model, "added_tokens": added, "post_processor": processor}


def _of_words(model: Mapping[str, Any], places: Mapping[int, int]) -> dict[str, Any]:
    vocab = {token: places[index] for token, index in model["vocab"].items() if index in places}
    return {**model, "vocab": dict(sorted(vocab.items(), key=lambda entry: entry[1]))}


def _of_bpe(model: Mapping[str, Any], places: Mapping[int, int]) -> dict[str, Any]:
    pruned = _of_words(model, places)
    vocab, prefix = pruned["vocab"], _marks(model)[0]
    merges = [merge for merge in model["merges"] if {*_pair(merge), _merged(_pair(merge), prefix)} <= vocab.keys()]
    return {**pruned, "merges": merges}


def _of_unigram(model: Mapping[str, Any], places: Mapping[int, int]) -> dict[str, Any]:
    vocab = [entry for index, entry in enumerate(model["vocab"]) if index in places]
    return {**model, "vocab": vocab, "unk_id": None if model["unk_id"] is None else places[model["unk_id"]]}


_REBUILT: dict[str, Callable[[Mapping[str, Any], Mapping[int, int]], dict[str, Any]]] = {
    "WordPiece": _of_words,
    "BPE": _of_bpe,
    "Unigram": _of_unigram,
}


def _marks(model: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a token begins with that goes on with a word, and what one ends with that ends it."""
    return model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    """Return the symbols of a merge, which older files write as one string."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _merged(pair: tuple[str, str], prefix: str) -> str:
    return pair[0] + pair[1].removeprefix(prefix)


def _parts_of(token: str, ranks: Mapping[tuple[str, str], int], prefix: str, suffix: str) -> set[str]:
    """Return the symbols that BPE makes of a token's characters, up to the token itself."""
    begins, ends = not (prefix and token.startswith(prefix)), suffix != "" and token.endswith(suffix)
    text = token.removeprefix(prefix).removesuffix(suffix)
    symbols = [character if begins and not place else prefix + character for place, character in enumerate(text)]
    if ends and symbols:
        symbols[-1] += suffix
    found = set(symbols)
    while len(symbols) > 1:
        pairs = list(pairwise(symbols))
        best = min(range(len(pairs)), key=lambda place: ranks.get(pairs[place], len(ranks)))
        if pairs[best] not in ranks:
            break
        symbols[best : best + 2] = [_merged(pairs[best], prefix)]
        found.add(symbols[best])
    return found


def _ids_of_processor(processor: Mapping[str, Any] | None) -> set[int]:
    found: set[int] = set()
    if processor is None:
        return found
    for inner in processor.get("processors", ()):
        found |= _ids_of_processor(inner)
    for token in _templates_tokens(processor).values():
        found.update(token["ids"])
    return found | {processor[name][1] for name in ("sep", "cls") if name in processor}


def _templates_tokens(processor: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tokens of a template by their text; of other post-processors none."""
    tokens: Mapping[str, Any] = processor.get("special_tokens", {})
    return tokens


def _renumbered(processor: Mapping[str, Any] | None, places: Mapping[int, int]) -> dict[str, Any] | None:
    """Return a post-processor with the new ids of its tokens."""
    if processor is None:
        return None
    changed = dict(processor)
    if "processors" in processor:
        changed["processors"] = [_renumbered(inner, places) for inner in processor["processors"]]
    if "special_tokens" in processor:
        changed["special_tokens"] = {
            text: {**token, "ids": [places[index] for index in token["ids"]]}
            for text, token in _templates_tokens(processor).items()
        }
    for name in ("sep", "cls"):
        if name in processor:
            text, index = processor[name]
            changed[name] = [text, places[index]]
    return changed
