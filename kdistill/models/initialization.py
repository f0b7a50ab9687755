"""Initial weights of a model: drawn at random, or taken from a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .config import same_but_for_padding
from .configuration import Config

WORD_EMBEDDINGS = "embeddings.word"
_POSITION, _TYPE, _NORM_WEIGHT = "embeddings.position", "embeddings.type", "embeddings.norm"
_BLOCK_ROWS = 2048


def random_tensor(
    canonical: str, shape: tuple[int, ...], config: Config, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return the tensor of a canonical name as `transformers` initialises it.

    Matrices N(0, initializer_range) with the padding token's row 0, biases 0, LayerNorm weights 1.
    """
    if len(shape) == 1:
        return np.full(shape, 1.0 if canonical.endswith("norm") else 0.0, np.float32)
    values = generator.standard_normal(shape, dtype=np.float32) * np.float32(config.initializer_range)
    if canonical == WORD_EMBEDDINGS and config.pad_token_id is not None:
        values[config.pad_token_id] = 0
    return values


def resized_rows(
    words: NDArray[np.float32], rows: int, config: Config, generator: np.random.Generator, mean_resizing: bool
) -> NDArray[np.float32]:
    """Return a word table (vocabulary, hidden) with this many rows: its last ones cut off, or new ones behind it.

    With `mean_resizing` new rows are drawn as in transformers 5, around the mean of the old ones with 1e-9 times their
    covariance (https://nlp.stanford.edu/~johnhew/vocab-expansion.html); otherwise N(0, initializer_range).
    """
    new, width = max(0, rows - len(words)), words.shape[1]
    drawn = generator.standard_normal((new, width))
    if not mean_resizing or not new:
        drawn *= config.initializer_range
    else:
        mean, second_moment = np.zeros(width), np.zeros((width, width))
        for start in range(0, len(words), _BLOCK_ROWS):
            block = words[start : start + _BLOCK_ROWS].astype(np.float64)
            mean += block.sum(axis=0) / len(words)
            second_moment += block.T @ block / len(words)
        variances, vectors = np.linalg.eigh(second_moment - np.outer(mean, mean))
        drawn = mean + drawn * np.sqrt(1e-9 * np.maximum(variances, 0)) @ vectors.T
    return np.concatenate([words[:rows], drawn.astype(np.float32)])


def teacher_tensors(
    teacher_config: Config,
    teacher: Mapping[str, NDArray[np.float32]],
    config: Config,
    layers: Sequence[int] | None,
    token_counts: ArrayLike | None,
) -> dict[str, NDArray[np.float32]]:
    """Return the student's tensors that come from the teacher, both by canonical name; see `from_teacher`."""
    for field in ("vocab_size", "max_position_embeddings", "type_vocab_size"):
        ours, theirs = getattr(config, field), getattr(teacher_config, field)
        if ours != theirs and not (field == "vocab_size" and same_but_for_padding(ours, theirs)):
            raise ValueError(f"config.{field} is {ours}; the teacher's is {theirs}, and embeddings are taken from it")
    if config.hidden_size > teacher_config.hidden_size:
        raise ValueError(
            f"config.hidden_size is {config.hidden_size}; it can be at most the teacher's, {teacher_config.hidden_size}"
        )
    common = min(config.vocab_size, teacher_config.vocab_size)
    teacher = {**teacher, WORD_EMBEDDINGS: teacher[WORD_EMBEDDINGS][:common]}
    if config.hidden_size == teacher_config.hidden_size:
        tensors = {name: value for name, value in teacher.items() if name.startswith(("embeddings.", "head.dense"))}
    else:
        tensors = _projected_embeddings(teacher_config, teacher, config, token_counts)
    return tensors | _copied_layers(teacher_config, teacher, config, layers)


def _projected_embeddings(
    teacher_config: Config,
    teacher: Mapping[str, NDArray[np.float32]],
    config: Config,
    token_counts: ArrayLike | None,
) -> dict[str, NDArray[np.float32]]:
    """Return the embedding tables on the principal components of the words as the teacher's layers see them.

    That is after the embeddings' LayerNorm, with the average position and type 0. Words count by how often they
    occur (plus one, so that words that do not occur still have a say). Positions and types are moved by what the
    LayerNorm makes of them on average. The result has some ten times the spread of a raw table; since AdamW's steps
    have one size whatever the values, the student moves its words less and generalises better (docs/accuracy.md).
    """
    words = teacher[WORD_EMBEDDINGS]
    weights = _word_weights(token_counts, config.vocab_size, len(words))
    positions, types, gamma = (teacher[name].astype(np.float64) for name in (_POSITION, _TYPE, _NORM_WEIGHT))
    around = positions.mean(axis=0) + types[0]

    def seen(rows: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return words after the LayerNorm, (rows, teacher's width), and their deviation before it, (rows, 1).

        Without its bias, which centring takes away.
        """
        centred = words[rows] + around
        centred -= centred.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + teacher_config.layer_norm_eps)
        return centred / deviation * gamma, deviation

    # In blocks of rows: float64 copies of the whole table would be the peak memory of a whole distillation.
    blocks = [slice(start, start + _BLOCK_ROWS) for start in range(0, len(words), _BLOCK_ROWS)]
    width = words.shape[1]
    mean, second_moment, deviation = np.zeros(width), np.zeros((width, width)), 0.0
    for rows in blocks:
        values, deviations = seen(rows)
        mean += weights[rows] @ values
        second_moment += (values * weights[rows, None]).T @ values
        deviation += float(weights[rows] @ deviations[:, 0])
    _, vectors = np.linalg.eigh(second_moment - np.outer(mean, mean))
    components = vectors[:, ::-1][:, : config.hidden_size]
    # An eigenvector's sign is arbitrary; its largest entry is made positive, so that machines agree.
    components = components * np.sign(components[np.abs(components).argmax(axis=0), np.arange(config.hidden_size)])
    through_norm = gamma / deviation
    return {
        WORD_EMBEDDINGS: np.concatenate([((seen(rows)[0] - mean) @ components).astype(np.float32) for rows in blocks]),
        _POSITION: ((positions - positions.mean(axis=0)) * through_norm @ components).astype(np.float32),
        _TYPE: ((types - types[0]) * through_norm @ components).astype(np.float32),
    }


def _word_weights(token_counts: ArrayLike | None, vocabulary: int, common: int) -> NDArray[np.float64]:
    """Return the share in the components of each of the `common` words of both models; the shares add up to 1."""
    if token_counts is None:
        return np.full(common, 1 / common)
    counts: NDArray[np.float64] = np.asarray(token_counts, np.float64) + 1
    if counts.shape != (vocabulary,):
        raise ValueError(f"token_counts has shape {counts.shape}; expected ({vocabulary},), one for each token")
    if not (np.isfinite(counts) & (counts >= 1)).all():
        raise ValueError("token_counts has a count below 0 or not finite; expected how often each token occurs")
    counts = counts[:common]
    counts /= counts.sum()
    return counts


def _copied_layers(
    teacher_config: Config,
    teacher: Mapping[str, NDArray[np.float32]],
    config: Config,
    layers: Sequence[int] | None,
) -> dict[str, NDArray[np.float32]]:
    """Return whole layers of the teacher, where the widths are its own."""
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
        prefix = f"layer.{theirs}."
        tensors |= {
            f"layer.{ours}.{name.removeprefix(prefix)}": value
            for name, value in teacher.items()
            if name.startswith(prefix)
        }
    return tensors
