"""Embeddings as `kdistill predict` writes them: JSON lines, or one matrix for NumPy."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..data.sentences import Sentences

_NAMES = ("embedding", "embedding_pair")


@dataclass(frozen=True)
class EmbeddingPredictions:
    """The embeddings of rows, each of one text or of two.

    Attributes:
        values: float32 (rows, C), or (rows, 2, C) of pairs.
        texts: columns of text to write beside them, by name.
    """

    values: NDArray[np.float32]
    texts: Mapping[str, Sequence[str]]

    @classmethod
    def of(
        cls, values: NDArray[np.float32], sentences: Sentences, texts: Mapping[str, Sequence[str]]
    ) -> EmbeddingPredictions:
        """Return those of the texts of a data set, (texts, C), by its rows."""
        rows = int(sentences.examples[-1]) + 1
        pairs = len(values) > rows
        return cls(values.reshape(rows, 2, values.shape[1]) if pairs else values, texts)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield index, embedding, of a pair embedding_pair, and the texts of each row."""
        for row, vectors in enumerate(self.values):
            named = zip(_NAMES, vectors.reshape(-1, vectors.shape[-1]).tolist(), strict=False)
            yield {"index": row, **dict(named), **{name: column[row] for name, column in self.texts.items()}}

    def as_pipeline(self) -> list[Any]:
        """Return the numbers of each row."""
        listed: list[Any] = self.values.tolist()
        return listed

    def write_npy(self, file: BinaryIO) -> None:
        """Write the values in NumPy's format, also into a pipe."""
        content = io.BytesIO()
        np.save(content, self.values)
        file.write(content.getbuffer())
