"""MPNet (Song et al., arXiv:2004.09297) under the names of transformers: relative positions, and no token types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..architecture import Architecture, Head
from ..configuration import Config
from ..head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN

_LAYER = "mpnet.encoder.layer.*"
_FARTHEST = 128  # tokens; what is farther shares a bucket, `relative_position_bucket` of transformers


@dataclass(init=False, repr=False, kw_only=True)
class MPNetConfig(Config):
    """Shape and constants of an MPNet model, with the names and defaults of `transformers.MPNetConfig`.

    Positions are counted from 2, so that published models of 514 positions read 512 tokens.
    `relative_attention_num_buckets` can only be 32, the number that transformers' code sorts distances into, whatever
    the configuration has. The table of relative positions, which all layers share, keeps the columns of heads that
    layers lack (`pruned_heads`). See `BertConfig` for labels and errors.
    """

    model_type: ClassVar[str] = "mpnet"
    kind: ClassVar[str] = "MPNet"
    constants: ClassVar[Mapping[str, Any]] = {"type_vocab_size": 0}
    only: ClassVar[Mapping[str, Any]] = {"relative_attention_num_buckets": 32}

    vocab_size: int = 30527
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    relative_attention_num_buckets: int = 32
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | None = 2

    @property
    def first_position(self) -> int:
        """The row of the position table that the first token of a text has, whatever `pad_token_id` is."""
        return 2


def _facts(config: MPNetConfig) -> dict[str, Any]:
    """Return the table of relative positions that all layers add to their scores, and which of its heads they have."""
    facts: dict[str, Any] = {
        "relative_buckets": config.relative_attention_num_buckets,
        "relative_distance": _FARTHEST,
    }
    if config.pruned_heads is not None:
        every = range(config.num_attention_heads)
        lacking = (config.pruned_heads.get(layer, ()) for layer in range(config.num_hidden_layers))
        facts["relative_heads"] = len(every), tuple(tuple(h for h in every if h not in gone) for gone in lacking)
    return facts


MPNET = Architecture(
    name="MPNet",
    config=MPNetConfig,
    paper="Song et al., arXiv:2004.09297",
    prefix="mpnet.",
    modules={
        "embeddings.word": "mpnet.embeddings.word_embeddings",
        "embeddings.position": "mpnet.embeddings.position_embeddings",
        "embeddings.norm": "mpnet.embeddings.LayerNorm",
        "relative_bias": "mpnet.encoder.relative_attention_bias",
        "layer.*.query": f"{_LAYER}.attention.attn.q",
        "layer.*.key": f"{_LAYER}.attention.attn.k",
        "layer.*.value": f"{_LAYER}.attention.attn.v",
        "layer.*.output": f"{_LAYER}.attention.attn.o",
        "layer.*.attention_norm": f"{_LAYER}.attention.LayerNorm",
        "layer.*.up": f"{_LAYER}.intermediate.dense",
        "layer.*.down": f"{_LAYER}.output.dense",
        "layer.*.ffn_norm": f"{_LAYER}.output.LayerNorm",
    },
    heads={
        SEQUENCE: Head(
            modules={"head.dense": "classifier.dense", "head.output": "classifier.out_proj"},
            pick="first",
            dense="tanh",
            dropout_before="hidden_dropout_prob",
            dropout_after="hidden_dropout_prob",
        ),
        TOKEN: Head(modules={"head.output": "classifier"}, dropout_after="hidden_dropout_prob"),
        SPAN: Head(modules={"head.output": "qa_outputs"}),
        MASKED: Head(
            modules={"head.dense": "lm_head.dense", "head.norm": "lm_head.layer_norm", "head.output": "lm_head"},
            pick="listed",
            dense="gelu",
            norm=True,
            tied=True,
            copies=("lm_head.decoder.weight", "lm_head.decoder.bias"),
        ),
        ENCODER: Head(modules={"head.dense": "mpnet.pooler.dense"}, pick="first", dense="tanh"),
    },
    facts=_facts,
)
