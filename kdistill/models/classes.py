"""The classes of models: each architecture with each kind of head, as the tables of both describe them.

classes.pyi lists them for type checkers and for the reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from .architecture import Architecture
from .head_names import ENDINGS
from .heads import KINDS
from .model import Model
from .registry import ARCHITECTURES


def _class(architecture: Architecture, kind: type[Model]) -> type[Model]:
    """Return the class of models of this architecture with the head of this kind of models."""
    described = (kind.__doc__ or "").partition("\n")[0].replace("A model", f"A model of {architecture.config.kind}", 1)
    doc = f"{described} ({architecture.paper}).\n\nSee `{kind.__name__}` for a call, `Model` for everything else."
    facts = {"architecture": architecture, "config_class": architecture.config}
    return type(architecture.name + ENDINGS[kind.head], (kind,), {**facts, "__doc__": doc, "__module__": __name__})


_ALL = [_class(architecture, kind) for architecture in ARCHITECTURES.values() for kind in KINDS.values()]
CLASSES: Mapping[str, type[Model]] = {each.__name__: each for each in _ALL}
"""Every class of models, by its name."""
globals().update(CLASSES)


def class_of(architecture: Architecture, head: str) -> type[Model]:
    """Return the class of models of this architecture with the head of this name."""
    return CLASSES[architecture.name + ENDINGS[head]]
