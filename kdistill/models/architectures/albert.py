"""ALBERT (Lan et al., arXiv:1909.11942) under the names of transformers: one layer's weights serve all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..architecture import Architecture, Head
from ..configuration import Config
from ..head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN

_LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.*"
_POOLER = {"head.dense": "albert.pooler"}


@dataclass(init=False, repr=False, kw_only=True)
class AlbertConfig(Config):
    """Shape and constants of an ALBERT model, with the names and defaults of `transformers.AlbertConfig`.

    `num_hidden_groups` and `inner_group_num` can only be 1, as in all published models. See `BertConfig` for labels and
    errors.
    """

    model_type: ClassVar[str] = "albert"
    kind: ClassVar[str] = "ALBERT"
    more_sizes: ClassVar[tuple[str, ...]] = ("embedding_size",)
    more_dropouts: ClassVar[tuple[str, ...]] = ("classifier_dropout_prob",)
    only: ClassVar[Mapping[str, Any]] = {"num_hidden_groups": 1, "inner_group_num": 1}
    one_layer: ClassVar[bool] = True

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 4096
    num_hidden_layers: int = 12
    num_hidden_groups: int = 1
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    inner_group_num: int = 1
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    classifier_dropout_prob: float | None = 0.1
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | None = 3


def _facts(config: AlbertConfig) -> dict[str, Any]:
    """Return that layers share weights, that tables have a product behind them, and no dropout the feed-forward."""
    return {"embedding_width": config.embedding_size, "shared": config.one_layer, "feed_forward_dropout": 0.0}


ALBERT = Architecture(
    name="Albert",
    config=AlbertConfig,
    paper="Lan et al., arXiv:1909.11942",
    prefix="albert.",
    modules={
        "embeddings.word": "albert.embeddings.word_embeddings",
        "embeddings.position": "albert.embeddings.position_embeddings",
        "embeddings.type": "albert.embeddings.token_type_embeddings",
        "embeddings.norm": "albert.embeddings.LayerNorm",
        "embeddings.projection": "albert.encoder.embedding_hidden_mapping_in",
        "layer.*.query": f"{_LAYER}.attention.query",
        "layer.*.key": f"{_LAYER}.attention.key",
        "layer.*.value": f"{_LAYER}.attention.value",
        "layer.*.output": f"{_LAYER}.attention.dense",
        "layer.*.attention_norm": f"{_LAYER}.attention.LayerNorm",
        "layer.*.up": f"{_LAYER}.ffn",
        "layer.*.down": f"{_LAYER}.ffn_output",
        "layer.*.ffn_norm": f"{_LAYER}.full_layer_layer_norm",
    },
    heads={
        SEQUENCE: Head(
            modules={**_POOLER, "head.output": "classifier"},
            pick="first",
            dense="tanh",
            dropout_after="classifier_dropout_prob",
        ),
        TOKEN: Head(modules={"head.output": "classifier"}, dropout_after="classifier_dropout_prob"),
        SPAN: Head(modules={"head.output": "qa_outputs"}),
        MASKED: Head(
            modules={
                "head.dense": "predictions.dense",
                "head.norm": "predictions.LayerNorm",
                "head.output": "predictions",
            },
            pick="listed",
            dense="hidden_act",
            norm=True,
            dense_width="embedding_size",
            tied=True,
            copies=("predictions.decoder.weight", "predictions.decoder.bias"),
        ),
        ENCODER: Head(modules=_POOLER, pick="first", dense="tanh"),
    },
    facts=_facts,
)
