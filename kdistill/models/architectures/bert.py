"""BERT (Devlin et al., arXiv:1810.04805) under the names of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..architecture import Architecture, Head
from ..configuration import Config
from ..head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN

_POOLER = {"head.dense": "bert.pooler.dense"}


def encoder_modules(prefix: str) -> dict[str, str]:
    """Return the names of the modules of BERT's encoder, see `Architecture.modules`, which others have too."""
    layer = f"{prefix}.encoder.layer.*"
    return {
        "embeddings.word": f"{prefix}.embeddings.word_embeddings",
        "embeddings.position": f"{prefix}.embeddings.position_embeddings",
        "embeddings.type": f"{prefix}.embeddings.token_type_embeddings",
        "embeddings.norm": f"{prefix}.embeddings.LayerNorm",
        "layer.*.query": f"{layer}.attention.self.query",
        "layer.*.key": f"{layer}.attention.self.key",
        "layer.*.value": f"{layer}.attention.self.value",
        "layer.*.output": f"{layer}.attention.output.dense",
        "layer.*.attention_norm": f"{layer}.attention.output.LayerNorm",
        "layer.*.up": f"{layer}.intermediate.dense",
        "layer.*.down": f"{layer}.output.dense",
        "layer.*.ffn_norm": f"{layer}.output.LayerNorm",
    }


@dataclass(init=False, repr=False, kw_only=True)
class BertConfig(Config):
    """Shape and constants of a BERT model. Immutable; `replace` returns a changed copy.

    All arguments are keywords, with the names and defaults of `transformers.BertConfig`: the attributes, and
    `num_labels`, the number of classes, named `LABEL_0`, `LABEL_1`, ... (default: 2, or as many as are named).

    Attributes:
        id2label: id -> label, with ids from 0 without gaps. It follows from `label2id` if only that is given.
        label2id: label -> id. It follows from `id2label`.
        extra: the content of a config.json beyond the other attributes. It is written back and ignored in comparisons.

    Raises:
        TypeError: an unknown argument (the message suggests the nearest name) or a value of the wrong type.
        ValueError: a value that a BERT model cannot have, or that kdistill does not compute.
    """

    model_type: ClassVar[str] = "bert"
    kind: ClassVar[str] = "BERT"
    more_dropouts: ClassVar[tuple[str, ...]] = ("classifier_dropout",)

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
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None


BERT = Architecture(
    name="Bert",
    config=BertConfig,
    paper="Devlin et al., arXiv:1810.04805",
    prefix="bert.",
    modules=encoder_modules("bert"),
    heads={
        SEQUENCE: Head(
            modules={**_POOLER, "head.output": "classifier"},
            pick="first",
            dense="tanh",
            dropout_after="classifier_dropout",
        ),
        TOKEN: Head(modules={"head.output": "classifier"}, dropout_after="classifier_dropout"),
        SPAN: Head(modules={"head.output": "qa_outputs"}),
        MASKED: Head(
            modules={
                "head.dense": "cls.predictions.transform.dense",
                "head.norm": "cls.predictions.transform.LayerNorm",
                "head.output": "cls.predictions",
            },
            pick="listed",
            dense="hidden_act",
            norm=True,
            tied=True,
            copies=("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"),
        ),
        ENCODER: Head(modules=_POOLER, pick="first", dense="tanh"),
    },
)
