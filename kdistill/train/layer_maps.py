"""Which layer of the teacher each layer of the student learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

LayerPairs = list[tuple[int, int]]
"""(teacher's layer, student's layer), both from 0."""


def _uniform(teacher: int, student: int) -> LayerPairs:
    """Every layer of the student learns from those evenly spaced in the teacher, the last from the last.

    TinyBERT (Jiao et al., arXiv:1909.10351), g(m) = m * M / N, rounded down; so `from_teacher` copies layers.
    """
    return [((layer + 1) * teacher // student - 1, layer) for layer in range(student)]


def _skip(teacher: int, student: int) -> LayerPairs:
    """As uniform, without the last layer of the student, which the predictions teach: PKD-Skip (arXiv:1908.09355)."""
    return _uniform(teacher, student)[:-1]


def _last(teacher: int, student: int) -> LayerPairs:
    """The layers before the last, in order from behind: PKD-Last, as 7 to 11 of 12 for a student of six."""
    return [(teacher - student + layer, layer) for layer in range(student - 1)]


LAYER_MAPS: Mapping[str, Callable[[int, int], LayerPairs]] = {"uniform": _uniform, "skip": _skip, "last": _last}
"""Name of a map -> (layers of the teacher, layers of the student) -> the pairs, at least one of which must be there."""


def mapped_layers(name: str, teacher: int, student: int) -> LayerPairs:
    """Return the pairs that a map gives.

    Raises:
        ValueError: the student has more layers than the teacher, or the map has none for a student of one layer.
    """
    if student > teacher:
        # Evenly spread from the first to the last, and without the student's last layer where the map leaves it out.
        layers = tuple(range(student if name == "uniform" else student - 1))
        spread = tuple(layer * teacher // student for layer in layers)
        raise ValueError(
            f"the layer map is {name!r}, and the student has {student} layers and the teacher {teacher}; expected "
            f"explicit layers, such as teacher_layer={spread} with student_layer={layers}"
        )
    pairs = LAYER_MAPS[name](teacher, student)
    if not pairs:
        raise ValueError(
            f"the layer map is {name!r}, which leaves out the student's last layer, and it has one; expected 'uniform'"
        )
    return pairs
