"""`Cluster`: the processes of Ray that work for this one, on its host or on many."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from .. import _core
from .threads import get_num_threads

MAX_ATTEMPTS = 3
"""How often a piece of work may end its process, for want of memory perhaps, before it is given up."""
LOCAL = "local"
"""The address of a cluster that is started for this process and ends with it."""
ADDRESS_VARIABLE = "RAY_ADDRESS"
"""The variable of Ray's that names a cluster where no address is given."""


_SECONDS_TO_ANSWER = 10


class WorkerDiedError(Exception):
    """A process of the cluster has died, or its host, in the middle of its work."""


class Outcome(NamedTuple):
    """What came of a call in another process: a value or an error, and the warnings that came up."""

    value: Any
    error: BaseException | None
    warned: list[tuple[Warning | str, type[Warning], str, int]]

    @classmethod
    def of(cls, call: Callable[[Callable[[Any], Outcome]], Any]) -> Outcome:
        """Call a function and return what came of it, whatever it is.

        Args:
            call: is given a function that makes the outcome so far of a value, for what is told before the end. Each
                warning is in one of them.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")

            def outcome(value: Any, error: BaseException | None = None) -> Outcome:
                new, caught[:] = list(caught), []
                warned = [(_that_travels(of.message), of.category, of.filename, of.lineno) for of in new]
                return cls(value, error, warned)

            try:
                return outcome(call(outcome))
            except BaseException as raised:  # noqa: BLE001  # it is for the process that asked to judge
                return outcome(None, _that_travels(raised.with_traceback(None)))

    def here(self, warned: dict[Any, Any]) -> Any:
        """Return the value or raise the error, after warning here of what has not been warned of before.

        Args:
            warned: Python's registry of warnings that have been shown.
        """
        for message, category, file, line in self.warned:
            warnings.warn_explicit(message, category, file, line, registry=warned)
        if self.error is not None:
            raise self.error
        return self.value


def _that_travels(said: Any) -> Any:
    """Return an error or a warning; one of its built-in type with its name and text where pickle loses what it says.

    So pickle does where a class takes other arguments than the text, or an object holds what stays in its process.
    """
    from ray import cloudpickle

    with suppress(Exception):
        if str(cloudpickle.loads(cloudpickle.dumps(said))) == str(said):
            return said
    text = f"{type(said).__name__}: {said}"
    for kind in (*type(said).__mro__, RuntimeError):
        if kind.__module__ == "builtins":
            with suppress(TypeError):  # such as of UnicodeDecodeError, which takes other arguments
                return kind(text)
    return said


@contextmanager
def needing_ray() -> Iterator[None]:
    """Name the extra where a module of Ray's cannot be imported inside the block, with what it needs of others."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f'work in the processes of Ray needs ray, with Tune and Data ({error}): pip install "kdistill[ray]"'
        ) from error


@contextmanager
def silenced(logger: str, **environment: str) -> Iterator[None]:
    """Let a part of Ray log nothing inside the block, where the environment has these variables."""
    of_ray, before = logging.getLogger(logger), {name: os.environ.get(name) for name in environment}
    level = of_ray.level
    of_ray.setLevel(logging.CRITICAL + 1)
    os.environ.update(environment)
    try:
        yield
    finally:
        of_ray.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _no_cluster(address: str, error: Exception) -> ConnectionError:
    return ConnectionError(
        f"ray_address is {address!r}, and no cluster of Ray could be used there ({' '.join(str(error).split())}); "
        "expected the address that `ray start --head` has shown"
    )


def _check_that_somebody_listens(address: str) -> None:
    """Raise ConnectionError where nobody does at host:port: Ray would look for two minutes and then end the program."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


class Cluster:
    """A cluster of Ray: the one that the program is connected to, that of an address, or one started on this host.

    One that is started here has a core for each thread in use, tells nobody of its use, shows no dashboard, and ends
    with the block.

    Args:
        address: of a cluster, as `ray.init` takes it; None: that of the variable RAY_ADDRESS, else `LOCAL`.

    Attributes:
        ray: the package.

    Raises:
        ImportError: ray is not installed; names the extra.
    """

    def __init__(self, address: str | None = None) -> None:
        with needing_ray():
            import ray
        self.ray: Any = ray
        self._address, self._connected = address, False

    def __enter__(self) -> Self:
        """Connect, where the program has not.

        Raises:
            ConnectionError: no cluster answers at the address.
            ValueError: an address is given, and the program is connected already.
        """
        if not self.ray.is_initialized():
            self._connect(self._address or os.environ.get(ADDRESS_VARIABLE) or LOCAL)
        elif self._address is not None:
            raise ValueError(
                f"ray_address is {self._address!r}, and this program is connected to a cluster of Ray already; leave "
                "ray_address out, or call ray.shutdown() first"
            )
        return self

    def _connect(self, address: str) -> None:
        own: dict[str, Any] = {"num_cpus": get_num_threads(), "include_dashboard": False} if address == LOCAL else {}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        _check_that_somebody_listens(address)
        main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGTERM) if main else None
        try:
            self.ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _no_cluster(address, error) from error
        finally:
            if main and handler is not None:
                signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
        self._connected = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connected:
            self._connected = False
            self.ray.shutdown()

    @property
    def hosts(self) -> int:
        """How many hosts have cores to work with."""
        return len(self._cores_of_hosts())

    @property
    def cores(self) -> int:
        """The cores of all hosts together."""
        return sum(self._cores_of_hosts())

    def _cores_of_hosts(self) -> list[int]:
        """Return the cores of each host, without those that have none to work with."""
        cores = [int(node["Resources"].get("CPU", 0)) for node in self.ray.nodes() if node["Alive"]]
        return [each for each in cores if each] or [1]  # the first hosts may be about to come

    def threads_each(self, processes: int) -> int:
        """Return how many threads each of so many processes has, at least 1, at most the cores of the largest host."""
        hosts = self._cores_of_hosts()
        return max(1, min(sum(hosts) // processes, max(hosts), _core.MAX_THREADS))

    def cores_each(self, processes: int) -> float:
        """Return how many cores each of so many processes takes: less than 1 where there are fewer than processes."""
        return self.threads_each(processes) if processes <= self.cores else int(1e4 * self.cores / processes) / 1e4

    def meaning(self, error: BaseException) -> BaseException:
        """Return what an error of Ray's means: that a process has died, or could not begin; or else the error."""
        if not isinstance(error, self.ray.exceptions.RayActorError | self.ray.exceptions.OutOfMemoryError):
            return error
        last = " ".join(str(error).strip().splitlines()[-1].split())[:200]
        if not getattr(error, "actor_init_failed", False):
            return WorkerDiedError(last)
        return RuntimeError(
            f"a process of Ray could not begin ({last}); expected kdistill in the Python of each host, of the same "
            "version, and the modules that the work needs: in the directory of the program, or on PYTHONPATH"
        )

    def share(self, value: Any) -> Any:
        """Put a value into the object store, once for all processes of a host; return what stands for it.

        Raises:
            TypeError: it cannot be sent to another process.
        """
        try:
            return self.ray.put(value)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise TypeError(
                f"the processes of Ray cannot be sent what they need: {error.__cause__ or error}; expected callbacks, "
                "functions and classes that pickle takes"
            ) from error

    def stop(self, process: Any) -> None:
        """End a process at once."""
        with suppress(Exception):  # it may have died, or its cluster
            self.ray.kill(process)
