"""Speed of a model's evaluation on this machine, compared with other runtimes where they are installed."""

from __future__ import annotations

import statistics
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..data.dataset import Dataset
from ..data.labels import NO_LABEL
from ..models.configuration import Config
from ..models.flops import forward_flops, peak_flops
from ..models.model import Model
from ..system.progress import Progress
from ..system.threads import get_num_threads
from ..tasks.registry import task_for
from .other_runtimes import CannotRunError, Variants, onnx_runtime, openvino, pytorch
from .outputs import KeptOutputs
from .side import Logits, Side

ROUNDS = 5
BATCH_SIZE = 128
MOST_LOGITS = 1 << 28  # float32 numbers, 1 GiB, that the default batch of a language model has
SINGLES = 300  # sentences of the passes that take one at a time
# Threads of one program spin for a while after their last work; the next program is measured after that.
PAUSE_SECONDS = 0.1
# Tokens of SST-2's training rows, [CLS] and [SEP] included: the shortest, every twentieth part of them, the longest.
SST2_LENGTHS = (3, 4, 4, 5, 6, 6, 7, 8, 8, 9, 10, 11, 13, 14, 16, 18, 20, 23, 27, 33, 66)
_LONGEST_REASON = 300  # characters

Figures = dict[str, Any]


def synthetic_rows(config: Config, rows: int, seed: int = 0) -> Dataset:
    """Return random token ids, none of padding, in rows with the lengths of SST-2; no time depends on the ids.

    There are no labels: none of rows or, where the head has labels of tokens, none of tokens.

    Args:
        config: gives the vocabulary, the longest row and the head.
        rows: how many rows.
        seed: of lengths and ids.
    """
    rng, padding = np.random.default_rng(seed), config.pad_token_id
    quantiles = np.linspace(0.0, 1.0, len(SST2_LENGTHS))
    lengths = np.interp(rng.random(rows), quantiles, SST2_LENGTHS).astype(np.int64)
    lengths = np.minimum(lengths, config.max_tokens)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    ids = rng.integers(0, config.vocab_size - (padding is not None), starts[-1], np.int32)
    if padding is not None:  # transformers gives a token of this id the position of padding where padding has one
        ids += ids >= padding
    per_token = task_for(config).labels_per_token
    labels = np.full(starts[-1] if per_token else rows, NO_LABEL)
    # Nothing is to be hidden from a language model.
    return Dataset(ids, np.zeros_like(ids), starts, labels, per_token=per_token, hidden=task_for(config).makes_labels)


def default_batch_size(config: Config, dataset: Dataset) -> int:
    """Return the rows of a batch where nobody says: fewer where a language model would have very many logits.

    It has one for every word of the vocabulary at every token, and other runtimes pad rows to the longest.
    """
    if not task_for(config).makes_labels:
        return BATCH_SIZE
    longest = int(dataset.lengths.max(initial=1))
    return max(1, min(BATCH_SIZE, MOST_LOGITS // (longest * config.vocab_size)))


def bench(
    model: Model,
    dataset: Dataset,
    *,
    batch_size: int,
    dtypes: Sequence[str] = ("float32",),
    progress: Progress | None = None,
) -> Figures:
    """Measure evaluation in batches and of single sentences, with all programs in alternation, and take medians.

    Args:
        model: will be frozen.
        dataset: token ids; token types are taken as zeros.
        batch_size: rows of a batch, for all programs. Packing is part of kdistill's time; the batches of the other
            runtimes hold rows of similar length and are padded before the clock starts.
        dtypes: the compute types of kdistill, each a program: "kdistill" for float32, else such as "kdistill int8".
        progress: shows the rounds.

    Returns:
        rows, tokens, batch_size, threads, peak_gflops (measured, of float32 in all threads together), compute (of each
        of `dtypes` the instruction set that multiplies it, None where it is computed portably) and programs. The latter
        gives for each program, by name, the figures of its fastest variant, or why there are none, "not installed
        (PACKAGE)", "cannot run it: WHY" or "failed: REASON": sentences_per_second, median_ms and p99_ms of a single
        sentence, percent_of_peak of the passes in batches (executed matrix products on real tokens, see `models.flops`;
        a narrow type can exceed 100), and largest_difference of its outputs (logits, or embeddings; of a language model
        those that `KeptOutputs` keeps) from those of the first of `dtypes`. Where other variants failed, left_out has
        the reason of each.
    """
    model.freeze()
    own = {
        dtype: model if dtype == "float32" else deepcopy(model).freeze(dtype, keep_weights=False) for dtype in dtypes
    }
    labels = np.full(len(dataset), NO_LABEL)
    dataset = Dataset(dataset.ids, np.zeros_like(dataset.types), dataset.starts, labels)
    threads = get_num_threads()
    peak = peak_flops(threads)
    singles = np.linspace(0, len(dataset) - 1, min(SINGLES, len(dataset))).astype(np.int64)
    kept = KeptOutputs.of(model)
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work, "model")
        model.save_pretrained(directory)
        sides: dict[str, _Program | str] = {
            _name(dtype): _Program({"": Side.of_kdistill(frozen, dataset, batch_size, singles, kept=kept)}, {})
            for dtype, frozen in own.items()
        }
        peers = {
            "PyTorch": partial(pytorch, directory, threads),
            "ONNX Runtime": partial(onnx_runtime, directory, threads, Path(work)),
            "OpenVINO": partial(openvino, directory, threads, Path(work)),
        }
        for name, load in peers.items():
            sides[name] = _load(load, dataset, batch_size, singles, kept)
        running = [
            side for program in sides.values() if not isinstance(program, str) for side in program.sides.values()
        ]
        for turn in range(ROUNDS):
            if progress is not None:
                progress(turn, ROUNDS)
            for side in running:
                time.sleep(PAUSE_SECONDS)
                side.measure()
        if progress is not None:
            progress(ROUNDS, ROUNDS)
    work_of = {own: forward_flops(model.config, dataset.lengths, cls_only=own) for own in (True, False)}
    names = [_name(dtype) for dtype in dtypes]
    reference = running[0].logits
    return {
        "rows": len(dataset),
        "tokens": int(dataset.starts[-1]),
        "batch_size": batch_size,
        "threads": threads,
        "peak_gflops": peak / 1e9,
        "compute": {dtype: _core.COMPUTE[dtype] for dtype in dtypes},
        "programs": {
            name: program
            if isinstance(program, str)
            else _best(program, len(dataset), work_of[name in names] / peak, reference)
            for name, program in sides.items()
        },
    }


def _name(dtype: str) -> str:
    return "kdistill" if dtype == "float32" else f"kdistill {dtype}"


class _Program(NamedTuple):
    """The variants of one program that run, by name, and of those that failed the reasons."""

    sides: Mapping[str, Side]
    failed: Mapping[str, str]


def _load(
    load: Callable[[], Variants], dataset: Dataset, batch_size: int, singles: NDArray[np.int64], kept: KeptOutputs
) -> _Program | str:
    """Return a runtime's variants, or why none runs, as `bench` gives it."""
    sides: dict[str, Side] = {}
    failed: dict[str, str] = {}
    try:
        for name, variant in load().items():
            try:
                sides[name] = Side.of_peer(variant(), dataset, batch_size, singles, kept=kept)
            except (ModuleNotFoundError, CannotRunError):
                raise
            except Exception as error:  # noqa: BLE001  # a runtime may raise anything for a model that it cannot take
                failed[name] = reason(error)
    except ModuleNotFoundError as error:
        return f"not installed ({error.name})"
    except CannotRunError as error:
        return f"cannot run it: {error}"
    except Exception as error:  # noqa: BLE001
        return f"failed: {reason(error)}"
    return _Program(sides, failed) if sides else f"failed: {'; '.join(dict.fromkeys(failed.values()))}"


def reason(error: Exception) -> str:
    """Return an error as one line that is not too long."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST_REASON, placeholder=" ...")


def _best(program: _Program, rows: int, seconds_at_peak: float, reference: Logits) -> Figures:
    """Return the figures of a program, each that of its fastest variant."""
    variants = program.sides.values()
    in_batches = min(variants, key=lambda side: statistics.median(side.pass_seconds))
    alone = min(variants, key=lambda side: statistics.median(side.call_seconds))
    seconds = statistics.median(in_batches.pass_seconds)
    figures: Figures = {
        "sentences_per_second": rows / seconds,
        "median_ms": 1e3 * statistics.median(alone.call_seconds),
        "p99_ms": 1e3 * float(np.percentile(alone.call_seconds, 99)),
        "percent_of_peak": 100 * seconds_at_peak / seconds,
        "largest_difference": float(np.abs(in_batches.logits - reference).max()),
    }
    return figures | ({"left_out": dict(program.failed)} if program.failed else {})


def table(figures: Figures) -> str:
    """Return the figures of `bench` as lines of text."""
    threads, width = figures["threads"], max(14, *(len(name) + 2 for name in figures["programs"]))
    compute = ", ".join(f"{dtype} by {isa or 'portable kernels'}" for dtype, isa in figures["compute"].items())
    lines = [
        f"{figures['model']}: {figures['rows']:,} rows, {figures['tokens']:,} tokens, batch size "
        f"{figures['batch_size']}, {threads} thread{'s' * (threads > 1)}; peak {figures['peak_gflops']:.0f} GF/s; "
        f"{compute}",
        f"{'':{width}}{'sentences/s':>12}{'ms, median':>12}{'ms, p99':>10}{'% of peak':>11}{'logits differ by':>18}",
    ]
    for name, program in figures["programs"].items():
        if isinstance(program, str):
            lines.append(f"{name:{width}}  {program}")
        else:
            lines.append(
                f"{name:{width}}{program['sentences_per_second']:>12,.0f}{program['median_ms']:>12.3f}"
                f"{program['p99_ms']:>10.3f}{program['percent_of_peak']:>11.1f}{program['largest_difference']:>18.1e}"
            )
            left_out = program.get("left_out", {})
            lines += [
                f"{'':{width}}  without {variant}, which failed: {reason}" for variant, reason in left_out.items()
            ]
    return "\n".join(lines)
