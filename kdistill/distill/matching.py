"""`Matching`: the losses of a run on what lies inside teacher and student, as its argument `matches` names them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..data.batch import Batch
from ..models.configuration import Config
from ..models.head_names import ENCODER, SEQUENCE
from ..models.model import Tap
from ..system.files import json_text
from ..system.names import listing
from ..system.threads import get_num_threads
from ..train.arguments import DistillationTrainingArguments
from ..train.auxiliary import Auxiliary
from ..train.layer_maps import LayerPairs, mapped_layers
from ..train.matches import Match, Stage
from ..train.objective import NO_TAP_LOSS, Inside, LossPart, RunLength, TapLoss
from ..train.plan import RowIndices
from ..train.stages import rows_of, stage_ends, stages_of
from .sources import Teachers
from .teachers import Teacher

LEAST_OF_A_RELATION_HEAD = 8
"""Numbers of a relation head in the narrower model, by default: MiniLMv2's 48 heads of 384."""
_RELATED = ("query", "key", "value")
AskTeacher = Callable[[Batch, Sequence[Tap], RowIndices], Inside]
"""(batch, taps, its rows' places in the training data) -> what lies there inside the teacher."""


class _Pair(NamedTuple):
    """A match of one layer of each model.

    Attributes:
        name: what its loss is logged as.
        match: whose pair it is.
        teacher, student: what it reads of them, in the same order.
        heads: of scores or relations; 0 of rows.
        projection: the name of its projection, "" without one.
    """

    name: str
    match: Match
    teacher: tuple[Tap, ...]
    student: tuple[Tap, ...]
    heads: int
    projection: str

    def units(self, lengths: NDArray[np.int64]) -> int:
        """Return how many of what it averages over sequences of such lengths have."""
        if self.match.kind == "cls":
            return len(lengths)
        if self.match.kind in ("attention", "relation") and self.match.loss == "mse":
            return int(np.square(lengths).sum())
        return int(lengths.sum())


class _Found(NamedTuple):
    """The mean loss of a pair on a batch, its gradient by each of the student's taps, and by the projection."""

    loss: float
    dtaps: list[NDArray[np.float32]]
    dprojection: NDArray[np.float32] | None


class Matching:
    """The losses of one run on taps. An `InnerLoss`.

    Each pair's loss is a mean over what its `Match` states, and a micro-batch counts by its share of that.

    Args:
        args: with `matches`.
        teacher: the teacher's config.
        student: the student's.
        length: of the run.
        ask: asks the teacher.

    Attributes:
        auxiliary: the projections; None where none is needed.
        taps: of the student, in the present step.
        prediction_weight: of the loss of the predictions, in the present step.
        teacher_taps: of the teacher, in the present step.

    Raises:
        ValueError: layers, heads or widths do not fit the models, or stages the run; names match and argument.
    """

    def __init__(
        self,
        args: DistillationTrainingArguments,
        teacher: Config,
        student: Config,
        length: RunLength,
        ask: AskTeacher,
    ) -> None:
        stages = stages_of(args.matches)
        self._pairs = pairs_of(stages, teacher, student)
        self._weights = [stage.prediction_weight for stage in stages]
        self._ends = stage_ends(stages, *length)
        self._ask = ask
        self.auxiliary = _projections([pair for pairs in self._pairs for pair in pairs], teacher, student, args)
        self._enter(0)
        self._units: list[int] = []

    def _enter(self, stage: int) -> None:
        self._present = self._pairs[stage]
        self.prediction_weight = self._weights[stage]
        self.taps = _all_taps(pair.student for pair in self._present)
        self.teacher_taps = _all_taps(pair.teacher for pair in self._present)

    def begin_step(self, step: int, lengths: NDArray[np.int64]) -> None:
        """Set the attributes for a step, counted from 0, on rows of so many tokens."""
        self._enter(next(stage for stage, end in enumerate(self._ends) if step < end))
        self._units = [pair.units(lengths) for pair in self._present]

    def __call__(
        self, batch: Batch, taps: Inside, rows: RowIndices | None = None, *, theirs: Inside | None = None
    ) -> TapLoss:
        """Return the loss of a micro-batch of the step, and add its gradient to that of the projections.

        Args:
            batch: the micro-batch.
            taps: what lies inside the student.
            rows: the places of its rows in the training data; without `theirs`.
            theirs: what lies inside the teacher, at `teacher_taps`; default: it is asked.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        if not self._present:
            return NO_TAP_LOSS
        if theirs is None:
            assert rows is not None
            theirs = self._ask(batch, self.teacher_taps, rows)
        lengths, total, parts = np.diff(batch.starts), 0.0, []
        gradients: dict[Tap, NDArray[np.float32]] = {}
        for pair, of_step in zip(self._present, self._units, strict=True):
            found = self._loss_of(pair, batch, taps, theirs)
            units = pair.units(lengths)
            scale = pair.match.weight * units / of_step
            for tap, gradient in zip(pair.student, found.dtaps, strict=True):
                gradient *= np.float32(scale)
                if tap in gradients:
                    gradients[tap] += gradient
                else:
                    gradients[tap] = gradient
            if found.dprojection is not None:
                assert self.auxiliary is not None
                self.auxiliary.gradients[pair.projection] += found.dprojection * np.float32(scale)
            total += scale * found.loss
            parts.append(LossPart(pair.name, found.loss, units))
        return TapLoss(total, gradients, parts)

    def _loss_of(self, pair: _Pair, batch: Batch, ours: Inside, theirs: Inside) -> _Found:
        loss, starts, threads = pair.match.loss or "", batch.starts, get_num_threads()
        s, t = [ours[tap] for tap in pair.student], [theirs[tap] for tap in pair.teacher]
        if pair.match.kind == "attention":
            value, gradient = _core.match_attention(loss, s[0], t[0], starts, pair.heads, threads)
            return _Found(value, [gradient], None)
        if pair.match.kind == "relation":
            found = [_core.match_relation(loss, x, y, starts, pair.heads, threads) for x, y in zip(s, t, strict=True)]
            count = len(found)
            return _Found(sum(of for of, _ in found) / count, [of / np.float32(count) for _, of in found], None)
        weights = None
        if pair.projection:
            assert self.auxiliary is not None
            weights = self.auxiliary.parameters[pair.projection]
        first = starts[:-1] if pair.match.kind == "cls" else slice(None)
        value, gradient, dweights = _core.match_rows(loss, s[0][first], t[0][first], weights, threads)
        if pair.match.kind == "cls":
            whole = np.zeros_like(s[0])
            whole[first] = gradient
            gradient = whole
        return _Found(value, [gradient], dweights)


def pairs_of(stages: Sequence[Stage], teacher: Config, student: Config) -> list[list[_Pair]]:
    """Return the pairs of layers that the matches of each stage stand for.

    Raises:
        ValueError: layers, heads or widths do not fit the models.
    """
    pairs = []
    for number, stage in enumerate(stages, 1):
        of = f" of the stage {stage.name!r}" if stage.name else f" of stage {number}" if len(stages) > 1 else ""
        pairs.append(_pairs_of_stage(stage, of, teacher, student))
    return pairs


def _pairs_of_stage(stage: Stage, of: str, teacher: Config, student: Config) -> list[_Pair]:
    """Return the pairs of a stage's matches, see `pairs_of`; `of` names the stage in errors."""
    pairs: list[_Pair] = []
    for place, match in enumerate(stage.matches):
        try:
            pairs += _pairs_of_match(match, teacher, student)
        except ValueError as error:
            raise ValueError(f"matches[{place}]{of} ({match.kind}): {error}") from error
    names = [pair.name for pair in pairs]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"matches{of} give {listing(twice)} more than once: the same kind and loss of the same layers; expected "
            "each once, with the sum of the weights"
        )
    return pairs


def teacher_taps(args: DistillationTrainingArguments, teacher: Config, student: Config) -> list[tuple[Tap, ...]]:
    """Return what the stages of a run read inside the teacher, each choice of taps once."""
    stages = pairs_of(stages_of(args.matches), teacher, student)
    return list(dict.fromkeys(taps for pairs in stages if (taps := _all_taps(pair.teacher for pair in pairs))))


def check_matches(args: DistillationTrainingArguments, teachers: Teachers, student: Config) -> None:
    """Raise ValueError for matches that do not fit the models, see `matched_teacher` and `pairs_of`."""
    if stages := stages_of(args.matches):
        pairs_of(stages, matched_teacher(teachers, args, student).model.config, student)


def matched_teacher(teachers: Teachers, args: DistillationTrainingArguments, student: Config) -> Teacher:
    """Return the teacher whose inside is matched.

    Raises:
        ValueError: there are several, it is no model, or it reads other tokens than the student and matches compare
            more than the first one of each row.
    """
    if len(teachers) > 1 or not teachers.models:
        found = (
            f"{len(teachers)} teachers" if len(teachers) > 1 else f"the teacher {teachers.name!r}, which is no model"
        )
        raise ValueError(
            f"matches are given with {found}; expected one model of kdistill, whose hidden states and attention they "
            "read: leave matches (--matches) out, or name one teacher"
        )
    teacher = teachers.models[0]
    first_alone = all(match.kind == "cls" for stage in stages_of(args.matches) for match in stage.matches)
    if teacher.reads_itself and not (first_alone and student.head in (SEQUENCE, ENCODER)):
        raise ValueError(
            "matches are given with a teacher whose tokenizer gives texts other tokens than the student's; expected "
            "one tokenizer for both, as matches compare them token by token, or of models for whole texts matches of "
            "the kind 'cls' alone: leave matches (--matches) out, or take a student with the teacher's tokenizer"
        )
    return teacher


def _pairs_of_match(match: Match, teacher: Config, student: Config) -> list[_Pair]:
    projection = ""
    if match.kind in ("hidden", "embedding", "cls") and teacher.hidden_size != student.hidden_size:
        projection = json_text(rows_of([match]))
    of_loss = "" if match.loss == Match(match.kind).loss else f"_{match.loss}".replace("-", "_")
    if match.kind == "embedding":
        tap = (("hidden", 0),)
        return [_Pair(f"match_embedding{of_loss}_loss", match, tap, tap, 0, projection)]
    return [
        _Pair(
            f"match_{match.kind}{of_loss}_{theirs}_{ours}_loss",
            match,
            _taps(match.kind, theirs),
            _taps(match.kind, ours),
            _heads(match, _shape_of_attention(teacher, theirs), _shape_of_attention(student, ours)),
            projection,
        )
        for theirs, ours in _layer_pairs(match, teacher.num_hidden_layers, student.num_hidden_layers)
    ]


def _taps(kind: str, layer: int) -> tuple[Tap, ...]:
    """Return what a match of this kind reads of a layer."""
    if kind == "relation":
        return tuple((of, layer) for of in _RELATED)
    return (("scores", layer) if kind == "attention" else ("hidden", layer + 1),)


def _layer_pairs(match: Match, teacher: int, student: int) -> LayerPairs:
    """Return (teacher's layer, student's layer) from 0 of each pair of a match."""
    theirs, ours = match.teacher_layer, match.student_layer
    chosen = None if ours is None else _places("student_layer", ours, student, "student")
    if theirs is None or isinstance(theirs, str):
        pairs = mapped_layers(theirs or "uniform", teacher, student)
        known = {of_student: of_teacher for of_teacher, of_student in pairs}
        missing = [layer for layer in chosen or () if layer not in known]
        if missing:
            raise ValueError(f"student_layer is {missing[0]}, which the layer map {theirs!r} leaves out")
        return pairs if chosen is None else [(known[layer], layer) for layer in chosen]
    layers = _places("teacher_layer", theirs, teacher, "teacher")
    chosen = list(range(student)) if chosen is None else chosen
    if len(layers) != len(chosen):
        raise ValueError(
            f"teacher_layer names {len(layers)} layers, and the student has {student}; expected one for each, or "
            "student_layer with those that are meant"
        )
    return list(zip(layers, chosen, strict=True))


def _places(name: str, layers: int | Sequence[int], count: int, whose: str) -> list[int]:
    """Return layers from 0. Raises ValueError for one that the model has not."""
    several = (layers,) if isinstance(layers, int) else layers
    for layer in several:
        if not -count <= layer < count:
            raise ValueError(f"{name} is {layer}; expected {-count} to {count - 1}, as the {whose} has {count} layers")
    return [layer % count for layer in several]


def _shape_of_attention(config: Config, layer: int) -> tuple[int, int]:
    """Return how many heads a layer has, and how many numbers its queries have for a token."""
    heads = config.layer_shapes()[layer].heads
    return heads, heads * config.head_width


def _heads(match: Match, teacher: tuple[int, int], student: tuple[int, int]) -> int:
    """Return how many heads a match of two layers compares, given `_shape_of_attention` of both; 0 of rows."""
    if match.kind == "attention":
        return _equal_heads(teacher[0], student[0])
    return _relation_heads(match.heads, teacher[1], student[1]) if match.kind == "relation" else 0


def _equal_heads(theirs: int, ours: int) -> int:
    if theirs != ours:
        raise ValueError(
            f"the teacher has {theirs} attention heads and the student {ours}; expected equally many, as in a shape "
            f"that ends in -A{theirs}, or kind 'relation' in its place, which compares any numbers of heads"
        )
    return theirs


def _relation_heads(heads: int | None, teacher: int, student: int) -> int:
    """Return how many relation heads both widths are cut into."""
    common = math.gcd(teacher, student)
    possible = [count for count in range(1, common + 1) if common % count == 0]
    if heads is None:
        return max(
            count for count in possible if min(teacher, student) // count >= LEAST_OF_A_RELATION_HEAD or count == 1
        )
    if heads not in possible:
        raise ValueError(
            f"heads is {heads}, and the teacher is {teacher} and the student {student} wide; expected a number that "
            f"divides both: {listing(map(str, possible))}"
        )
    return heads


def _projections(
    pairs: Sequence[_Pair], teacher: Config, student: Config, args: DistillationTrainingArguments
) -> Auxiliary | None:
    """Return the projections of these pairs, drawn N(0, 1 / student's width): they keep the scale of normed states."""
    names = list(dict.fromkeys(pair.projection for pair in pairs if pair.projection))
    if not names:
        if args.match_learning_rate is not None:
            warnings.warn(
                "match_learning_rate has no effect here: no match needs a projection, as widths are equal or none of "
                "rows is matched",
                stacklevel=5,
            )
        return None
    shape = teacher.hidden_size, student.hidden_size
    matrices: Mapping[str, NDArray[np.float32]] = {
        name: (
            np.random.Generator(np.random.Philox([args.seed, place])).standard_normal(shape) / math.sqrt(shape[1])
        ).astype(np.float32)
        for place, name in enumerate(names)
    }
    rate = 1.0
    if args.match_learning_rate is not None and args.learning_rate:
        rate = args.match_learning_rate / args.learning_rate
    return Auxiliary(matrices, rate)


def _all_taps(of_pairs: Iterable[tuple[Tap, ...]]) -> tuple[Tap, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(of_pairs)))
