"""RoBERTa (Liu et al., arXiv:1907.11692) under the names of transformers: BERT with other positions and heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..architecture import Architecture, Head
from ..configuration import Config
from ..head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN
from .bert import encoder_modules

HEADS: Mapping[str, Head] = {
    SEQUENCE: Head(
        modules={"head.dense": "classifier.dense", "head.output": "classifier.out_proj"},
        pick="first",
        dense="tanh",
        dropout_before="classifier_dropout",
        dropout_after="classifier_dropout",
    ),
    TOKEN: Head(modules={"head.output": "classifier"}, dropout_after="classifier_dropout"),
    SPAN: Head(modules={"head.output": "qa_outputs"}),
    MASKED: Head(
        modules={"head.dense": "lm_head.dense", "head.norm": "lm_head.layer_norm", "head.output": "lm_head"},
        pick="listed",
        dense="gelu",
        norm=True,
        tied=True,
        copies=("lm_head.decoder.weight", "lm_head.decoder.bias"),
    ),
    ENCODER: Head(modules={"head.dense": "roberta.pooler.dense"}, pick="first", dense="tanh"),
}
"""Heads, which XLM-R and CamemBERT have too."""


@dataclass(init=False, repr=False, kw_only=True)
class RobertaConfig(Config):
    """Shape and constants of a RoBERTa model, with the names and defaults of `transformers.RobertaConfig`.

    Positions are counted from `pad_token_id` + 1, so that published models of 514 positions read 512 tokens. See
    `BertConfig` for labels and errors.
    """

    model_type: ClassVar[str] = "roberta"
    kind: ClassVar[str] = "RoBERTa"
    more_dropouts: ClassVar[tuple[str, ...]] = ("classifier_dropout",)
    after_padding: ClassVar[bool] = True

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | None = 2
    classifier_dropout: float | None = None


ROBERTA = Architecture(
    name="Roberta",
    config=RobertaConfig,
    paper="Liu et al., arXiv:1907.11692",
    prefix="roberta.",
    modules=encoder_modules("roberta"),
    heads=HEADS,
)
