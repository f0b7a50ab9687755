"""Words and tags that a tiny model learns in seconds: the tag of a word follows from the word."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TAG_OF = {"good": "B-praise", "great": "B-praise", "film": "B-thing", "plot": "I-thing"}
_WORDS = ["good", "great", "film", "plot", "actor", "scene"]


def tagged_sentences(n: int, seed: int = 0) -> list[list[tuple[str, str]]]:
    """Return rows of words, each with its tag."""
    random = np.random.default_rng(seed)
    return [
        [(word, TAG_OF.get(word, "O")) for word in random.choice(_WORDS, random.integers(1, 9)).tolist()]
        for _ in range(n)
    ]


def write_conll(path: Path, n: int, seed: int = 0) -> Path:
    """Write the rows with a word and its tag a line."""
    blocks = ["\n".join(f"{word}\t{tag}" for word, tag in row) for row in tagged_sentences(n, seed)]
    path.write_text("\n\n".join(blocks) + "\n")
    return path
