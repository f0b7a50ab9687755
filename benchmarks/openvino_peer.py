"""OpenVINO in every setting worth trying, for each compute type, on models exported to ONNX.

int8 models come from NNCF, OpenVINO's own tool. "calibrated" has weights and activations in int8, with ranges from
calibration rows; "weights" has weights in int8 and quantises activations while it runs, as OpenVINO decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdistill.bench.other_runtimes import (
    Forward,
    PaddedBatch,
    exported_onnx,
    forward_pass,
    openvino_forward,
    openvino_graph,
)

from .peers import Pass

PRECISIONS: Mapping[str, str] = {"float32": "f32", "bfloat16": "bf16"}


def latency_forward(directory: Path, threads: int, work: Path, precision: str = "f32") -> Forward:
    """Return OpenVINO with the hint for one request at a time."""
    model = exported_onnx(directory, work)
    return openvino_forward(openvino_graph(model, threads, precision, hint=_hints(threads)["latency"]))


def openvino_passes(
    directory: Path,
    threads: int,
    labels: int,
    work: Path,
    dtype: str = "float32",
    calibration: Sequence[PaddedBatch] = (),
) -> dict[str, Pass]:
    """Return OpenVINO with each of its hints: for one request at a time, and for as many as there are streams.

    Args:
        directory: the model.
        threads: of all streams together.
        labels: of the model.
        work: where exported and quantised models are kept.
        dtype: float32, bfloat16 or int8; what int8 leaves out is computed in bfloat16 or float32, two settings.
        calibration: rows for int8, one a batch.
    """
    model = exported_onnx(directory, work)
    if dtype != "int8":
        return _of_hints(model, threads, labels, PRECISIONS[dtype], "")
    passes: dict[str, Pass] = {}
    for name, quantised in (("calibrated", _calibrated(model, work, calibration)), ("weights", _weights(model, work))):
        for precision in PRECISIONS.values():
            passes |= _of_hints(quantised, threads, labels, precision, f"{name}, rest {precision}, ")
    return passes


def _hints(threads: int) -> dict[str, dict[str, Any]]:
    """Return the settings of each hint, by name; THROUGHPUT's own number of streams is not always the best."""
    hints: dict[str, dict[str, Any]] = {name.lower(): {"PERFORMANCE_HINT": name} for name in ("LATENCY", "THROUGHPUT")}
    if threads > 1:
        hints[f"{threads} streams"] = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": threads}
    return hints


def _of_hints(model: Path, threads: int, labels: int, precision: str, prefix: str) -> dict[str, Pass]:
    passes: dict[str, Pass] = {}
    for name, hint in _hints(threads).items():
        compiled = openvino_graph(model, threads, precision, hint=hint)
        if name == "latency":
            passes[prefix + name] = partial(forward_pass, openvino_forward(compiled), num_labels=labels)
        else:
            passes[prefix + name] = partial(_in_streams, compiled, labels)
    return passes


def _in_streams(compiled: Any, labels: int, batches: Sequence[PaddedBatch]) -> NDArray[np.float32]:
    import openvino

    logits = np.empty((sum(len(batch.rows) for batch in batches), labels), np.float32)

    def keep(request: openvino.InferRequest, batch: PaddedBatch) -> None:
        logits[batch.rows] = request.get_output_tensor(0).data

    queue = openvino.AsyncInferQueue(compiled)
    queue.set_callback(keep)
    for batch in batches:
        queue.start_async({"input_ids": batch.ids, "attention_mask": batch.mask}, batch, share_inputs=True)
    queue.wait_all()
    return logits


def _calibrated(model: Path, work: Path, calibration: Sequence[PaddedBatch]) -> Path:
    """Quantise weights and activations, with NNCF's scheme for transformers; return the model's file."""
    import nncf
    import openvino

    target = work / "calibrated.xml"
    if not target.exists():
        rows = nncf.Dataset([{"input_ids": batch.ids, "attention_mask": batch.mask} for batch in calibration])
        graph = openvino.Core().read_model(model)
        quantised = nncf.quantize(graph, rows, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration))
        openvino.save_model(quantised, target, compress_to_fp16=False)
    return target


def _weights(model: Path, work: Path) -> Path:
    """Quantise the weights alone, symmetrically per output channel; return the model's file."""
    import nncf
    import openvino

    target = work / "weights.xml"
    if not target.exists():
        graph = openvino.Core().read_model(model)
        compressed = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
        openvino.save_model(compressed, target, compress_to_fp16=False)
    return target
