"""The teachers that options name: models, and answers that were computed elsewhere."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ..data.teacher_rows import TeacherSource
from ..distill.given import Given
from ..distill.teacher_type import AUTO
from ..hub import public_name
from ..models.configuration import read_config
from ..models.quantization import Quantization
from ..train.encoding import name_of


def names_of_teachers(models: Sequence[str], answers: str | None) -> list[str] | None:
    """Return what a model card calls models, and a file of another teacher's answers; None without any."""
    return [*map(public_name, models), *([] if answers is None else [Path(answers).name])] or None


def check_each_once(teachers: Sequence[str]) -> None:
    """Raise ValueError for a teacher that `--teacher` names twice, also by another path: it would count twice."""
    places = [path.resolve() if (path := Path(teacher)).is_dir() else teacher for teacher in teachers]
    for place, teacher in enumerate(teachers):
        if places[place] in places[:place]:
            first = teachers[places.index(places[place])]
            also = "" if first == teacher else f", also as {first}"
            raise ValueError(
                f"--teacher has {teacher} twice{also}; expected each once: --teacher-weights lets one count more than "
                "another"
            )


def given_of(answers: str | None, train: str) -> Given:
    """Return the answers of a teacher in a file, or in columns of the training rows."""
    if answers is None:
        return Given(name=f"the answers in {name_of(train)}")
    return Given(TeacherSource.of(answers, "--teacher-logits"))


def type_to_load(path: str, teacher_dtype: str) -> str | None:
    """Return the type to load a teacher in; None: its own, an int8 artefact's int8, else float32.

    Args:
        path: the teacher's directory or hub id.
        teacher_dtype: `--teacher-dtype`.
    """
    artefact = Quantization.of(read_config(path))
    if artefact is None:
        return None if teacher_dtype == AUTO else teacher_dtype
    return None if teacher_dtype in (AUTO, artefact.dtype) else "float32"


def inputs_of(options: Namespace) -> list[str]:
    """Return the models and files that a distillation reads beside its rows."""
    given = [*(options.teacher or ()), options.student, options.teacher_logits, options.tokenizer]
    return [path for path in given if path is not None]
