"""A cluster of Ray for these tests, which another process has started: what `ray start --head` makes on this host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import TESTS

CORES = 2
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="session")
def cluster(_own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The cluster's address; this process is connected to it."""
    os.environ |= ENVIRONMENT
    ray = pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("ray")
    options = ["--head", "--block", f"--port={port}", f"--num-cpus={CORES}", "--object-store-memory=100000000"]
    path = os.pathsep.join([str(TESTS), str(Path(__file__).parent), *sys.path])
    log = tmp_path_factory.mktemp("ray") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [program, "start", *options, "--include-dashboard=false", "--node-ip-address=127.0.0.1"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path},
        )
    try:
        ray.init(address=f"127.0.0.1:{port}", log_to_driver=False)
        yield f"127.0.0.1:{port}"
        for found in ray.util.list_named_actors(all_namespaces=True):  # Ray Data's, which the cluster would wait for
            ray.kill(ray.get_actor(**found))
        ray.shutdown()
    finally:
        process.terminate()
        process.wait(30)
