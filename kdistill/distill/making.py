"""The teachers that a trainer is given, in any form, as `Teachers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.teacher_rows import TeacherSource
from ..models.model import Model
from ..text.tokenizer import PreTrainedTokenizerFast
from .functions import Function, TeacherFunction
from .given import Given
from .sources import Source, Teachers
from .teachers import Teacher

AnyTeacher = Model | Function | Source
"""What may teach."""


def teachers_of(
    teacher_model: Any,
    teacher_processing_class: Any = None,
    teacher_weights: Sequence[float] | None = None,
    names: Sequence[str] = (),
) -> Teachers:
    """Return whoever teaches.

    Args:
        teacher_model: a model, a function of a list of rows (see `TeacherFunction`) or another source, or a list of
            such.
        teacher_processing_class: the tokenizer of the model, or a list with one for each teacher, None where nobody
            knows it or there is none.
        teacher_weights: what each teacher counts, see `Teachers`.
        names: what a model card calls them.

    Raises:
        ValueError: lists have other lengths than that of the teachers, or a teacher is given twice.
        TypeError: a teacher or a tokenizer is of another type.
    """
    several = isinstance(teacher_model, list | tuple)
    each: list[Any] = list(teacher_model) if several else [teacher_model]
    tokenizers: list[Any] = [teacher_processing_class]
    if several and teacher_processing_class is None:
        tokenizers = [None] * len(each)
    elif several:
        tokenizers = list(teacher_processing_class) if isinstance(teacher_processing_class, list | tuple) else []
        if len(tokenizers) != len(each):
            found = f"a list of {len(tokenizers)}" if tokenizers else type(teacher_processing_class).__name__
            raise ValueError(
                f"teacher_processing_class is {found} and teacher_model a list of {len(each)}; expected a list with "
                "a tokenizer for each teacher, in their order, None where there is none"
            )
    for place, teacher in enumerate(each):
        if any(teacher is other for other in each[:place]):
            raise ValueError(f"teacher_model has the same object twice, as teacher {place}; expected each once")
    called: list[str | None] = [*names] if len(names) == len(each) else [None] * len(each)
    if several:
        called = [f"teacher {place}" if name is None else name for place, name in enumerate(called)]
    sources = [_source_of(*of) for of in zip(each, called, tokenizers, strict=True)]
    return Teachers(sources, teacher_weights)


def with_answers(
    teacher_model: Any, teacher_processing_class: Any, teacher_logits: Any
) -> tuple[Any, Any, Given | None]:
    """Return teachers and tokenizers with the answers that came with the rows behind them, and these answers.

    Without any teacher they are the columns of the rows.

    Args:
        teacher_model: as in `teachers_of`; None: nobody.
        teacher_processing_class: as in `teachers_of`.
        teacher_logits: the answers, see `TeacherSource.of`; None: none beside the rows.

    Raises:
        ValueError, TypeError: see `TeacherSource.of`.
    """
    several = isinstance(teacher_model, list | tuple)
    each: list[Any] = [] if teacher_model is None else list(teacher_model) if several else [teacher_model]
    given = next((teacher for teacher in each if isinstance(teacher, Given)), None)
    if teacher_logits is None and teacher_model is not None:
        return teacher_model, teacher_processing_class, given
    made = Given(None if teacher_logits is None else TeacherSource.of(teacher_logits, "teacher_logits"))
    if not each:
        return made, teacher_processing_class, made
    tokenizers = teacher_processing_class
    if not several or tokenizers is not None:
        tokenizers = [*(tokenizers if isinstance(tokenizers, list | tuple) else [tokenizers]), None]
    return [*each, made], tokenizers, made


def _source_of(teacher: Any, name: str | None, tokenizer: PreTrainedTokenizerFast | None) -> Source:
    """Return one teacher. A model can be called, too, and is asked as one."""
    if isinstance(teacher, Model) or not (callable(teacher) or hasattr(teacher, "outputs")):
        return Teacher(teacher, name, tokenizer)
    if tokenizer is not None:
        raise ValueError("teacher_processing_class is given, and teacher_model is no model; leave it out, or None")
    source: Source = teacher if hasattr(teacher, "outputs") else TeacherFunction(teacher, name)
    return source
