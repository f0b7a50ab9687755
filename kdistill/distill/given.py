"""`Given`: a teacher whose answers came with the rows, so that nobody computes them here."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset
from ..data.labels import NO_LABEL
from ..data.ragged import Outputs, outputs_of
from ..data.teacher_columns import LOGITS, PROBABILITIES
from ..data.teacher_rows import BY_PLACE, Match, TaughtRows, TeacherSource
from ..models.configuration import Config
from ..models.model import Model
from ..system.progress import Progress
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.encoding import refuse_other_answers
from ..train.evaluation_sets import is_dict_of_sets
from .projection import principal_directions, projected


class Given:
    """The answers of a teacher that were computed elsewhere: columns of the rows, a file, or an array. A `Source`.

    Rows that it has no answer for learn from their labels alone, or from other teachers.

    Attributes:
        name: what a model card calls it.
        source: the answers; None where they are in columns of the rows.
        metrics: on the evaluation rows, as far as these have answers.
        match: how they were found for the training rows.
    """

    def __init__(self, source: TeacherSource | None = None, name: str | None = None) -> None:
        self.source = source
        self.name = name or ("the teacher" if source is None else Path(source.name).name)
        self.metrics: dict[str, Any] = {}
        self.match: Match | None = None
        self._student: Config | None = None
        self._digest = ""
        self._directions: NDArray[np.float64] | None = None

    def beside(self, rows: Any, *, training: bool = False) -> TaughtRows:
        """Return rows in any form, to be encoded with the answers for them."""
        return TaughtRows(rows, self.source, training, self._take if training else lambda match: None)

    def beside_each(self, train: Any, evaluation: Any) -> tuple[Any, Any]:
        """Return training rows and evaluation rows, or several sets of these by name, likewise; None stays None."""
        if train is not None:
            train = self.beside(train, training=True)
        if is_dict_of_sets(evaluation):
            return train, {name: self.beside(rows) for name, rows in evaluation.items()}
        return train, None if evaluation is None else self.beside(evaluation)

    def _take(self, match: Match) -> None:
        self.match = match

    def needs_texts(self, student: Config, reader: PreTrainedTokenizerFast | None) -> bool:
        """Return False: the answers are there."""
        return False

    def check_student(self, student: Model, reader: PreTrainedTokenizerFast | None) -> None:
        """Raise ValueError for a student whose teacher's answers no column holds."""
        refuse_other_answers(student.config)
        self._student = student.config

    def learn(self, rows: Dataset, args: DistillationTrainingArguments, *, alone: bool) -> None:
        """Take the answers for the training rows; print how they were found, and warn of rows without any.

        Args:
            rows: the training rows.
            args: whether to print (`disable_tqdm`).
            alone: whether nobody else teaches.

        Raises:
            ValueError: no row has an answer, or with `alone` a row has neither label nor answer; or there are more or
                fewer numbers than outputs of the student, but that embeddings may be wider.
        """
        assert self._student is not None
        logits = rows.teacher_logits
        if logits is None or np.isnan(logits).all():
            raise ValueError(
                f"the training rows have no answers of a teacher: no column {LOGITS!r} or {PROBABILITIES!r} with any; "
                "expected one, or a file or array of answers (--teacher-logits, in Python teacher_logits=), or a "
                "teacher (--teacher, teacher_model=)"
            )
        found, expected = logits.shape[1], self._student.num_outputs
        if found != expected and not (self._student.embeds and found > expected):
            raise ValueError(
                f"the teacher's answers have {found} numbers and the student's {expected}; expected as many"
                + (" or more, as the student embeds texts: --task names another" if self._student.embeds else "")
            )
        if found > expected:
            self._directions = principal_directions(logits[~np.isnan(logits).any(axis=1)], expected)
        self._digest = hashlib.sha256(np.ascontiguousarray(logits).data).hexdigest()
        self._tell(args)
        self._check_temperature(args)
        lacking, labelled = (
            _lacking(rows),
            np.zeros(len(rows), np.bool_) if self._student.embeds else rows.have_labels(),
        )
        without = np.flatnonzero(lacking & ~labelled)
        if alone and len(without):
            what = "no answer" if self._student.embeds else "neither a label nor an answer"
            raise ValueError(
                f"{len(without):,} of {len(rows):,} training rows have {what} of the teacher, the first is row "
                f"{without[0]}; expected something to learn from each: leave these rows out"
            )
        if lacking.any():
            on_these = "on these the student learns from the labels only" if alone else "the others answer for them"
            warnings.warn(
                f"{int(lacking.sum()):,} of {len(rows):,} training rows have no answer of {self.name}; {on_these}",
                stacklevel=4,
            )

    def _check_temperature(self, args: DistillationTrainingArguments) -> None:
        """Warn where answers were averaged at another temperature than that of the loss.

        t = T log sum_k w_k softmax(z_k / T) has the mean of the teachers' probabilities at T, and at no other.
        """
        averaged = None if self.match is None else self.match.temperature
        if averaged is None or (args.temperature == averaged and args.temperature_schedule == "constant"):
            return
        now = f"temperature is {args.temperature:g}" + (
            "" if args.temperature_schedule == "constant" else " in the first step alone"
        )
        warnings.warn(
            f"several teachers were averaged at temperature {averaged:g} ({self.name}), and {now}, where they have "
            f"another average; expected temperature {averaged:g} (--temperature), or answers that kdistill label has "
            "written with --temperature as it is here",
            stacklevel=5,
        )

    def _tell(self, args: DistillationTrainingArguments) -> None:
        """Print how the answers of a file were found for the rows."""
        if self.source is not None and self.source.sha256 is not None:
            Progress("teacher", unit="rows", quiet=args.disable_tqdm).write(f"{self.name}: {self.sentence()}")

    def sentence(self) -> str:
        """Return how the answers were found for the training rows, and for how many, without a full stop."""
        if self.match is None:
            return "the training rows have the answers"
        match = self.match
        text = f"answers for {match.covered:,} of {match.rows:,} training rows, found by {match.how}"
        if match.how == BY_PLACE:
            text += " as there are neither ids nor texts that would tell whose they are"
        if match.unused:
            text += f"; {match.unused:,} more are for none of them"
        return text

    def outputs(self, rows: Dataset, args: DistillationTrainingArguments, *, what: str) -> Outputs:
        """Return the answers that came with the rows, float32 (rows, num_outputs), NaN where there are none.

        Of a student that answers for each token they are a `Ragged` of float32 (tokens, num_outputs).
        """
        assert self._student is not None
        units, width = len(rows.ids) if rows.per_token else len(rows), self._student.num_outputs
        values = rows.teacher_logits
        if values is None:
            values = np.full((units, width), np.nan, np.float32)
        elif self._directions is not None:
            pooling = self._student.pooling
            values = projected(values, self._directions, unit=pooling is not None and pooling.normalize)
        return outputs_of(values, rows.starts, rows.per_token)

    def fingerprint(self) -> str:
        """Return a hash of the answers for the training rows."""
        return self._digest

    def figures(self) -> dict[str, Any]:
        """Return what a report tells of them: the file's sha256, how answers were found and for how many rows."""
        found: dict[str, Any] = {}
        if self.source is not None and self.source.sha256 is not None:
            found["sha256"] = self.source.sha256
        if self.match is not None:
            found |= {"rows": self.match.rows, "rows_covered": self.match.covered, "matched_by": self.match.how}
        return found


def _lacking(rows: Dataset) -> NDArray[np.bool_]:
    """Return which rows have no answer, bool (rows,): of tokens, none for any that takes part."""
    assert rows.teacher_logits is not None
    there = ~np.isnan(rows.teacher_logits).any(axis=1)
    if not rows.per_token:
        return np.asarray(~there)
    taught = rows.labels != NO_LABEL
    counts = [np.add.reduceat(of.astype(np.int64), rows.starts[:-1]) for of in (taught, taught & there)]
    return np.asarray((counts[0] > 0) & (counts[1] == 0))
