"""Models of the core's own, of shapes that no configuration gives yet, and what the reference computes for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdistill import _core
from kdistill._core import testing
from kdistill.data.batch import Batch, pack
from kdistill.models.architecture import Names
from kdistill.models.architectures.bert import BERT
from kdistill.models.head_names import SEQUENCE
from kdistill.models.parameters import Tensor, TensorViews
from kdistill.system.memory import workspace
from kdistill.system.threads import aligned_zeros
from support import reference
from support.bert_cases import ATTENTION, EMBEDDING, FFN, HEAD, HEAD_INPUT, PER_LAYER, SELF

LENGTHS = [1, 13, 2, 40, 6, 7, 5, 9, 4, 3, 17]  # two chunks, two items of picked rows
SEED, STEP, PLACE = 5, 6, 7
FURTHER = {
    "embeddings.projection": "bert.embeddings_project",
    "relative_bias": "bert.encoder.relative_attention_bias",
    "head.norm": "head.LayerNorm",
}
NAMES = Names("bert.", "bert.", {**BERT.modules, **BERT.heads[SEQUENCE].modules, **FURTHER})
ENCODER: dict[str, Any] = {
    "layers": ((2, 20), (2, 20)), "hidden": 24, "head_width": 12, "vocabulary": 31, "positions": 43, "types": 2,
    "first_position": 0, "activation": "gelu", "eps": 1e-12, "dropout": 0.1, "attention_dropout": 0.2,
}  # fmt: skip
CLASSIFIER: dict[str, Any] = {
    "pick": "first", "dense": "tanh", "dropout_before": 0.0, "dropout_after": 0.3, "outputs": 3,
}  # fmt: skip
TAGGER = {**CLASSIFIER, "pick": "all", "dense": None}
LISTED = {**CLASSIFIER, "pick": "listed"}
MASKED = {**LISTED, "dense": "gelu", "norm": True, "dropout_after": 0.0, "outputs": 31, "tied": True}
# Of LENGTHS: none of some sequences, all of others, first and last tokens; several of both chunks and all items.
ROWS = [0, 2, 13, 14, 15, 17, 20, 30, 38, 39, 55, *range(56, 62), *range(70, 83), 89, 90, 91, 98, 106]


@dataclass
class Shape:
    """The encoder as the reference takes a configuration."""

    num_hidden_layers: int
    num_attention_heads: int
    hidden_size: int
    hidden_act: str
    layer_norm_eps: float


@dataclass
class Case:
    """A model with wide weights, and a batch for it."""

    encoder: dict[str, Any]
    head: dict[str, Any]
    lengths: Sequence[int] = field(default_factory=lambda: LENGTHS)
    dtype: str = "float32"
    rows: Sequence[int] | None = None

    def __post_init__(self) -> None:
        size, tensors = _core.layout(self.encoder, self.head)
        self.layout = [Tensor(NAMES.stored(name), shape, offset, decay, name) for name, shape, offset, decay in tensors]
        self.flat, self.gradients = aligned_zeros(size), aligned_zeros(size)
        shapes = {tensor.name: tensor.shape for tensor in self.layout}
        views = TensorViews(self.flat, self.layout)
        for name, value in reference.random_parameters(shapes, std=0.25, seed=7).items():
            views[name][:] = value
        self.core = _core.Model(self.encoder, self.head, self.flat, self.gradients, workspace, dtype=self.dtype)
        rng = np.random.default_rng(3)
        self.ids = [rng.integers(0, self.encoder["vocabulary"], n).tolist() for n in self.lengths]
        self.types = [[i * max(self.encoder["types"], 1) // n for i in range(n)] for n in self.lengths]

    @property
    def batch(self) -> Batch:
        return pack({"input_ids": self.ids, "token_type_ids": self.types})

    @property
    def exact(self) -> dict[str, reference.Array]:
        return {name: view.astype(np.float64) for name, view in TensorViews(self.flat, self.layout).items()}

    @property
    def dlogits(self) -> NDArray[np.float32]:
        rows = sum(map(len, self.listed)) if self.head["pick"] in ("all", "listed") else len(self.lengths)
        width = self.head["outputs"] or self.head_width
        return np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)

    @property
    def head_width(self) -> int:
        """Return the width of what the head's last product reads."""
        return int(self.head.get("dense_width") or self.encoder["hidden"])

    @property
    def listed(self) -> list[list[int]]:
        """Return the tokens of each sequence that the head reads, if it reads tokens."""
        starts = np.cumsum([0, *self.lengths])
        rows = np.arange(starts[-1]) if self.rows is None else np.array(self.rows)
        return [(rows[(rows >= a) & (rows < b)] - a).tolist() for a, b in pairwise(starts)]

    def forward(self, *, train: bool, threads: int = 2, **options: Any) -> Any:
        if self.rows is not None:
            options = {"rows": np.array(self.rows, np.int64)} | options
        return self.core.forward(*self.batch, train, SEED, STEP, PLACE, threads, **options)

    def expected(
        self, parameters: reference.Parameters, *, train: bool
    ) -> tuple[reference.Array, list[dict[reference.Tap, reference.Array]]]:
        encoder = self.encoder
        shape = Shape(len(encoder["layers"]), 0, encoder["hidden"], encoder["activation"], encoder["eps"])
        variant = reference.Variant(
            head_width=encoder["head_width"],
            first_position=encoder["first_position"],
            relative_distance=encoder.get("relative_distance", 0),
            relative_heads=encoder.get("relative_heads", (0, None))[1],
            shared=encoder.get("shared", False),
            pick=self.head["pick"],
            listed=self.listed,
            head_activation=self.head["dense"],
            head_norm=self.head.get("norm", False),
            outputs=self.head["outputs"] > 0,
            tied=self.head.get("tied", False),
            unit=self.head.get("unit", False),
        )
        masks = self.masks() if train else None
        return reference.forward_with_taps(parameters, shape, self.ids, self.types, masks, variant)

    def masks(self) -> Mapping[str, Sequence[reference.Array]]:
        """Return the dropout masks of a training pass, asked from the dropout layer itself (see test_random.py)."""
        encoder, head = self.encoder, self.head
        features = -(-encoder["positions"] // 64) * 64
        masks: dict[str, list[reference.Array]] = {}
        first = PLACE

        def add(name: str, p: float, tensor: int, width: int) -> reference.Array:
            position = (p, SEED, STEP, tensor, first)
            drawn = testing.dropout(np.ones((n, width), np.float32), position).astype(np.float64)
            masks.setdefault(name, []).append(drawn)
            return drawn

        for n, listed in zip(self.lengths, self.listed, strict=True):
            hidden = encoder["hidden"]
            add("bert.embeddings.dropout", encoder["dropout"], EMBEDDING, encoder.get("embedding_width") or hidden)
            for name, p, tensor, width in (
                ("input dropout", head["dropout_before"], HEAD_INPUT, hidden),
                ("dropout", head["dropout_after"], HEAD, self.head_width),
            ):
                drawn = add(name, p, tensor, width)
                masks[name][-1] = drawn[listed] if head["pick"] in ("all", "listed") else drawn[0]
            for layer, (heads, _) in enumerate(encoder["layers"]):
                prefix, later = f"bert.encoder.layer.{layer}", PER_LAYER * layer
                name = f"{prefix}.attention.self.dropout"
                drawn = add(name, encoder["attention_dropout"], ATTENTION + later, heads * features)
                masks[name][-1] = drawn.reshape(n, heads, features)[:, :, :n].transpose(1, 0, 2)
                for module, rate, tensor in (
                    ("attention.output", "output_dropout", SELF),
                    ("output", "feed_forward_dropout", FFN),
                ):
                    add(f"{prefix}.{module}.dropout", encoder.get(rate, encoder["dropout"]), tensor + later, hidden)
            first += n
        return masks

    def check_gradients(self, loss: Any) -> None:
        """Check the gradients against finite differences of loss(parameters) along one random direction a tensor.

        As test_passes.py: the error is a rounding error of the sums, bounded by the gradient's norm.
        """
        parameters, rng = self.exact, np.random.default_rng(2)
        gradients = TensorViews(self.gradients, self.layout)
        for name, value in parameters.items():
            direction = rng.standard_normal(value.shape)

            def along(at: reference.Array, name: str = name, direction: reference.Array = direction) -> float:
                return float(loss({**parameters, name: parameters[name] + at * direction}))

            expected = reference.finite_difference(along, np.zeros(()), step=1e-6)
            size = np.linalg.norm(gradients[name.replace("self.key.bias", "self.query.bias")])
            assert size > 1e-3, name
            assert abs(float((gradients[name] * direction).sum()) - expected) <= 4e-5 * size, name
