"""What the config.json of an int8 artefact states.

The integers are described under `quantization_config` in the form of compressed-tensors
(https://github.com/vllm-project/compressed-tensors), with which transformers opens the model; without that package it
refuses the directory. A form of another name it would leave aside with a warning, and take the integers for weights.
What kdistill needs beside that is under `kdistill` there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ..system.files import read_json_object

KEY = "quantization_config"
"""The entry of config.json."""
_OURS, _VERSION = "kdistill", 1
_CONFIG_FILE = "config.json"
_FORMAT = "int-quantized"
# What compressed-tensors refuses: under a tied head it would multiply with the integers, and fail in the first pass.
_TIED_FORMAT = "tied to the head, for kdistill alone"
_WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
_ACTIVATIONS = _WEIGHTS | {"strategy": "token", "dynamic": True}


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What an artefact states for kdistill.

    Attributes:
        embeddings: the type of its embeddings, "int8" or "float32".
        computed: what computes the golden logits, see `golden.computed_by`.
        golden_tolerance: how far logits may be from the golden ones, on a CPU that computes int8 as it should.
        version: of this form.
    """

    embeddings: str
    computed: str
    golden_tolerance: float
    version: int = _VERSION

    @property
    def dtype(self) -> str:
        """The compute type of the artefact."""
        return "int8"

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self | None:
        """Return what a config.json, parsed, states; None for that of another model, also one quantised elsewhere.

        Raises:
            ValueError: a later version of kdistill wrote it, or it lacks something.
        """
        described = content.get(KEY)
        ours = described.get(_OURS) if isinstance(described, Mapping) else None
        if ours is None:
            return None
        if not isinstance(ours, Mapping) or ours.get("version") != _VERSION:
            raise ValueError(
                f"{KEY}: {_OURS} is {json.dumps(ours)[:200]}; expected version {_VERSION}: a later kdistill wrote it, "
                "or it is damaged"
            )
        kinds = {"embeddings": str, "computed": str, "golden_tolerance": float}
        for name, kind in kinds.items():
            if not isinstance(ours.get(name), kind):
                raise ValueError(f"{KEY}: {_OURS} has {name} {ours.get(name)!r}; expected a {kind.__name__}")
        return cls(**{name: ours[name] for name in kinds})

    def described(self, products: Sequence[str], tables: Sequence[str], *, tied: bool) -> dict[str, Any]:
        """Return the entry of config.json.

        Args:
            products: names of the modules whose products are int8, weights by output and rows as they come.
            tables: names of the embeddings in int8.
            tied: whether the head's last product has the word embeddings as its weight, too.
        """
        # Each group names its format: of weights alone, as of tables, compressed-tensors expects packed ones otherwise.
        groups: dict[str, Any] = {
            "products": {
                "targets": [*products],
                "weights": _WEIGHTS,
                "input_activations": _ACTIVATIONS,
                "format": _FORMAT,
            }
        }
        if tables:
            groups["embeddings"] = {
                "targets": [*tables],
                "weights": _WEIGHTS,
                "format": _TIED_FORMAT if tied else _FORMAT,
            }
        return {
            "quant_method": "compressed-tensors",
            "format": _FORMAT,
            "quantization_status": "compressed",
            "config_groups": groups,
            "ignore": [],
            _OURS: asdict(self),
        }


def read_quantization(directory: Path) -> Quantization | None:
    """Return what the config.json of a model's directory states; None of a model that is no artefact."""
    path = directory / _CONFIG_FILE
    try:
        return Quantization.of(read_json_object(path)) if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
