"""Give the processes of a job the files that only the first of them has."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ..train.world import World

_BYTES_AT_ONCE = 1 << 26


def give_files(world: World, directory: Path) -> None:
    """Let `directory`, of which each process has one of its own, hold everywhere what that of rank 0 holds.

    All processes call it together. What others have in a file of the same name is lost.
    """
    if world.size == 1:
        return
    here = sorted(path for path in directory.rglob("*") if path.is_file()) if world.leads else []
    files = world.share([(path.relative_to(directory), path.stat().st_size) for path in here])
    for name, size in files:
        with ExitStack() as stack:
            if not world.leads:
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((directory / name).open("rb" if world.leads else "wb"))
            for _ in range(0, size, _BYTES_AT_ONCE):
                content = world.share(file.read(_BYTES_AT_ONCE) if world.leads else None)
                if not world.leads:
                    file.write(content)
