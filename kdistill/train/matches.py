"""`Match` and `Stage`: losses on what lies inside teacher and student, as the argument `matches` names them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, TypeVar

from ..system.names import did_you_mean, listing
from .layer_maps import LAYER_MAPS

_OF_ROWS = ("mse", "cosine", "normalized-mse")
LOSSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hidden": _OF_ROWS,
        "embedding": _OF_ROWS,
        "attention": ("mse", "kl"),
        "relation": ("kl", "mse"),
        "cls": ("normalized-mse", "mse", "cosine"),
    }
)
"""Kind of a match -> the losses that it can have, the default first."""
Layer = int | str | tuple[int, ...] | None


@dataclass(frozen=True)
class Match:
    """A loss between what lies inside the teacher and inside the student, which both read the same tokens.

    It is added to the loss of the predictions, times `weight`. s and t are the student's and the teacher's arrays, and
    no padding enters any of them. Of several layers the losses are added.

    - `"hidden"`: the output of a layer, a row for each token (Jiao et al., TinyBERT, arXiv:1909.10351, equation 8).
    - `"embedding"`: the same of what the first layer reads (TinyBERT, equation 9). It has no layers.
    - `"cls"`: the same of the first token of each sequence alone (Sun et al., PKD, arXiv:1908.09355, equation 7).
    - `"attention"`: of a layer, the scores Q K^T / sqrt(D) that its softmax reads (TinyBERT, equation 7, before the
      softmax), or with `"kl"` the distributions after it (Wang et al., MiniLM,
      arXiv:2002.10957). Teacher and student need equally many heads.
    - `"relation"`: of a layer, softmax(X X^T / sqrt(d)) of relation heads, or with `"mse"` what it reads; queries, keys
      and values X are cut into heads anew, so that any widths and heads go together (Wang et al., MiniLMv2,
      arXiv:2012.15828): the mean of the three losses.

    Losses:

    - `"mse"`: of rows the mean of (s - t)^2 over all tokens (of `cls`: sequences) and all of the teacher's numbers; of
      scores the mean over all heads and pairs of tokens of a sequence.
    - `"cosine"`: the mean over the rows of 1 - cos(s, t), as DistilBERT's code has of last hidden states
      (arXiv:1910.01108).
    - `"normalized-mse"`: the mean over the rows of |s / |s| - t / |t||^2 (PKD).
    - `"kl"`: the mean over heads and query positions of KL(teacher's distribution || student's).

    Where widths of rows differ, a projection W of (teacher's width, student's width) is trained with the student:
    s is then s W^T. The layers of one match share it, as in TinyBERT. It is no part of what is saved.

    Args:
        kind: "hidden", "embedding", "cls", "attention" or "relation".
        teacher_layer: counted from 0, -1 the last; several as a sequence, as many as student layers; or the name of a
            map that gives one to each layer of the student (M layers of the teacher, N of the student): "uniform",
            (i + 1) * M // N - 1 for layer i; "skip", the same without the student's last layer; "last", M - N + i, also
            without it. Default: "uniform".
        student_layer: likewise, without maps. Default: all that the map has.
        weight: of the loss, above 0.
        loss: see above; default "mse" of hidden states, embeddings and scores, "normalized-mse" of `cls`, "kl" of
            relations.
        heads: of relations, how many relation heads; must divide the widths of both models. Default: the most with at
            least 8 numbers for each in the narrower one, which is the paper's 48 for widths of 768 and 384.

    Raises:
        ValueError: a value is not one of those; names argument, value and what is expected.
        TypeError: it has another type.
    """

    kind: str
    teacher_layer: int | str | Sequence[int] | None = None
    student_layer: int | Sequence[int] | None = None
    weight: float = 1.0
    loss: str | None = None
    heads: int | None = None

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, LOSSES)
        losses = LOSSES[self.kind]
        settled = {
            "loss": losses[0] if self.loss is None else self.loss,
            "teacher_layer": _layers("teacher_layer", self.teacher_layer),
            "student_layer": _layers("student_layer", self.student_layer),
            "weight": _number("weight", self.weight, above=0),
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        _check_choice("loss", self.loss, losses, f" of the kind {self.kind!r}")
        if self.heads is not None:
            if self.kind != "relation":
                raise ValueError(
                    f"heads is {self.heads!r} for the kind {self.kind!r}; expected None: only relations are cut into "
                    "heads anew"
                )
            if not _is_whole(self.heads) or self.heads < 1:
                raise ValueError(f"heads is {self.heads!r}; expected a whole number >= 1")
        self._check_layers()

    def __repr__(self) -> str:
        return _text(self)

    def _check_layers(self) -> None:
        teacher, student = self.teacher_layer, self.student_layer
        if self.kind == "embedding" and (teacher is not None or student is not None):
            name, value = ("teacher_layer", teacher) if teacher is not None else ("student_layer", student)
            raise ValueError(f"{name} is {value!r} for the kind 'embedding'; expected None: embeddings have no layer")
        if isinstance(student, str):
            raise ValueError(
                f"student_layer is {student!r}; expected a whole number, several, or None: teacher_layer takes the map"
            )
        if isinstance(teacher, int) and not isinstance(student, int):
            raise ValueError(
                f"teacher_layer is {teacher} and student_layer {student!r}; expected one layer for both, such as -1"
            )
        if isinstance(teacher, tuple) and isinstance(student, int):
            raise ValueError(
                f"teacher_layer is {teacher} and student_layer {student}; expected as many layers for both"
            )
        if isinstance(teacher, tuple) and isinstance(student, tuple) and len(teacher) != len(student):
            raise ValueError(
                f"teacher_layer names {len(teacher)} layers and student_layer {len(student)}; expected equally many"
            )


@dataclass(frozen=True)
class Stage:
    """A part of a run with the same losses.

    Args:
        matches: the losses beside that of the predictions; none are a stage that learns these alone.
        name: what it is called.
        share: of the run's steps, above 0 and at most 1.
        epochs: how long it is instead; of one stage neither may be given: it has the steps that are left.
        prediction_weight: what the loss of the predictions is multiplied by, >= 0; with 0 it does not count.
        alpha: in place of the argument `alpha`, 0 to 1; default: that. Not with a `prediction_weight` of 0.

    Raises:
        ValueError, TypeError: a value is not one of those.
    """

    matches: Sequence[Match] = ()
    name: str = ""
    share: float | None = None
    epochs: float | None = None
    prediction_weight: float = 1.0
    alpha: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "matches", _of_kind("matches", self.matches, Match))
        if not isinstance(self.name, str):
            raise TypeError(f"name is {self.name!r}; expected text")
        if self.share is not None and self.epochs is not None:
            raise ValueError(f"share is {self.share} and epochs {self.epochs}; expected one of the two, or none")
        if self.share is not None:
            _number("share", self.share, above=0, at_most=1)
        if self.epochs is not None:
            _number("epochs", self.epochs, above=0)
        if self.alpha is not None:
            _number("alpha", self.alpha, at_least=0, at_most=1)
        _number("prediction_weight", self.prediction_weight, at_least=0)
        if self.alpha is not None and not self.prediction_weight:
            raise ValueError(
                f"alpha is {self.alpha} and prediction_weight 0; expected no alpha, for the loss of the predictions "
                "does not count"
            )
        if not self.matches and not self.prediction_weight:
            raise ValueError("prediction_weight is 0 and there are no matches; expected a loss to train on")
        if len(set(self.matches)) < len(self.matches):
            twice = next(match for match in self.matches if self.matches.count(match) > 1)
            raise ValueError(f"matches has {twice} twice; expected it once, with the sum of the weights")

    def __repr__(self) -> str:
        return _text(self)


Row = TypeVar("Row", Match, Stage)


def made(kind: type[Row], where: str, row: Any) -> Row:
    """Return a Match or Stage from one, or from a mapping of its arguments; `where` begins a message."""
    if isinstance(row, kind):
        return row
    if not isinstance(row, Mapping):
        raise TypeError(f"{where} is {row!r}; expected a {kind.__name__}")
    known = [field.name for field in fields(kind)]
    for key in row:
        if key not in known:
            raise ValueError(f"{where} has no key {key!r}; expected {listing(known)}{did_you_mean(str(key), known)}")
    values = dict(row)
    if kind is Match and "kind" not in values:
        raise ValueError(f"{where} has no kind; expected one of {listing(map(repr, LOSSES))}")
    if kind is Stage and "matches" in values:
        matches = values["matches"]
        if not isinstance(matches, Iterable) or isinstance(matches, str | Mapping):
            raise TypeError(f"{where}.matches is {matches!r}; expected a list of matches")
        values["matches"] = [made(Match, f"{where}.matches[{place}]", of) for place, of in enumerate(matches)]
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{where}: {error}") from error


def _text(row: Match | Stage) -> str:
    """Return the row as Python makes it, without what has its default: a model card lists the matches of a run."""
    values = ((field, getattr(row, field.name)) for field in fields(row))
    given = ", ".join(f"{field.name}={value!r}" for field, value in values if value != field.default)
    return f"{type(row).__name__}({given})"


def _of_kind(name: str, rows: Any, kind: type[Match]) -> tuple[Match, ...]:
    if not isinstance(rows, Iterable) or isinstance(rows, str | Mapping):
        raise TypeError(f"{name} is {rows!r}; expected a list of {kind.__name__}")
    return tuple(made(kind, f"{name}[{place}]", row) for place, row in enumerate(rows))


def _check_choice(name: str, value: Any, choices: Iterable[str], of: str = "") -> None:
    choices = list(choices)
    if value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise ValueError(f"{name} is {value!r}; expected one of {listing(map(repr, choices))}{of}{hint}")


def _layers(name: str, value: Any) -> Layer:
    """Return a layer, several as a tuple, or the name of a map."""
    if value is None or isinstance(value, str):
        if isinstance(value, str) and name == "teacher_layer":
            _check_choice(name, value, LAYER_MAPS)
        return value
    if _is_whole(value):
        return int(value)
    if isinstance(value, Iterable) and not isinstance(value, Mapping | bytes):
        several = list(value)
        if several and all(map(_is_whole, several)):
            return tuple(map(int, several))
    raise TypeError(f"{name} is {value!r}; expected a whole number, several, or None")


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _number(
    name: str, value: Any, *, above: float | None = None, at_least: float | None = None, at_most: float | None = None
) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected a number")
    limits = {">": above, ">=": at_least, "<=": at_most}
    bounds = " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items() if limit is not None)
    number = float(value)
    inside = (
        math.isfinite(number)
        and (above is None or number > above)
        and (at_least is None or number >= at_least)
        and (at_most is None or number <= at_most)
    )
    if not inside:
        raise ValueError(f"{name} is {value!r}; expected a finite number {bounds}")
    return number
