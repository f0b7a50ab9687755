"""The figures of `/metrics`, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import __version__
from .classifier import Classifier

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Metrics:
    """The counters of one server, in a registry of their own.

    Args:
        classifier: what is served.
        name: of the model.
        waiting: returns how many texts are accepted and not yet answered.
    """

    content_type: str

    def __init__(self, classifier: Classifier, name: str, waiting: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
        from prometheus_client.exposition import CONTENT_TYPE_LATEST

        self.content_type = CONTENT_TYPE_LATEST
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "kdistill_requests", "Requests for predictions, by the status of the answer", ["status"], registry=registry
        )
        self._by_status: dict[int, Any] = {}
        self._latency = Histogram(
            "kdistill_request_seconds",
            "Seconds from a request's headers to its answer, of those answered with 200",
            buckets=_SECONDS,
            registry=registry,
        )
        self._texts = Histogram("kdistill_batch_texts", "Texts of a batch", buckets=_TEXTS, registry=registry)
        self._tokens = Histogram("kdistill_batch_tokens", "Tokens of a batch", buckets=_TOKENS, registry=registry)
        self._batch = Histogram("kdistill_batch_seconds", "Seconds of a batch", buckets=_SECONDS, registry=registry)
        self._cut = Counter(
            "kdistill_truncated_texts", "Texts cut to the tokens that the model reads", registry=registry
        )
        queue = Gauge("kdistill_queue_texts", "Texts accepted and not yet answered", registry=registry)
        queue.set_function(waiting)
        info = Info("kdistill_model", "The model that is served", registry=registry)
        info.info({"name": name, "version": __version__, "labels": ",".join(classifier.labels)})
        self.answered = 0
        """Requests answered with 200."""
        self.texts = 0
        """Texts computed."""

    def on_answer(self, status: int, seconds: float, cut: int = 0) -> None:
        """Count an answer; `cut` is how many of its texts were cut."""
        if status not in self._by_status:
            self._by_status[status] = self._requests.labels(str(status))
        self._by_status[status].inc()
        if status == 200:
            self.answered += 1
            self._latency.observe(seconds)
        if cut:
            self._cut.inc(cut)

    def on_batch(self, texts: int, tokens: int, seconds: float) -> None:
        """Count a batch."""
        self.texts += texts
        self._texts.observe(texts)
        self._tokens.observe(tokens)
        self._batch.observe(seconds)

    def page(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        from prometheus_client import generate_latest

        return bytes(generate_latest(self._registry))
