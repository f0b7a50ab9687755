"""`World`: the processes that train one model together, each with micro-batches of its own.

`ALONE` is a process without others, and `Mpi` those that an MPI launcher such as mpirun has started. Only this module
loads mpi4py, and only under such a launcher.

No call of MPI blocks: each is begun and then tested until it is done, so that signals are answered meanwhile, and so
is the notice of a process that has stopped. A process that is gone is the launcher's to notice, which ends the others.
"""

from __future__ import annotations

import atexit
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..system.names import listing
from ..system.signals import held_back

Flat = NDArray[np.float32]

# What launchers tell each process about how many they have started: Open MPI, MPICH and Intel MPI, MVAPICH2.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_OF_PMIX = ("PMIX_RANK", "SLURM_NTASKS")  # a launcher that only speaks PMIx, such as srun --mpi=pmix
_NOTICE = 1
_SECONDS_TO_MEET = 60.0  # for the others, once one has stopped: rank 0 may be writing a checkpoint
_SECONDS_TO_PASS_ON = 0.5  # what a process has written, before the launcher is told to end the job
_LONGEST_PAUSE = 1e-3
# Bytes that a message brings from all processes together. MPI counted them in 32 bits until its version 4, which Open
# MPI does not have.
_LARGEST_MESSAGE = 1 << 30


class World(Protocol):
    """The processes of one training, which all make the same calls in the same order.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
        local_rank: the number of this process among those on its host.
        met: whether all have stopped together, so that what rank 0 says of it is enough.
    """

    rank: int
    size: int
    local_rank: int
    met: bool

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes, shows and decides: rank 0."""

    def gather(self, mine: Any) -> list[Any]:
        """Return what each process gives, in the order of ranks."""

    def share(self, value: Any) -> Any:
        """Return what rank 0 gives."""

    def share_array(self, array: Flat) -> None:
        """Overwrite an array, which is of the same size everywhere, with that of rank 0."""

    def slice_of(self, size: int) -> slice:
        """Return the part of arrays of this size that this process adds up."""

    def parts_of(self, mine: Flat, givers: int) -> Sequence[Flat]:
        """Return this process's part of the arrays that the first `givers` ranks give, in the order of ranks.

        They are valid until the next call.
        """

    def joined(self, part: Flat, whole: Flat) -> None:
        """Fill `whole` with the parts of all processes; `part` is the one of this process."""

    def together(self) -> AbstractContextManager[None]:
        """Leave the block when all do, and let an error in it, of any process, stop the others, too.

        They raise RuntimeError, which names its rank and says what has happened, or KeyboardInterrupt for what is no
        `Exception`, at their next call.
        """


class _Alone:
    """A process without others."""

    rank = local_rank = 0
    size = 1
    leads = met = True

    def gather(self, mine: Any) -> list[Any]:
        return [mine]

    def share(self, value: Any) -> Any:
        return value

    def share_array(self, array: Flat) -> None:
        pass

    def slice_of(self, size: int) -> slice:
        return slice(0, size)

    def parts_of(self, mine: Flat, givers: int) -> Sequence[Flat]:
        return [mine]

    def joined(self, part: Flat, whole: Flat) -> None:
        whole[:] = part

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()


ALONE: World = _Alone()


class Mpi:
    """The processes that an MPI launcher has started. A `World`.

    Args:
        mpi: the module mpi4py.MPI.
    """

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self._all, self._notices = mpi.COMM_WORLD.Dup(), mpi.COMM_WORLD.Dup()
        self.rank: int = self._all.Get_rank()
        self.size: int = self._all.Get_size()
        self.local_rank: int = self._all.Split_type(mpi.COMM_TYPE_SHARED).Get_rank()
        self.met = True
        self._waits = self._stopped = self._has_waited = self._leaves_calls = False
        self._received: dict[int, Flat] = {}  # memory for parts of each size: new one would take as long to arrive
        self._sent: list[Any] = []  # notices, which must stay in memory until they are read
        atexit.register(self._leave)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def gather(self, mine: Any) -> list[Any]:
        content = np.frombuffer(pickle.dumps(mine, protocol=5), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        own = np.array([content.size], np.int64)
        self._do(lambda: self._all.Iallgather(own, sizes), longest_pause=_LONGEST_PAUSE)  # the others may be late
        found = [np.empty(size, np.uint8) for size in sizes.tolist()]
        block = max(_LARGEST_MESSAGE // self.size, 1)
        for first in range(0, int(sizes.max()), block):
            parts = self._all_of(content[first : first + block], np.clip(sizes - first, 0, block))
            for whole, part in zip(found, parts, strict=True):
                whole[first : first + len(part)] = part
        return [pickle.loads(whole.data) for whole in found]

    def _all_of(self, mine: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the bytes that each process gives, of which there are so many."""
        found = np.empty(int(sizes.sum()), np.uint8)
        self._do(lambda: self._all.Iallgatherv(mine, [found, sizes]))
        return np.split(found, np.cumsum(sizes)[:-1])

    def share(self, value: Any) -> Any:
        return self.gather(value if self.leads else None)[0]

    def share_array(self, array: Flat) -> None:
        self._meet()
        self._do(lambda: self._all.Ibcast(array, root=0))

    def slice_of(self, size: int) -> slice:
        bounds = self._bounds(size)
        return slice(int(bounds[self.rank]), int(bounds[self.rank + 1]))

    def parts_of(self, mine: Flat, givers: int) -> Sequence[Flat]:
        bounds, ranks = self._bounds(mine.size), np.arange(self.size)
        own = int(bounds[self.rank + 1] - bounds[self.rank])
        sent = np.diff(bounds) * (self.rank < givers)
        received = np.where(ranks < givers, own, 0)
        parts = self._memory_for(own)[:givers]
        self._meet()
        self._do(
            lambda: self._all.Ialltoallv(
                [mine, (sent, bounds[:-1])], [parts, (received, np.minimum(ranks, givers - 1) * own)]
            )
        )
        return [*parts]

    def _memory_for(self, size: int) -> Flat:
        """Return room for a part of this size of each process."""
        if size not in self._received:
            self._received[size] = np.empty((self.size, size), np.float32)
        return self._received[size]

    def joined(self, part: Flat, whole: Flat) -> None:
        bounds = self._bounds(whole.size)
        self._meet()
        self._do(lambda: self._all.Iallgatherv(part, [whole, (np.diff(bounds), bounds[:-1])]))

    def together(self) -> AbstractContextManager[None]:
        return self._together()

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
            self._meet()  # with pauses, while rank 0 writes what comes last
        except BaseException as error:
            if not self._stopped:
                self._stopped = True
                self._notify(error)
            with held_back():
                self._wait_for_the_others()
            raise

    def _bounds(self, size: int) -> NDArray[np.int64]:
        """Return where the parts of an array begin, and where the last one ends, int64 (ranks + 1,)."""
        return np.asarray(np.arange(self.size + 1) * size // self.size)

    def _meet(self) -> None:
        """Wait, with pauses, until all are here: what follows is then only the time of the transfer."""
        self._do(self._all.Ibarrier, longest_pause=_LONGEST_PAUSE)

    def _do(self, begin: Callable[[], Any], *, longest_pause: float = 0.0) -> None:
        """Begin a call of MPI and test it until it is done. It moves data only while it is tested."""
        if self._stopped:
            raise RuntimeError("the processes that trained together have stopped; start them anew with the launcher")
        self._hear()
        request, self._waits, tests = begin(), True, 0
        while not request.Test():
            self._hear()
            tests += 1
            if longest_pause:  # even a pause of 0 would give the core to somebody else for a while
                time.sleep(min(longest_pause, tests * 1e-6))
        self._waits = False

    def _hear(self) -> None:
        """Raise what `together` names where another process has stopped."""
        status = self._mpi.Status()
        if not self._notices.Iprobe(source=self._mpi.ANY_SOURCE, tag=_NOTICE, status=status):
            return
        content = bytearray(status.Get_count(self._mpi.BYTE))
        self._notices.Recv(content, source=status.Get_source(), tag=_NOTICE)
        failed, sentence = pickle.loads(content)
        self._stopped = True
        if not failed:
            raise KeyboardInterrupt
        raise RuntimeError(f"rank {status.Get_source()} of {self.size} has stopped: {sentence}")

    def _notify(self, error: BaseException) -> None:
        sentence = " ".join(str(error).split()) or type(error).__name__
        content = pickle.dumps((isinstance(error, Exception), sentence))
        for rank in range(self.size):
            if rank != self.rank:
                self._sent.append((content, self._notices.Isend(content, dest=rank, tag=_NOTICE)))

    def _wait_for_the_others(self) -> None:
        """Wait until all have stopped: the launcher ends the others as soon as one is gone."""
        if self._has_waited:
            return
        self._has_waited = True
        waits = np.array([self._waits], np.int32)
        until, request = time.monotonic() + _SECONDS_TO_MEET, self._notices.Iallreduce(self._mpi.IN_PLACE, waits)
        self.met = request.Test()
        while not self.met and time.monotonic() < until:
            time.sleep(_LONGEST_PAUSE)
            self.met = request.Test()
        self._leaves_calls = not self.met or bool(waits[0])

    def _leave(self) -> None:
        """End the job where a process waits in a call that another will never make: MPI's own end would wait for it."""
        if not self._leaves_calls:
            return
        # Rank 0 has still to say what happened, and the launcher to pass that on; then this process is ended, too.
        time.sleep(_SECONDS_TO_MEET if self.met and not self.leads else _SECONDS_TO_PASS_ON)
        self._mpi.COMM_WORLD.Abort(1)


def launched_processes() -> int:
    """Return how many processes the launcher of this one has started, by what it told it; 1 without one."""
    told = [os.environ[name] for name in _SIZES if name in os.environ]
    if not told and all(name in os.environ for name in _OF_PMIX):
        told = [os.environ[_OF_PMIX[-1]]]
    return int(told[0]) if told and told[0].isdigit() else 1


@lru_cache(maxsize=1)
def current_world() -> World:
    """Return the processes that train with this one: those of its MPI launcher, or `ALONE` without one.

    Raises:
        ImportError: a launcher has started several, and mpi4py is missing.
        RuntimeError: mpi4py does not find them, for it uses another MPI than the launcher's.
    """
    count = launched_processes()
    if count == 1:
        return ALONE
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            f"an MPI launcher has started {count} processes, and mpi4py, with which they would train one model, is "
            "missing; install it on all hosts with: pip install 'kdistill[mpi]'"
        ) from error
    found = MPI.COMM_WORLD.Get_size()
    if found != count:
        raise RuntimeError(
            f"the launcher has started {count} processes, and mpi4py finds {found}: it uses another MPI "
            f"({MPI.Get_library_version().split(',')[0].strip()}) than the launcher; expected the mpirun of that MPI"
        )
    return Mpi(MPI)


def require_same(world: World, facts: Callable[[], Mapping[str, Any]]) -> None:
    """Raise ValueError, on all processes, where one of several has another of these facts by name, or other code."""
    if world.size == 1:
        return
    everywhere = world.gather({"version of kdistill": __version__, **facts()})
    for rank, theirs in enumerate(everywhere):
        different = [name for name, value in everywhere[0].items() if theirs.get(name) != value]
        if different:
            raise ValueError(
                f"{listing(different)} of rank {rank} of {world.size} differ from those of rank 0; expected the same "
                "command, files, versions and kind of processor everywhere, for the processes train one model"
            )
