"""Golden logits: those of some rows, by which the load of an int8 artefact is checked on each CPU."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..formats.safetensors import read_safetensors
from .architecture import Architecture
from .checkpoint import GOLDEN, WEIGHTS_FILE
from .configuration import Config
from .head_names import MASKED
from .quantization import Quantization

_EVERY_TOKEN = 16  # of which a language model's golden logits are


class Computing(Protocol):
    """A model, as far as its golden logits are concerned; see `Model`."""

    @property
    def architecture(self) -> Architecture: ...
    @property
    def head(self) -> str: ...
    @property
    def config(self) -> Config: ...
    @property
    def num_labels(self) -> int: ...
    def forward(self, batch: Batch, *, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]: ...


Loaded = TypeVar("Loaded", bound=Computing)


def computed_by(model: Computing) -> str:
    """Return a hash of what computes a model's logits beside its weights; golden logits hold for the same alone."""
    fields, differences = model.architecture.logit_fields, model.architecture.differences
    what = [model.head, model.num_labels, fields(model.config), differences(model.head, model.config)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


class Golden(NamedTuple):
    """Some rows of tokens, and the logits that the artefact's model has for them, float32.

    Of a language model they are those of every 16th token, for the words of the rows.
    """

    batch: Batch
    logits: NDArray[np.float32]

    @classmethod
    def of(cls, model: Computing, batch: Batch) -> Self:
        """Return the logits of a model for these rows."""
        return cls(batch, _logits(model, batch))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to write, by name."""
        named: dict[str, NDArray[Any]] = {
            "input_ids": self.batch.ids,
            "token_type_ids": self.batch.types,
            "starts": self.batch.starts,
        }
        named["logits"] = self.logits
        return {GOLDEN + name: array for name, array in named.items()}

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Return those of an artefact. Raises ValueError where it has none."""
        path = directory / WEIGHTS_FILE
        stored = read_safetensors(path) if path.is_file() else {}
        expected = {"input_ids": "I32", "token_type_ids": "I32", "starts": "I64", "logits": "F32"}
        for name, kind in expected.items():
            if GOLDEN + name not in stored or stored[GOLDEN + name].element_type != kind:
                raise ValueError(
                    f"{path} has no {GOLDEN + name} of type {kind}, by which an int8 artefact is checked; make it anew "
                    "with `kdistill quantize`"
                )
        ids, types, starts, logits = (np.array(stored[GOLDEN + name].elements()) for name in expected)  # aligned
        return cls(Batch(ids, types, starts), logits)

    def distance(self, model: Computing) -> float:
        """Return the largest difference of a model's logits from these; infinity where they have another shape.

        Raises:
            ValueError: the rows are none of this model.
        """
        logits = _logits(model, self.batch)
        if logits.shape != self.logits.shape:
            return float("inf")
        found = float(np.abs(logits - self.logits).max())
        return found if np.isfinite(found) else float("inf")


def _logits(model: Computing, batch: Batch) -> NDArray[np.float32]:
    if model.head != MASKED:
        return model.forward(batch)
    return model.forward(batch, rows=np.arange(0, len(batch.ids), _EVERY_TOKEN))[:, np.unique(batch.ids)]


def why_not_golden(model: Computing, directory: Path, quantization: Quantization) -> str | None:
    """Return in what a loaded artefact differs from its golden logits, as a clause; None where it has them.

    They say nothing of a model that was loaded for another task, or with other layers.

    Raises:
        ValueError: there are none, or they are damaged; names the file.
    """
    if computed_by(model) != quantization.computed:
        return None
    golden = Golden.read(directory)
    try:
        found = golden.distance(model)
    except ValueError as error:
        raise ValueError(f"{directory / WEIGHTS_FILE}: its golden rows are none of this model: {error}") from error
    if found <= quantization.golden_tolerance:
        return None
    return f"they differ by up to {found:.3g}, and {quantization.golden_tolerance:.3g} is allowed"


def load_artefact(
    load: Callable[[str | None, Quantization], Loaded], directory: Path, quantization: Quantization, compute: str | None
) -> Loaded:
    """Return the model of an int8 artefact: in int8, or in float32 with a warning where int8 fails its check here.

    Args:
        load: (compute type, quantization) -> the model.
        directory: where it is.
        quantization: what it states.
        compute: the type that was asked for; None: the artefact's own. In another one nothing is checked.

    Raises:
        ValueError: as `why_not_golden`.
    """
    if compute not in (None, quantization.dtype):
        warnings.warn(
            f"{directory} is an int8 artefact, and is read in {compute}: its weights are its integers times their "
            "scales",
            stacklevel=3,
        )
        return load(compute, quantization)
    model = load(quantization.dtype, quantization)
    if (difference := why_not_golden(model, directory, quantization)) is None:
        return model
    warnings.warn(
        f"{directory} does not give its golden logits in int8 here: {difference}. It is computed in float32 "
        "instead, with the same weights",
        stacklevel=3,
    )
    return load("float32", quantization)
