"""A model in all forms in which it can be deployed, each in a process of its own: `kdistill bench --export`."""

from __future__ import annotations

import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..compress.int8 import bytes_of_weights, quantize
from ..data.dataset import Dataset
from ..data.labels import NO_LABEL, labelled_rows
from ..data.ragged import outputs_of
from ..exporters.export import export
from ..models.auto import load_model
from ..models.model import Model
from ..system.cpu import cpu_name
from ..system.progress import Progress
from ..system.threads import get_num_threads
from ..tasks.registry import task_for
from .bench import PAUSE_SECONDS, ROUNDS, SINGLES, reason
from .other_runtimes import CannotRunError
from .outputs import KeptOutputs
from .side import Logits
from .worker import KDISTILL, MEASURE, ONNX_RUNTIME, OPENVINO, PEAK, PYTORCH, Job

Figures = dict[str, Any]


class Subject(NamedTuple):
    """A model to measure.

    Attributes:
        name: what the user calls it.
        directory: of the model.
        rows: as this model's tokenizer reads them.
        threads: of its programs; None: those of kdistill here.
    """

    name: str
    directory: Path
    rows: Dataset
    threads: int | None = None


class Files:
    """The files of a model in other forms, which are written when they are first asked for."""

    def __init__(self, subject: Subject, work: Path) -> None:
        self._subject, self._work = subject, work

    @property
    def directory(self) -> Path:
        """The model's own directory."""
        return self._subject.directory

    @cached_property
    def artefact(self) -> Path:
        """The directory of an int8 artefact, with golden logits of the rows."""
        if self.loaded.quantization is not None:
            raise CannotRunError("it is in int8 already")
        quantize(self.loaded, self._subject.rows, self._work / "artefact")
        return self._work / "artefact"

    @cached_property
    def loaded(self) -> Model:
        """The model, which tells its kind."""
        return load_model(self.directory, language_models=True)

    @cached_property
    def graph(self) -> Path:
        """The ONNX file in float32."""
        return self._exported("float32", "onnx")

    @cached_property
    def int8_graph(self) -> Path:
        """The ONNX file in int8."""
        return self._exported("int8", "onnx", "onnxruntime")

    def _exported(self, dtype: str, *packages: str) -> Path:
        for package in packages:
            if find_spec(package) is None:
                raise ModuleNotFoundError(f"no module {package}", name=package)
        return export(self.directory, self._work / f"{dtype}.onnx", format="onnx", dtype=dtype).path


class Program(NamedTuple):
    """A runtime with a form of the model."""

    runtime: str
    dtype: str | None
    file: Callable[[Files], Path]


def _of_model(files: Files) -> Path:
    return files.directory


PROGRAMS: Mapping[str, Program] = {
    "kdistill-float32": Program(KDISTILL, "float32", _of_model),
    "kdistill-bfloat16": Program(KDISTILL, "bfloat16", _of_model),
    "kdistill-int8": Program(KDISTILL, "int8", _of_model),
    "artefact": Program(KDISTILL, None, lambda files: files.artefact),
    "onnxruntime-float32": Program(ONNX_RUNTIME, "float32", lambda files: files.graph),
    "onnxruntime-int8": Program(ONNX_RUNTIME, "int8", lambda files: files.int8_graph),
    "openvino-float32": Program(OPENVINO, "float32", lambda files: files.graph),
    "openvino-bfloat16": Program(OPENVINO, "bfloat16", lambda files: files.graph),
    "openvino-int8": Program(OPENVINO, "int8", lambda files: files.int8_graph),
    "pytorch-float32": Program(PYTORCH, "float32", _of_model),
}
"""Every program, by its name in `--export`."""


def bench_exports(
    asked: Sequence[tuple[Subject, Sequence[str]]], *, batch_size: int, progress: Progress | None = None
) -> Figures:
    """Measure models in several programs, each in a process of its own, in alternating rounds, and take medians.

    Args:
        asked: models, all on as many rows, each with names of `PROGRAMS`. A model may be asked for again with other
            threads.
        batch_size: rows of a batch, as in `bench`.
        progress: shows the rounds.

    Returns:
        cpu, threads, rows, batch_size and measured: a list with `model`, `program`, `threads` and either `left_out`,
        why it did not run, or: rows_per_second in batches; median_ms and p99_ms of a row alone, and alone_per_second,
        how many follow each other in a second; metrics of the labelled rows, and metric, the name of the one that tells
        most (None without labels); bytes of the weights' or the graph's file; peak_bytes of the process, interpreter
        and libraries included; start_seconds, from the start of the process to the logits of a first row; and warnings,
        where there are some, such as that of an artefact whose golden logits differ.
    """
    threads = get_num_threads()
    measured: list[Figures] = []
    with ExitStack() as stack:
        running: list[tuple[Figures, _Process, Figures]] = []
        written: dict[Path, Files] = {}
        for subject, names in asked:
            if subject.directory not in written:
                work = stack.enter_context(tempfile.TemporaryDirectory(prefix="kdistill-"))
                written[subject.directory] = Files(subject, Path(work))
            files, of_program = written[subject.directory], subject.threads or threads
            for name in names:
                figures: Figures = {"model": subject.name, "program": name, "threads": of_program}
                measured.append(figures)
                process: _Process | None = None
                with _left_out(figures):
                    process = stack.enter_context(_started(PROGRAMS[name], subject, files, batch_size, of_program))
                if process is None:
                    continue
                made: Figures = {"bytes": process.bytes, "start_seconds": process.start_seconds}
                made |= _of_logits(process.logits, subject.rows, files.loaded)
                made |= {"warnings": process.warnings} if process.warnings else {}
                running.append((figures, process, made))
        for turn in range(ROUNDS):
            if progress is not None:
                progress(turn, ROUNDS)
            for figures, process, _ in running:
                time.sleep(PAUSE_SECONDS)
                with _left_out(figures):
                    process.measure()
            running = [of for of in running if "left_out" not in of[0]]
        if progress is not None:
            progress(ROUNDS, ROUNDS)
        for figures, process, made in running:
            with _left_out(figures):
                figures |= process.figures() | made
    rows = len(asked[0][0].rows)
    return {"cpu": cpu_name(), "threads": threads, "rows": rows, "batch_size": batch_size, "measured": measured}


@contextmanager
def _left_out(figures: Figures) -> Iterator[None]:
    """Note in the figures of a program why it fails, if it does: the others go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # a runtime may raise anything for a model
        figures["left_out"] = _why(error)


def _why(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"not installed ({error.name})"
    if isinstance(error, CannotRunError):
        return f"cannot run it: {error}"
    return f"failed: {error}" if type(error) is RuntimeError else f"failed: {reason(error)}"


def _of_logits(logits: Logits, rows: Dataset, model: Model) -> Figures:
    """Return what the labels say of the logits, and which figure of it tells most; nothing without labels.

    Nothing of a language model either: its labels are words that are hidden, and the programs read the texts as they
    are.
    """
    task = task_for(model.config, rows.labels)
    if task.makes_labels or not labelled_rows(rows.targets).any():
        return {"metrics": {}, "metric": None}
    metrics = dict(task.evaluate(outputs_of(logits, rows.starts, model.per_token), rows.targets))
    best = next((name for name in (task.best_metric, *task.default_metrics, "loss") if name in metrics), None)
    return {"metrics": metrics, "metric": best}


class _Process:
    """The process of a program, which has evaluated all rows once."""

    def __init__(self, process: subprocess.Popen[bytes], job: Job) -> None:
        self._process, self._rows = process, len(job.dataset)
        self._pass_seconds: list[float] = []
        self._call_seconds: list[list[float]] = []
        started = time.perf_counter()
        self._send(job)
        self.warnings: list[str] = self._receive()
        self.start_seconds = time.perf_counter() - started
        self.logits: Logits = self._receive()
        self.bytes = bytes_of_weights(job.path) if job.path.is_dir() else job.path.stat().st_size

    def _send(self, request: object) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # the answer tells of it

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        try:
            answer = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):  # perhaps in the middle of an answer
            raise RuntimeError(f"its process ended with status {self._process.wait()}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def measure(self) -> None:
        """Measure a round."""
        self._send(MEASURE)
        passes, calls = self._receive()
        self._pass_seconds += passes
        self._call_seconds.append(calls)

    def figures(self) -> Figures:
        """Return the figures of all rounds; the process ends."""
        self._send(PEAK)
        calls = [seconds for of_round in self._call_seconds for seconds in of_round]
        return {
            "rows_per_second": self._rows / statistics.median(self._pass_seconds),
            "median_ms": 1e3 * statistics.median(calls),
            "p99_ms": 1e3 * float(np.percentile(calls, 99)),
            "alone_per_second": statistics.median(len(of) / sum(of) for of in self._call_seconds),
            "peak_bytes": self._receive(),
        }


@contextmanager
def _started(program: Program, subject: Subject, files: Files, batch_size: int, threads: int) -> Iterator[_Process]:
    """Start the process of a program and yield it when it has evaluated all rows; it is ended afterwards."""
    path, rows = program.file(files), subject.rows
    singles = np.linspace(0, len(rows) - 1, min(SINGLES, len(rows))).astype(np.int64)
    tokens = Dataset(rows.ids, rows.types, rows.starts, np.full(len(rows), NO_LABEL))
    kept = KeptOutputs.of(files.loaded)
    job = Job(program.runtime, program.dtype, path, tokens, batch_size, singles, threads, kept)
    # The modules of this process, wherever it found them.
    code = f"import sys; sys.path[:] = {sys.path!r}; from kdistill.bench.worker import work; work()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        try:
            yield _Process(process, job)
        finally:
            process.kill()
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # of what a process that died has not read
                process.stdin.close()


def table(figures: Figures) -> str:
    """Return the figures of `bench_exports` as a table in Markdown."""
    metric = next((of["metric"] for of in figures["measured"] if of.get("metric")), None)
    several = len({of["model"] for of in figures["measured"]}) > 1
    header = [
        *(["model"] if several else []),
        *("program", "rows/s", "ms a row, median", "p99", metric or "no labels", "file, MB", "memory, MB", "start, s"),
    ]
    lines, notes = [header], []
    for of in figures["measured"]:
        names = [*([of["model"]] if several else []), of["program"]]
        if "left_out" in of:
            notes.append(f"{' '.join(reversed(names))}: {of['left_out']}")
            continue
        notes += [f"{' '.join(reversed(names))}: {said}" for said in of.get("warnings", ())]
        peak, value = of["peak_bytes"], of["metrics"].get(metric)
        lines.append(
            [
                *names,
                f"{of['rows_per_second']:,.0f}",
                f"{of['median_ms']:.3f}",
                f"{of['p99_ms']:.3f}",
                "" if value is None else f"{value:.4f}",
                f"{of['bytes'] / 1e6:.1f}",
                "" if peak is None else f"{peak / 1e6:.0f}",
                f"{of['start_seconds']:.2f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    threads, rows = figures["threads"], figures["rows"]
    head = f"{figures['model']}: {rows:,} rows, batch size {figures['batch_size']}, {threads} thread"
    head += f"{'s' * (threads > 1)}, {figures['cpu']}"
    return "\n".join([head, "", *shown, *([""] if notes else []), *notes])
