"""PyTorch and ONNX Runtime in every setting worth trying: those of `kdistill bench`, and some that take longer to load.

A `Pass` takes all batches and returns all logits, so that a runtime may work on several batches at once.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdistill.bench.other_runtimes import (
    Forward,
    PaddedBatch,
    exported_onnx,
    forward_pass,
    load_torch,
    onnx_session,
    optimize_onnx,
    pytorch,
    torch_forward,
)
from kdistill.models.auto import AutoConfig

Pass = Callable[[Sequence[PaddedBatch]], NDArray[np.float32]]


def compile_frozen(model: Any) -> Any:
    """Return a model compiled for batches of any shape, with its weights as constants that the compiler packs."""
    # With fewer recompilations allowed PyTorch falls back to eager mode, for instance after a batch of a single row.
    torch._dynamo.config.recompile_limit = 64
    return torch.compile(model, dynamic=True, options={"freezing": True})


def torch_passes(directory: Path, threads: int, labels: int, *, compiled: bool) -> dict[str, Pass]:
    """Return PyTorch in eager mode, with oneDNN's products, and compiled with packed weights."""
    forwards = {name: load() for name, load in pytorch(directory, threads).items()}
    if compiled:
        forwards["compiled"] = torch_forward(compile_frozen(load_torch(directory)), mask=True)
    return _passes(forwards, labels)


def bfloat16_passes(directory: Path, labels: int, *, compiled: bool) -> dict[str, Pass]:
    """Return PyTorch in bfloat16, which gives other logits and is faster on CPUs with instructions for it.

    "model" has weights and activations in bfloat16, "autocast" the products alone; "oneDNN" is the model with its
    linear layers packed, and "float32 with bf16 products" rounds inside oneDNN's products.
    """
    import torch.utils.mkldnn

    forwards = {
        "model": torch_forward(load_torch(directory).to(torch.bfloat16)),
        "oneDNN": torch_forward(torch.utils.mkldnn.to_mkldnn(load_torch(directory), torch.bfloat16)),
        "autocast": _autocast(torch_forward(load_torch(directory))),
        "float32 with bf16 products": _bfloat16_products(torch_forward(load_torch(directory))),
    }
    if compiled:
        model, cast = load_torch(directory).to(torch.bfloat16), load_torch(directory)
        forwards["model, compiled"] = torch_forward(compile_frozen(model), mask=True)
        forwards["autocast, compiled"] = _autocast(torch_forward(compile_frozen(cast), mask=True))
    return _passes(forwards, labels)


def int8_passes(directory: Path, labels: int) -> dict[str, Pass]:
    """Return PyTorch with linear layers in dynamic int8, by each of its engines for this CPU."""
    forwards = {}
    for engine in ("x86", "onednn"):
        torch.backends.quantized.engine = engine  # packs the weights, and goes with the model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the function is deprecated in favour of a package of its own
            model = torch.ao.quantization.quantize_dynamic(load_torch(directory), {torch.nn.Linear}, torch.qint8)
        forwards[f"dynamic, {engine}"] = torch_forward(model)
    return _passes(forwards, labels)


def _passes(forwards: Mapping[str, Forward], labels: int) -> dict[str, Pass]:
    return {name: partial(forward_pass, forward, num_labels=labels) for name, forward in forwards.items()}


def _autocast(forward: Forward) -> Forward:
    def cast(batch: PaddedBatch) -> NDArray[np.float32]:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(batch)

    return cast


def _bfloat16_products(forward: Forward) -> Forward:
    def rounded(batch: PaddedBatch) -> NDArray[np.float32]:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        try:
            return forward(batch)
        finally:
            torch.backends.mkldnn.matmul.fp32_precision = "ieee"

    return rounded


def onnx_forwards(directory: Path, threads: int, work: Path, *, int8: bool = False) -> dict[str, Forward]:
    """Return ONNX Runtime with and without its transformer optimiser, with int8 each of them quantised in two ways."""
    exported, optimized = exported_onnx(directory, work), work / "optimised.onnx"
    if not optimized.exists():
        optimize_onnx(exported, optimized, AutoConfig.from_pretrained(directory))
    if not int8:
        return {path.stem: onnx_session(path, threads) for path in (exported, optimized)}
    return {
        f"dynamic{suffix}": onnx_session(_quantized(source, per_channel=per_channel), threads)
        for source, of_source in ((optimized, ""), (exported, ", exported"))
        for per_channel, suffix in ((False, of_source), (True, f"{of_source}, per channel"))
    }


def onnx_passes(directory: Path, threads: int, labels: int, work: Path, *, int8: bool = False) -> dict[str, Pass]:
    """Return ONNX Runtime with all threads on one batch, and with one thread on each of several batches."""
    passes: dict[str, Pass] = {}
    for name, forward in onnx_forwards(directory, threads, work, int8=int8).items():
        passes[name] = partial(forward_pass, forward, num_labels=labels)
    if threads > 1:
        for name, forward in onnx_forwards(directory, 1, work, int8=int8).items():
            passes[f"{name}, {threads} batches at once"] = partial(_at_once, forward, threads, labels)
    return passes


def _at_once(forward: Forward, threads: int, labels: int, batches: Sequence[PaddedBatch]) -> NDArray[np.float32]:
    logits = np.empty((sum(len(batch.rows) for batch in batches), labels), np.float32)
    with ThreadPoolExecutor(threads) as pool:
        for batch, values in zip(batches, pool.map(forward, batches), strict=True):
            logits[batch.rows] = values
    return logits


def _quantized(source: Path, *, per_channel: bool) -> Path:
    """Quantise dynamically, weights to int8 now, activations when they are computed; return the graph's file."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = source.with_name(f"{source.stem}-int8{'-per-channel' if per_channel else ''}.onnx")
    if not target.exists():
        # The optimiser's nodes have no shape inference, so the type of their outputs must be given.
        types = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(
            str(source), str(target), per_channel=per_channel, weight_type=QuantType.QInt8, extra_options=types
        )
    return target


def onnx_nodes(graph: Path) -> dict[str, int]:
    """Return how many nodes of each kind a graph has, the most frequent first: which parts were fused and quantised."""
    import onnx

    kinds = Counter(node.op_type for node in onnx.load(str(graph), load_external_data=False).graph.node)
    return dict(kinds.most_common())
