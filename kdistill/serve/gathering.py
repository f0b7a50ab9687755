"""Texts of many requests gathered into packed batches, computed by one thread while the event loop reads and writes.

There is no waiting for a batch to fill: what has come while one batch was computed is the next one. A request with
many texts takes its turns between the others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from ..metrics.prediction import Logits
from ..system.threads import get_num_threads, using_num_threads
from ..text.blocks import Input, TokenRow
from .classifier import Classifier, Form
from .limits import Limits

_CHARACTERS_OF_A_TOKEN = 4  # English text has about as many; a batch is cut again once its tokens are counted
# A request of fewer operations costs the event loop about as much time as the computation. On two shared cores, 64
# clients of L2-H128-A2 (9e6 operations a sentence) took 361 us of CPU time a request with one thread and 414 with two,
# at 1,742 and 1,597 requests a second; 16 clients of 6 layers of 384 (2e8) got 100 a second with one and 163 with two.
_SMALL_REQUEST = 3e7
_Part = tuple["Job", int, int]


class Job:
    """The texts of one request on their way.

    Attributes:
        inputs: texts or pairs.
        form: how they are to be answered.
        future: its result is `answers`; the event loop's, as is `deadline`.
        answers: an answer to each text.
        cut: how many texts were longer than the model reads.
        begun: how many texts are in a batch or behind one.
        dropped: nobody waits for the rest any more; set by the event loop, looked at by the thread before each batch.
    """

    __slots__ = ("answers", "begun", "cut", "deadline", "dropped", "form", "future", "inputs", "left", "submitted")

    def __init__(self, inputs: Sequence[Input], form: Form, future: asyncio.Future[Any], timeout: float) -> None:
        self.inputs, self.form, self.future = inputs, form, future
        self.answers: list[Any] = [None] * len(inputs)
        self.begun = self.cut = 0
        self.left = len(inputs)
        self.dropped = False
        self.submitted = time.monotonic()
        self.deadline = self.submitted + timeout


class Gatherer:
    """Runs batches of jobs in a thread of its own.

    Args:
        classifier: answers the texts.
        limits: those of the server.
        on_batch: called after each batch with (texts, tokens, seconds), in the thread.
    """

    def __init__(
        self, classifier: Classifier, limits: Limits, on_batch: Callable[[int, int, float], None] = lambda *_: None
    ) -> None:
        self._classifier, self._limits, self._on_batch = classifier, limits, on_batch
        self._arriving: SimpleQueue[Job | None] = SimpleQueue()
        self._jobs: deque[Job] = deque()  # the thread's
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.waiting = 0
        """Texts accepted and not yet answered; the event loop's."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread, which gives results back to this event loop."""
        self._loop = loop
        # A daemon: a program that is told twice to stop does not wait for the batch.
        self._thread = threading.Thread(target=self._run, name="kdistill-batches", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, seconds: float) -> None:
        """Let the thread end after the batch that it computes, and wait so long for it."""
        self._arriving.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    def submit(self, inputs: Sequence[Input], form: Form) -> Job:
        """Enqueue the texts of a request; the job's future has the answers. Called in the event loop."""
        assert self._loop is not None
        job = Job(inputs, form, self._loop.create_future(), self._limits.timeout)
        self.waiting += len(inputs)
        self._arriving.put(job)
        return job

    def release(self, job: Job) -> None:
        """Count a job's texts out, and leave out those not begun. Called in the event loop when nobody waits for it."""
        job.dropped = True
        self.waiting -= len(job.inputs)

    def _run(self) -> None:
        while self._arrived():
            if parts := list(self._take()):
                self._answer(parts)

    def _arrived(self) -> bool:
        """Take all that has come, waiting for a job where there is none; return False at the end."""
        until = 0.0
        if not self._jobs:
            if not self._keep(self._arriving.get()):
                return False
            if self._limits.max_wait_ms:
                until = time.monotonic() + self._limits.max_wait_ms / 1000
        while True:
            wait = until - time.monotonic() if until and not self._is_full() else 0.0
            try:
                job = self._arriving.get(timeout=wait) if wait > 0 else self._arriving.get_nowait()
            except Empty:
                return True
            if not self._keep(job):
                return False

    def _keep(self, job: Job | None) -> bool:
        if job is not None:
            self._jobs.append(job)
        return job is not None

    def _is_full(self) -> bool:
        room = self._limits.max_batch_tokens
        return sum(self._tokens_of(row) for job in self._jobs for row in job.inputs[job.begun :]) >= room

    def _take(self) -> Iterator[_Part]:
        """Yield parts of jobs, (job, first text, end), for a batch of about the largest size."""
        room, rest = self._limits.max_batch_tokens, []
        while self._jobs and room > 0:
            job = self._jobs.popleft()
            if job.dropped:
                continue
            first = job.begun
            while job.begun < len(job.inputs) and room > 0:
                room -= self._tokens_of(job.inputs[job.begun])
                job.begun += 1
            yield job, first, job.begun
            if job.begun < len(job.inputs):
                rest.append(job)
        self._jobs.extend(rest)  # behind those that came meanwhile

    def _tokens_of(self, row: Input) -> int:
        characters = len(row) if isinstance(row, str) else len(row[0]) + len(row[1])
        return min(characters // _CHARACTERS_OF_A_TOKEN + 2, self._classifier.max_length)

    def _answer(self, parts: list[_Part]) -> None:
        """Compute the parts; where that fails, each alone, so that one request's fault is not another's."""
        started = time.perf_counter()
        try:
            tokens = self._compute(parts)
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs into the answer
            if len(parts) > 1:
                for part in parts:
                    self._answer([part])
                return
            self._deliver(parts, error)
            return
        self._on_batch(sum(end - first for _, first, end in parts), tokens, time.perf_counter() - started)
        self._deliver(parts, None)

    def _compute(self, parts: list[_Part]) -> int:
        """Write the answers of the parts into their jobs, and return the number of tokens."""
        rows = self._classifier.tokenise([row for job, first, end in parts for row in job.inputs[first:end]])
        tokens = sum(len(row.ids) for row in rows)
        with using_num_threads(self._threads_for(len(parts), tokens)):
            logits = self._logits(rows)
        forms = {job.form for job, _, _ in parts}
        if len(forms) == 1:
            answers = self._classifier.answers(logits, forms.pop())
        else:
            answers = [None] * len(rows)
            start, places = 0, dict[Form, list[int]]()
            for job, first, end in parts:
                places.setdefault(job.form, []).extend(range(start, start + end - first))
                start += end - first
            for form, chosen in places.items():
                for place, answer in zip(chosen, self._classifier.answers(logits[chosen], form), strict=True):
                    answers[place] = answer
        start = 0
        for job, first, end in parts:
            stop = start + end - first
            job.answers[first:end] = answers[start:stop]
            job.cut += sum(row.is_cut for row in rows[start:stop])
            start = stop
        return tokens

    def _threads_for(self, requests: int, tokens: int) -> int:
        """Return how many threads compute a batch: of small requests one less, whose core the event loop needs."""
        threads = get_num_threads()
        is_small = tokens * self._classifier.flops_per_token < requests * _SMALL_REQUEST
        return max(1, threads - 1) if is_small else threads

    def _logits(self, rows: list[TokenRow]) -> Logits:
        """Return the logits, in passes of the largest size; which rows are together does not change them."""
        most, results = self._limits.max_batch_tokens, []
        first = tokens = 0
        for index, row in enumerate(rows):
            if tokens and tokens + len(row.ids) > most:
                results.append(self._classifier.logits(rows[first:index]))
                first, tokens = index, 0
            tokens += len(row.ids)
        results.append(self._classifier.logits(rows[first:]))
        return results[0] if len(results) == 1 else np.concatenate(results)

    def _deliver(self, parts: list[_Part], error: Exception | None) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._receive, parts, error)
        except RuntimeError:  # the loop has been closed: told to stop at once
            return

    def _receive(self, parts: list[_Part], error: Exception | None) -> None:
        """Give a batch's results to those who wait. Called in the event loop."""
        for job, first, end in parts:
            job.left -= end - first
            if job.future.done():  # its time was over, or another part failed
                continue
            if error is not None:
                job.future.set_exception(error)
            elif job.left == 0:
                job.future.set_result(job.answers)
