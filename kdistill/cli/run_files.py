"""`RunFiles`: the rows and the output directory of a distillation, as its options name them."""

from __future__ import annotations

from argparse import Namespace

from ..data.columns import NO_COLUMNS, Rows, read_rows
from ..train.arguments import DistillationTrainingArguments
from .inputs import check_output_dir, columns_of, rows_file
from .teachers import inputs_of


class RunFiles:
    """What the options of a distillation name beside its models, whoever teaches."""

    def __init__(self, options: Namespace, args: DistillationTrainingArguments) -> None:
        self._options, self._args = options, args

    @property
    def paths(self) -> dict[str, str]:
        """The files of rows, by "train" and "eval"."""
        files = {"train": self._options.train, "eval": self._options.eval}
        return {which: path for which, path in files.items() if path is not None}

    def read(self, which: str) -> Rows:
        """Return the rows of "train" or "eval" as they are in the file."""
        columns = columns_of(self._options)
        return read_rows(rows_file(self.paths[which], self._options), **columns, trained_on=NO_COLUMNS)

    def check_output_dir(self) -> None:
        """Raise what the run would for its output directory, without creating it."""
        check_output_dir(self._args, self._options, sources=inputs_of(self._options))
