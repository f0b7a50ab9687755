"""`kdistill serve`: from options to a server, and the line that it ends with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..serve.limits import Limits
from ..serve.server import serve as run
from ..system.progress import format_duration


def serve(options: Namespace) -> dict[str, Any]:
    """Serve `--model` until a signal ends it."""
    given = {field.name: getattr(options, field.name) for field in fields(Limits) if hasattr(options, field.name)}
    return run(options.model, host=options.host, port=options.port, limits=Limits(**given), dtype=options.dtype)


def ending_text(figures: Mapping[str, Any]) -> str:
    """Return the line that a server ends with."""
    lost = f"; {figures['unanswered']:,} were cut off (--graceful-timeout)" if figures["unanswered"] else ""
    return (
        f"stopped after {format_duration(figures['seconds'])}: {figures['requests']:,} requests answered, "
        f"{figures['texts']:,} texts{lost}\n"
    )
