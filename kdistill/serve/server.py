"""`serve`: a model directory behind HTTP until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ..hub import public_name
from ..system.progress import say
from .app import Service, make_app
from .classifier import Classifier
from .limits import HOST, PORT, Limits

_SWITCH = 0.0005  # seconds
_BACKLOG = 2048
_LAST_BATCH = 5.0  # seconds that a stopping server gives to a batch that nobody waits for
_KEEP_ALIVE = 75  # seconds that an idle connection stays open: longer than load balancers keep theirs


def serve(
    model: str | os.PathLike[str],
    *,
    host: str = HOST,
    port: int = PORT,
    limits: Limits | None = None,
    dtype: str | None = None,
) -> dict[str, Any]:
    """Serve a model until SIGTERM or Ctrl-C, then answer what is accepted and return.

    A second signal ends at once: it is raised again, with the handlers that were there before.

    Args:
        model: a directory or hub id.
        host: the address to listen at; "0.0.0.0" for all.
        port: 0 for a free one.
        limits: when requests are refused.
        dtype: the compute type, see `Model.freeze` (default: the model's: float32, or int8 of an artefact).

    Returns:
        requests (answered with 200), texts, seconds and unanswered (requests cut off at the end).

    Raises:
        ModuleNotFoundError: the extra `serve` is not installed.
        OSError: the address cannot be had.
        ValueError: the model's files do not fit together.
    """
    _require_packages()
    limits = limits or Limits()
    listener = _bound(host, port)
    with listener:
        started = time.monotonic()
        service = Service(Classifier.load(model, limits.max_length, dtype), public_name(os.fspath(model)), limits)
        server = make_server(service)
        try:
            with _settings_of_a_server():
                server.run(sockets=[listener])
        except OSError as error:
            raise _in_use(error, host, port) from error
    if server.force_exit:
        signal.raise_signal(server.signals[-1])
    return {
        "requests": service.metrics.answered,
        "texts": service.metrics.texts,
        "seconds": time.monotonic() - started,
        "unanswered": server.unanswered,
    }


@contextmanager
def _settings_of_a_server() -> Iterator[None]:
    """Set what this process needs to answer many small requests, and set it back.

    A batch is tokenised by one thread: the pool of the package tokenizers takes 90 us of CPU time for a sentence of
    SST-2, and one thread 60. The thread that computes gets the GIL after half a millisecond instead of five.
    """
    name, interval = "TOKENIZERS_PARALLELISM", sys.getswitchinterval()
    given = os.environ.get(name)
    os.environ.setdefault(name, "false")
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if given is None:
            del os.environ[name]


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket at the address, which does not listen yet: until the model is loaded, nobody is let in."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is {port}; expected 0 to 65535, 0 for a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise OSError(f"--host is {host!r}, which is no address of this machine: {error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _in_use(error, host, port) from error
    return listener


def _in_use(error: OSError, host: str, port: int) -> OSError:
    return OSError(f"cannot listen at {host}, port {port}: {error.strerror or error}; choose another --host or --port")


def _address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _OneLine(logging.Handler):
    """Shows errors of the server as all errors of the program."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:  # what has none is part of a stop, which ends with a line of its own
            say(f"kdistill: error: {record.getMessage().strip()}: {type(error).__name__}: {error}")


def _require_packages() -> None:
    try:
        import prometheus_client  # noqa: F401  # to fail before the model is loaded
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"kdistill serve needs the package {error.name}; install it with `pip install 'kdistill[serve]'`"
        ) from error


def make_server(service: Service) -> Any:
    """Return uvicorn's server with our start and end.

    Its attribute `signals` has the signals that told it to stop; `unanswered` counts the requests cut off then.
    """
    import uvicorn

    class _Server(uvicorn.Server):  # type: ignore[misc]  # not in the environment of the linters
        def __init__(self) -> None:
            config = uvicorn.Config(
                make_app(service),
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=service.limits.graceful_timeout,
            )
            super().__init__(config)
            self.should_exit = self.force_exit = False
            self.signals: list[int] = []
            self.unanswered = 0

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.force_exit = self.should_exit
            self.should_exit = True
            self.signals.append(sig)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            assert sockets is not None
            service.start()
            try:
                await super().startup(sockets)
            except OSError:
                service.stop()
                raise
            say(f"kdistill: serving {service.name} at {_address_of(sockets[0])}; Ctrl-C or SIGTERM stops")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.stopping = True
            try:
                await super().shutdown(sockets)
            finally:
                self.unanswered = len(self.server_state.tasks)
                service.stop(0 if self.force_exit else _LAST_BATCH)

    logger = logging.getLogger("uvicorn")
    logger.handlers, logger.propagate = [_OneLine(logging.ERROR)], False
    return _Server()
