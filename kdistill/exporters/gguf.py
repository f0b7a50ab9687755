"""The format GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), which llama.cpp and its kin read.

A file holds all that a program needs: tensors, sizes, labels and the tokenizer.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset
from ..models.model import Model
from ..text.tokenizer import PreTrainedTokenizerFast
from .format import Built, Format
from .gguf_check import check_written
from .gguf_model import ARCHITECTURE, IN_FLOAT32, check_can_be_bert, tensors_of, write_sizes
from .gguf_tokenizer import write_tokenizer


def require(dtype: str) -> None:
    """Raise ImportError, which names the extra, where the package is not installed."""
    if find_spec("gguf") is None:
        raise ImportError('exporting to gguf needs the package gguf: pip install "kdistill[export]"', name="gguf")


def build(model: Model, dtype: str, tokenizer: PreTrainedTokenizerFast | None, rows: Dataset | None) -> Built:
    """Return the model and its tokenizer as a GGUF file of the architecture "bert", which was read again.

    Args:
        model: holds float32 weights.
        dtype: of tables and products: "float32"; "float16"; "int8": Q8_0, blocks of 32 numbers of a row with one
            float16 scale, or float16 where a row is no multiple of 32. The rest is float32, as llama.cpp wants it.
        tokenizer: of the model.
        rows: None, as no type of the format has ranges.

    Raises:
        ValueError: llama.cpp does not compute the model or the tokenizer, or a weight is not finite or beyond float16.
        RuntimeError: the file does not hold what it was made of.
    """
    check_can_be_bert(model)
    assert tokenizer is not None  # see `holds_tokenizer`
    assert rows is None  # see `with_ranges`
    from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType

    kinds = {
        "float32": LlamaFileType.ALL_F32,
        "float16": LlamaFileType.MOSTLY_F16,
        "int8": LlamaFileType.MOSTLY_Q8_0,
    }
    with tempfile.TemporaryDirectory(prefix="kdistill-") as directory:
        path = Path(directory) / "model.gguf"
        with closing(GGUFWriter(path, ARCHITECTURE)) as writer:
            writer.add_type("model")
            writer.add_name(type(model).__name__)
            writer.add_file_type(kinds[dtype])
            writer.add_quantization_version(GGML_QUANT_VERSION)
            write_sizes(writer, model)
            write_tokenizer(writer, tokenizer, model.config.vocab_size)
            tensors = tensors_of(model)
            for name, values in tensors.items():
                _add(writer, name, values, dtype)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        return Built(path.read_bytes(), (), (), check_written(path, tensors), None)


def _add(writer: Any, name: str, values: NDArray[np.float32], dtype: str) -> None:
    """Add a tensor in the type that llama.cpp's converter gives it."""
    from gguf import GGMLQuantizationType, quants

    if not np.isfinite(values).all():
        raise ValueError(f"{name} has numbers that are not finite; expected a model whose training did not diverge")
    if dtype == "float32" or values.ndim == 1 or name in IN_FLOAT32:
        writer.add_tensor(name, np.ascontiguousarray(values))
        return
    if np.abs(values).max() > np.finfo(np.float16).max:
        raise ValueError(f"{name} has numbers beyond the range of float16; expected dtype='float32'")
    blocks = dtype == "int8" and values.shape[1] % quants.Q8_0.block_size == 0
    kind = GGMLQuantizationType.Q8_0 if blocks else GGMLQuantizationType.F16
    writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)


GGUF = Format(
    name="gguf",
    ending=".gguf",
    files={"float32": "model-F32.gguf", "float16": "model-F16.gguf", "int8": "model-Q8_0.gguf"},
    holds_tokenizer=True,
    require=require,
    build=build,
)
