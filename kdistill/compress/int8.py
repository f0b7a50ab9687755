"""`quantize`: an int8 artefact of a trained model, in a directory of its own."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..formats.int8 import SCALES, rounded, widened
from ..formats.safetensors import write_safetensors
from ..hub import public_name, resolve, shard_names
from ..models.auto import load_trained
from ..models.checkpoint import WEIGHTS_FILE, WEIGHTS_FILES
from ..models.configuration import write_config
from ..models.golden import Golden, computed_by
from ..models.model import Model, check_model
from ..models.parameters import EMBEDDINGS, Tensor, TensorViews
from ..models.quantization import KEY, Quantization
from ..models.sentence_files import write_sentence_files
from ..system.files import write_text
from ..system.output import check_new_directory, new_directory
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast, check_tokenizer
from ..train.arguments import TrainingArguments
from ..train.directory import CARD_FILE
from ..train.encoding import encode_for, name_of, tokenizer_beside, tokenizer_for
from .before_after import compared
from .int8_card import card

GOLDEN_ROWS, GOLDEN_TOKENS = 8, 64
"""Golden logits are those of so many rows, spread evenly, with at most so many tokens each."""
_ABSORBED = ("key", "value")  # of the last layer, where the head reads the first row of a sequence
# Golden logits may differ by twice what int8 itself changes them by, at least by this share of the largest. Activations
# differ in their last bits between instruction sets, and rows that are rounded then in a few integers: logits of a
# 6-layer classifier, up to 3.3, by 0.005 to 0.039 with AVX-512, AVX2 or plain C, where int8 changes them by 0.093.
_TOLERANCE, _LEAST_TOLERANCE = 2, 0.02

Figures = dict[str, Any]


def quantize(
    model: Model | str | os.PathLike[str],
    data: Any,
    output: str | os.PathLike[str],
    *,
    float_embeddings: bool = False,
    processing_class: PreTrainedTokenizerFast | None = None,
    args: TrainingArguments | None = None,
    name: str | None = None,
    **columns: Any,
) -> Figures:
    """Write an int8 artefact of a trained model, measured on rows before and after.

    Its products have the integers that `dtype="int8"` computes with, so that with `float_embeddings` its logits have
    the bits of the model's in that type. A load computes the logits of some of the rows and compares them with those
    that the artefact holds.

    Args:
        model: the model, or its directory or hub id.
        data: rows to measure on, in any form that a trainer takes; with labels the accuracy is compared too.
        output: the directory to make; it must not be there, or be empty.
        float_embeddings: keep the embeddings in float32; by default they are int8, with a scale for each row.
        processing_class: the tokenizer (default: the one in the model's directory, also in that which a model object
            was read from).
        args: how rows are read: `max_length`, `doc_stride`, `per_device_eval_batch_size` and others (default: as the
            model was trained).
        name: what the model card calls the model (default: the name of its directory).
        columns: `text_column`, `text_pair_column`, `label_column`, as in `encode_for`.

    Returns:
        Figures: `n` rows; `before` and `after`, the metrics of each; `right_before`, `right_after` and `mcnemar`, where
        rows are right or wrong; `agreement` and `divergence` of the logits, see `Task`; `bytes_before`, `bytes_after`
        and `size_ratio` of the files of weights; `golden_rows`, `golden_tolerance`; `embeddings`, their type; `output`.

    Raises:
        ValueError: the model is an int8 artefact, or the rows do not fit it.
        FileExistsError: `output` holds something.
        OSError: it cannot be written.
        RuntimeError: the model holds no float32 weights.
    """
    check_new_directory("output", output)
    check_tokenizer("processing_class", processing_class)
    read: dict[str, Any] = {
        "args": args or TrainingArguments(disable_tqdm=True),
        "float_embeddings": float_embeddings,
        **columns,
    }
    if isinstance(model, str | os.PathLike):
        tokenizer = processing_class or AutoTokenizer.from_pretrained(model)
        called: dict[str, Any] = {
            "name": name or public_name(os.fspath(model)),
            "bytes_before": bytes_of_weights(model),
        }
        return quantized(load_trained(model), tokenizer, data, output, **called, **read)
    check_model("model", model)
    bytes_before = 4 * model.num_parameters()
    beside = tokenizer_beside(model) if processing_class is None else processing_class
    model = model if model.quantization else copy.deepcopy(model)
    return quantized(model, beside, data, output, name=name, bytes_before=bytes_before, **read)


def quantized(
    model: Model,
    tokenizer: PreTrainedTokenizerFast | None,
    data: Any,
    output: str | os.PathLike[str],
    *,
    args: TrainingArguments,
    float_embeddings: bool,
    name: str | None,
    bytes_before: int,
    **columns: Any,
) -> Figures:
    """Write the artefact of a model, which is frozen, and return the figures of `quantize`; arguments as there.

    Args:
        model: the model.
        tokenizer: its tokenizer, None where the rows are token ids.
        data, output, args, float_embeddings, name, columns: as in `quantize`.
        bytes_before: the size of the file of its weights.
    """
    started = time.monotonic()
    if model.quantization is not None:
        raise ValueError("model is an int8 artefact already; expected the model that it was made of")
    original = model.freeze("float32")
    rows = encode_for(original.config, data, tokenizer, args, **columns)
    weights = _rounded_weights(original, float_embeddings=float_embeddings)
    golden = Golden.of(_with_weights(original, weights).freeze("int8"), _golden_rows(rows))
    least = _LEAST_TOLERANCE * float(np.abs(golden.logits).max())
    quantization = Quantization(
        embeddings="float32" if float_embeddings else "int8",
        computed=computed_by(original),
        golden_tolerance=max(_TOLERANCE * golden.distance(original), least),
    )
    with new_directory(output) as directory:
        _write(directory, original, weights, golden, quantization)
        if (kept := tokenizer_for(original.config, tokenizer)) is not None:
            kept.save_pretrained(directory)
        artefact = type(original).from_pretrained(directory, dtype="int8")
        figures = compared(original, artefact, rows, args, names=("float32", "int8"))
        size = (directory / WEIGHTS_FILE).stat().st_size
        figures |= {
            "bytes_before": bytes_before,
            "bytes_after": size,
            "size_ratio": size / bytes_before,
            "embeddings": quantization.embeddings,
            "golden_rows": len(golden.batch.starts) - 1,
            "golden_tolerance": quantization.golden_tolerance,
        }
        text = card(artefact, name, name_of(data), Path(output).resolve().name, figures)
        write_text(directory / CARD_FILE, text)
    return figures | {"output": str(output), "runtime": time.monotonic() - started}


def bytes_of_weights(path_or_id: str | os.PathLike[str]) -> int:
    """Return the size of a model's weights, all shards together."""
    directory = resolve(path_or_id, [WEIGHTS_FILES])
    path = next(directory / name for name in WEIGHTS_FILES if (directory / name).is_file())
    files = [path.with_name(name) for name in shard_names(path)] if path.suffix == ".json" else [path]
    return sum(file.stat().st_size for file in files)


def _golden_rows(rows: Dataset) -> Batch:
    places = np.unique(np.linspace(0, len(rows) - 1, GOLDEN_ROWS).astype(np.int64))
    ids, types, starts = rows.batch(places)[0]
    kept = np.concatenate([np.arange(a, min(a + GOLDEN_TOKENS, b)) for a, b in pairwise(starts)])
    lengths = np.minimum(np.diff(starts), GOLDEN_TOKENS)
    return Batch(ids[kept], types[kept], np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))


def int8_tensors(model: Model, *, embeddings: bool) -> Iterator[Tensor]:
    """Yield the matrices that an artefact of a model has in int8: those that an int8 engine multiplies.

    The products of the head are float32, and so are those of the last layer's keys and values where the head reads one
    row of each sequence, whose query absorbs them.

    Args:
        model: the model.
        embeddings: whether the tables of embeddings are among them.
    """
    names = [tensor.canonical for tensor in model.layout]
    last = max(int(name.split(".")[1]) for name in names if name.startswith("layer."))
    one_row = model.architecture.head_of(model.head, model.config).pick == "first"
    absorbed = [f"layer.{last}.{name}" for name in _ABSORBED] if one_row else []
    for tensor, name in zip(model.layout, names, strict=True):
        product = tensor.decay and name.startswith(("layer.", "embeddings.projection")) and name not in absorbed
        if product or (embeddings and name in EMBEDDINGS):
            yield tensor


def _rounded_weights(model: Model, *, float_embeddings: bool) -> dict[str, NDArray[Any]]:
    """Return the arrays of the artefact's weights, by name."""
    views = TensorViews(model.flat_parameters, model.layout)
    arrays: dict[str, NDArray[Any]] = dict(views)
    for tensor in int8_tensors(model, embeddings=not float_embeddings):
        arrays[tensor.name], arrays[tensor.name + SCALES] = rounded(views[tensor.name])
    return arrays


def _with_weights(model: Model, arrays: dict[str, NDArray[Any]]) -> Model:
    """Return the model that an artefact with these weights is."""
    other = copy.deepcopy(model)
    with other.writing() as flat:
        for name, view in TensorViews(flat, other.layout).items():
            scaled = name + SCALES in arrays
            view[...] = widened(arrays[name], arrays[name + SCALES]) if scaled else arrays[name]
    return other


def _write(
    directory: Path, model: Model, weights: dict[str, NDArray[Any]], golden: Golden, quantization: Quantization
) -> None:
    modules = {True: list[str](), False: list[str]()}  # of embeddings, of products
    for tensor in model.layout:
        if tensor.name + SCALES in weights:
            modules[tensor.canonical in EMBEDDINGS].append(tensor.name.removesuffix(".weight"))
    tied = bool(model.architecture.head(model.head, model.config).get("tied"))
    described = {KEY: quantization.described(modules[False], modules[True], tied=tied)}
    write_safetensors(directory / WEIGHTS_FILE, weights | golden.tensors(), {"format": "pt"})
    write_config(directory, model.config.to_dict() | {"architectures": [type(model).__name__]} | described)
    if model.config.pooling is not None:
        write_sentence_files(directory, model.config)
