"""A job under `sagemaker-training`, the toolkit with which AWS's own images start a user's script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.small_job import (
    CONTAINER_VARIABLES,
    HYPERPARAMETERS,
    MODEL,
    channel_directories,
    lay_out_as_service,
    model_of_command,
)

from kdistill.sagemaker.container import Container
from kdistill.sagemaker.local import run_job

pytest.importorskip("sagemaker_training", reason="needs the extra sagemaker-test: make sagemaker")

# What a user writes, whose image starts jobs by the toolkit.
SCRIPT = "import sys\nfrom kdistill.sagemaker.entry import main\nsys.exit(main(sys.argv[1:]))\n"
# The toolkit waits until the names of the job's machines resolve.
HOST = "localhost"


def as_version_2_sends(hyperparameters: dict[str, Any]) -> dict[str, str]:
    """Return hyperparameters as estimators of version 2 of the SDK send them: each value in JSON, text too."""
    return {name: json.dumps(value) for name, value in hyperparameters.items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return model_of_command(tmp_path_factory.mktemp("command"))


def tree(directory: Path, script: str = SCRIPT, **changes: Any) -> Path:
    """Lay out a job whose source an estimator has packed; return the directory that stands for /opt/ml."""
    packed = directory / "sourcedir.tar.gz"
    (directory / "train.py").write_text(script)
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(directory / "train.py", "train.py")
    of_the_toolkit = {
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": str(packed),
        "sagemaker_container_log_level": 20,
        "sagemaker_job_name": "small-job",
        "sagemaker_region": "eu-central-1",
    }
    return lay_out_as_service(directory / "ml", as_version_2_sends(HYPERPARAMETERS | changes | of_the_toolkit), HOST)


def start(base: Path, **options: Any) -> subprocess.Popen[str]:
    """Start the toolkit's command `train`, as an image with it has for its entry point."""
    environment = os.environ | CONTAINER_VARIABLES | {"SAGEMAKER_BASE_DIR": str(base), "KDISTILL_CACHE": ""}
    command = [sys.executable, "-m", "sagemaker_training.cli.train"]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def run(base: Path) -> tuple[int, str]:
    process = start(base)
    log, _ = process.communicate(timeout=300)
    return process.returncode, log


def test_a_job_under_the_toolkit_leaves_the_model_of_the_command(tmp_path: Path, expected: bytes) -> None:
    base = tree(tmp_path)
    status, log = run(base)
    assert status == 0, log
    assert (base / "model" / MODEL).read_bytes() == expected
    assert (base / "output" / "success").exists()
    assert not (base / "output" / "failure").exists()


def test_the_local_runner_leaves_the_same_model(tmp_path: Path, expected: bytes) -> None:
    channels = channel_directories(tmp_path / "channels")
    with (tmp_path / "log").open("w") as log:
        assert run_job(tmp_path / "ml", HYPERPARAMETERS, channels, log=log) == 0
    assert (tmp_path / "ml" / "model" / MODEL).read_bytes() == expected


def test_a_search_under_the_toolkit_leaves_the_model_of_the_local_runner(tmp_path: Path) -> None:
    search = {"run_hpo": True, "n_trials": 2}
    base = tree(tmp_path, **search)
    status, log = run(base)
    assert status == 0, log
    with (tmp_path / "log").open("w") as file:
        channels = channel_directories(tmp_path / "channels")
        assert run_job(tmp_path / "other", HYPERPARAMETERS | search, channels, log=file) == 0
    assert (base / "model" / MODEL).read_bytes() == (tmp_path / "other" / "model" / MODEL).read_bytes()


def test_the_variables_of_the_toolkit_name_the_places_of_the_layout(tmp_path: Path) -> None:
    script = (
        "import json, os\nprint('variables', json.dumps({n: v for n, v in os.environ.items() if n[:3] == 'SM_'}))\n"
    )
    base = tree(tmp_path, script)
    _, log = run(base)
    (line,) = (line for line in log.splitlines() if line.startswith("variables "))
    variables = json.loads(line.removeprefix("variables "))
    assert {"SM_CHANNEL_TRAIN", "SM_MODEL_DIR", "SM_OUTPUT_DIR", "SM_HPS", "SM_INPUT_CONFIG_DIR"} < set(variables)
    by_variables = Container.of(variables | {"SAGEMAKER_BASE_DIR": str(base)})
    assert by_variables == Container.of({"SAGEMAKER_BASE_DIR": str(base)})
    assert set(by_variables.channels) == {"train", "validation", "teacher"}


def test_a_failure_is_our_sentence_once_and_the_status_is_1(tmp_path: Path) -> None:
    base = tree(tmp_path, temparature=2)
    status, log = run(base)
    assert status == 1  # the toolkit's, whatever the script's
    failure = (base / "output" / "failure").read_text()
    assert failure.startswith("temparature is not a hyperparameter")
    assert "\n" not in failure
    assert log.count(failure) == 1
    assert "ExecuteUserScriptError" in log  # the toolkit's own, which goes to the log alone
    assert not (base / "output" / "success").exists()


def test_the_toolkit_logs_a_token_that_is_a_hyperparameter_and_not_one_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before our entry begins, so it cannot hide it: docs/how-to/sagemaker.md recommends the environment.
    monkeypatch.setenv("HF_TOKEN", "hf_ofTheEnvironment")
    _, log = run(tree(tmp_path, "print('the script')\n", hub_token="hf_ofAHyperparameter"))
    assert "the script" in log
    assert "hf_ofAHyperparameter" in log
    assert "hf_ofTheEnvironment" not in log


@pytest.fixture
def script_that_waits(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The toolkit with a script that writes its process id and waits; both are gone afterwards."""
    pid = tmp_path / "pid"
    script = f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(300)\n"
    process = start(tree(tmp_path, script), start_new_session=True)
    try:
        while not (pid.exists() and pid.read_text()):
            assert process.poll() is None
            time.sleep(0.02)
        yield process, pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_toolkit_keeps_sigterm_from_the_script(script_that_waits: tuple[subprocess.Popen[str], Path]) -> None:
    # docs/how-to/sagemaker.md explains what this means for spot instances, and why the image has its own entry point.
    process, pid = script_that_waits
    process.terminate()
    assert process.wait(timeout=60) == -signal.SIGTERM
    os.kill(int(pid.read_text()), 0)  # still there
