"""On what the logits of a model depend beside the rows: the key under which caches keep them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .architecture import Architecture
from .configuration import Config

_HASHED_FLOATS = 1 << 22  # in one go


def logits_key(
    architecture: Architecture, head: str, config: Config, compute: str, weights: NDArray[np.float32] | str
) -> str:
    """Return a sha256 of weights, config, head, compute type and instruction set.

    Args:
        architecture: of the model.
        head: the name of its head.
        config: its configuration.
        compute: the type of its products.
        weights: the flat array in float32, and in another type the `weights_digest` of it.
    """
    digest = logits_digest(architecture, head, config, compute)
    if isinstance(weights, str):
        digest.update(weights.encode())
    else:
        _add(digest, weights)
    return digest.hexdigest()


def logits_digest(architecture: Architecture, head: str, config: Config, compute: str) -> hashlib._Hash:
    """Return the sha256 behind `logits_key`, which is to take the weights."""
    fields = {"num_labels": config.num_labels, **architecture.logit_fields(config)}
    beyond = _beyond_the_usual(architecture.differences(head, config), compute)
    about = [fields, _core.NUMERICS_VERSION, _core.ISA_LEVEL, _core.BLIS_VERSION, *beyond]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode())


def weights_digest(weights: NDArray[np.float32]) -> str:
    """Return a sha256 of the flat float32 weights, the same on every CPU and in every compute type."""
    digest = hashlib.sha256()
    _add(digest, weights)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, weights: NDArray[np.float32]) -> None:
    for start in range(0, weights.size, _HASHED_FLOATS):  # signals are answered in between
        digest.update(weights[start : start + _HASHED_FLOATS].data)


def _beyond_the_usual(differences: dict[str, Any], compute: str) -> list[list[Any]]:
    """Return what else logits depend on, beside what those of a BERT classifier in float32 do.

    Of that it is empty, so that the logits that earlier versions kept are still found.
    """
    beyond: list[list[Any]] = [["computed", differences]] if differences else []
    if compute != "float32":
        beyond.append(["compute", compute, _core.COMPUTE[compute]])
    if compute == "bfloat16":
        beyond.append(["attention", "bfloat16"])  # before, attention was float32
    return beyond
