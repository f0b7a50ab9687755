"""Models with wide weights, rows of given lengths, dropout masks of a pass: to compare the core with the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdistill._core import testing
from kdistill.data.batch import Batch, pack
from kdistill.models.classes import BertForSequenceClassification
from kdistill.models.config import BertConfig
from kdistill.models.parameters import TensorViews
from support import reference

Rows = list[list[int]]

# Names of the dropped tensors, as csrc/kd_dropout.h numbers them; layer l adds 3 * l to its own.
EMBEDDING, HEAD, ATTENTION, SELF, FFN = range(5)
PER_LAYER = 3
HEAD_INPUT = 2**31 - 1

# Sizes that no tile and no register divides.
ODD = {"hidden_size": 60, "num_attention_heads": 5, "intermediate_size": 84, "num_labels": 3}
SMALL = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 40, "num_labels": 2}


def wide_config(**changes: object) -> BertConfig:
    """The odd shape, two layers, no dropout."""
    fields: dict[str, object] = {
        **ODD,
        "num_hidden_layers": 2,
        "vocab_size": 31,
        "max_position_embeddings": 40,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return BertConfig(**(fields | changes))


def wide_model(std: float = 0.25, seed: int = 7, **changes: object) -> BertForSequenceClassification:
    """Every tensor, biases and LayerNorms included, is drawn wide enough for attention not to be flat."""
    model = BertForSequenceClassification(wide_config(**changes), seed=seed)
    shapes = {tensor.name: tensor.shape for tensor in model.layout}
    with model.writing() as flat:
        views = TensorViews(flat, model.layout)
        for name, value in reference.random_parameters(shapes, std, seed).items():
            views[name][:] = value
    return model


def random_rows(lengths: Sequence[int], config: BertConfig, seed: int = 0) -> tuple[Rows, Rows]:
    """Token ids and token types of rows of these lengths; types change in the middle of a row."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, config.vocab_size, length).tolist() for length in lengths]
    return ids, [[i * config.type_vocab_size // length for i in range(length)] for length in lengths]


def batch_of(ids: Rows, types: Rows) -> Batch:
    return pack({"input_ids": ids, "token_type_ids": types})


def random_dlogits(model: BertForSequenceClassification, rows: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, model.config.num_labels)).astype(np.float32)


def exact(model: BertForSequenceClassification) -> dict[str, reference.Array]:
    """The parameters for the reference."""
    return {name: view.astype(np.float64) for name, view in TensorViews(model.flat_parameters, model.layout).items()}


def gradient(model: BertForSequenceClassification, batch: Batch, dlogits: NDArray[np.float32]) -> NDArray[np.float32]:
    """All gradients of sum(logits * dlogits) in a training pass, as one array."""
    model.zero_grad()
    model.forward(batch, train=True)
    model.backward(dlogits)
    return model.flat_gradients.copy()


def dropout_masks(
    model: BertForSequenceClassification, lengths: Sequence[int], place: int = 0
) -> dict[str, list[reference.Array]]:
    """What a training pass at `place` of the model's effective batch multiplies by.

    Asked from the dropout layer itself, which test_random.py checks against the address scheme.
    """
    config = model.config
    width, heads = config.hidden_size, config.num_attention_heads
    features = -(-config.max_position_embeddings // 64) * 64  # of one head: whole blocks of random bits
    p_classifier = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout

    def mask(p: float, tensor: int, token: int, shape: tuple[int, int]) -> reference.Array:
        position = (p, model.dropout_seed, model.optimizer_step, tensor, place + token)
        return testing.dropout(np.ones(shape, np.float32), position).astype(np.float64)

    masks: dict[str, list[reference.Array]] = {name: [] for name in reference.dropout_shapes(config, 1)}
    token = 0
    for n in lengths:
        masks["bert.embeddings.dropout"].append(mask(config.hidden_dropout_prob, EMBEDDING, token, (n, width)))
        masks["dropout"].append(mask(p_classifier, HEAD, token, (1, width))[0])
        for layer in range(config.num_hidden_layers):
            prefix, later = f"bert.encoder.layer.{layer}", PER_LAYER * layer
            drawn = mask(config.attention_probs_dropout_prob, ATTENTION + later, token, (n, heads * features))
            by_head = drawn.reshape(n, heads, features)[:, :, :n].transpose(1, 0, 2)
            masks[f"{prefix}.attention.self.dropout"].append(by_head)
            for module, tensor in ((f"{prefix}.attention.output.dropout", SELF), (f"{prefix}.output.dropout", FFN)):
                masks[module].append(mask(config.hidden_dropout_prob, tensor + later, token, (n, width)))
        token += n
    return masks
