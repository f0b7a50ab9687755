"""The number of threads, aligned arrays for the C core, and the configuration of this installation."""

from __future__ import annotations

import mmap
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .control_groups import cpu_quota

# What MPI launchers tell a process about how many they have started on its host: Open MPI; MPICH and Intel MPI;
# MVAPICH2.
_NEIGHBOURS = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE")
_num_threads: int | None = None
_num_threads_here: ContextVar[int | None] = ContextVar("kdistill.num_threads", default=None)


def _available_cpus() -> int:
    host = os.cpu_count() or 1
    quota = min(host, cpu_quota() or host)
    told = [os.environ[name] for name in _NEIGHBOURS if name in os.environ]
    processes = int(told[0]) if told and told[0].isdigit() else 1
    # They share what the host and its quota give. Of the affinity, a launcher may have given each one a part already.
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else host
    return min(own, max(1, quota // max(1, processes)))


def _checked_threads(n: int, source: str) -> int:
    if not 1 <= n <= _core.MAX_THREADS:
        raise ValueError(f"{source} is {n}; expected a whole number from 1 to {_core.MAX_THREADS}")
    return n


def _initial_threads() -> int:
    text = os.environ.get("KDISTILL_NUM_THREADS")
    if not text:
        return min(_available_cpus(), _core.MAX_THREADS)
    try:
        n = int(text)
    except ValueError:
        raise ValueError(f"KDISTILL_NUM_THREADS is {text!r}; expected a whole number") from None
    return _checked_threads(n, "KDISTILL_NUM_THREADS")


def set_num_threads(n: int) -> None:
    """Set how many threads every following call uses.

    The number of threads never changes a result, not by a bit.

    Args:
        n: 1 to 256; more than there are CPUs is allowed.

    Raises:
        ValueError: `n` is not between 1 and 256.
        TypeError: `n` is not a whole number.
    """
    global _num_threads
    if not isinstance(n, (int, np.integer)):
        raise TypeError(f"the number of threads is {n!r}; expected a whole number")
    _num_threads = _checked_threads(int(n), "the number of threads")


def get_num_threads() -> int:
    """Return the number of threads in use.

    Default: the environment variable KDISTILL_NUM_THREADS, else the CPUs that this process may use, by its affinity and
    by the quota of its control groups (`docker run --cpus`), and of those of the host its share under mpirun.
    """
    global _num_threads
    if (here := _num_threads_here.get()) is not None:
        return here
    if _num_threads is None:
        _num_threads = _initial_threads()
    return _num_threads


@contextmanager
def using_num_threads(n: int) -> Iterator[None]:
    """Use `n` threads for the calls of this Python thread inside the block, regardless of `set_num_threads`.

    This is how several Python threads share the cores. Raises `ValueError` as `set_num_threads` does.
    """
    token = _num_threads_here.set(_checked_threads(n, "the number of threads"))
    try:
        yield
    finally:
        _num_threads_here.reset(token)


def isa_level() -> str:
    """Return the instruction-set level in use: "generic", "neon", "avx2" or "avx512"."""
    return _core.ISA_LEVEL


def show_config() -> dict[str, Any]:
    """Return the versions of this installation and the machine it runs on.

    Returns:
        A dictionary with the keys version, isa_level (in use), isa_levels (all that this CPU has), compute (for each
        compute type the instruction set that multiplies it, None where this CPU has none), blis (its version),
        blis_kernels (the set of BLIS kernels in use), num_threads, cpus (those this process may use), compiler,
        compiler_flags, python, numpy and platform.
    """
    from .. import __version__

    return {
        "version": __version__,
        "isa_level": _core.ISA_LEVEL,
        "isa_levels": list(_core.ISA_LEVELS),
        "compute": dict(_core.COMPUTE),
        "blis": _core.BLIS_VERSION,
        "blis_kernels": _core.BLIS_KERNELS,
        "num_threads": get_num_threads(),
        "cpus": _available_cpus(),
        "compiler": _core.COMPILER,
        "compiler_flags": _core.COMPILER_FLAGS,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }


def aligned_zeros(size: int) -> NDArray[np.float32]:
    """Return a float32 array of `size` zeros, shape (size,), that begins on a `_core.ALIGNMENT`-byte boundary."""
    memory = np.zeros(size + _core.ALIGNMENT // 4, np.float32)
    address: int = memory.__array_interface__["data"][0]
    start = -address % _core.ALIGNMENT // memory.itemsize
    return memory[start : start + size]


def sparse_zeros(size: int) -> NDArray[np.float32]:
    """Return an aligned float32 array of zeros, shape (size,), of which only the pages that are written take memory.

    NumPy's own zeros may lie in pages of 2 MiB, which a few written values make real.
    """
    memory = mmap.mmap(-1, max(4 * size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32, size)[:]


def read_only(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a view that cannot be written."""
    view = array.view()
    view.flags.writeable = False
    return view


def lock(array: NDArray[np.float32]) -> None:
    """Make an array of `aligned_zeros` read-only for good: no view of it can be made writable again."""
    assert isinstance(array.base, np.ndarray)
    array.base.flags.writeable = array.flags.writeable = False
