"""Every architecture as both sides know it, and pairs of models with the same random weights.

To test another architecture is to add its row; another head, to add its ending.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

import kdistill as kd
from kdistill.models.model import Model

torch.set_num_threads(1)  # models are small

ENDINGS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM", "Model")
VOCABULARY = 101
TOKENS = 40  # the most of a row


class Case(NamedTuple):
    """An architecture.

    Attributes:
        name: what its classes begin with.
        sizes: of a small model whose widths no tile divides.
        rates: the dropout rates that training without dropout sets to 0.
        types: token types; 0: none.
    """

    name: str
    sizes: dict[str, Any]
    rates: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    types: int = 2


SIZES = {
    "num_hidden_layers": 3, "hidden_size": 60, "num_attention_heads": 5, "intermediate_size": 84,
    "vocab_size": VOCABULARY, "max_position_embeddings": TOKENS,
}  # fmt: skip
FROM_TWO = SIZES | {"max_position_embeddings": TOKENS + 2, "pad_token_id": 1}
CASES = {
    case.name: case
    for case in (
        Case("Bert", SIZES),
        Case(
            "DistilBert",
            {"n_layers": 3, "dim": 60, "n_heads": 5, "hidden_dim": 84, "vocab_size": VOCABULARY,
             "max_position_embeddings": TOKENS},
            ("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"),
            types=0,
        ),
        Case("Roberta", FROM_TWO),
        Case("XLMRoberta", FROM_TWO | {"type_vocab_size": 1}, types=1),
        Case("Camembert", FROM_TWO | {"type_vocab_size": 1}, types=1),
        Case("Electra", SIZES | {"embedding_size": 28}),
        Case(
            "Albert",
            SIZES | {"embedding_size": 28},
            ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"),
        ),
        Case("MPNet", FROM_TWO, types=0),
    )
}  # fmt: skip


def small(case: Case, ending: str, **fields: Any) -> Model:
    """A model whose weights are so wide that an error shows."""
    labels = 2 if "Question" in ending else 3
    sizes = case.sizes | {"initializer_range": 0.3, "num_labels": labels} | fields
    model: Model = getattr(kd, case.name + ending)(getattr(kd, f"{case.name}Config")(**sizes), seed=7)
    return model


class Pair(NamedTuple):
    """The same model twice."""

    ours: Any
    theirs: Any


def named_parameters(model: Any) -> dict[str, Any]:
    """Return a model's parameters by name: of tied ones, some of which it lists as its decoder's, the other name."""
    every = sorted(model.named_parameters(remove_duplicate=False), key=lambda item: "decoder" in item[0])
    names: dict[int, str] = {}
    for name, parameter in every:
        names.setdefault(id(parameter), name)
    return {name: parameter for name, parameter in every if names[id(parameter)] == name}


def pair(case: Case, ending: str, std: float, seed: int) -> Pair:
    """The same model twice, every weight drawn around 0 (LayerNorm weights: 1), without dropout."""
    fields = case.sizes | dict.fromkeys(case.rates, 0.0) | {"num_labels": 2 if "Question" in ending else 3}
    kind = getattr(transformers, f"{case.name}Config")
    theirs = getattr(transformers, case.name + ending)(kind(**fields, attn_implementation="eager")).eval()
    named = named_parameters(theirs)
    norms = {id(module.weight) for module in theirs.modules() if isinstance(module, torch.nn.LayerNorm)}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in named.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std + (id(parameter) in norms))
    ours = getattr(kd, case.name + ending)(getattr(kd, f"{case.name}Config")(**fields), seed=seed)
    assert set(ours.parameters) == set(named)
    ours.load_state_dict({name: p.detach().numpy() for name, p in named.items()})
    return Pair(ours, theirs)


class Rows(NamedTuple):
    """Token ids, none of them padding, and token types."""

    ids: list[list[int]]
    types: list[list[int]]

    @property
    def packed(self) -> kd.Batch:
        """The rows as kdistill takes them."""
        return kd.pack({"input_ids": self.ids, "token_type_ids": self.types})


def random_rows(case: Case, lengths: Sequence[int], seed: int) -> Rows:
    """Rows of these lengths; token types are zeros, then ones where there are two."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(5, VOCABULARY, size=length).tolist() for length in lengths]
    return Rows(ids, [[int(case.types == 2 and 3 * i >= 2 * length) for i in range(length)] for length in lengths])


def torch_outputs(model: Any, case: Case, rows: Rows, **asked: Any) -> list[Any]:
    """What PyTorch returns for each row alone: neither padding nor masks."""
    outputs = []
    for ids, types in zip(rows.ids, rows.types, strict=True):
        given = {"token_type_ids": torch.tensor([types])} if case.types else {}
        outputs.append(model(input_ids=torch.tensor([ids]), **given, **asked))
    return outputs


def torch_logits(model: Any, case: Case, rows: Rows) -> torch.Tensor:
    """All rows of logits: one for each text, or for each token, text after text."""
    outputs = torch_outputs(model, case, rows)
    if "start_logits" in outputs[0]:
        return torch.cat([torch.stack([out.start_logits[0], out.end_logits[0]], dim=1) for out in outputs])
    return torch.cat([out.logits.reshape(-1, out.logits.shape[-1]) for out in outputs])


def is_truly_zero(name: str) -> bool:
    """Whether a gradient is 0 but for rounding: the softmax does not see the keys' bias."""
    return name.endswith((".key.bias", ".k_lin.bias", ".attn.k.bias"))


def labels_of(logits: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """Labels of rows of logits."""
    return np.random.default_rng(seed).integers(logits.shape[1], size=len(logits))
