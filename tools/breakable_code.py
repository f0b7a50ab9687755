"""A hook of mkdocs: let a long name in a sentence break behind a dot, a parenthesis or a comma, not inside a word."""

from __future__ import annotations

import re
from typing import Any

_INLINE_CODE = re.compile(r"(?<!<pre>)<code>[^<]{30,}</code>")
_PLACES = re.compile(r"(?<=\w)([.(,=/])(?=\w)")


def on_page_content(html: str, **_: Any) -> str:
    """Return a page with places to break in each inline code of 30 characters or more."""
    return _INLINE_CODE.sub(lambda code: _PLACES.sub(r"\1<wbr>", code[0]), html)
