"""ELECTRA (Clark et al., arXiv:2003.10555) under the names of transformers: BERT whose word table can be narrower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..architecture import Architecture, Head
from ..configuration import Config
from ..head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN
from .bert import encoder_modules


@dataclass(init=False, repr=False, kw_only=True)
class ElectraConfig(Config):
    """Shape and constants of an ELECTRA model, with the names and defaults of `transformers.ElectraConfig`.

    The `summary_...` fields belong to multiple choice; they are kept. See `BertConfig` for labels and errors.
    """

    model_type: ClassVar[str] = "electra"
    kind: ClassVar[str] = "ELECTRA"
    more_sizes: ClassVar[tuple[str, ...]] = ("embedding_size",)
    more_dropouts: ClassVar[tuple[str, ...]] = ("classifier_dropout", "summary_last_dropout")

    vocab_size: int = 30522
    embedding_size: int = 128
    hidden_size: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    summary_type: str = "first"
    summary_use_proj: bool = True
    summary_activation: str = "gelu"
    summary_last_dropout: float = 0.1
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None


def _facts(config: ElectraConfig) -> dict[str, Any]:
    """Return the width of the tables; only where it differs is there a product behind them."""
    return {} if config.embedding_size == config.hidden_size else {"embedding_width": config.embedding_size}


ELECTRA = Architecture(
    name="Electra",
    config=ElectraConfig,
    paper="Clark et al., arXiv:2003.10555",
    prefix="electra.",
    modules={**encoder_modules("electra"), "embeddings.projection": "electra.embeddings_project"},
    heads={
        SEQUENCE: Head(
            modules={"head.dense": "classifier.dense", "head.output": "classifier.out_proj"},
            pick="first",
            dense="gelu",
            dropout_before="classifier_dropout",
            dropout_after="classifier_dropout",
        ),
        TOKEN: Head(modules={"head.output": "classifier"}, dropout_after="classifier_dropout"),
        SPAN: Head(modules={"head.output": "qa_outputs"}),
        MASKED: Head(
            modules={
                "head.dense": "generator_predictions.dense",
                "head.norm": "generator_predictions.LayerNorm",
                "head.output": "generator_lm_head",
            },
            pick="listed",
            dense="gelu",
            norm=True,
            dense_width="embedding_size",
            tied=True,
            copies=("generator_lm_head.weight",),
        ),
        ENCODER: Head(),
    },
    facts=_facts,
)
