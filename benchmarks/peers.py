"""Other runtimes in every setting worth trying: those of `kdistill bench`, and some that take longer to load.

A `Pass` takes all batches and returns all logits, so that a runtime may work on several batches at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    export_onnx,
    forward_pass,
    load_torch,
    onnx_session,
    optimize_onnx,
    pytorch,
    torch_forward,
)
from kdistill.models.config import BertConfig

Pass = Callable[[Sequence[PaddedBatch]], NDArray[np.float32]]


def compile_frozen(directory: Path) -> Any:
    """Return a model compiled for batches of any shape, with its weights as constants that the compiler packs."""
    return torch.compile(load_torch(directory), dynamic=True, options={"freezing": True})


def torch_passes(directory: Path, threads: int, labels: int, *, compiled: bool) -> dict[str, Pass]:
    """Return PyTorch in eager mode, with oneDNN's products, and compiled with packed weights."""
    forwards = pytorch(directory, threads)
    if compiled:
        forwards["compiled"] = torch_forward(compile_frozen(directory), mask=True)
    return {name: partial(forward_pass, forward, num_labels=labels) for name, forward in forwards.items()}


def bfloat16_passes(directory: Path, labels: int) -> dict[str, Pass]:
    """Return PyTorch in bfloat16, which gives other logits and is faster on CPUs with instructions for it."""
    forward = torch_forward(load_torch(directory).to(torch.bfloat16))
    return {"eager": partial(forward_pass, forward, num_labels=labels)}


def onnx_forwards(directory: Path, threads: int, work: Path, *, int8: bool = False) -> dict[str, Forward]:
    """Return ONNX Runtime with and without its transformer optimiser, or with int8 the quantised optimised graph."""
    exported, optimized, quantized = (work / f"{name}.onnx" for name in ("exported", "optimised", "int8"))
    if not optimized.exists():
        export_onnx(directory, exported)
        optimize_onnx(exported, optimized, BertConfig.from_pretrained(directory))
    if not int8:
        return {path.stem: onnx_session(path, threads) for path in (exported, optimized)}
    if not quantized.exists():
        _quantize(optimized, quantized)
    return {"dynamic": onnx_session(quantized, threads)}


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


def _quantize(source: Path, target: Path) -> None:
    """Quantise dynamically: weights to int8 now, activations when they are computed."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The optimiser's nodes have no shape inference, so the type of their outputs must be given.
    types = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, extra_options=types)


def openvino_forward(directory: Path, threads: int, work: Path) -> Forward:
    """Return OpenVINO with the hint for one request at a time."""
    request = _openvino(directory, threads, work, "LATENCY").create_infer_request()

    def forward(batch: PaddedBatch) -> NDArray[np.float32]:
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
        logits: NDArray[np.float32] = request.infer(inputs, share_inputs=True, share_outputs=True)[0]
        return logits

    return forward


def openvino_passes(directory: Path, threads: int, labels: int, work: Path) -> dict[str, Pass]:
    """Return OpenVINO with each of its hints: for one request at a time, and for as many as it recommends."""
    import openvino

    compiled = _openvino(directory, threads, work, "THROUGHPUT")

    def throughput(batches: Sequence[PaddedBatch]) -> NDArray[np.float32]:
        logits = np.empty((sum(len(batch.rows) for batch in batches), labels), np.float32)

        def keep(request: openvino.InferRequest, batch: PaddedBatch) -> None:
            logits[batch.rows] = request.get_output_tensor(0).data

        queue = openvino.AsyncInferQueue(compiled)
        queue.set_callback(keep)
        for batch in batches:
            queue.start_async({"input_ids": batch.ids, "attention_mask": batch.mask}, batch, share_inputs=True)
        queue.wait_all()
        return logits

    latency = partial(forward_pass, openvino_forward(directory, threads, work), num_labels=labels)
    return {"latency": latency, "throughput": throughput}


def _openvino(directory: Path, threads: int, work: Path, hint: str) -> Any:
    import openvino

    exported = work / "exported.onnx"
    if not exported.exists():
        export_onnx(directory, exported)
    # Without the precision hint OpenVINO computes in bfloat16 on CPUs that support it.
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(str(exported), "CPU", settings)
