"""`export`: a model written in a format of other programs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.dataset import Dataset
from ..models.auto import load_model, load_trained
from ..models.configuration import read_config, write_config
from ..models.head_names import ENCODER, ENDINGS, named_head
from ..models.loading import RandomWeights
from ..models.model import Model, check_model
from ..models.sentence_files import write_sentence_files
from ..system.callers import level_outside
from ..system.names import did_you_mean
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast, check_tokenizer
from ..train.arguments import TrainingArguments
from ..train.encoding import encode_for, tokenizer_beside
from .format import Format
from .output import Output
from .registry import DTYPES, FORMATS

ROWS = 128
"""How many rows show the ranges of activations, where nothing else is asked for."""


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: the file.
        format, dtype: as asked for.
        bytes: the file's size.
        inputs, outputs: names of what the file takes and gives; none in "gguf".
        checked_with: the program that checked the file, with its version: ONNX Runtime, which gives the logits of
            kdistill for it, or the package gguf, which found every tensor in it; None: not checked.
        largest_difference: between the logits of ONNX Runtime and kdistill in the rows of the check, where kdistill
            computes in float32; None: not compared.
        rows: how many showed the ranges of activations; None: the file has no such ranges.
    """

    path: Path
    format: str
    dtype: str
    bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    checked_with: str | None
    largest_difference: float | None
    rows: int | None


def export(
    model: Model | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    format: str,
    dtype: str = "float32",
    processing_class: PreTrainedTokenizerFast | None = None,
    data: Any = None,
    rows: int | None = None,
    args: TrainingArguments | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
) -> Exported:
    """Write a model in a format of other programs, and check it: of "onnx" its logits, of "gguf" its tensors.

    Args:
        model: a model that holds float32 weights, or the directory or hub id of one.
        output: a new file, whose name ends as those of the format (`.onnx`, `.gguf`), for the model alone; or a
            directory, which is made if missing, for the file at the place where readers of the format look
            (`onnx/model.onnx`), config.json and the files of the tokenizer.
        format: "onnx" or "gguf".
        dtype: of the weights: "float32", "float16" or "int8" (in "gguf": Q8_0).
        processing_class: the tokenizer; None: the one in the model's directory, also in that which a model object was
            read from. A file of "onnx" holds none, and one of "gguf" cannot do without.
        data: training rows, in any form that a trainer takes, for "onnx" in "int8": the file has the form QDQ, which
            suits OpenVINO, with activations rounded in the ranges that they have in these rows. None: their ranges are
            found while the file is computed, which suits ONNX Runtime.
        rows: how many rows of `data`, evenly spread over it, show the ranges (default: 128, or all that there are).
        args: how rows are read: `max_length`, `doc_stride` (default: as the model was trained).
        text_column: of `data` (default: as the model was trained, else by their names).
        text_pair_column: likewise.
        label_column: likewise; labels do not matter here.

    Returns:
        What was written, and how it was checked.

    Raises:
        ImportError: the extra `export` is not installed.
        OSError: `output` exists, or cannot be written. Nothing is lost or left behind.
        ValueError: there is no such format or type, `output` has the ending of another format, the model has no head,
            the model or its tokenizer does not fit into the format, there is no tokenizer, the model's logits are not
            finite, rows are given for another format or type, or they do not fit the model.
        RuntimeError: the weights are not in memory in float32, or the written file gives other logits or tensors.
        TypeError: the model is none, or the tokenizer.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; expected one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    chosen = FORMATS[format]
    if dtype not in chosen.files:
        known = ", ".join(chosen.files)
        raise ValueError(f"dtype is {dtype!r}; expected one of {known} for {format}{did_you_mean(str(dtype), DTYPES)}")
    columns: dict[str, Any] = {
        "text_column": text_column,
        "text_pair_column": text_pair_column,
        "label_column": label_column,
    }
    _check_rows(data, chosen, dtype, {"rows": rows, "args": args, **columns})
    chosen.require(dtype)
    _check_ending(output, chosen)
    place = Output.of(output, chosen, dtype)
    loaded = _loaded(model)
    tokenizer = _tokenizer_of(model, processing_class, chosen, place, reads=data is not None)
    shown: Dataset | None = None
    if data is not None:
        read = encode_for(loaded.config, data, tokenizer, args or TrainingArguments(disable_tqdm=True), **columns)
        if rows is not None and len(read) < rows:
            warnings.warn(
                f"rows is {rows}, and data has only {len(read)}: all of them show the ranges of activations",
                stacklevel=level_outside(),
            )
        shown = read.take(np.linspace(0, len(read) - 1, min(rows or ROWS, len(read))).astype(np.int64))
    with place.writing(keep=_is_directory_of(model, place.directory)) as made:
        built = chosen.build(loaded, dtype, tokenizer, shown)
        made.file.write_bytes(built.content)
        if made.directory is not None:
            _write_beside(made.directory, loaded, tokenizer)
    return Exported(place.file, format, dtype, len(built.content), *built[1:], None if shown is None else len(shown))


def _check_rows(data: Any, format: Format, dtype: str, about: Mapping[str, Any]) -> None:
    """Raise ValueError for rows that a format or type has no use for, and for what is said about rows without any."""
    if data is None:
        given = next((name for name, value in about.items() if value is not None), None)
        if given is not None:
            raise ValueError(
                f"{given} is given, and data is None, whose rows it is about; expected data, or no {given}"
            )
        return
    if dtype not in format.with_ranges:
        possible = [(each.name, kind) for each in FORMATS.values() for kind in each.with_ranges]
        expected = " or ".join(f"format {name} with dtype {kind}" for name, kind in possible)
        raise ValueError(
            f"data is given, and {format.name} with dtype {dtype} has no ranges that rows could show; expected "
            f"{expected}, or no data"
        )
    if about["rows"] is not None and about["rows"] < 1:
        raise ValueError(f"rows is {about['rows']}; expected at least 1")


def _check_ending(output: str | os.PathLike[str], format: Format) -> None:
    """Raise ValueError for a new name with the ending of another format, which would become a directory."""
    path = Path(output)
    other = next((each for each in FORMATS.values() if each is not format and path.name.endswith(each.ending)), None)
    if other is not None and not path.is_dir():
        raise ValueError(
            f"output is {str(path)!r}, a name of {other.name}; expected one that ends in {format.ending} or a directory"
        )


def _is_directory_of(model: Any, directory: Path | None) -> bool:
    """Return whether a directory is the one that the model is given by."""
    if directory is None or not directory.is_dir() or not isinstance(model, str | os.PathLike):
        return False
    return Path(model).is_dir() and directory.samefile(model)


def _loaded(model: Any) -> Model:
    """Return the model of a directory or hub id, frozen in float32, or the one that is given."""
    if not isinstance(model, str | os.PathLike):
        check_model("model", model)
        found: Model = model
        if not found.holds_float32:
            raise RuntimeError(
                f"model holds its weights in {found.dtype} alone, and float32 is exported (then in the dtype of the "
                'file); give its directory, or load it with dtype="float32"'
            )
        return found
    if not _is_encoder(read_config(model)):
        return load_trained(model, dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeights)  # of a pooler, which is not exported
        return load_model(model, head=ENCODER, dtype="float32")


def _is_encoder(content: Mapping[str, Any]) -> bool:
    """Return whether a config.json names the class of an encoder without a head."""
    named = content.get("architectures") or ()
    return named_head(content, language_models=True) is None and any(
        isinstance(name, str) and name.endswith(ENDINGS[ENCODER]) for name in named
    )


def _tokenizer_of(
    model: Any, given: PreTrainedTokenizerFast | None, format: Format, place: Output, *, reads: bool
) -> PreTrainedTokenizerFast | None:
    """Return the tokenizer to be written, or that `reads` rows; None: there is none, or no use for it."""
    unused = place.directory is None and not format.holds_tokenizer and not reads
    if given is not None:
        check_tokenizer("processing_class", given)
        if unused:
            raise ValueError(
                f"processing_class is given, and a file of {format.name} has no place for a tokenizer; expected a "
                "directory as output, or no processing_class"
            )
        return given
    if unused:
        return None
    named = isinstance(model, str | os.PathLike)
    if not named:
        check_model("model", model)
    try:
        found = AutoTokenizer.from_pretrained(model) if named else tokenizer_beside(model)
    except (OSError, ValueError) as error:
        if format.holds_tokenizer or reads:
            raise
        warnings.warn(f"the output has no tokenizer: {error}", stacklevel=3)
        return None
    if found is None and format.holds_tokenizer:
        raise ValueError(
            f"processing_class is None; expected the model's tokenizer, which a file of {format.name} holds, or as "
            "model a directory that has it"
        )
    return found


def _write_beside(directory: Path, model: Model, tokenizer: PreTrainedTokenizerFast | None) -> None:
    """Write what a program needs beside the exported file: the configuration, and the files of the tokenizer."""
    write_config(directory, model.config.to_dict() | {"architectures": [type(model).__name__]})
    if model.config.embeds:
        write_sentence_files(directory, model.config)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
