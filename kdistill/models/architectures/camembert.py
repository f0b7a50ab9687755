"""CamemBERT (Martin et al., arXiv:1911.03894) under the names of transformers: RoBERTa with another vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..architecture import Architecture
from ..configuration import Config
from .bert import encoder_modules
from .roberta import HEADS


@dataclass(init=False, repr=False, kw_only=True)
class CamembertConfig(Config):
    """Shape and constants of a CamemBERT model, with the names and defaults of `transformers.CamembertConfig`.

    Positions are counted as in RoBERTa, see `RobertaConfig`.
    """

    model_type: ClassVar[str] = "camembert"
    kind: ClassVar[str] = "CamemBERT"
    more_dropouts: ClassVar[tuple[str, ...]] = ("classifier_dropout",)
    after_padding: ClassVar[bool] = True

    vocab_size: int = 30522
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


CAMEMBERT = Architecture(
    name="Camembert",
    config=CamembertConfig,
    paper="Martin et al., arXiv:1911.03894",
    prefix="roberta.",
    modules=encoder_modules("roberta"),
    heads=HEADS,
)
