"""The places of a container that SageMaker runs: its layout below /opt/ml, and the SM_* variables that win over it.

The layout is that of
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html, the variables are
those of the sagemaker-training toolkit and of the drivers that version 3 of the SDK puts into a job.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..system.files import read_json_object
from ..system.names import listing

BASE_VARIABLE, BASE = "SAGEMAKER_BASE_DIR", "/opt/ml"
FAILURE = "failure"
CHANNELS = ("train", "validation", "teacher", "student")
# Channels that the SDK adds for its own scripts.
_OF_THE_SDK = ("code", "sm_drivers", "recipe")
# A channel of S3's ManifestFile has its list beside it under this ending.
_MANIFEST_SUFFIX = "-manifest"
_SHARDED = "ShardedByS3Key"


@dataclass(frozen=True)
class Container:
    """The places of one job.

    Attributes:
        base: the directory above all others.
        config: where hyperparameters.json, resourceconfig.json and inputdataconfig.json lie.
        channels: the input directories by name, those of the SDK left out.
        model: receives the finished model.
        output: receives `failure` or `success`.
        checkpoints: mirrored to S3 while the job runs, and back before it is restarted.
        hosts: the names of the job's instances; the first one leads.
        host: the name of this instance, which a restart keeps, unlike that of the container.
        interface: the network interface that joins them.
    """

    base: Path
    config: Path
    channels: Mapping[str, Path]
    model: Path
    output: Path
    checkpoints: Path
    hosts: tuple[str, ...] = ()
    host: str | None = None
    interface: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Container:
        """Return the places that the environment names.

        Raises:
            ValueError: a configuration file or variable is not JSON of its kind.
        """
        base = base_directory(environment)
        config = config_directory(environment)
        return cls(
            base=base,
            config=config,
            channels=_channels(environment, config, base / "input" / "data"),
            model=model_directory(environment),
            output=output_directory(environment),
            checkpoints=base / "checkpoints",
            **_resources(environment, config),
        )

    @property
    def success(self) -> Path:
        """The empty file of a job that is done."""
        return self.output / "success"

    @property
    def tensorboard(self) -> Path:
        """Where a job with a TensorBoardOutputConfig is expected to write event files."""
        return self.output / "tensorboard"

    def check(self) -> None:
        """Raise what speaks against the job before anything is read: other channels, streams, instances that differ."""
        for name in self.channels:
            if name not in CHANNELS:
                raise ValueError(f"the job has a channel {name!r}; expected {', '.join(CHANNELS)}")
        for name, about in _object(self.config / "inputdataconfig.json").items():
            if isinstance(about, dict) and about.get("TrainingInputMode") == "Pipe":
                raise ValueError(f"the channel {name!r} is a pipe; expected the input mode File or FastFile")
            if isinstance(about, dict) and about.get("S3DistributionType") == _SHARDED and len(self.hosts) > 1:
                raise ValueError(
                    f"the channel {name!r} is {_SHARDED}, so that each instance has other rows; expected "
                    "FullyReplicated: all of them train one model and take turns at its rows"
                )
        if len(self.hosts) > 1 and self.host not in self.hosts:
            raise ValueError(f"the job has the hosts {listing(self.hosts)}, and this one is {self.host!r}")


def base_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory above all others, absolute."""
    return Path(environment.get(BASE_VARIABLE) or BASE).absolute()


def model_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory that receives the model of a job, and from which an endpoint serves it."""
    return Path(environment.get("SM_MODEL_DIR") or base_directory(environment) / "model")


def output_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory that receives `failure` or `success`."""
    return Path(environment.get("SM_OUTPUT_DIR") or base_directory(environment) / "output")


def config_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of the job's configuration."""
    return Path(environment.get("SM_INPUT_CONFIG_DIR") or base_directory(environment) / "input" / "config")


def _channels(environment: Mapping[str, str], config: Path, data: Path) -> dict[str, Path]:
    listed = _json_variable(environment, "SM_CHANNELS", list)
    names = list(listed) if listed is not None else list(_object(config / "inputdataconfig.json"))
    if listed is None and not names and data.is_dir():
        names = [path.name for path in sorted(data.iterdir()) if path.is_dir()]
    # Of a variable alone, as `SM_CHANNEL_TRAIN=. python -m kdistill.sagemaker` on a machine of one's own has it.
    names += [name for name in CHANNELS if f"SM_CHANNEL_{name.upper()}" in environment and name not in names]
    return {
        name: Path(environment.get(f"SM_CHANNEL_{name.upper()}") or data / name)
        for name in names
        if name not in _OF_THE_SDK and not name.endswith(_MANIFEST_SUFFIX)
    }


def _resources(environment: Mapping[str, str], config: Path) -> dict[str, Any]:
    """Return the instances of the job; the name of this one by its file, for a launcher may pass variables on."""
    found = _object(config / "resourceconfig.json")
    hosts = _json_variable(environment, "SM_HOSTS", list) or found.get("hosts") or []
    return {
        "hosts": tuple(map(str, hosts)),
        "host": found.get("current_host") or environment.get("SM_CURRENT_HOST"),
        "interface": found.get("network_interface_name"),
    }


def read_hyperparameters(environment: Mapping[str, str], config: Path) -> dict[str, Any]:
    """Return the hyperparameters of SM_HPS or, without it, of hyperparameters.json, as they stand there."""
    given = _json_variable(environment, "SM_HPS", dict)
    return dict(given) if given is not None else _object(config / "hyperparameters.json")


def _json_variable(environment: Mapping[str, str], name: str, kind: type) -> Any:
    """Return the value of a variable in JSON; None where it is not set."""
    text = environment.get(name)
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON") from error  # it may hold a token: it is not shown
    if not isinstance(value, kind):
        raise ValueError(f"{name} is a {type(value).__name__} in JSON; expected a {kind.__name__}")
    return value


def _object(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}
