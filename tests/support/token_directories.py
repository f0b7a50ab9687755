"""Directories of token files: what they hold, and an encoding that is interrupted in a shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdistill.data import token_encoders


def content(directory: Path) -> dict[str, bytes]:
    """The bytes of each file."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def interrupt_in_shard(monkeypatch: pytest.MonkeyPatch, function: str, shard: int) -> list[int]:
    """Let the function that encodes shards be interrupted once, and return a list that gets the rows of each call."""
    calls, encode = list[int](), getattr(token_encoders, function)

    def interrupted(rows: Any, *given: Any, **more: Any) -> Any:
        calls.append(len(rows))
        if len(calls) == shard + 1:
            raise KeyboardInterrupt
        return encode(rows, *given, **more)

    monkeypatch.setattr(token_encoders, function, interrupted)
    return calls


def change_a_byte(path: Path) -> None:
    """Damage a file in its middle."""
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)
