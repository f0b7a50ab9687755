"""A job of part of a second, as SageMaker lays it out below /opt/ml, and the model that one like it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.small_run import write_model, write_rows

HYPERPARAMETERS: dict[str, Any] = {
    "student_id": "L1-H16-A2",
    "epochs": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.01,
}
# The same for `kdistill distill`.
OPTIONS = ["--student=L1-H16-A2", "--num-train-epochs=2", "--per-device-train-batch-size=8", "--learning-rate=0.01"]
MODEL = "model.safetensors"
# The variables with which SageMaker starts every container of a job, as far as anything here reads them.
CONTAINER_VARIABLES = {"TRAINING_JOB_NAME": "small-job", "AWS_REGION": "eu-central-1"}


def write_channels(directory: Path) -> dict[str, Path]:
    """Write rows and a teacher, and return the directory of each channel."""
    channels = {name: directory / name for name in ("train", "validation", "teacher")}
    for name, rows in (("train", 40), ("validation", 16)):
        channels[name].mkdir(parents=True)
        write_rows(channels[name] / f"{name}.tsv", rows)
    write_model(channels["teacher"])
    return channels


def lay_out(base: Path, hyperparameters: Mapping[str, str], host: str = "algo-1") -> Path:
    """Lay out the tree of a container below `base`, with channels of its own, and return `base`.

    Args:
        base: stands for /opt/ml.
        hyperparameters: text, as the service hands it over.
        host: name of the one machine of the job.
    """
    channels = write_channels(base / "input" / "data")
    about = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    write_configuration(base, hyperparameters, dict.fromkeys(channels, about), host)
    return base


def write_configuration(
    base: Path, hyperparameters: Mapping[str, str], channels: Mapping[str, Any], host: str = "algo-1"
) -> None:
    """Write the three JSON files that a job finds below input/config, and the empty directories beside input."""
    config = base / "input" / "config"
    config.mkdir(parents=True)
    for name in ("model", "output", "checkpoints"):
        (base / name).mkdir()
    resources = {
        "current_host": host,
        "current_instance_type": "ml.c6i.xlarge",
        "current_group_name": "homogeneousCluster",
        "hosts": [host],
        "instance_groups": [
            {"instance_group_name": "homogeneousCluster", "instance_type": "ml.c6i.xlarge", "hosts": [host]}
        ],
        "network_interface_name": "eth0",
    }
    files = {"hyperparameters": hyperparameters, "resourceconfig": resources, "inputdataconfig": channels}
    for name, content in files.items():
        (config / f"{name}.json").write_text(json.dumps(content))


def model_of_command(directory: Path) -> bytes:
    """Return the weights that `kdistill distill` ends with, with the rows, teacher and options of the job."""
    channels = write_channels(directory / "channels")
    words = [
        *("--teacher", channels["teacher"], "--train", channels["train"] / "train.tsv"),
        *("--eval", channels["validation"] / "validation.tsv", "--output-dir", directory / "run"),
    ]
    command = [sys.executable, "-m", "kdistill", "distill", *map(str, words), *OPTIONS]
    subprocess.run(command, check=True, capture_output=True)
    return (directory / "run" / MODEL).read_bytes()
