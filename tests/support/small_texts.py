"""Text that a tiny language model learns in a second: two words take turns, so that each tells the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kdistill.models.classes import BertForMaskedLM
from support.small_run import WORDS, run_fields, small_config


def documents(n: int, seed: int = 0) -> list[str]:
    """Documents of one of four pairs of words."""
    random = np.random.default_rng(seed)
    pairs = [WORDS[i : i + 2] for i in range(0, len(WORDS), 2)]
    return [" ".join(pairs[random.integers(4)] * int(random.integers(2, 9))) for _ in range(n)]


def language_model(seed: int = 1, **changes: Any) -> BertForMaskedLM:
    config = small_config(initializer_range=0.2, id2label={0: "LABEL_0", 1: "LABEL_1"}, **changes)
    return BertForMaskedLM(config, seed=seed)


def text_fields(directory: Path, **changes: Any) -> dict[str, Any]:
    """Training arguments of a short run; some documents need two blocks."""
    return run_fields(directory, {"num_train_epochs": 3, "max_length": 12, "seed": 1, **changes})
