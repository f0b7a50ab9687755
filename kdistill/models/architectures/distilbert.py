"""DistilBERT (Sanh et al., arXiv:1910.01108) under the names of transformers: BERT without token types and pooler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..architecture import Architecture, Head
from ..configuration import Config
from ..head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN

_LAYER = "distilbert.transformer.layer.*"


@dataclass(init=False, repr=False, kw_only=True)
class DistilBertConfig(Config):
    """Shape and constants of a DistilBERT model, with the names and defaults of `transformers.DistilBertConfig`.

    It can also be made, changed and asked under the names of `BertConfig`: `hidden_size` is `dim`, `num_hidden_layers`
    `n_layers`, `num_attention_heads` `n_heads`, `intermediate_size` `hidden_dim`, `hidden_act` `activation`,
    `hidden_dropout_prob` `dropout` and `attention_probs_dropout_prob` `attention_dropout`. See `BertConfig` for labels
    and errors.
    """

    model_type: ClassVar[str] = "distilbert"
    kind: ClassVar[str] = "DistilBERT"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
    constants: ClassVar[Mapping[str, Any]] = {"type_vocab_size": 0, "layer_norm_eps": 1e-12}
    more_dropouts: ClassVar[tuple[str, ...]] = ("qa_dropout", "seq_classif_dropout")

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    initializer_range: float = 0.02
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    pad_token_id: int | None = 0
    eos_token_id: int | None = None
    bos_token_id: int | None = None


def _facts(config: DistilBertConfig) -> dict[str, Any]:
    """Return that nothing is dropped behind attention."""
    return {"output_dropout": 0.0} if config.dropout else {}


DISTILBERT = Architecture(
    name="DistilBert",
    config=DistilBertConfig,
    paper="Sanh et al., arXiv:1910.01108",
    prefix="distilbert.",
    modules={
        "embeddings.word": "distilbert.embeddings.word_embeddings",
        "embeddings.position": "distilbert.embeddings.position_embeddings",
        "embeddings.norm": "distilbert.embeddings.LayerNorm",
        "layer.*.query": f"{_LAYER}.attention.q_lin",
        "layer.*.key": f"{_LAYER}.attention.k_lin",
        "layer.*.value": f"{_LAYER}.attention.v_lin",
        "layer.*.output": f"{_LAYER}.attention.out_lin",
        "layer.*.attention_norm": f"{_LAYER}.sa_layer_norm",
        "layer.*.up": f"{_LAYER}.ffn.lin1",
        "layer.*.down": f"{_LAYER}.ffn.lin2",
        "layer.*.ffn_norm": f"{_LAYER}.output_layer_norm",
    },
    heads={
        SEQUENCE: Head(
            modules={"head.dense": "pre_classifier", "head.output": "classifier"},
            pick="first",
            dense="relu",
            dropout_after="seq_classif_dropout",
        ),
        TOKEN: Head(modules={"head.output": "classifier"}, dropout_after="dropout"),
        SPAN: Head(modules={"head.output": "qa_outputs"}, dropout_after="qa_dropout"),
        MASKED: Head(
            modules={
                "head.dense": "vocab_transform",
                "head.norm": "vocab_layer_norm",
                "head.output": "vocab_projector",
            },
            pick="listed",
            dense="hidden_act",
            norm=True,
            tied=True,
            copies=("vocab_projector.weight",),
        ),
        ENCODER: Head(),
    },
    facts=_facts,
)
