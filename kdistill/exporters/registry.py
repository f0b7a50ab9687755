"""The list of formats that models are exported to."""

from __future__ import annotations

from collections.abc import Mapping

from .format import Format
from .gguf import GGUF
from .onnx import ONNX

FORMATS: Mapping[str, Format] = {each.name: each for each in (ONNX, GGUF)}
"""Every format, by its name."""
DTYPES = tuple(dict.fromkeys(dtype for each in FORMATS.values() for dtype in each.files))
"""Types of numbers that any of them has."""
