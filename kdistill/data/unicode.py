"""Find text that no file can hold: halves of characters, which JSON can spell and UTF-8 cannot."""

from __future__ import annotations


def lone_surrogate(text: str) -> str | None:
    """Return the description of the first lone surrogate of a text, such as `\\ud83d at character 5`, or None."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"{ascii(text[error.start])[1:-1]} at character {error.start}, half of a character (a lone surrogate)"
    return None
