"""Words under masks, as `kdistill predict` writes them: JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WordPredictions:
    """The words that a language model expects under the masks of texts.

    Attributes:
        words: of each text, as `FillMaskPipeline` returns them.
    """

    words: Sequence[list[Any]]

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the index of each text and its words, the most probable first; of several masks a list for each."""
        for index, words in enumerate(self.words):
            yield {"index": index, "words": words}

    def as_pipeline(self) -> list[Any]:
        """Return the words of each text."""
        return [record["words"] for record in self.records()]
