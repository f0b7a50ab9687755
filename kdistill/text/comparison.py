"""Where two tokenizers differ: whether the ids of one mean the same to a model that was trained with the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..system.names import listing
from .tokenizer_settings import MATCHING_FLAGS, without

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def vocabulary_differences(theirs: Mapping[str, int], ours: Mapping[str, int]) -> list[str]:
    """Return the tokens that only one of two vocabularies has or that have other ids, those of `theirs` first."""
    different = [token for token, index in theirs.items() if ours.get(token) != index]
    return different + [token for token in ours if token not in theirs]


def pipeline_differences(theirs: Tokenizer, ours: Tokenizer) -> list[str]:
    """Return how the pipelines of two tokenizers differ, a phrase for each stage, apart from their vocabularies.

    Two ways to write the same stage count as equal where that can be decided: `strip_accents` null is the value of
    `lowercase`, and post-processors are compared by the tokens and types that they add. Decoders do not count.
    """
    first, second = (json.loads(backend.to_str()) for backend in (theirs, ours))
    found = []
    for name, part in (("normalizer", _normalizer), ("pre_tokenizer", _as_it_is), ("model", _model)):
        one, other = part(first[name]), part(second[name])
        if one != other:
            found.append(f"the {name.replace('_', '-')} ({_difference(one, other)})")
    tokens = [
        {token["content"]: [token[flag] for flag in MATCHING_FLAGS] for token in c["added_tokens"]}
        for c in (first, second)
    ]
    if tokens[0] != tokens[1]:
        names = sorted(name for name in {**tokens[0], **tokens[1]} if tokens[0].get(name) != tokens[1].get(name))
        found.append(f"the added tokens ({listing(map(repr, names), 3)})")
    if _processed(theirs) != _processed(ours):
        found.append("the post-processor, which adds special tokens and token types")
    return found


def _as_it_is(part: Any) -> Any:
    return part


def _normalizer(part: Any) -> Any:
    """Return a normalizer with `strip_accents` as it acts."""
    if not isinstance(part, dict):
        return part
    if "normalizers" in part:
        inner = [_normalizer(inner) for inner in part["normalizers"]]
        return inner[0] if len(inner) == 1 else {**part, "normalizers": inner}
    if part.get("type") == "BertNormalizer" and part.get("strip_accents") is None:
        return {**part, "strip_accents": part["lowercase"]}
    return part


def _model(part: Any) -> Any:
    # A vocabulary with scores (Unigram) is more than its ids; merges decide like scores. Reading a tokenizer.json may
    # change the last place of a score.
    scores = [np.float32(score) for _, score in part["vocab"]] if isinstance(part["vocab"], list) else None
    return without(part, ("vocab",)) | {"scores": scores}


def _difference(one: Any, other: Any) -> str:
    """Return the first settings in which two stages differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.get("type") == other.get("type"):
        names = [name for name in one | other if one.get(name) != other.get(name)]
        shown = [
            f"{name} {one.get(name)!r} and {other.get(name)!r}" if _is_short(one, other, name) else name
            for name in names
        ]
        return ", ".join(shown)
    kinds = (part.get("type") if isinstance(part, dict) else "none" for part in (one, other))
    return " and ".join(map(str, kinds))


def _is_short(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    return all(isinstance(part.get(name), str | int | float | bool | None) for part in (one, other))


def _processed(backend: Tokenizer) -> list[Any]:
    """Return what a post-processor makes of a text and of a pair of one word each."""
    word = backend.encode("a", add_special_tokens=False)
    rows = [backend.post_process(word), backend.post_process(word, word)]
    return [(row.ids, row.type_ids) for row in rows]
