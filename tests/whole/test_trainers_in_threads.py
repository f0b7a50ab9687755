"""Two trainers side by side in one process, on one teacher's cache: each ends with the bits it ends with alone."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from support.small_run import run_fields, small_dataset, small_model, weights

from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.trainers import DistillationTrainer

PATIENCE = 120.0  # seconds until a trainer counts as hung


def distilled(directory: Path, seed: int) -> NDArray[np.float32]:
    fields = run_fields(directory, {"seed": seed, "eval_strategy": "no", "save_strategy": "no", "num_train_epochs": 3})
    trainer = DistillationTrainer(
        small_model(seed),
        DistillationTrainingArguments(**fields),
        teacher_model=small_model(9),
        train_dataset=small_dataset(64),
    )
    trainer.train()
    return weights(trainer.model)


def test_two_trainers_in_two_threads_share_a_cache(tmp_path: Path) -> None:
    seeds = (1, 2)
    found: dict[int, NDArray[np.float32]] = {}

    def train(seed: int) -> None:
        found[seed] = distilled(tmp_path / f"side-by-side-{seed}", seed)

    threads = [threading.Thread(target=train, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    for seed in seeds:
        np.testing.assert_array_equal(found[seed], distilled(tmp_path / f"alone-{seed}", seed))
