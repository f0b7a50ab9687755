"""The recipes: what `--recipe` may name, with students and the arguments that suit them (docs/recipe.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Preset(NamedTuple):
    """What a recipe chooses where nobody has given anything.

    Attributes:
        student: its shape, as `--student` takes it; empty: the recipe names none.
        new_layers: whether the values are for new layers, or for layers that are copied or pretrained.
        copies: augmented copies of each training row; with them the student has no dropout.
        epochs: passes over rows and copies; of new layers at least so many, for few rows need more.
        batch: rows of a batch.
        learning_rate: peak, of an update of one such batch.
    """

    student: str
    new_layers: bool
    copies: int
    epochs: int
    batch: int
    learning_rate: float


NEW_LAYERS = Preset("", new_layers=True, copies=0, epochs=3, batch=32, learning_rate=1e-3)
"""What `auto` chooses for new layers."""
STUDENT_PRESETS: Mapping[str, Preset] = {
    "small": Preset("half", new_layers=False, copies=0, epochs=3, batch=32, learning_rate=2e-4),
    "smaller": Preset("L4-H256-A4", new_layers=True, copies=8, epochs=3, batch=64, learning_rate=1e-3),
    "tiny": Preset("L2-H128-A2", new_layers=True, copies=24, epochs=6, batch=64, learning_rate=1e-3),
}
"""The recipes that name a student, too."""
RECIPES = ("transformers", "auto", *STUDENT_PRESETS)
