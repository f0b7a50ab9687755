"""The classes of models: each architecture with each kind of head, as the tables of both describe them.

classes.pyi lists them for type checkers and for the reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from .architecture import Architecture
from .heads import KINDS
from .model import Model
from .registry import ARCHITECTURES


def _class(architecture: Architecture, ending: str) -> type[Model]:
    """Return the class of models of this architecture with the head of this kind of class."""
    kind = KINDS[ending]
    described = (kind.__doc__ or "").partition("\n")[0].replace("A model", f"A model of {architecture.config.kind}", 1)
    doc = f"{described} ({architecture.paper}).\n\nSee `{kind.__name__}` for a call, `Model` for everything else."
    facts = {"architecture": architecture, "config_class": architecture.config}
    return type(architecture.name + ending, (kind,), {**facts, "__doc__": doc, "__module__": __name__})


CLASSES: Mapping[str, type[Model]] = {
    architecture.name + ending: _class(architecture, ending)
    for architecture in ARCHITECTURES.values()
    for ending in KINDS
}
"""Every class of models, by its name."""
globals().update(CLASSES)
