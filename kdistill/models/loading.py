"""Fill a new model's parameters from the files of a directory."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np

from .architecture import Architecture
from .checkpoint import read_weights
from .config import BertConfig
from .initialization import random_tensor
from .parameters import Flat, TensorViews

logger = logging.getLogger(__name__)


def load_parameters(
    views: TensorViews,
    directory: Path,
    architecture: Architecture,
    config: BertConfig,
    seed: int,
    *,
    ignore_mismatched_sizes: bool,
) -> None:
    """Fill `views` from a directory's weights, and at random what these lack, each with a warning.

    Args:
        views: the named parameters of a new model.
        directory: holds the weights, see `checkpoint.read_weights`.
        architecture: the model's.
        config: likewise.
        seed: of the tensors that are initialised.
        ignore_mismatched_sizes: also initialise what the files have in another shape.

    Raises:
        ValueError: the files do not hold these tensors, or hold values that are not finite; names file and tensor.
    """
    shapes = {tensor.name: tensor.shape for tensor in views.layout}
    weights = read_weights(directory, shapes, architecture, ignore_mismatched_sizes=ignore_mismatched_sizes)
    if weights.ignored:
        logger.info("%s: tensors a classifier has no use for: %s", directory, ", ".join(weights.ignored))
    if weights.missing:
        names = ", ".join(weights.missing)
        warnings.warn(f"{directory} lacks {names}: initialised at random, to be trained", stacklevel=3)
    if weights.mismatched:
        misfits = (f"{name} (in the file {old}, here {shapes[name]})" for name, old in weights.mismatched.items())
        warnings.warn(
            f"{directory} does not fit in {', '.join(misfits)}: initialised at random, to be trained", stacklevel=3
        )
    generator = np.random.Generator(np.random.Philox(seed))
    for tensor in views.layout:
        name, view = tensor.name, views[tensor.name]
        if name in weights:
            view[:] = weights[name]
            weights.release(name)
            _check_finite(directory, name, view)
        else:
            view[:] = random_tensor(tensor.canonical, tensor.shape, config, generator)


def _check_finite(directory: Path, name: str, values: Flat) -> None:
    """Raise ValueError for weights that a diverged training left, or a damaged file.

    NaN is the least and the greatest value of its array.
    """
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ValueError(f"{directory} has {name!r} with values that are not finite (NaN or infinity)")
