"""The keys of rows in the teacher cache: hashes of their tokens."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.ragged import starts_of

KEY_BYTES = 16
# A fixed length keeps records that can be mapped and checked all at once. The training rows of WNUT-17 (31 tokens, 13
# labels) take 1.18 times the bytes of their logits, with pieces of 4 tokens 1.17 times and of 16 1.27 times; those of
# BC5CDR (36 tokens, 5 labels) take 1.26, 1.36 and 1.30 times.
TOKENS_OF_A_RECORD = 8
_KEYED_ROWS = 4096  # whose tokens are copied at once to make their keys


def row_keys(dataset: Dataset | Batch) -> NDArray[np.void]:
    """Return the key of each row, void16 (rows,): the 16-byte BLAKE2b of its (id, type) pairs as int32."""
    digests = bytearray()
    for first in range(0, len(dataset.starts) - 1, _KEYED_ROWS):
        starts = dataset.starts[first : first + _KEYED_ROWS + 1]
        part = slice(starts[0], starts[-1])
        pairs = np.stack([dataset.ids[part], dataset.types[part]], axis=1).astype("<i4", copy=False)
        tokens, ends = memoryview(pairs.data).cast("B"), ((starts - starts[0]) * 8).tolist()
        for begin, end in pairwise(ends):
            digests += hashlib.blake2b(tokens[begin:end], digest_size=KEY_BYTES).digest()
    return np.frombuffer(digests, dtype=f"V{KEY_BYTES}")


def piece_keys(keys: NDArray[np.void], lengths: NDArray[np.int64]) -> NDArray[np.void]:
    """Return the keys of the pieces of rows, void16 (pieces,): the BLAKE2b of the row's key and the piece's number.

    Of the last byte's lowest bit, 0 marks the first piece of a row.

    Args:
        keys: of the rows, void16 (rows,).
        lengths: tokens of the rows, int64 (rows,).
    """
    digests = (
        hashlib.blake2b(key + piece.to_bytes(4, "little"), digest_size=KEY_BYTES).digest()
        for key, length in zip(keys.tolist(), lengths.tolist(), strict=True)
        for piece in range(-(-length // TOKENS_OF_A_RECORD))
    )
    marked = np.frombuffer(bytearray(b"".join(digests)), np.uint8).reshape(-1, KEY_BYTES)
    marked[:, -1] |= 1
    marked[starts_of(-(-lengths // TOKENS_OF_A_RECORD))[:-1], -1] ^= 1
    return marked.view(f"V{KEY_BYTES}").ravel()
