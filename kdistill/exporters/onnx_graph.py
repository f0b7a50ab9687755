"""A model as an ONNX graph: the formulas of csrc/model, written as operators on padded batches.

The operators stand in the patterns that ONNX Runtime knows from PyTorch's exporter (attention, GELU, embeddings, sums
with a LayerNorm behind them), so that it makes one operator of each while it loads the graph, without a separate
optimiser. Names are those of optimum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.head_names import ENCODER, SPAN
from ..models.model import Model
from ..models.parameters import TensorViews, by_canonical_name
from .onnx_nodes import Nodes

# ONNX Runtime finds attention while it loads a graph only where axes are attributes, as they were up to this opset.
OPSET, IR_VERSION = 12, 7
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LAST_HIDDEN_STATE, SENTENCE_EMBEDDING = "last_hidden_state", "sentence_embedding"
LOGITS, START_LOGITS, END_LOGITS = "logits", "start_logits", "end_logits"
_BATCH, SEQUENCE_LENGTH = "batch_size", "sequence_length"
_LEAST_LENGTH = 1e-12  # of a vector that is divided by its length, see csrc/layers/kd_unit.h


def inputs_of(model: Model) -> tuple[str, ...]:
    """Return the names of a graph's inputs, all int64 (batch_size, sequence_length).

    Token types are among them where there are two, or where the tokenizers of the architecture write them, though all
    are zeros: those of RoBERTa and its kin do not.
    """
    types = model.config.type_vocab_size
    return INPUTS if types > (1 if model.config.after_padding else 0) else INPUTS[:2]


def outputs_of(model: Model) -> tuple[str, ...]:
    """Return the names of a graph's outputs, all float32."""
    if model.head == SPAN:
        return START_LOGITS, END_LOGITS
    if model.head != ENCODER:
        return (LOGITS,)
    return (LAST_HIDDEN_STATE, SENTENCE_EMBEDDING) if model.config.embeds else (LAST_HIDDEN_STATE,)


def graph_of(model: Model, dtype: str, *, one_table: bool = True) -> Any:
    """Return the model as an `onnx.ModelProto`.

    Args:
        model: holds float32 weights.
        dtype: "float32" or "float16", of all weights and activations; outputs are float32.
        one_table: whether a language model whose last product has the word table as its weight has it in the graph
            once, and not a transposed copy beside it.

    Raises:
        ValueError: a weight does not fit into the type.
    """
    from onnx import TensorProto, helper, numpy_helper

    from .. import __version__

    written = _ModelGraph(model, dtype, one_table)
    written.write()
    given = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [_BATCH, SEQUENCE_LENGTH]) for name in inputs_of(model)
    ]
    made = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in output_shapes(model).items()
    ]
    constants = [numpy_helper.from_array(values, name) for name, values in written.nodes.constants.items()]
    floats = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    known = [helper.make_tensor_value_info(name, floats, shape) for name, shape in written.nodes.shapes.items()]
    nodes = written.nodes.nodes
    graph = helper.make_graph(nodes, type(model).__name__, given, made, constants, value_info=known)
    return helper.make_model(
        graph,
        producer_name="kdistill",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


def output_shapes(model: Model) -> dict[str, list[str | int]]:
    """Return the shapes of a graph's outputs by their names, in order; what names `SEQUENCE_LENGTH` has a row for each
    token, also of padding.
    """
    per_token: list[str | int] = [_BATCH, SEQUENCE_LENGTH]
    width = model.config.hidden_size
    shapes: dict[str, list[str | int]] = {
        START_LOGITS: per_token,
        END_LOGITS: per_token,
        LAST_HIDDEN_STATE: [*per_token, width],
        SENTENCE_EMBEDDING: [_BATCH, width],
        LOGITS: [*(per_token if model.per_token else [_BATCH]), _outputs_of_row(model)],
    }
    return {name: shapes[name] for name in outputs_of(model)}


def _outputs_of_row(model: Model) -> int:
    return int(model.architecture.head(model.head, model.config)["outputs"])


class _ModelGraph:
    """Writes the graph of one model.

    Attributes:
        nodes: what is written.
        encoder, head: the shapes, as `_core.layout` takes them.
    """

    def __init__(self, model: Model, dtype: str, one_table: bool) -> None:
        self.nodes = Nodes(dtype)
        self.encoder = model.architecture.encoder(model.config)
        self.head = model.architecture.head(model.head, model.config)
        self._model, self._one_table = model, one_table
        self._weights = TensorViews(model.flat_parameters, by_canonical_name(model.layout))
        self._names = {tensor.canonical: tensor.name for tensor in model.layout}
        self._state_shape: list[str | int] = [_BATCH, SEQUENCE_LENGTH, self.encoder["hidden"]]

    def write(self) -> None:
        """Write all of it, from the inputs to the outputs."""
        state, bias = self._embeddings(), self._score_bias()
        layers = len(self.encoder["layers"])
        first_row = self._model.head != ENCODER and self.head["pick"] == "first"
        for layer in range(layers):
            state = self._attention(state, layer, bias)
            if first_row and layer == layers - 1:  # nobody reads the others, and two thirds of a layer's work follow
                state = self.nodes.add("Slice", state, *(self.nodes.ints([at]) for at in (0, 1, 1)))
                self._state_shape[1] = 1
                self.nodes.shapes[state] = list(self._state_shape)
            state = self._feed_forward(state, layer)
        self._outputs(state)

    # ---- the parts

    def _embeddings(self) -> str:
        """Return (batch, tokens, width): the sum of the rows of the tables, with a LayerNorm and perhaps a product."""
        nodes = self.nodes
        nodes.within("embeddings")
        state = nodes.add("Gather", self._tensor("embeddings.word"), "input_ids")
        positions = self._tensor("embeddings.position")
        with_types = "token_type_ids" in inputs_of(self._model)
        if not with_types and "embeddings.type" in self._weights:  # all tokens have its one row
            positions = nodes.add("Add", positions, self._tensor("embeddings.type"))
        state = nodes.add("Add", state, nodes.add("Gather", positions, self._positions()))
        if with_types:
            state = nodes.add("Add", state, nodes.add("Gather", self._tensor("embeddings.type"), "token_type_ids"))
        width = self._weights["embeddings.word"].shape[1]
        # ONNX Runtime cannot infer it, and makes no SkipLayerNormalization without it.
        nodes.shapes[state] = [_BATCH, SEQUENCE_LENGTH, width]
        state = self._norm(state, "embeddings.norm")
        return self._linear(state, "embeddings.projection") if "embeddings.projection" in self._weights else state

    def _positions(self) -> str:
        """Return rows of the position table, (batch, tokens): counted from 0, or by the mask."""
        nodes, first = self.nodes, self.encoder["first_position"]
        if first:  # as in transformers, padding in front of a text included
            counted = nodes.add("CumSum", "attention_mask", nodes.integer(1))
            return nodes.add("Add", nodes.add("Mul", counted, "attention_mask"), nodes.integer(first - 1))
        places = nodes.add("Unsqueeze", self._places(), axes=[0])
        return nodes.add("Expand", places, nodes.add("Shape", "input_ids"))

    def _places(self) -> str:
        """Return the numbers from 0 to that of the last token that rows are padded to, int64 (tokens,)."""
        length = self.nodes.add("Gather", self.nodes.add("Shape", "input_ids"), self.nodes.integer(1), axis=0)
        return self.nodes.add("Range", self.nodes.integer(0), length, self.nodes.integer(1))

    def _score_bias(self) -> str:
        """Return what scores of attention get: (batch, 1, 1, tokens) of the mask, or with relative positions
        (batch, heads, tokens, tokens).
        """
        nodes = self.nodes
        nodes.within("attention_bias")
        mask = "attention_mask"
        for axis in (1, 2):
            mask = nodes.add("Unsqueeze", mask, axes=[axis])
        left_out = nodes.add("Sub", nodes.number(1.0), self._cast(mask))
        # Half of the least number: a score cannot make minus infinity of it.
        bias = nodes.add("Mul", left_out, nodes.number(float(np.finfo(nodes.dtype).min) / 2))
        return nodes.add("Add", self._relative_bias(), bias) if "relative_bias" in self._weights else bias

    def _relative_bias(self) -> str:
        """Return (1, heads, tokens, tokens): a number of each head for the distance of each key from each query."""
        nodes, most = self.nodes, self._model.config.max_tokens
        offsets = np.arange(1 - most, most)
        buckets = relative_buckets(offsets, self.encoder["relative_buckets"], self.encoder["relative_distance"])
        by_offset = nodes.constant("relative_buckets", buckets)
        places = self._places()
        keys, queries = (nodes.add("Unsqueeze", places, axes=[axis]) for axis in (0, 1))
        offset = nodes.add("Add", nodes.add("Sub", keys, queries), nodes.integer(most - 1))
        of_pairs = nodes.add("Gather", self._tensor("relative_bias"), nodes.add("Gather", by_offset, offset))
        return nodes.add("Unsqueeze", nodes.add("Transpose", of_pairs, perm=[2, 0, 1]), axes=[0])

    def _attention(self, state: str, layer: int, bias: str) -> str:
        """Return (batch, tokens, width) behind a layer's attention and its LayerNorm."""
        nodes, width = self.nodes, self.encoder["head_width"]
        heads, _ = self.encoder["layers"][layer]
        query, key, value = (
            self._by_head(self._linear(state, self._of_layer(layer, part)), heads, order)
            for part, order in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3)))
        )
        nodes.within(f"layer.{layer}.attention")
        if "relative_heads" in self.encoder:
            bias = nodes.add("Gather", bias, nodes.ints(self.encoder["relative_heads"][1][layer]), axis=1)
        scores = nodes.add("Div", nodes.add("MatMul", query, key), nodes.number(math.sqrt(width)))
        probabilities = nodes.add("Softmax", nodes.add("Add", scores, bias), axis=3)
        context = nodes.add("Transpose", nodes.add("MatMul", probabilities, value), perm=[0, 2, 1, 3])
        context = nodes.add("Reshape", context, nodes.ints([0, 0, heads * width]))
        made = self._linear(context, self._of_layer(layer, "output"))
        return self._summed(made, state, self._of_layer(layer, "attention_norm"))

    def _by_head(self, rows: str, heads: int, order: tuple[int, ...]) -> str:
        shape = self.nodes.ints([0, 0, heads, self.encoder["head_width"]])
        return self.nodes.add("Transpose", self.nodes.add("Reshape", rows, shape), perm=list(order))

    def _feed_forward(self, state: str, layer: int) -> str:
        """Return the state behind a layer's second half."""
        raised = self._activation(self._linear(state, self._of_layer(layer, "up")), self.encoder["activation"])
        made = self._linear(raised, self._of_layer(layer, "down"))
        return self._summed(made, state, self._of_layer(layer, "ffn_norm"))

    def _summed(self, made: str, state: str, canonical: str) -> str:
        """Return the LayerNorm of a state and what a half of a layer has made of it."""
        self.nodes.shapes[made] = list(self._state_shape)  # see _embeddings
        return self._norm(self.nodes.add("Add", made, state), canonical)

    def _outputs(self, state: str) -> None:
        """Write the head and the graph's outputs."""
        nodes, model = self.nodes, self._model
        nodes.within("head")
        if model.head == ENCODER:
            self._give(state, LAST_HIDDEN_STATE)
            if not model.config.embeds:
                return
        rows = self._picked(state)
        if model.head != ENCODER and self.head["dense"]:
            rows = self._activation(self._linear(rows, "head.dense"), self.head["dense"])
            rows = self._norm(rows, "head.norm") if self.head.get("norm") else rows
        if model.head == ENCODER:
            self._give(self._unit(rows) if self.head.get("unit") else rows, SENTENCE_EMBEDDING)
            return
        logits = self._last_product(rows)
        if model.head == SPAN:
            nodes.split(self._float32(logits), [START_LOGITS, END_LOGITS])
        else:
            self._give(logits, LOGITS)

    def _picked(self, state: str) -> str:
        """Return the rows that the head reads: (batch, width) of the first token or the mean, or all."""
        nodes = self.nodes
        if self.head["pick"] == "first":
            return nodes.add("Gather", state, nodes.integer(0), axis=1)
        if self.head["pick"] != "mean":
            return state
        mask = self._cast("attention_mask")
        total = nodes.add("MatMul", nodes.add("Unsqueeze", mask, axes=[1]), state)
        total = nodes.add("Squeeze", total, axes=[1])
        return nodes.add("Div", total, nodes.add("ReduceSum", mask, axes=[1], keepdims=1))

    def _unit(self, rows: str) -> str:
        """Return the rows divided by their lengths."""
        length = self.nodes.add("ReduceL2", rows, axes=[-1], keepdims=1)
        least = max(_LEAST_LENGTH, float(np.finfo(self.nodes.dtype).tiny))
        return self.nodes.add("Div", rows, self.nodes.add("Max", length, self.nodes.number(least)))

    def _last_product(self, rows: str) -> str:
        if "head.output" in self._weights:
            return self._linear(rows, "head.output")
        # The word table is its weight.
        words = self._tensor("embeddings.word")
        if self._one_table:
            weight = self.nodes.add("Transpose", words, perm=[1, 0])
        else:
            weight = self.nodes.constant(f"{words}_transposed", self._weights["embeddings.word"].T)
        return self.nodes.add("Add", self.nodes.add("MatMul", rows, weight), self._tensor("head.output.bias"))

    # ---- operators

    def _of_layer(self, layer: int, name: str) -> str:
        return f"layer.{0 if self.encoder.get('shared') else layer}.{name}"

    def _tensor(self, canonical: str) -> str:
        return self.nodes.constant(self._names[canonical], self._weights[canonical])

    def _linear(self, rows: str, canonical: str) -> str:
        """Return rows @ weight^T + bias."""
        self.nodes.within(canonical)
        bias = self._tensor(f"{canonical}.bias")
        weight = self.nodes.constant(f"{self._names[canonical]}_transposed", self._weights[canonical].T)
        return self.nodes.add("Add", self.nodes.add("MatMul", rows, weight), bias)

    def _norm(self, rows: str, canonical: str) -> str:
        """Return LayerNorm (Ba et al., arXiv:1607.06450), whose squares would not fit into float16.

        ONNX has one operator for it from opset 17 on; every runtime makes one of these.
        """
        nodes = self.nodes
        nodes.within(canonical)
        rows = self._float32(rows)
        centred = nodes.add("Sub", rows, nodes.add("ReduceMean", rows, axes=[-1], keepdims=1))
        squares = nodes.add("Pow", centred, nodes.number(2.0, "float32"))
        variance = nodes.add("ReduceMean", squares, axes=[-1], keepdims=1)
        deviation = nodes.add("Sqrt", nodes.add("Add", variance, nodes.number(self.encoder["eps"], "float32")))
        unit = nodes.add("Div", centred, deviation)
        if nodes.dtype != np.float32:
            unit = self._cast(unit)
        scale, shift = self._tensor(canonical), self._tensor(f"{canonical}.bias")
        return nodes.add("Add", nodes.add("Mul", unit, scale), shift)

    def _activation(self, rows: str, name: str) -> str:
        return ACTIVATIONS[name](self.nodes, rows)

    def _cast(self, value: str) -> str:
        from onnx import helper

        return self.nodes.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(self.nodes.dtype))

    def _float32(self, value: str) -> str:
        from onnx import TensorProto

        return value if self.nodes.dtype == np.float32 else self.nodes.add("Cast", value, to=TensorProto.FLOAT)

    def _give(self, value: str, output: str) -> None:
        self.nodes.add("Identity", self._float32(value), output=output)


def relative_buckets(offsets: NDArray[np.int64], buckets: int, distance: int) -> NDArray[np.int64]:
    """Return the bucket of each distance of a key from its query, as csrc/layers/kd_relative.c.

    Of the buckets of one direction, half hold one distance each; the bounds of the others grow by one factor up to
    `distance` (Raffel et al., arXiv:1910.10683, section 2.1).
    """
    half, far = buckets // 2, np.abs(offsets)
    single = half // 2
    share = np.log(np.maximum(far, 1) / single) / math.log(distance / single)
    grown = single + (np.clip(share, 0, 1) * (half - single)).astype(np.int64)
    return np.where(offsets > 0, half, 0) + np.where(far < single, far, np.minimum(grown, half - 1))


def _gelu(nodes: Nodes, x: str) -> str:
    """x * Phi(x), Hendrycks and Gimpel, arXiv:1606.08415."""
    shifted = nodes.add("Add", nodes.add("Erf", nodes.add("Div", x, nodes.number(math.sqrt(2)))), nodes.number(1.0))
    return nodes.add("Mul", nodes.add("Mul", x, shifted), nodes.number(0.5))


def _gelu_new(nodes: Nodes, x: str) -> str:
    """The approximation of it by tanh, of the same paper."""
    cubed = nodes.add("Mul", nodes.add("Pow", x, nodes.number(3.0)), nodes.number(0.044715))
    inner = nodes.add("Mul", nodes.add("Add", x, cubed), nodes.number(math.sqrt(2 / math.pi)))
    shifted = nodes.add("Add", nodes.add("Tanh", inner), nodes.number(1.0))
    return nodes.add("Mul", nodes.add("Mul", x, nodes.number(0.5)), shifted)


def _relu(nodes: Nodes, x: str) -> str:
    return nodes.add("Relu", x)


def _tanh(nodes: Nodes, x: str) -> str:
    return nodes.add("Tanh", x)


def _silu(nodes: Nodes, x: str) -> str:
    return nodes.add("Mul", x, nodes.add("Sigmoid", x))


def _quick_gelu(nodes: Nodes, x: str) -> str:
    return nodes.add("Mul", x, nodes.add("Sigmoid", nodes.add("Mul", x, nodes.number(1.702))))


ACTIVATIONS: Mapping[str, Callable[[Nodes, str], str]] = {
    **dict.fromkeys(("gelu", "gelu_python"), _gelu),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"), _gelu_new),
    "quick_gelu": _quick_gelu,
    "relu": _relu,
    **dict.fromkeys(("silu", "swish"), _silu),
    "tanh": _tanh,
}
"""Every activation of `_core.ACTIVATIONS` -> what writes it."""
