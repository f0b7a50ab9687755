"""What a model's weights begin as: drawn at random, or taken from a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdistill.config import BertConfig

_WORD = "bert.embeddings.word_embeddings.weight"
_POSITION = "bert.embeddings.position_embeddings.weight"
_TYPE = "bert.embeddings.token_type_embeddings.weight"
_LAYER = "bert.encoder.layer."


def random_tensor(
    name: str, shape: tuple[int, ...], config: BertConfig, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Returns a tensor as `transformers` initialises it.

    Matrices N(0, initializer_range) with the padding token's row 0, biases 0, LayerNorm weights 1.
    """
    if len(shape) == 1:
        return np.full(shape, 1.0 if name.endswith("LayerNorm.weight") else 0.0, np.float32)
    values = generator.standard_normal(shape, dtype=np.float32) * np.float32(config.initializer_range)
    if name == _WORD and config.pad_token_id is not None:
        values[config.pad_token_id] = 0
    return values


def teacher_tensors(
    teacher_config: BertConfig,
    teacher: Mapping[str, NDArray[np.float32]],
    config: BertConfig,
    layers: Sequence[int] | None,
    token_counts: ArrayLike | None,
) -> dict[str, NDArray[np.float32]]:
    """Returns the student's tensors that come from the teacher; see `from_teacher`."""
    for field in ("vocab_size", "max_position_embeddings", "type_vocab_size"):
        ours, theirs = getattr(config, field), getattr(teacher_config, field)
        if ours != theirs:
            raise ValueError(f"config.{field} is {ours}; the teacher's is {theirs}, and embeddings are taken from it")
    if config.hidden_size > teacher_config.hidden_size:
        raise ValueError(
            f"config.hidden_size is {config.hidden_size}; it can be at most the teacher's, {teacher_config.hidden_size}"
        )
    if config.hidden_size == teacher_config.hidden_size:
        tensors = {name: value for name, value in teacher.items() if name.startswith("bert.embeddings.")}
        tensors |= {name: value for name, value in teacher.items() if name.startswith("bert.pooler.")}
    else:
        tensors = _projected_embeddings(teacher, config, token_counts)
    return tensors | _copied_layers(teacher_config, teacher, config, layers)


def _projected_embeddings(
    teacher: Mapping[str, NDArray[np.float32]], config: BertConfig, token_counts: ArrayLike | None
) -> dict[str, NDArray[np.float32]]:
    """The embedding tables on the principal components of the teacher's words.

    Words count by how often they occur (plus one, so that words that do not occur still have a say). The spread of
    the result is that of the teacher's table: the LayerNorm that follows would undo another scale, but weight decay
    and AdamW's steps, whose size does not depend on it, would not.
    """
    words = teacher[_WORD].astype(np.float64)
    counts = np.ones(len(words))
    if token_counts is not None:
        counts = np.asarray(token_counts, np.float64) + 1
        if counts.shape != (len(words),):
            raise ValueError(f"token_counts has shape {counts.shape}; expected ({len(words)},), one for each token")
        if not (np.isfinite(counts) & (counts >= 1)).all():
            raise ValueError("token_counts has a count below 0 or not finite; expected how often each token occurs")
    weights = counts / counts.sum()
    mean = weights @ words
    centred = words - mean
    covariance = (centred * weights[:, None]).T @ centred
    _, vectors = np.linalg.eigh(covariance)
    components = vectors[:, ::-1][:, : config.hidden_size]
    # An eigenvector's sign is arbitrary; its largest entry is made positive, so that machines agree.
    components = components * np.sign(components[np.abs(components).argmax(axis=0), np.arange(config.hidden_size)])
    scale = words.std() / (centred @ components).std()
    return {
        _WORD: (centred @ components * scale).astype(np.float32),
        _POSITION: (teacher[_POSITION] @ components * scale).astype(np.float32),
        _TYPE: ((teacher[_TYPE] + mean) @ components * scale).astype(np.float32),
    }


def _copied_layers(
    teacher_config: BertConfig,
    teacher: Mapping[str, NDArray[np.float32]],
    config: BertConfig,
    layers: Sequence[int] | None,
) -> dict[str, NDArray[np.float32]]:
    """Whole layers, where the widths are the teacher's."""
    same = all(
        getattr(config, field) == getattr(teacher_config, field)
        for field in ("hidden_size", "num_attention_heads", "intermediate_size")
    )
    if not same:
        if layers is not None:
            raise ValueError(
                "layers can be copied only into a student with the teacher's hidden_size, num_attention_heads and "
                f"intermediate_size ({teacher_config.hidden_size}, {teacher_config.num_attention_heads}, "
                f"{teacher_config.intermediate_size}); leave `layers` out"
            )
        return {}
    count, available = config.num_hidden_layers, teacher_config.num_hidden_layers
    if layers is None:
        if count > available:
            raise ValueError(f"config.num_hidden_layers is {count}; the teacher has {available} layers")
        layers = [(i + 1) * available // count - 1 for i in range(count)]
    if len(layers) != count or not all(0 <= layer < available for layer in layers):
        raise ValueError(f"layers is {list(layers)}; expected {count} numbers from 0 to {available - 1}")
    tensors: dict[str, NDArray[np.float32]] = {}
    for ours, theirs in enumerate(layers):
        prefix = f"{_LAYER}{theirs}."
        tensors |= {
            f"{_LAYER}{ours}.{name.removeprefix(prefix)}": value
            for name, value in teacher.items()
            if name.startswith(prefix)
        }
    return tensors
