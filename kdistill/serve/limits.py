"""Where the server listens, what it takes before it refuses, and how long it waits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

HOST, PORT = "127.0.0.1", 8080


def _limit(default: Any, metavar: str, least: float, help: str, *, of: type = int) -> Any:
    return field(default=default, metadata={"type": of, "metavar": metavar, "least": least, "help": help})


@dataclass(frozen=True)
class Limits:
    """The bounds of a server; the fields' metadata is what `kdistill serve --help` shows.

    Attributes:
        max_length: tokens that texts are cut to; None: as in the training, or what the model can read.
        max_batch_tokens: tokens computed together, unless a single text has more.
        max_wait_ms: milliseconds that a batch waits for more texts once it has one.
        max_queue: texts accepted and not yet answered, from which on requests are refused with 429.
        max_texts: texts of one request.
        max_request_bytes: bytes of one request's body.
        timeout: seconds in which a request is to be read, and again in which it is to be answered.
        graceful_timeout: seconds that a server which is told to stop gives to the requests it has accepted.
    """

    max_length: int | None = _limit(
        None, "N", 3, "tokens that texts are cut to (default: as in the training, or what the model reads)"
    )
    max_batch_tokens: int = _limit(2048, "N", 1, "tokens computed together, unless a single text has more")
    max_wait_ms: float = _limit(
        0.0, "MS", 0, "how long a batch waits for more texts; without, it takes what is there", of=float
    )
    max_queue: int = _limit(1024, "N", 1, "texts that may wait; then requests are answered with 429")
    max_texts: int = _limit(10_000, "N", 1, "texts of one request; 413 for more")
    max_request_bytes: int = _limit(6 * 2**20, "N", 1, "bytes of one request; 413 for more")
    timeout: float = _limit(
        60.0, "SECONDS", 0.001, "time to read a request (else 408), and to answer it (else 503)", of=float
    )
    graceful_timeout: float = _limit(
        30.0, "SECONDS", 0, "time to finish accepted requests when the server is told to stop", of=float
    )

    def __post_init__(self) -> None:
        """Raise ValueError for a value that is too small or not finite, under its name on the command line."""
        for each in fields(self):
            value, least = getattr(self, each.name), each.metadata["least"]
            if value is not None and not (math.isfinite(value) and value >= least):
                option = each.name.replace("_", "-")
                raise ValueError(f"--{option} is {value}; expected a number of at least {least}")
