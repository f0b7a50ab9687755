"""`export`: a model written in a format of other programs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..models.auto import load_model, load_trained
from ..models.configuration import read_config, write_config
from ..models.head_names import ENCODER, ENDINGS, named_head
from ..models.loading import RandomWeights
from ..models.model import Model, check_model
from ..models.sentence_files import write_sentence_files
from ..system.names import did_you_mean
from ..text.classes import AutoTokenizer
from .output import Output
from .registry import DTYPES, FORMATS


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: the file.
        format, dtype: as asked for.
        bytes: the file's size.
        inputs, outputs: names of what the file takes and gives.
        checked_with: the program that gives the logits of kdistill for the file, with its version; None: not checked.
        largest_difference: between both in the rows of the check, where kdistill computes in float32; None: likewise.
    """

    path: Path
    format: str
    dtype: str
    bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    checked_with: str | None
    largest_difference: float | None


def export(
    model: Model | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    format: str,
    dtype: str = "float32",
) -> Exported:
    """Write a model in a format of other programs, and compare its logits there with those of kdistill.

    Args:
        model: a model that holds float32 weights, or the directory or hub id of one.
        output: a new file, whose name ends as those of the format (`.onnx`), for the model alone; or a directory, which
            is made if missing, for the file at the place where readers of the format look (`onnx/model.onnx`),
            config.json and, of a model that is given by its directory, the files of its tokenizer.
        format: "onnx".
        dtype: of the weights: "float32", "float16" or "int8".

    Returns:
        What was written, and how it was checked.

    Raises:
        ImportError: the extra `export` is not installed.
        OSError: `output` exists, or cannot be written. Nothing is lost or left behind.
        ValueError: there is no such format or type, the model has no head, or it does not fit into the format.
        RuntimeError: the weights are not in memory in float32, or the written file gives other logits.
        TypeError: the model is none.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; expected one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    chosen = FORMATS[format]
    if dtype not in chosen.files:
        known = ", ".join(chosen.files)
        raise ValueError(f"dtype is {dtype!r}; expected one of {known} for {format}{did_you_mean(str(dtype), DTYPES)}")
    chosen.require(dtype)
    place = Output.of(output, chosen, dtype)
    loaded = _loaded(model)
    with place.writing(keep=_is_directory_of(model, place.directory)) as made:
        built = chosen.build(loaded, dtype)
        made.file.write_bytes(built.content)
        if made.directory is not None:
            _write_beside(made.directory, loaded, model)
    return Exported(place.file, format, dtype, len(built.content), *built[1:])


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


def _write_beside(directory: Path, model: Model, given: Any) -> None:
    """Write what a program needs beside the exported file: the configuration, and a given directory's tokenizer."""
    write_config(directory, model.config.to_dict() | {"architectures": [type(model).__name__]})
    if model.config.embeds:
        write_sentence_files(directory, model.config)
    if given is model:
        return
    try:
        tokenizer = AutoTokenizer.from_pretrained(given)
    except (OSError, ValueError) as error:
        warnings.warn(f"the output has no tokenizer: {error}", stacklevel=3)
        return
    tokenizer.save_pretrained(directory)
