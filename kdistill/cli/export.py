"""`kdistill export`: a model written for other programs."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ..exporters.export import export as write


def export(options: Namespace) -> dict[str, Any]:
    """Write `--model` in the format of other programs."""
    written = write(options.model, options.output, format=options.format, dtype=options.dtype)._asdict()
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in written.items()}
    return {"model": options.model, "output": options.output, **listed, "path": str(written["path"])}
