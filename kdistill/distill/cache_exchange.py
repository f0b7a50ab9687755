"""Give each other the answers in the teacher caches of processes that have no directory in common."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..data.blocks import blocks_of
from ..data.dataset import Dataset
from ..data.ragged import units_of
from ..train.world import World
from .cache import RowsInCache, Teacher, TeacherCache, cache_directory, warn_unusable


def exchange_answers(
    teacher: Teacher, rows: Dataset, world: World, cache_dir: str | os.PathLike[str] | None = None
) -> None:
    """Put into this process's cache what it lacks of these rows and another one has. All processes call it together.

    Args:
        teacher: the model that has answered.
        rows: the same in all processes.
        world: the processes.
        cache_dir: the cache's directory (default: `cache_directory()`).
    """
    for part in blocks_of(len(rows)):
        here = RowsInCache(teacher, rows, part)
        cache = _opened(teacher, here, cache_dir)
        known = np.array(world.gather(here.found))  # bool (processes, rows)
        wanted = known.any(axis=0) & ~known.all(axis=0)
        if not wanted.any():
            continue
        mine = np.flatnonzero(wanted & (known.argmax(axis=0) == world.rank))  # the first that has a row gives it
        starts = rows.starts[part.start : part.stop + 1] - rows.starts[part.start]
        units = units_of(starts, mine) if teacher.per_token else mine
        for given, values in world.gather((mine, here.values[units])):
            here.put(given, values)
        lacking = np.flatnonzero(wanted & ~known[world.rank])
        if cache is not None and len(lacking):
            try:
                here.append(cache, lacking)
            except OSError as error:
                warn_unusable(error)


def _opened(teacher: Teacher, here: RowsInCache, cache_dir: str | os.PathLike[str] | None) -> TeacherCache | None:
    """Return the cache, in which `here` has been looked up; None, with a warning, where it cannot be used."""
    try:
        cache = here.open(teacher, cache_directory() if cache_dir is None else Path(cache_dir))
        here.look_up(cache)
    except OSError as error:
        warn_unusable(error)
        return None
    return cache
