"""Fill a new model's parameters from the files of a directory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from ..formats.int8 import Int8Rows
from ..system.callers import level_outside
from ..system.names import listing
from .architecture import Names
from .checkpoint import read_weights
from .configuration import SIZES, Config
from .initialization import WORD_EMBEDDINGS, random_tensor
from .parameters import Flat, Tensor, is_constant, without_wrappers

_LISTED = 8  # names in a warning


class RandomWeights(UserWarning):
    """The warning that a checkpoint lacks weights, which are initialised at random.

    Args:
        found: the checkpoint, and which weights it lacks.
    """

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}: initialised at random, to be trained")
        self.found = found


def check_sizes_of_weights(stored: Config, config: Config, changes: Collection[str]) -> None:
    """Raise ValueError for a changed size that makes other weights of a checkpoint, other than fewer layers.

    Args:
        stored: the configuration that the checkpoint was written with.
        config: the same with the changes.
        changes: names of the arguments that were changed.
    """
    for common in (*SIZES, *config.more_sizes):
        name, found, asked = config.own_name(common), getattr(stored, common), getattr(config, common)
        unchanged = found == asked or not {common, name} & {*changes}
        if unchanged or (common == "num_hidden_layers" and asked < found):
            continue
        remedy = {
            "num_hidden_layers": f"expected at most {found}: there are no weights for more layers",
            "vocab_size": "leave it out, and call resize_token_embeddings afterwards",
        }.get(common, "leave it out")
        raise ValueError(f"{name} is {asked}; the checkpoint's weights were made with {found}: {remedy}")


def load_parameters(
    layout: Sequence[Tensor],
    filling: Callable[[Tensor], AbstractContextManager[Flat]],
    take_int8: Callable[[Tensor, Int8Rows], None] | None,
    directory: Path,
    names: Names,
    config: Config,
    seed: int,
    *,
    stored_layers: int,
    ignore_mismatched_sizes: bool,
) -> None:
    """Fill a new model's tensors from a directory's weights, and at random what these lack, each with a warning.

    Args:
        layout: the tensors, which are filled in this order.
        filling: tensor -> a context with the array to fill; the array is used no more at its end.
        take_int8: takes word embeddings that the files have in int8; None where float32 is wanted.
        directory: holds the weights, see `checkpoint.read_weights`.
        names: what the model calls its tensors.
        config: the model's.
        seed: of the tensors that are initialised.
        stored_layers: of which `config` has these or the first.
        ignore_mismatched_sizes: also initialise what the files have in another shape.

    Raises:
        ValueError: the files do not hold these tensors, or hold values that are not finite; names file and tensor.
    """
    shapes = {tensor.name: tensor.shape for tensor in layout}
    unread = range(config.num_hidden_layers, stored_layers)
    weights = read_weights(
        directory, shapes, names, unread_layers=unread, ignore_mismatched_sizes=ignore_mismatched_sizes
    )
    if weights.missing:
        missing = ", ".join(weights.missing)
        warnings.warn(RandomWeights(f"{directory} lacks {missing}"), stacklevel=level_outside())
    if weights.mismatched:
        misfits = (f"{name} (in the file {old}, here {shapes[name]})" for name, old in weights.mismatched.items())
        warnings.warn(RandomWeights(f"{directory} does not fit in {', '.join(misfits)}"), stacklevel=level_outside())
    if weights.left_out:
        warnings.warn(
            f"{directory} has {stored_layers} layers and {config.own_name('num_hidden_layers')} is "
            f"{config.num_hidden_layers}: "
            f"{len(weights.left_out)} tensors of layers {unread[0]} to {unread[-1]} are not loaded",
            stacklevel=level_outside(),
        )
    # Of a pooler, which all checkpoints have that end with the encoder, most heads make no use.
    ignored = [name for name in weights.ignored if not names.is_of_pooler(without_wrappers(name))]
    if unused := [name for name in ignored if not is_constant(name)]:
        warnings.warn(
            f"{directory} has {len(unused)} tensors that this model does not use: {listing(unused, _LISTED)}",
            stacklevel=level_outside(),
        )
    generator = np.random.Generator(np.random.Philox(seed))
    for tensor in layout:
        if take_int8 is not None and tensor.canonical == WORD_EMBEDDINGS:
            rows = weights.int8_rows(tensor.name)
            if rows is not None:
                take_int8(tensor, rows)
                weights.release(tensor.name)
                continue
        with filling(tensor) as values:
            if tensor.name in weights:
                weights.fill(tensor.name, values)
                weights.release(tensor.name)
                _check_finite(directory, tensor.name, values)
            else:
                values[:] = random_tensor(tensor.canonical, tensor.shape, config, generator)


def _check_finite(directory: Path, name: str, values: Flat) -> None:
    """Raise ValueError for weights that a diverged training left, or a damaged file.

    NaN is the least and the greatest value of its array.
    """
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ValueError(f"{directory} has {name!r} with values that are not finite (NaN or infinity)")
