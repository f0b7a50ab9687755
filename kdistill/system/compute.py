"""Compute types: in which types the core multiplies, and the names that users give them."""

from __future__ import annotations

import warnings
from typing import Any

from .. import _core
from .names import did_you_mean

COMPUTE_TYPES = tuple(_core.COMPUTE)
"""float32, bfloat16 and int8: the operands of products with the encoder's weights. Everything else is float32."""
_SYNONYMS = {"float": "float32", "auto": None}


def compute_type(name: str, value: Any) -> str | None:
    """Return the compute type that an argument asks for, or None where it leaves the choice ("auto", None).

    Args:
        name: the argument, for messages.
        value: a name such as "bfloat16", or NumPy's or torch's type.

    Raises:
        ValueError: another type, such as float16.
        TypeError: what is no type.
    """
    if value is None:
        return None
    words = getattr(value, "__name__", None) or str(value)
    word = words.removeprefix("torch.").removeprefix("numpy.")
    word = _SYNONYMS.get(word, word)
    if word is None or word in COMPUTE_TYPES:
        return word
    expected = f"expected {', '.join(COMPUTE_TYPES[:-1])} or {COMPUTE_TYPES[-1]}"
    if isinstance(value, bool | int | float | list | tuple | dict | set):
        raise TypeError(f"{name} is {value!r}; {expected}")
    nearest = did_you_mean(word, COMPUTE_TYPES)
    raise ValueError(f"{name} is {word or repr(word)}, in which kdistill does not compute; {expected}{nearest}")


def warn_if_portable(compute: str) -> None:
    """Warn, once a process, where no instruction of this CPU multiplies a compute type, so that it is not faster."""
    if _core.COMPUTE[compute] is not None:
        return
    native = [f"{name} ({isa})" for name, isa in _core.COMPUTE.items() if isa is not None]
    warnings.warn(
        f"{compute} is computed portably, since this CPU, or KDISTILL_ISA, has no instructions for it: the results are "
        f"right, but come no sooner than in float32; native here are {', '.join(native)}",
        stacklevel=1,  # always this line, so that Python shows it once
    )
