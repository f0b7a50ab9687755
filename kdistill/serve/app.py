"""The endpoints, as an ASGI application of starlette."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..system.files import json_text
from ..system.progress import say
from ..system.threads import get_num_threads
from .classifier import Classifier
from .gathering import Gatherer, Job
from .limits import Limits
from .media_types import CSV, JSON, JSON_LINES, type_of_answer, type_of_request
from .metrics import Metrics
from .questions import Question, read_question
from .refusal import Refusal

if TYPE_CHECKING:
    from starlette.applications import Starlette

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_TYPES = {name: name.encode() for name in (JSON, JSON_LINES, CSV)}
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_TIDIED = 0.1  # seconds between looks at jobs that wait
# A body is read, and forgotten, up to so many times the bytes allowed, for the client to see the answer.
_READ_BEYOND = 8


class Disconnected(Exception):  # noqa: N818  # the end of a request, which nobody reports
    """The client is gone."""


class Service:
    """A served model: what the endpoints share.

    Args:
        classifier: answers the texts.
        name: of the model, as shown.
        limits: when to refuse.
    """

    def __init__(self, classifier: Classifier, name: str, limits: Limits) -> None:
        self.classifier, self.name, self.limits = classifier, name, limits
        self.started = time.time()
        self.stopping = False
        self.metrics = Metrics(classifier, name, lambda: self.gatherer.waiting)
        self.gatherer = Gatherer(classifier, limits, self.metrics.on_batch)
        self._jobs: dict[Job, Receive] = {}
        self._watched: dict[Job, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Start the batches and the look at jobs that wait. Called in the event loop."""
        loop = asyncio.get_running_loop()
        self.gatherer.start(loop)
        self._tidying = loop.create_task(self._tidy())

    def stop(self, seconds: float = 0.0) -> None:
        """Stop both, and wait so long for the batch that is computed."""
        self._tidying.cancel()
        self.gatherer.stop(seconds)

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return self.gatherer.is_alive and not self.stopping

    async def answers(self, question: Question, receive: Receive) -> Job:
        """Let the texts of a question be answered; the job that is returned has the answers.

        Raises:
            Refusal: 429, 503 or 500.
            Disconnected: the client is gone.
        """
        waiting, most = self.gatherer.waiting, self.limits.max_queue
        if waiting >= most:
            sentence = f"{waiting:,} texts wait already, and the queue takes {most:,} (--max-queue); try again later"
            raise Refusal(429, sentence, {"retry-after": "1"})
        job = self.gatherer.submit(question.inputs, question.form)
        self._jobs[job] = receive
        try:
            await job.future
        except (Refusal, Disconnected):
            raise
        except asyncio.CancelledError:  # uvicorn's, at the end of the time for a graceful stop
            raise Refusal(503, "the server stops, and its time to finish is over (--graceful-timeout)") from None
        except MemoryError as error:
            raise Refusal(503, f"there is too little memory: {error}", {"retry-after": "1"}) from error
        except ValueError as error:
            raise Refusal(400, str(error)) from error
        except Exception as error:
            say(f"kdistill: error: a batch failed: {type(error).__name__}: {error}")
            raise Refusal(500, f"the model failed: {type(error).__name__}; the server's log has more") from error
        finally:
            self.gatherer.release(job)
            del self._jobs[job]
            if job in self._watched:
                self._watched.pop(job).cancel()
        return job

    async def _tidy(self) -> None:
        """Drop jobs that have waited too long, and watch whether the clients of those that wait are still there."""
        while True:
            await asyncio.sleep(_TIDIED)
            now = time.monotonic()
            for job, receive in self._jobs.items():
                if job.future.done():
                    continue
                if now > job.deadline:
                    sentence = f"the request waited {self.limits.timeout:g} seconds for its answer (--timeout); "
                    job.future.set_exception(Refusal(503, f"{sentence}try again later", {"retry-after": "1"}))
                elif job not in self._watched:
                    self._watched[job] = asyncio.create_task(self._watch(job, receive))

    async def _watch(self, job: Job, receive: Receive) -> None:
        """Drop the job once its client is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if not job.future.done():
            job.future.set_exception(Disconnected())


class Endpoint:
    """The endpoint that answers texts."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        service, cut, headers = self._service, 0, []
        try:
            given = dict(scope["headers"])
            check_headers(given)
            content_type = type_of_request(given.get(b"content-type"))
            accepted = type_of_answer(given.get(b"accept"), content_type)
            body = await read_body(receive, given.get(b"content-length"), service.limits)
            question = read_question(content_type, body, service.limits.max_texts)
            job = await service.answers(question, receive)
            status, content, cut = 200, written(question, job.answers, accepted), job.cut
            headers = [(b"content-type", _TYPES[accepted])]
            if cut:
                headers.append((b"x-kdistill-truncated", b"%d" % cut))
        except Disconnected:
            service.metrics.on_answer(499, 0.0)
            return
        except Refusal as refusal:
            status, content = refusal.status, json.dumps({"error": refusal.sentence}).encode()
            headers = [(b"content-type", b"application/json")]
            headers += [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        service.metrics.on_answer(status, time.perf_counter() - started, cut)


def check_headers(given: Mapping[bytes, bytes]) -> None:
    """Check that the body reaches us, and as it is.

    Raises:
        Refusal: 400 for an offer to upgrade the connection, after which httptools passes no body on, and which Java's
            HttpClient makes unless it is told otherwise; 415 for a compressed body.
    """
    if b"upgrade" in given.get(b"connection", b"").lower():
        sentence = (
            "the request offers an upgrade of the connection, by which its body is lost; make the client use HTTP/1.1"
        )
        raise Refusal(400, sentence, {"connection": "close"})
    encoding = given.get(b"content-encoding", b"identity").decode("latin-1")
    if encoding.lower() not in ("identity", ""):
        raise Refusal(415, f"Content-Encoding is {encoding[:80]!r}; send the body as it is")


async def read_body(receive: Receive, length: bytes | None, limits: Limits) -> bytes | bytearray:
    """Return the body of a request.

    Raises:
        Refusal: 413 where it is too large, counted while it is read; 408 where it does not come in time.
        Disconnected: the client is gone.
    """
    most = limits.max_request_bytes
    too_large = Refusal(
        413, f"the body is larger than {most:,} bytes (--max-request-bytes); send fewer texts", {"connection": "close"}
    )
    if length is not None and length.isdigit() and int(length) > _READ_BEYOND * most:
        raise too_large
    size, body = 0, b""
    try:
        async with asyncio.timeout(limits.timeout):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                part = message.get("body", b"")
                size += len(part)
                if size <= most:
                    body = part if size == len(part) else body + part
                more = message.get("more_body", False)
                if size > most and (not more or size > _READ_BEYOND * most):
                    raise too_large
                if not more:
                    return body
    except TimeoutError:
        sentence = f"the body did not come within {limits.timeout:g} seconds (--timeout)"
        raise Refusal(408, sentence, {"connection": "close"}) from None


def written(question: Question, answers: list[Any], media_type: str) -> bytes:
    """Return the answers as an HTTP body of this type.

    JSON has the shape of a pipeline's answer, JSON lines have an answer a line, and CSV label,score (of several labels
    label,score,label,score,...) in a line for each text, without a header.
    """
    if media_type == JSON:
        return _json(question.shaped(answers)).encode()
    if media_type == JSON_LINES:
        return "".join(f"{_json(answer)}\n" for answer in answers).encode()
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for answer in answers:
        labels = answer if isinstance(answer, list) else [answer]
        writer.writerow([value for label in labels for value in (label["label"], label["score"])])
    return file.getvalue().encode()


def _json(value: Any) -> str:
    try:
        return _encode(value)
    except ValueError:  # a score that is no number: null, as in all JSON of kdistill
        return json_text(value, ensure_ascii=False)


def make_app(service: Service) -> Starlette:
    """Return the application with all endpoints."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def ping(_: Request) -> Response:
        return Response(status_code=200 if service.is_ready else 503)

    async def health(_: Request) -> Response:
        return JSONResponse(health_of(service), status_code=200 if service.is_ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.page(), headers={"content-type": service.metrics.content_type})

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentence = f"{error.detail}; expected POST /invocations or /predict, or GET /ping, /health or /metrics"
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    endpoint = Endpoint(service)
    routes = [
        Route("/invocations", endpoint, methods=["POST"]),
        Route("/predict", endpoint, methods=["POST"]),
        Route("/ping", ping),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: refused})


def health_of(service: Service) -> dict[str, Any]:
    """Return what `/health` shows."""
    classifier, limits = service.classifier, service.limits
    return {
        "status": "ready" if service.is_ready else "stopping" if service.stopping else "failed",
        "model": service.name,
        "dtype": str(service.classifier.model.dtype),
        "version": __version__,
        "problem_type": classifier.task.name,
        "labels": classifier.labels,
        "threshold": classifier.task.threshold,
        "max_length": classifier.max_length,
        "threads": get_num_threads(),
        "uptime_seconds": round(time.time() - service.started, 3),
        "queue": {"texts": service.gatherer.waiting, "max_texts": limits.max_queue},
        "requests": service.metrics.answered,
    }
