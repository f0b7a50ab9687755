"""The random numbers of a sampler as text: a search that goes on draws what an uninterrupted one would draw next."""

from __future__ import annotations

import base64
import struct
from typing import Any

import numpy as np

_STATE = struct.Struct("<2496sqqd")  # of NumPy's RandomState: 624 words, position, whether a number waits, that number


def sampler_state(sampler: Any) -> list[str]:
    """Return the state of the generators of one of Optuna's samplers "tpe" and "random"."""
    return [_packed(generator.get_state()) for generator in _generators(sampler)]


def set_sampler_state(sampler: Any, state: list[str]) -> None:
    """Give the sampler a state that `sampler_state` has returned. Raises `ValueError` for anything else."""
    generators = _generators(sampler)
    try:
        for generator, packed in zip(generators, state, strict=True):
            words, *rest = _STATE.unpack(base64.b64decode(packed, validate=True))
            generator.set_state(("MT19937", np.frombuffer(words, "<u4"), *rest))
    except (TypeError, ValueError, struct.error) as error:
        raise ValueError(f"the state of its sampler cannot be read ({error})") from error


def _generators(sampler: Any) -> list[Any]:
    owners = [sampler, getattr(sampler, "_random_sampler", None)]  # Optuna has no public name for them
    return [owner._rng.rng for owner in owners if owner is not None]


def _packed(state: Any) -> str:
    _, words, position, has_gauss, gauss = state
    return base64.b64encode(_STATE.pack(words.astype("<u4").tobytes(), position, has_gauss, gauss)).decode()
