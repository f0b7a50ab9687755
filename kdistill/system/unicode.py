"""Text that no file can hold: halves of characters, which JSON can spell and UTF-8 has no bytes for."""

from __future__ import annotations


def check_characters(name: str, text: str) -> None:
    """Raise `ValueError` for text with a lone surrogate; `name` is its place in the message."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])[1:-1]
        raise ValueError(
            f"{name} holds {half} at character {error.start}, half of a character (a lone surrogate), as text cut in "
            "the middle of one has; expected whole characters, which text.encode('utf-8', 'ignore').decode() leaves"
        ) from None


def encodable(text: str) -> str:
    """Return `text` with each lone surrogate as its escape: `\\udc80`."""
    return text.encode("utf-8", "backslashreplace").decode()
