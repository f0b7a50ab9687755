"""Initial weights of a model: drawn at random, or taken from a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .config import same_but_for_padding
from .configuration import Config
from .head_names import MASKED
from .layer_shapes import evenly_spaced
from .parameters import Flat
from .vocabularies import CommonTokens

WORD_EMBEDDINGS = "embeddings.word"
_POSITION = "embeddings.position"
_TYPE, _NORM_WEIGHT = "embeddings.type", "embeddings.norm"
PROJECTION, _RELATIVE = "embeddings.projection", "relative_bias"
_HEAD_DENSE, _HEAD_NORM, _HEAD_WORDS, _HEAD_BIAS = "head.dense", "head.norm", "head.output", "head.output.bias"
BY_WORD = WORD_EMBEDDINGS, _HEAD_WORDS, _HEAD_BIAS
"""Tensors that a student takes from a teacher with a row for each word."""
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


class Source(NamedTuple):
    """A teacher: its configuration, its tensors by canonical name, and the activation behind its head's product."""

    config: Config
    tensors: Mapping[str, Flat]
    dense: str | None


def teacher_tensors(
    teacher: Source,
    config: Config,
    dense: str | None,
    layers: Sequence[int] | None,
    token_counts: ArrayLike | None,
    common: CommonTokens | None,
) -> dict[str, Flat]:
    """Return the student's tensors that come from the teacher, by canonical name; see `from_teacher`.

    Rows of the word table are those of `common`, or the first ones; of positions those from `config.first_position` on.

    Args:
        teacher: the teacher.
        config: the student's.
        dense: the activation behind the product of the student's head.
        layers: which layers of the teacher are copied.
        token_counts: how often each token occurs.
        common: the tokens that both vocabularies have; None: they are one vocabulary.
    """
    _check_tables(teacher.config, config, common)
    taken: slice | NDArray[np.int64] = slice(min(config.vocab_size, teacher.config.vocab_size))
    if common is not None:
        taken = common.theirs
    words = teacher.tensors[WORD_EMBEDDINGS][taken]
    weights = _word_weights(token_counts, config.vocab_size, slice(len(words)) if common is None else common.ours)
    same_width = config.hidden_size == teacher.config.hidden_size
    if same_width and PROJECTION not in teacher.tensors:
        tensors = _copied_embeddings(teacher, words, config)
    else:
        tensors = _projected_embeddings(teacher, words, weights, config)
    if same_width and teacher.dense == dense and (config.head != MASKED or PROJECTION not in teacher.tensors):
        tensors |= {name: value for name, value in teacher.tensors.items() if name.startswith(_HEAD_DENSE)}
    if config.head == MASKED:
        tensors |= _language_head(teacher, taken, tensors, weights, config)
    return tensors | _copied_layers(teacher.config, teacher.tensors, config, layers)


def put_taken(
    views: Mapping[str, Flat], tensors: Mapping[str, Flat], config: Config, common: CommonTokens | None
) -> None:
    """Write what `teacher_tensors` returns into a student's tensors, which hold initial values.

    Args:
        views: the student's tensors by canonical name; what it lacks is left out.
        tensors: canonical name -> values.
        config: the student's.
        common: the tokens that both know; None: the vocabularies are the same, but for padding.
    """
    for name, value in tensors.items():
        if name not in views:
            continue
        if name in BY_WORD and common is not None:
            views[name][common.ours] = value
        elif name == _POSITION:
            views[name][config.first_position :] = value
        else:
            views[name][: len(value)] = value  # a word table that is padded further keeps its own last rows


def _language_head(
    teacher: Source,
    taken: slice | NDArray[np.int64],
    student: Mapping[str, Flat],
    weights: NDArray[np.float64],
    config: Config,
) -> dict[str, Flat]:
    """Return what a language model's head has behind its dense product: the norm, and the product with the words.

    Where the student has the teacher's words and dense product, all of it is the teacher's. Otherwise its words have
    another spread, some ten times that of a raw table where they are principal components, and logits that many times
    as large would be sure of wrong words: the loss of a new student would be 30 instead of log(vocabulary). So the
    norm, the only factor between them, starts with what gives logits the size that they have in a new model. The bias
    of a word is the logarithm of how often it occurs, which is the best answer of a model that sees nothing else yet,
    and what it would learn first.

    Args:
        teacher: the teacher.
        taken: the teacher's words that the student has.
        student: what the student has from it so far.
        weights: the share of each of these words.
        config: the student's.
    """
    words = student[WORD_EMBEDDINGS]
    if teacher.config.head == MASKED and _HEAD_DENSE in student:
        own = teacher.tensors.get(_HEAD_WORDS, teacher.tensors[WORD_EMBEDDINGS])
        norm = {name: value for name, value in teacher.tensors.items() if name.startswith(_HEAD_NORM)}
        return norm | {_HEAD_WORDS: own[taken], _HEAD_BIAS: teacher.tensors[_HEAD_BIAS][taken]}
    spread = float(np.sqrt(np.mean(words.astype(np.float64) ** 2)))
    size = config.initializer_range / max(spread, config.initializer_range)
    bias = np.log(weights) - np.log(weights).mean()
    norm = {_HEAD_NORM: np.full(config.hidden_size, size, np.float32)}
    return norm | {_HEAD_WORDS: words, _HEAD_BIAS: bias.astype(np.float32)}


def _check_tables(teacher: Config, config: Config, common: CommonTokens | None) -> None:
    """Raise ValueError for a student whose tables cannot be taken from the teacher's."""
    wanted = {
        "vocab_size": teacher.vocab_size,
        "max_position_embeddings": teacher.max_tokens + config.first_position,
        "type_vocab_size": teacher.type_vocab_size,
    }
    for field, theirs in wanted.items():
        ours = getattr(config, field)
        fits = {
            "vocab_size": common is not None or same_but_for_padding(ours, theirs),
            "type_vocab_size": ours == 0 or ours >= theirs,
        }.get(field, False)
        if ours != theirs and not fits:
            remedy = ", or give both vocabularies" if field == "vocab_size" else ""
            raise ValueError(
                f"config.{field} is {ours}; the teacher's is {theirs}, and embeddings are taken from it{remedy}"
            )
    if config.hidden_size > teacher.hidden_size:
        raise ValueError(
            f"config.{config.own_name('hidden_size')} is {config.hidden_size}; it can be at most the teacher's, "
            f"{teacher.hidden_size}"
        )
    for ids, size, name in (
        () if common is None else ((common.ours, config, "vocabulary"), (common.theirs, teacher, "teacher_vocabulary"))
    ):
        if ids.max() >= size.vocab_size or ids.min() < 0:
            raise ValueError(f"{name} has the id {ids.max()}; expected ids below {size.vocab_size}, its model's words")


def _types(teacher: Source) -> Flat:
    """Return the table of token types, (types, width); a teacher without types has one that is zero."""
    width = teacher.tensors[WORD_EMBEDDINGS].shape[1]
    return teacher.tensors.get(_TYPE, np.zeros((1, width), np.float32))


def _copied_embeddings(teacher: Source, words: Flat, config: Config) -> dict[str, Flat]:
    """Return the embedding tables as they are. Of types that the teacher lacks, each is its first.

    Where the student has no types, the first one is added to all positions, since the teacher saw it with each.
    """
    tensors = {name: value for name, value in teacher.tensors.items() if name.startswith((_NORM_WEIGHT, _RELATIVE))}
    positions, types = teacher.tensors[_POSITION][teacher.config.first_position :], _types(teacher)
    if config.type_vocab_size:
        tensors[_TYPE] = types[np.minimum(np.arange(config.type_vocab_size), len(types) - 1)]
        if len(types) < config.type_vocab_size:
            tensors[_TYPE][len(types) :] = types[0]
    else:
        positions = positions + types[0]
    return tensors | {WORD_EMBEDDINGS: words, _POSITION: positions}


def _projected_embeddings(
    teacher: Source, words: Flat, weights: NDArray[np.float64], config: Config
) -> dict[str, Flat]:
    """Return the embedding tables on the principal components of the words as the teacher's layers see them.

    That is after the embeddings' LayerNorm, and the product behind it where there is one, with the average position and
    type 0. Words count by how often they occur (plus one, so that words that do not occur still have a say). Positions
    and types are moved by what the LayerNorm makes of them on average. The result has some ten times the spread of a
    raw table; since AdamW's steps have one size whatever the values, the student moves its words less and generalises
    better (docs/accuracy.md).
    """
    positions = teacher.tensors[_POSITION][teacher.config.first_position :].astype(np.float64)
    types, gamma = (values.astype(np.float64) for values in (_types(teacher), teacher.tensors[_NORM_WEIGHT]))
    around = positions.mean(axis=0) + types[0]

    def seen(rows: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return words after the LayerNorm, (rows, teacher's width), and their deviation before it, (rows, 1).

        Without its bias, which centring takes away.
        """
        centred = words[rows] + around
        centred -= centred.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + teacher.config.layer_norm_eps)
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
    components = _components(teacher, second_moment - np.outer(mean, mean), config.hidden_size)
    through_norm = gamma / deviation
    tensors = {
        WORD_EMBEDDINGS: np.concatenate([((seen(rows)[0] - mean) @ components).astype(np.float32) for rows in blocks]),
        _POSITION: ((positions - positions.mean(axis=0)) * through_norm @ components).astype(np.float32),
    }
    if config.type_vocab_size:
        moved = ((types - types[0]) * through_norm @ components).astype(np.float32)
        tensors[_TYPE] = np.zeros((config.type_vocab_size, config.hidden_size), np.float32)
        tensors[_TYPE][: len(moved)] = moved
    return tensors


def _components(teacher: Source, covariance: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return what leads from normalised embeddings (E) to the student's (width): (E, width).

    It is the product behind the embeddings, where there is one, and then the principal components of what it leads to;
    a student as wide as the teacher keeps the teacher's axes, which copied layers read.
    """
    projection = teacher.tensors.get(PROJECTION)
    product = None if projection is None else projection.T.astype(np.float64)
    if product is not None and width == product.shape[1]:
        return product
    _, vectors = np.linalg.eigh(covariance if product is None else product.T @ covariance @ product)
    components: NDArray[np.float64] = vectors[:, ::-1][:, :width]
    # An eigenvector's sign is arbitrary; its largest entry is made positive, so that machines agree.
    components *= np.sign(components[np.abs(components).argmax(axis=0), np.arange(width)])
    return components if product is None else product @ components


def _word_weights(
    token_counts: ArrayLike | None, vocabulary: int, taken: slice | NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the share in the components of each of the words that are taken; the shares add up to 1."""
    if token_counts is None:
        common = taken.stop if isinstance(taken, slice) else len(taken)
        return np.full(common, 1 / common)
    counts: NDArray[np.float64] = np.asarray(token_counts, np.float64) + 1
    if counts.shape != (vocabulary,):
        raise ValueError(f"token_counts has shape {counts.shape}; expected ({vocabulary},), one for each token")
    if not (np.isfinite(counts) & (counts >= 1)).all():
        raise ValueError("token_counts has a count below 0 or not finite; expected how often each token occurs")
    counts = counts[taken]
    counts /= counts.sum()
    return counts


def _copied_layers(
    teacher_config: Config,
    teacher: Mapping[str, NDArray[np.float32]],
    config: Config,
    layers: Sequence[int] | None,
) -> dict[str, NDArray[np.float32]]:
    """Return whole layers of the teacher, where the widths are its own."""
    ours, theirs = config.layer_shapes(), teacher_config.layer_shapes()
    widths = [(of.hidden_size, of.num_attention_heads) for of in (config, teacher_config)]
    fits = widths[0] == widths[1] and {*ours} <= {*theirs}
    if not fits and layers is None:
        return {}
    count, available, given = config.num_hidden_layers, teacher_config.num_hidden_layers, layers is not None
    if layers is None:
        if count > available:
            raise ValueError(f"config.num_hidden_layers is {count}; the teacher has {available} layers")
        layers = evenly_spaced(count, available)
    if len(layers) != count or not all(0 <= layer < available for layer in layers):
        raise ValueError(f"layers is {list(layers)}; expected {count} numbers from 0 to {available - 1}")
    if not fits or ours != tuple(theirs[layer] for layer in layers):
        if not given:
            return {}
        raise ValueError(
            "layers can be copied only into a student with the teacher's hidden_size, num_attention_heads and "
            f"intermediate_size ({teacher_config.hidden_size}, {teacher_config.num_attention_heads}, "
            f"{teacher_config.intermediate_size}), each into one of its shape; leave `layers` out"
        )
    tensors: dict[str, NDArray[np.float32]] = {}
    shared = "layer.1.query" not in teacher
    for place, layer in enumerate(layers):
        prefix = "layer.0." if shared else f"layer.{layer}."
        tensors |= {
            f"layer.{place}.{name.removeprefix(prefix)}": value
            for name, value in teacher.items()
            if name.startswith(prefix)
        }
    return tensors
