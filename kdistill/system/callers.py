"""Who called the library: the line that a warning is about."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


def level_outside() -> int:
    """Return the `stacklevel` with which a warning of the calling function names the first line outside this package.

    It is for functions that are reached in several ways; `skip_file_prefixes` does the same from Python 3.12 on.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
