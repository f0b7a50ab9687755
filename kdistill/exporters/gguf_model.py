"""A model as llama.cpp has BERT: which models it can compute, and the names of their tensors and sizes in a GGUF file.

Names and values are those that llama.cpp's converter writes (conversion/bert.py, `MODEL_ARCH.BERT` in the package
gguf), and what can be computed is what its graph does (src/models/bert.cpp; the head: `build_pooling` in
src/llama-graph.cpp).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.head_names import ENCODER, SEQUENCE
from ..models.model import Model
from ..models.parameters import TensorViews, by_canonical_name
from ..models.pooling import CLS, MEAN

ARCHITECTURE = "bert"
# The core's names -> those of GGUF; of a layer without "layer.N." and "blk.N.".
_OUTSIDE = {
    "embeddings.word": "token_embd",
    "embeddings.position": "position_embd",
    "embeddings.type": "token_types",
    "embeddings.norm": "token_embd_norm",
}
_IN_LAYER = {
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "attention_norm": "attn_output_norm",
    "up": "ffn_up",
    "down": "ffn_down",
    "ffn_norm": "layer_output_norm",
}
_IN_HEAD = {"head.dense": "cls", "head.output": "cls.output"}
# Tensors that llama.cpp adds in float32 whatever the type of the file.
IN_FLOAT32 = ("position_embd.weight", "token_types.weight")
# llama.cpp computes the tanh approximation for all of them, with 16 bits on CPUs: about 1e-3 beside the exact function.
ACTIVATIONS = (
    "gelu", "gelu_python", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate",
)  # fmt: skip


def check_can_be_bert(model: Model) -> None:
    """Raise ValueError for a model that llama.cpp's graph of BERT does not compute."""
    lacking = next(_lacking(model), None)
    if lacking is not None:
        raise ValueError(
            f"{type(model).__name__} cannot be exported to gguf: llama.cpp has no graph for {lacking}; expected an "
            "encoder in the shape of BERT's, alone or with the classifier of BERT, RoBERTa, XLM-R or CamemBERT. "
            "Export it with format='onnx'"
        )


def _lacking(model: Model) -> Iterator[str]:
    """Yield what the model has and llama.cpp's graph has not."""
    encoder = model.architecture.encoder(model.config)
    names = {tensor.canonical for tensor in model.layout}
    if "relative_bias" in names:
        yield "relative positions"
    if "embeddings.projection" in names:
        yield "a product behind the embeddings"
    if encoder.get("shared"):
        yield "layers that share their weights"
    if len({*encoder["layers"]}) != 1:
        yield "layers of different sizes"
    if encoder["layers"][0][0] * encoder["head_width"] != encoder["hidden"]:
        yield "attention that is narrower than the model, as after pruning heads"
    if encoder["activation"] not in ACTIVATIONS:
        yield f"the activation {encoder['activation']!r}"
    if model.head not in (ENCODER, SEQUENCE):
        yield f"the head of {model.head}"
    if model.head == SEQUENCE:
        head = model.architecture.head(model.head, model.config)
        if head["pick"] != "first" or head["dense"] not in (None, "tanh") or {"norm", "dense_width"} & head.keys():
            yield f"a classifier with the activation {head['dense']!r} before its last product"


def tensors_of(model: Model) -> dict[str, NDArray[np.float32]]:
    """Return the tensors under GGUF's names, float32 as in a checkpoint: (outputs, inputs), (rows, width) or (width,).

    The pooler of an encoder alone is left out, as llama.cpp pools in its own ways.
    """
    weights = TensorViews(model.flat_parameters, by_canonical_name(model.layout))
    first = model.config.first_position
    found = {}
    for canonical, values in weights.items():
        if canonical.startswith("head.") and model.head == ENCODER:
            continue
        # llama.cpp counts positions from 0.
        found[_name(canonical)] = values[first:] if canonical == "embeddings.position" else values
    return found


def _name(canonical: str) -> str:
    """Return what GGUF calls a tensor."""
    weight = canonical.removesuffix(".bias")
    ending = ".bias" if weight != canonical else ".weight"
    if weight.startswith("layer."):
        _, layer, name = weight.split(".", 2)
        return f"blk.{layer}.{_IN_LAYER[name]}{ending}"
    return {**_OUTSIDE, **_IN_HEAD}[weight] + ending


def write_sizes(writer: Any, model: Model) -> None:
    """Add what the graph needs to know beside tensors: sizes, how texts are pooled, labels.

    Args:
        writer: a `gguf.GGUFWriter`.
        model: passed `check_can_be_bert`.
    """
    config, encoder = model.config, model.architecture.encoder(model.config)
    heads, feed_forward = encoder["layers"][0]
    writer.add_block_count(len(encoder["layers"]))
    writer.add_context_length(config.max_tokens)
    writer.add_embedding_length(encoder["hidden"])
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(encoder["eps"])
    writer.add_causal_attention(False)
    writer.add_token_type_count(max(encoder["types"], 1))  # llama.cpp wants one of models without a table, too
    pooling = _pooling(model)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if model.head == SEQUENCE:
        writer.add_classifier_output_labels([config.id2label[label] for label in range(config.num_labels)])


def _pooling(model: Model) -> Any:
    """Return the `gguf.PoolingType`; None: of an encoder that gives the rows of all tokens."""
    from gguf import PoolingType

    if model.head == SEQUENCE:
        return PoolingType.RANK
    modes: Mapping[str, Any] = {MEAN: PoolingType.MEAN, CLS: PoolingType.CLS}
    return None if model.config.pooling is None else modes[model.config.pooling.mode]
