"""Models whose last layer has a head less than the others, as after pruning."""

from __future__ import annotations

from typing import Any

import pytest

from kdistill.models.architecture import Architecture
from kdistill.models.configuration import Config


def prune_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the models that are made from here on have one head less in their last layer."""
    whole = Architecture.encoder

    def encoder(self: Architecture, config: Config) -> dict[str, Any]:
        shape = whole(self, config)
        *layers, (heads, feed_forward) = shape["layers"]
        return shape | {"layers": (*layers, (heads - 1, feed_forward))}

    monkeypatch.setattr(Architecture, "encoder", encoder)
