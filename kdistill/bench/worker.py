"""The process of one program that `kdistill bench --export` measures: it loads, evaluates and tells how long that took.

The parent (`bench.exports`) sends requests over standard input and reads answers from standard output, both pickled.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from .other_runtimes import Forward
    from .outputs import KeptOutputs
    from .side import Side

KDISTILL, PYTORCH, ONNX_RUNTIME, OPENVINO = "kdistill", "PyTorch", "ONNX Runtime", "OpenVINO"
MEASURE, PEAK = "measure", "peak"
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # of what is not int8 in the graph


class Job(NamedTuple):
    """What a process evaluates.

    Attributes:
        runtime: one of those above.
        dtype: to compute in; None: the model's own.
        path: a model directory, or a graph's file.
        dataset: the rows, whose labels are not read.
        batch_size: of the passes in batches.
        singles: numbers of the rows that are evaluated one at a time, int64 (n,).
        threads: of the runtime.
        kept: of the outputs.
    """

    runtime: str
    dtype: str | None
    path: Path
    dataset: Dataset
    batch_size: int
    singles: NDArray[np.int64]
    threads: int
    kept: KeptOutputs


def work() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a runtime prints must not get among the answers
    requests = sys.stdin.buffer

    def answer(value: object) -> None:
        pickle.dump(value, answers)
        answers.flush()

    try:
        job: Job = pickle.load(requests)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            first, warmed = _loaded(job)
            first()
        said = [str(of.message) for of in caught if issubclass(of.category, UserWarning)]
        answer(said if job.runtime == KDISTILL else [])  # it is ready
        side = warmed()
        answer(side.logits)
        while (request := pickle.load(requests)) != PEAK:
            assert request == MEASURE
            side.pass_seconds.clear()
            side.call_seconds.clear()
            side.measure()
            answer((side.pass_seconds, side.call_seconds))
        answer(_peak_bytes())
    except EOFError:  # the parent has ended
        return
    except Exception as error:  # noqa: BLE001  # a runtime may raise anything for a model that it cannot take
        answer(error if isinstance(error, ModuleNotFoundError) else _plain(error))


def _plain(error: Exception) -> Exception:
    """Return an error of a class that the parent can read."""
    from .bench import reason
    from .other_runtimes import CannotRunError

    return error if isinstance(error, CannotRunError) else RuntimeError(reason(error))


def _loaded(job: Job) -> tuple[Callable[[], object], Callable[[], Side]]:
    """Load the program; return what evaluates the first row alone, and what evaluates all to warm up."""
    from .side import Side

    given: Any = (job.dataset, job.batch_size, job.singles)
    if job.runtime == KDISTILL:
        from ..models.auto import load_model
        from ..system.threads import set_num_threads

        set_num_threads(job.threads)
        model = load_model(job.path, language_models=True, dtype=job.dtype).freeze()
        own = partial(Side.of_kdistill, model, *given, kept=job.kept)
        return lambda: model.forward(job.dataset.batch(np.array([0]))[0]), own
    from .other_runtimes import padded

    forward = _forward(job)
    peer = partial(Side.of_peer, forward, *given, kept=job.kept)
    return lambda: forward(padded(job.dataset, np.array([0]))), peer


def _forward(job: Job) -> Forward:
    from .other_runtimes import onnx_session, openvino_forward, openvino_graph, pytorch

    if job.runtime == PYTORCH:
        return pytorch(job.path, job.threads)["eager"]()
    if job.runtime == ONNX_RUNTIME:
        return onnx_session(job.path, job.threads)
    precision = _PRECISIONS[job.dtype or "float32"]
    return openvino_forward(openvino_graph(job.path, job.threads, precision, hint={"PERFORMANCE_HINT": "LATENCY"}))


def _peak_bytes() -> int | None:
    """Return the most memory that this process has had at a time, in bytes; None where Linux does not tell."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return None if found is None else 1024 * int(found[1])
