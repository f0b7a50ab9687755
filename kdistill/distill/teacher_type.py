"""The compute type of a teacher: chosen by a check against float32, and what a run remembers of the choice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from .. import _core
from ..data.dataset import Dataset
from ..data.ragged import units
from ..metrics.prediction import Logits
from ..models.model import Model
from ..system.compute import compute_type
from ..system.cpu import cpu_vendor
from ..system.progress import Progress
from ..tasks.base import Task
from .cache import cached_rows, teacher_logits

AUTO = "auto"
"""The type that is chosen by a check."""
FASTER = (
    ("int8", "amx"),
    ("int8", "avx512_vnni"),
    ("int8", "avx_vnni"),
    ("bfloat16", "amx"),
    ("bfloat16", "avx512_bf16"),
)
"""Compute types and instruction sets that answer faster than float32, the fastest type first.

Rows a second of a 6-layer teacher (hidden 384), 128 rows of SST-2, 2 threads of an Intel Xeon with AMX: float32 412,
int8 1,730 (AMX), 1,231 (AVX512-VNNI), bfloat16 1,236 (AMX); with AVX2 alone float32 224 and int8 544 (AVX-VNNI). int8
on plain AVX2 (184 to 236) is hardly faster than float32 or slower, and left out. On an AMD EPYC (Zen 4), 6,000 rows:
float32 809, int8 2,560 (AVX512-VNNI), bfloat16 1,528 (AVX512-BF16). The order is fixed: a choice by the clock would let
two equal runs end with different bits.
"""
SLOWER_ON_INTEL = ("bfloat16", "avx512_bf16")
"""A row of `FASTER` that does not hold on Intel's CPUs: the Xeon above does 288 rows a second so."""
CHECKED_ROWS, LEAST_CHECKED_ROWS = 512, 64
CHECKED_SHARE = 8
"""A check reads so many rows at most, an eighth of them if there are fewer; below the least number it is not made.

So it costs at most an eighth of what float32 would take for all rows, and 0.8 % with 67,349 rows.
"""
LEAST_AGREEMENT, MOST_DIVERGENCE = 0.99, 1e-3
_COMPARED = {
    "labels": ("agrees with float32 on {0:.4f}", "mean KL"),
    "numbers": ("correlates {0:.4f} with float32", "mean KL"),
    "embeddings": ("has a cosine of at least {0:.4f} with float32", "1 - mean cosine"),
}
"""What is compared -> words for agreement and divergence."""


class TypeCheck(NamedTuple):
    """A compute type compared with float32: see `Task.agreement` and `Task.divergence`."""

    dtype: str
    agreement: float
    divergence: float

    @property
    def passed(self) -> bool:
        """Whether the type may take the place of float32."""
        return self.agreement >= LEAST_AGREEMENT and self.divergence <= MOST_DIVERGENCE


@dataclass(frozen=True)
class TypeChoice:
    """The compute type of a teacher, and the checks that led to it.

    Attributes:
        dtype: the type.
        rows: how many rows were checked; 0 without a check.
        answers: what was compared, one of `_COMPARED`.
        checks: of the types that were tried, in this order; the last one passed, or none did.
    """

    dtype: str
    rows: int = 0
    answers: str = "labels"
    checks: tuple[TypeCheck, ...] = ()

    @classmethod
    def of(cls, settled: Mapping[str, Any]) -> Self | None:
        """Return the choice that `settled` wrote down; None where there is none. Raises ValueError for another type."""
        dtype = compute_type("teacher_dtype", settled.get("teacher_dtype"))
        if dtype is None:
            return None
        check = settled.get("teacher_check", {})
        checks = [
            TypeCheck(of, *(math.nan if figure is None else figure for figure in figures))  # JSON has no infinity
            for of, *figures in check.get("types", ())
        ]
        return cls(dtype, check.get("rows", 0), check.get("answers", "labels"), tuple(checks))

    def settled(self) -> dict[str, Any]:
        """Return the choice, ready for JSON."""
        if not self.checks:
            return {"teacher_dtype": self.dtype}
        check = {"rows": self.rows, "answers": self.answers, "types": [list(check) for check in self.checks]}
        return {"teacher_dtype": self.dtype, "teacher_check": check}

    def sentence(self) -> str:
        """Return type and check in words, without a subject and a full stop."""
        text = f"computes in {self.dtype}"
        if not self.checks:
            return text
        how, divergence = _COMPARED.get(self.answers, _COMPARED["labels"])
        tried = [
            f"{check.dtype} {how.format(check.agreement)}, {divergence} {check.divergence:.1e}"
            + ("" if check.passed else f" (wanted: {LEAST_AGREEMENT:g}, {MOST_DIVERGENCE:.0e})")
            for check in self.checks
        ]
        return f"{text}: on the first {self.rows} training rows {', and '.join(tried)}"


def faster_types() -> list[str]:
    """Return the compute types that this CPU multiplies faster than float32, in the order in which they are tried."""
    rows = [row for row in FASTER if row != SLOWER_ON_INTEL or cpu_vendor() != "GenuineIntel"]
    return [dtype for dtype, isa in rows if _core.COMPUTE[dtype] == isa]


def inside_type() -> str:
    """Return the compute type for what lies inside a teacher: bfloat16 where it is faster here, else float32.

    Not int8, whose check is of logits: hidden states, scores and values of the shared teacher of SST-2 are 2 to 6 % off
    in it, and 0.2 to 0.6 % in bfloat16.
    """
    return "bfloat16" if "bfloat16" in faster_types() else "float32"


def chosen_type(model: Model, rows: Dataset, task: Task, *, cached: bool, quiet: bool) -> TypeChoice:
    """Return the first type of `FASTER` that passes its check on the first rows, else float32.

    Answers for each token are compared on the tokens that a student learns.

    Types whose logits of all rows are in the teacher cache come first, in the same order, and float32 behind those:
    what is there is not computed again. The model is left in any of the types.

    Args:
        model: the frozen teacher, which `freeze` gives any type.
        rows: the rows to learn from.
        task: the teacher's.
        cached: whether to use the teacher cache.
        quiet: whether to show no progress.

    Raises:
        FloatingPointError: logits in float32 are not finite.
    """
    types = faster_types()
    count = min(CHECKED_ROWS, len(rows) // CHECKED_SHARE)
    if not types or count < LEAST_CHECKED_ROWS:
        return TypeChoice("float32")
    known = [dtype for dtype in (*types, "float32") if cached and _all_cached(model, rows, dtype)]
    types = known if "float32" in known else [*known, *(dtype for dtype in types if dtype not in known)]
    first = rows.take(np.arange(count))
    taught = None if task.taught is None or not first.per_token else task.taught(first.labels)

    def answers(dtype: str) -> Logits:
        with Progress(f"teacher, check in {dtype}", unit="rows", quiet=quiet) as progress:
            logits: Logits = units(teacher_logits(model.freeze(dtype), first, progress=progress, enabled=cached))
        return logits if taught is None else logits[taught]

    checks: list[TypeCheck] = []
    narrow = [dtype for dtype in types if dtype != "float32"]
    reference = answers("float32") if narrow else None
    for dtype in narrow:
        assert reference is not None
        try:
            logits = answers(dtype)
            check = TypeCheck(dtype, task.agreement(logits, reference), task.divergence(logits, reference))
        except FloatingPointError:
            check = TypeCheck(dtype, 0.0, math.inf)
        checks.append(check)
        if check.passed:
            break
    dtype = checks[-1].dtype if checks and checks[-1].passed else "float32"
    answers_are = "embeddings" if task.with_loss is not None else "labels" if task.names_labels else "numbers"
    return TypeChoice(dtype, count if checks else 0, answers_are, tuple(checks))


def _all_cached(model: Model, rows: Dataset, dtype: str) -> bool:
    try:
        return bool(cached_rows(model, rows, dtype).all())
    except OSError:  # the logits will be computed without a cache, with a warning
        return False
