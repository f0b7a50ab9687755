"""A job of several instances on this machine: each has the tree of a container and a process of the entry point."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kdistill.sagemaker.local import lay_out
from support.paths import TESTS
from support.small_job import failure_of

HOSTS = ("127.0.0.1", "127.0.0.2")
JOB = ("-m", "kdistill.sagemaker")


class Instance:
    """One of them. `base` stands for /opt/ml."""

    def __init__(
        self,
        base: Path,
        host: str,
        hosts: Sequence[str],
        hyperparameters: Mapping[str, Any],
        channels: Mapping[str, Path],
    ) -> None:
        self.base, self._log = base, base.parent / f"{base.name}.log"
        lay_out(base, hyperparameters, channels)
        file = base / "input" / "config" / "resourceconfig.json"
        of_this = {"hosts": [*hosts], "current_host": host, "network_interface_name": "lo"}
        file.write_text(json.dumps(json.loads(file.read_text()) | of_this))

    def start(self, port: int, *, by: Sequence[str] = (), **environment: str) -> None:
        """Start its process, behind the words `by`."""
        own = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
            "SAGEMAKER_BASE_DIR": str(self.base),
            "KDISTILL_NUM_THREADS": "1",
            "KDISTILL_INSTANCES_PORT": str(port),
        }
        own.pop("KDISTILL_CACHE", None)
        words = [*by, sys.executable, *JOB]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                words, env=own | environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def failure(self) -> str | None:
        return failure_of(self.base)

    def lose(self) -> None:
        """Kill all its processes at once, as a machine that is gone."""
        for number in [*_below(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):  # it has ended since, for want of one that is gone
                os.kill(number, signal.SIGKILL)


def _below(process: int) -> list[int]:
    """Return the processes that this one has started, and they."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return []
    return [number for child in map(int, children) for number in (child, *_below(child))]


def lay_out_instances(
    directory: Path,
    hyperparameters: Mapping[str, Any],
    channels: Sequence[Mapping[str, Path]],
    hosts: Sequence[str] = HOSTS,
) -> list[Instance]:
    """Lay out the trees of a job, the channels of each instance given; what an earlier start has left there stays."""
    return [
        Instance(directory / host, host, hosts, hyperparameters, of) for host, of in zip(hosts, channels, strict=True)
    ]


def run_instances(
    instances: Sequence[Instance], *, by: Mapping[str, Sequence[str]] | None = None, **environment: str
) -> list[int]:
    """Start all of them and return their exit statuses."""
    start_instances(instances, by=by, **environment)
    return statuses(instances)


def start_instances(
    instances: Sequence[Instance], *, by: Mapping[str, Sequence[str]] | None = None, **environment: str
) -> None:
    port = random.Random().randrange(20000, 30000)  # below those that the system gives away
    for instance in reversed(instances):  # the others wait for the first one
        instance.start(port, by=(by or {}).get(instance.base.name, ()), **environment)


def statuses(instances: Sequence[Instance], timeout: float = 60) -> list[int]:
    try:
        return [instance.process.wait(timeout) for instance in instances]
    finally:
        for instance in instances:
            if instance.process.poll() is None:
                instance.lose()


def skip_without_mpich() -> None:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    if not (Path(sys.executable).parent / "hydra_pmi_proxy").is_file():
        pytest.skip("needs MPICH in this environment, which the package mpich has")
