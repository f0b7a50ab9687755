"""A short distillation run with everything that has a state, and what must be the same bits once it is finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.trainers import DistillationTrainer
from support.paths import TESTS
from support.small_run import small_dataset, small_model

ROWS = 29
DIRECTORIES = ("output_dir", "best_model_checkpoint", "log_directory")
LAST_STEP = 15  # 5 steps an epoch: four of 6 rows and one of 5


def trainer(output_dir: Path, rows: int = ROWS, callbacks: Any = (), **changes: Any) -> DistillationTrainer:
    """Dropout, warm-up, accumulation, a best model, log windows, fewer checkpoints kept than written."""
    fields = {
        "output_dir": str(output_dir),
        "num_train_epochs": 3,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.02,
        "warmup_steps": 4,
        "weight_decay": 0.1,
        "logging_strategy": "steps",
        "logging_steps": 4,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 4,
        "save_total_limit": 2,
        "disable_tqdm": True,
    }
    return DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**(fields | changes)),
        teacher_model=small_model(3),
        train_dataset=small_dataset(rows),
        eval_dataset=small_dataset(20, seed=1),
        callbacks=callbacks,
    )


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code that finds the tests' helpers, in a process of its own that does not look where it is started."""
    inherited = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    return subprocess.run(
        [sys.executable, "-P", "-c", code], env=inherited | environment, capture_output=True, text=True, check=False
    )


def untimed(value: Any) -> Any:
    """A trainer_state.json without what the clock decides and without the names of directories."""
    if isinstance(value, dict):
        return {
            name: untimed(item)
            for name, item in value.items()
            if not name.endswith(("runtime", "per_second")) and name not in DIRECTORIES
        }
    return [untimed(item) for item in value] if isinstance(value, list) else value


def result(output_dir: Path) -> dict[str, Any]:
    """Return the results of a finished run: weights, AdamW's state, the logs and the bookkeeping of the best model."""
    newest = output_dir / f"checkpoint-{LAST_STEP}"
    return {
        "model": (output_dir / "model.safetensors").read_bytes(),
        "optimizer": (newest / "optimizer.safetensors").read_bytes(),
        "checkpoints": sorted(path.name for path in output_dir.glob("checkpoint-*")),
        "results": untimed(json.loads((output_dir / "all_results.json").read_text())),
        "state": untimed(json.loads((output_dir / "trainer_state.json").read_text())),
        "checkpoint's state": untimed(json.loads((newest / "trainer_state.json").read_text())),
    }
