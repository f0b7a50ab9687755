"""Notice that the first line of a file is a row, because the file has no header."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .label_values import as_number

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_SENTENCE = re.compile(r"(\S+\s+){3,}\S+|\S+\s.*[.?!]", re.DOTALL)  # four words, or a space and a mark at the end
_TAG = re.compile(r"O|[BIESLU]-\S+")
_LONGEST_SHOWN = 40


def header_that_is_a_row(names: Sequence[str]) -> str:
    """Return how the names of a file's columns show that they are values, and the remedy; "" for names.

    A number or a sentence is a value. The remedy guesses the columns: sentences are texts, the first number, or else
    the first other value, is the label.
    """
    numbers = [place for place, name in enumerate(names) if _is_number(name)]
    texts = [place for place, name in enumerate(names) if place not in numbers and _SENTENCE.fullmatch(name.strip())]
    if not numbers and not texts:
        return ""
    place = (numbers or texts)[0]
    shown = names[place] if len(names[place]) <= _LONGEST_SHOWN else f"{names[place][: _LONGEST_SHOWN - 3]}..."
    ordinal = _ORDINALS[place] if place < len(_ORDINALS) else f"{place + 1}th"
    kind = "a number" if numbers else "a sentence"
    guess = ",".join(_guessed(names, texts, numbers))
    return (
        f"the first line looks like a row (its {ordinal} value {shown!r} is {kind}): if the file has no header, name "
        f"its columns, as in --columns {guess} (in Python load_dataset(..., column_names=[...]))"
    )


def word_with_its_tag(names: Sequence[str]) -> str:
    """Return how the names of a file's columns show that they are a word and its tag, and the remedy; "" for others."""
    if len(names) < 2 or not is_tag(names[-1]):
        return ""
    return (
        f"the first line looks like a word and its tag ({names[-1]!r}): such a file is read with --task "
        "token-classification, in Python by the trainer of a tagger that is given its path, or where its name ends in "
        ".conll or .iob"
    )


def is_tag(text: str) -> bool:
    """Return whether a text is written as the tags of IOB2 and its kind are: `O`, or `B-` and its kind with a name."""
    return _TAG.fullmatch(text) is not None


def _is_number(name: str) -> bool:
    """Return whether a name is a number, or several with commas between them, as ids of labels are written."""
    return all(as_number(part) is not None for part in name.split(","))


def _guessed(names: Sequence[str], texts: Sequence[int], numbers: Sequence[int]) -> list[str]:
    others = [place for place in range(len(names)) if place not in texts and place not in numbers]
    if not texts and others:
        texts = [others.pop(0)]
    of_texts = ("sentence1", "sentence2") if len(texts) == 2 else ("text",)
    guessed = {place: f"column{place + 1}" for place in range(len(names))}
    guessed |= dict(zip(texts, of_texts, strict=False))
    guessed |= dict.fromkeys([*numbers, *others][:1], "label")
    return list(guessed.values())
