"""Write rows with what a teacher answered for them: Parquet, JSON lines, or one array of NumPy."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..system.files import json_text
from ..system.output import open_output
from .class_names import CLASS_NAMES, LABEL_NAMES
from .table import Table
from .teacher_columns import LOGITS, PROBABILITIES, TEMPERATURE, teacher_column_of

ENDINGS = (".parquet", ".jsonl", ".npy")


@dataclass(frozen=True)
class LabelledRows:
    """Rows and what a teacher answered for them.

    Attributes:
        table: the rows.
        logits: of each row, a list of numbers; of a row of words, or of a pair that is embedded, a list of such, None
            for a word without an answer. For .npy one array, NaN where there is none.
        probabilities: likewise, or None.
        names: of the outputs, or none where they have no names.
        about: where they come from, for the metadata of a Parquet file: texts by name.
        temperature: at which the answers of several teachers were averaged; None of one.
    """

    table: Table
    logits: Sequence[Any] | NDArray[np.float32]
    probabilities: Sequence[Any] | None
    names: Sequence[str]
    about: Mapping[str, str]
    temperature: float | None = None

    def write(self, path: str) -> None:
        """Write a file, put in place whole, in the format that its ending names.

        Raises:
            ImportError: Parquet without pyarrow.
            ValueError: another ending, the rows have such a column already, or Parquet or NumPy cannot hold them.
            OSError: it cannot be written.
        """
        writers = {".parquet": self._write_parquet, ".jsonl": self._write_json_lines, ".npy": self._write_npy}
        writers[ending_of(path)](path)

    def _answers(self) -> dict[str, Sequence[Any]]:
        return {LOGITS: list(self.logits)} | ({} if self.probabilities is None else {PROBABILITIES: self.probabilities})

    def _write_parquet(self, path: str) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise ImportError('writing Parquet files needs pyarrow: pip install "kdistill[data]"') from error
        columns: dict[str, Any] = {}
        for name, values in self.table.columns.items():
            try:
                columns[name] = pa.array(list(values))
            except (pa.ArrowException, OverflowError) as error:
                raise ValueError(
                    f"the column {name!r} of {self.table.source} cannot be written as Parquet "
                    f"({' '.join(str(error).split())}); expected values of one kind, or an output that ends in .jsonl"
                ) from error
        numbers = pa.list_(pa.float32())
        nested = any(
            isinstance(of, list) and (not of or of[0] is None or isinstance(of[0], list)) for of in self.logits
        )
        for name, values in self._answers().items():
            columns[name] = pa.array(values, type=pa.list_(numbers) if nested else numbers)
        if self.temperature is not None:
            columns[TEMPERATURE] = pa.array([self.temperature] * len(self.table), type=pa.float64())
        metadata = dict(self.about)
        if self.names:
            metadata[LABEL_NAMES] = json.dumps(list(self.names))
        if known := {name: list(of) for name, of in self.table.class_names.items() if name in self.table.columns}:
            metadata[CLASS_NAMES] = json.dumps(known)
        written = pa.table(columns).replace_schema_metadata(metadata)
        with open_output(path, binary=True) as file:
            pq.write_table(written, file)

    def _write_json_lines(self, path: str) -> None:
        """Write an object a line; where outputs have names, an answer is an object {label: number}."""
        with open_output(path) as file:
            for row, record in enumerate(self.table):
                for name, values in self._answers().items():
                    record[name] = self._named(values[row])
                record |= {} if self.temperature is None else {TEMPERATURE: self.temperature}
                file.write(json_text(record, ensure_ascii=False) + "\n")

    def _named(self, value: Any) -> Any:
        if not self.names or value is None:
            return value
        if value and (value[0] is None or isinstance(value[0], list)):
            return [self._named(word) for word in value]
        return dict(zip(self.names, value, strict=True)) if value else value

    def _write_npy(self, path: str) -> None:
        array = np.asarray(self.logits, dtype=np.float32)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
        with open_output(path, binary=True) as file:  # a pipe perhaps, into which NumPy does not write arrays
            file.write(header.getbuffer())
            file.write(np.ascontiguousarray(array).data.cast("B"))


def ending_of(path: str) -> str:
    """Return the ending of an output's name. Raises ValueError for one that is not among `ENDINGS`."""
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"--output is {path!r}; expected a name that ends in {', '.join(ENDINGS)}")
    return ending


def check_has_no_answers(table: Table) -> None:
    """Raise ValueError for rows that have answers of a teacher already."""
    column = teacher_column_of(table)
    if column is not None:
        raise ValueError(
            f"{table.source} has answers of a teacher already ({column.name}); leave these columns out, or train on "
            "them: kdistill distill without --teacher"
        )
