"""Tokenise rows into a data set that lies packed in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..text.blocks import BLOCK_ROWS as ENCODE_BLOCK
from ..text.tokenizer import PreTrainedTokenizerFast, check_tokenizer
from .batch import Batch, pack, without_padding
from .blocks import blocks_of, blocks_of_rows
from .columns import (
    NO_COLUMNS,
    Columns,
    ColumnUse,
    Rows,
    label_column_of,
    labels_of,
    read_label_column,
    rows_of,
)
from .label_values import are_numbered
from .labels import NO_LABEL, UNTAGGED, LabelReader, label_ids, labelled_rows, missing_like
from .masking import Masking
from .ragged import Ragged, units_of
from .sentences import Sentences
from .sources import read_table
from .spans import Spans
from .table import Table
from .texts import Texts
from .windows import Windows

OnProgress = Callable[[int, int], None]
"""Called with (rows done, rows in all), first with 0 done."""


class Reading(NamedTuple):
    """How rows of text became a data set.

    Attributes:
        columns: where texts, pairs and labels were found.
        max_length: tokens that rows were cut to; None: any length.
        cut: how many rows were longer.
        numbered: whether all labels are whole numbers, instead of names or lists.
    """

    columns: Columns
    max_length: int | None
    cut: int
    numbered: bool = False


@dataclass(frozen=True, eq=False)
class Dataset:
    """Tokenised rows in memory, packed like one large Batch.

    Attributes:
        ids: int32 (tokens,), token ids.
        types: int32 (tokens,), token types.
        starts: int64 (rows + 1,), row r holds tokens starts[r]:starts[r + 1].
        labels: as a `LabelReader` makes them, an entry for each row: ids int64 (rows,), numbers float32 (rows,) or
            (rows, outputs), indicators float32 (rows, labels); NO_LABEL or NaN where a label is missing. With
            `per_token` an entry for each token: ids int64 (tokens,), NO_LABEL where a token takes no part, and UNTAGGED
            where its label is not known. Of windows of questions int64 (rows, 2), see `data.question_windows`.
        lengths: int64 (rows,), tokens of each row; made of `starts` where they are not given.
        per_token: whether there is a label for each token instead of one for each row.
        windows: what the rows are windows of, see `data.windows` and `data.spans`, or the texts of, see
            `data.sentences`; None where each row is an example of its own.
        masking: of text from which words are to be hidden, with `per_token`: hides them, anew in each epoch, see
            `masked`. The labels are then all words that may be hidden.
        hidden: whether words are hidden: the labels are these words, and `ids` what has taken their place.
        texts: what the rows were read from, kept where a teacher needs it, see `encode`; else None.
        reading: how `encode` read the rows; None for rows that were tokenised elsewhere.
        column_use: which columns of the source are read, for messages; None where nobody knows.
        teacher_logits: the logits of a teacher that came with the rows, see `data.teacher_rows`: float32 (rows,
            outputs), or with `per_token` (tokens, outputs), NaN where there are none; None: none at all.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    starts: NDArray[np.int64]
    labels: NDArray[Any]
    reading: Reading | None = None
    column_use: ColumnUse | None = None
    per_token: bool = False
    windows: Windows | Spans | Sentences | None = None
    masking: Masking | None = None
    hidden: bool = False
    texts: Texts | None = None
    teacher_logits: NDArray[np.float32] | None = None
    lengths: NDArray[np.int64] = field(default=cast("NDArray[np.int64]", None), kw_only=True)

    def __post_init__(self) -> None:
        lengths = np.diff(self.starts) if self.lengths is None else self.lengths
        units = len(self.ids) if self.per_token else len(lengths)
        if self.teacher_logits is not None and len(self.teacher_logits) != units:
            of = "tokens" if self.per_token else "rows"
            raise ValueError(f"teacher_logits has {len(self.teacher_logits)} rows; the data set has {units} {of}")
        if self.per_token and len(self.labels) != len(self.ids):
            raise ValueError(f"labels has {len(self.labels)} entries; the data set has {len(self.ids)} tokens")
        if not self.per_token and len(lengths) != len(self.labels):
            raise ValueError(f"labels has {len(self.labels)} entries; the data set has {len(lengths)} rows")
        if self.texts is not None and len(self.texts) != len(lengths):
            raise ValueError(f"texts has {len(self.texts)} entries; the data set has {len(lengths)} rows")
        if len(lengths) == 0:
            raise ValueError("the data set has no rows")
        if self.starts[0] != 0 or lengths.min() < 1 or not self.starts[-1] == len(self.ids) == len(self.types):
            raise ValueError("starts must rise from 0 to the number of ids and types, by at least 1 a row")
        if lengths is self.lengths and not _are_lengths(lengths, self.starts):
            raise ValueError("lengths and starts differ; give starts alone")
        object.__setattr__(self, "lengths", lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def targets(self) -> Any:
        """The labels as metrics take them, an entry for each example.

        That is `labels`, or with `per_token` a `Ragged` with the labels of all tokens of an example, or of windows of
        questions their `SpanTargets`, of texts that are embedded their `SentenceTargets`.
        """
        if self.windows is not None:
            return self.windows.targets(self.labels, self.starts)
        return Ragged(self.labels, self.starts) if self.per_token else self.labels

    @property
    def num_examples(self) -> int:
        """The number of examples: of rows, or of what they are windows or texts of."""
        return len(self) if self.windows is None else len(_first_rows(self.windows.examples))

    @property
    def rows_are(self) -> str:
        """What messages call the rows: windows, or texts of pairs, where there are more of them than examples."""
        if len(self) == self.num_examples:
            return "rows"
        return "texts" if isinstance(self.windows, Sentences) else "windows"

    @property
    def labelled(self) -> int:
        """The number of examples that have a label."""
        if isinstance(self.windows, Windows):
            return int(np.logical_or.reduceat(self.have_labels(), _first_rows(self.windows.examples)).sum())
        if self.windows is not None:
            return int(labelled_rows(self.targets).sum())
        return sum(int(labelled_rows(labels).sum()) for labels in self._blocks_of_labels())

    def have_labels(self) -> NDArray[np.bool_]:
        """Return which rows have a label, bool (rows,); with `per_token`, of any token."""
        return np.concatenate([labelled_rows(labels) for labels in self._blocks_of_labels()])

    def _blocks_of_labels(self) -> Iterator[NDArray[Any] | Ragged]:
        """Yield the labels of all rows, of tokens as `Ragged`, a block of rows at a time."""
        for rows in blocks_of_rows(self.starts):
            starts = self.starts[rows.start : rows.stop + 1]
            labels = self.labels[starts[0] : starts[-1]] if self.per_token else self.labels[rows]
            yield Ragged(labels, starts - starts[0]) if self.per_token else labels

    @property
    def unlabelled(self) -> int:
        """The number of rows that lack a label; with `per_token`, those with a token that lacks one."""
        lacking = 0
        for of in self._blocks_of_labels():
            if isinstance(of, Ragged):
                lacking += int(np.logical_or.reduceat(of.values == UNTAGGED, of.starts[:-1]).sum())
            else:
                lacking += int((~labelled_rows(of)).sum())
        return lacking

    def why_no_labels(self) -> str:
        """Return "; " and why no row has a label, to end a message; "" where nobody knows or a row has one."""
        if self.column_use is None or self.labelled:
            return ""
        return f"; {self.column_use.why_no_labels()}"

    def fingerprint(self) -> str:
        """Return a sha256 of all rows and labels, in their order."""
        digest = hashlib.sha256()
        windows = () if self.windows is None else (self.windows.examples,)
        for array in (self.ids, self.types, self.starts, self.labels, *windows):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def token_counts(self, vocab_size: int) -> NDArray[np.int64]:
        """Return how often each token occurs, int64 (vocab_size,), or longer where there are others."""
        counts = np.zeros(vocab_size, np.int64)
        for block in blocks_of(len(self.ids)):
            found = np.bincount(self.ids[block], minlength=len(counts))
            counts = found + np.concatenate((counts, np.zeros(len(found) - len(counts), np.int64)))
        return counts

    def parts(self, indices: NDArray[np.integer[Any]]) -> int:
        """Return over how many parts the loss of the rows at `indices` is a mean: rows, or tokens that take part."""
        if not self.per_token:
            return len(indices)
        return int((self.labels[units_of(self.starts, indices)] != NO_LABEL).sum())

    def take(self, indices: NDArray[np.integer[Any]] | Sequence[int]) -> Dataset:
        """Return the rows at `indices`, in that order, as a data set of its own. Errors as in `batch`."""
        batch, labels = self.batch(indices)
        windows = None if self.windows is None else self.windows.take(indices, self.starts)
        texts = None if self.texts is None else self.texts.take(indices)
        taken = Dataset(*batch, labels, per_token=self.per_token, windows=windows, texts=texts)
        rows = np.asarray(indices, dtype=np.int64)
        units = units_of(self.starts, rows) if self.per_token else rows
        logits = None if self.teacher_logits is None else self.teacher_logits[units]
        return replace(taken, masking=self.masking, hidden=self.hidden, teacher_logits=logits)

    def masked(self, indices: NDArray[np.integer[Any]] | Sequence[int], epoch: int) -> Dataset:
        """Return the rows at `indices`, in that order, with the words hidden that `masking` hides in this epoch.

        Errors as in `batch`. A row may have no hidden word; it then has no label.
        """
        assert self.masking is not None
        batch, _ = self.batch(indices)
        hidden, labels = self.masking(batch, np.asarray(indices, np.int64), epoch)
        return Dataset(*hidden, labels, per_token=True, hidden=True)

    @property
    def text_ids(self) -> NDArray[np.int32]:
        """The token ids of the text, int32 (tokens,), with the words in their places that are hidden in `ids`."""
        return np.where(self.labels == NO_LABEL, self.ids, self.labels).astype(np.int32) if self.hidden else self.ids

    def without_labels(self) -> Dataset:
        """Return the same rows, all without a label and, of texts that are embedded, without a teacher's embeddings."""
        windows = replace(self.windows, reference=None) if isinstance(self.windows, Sentences) else self.windows
        return replace(self, labels=missing_like(self.labels), windows=windows)

    def batch(self, indices: NDArray[np.integer[Any]] | Sequence[int]) -> tuple[Batch, NDArray[Any]]:
        """Return the rows at `indices`, in that order, and their labels, one entry (len(indices), ...) for each.

        With `per_token` they are the labels of all tokens of these rows, int64 (tokens,).

        Raises:
            IndexError: an index is outside 0..rows-1.
            ValueError: there is no index at all.
            TypeError: indices are not whole numbers.
        """
        if len(indices) == 0:
            raise ValueError("indices is empty; a batch needs at least one row")
        rows = np.ascontiguousarray(np.asarray(indices).astype(np.int64, casting="same_kind", copy=False))
        batch = Batch(*_core.take_rows(self.ids, self.types, self.starts, rows))
        return batch, self.labels[units_of(self.starts, rows) if self.per_token else rows]


def _first_rows(examples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first row of each example, given the example of each row, not falling."""
    return np.flatnonzero(np.concatenate(([True], examples[1:] != examples[:-1])))


def _are_lengths(lengths: NDArray[np.int64], starts: NDArray[np.int64]) -> bool:
    """Return whether rows that begin at `starts` have these lengths."""
    return len(lengths) == len(starts) - 1 and all(
        np.array_equal(np.diff(starts[block.start : block.stop + 1]), lengths[block])
        for block in blocks_of(len(lengths))
    )


class Tokens(NamedTuple):
    """Texts as token ids, packed.

    Attributes:
        ids: int32 (tokens,), token ids.
        types: int32 (tokens,), token types.
        starts: int64 (texts + 1,), text t has tokens starts[t]:starts[t + 1].
        cut: how many texts were longer than the maximum length.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    starts: NDArray[np.int64]
    cut: int


def encode_texts(
    inputs: Sequence[Any],
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int | None,
    progress: OnProgress | None = None,
) -> Tokens:
    """Tokenise texts, or pairs of texts, on all cores.

    Args:
        inputs: a text, or (text, second text), for each row.
        tokenizer: the model's.
        max_length: longer ones are cut to it, special tokens counted; None: none is cut.
        progress: called after each block.
    """
    has_types = tokenizer.has_token_types
    blocks: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]] = []
    cut = 0
    for first in range(0, len(inputs), ENCODE_BLOCK):
        if progress is not None:
            progress(first, len(inputs))
        encoded = tokenizer.encode_rows(inputs[first : first + ENCODE_BLOCK], max_length)
        ids = [row.ids for row in encoded]
        types = (row.type_ids if has_types else [0] * len(row.ids) for row in encoded)
        cut += sum(row.is_cut for row in encoded)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        tokens = int(lengths.sum())
        blocks.append(
            (
                np.fromiter(chain.from_iterable(ids), np.int32, tokens),
                np.fromiter(chain.from_iterable(types), np.int32, tokens),
                lengths,
            )
        )
    if progress is not None:
        progress(len(inputs), len(inputs))
    ids_of, types_of, lengths_of = zip(*blocks, strict=True)
    starts = np.concatenate(([0], np.cumsum(np.concatenate(lengths_of))))
    return Tokens(np.concatenate(ids_of), np.concatenate(types_of), starts, cut)


def encode(
    rows: Rows,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int | None = None,
    id2label: Mapping[int, str] | None = None,
    read_labels: LabelReader = label_ids,
    keep_texts: bool = False,
    progress: OnProgress | None = None,
) -> Dataset:
    """Tokenise rows on all cores.

    Args:
        rows: texts, pairs and labels.
        tokenizer: the model's.
        max_length: longer rows are cut to it, special tokens counted (default: the tokenizer's model_max_length; give
            the model's positions). `Dataset.reading` counts them.
        id2label: the model's label map, which checks ids and translates names.
        read_labels: makes the array of labels, see `tasks.registry.label_reader`.
        keep_texts: whether the data set holds the texts too, which stay in memory with it.
        progress: called after each block.

    Raises:
        ValueError: a label does not fit, see `read_labels`; before anything is tokenised.
        TypeError: likewise.
    """
    labels = rows.read_labels(id2label, read_labels)
    limit, texts = tokenizer.truncation_length(max_length), Texts(rows.texts, rows.pairs)
    tokens = encode_texts(texts.inputs(), tokenizer, max_length=limit, progress=progress)
    reading = Reading(rows.columns, limit, tokens.cut, are_numbered(rows.labels or ()))
    return Dataset(*tokens[:3], labels, reading, rows.column_use, texts=texts if keep_texts else None)


def as_dataset(
    source: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    *,
    max_length: int | None = None,
    id2label: Mapping[int, str] | None = None,
    read_labels: LabelReader = label_ids,
    pad_token_id: int | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    trained_on: Columns = NO_COLUMNS,
    keep_texts: bool = False,
    progress: OnProgress | None = None,
) -> Dataset:
    """Tokenise whatever a trainer is given as a data set, with a label for each row.

    Args:
        source: a Dataset (returned as it is), rows that are tokenised already (a column `input_ids`, perhaps
            `token_type_ids`, `attention_mask` and a label column; never cut), or text, see `sources.read_table`.
        tokenizer: needed for text alone.
        max_length: as in `encode`.
        id2label: as in `encode`.
        read_labels: as in `encode`.
        pad_token_id: what tokenised rows without an `attention_mask` are padded with; it is dropped at their ends.
        text_column: as in `columns.read_rows`.
        text_pair_column: as in `columns.read_rows`.
        label_column: as in `columns.read_rows`.
        trained_on: as in `columns.read_rows`.
        keep_texts: as in `encode`, of rows of text.
        progress: as in `encode`.

    Raises:
        ValueError: text without a tokenizer, and what `read_rows`, `encode` and `pack` raise.
        TypeError: likewise.
    """
    if isinstance(source, Dataset):
        return source
    table = read_table(source)
    if "input_ids" in table.columns:
        label_column = label_column or label_column_of(table, trained_on.label)
        return from_token_ids(table, id2label, read_labels, label_column, pad_token_id)
    rows = rows_of(
        table,
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        trained_on=trained_on,
    )
    check_tokenizer("processing_class", tokenizer)
    if tokenizer is None:
        raise ValueError(f"{table.source} holds text; pass a tokenizer (processing_class=), or rows with input_ids")
    return encode(
        rows,
        tokenizer,
        max_length=max_length,
        id2label=id2label,
        read_labels=read_labels,
        keep_texts=keep_texts,
        progress=progress,
    )


def from_token_ids(
    table: Table,
    id2label: Mapping[int, str] | None,
    read_labels: LabelReader,
    label_column: str | None,
    pad_token_id: int | None,
    *,
    per_token: bool = False,
) -> Dataset:
    """Return rows that are tokenised already as a data set; arguments and errors as in `as_dataset`.

    With `per_token` labels are a list for each row, as long as its `input_ids`, with NO_LABEL where a token has none.
    """
    given, class_names = labels_of(table, label_column)
    if len(table) == 0:
        raise ValueError(f"{table.source} has no rows")
    labels = read_label_column(given, table, id2label, read_labels, class_names)
    batch = pack(dict(table.columns))
    if "attention_mask" not in table.columns and pad_token_id is not None:
        batch = without_padding(batch, pad_token_id)
    inputs = (name for name in ("input_ids", "token_type_ids", "attention_mask") if name in table.columns)
    use = ColumnUse.of(table, inputs, label_column)
    if per_token:
        labels = _labels_of_tokens(labels, given, table, np.diff(batch.starts))
    return Dataset(*batch, labels, column_use=use, per_token=per_token)


def _labels_of_tokens(
    labels: Any, given: Sequence[Any] | None, table: Table, lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the labels of all tokens behind each other, without those of padding; UNTAGGED of rows without any."""
    found = []
    for row, length in enumerate(lengths.tolist()):
        of, size = labels[row], len(table.columns["input_ids"][row])
        if given is not None and len(of) not in (0, size):
            raise ValueError(f"{table.where(row)}: {size} input_ids and {len(of)} labels; expected one for each token")
        found.append(of[:length] if len(of) else np.full(length, UNTAGGED))
    return np.concatenate(found)
