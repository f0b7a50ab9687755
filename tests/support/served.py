"""A server on a free port of this machine, in a thread of the tests, and requests to it by the standard library."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdistill.serve.app import Service
from kdistill.serve.classifier import Classifier
from kdistill.serve.limits import Limits
from kdistill.serve.server import make_server

PATIENCE = 60  # seconds until a test that waits in vain fails


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(port: int, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@dataclass(frozen=True)
class Served:
    """A running server."""

    port: int
    service: Service
    server: Any

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return request(self.port, method, path, body, **headers)

    def post(self, content: Any, path: str = "/invocations", **headers: str) -> Answer:
        """POST bytes or text as they are, and anything else as JSON."""
        body = content if isinstance(content, (bytes, str)) else json.dumps(content)
        body = body.encode() if isinstance(body, str) else body
        return self.ask("POST", path, body, **({"content_type": "application/json"} | headers))

    def metric(self, name: str) -> float:
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return next((float(line.split(" ")[-1]) for line in lines if line.startswith(f"{name} ")), 0.0)


class Gate:
    """Holds a classifier's passes back until it is opened, and keeps the number of rows of each."""

    def __init__(self, classifier: Classifier) -> None:
        self._open = threading.Event()
        self._logits = classifier.logits
        self.rows: list[int] = []
        classifier.logits = self.logits

    def logits(self, rows: Sequence[Any]) -> Any:
        self.rows.append(len(rows))
        assert self._open.wait(PATIENCE)
        return self._logits(rows)

    def open(self) -> None:
        self._open.set()


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextmanager
def served(model: Path | Classifier, **limits: Any) -> Iterator[Served]:
    """Serve a model directory, or a classifier, and stop in the end."""
    bounds = Limits(**limits)
    classifier = model if isinstance(model, Classifier) else Classifier.load(model, bounds.max_length)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service = Service(classifier, "small", bounds)
        server = make_server(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        port = listener.getsockname()[1]
        thread.start()
        try:
            until(lambda: server.started)
            yield Served(port, service, server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
    assert not thread.is_alive()


def in_threads(calls: Sequence[Callable[[], Any]]) -> tuple[list[Any], Callable[[], None]]:
    """Begin each call in a thread of its own; return their results, complete once the second value is called."""
    results: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        results[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()

    def join() -> None:
        for thread in threads:
            thread.join(PATIENCE)

    return results, join
