"""What ONNX Runtime makes of an exported graph, compared with kdistill's own logits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch, pack
from ..data.dataset import Dataset
from ..models.head_names import ENCODER
from ..models.model import Model
from ..system.threads import get_num_threads
from .onnx_graph import SEQUENCE_LENGTH, inputs_of, output_shapes, outputs_of

_LENGTHS = (11, 1, 24, 5)  # tokens of the rows
# Of the largest logit, or of 1 if that is larger: a float16 has 11 bits, and roundings add up over the layers. Of int8
# there is none: the difference is reported, and only an evaluation says what it costs.
_BOUNDS = {"float32": 1e-4, "float16": 0.1}


class CheckedRows(NamedTuple):
    """Rows as a graph takes them, padded, and as kdistill does, packed."""

    padded: dict[str, NDArray[np.int64]]
    packed: Batch

    @classmethod
    def of(cls, model: Model, lengths: Sequence[int] = _LENGTHS) -> CheckedRows:
        """Return rows of random tokens of these lengths, or as many as the model reads, the same at every call."""
        config, rng = model.config, np.random.default_rng(0)
        counts = np.minimum(lengths, config.max_tokens)
        mask = (np.arange(counts.max()) < counts[:, None]).astype(np.int64)
        padded = {
            "input_ids": mask * rng.integers(config.vocab_size, size=mask.shape),
            "attention_mask": mask,
            "token_type_ids": mask * rng.integers(max(config.type_vocab_size, 1), size=mask.shape),
        }
        packed = pack(padded)
        return cls({name: padded[name] for name in inputs_of(model)}, packed)

    @classmethod
    def taken(cls, model: Model, rows: Dataset, row: int) -> CheckedRows:
        """Return a row of a data set alone, at its length."""
        packed, _ = rows.batch([row])
        ids, types = (values.astype(np.int64)[None] for values in (packed.ids, packed.types))
        padded = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
        return cls({name: padded[name] for name in inputs_of(model)}, packed)


def compared(content: bytes, model: Model, dtype: str, batches: Sequence[CheckedRows] | None = None) -> float | None:
    """Return how far the graph's outputs are from kdistill's in float32, at most; None without ONNX Runtime.

    Args:
        content: the graph's file.
        model: that it was made from.
        dtype: the graph's.
        batches: what both are computed on, one after another; None: `CheckedRows.of`.

    Raises:
        ValueError: kdistill's are not finite.
        RuntimeError: they are further apart than roundings are, or not finite.
    """
    if find_spec("onnxruntime") is None:
        warnings.warn(
            "the exported graph was not compared with the model, which needs onnxruntime: "
            'pip install "kdistill[export]"',
            stacklevel=4,
        )
        return None
    largest, session, model = 0.0, _session(content), _unfrozen(model)
    for rows in [CheckedRows.of(model)] if batches is None else batches:
        expected, found = expected_outputs(model, rows), _outputs(session, rows)
        present = rows.padded["attention_mask"] == 1
        for name, shape in output_shapes(model).items():
            _check_finite(name, expected[name])
            values = found[name][present] if SEQUENCE_LENGTH in shape else found[name]
            largest = max(largest, _difference(name, values, expected[name], dtype))
    return largest


def _check_finite(name: str, expected: NDArray[np.float32]) -> None:
    if not np.isfinite(expected).all():
        raise ValueError(
            f"the model gives numbers that are not finite ({name}); expected one whose training did not diverge"
        )


def _difference(name: str, found: NDArray[np.float32], expected: NDArray[np.float32], dtype: str) -> float:
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise RuntimeError(
            f"the exported graph is wrong: {name} has shape {found.shape} in ONNX Runtime, expected {expected.shape} "
            "and finite numbers; nothing was written"
        )
    difference = float(np.abs(found - expected).max())
    bound = _BOUNDS.get(dtype)
    if bound is not None and difference > bound * max(1.0, float(np.abs(expected).max())):
        raise RuntimeError(
            f"the exported graph is wrong: {name} differs by {difference:.3g} in ONNX Runtime ({dtype}); nothing was "
            "written"
        )
    return difference


def expected_outputs(model: Model, rows: CheckedRows) -> Mapping[str, NDArray[np.float32]]:
    """Return kdistill's outputs in float32 by the graph's names: of tokens the rows that are not padding."""
    model = _unfrozen(model)
    last = ("hidden", model.config.num_hidden_layers)
    with model.evaluating_in_float32():
        made, inside = model.forward(rows.packed, taps=[last])
    names = outputs_of(model)
    if model.head == ENCODER:
        return dict(zip(names, (inside[last], made), strict=False))
    return {names[0]: made} if len(names) == 1 else dict(zip(names, made.T, strict=True))


def _unfrozen(model: Model) -> Model:
    """Return the model, or a copy of one that is frozen in another type, which can compute in float32."""
    return copy.deepcopy(model) if model.frozen and str(model.dtype) != "float32" else model


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = get_num_threads(), 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _outputs(session: Any, rows: CheckedRows) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, rows.padded), strict=True))
