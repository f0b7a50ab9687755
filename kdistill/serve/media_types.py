"""Which form a request has and its answer is to have: the headers Content-Type and Accept."""

from __future__ import annotations

from functools import lru_cache

from .refusal import Refusal

JSON = "application/json"
JSON_LINES = "application/jsonlines"
CSV = "text/csv"
TEXT = "text/plain"

READ = (JSON, JSON_LINES, CSV, TEXT)
WRITTEN = (JSON, JSON_LINES, CSV)
_ALSO_CALLED = {
    "application/x-jsonlines": JSON_LINES,
    "application/jsonl": JSON_LINES,
    "application/x-ndjson": JSON_LINES,
    "application/x-text": TEXT,
}
_ENCODINGS = ("utf-8", "utf8", "us-ascii", "ascii")


@lru_cache(maxsize=64)
def type_of_request(header: bytes | None) -> str:
    """Return the type of a request's body; without a header JSON, as SageMaker's containers take it.

    Raises:
        Refusal: 415.
    """
    if not header:
        return JSON
    name, *parameters = header.decode("latin-1").lower().split(";")
    name = _ALSO_CALLED.get(name.strip(), name.strip())
    if name not in READ:
        raise Refusal(415, f"Content-Type is {name[:80]!r}; expected one of {', '.join(READ)}")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "charset" and value.strip(" \"'") not in _ENCODINGS:
            raise Refusal(415, f"Content-Type has charset {value.strip()[:80]!r}; expected utf-8")
    return name


@lru_cache(maxsize=256)
def type_of_answer(header: bytes | None, of_request: str) -> str:
    """Return the type that a client accepts and prefers; without a preference JSON, or JSON lines for JSON lines.

    Raises:
        Refusal: 406.
    """
    preferred = JSON_LINES if of_request == JSON_LINES else JSON
    if not header:
        return preferred
    best, best_quality = None, 0.0
    for part in header.decode("latin-1").lower().split(","):
        pattern, *parameters = (piece.strip() for piece in part.split(";"))
        quality = _quality(parameters)
        pattern = _ALSO_CALLED.get(pattern, pattern)
        for name in (preferred, *WRITTEN):
            if quality > best_quality and pattern in (name, "*/*", f"{name.partition('/')[0]}/*"):
                best, best_quality = name, quality
    if best is None:
        shown = header.decode("latin-1")[:80]
        raise Refusal(406, f"Accept is {shown!r}; expected one of {', '.join(WRITTEN)}")
    return best


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
