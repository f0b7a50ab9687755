"""A job whose container starts with the scripts that version 3 of the SDK uploads beside a user's source.

The scripts name /opt/ml absolutely. They run in a mount namespace where that is a directory of the test.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.sagemaker_job import CONTAINER_VARIABLES, HYPERPARAMETERS, MODEL, model_of_command, write_channels

pytest.importorskip("sagemaker", reason="needs the extra sagemaker-test: make sagemaker")

# Importing the SDK gives it, whose own modules still import each other by the old name. Hence the imports in functions.
pytestmark = pytest.mark.filterwarnings("ignore:sagemaker.train.configs has been moved:DeprecationWarning")

COMMAND = "python3 -m kdistill.sagemaker"
# /opt as it is, with `ml` beside or in the place of what is there.
IN_OPT_ML = """
mount -t tmpfs tmpfs "$1"
for entry in /opt/*; do
    if [ -d "$entry" ] && [ "$entry" != /opt/ml ]; then
        mkdir "$1/${entry##*/}" && mount --rbind "$entry" "$1/${entry##*/}"
    fi
done
mkdir "$1/ml" && mount --bind "$2" "$1/ml" && mount --rbind "$1" /opt
shift 2
exec "$@"
"""


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    trial = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        pytest.skip(f"needs mount namespaces, as root has them: {trial.stderr.strip()}")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return model_of_command(tmp_path_factory.mktemp("command"))


def submitted(directory: Path, source: dict[str, str] | None, **hyperparameters: Any) -> tuple[dict[str, Any], Path]:
    """Let the SDK submit a job; return its request and the directory that stands for /opt/ml.

    Args:
        directory: receives everything.
        source: arguments of `SourceCode`, or None for a job without it.
        hyperparameters: beside those of the small job.
    """
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.training.configs import Compute, InputData, SourceCode
    from sagemaker.train import ModelTrainer
    from support.sagemaker_service import IMAGE, service

    channels = write_channels(directory / "channels")
    with service(directory) as aws:
        trainer = ModelTrainer(
            training_image=IMAGE,
            role=aws.role,
            sagemaker_session=Session(),
            compute=Compute(instance_type="ml.c6i.xlarge", instance_count=1),
            base_job_name="small-job",
            hyperparameters=HYPERPARAMETERS | hyperparameters,
            source_code=SourceCode(**source) if source else None,
        )
        inputs = [InputData(channel_name=name, data_source=str(path)) for name, path in channels.items()]
        trainer.train(input_data_config=inputs, wait=False, logs=False)
        request = aws.of("CreateTrainingJob")
        return request, aws.lay_out(request, directory / "ml")


def start(request: dict[str, Any], base: Path) -> subprocess.Popen[str]:
    """Start the container's command in a process group of its own."""
    algorithm = request["AlgorithmSpecification"]
    words = [*algorithm["ContainerEntrypoint"], *algorithm["ContainerArguments"]]
    scratch = base.parent / "opt"
    scratch.mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["unshare", "--mount", "sh", "-ec", IN_OPT_ML, "sh", str(scratch), str(base), *words],
        env=os.environ | CONTAINER_VARIABLES | {"PATH": path, "KDISTILL_CACHE": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(request: dict[str, Any], base: Path) -> tuple[int, str]:
    process = start(request, base)
    log, _ = process.communicate(timeout=300)
    return process.returncode, log


def script(directory: Path) -> dict[str, str]:
    """Return the source of a user who has a script."""
    source = directory / "source"
    source.mkdir()
    (source / "train.py").write_text(
        "import sys\nfrom kdistill.sagemaker.entry import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    return {"source_dir": str(source), "entry_script": "train.py"}


def test_without_source_code_the_image_starts_by_its_own_entry_point(tmp_path: Path) -> None:
    request, base = submitted(tmp_path, None)
    assert not {"ContainerEntrypoint", "ContainerArguments"} & set(request["AlgorithmSpecification"])
    assert sorted(path.name for path in (base / "input" / "data").iterdir()) == ["teacher", "train", "validation"]


def test_a_job_with_our_module_as_command_leaves_the_model_of_the_command_line(tmp_path: Path, expected: bytes) -> None:
    request, base = submitted(tmp_path, {"command": COMMAND})
    status, log = run(request, base)
    assert status == 0, log
    assert (base / "model" / MODEL).read_bytes() == expected
    assert (base / "output" / "success").exists()


def test_a_job_with_a_script_leaves_the_model_of_the_command_line(tmp_path: Path, expected: bytes) -> None:
    request, base = submitted(tmp_path, script(tmp_path), run_hpo=False, hub_model_id=None)
    status, log = run(request, base)
    assert status == 0, log
    assert (base / "model" / MODEL).read_bytes() == expected


@pytest.mark.parametrize("form", ["command", "script"])
def test_a_failure_is_our_sentence_once(tmp_path: Path, form: str) -> None:
    source = {"command": COMMAND} if form == "command" else script(tmp_path)
    request, base = submitted(tmp_path, source, temparature=2)
    status, log = run(request, base)
    assert status == 2, log
    failure = (base / "output" / "failure").read_text()
    assert failure.startswith("temparature is not a hyperparameter")
    assert "\n" not in failure
    assert log.count(failure) == 1


def test_the_driver_logs_a_token_that_is_a_hyperparameter_of_a_script(tmp_path: Path) -> None:
    # In the words of the script's command, before our entry begins; what it shows of the environment it masks itself.
    request, base = submitted(tmp_path, script(tmp_path), hub_token="hf_ofAHyperparameter", temparature=2)
    os.environ["HF_TOKEN"] = "hf_ofTheEnvironment"
    try:
        _, log = run(request, base)
    finally:
        del os.environ["HF_TOKEN"]
    assert "--hub_token hf_ofAHyperparameter" in log
    assert "hf_ofTheEnvironment" not in log


@pytest.mark.parametrize(("command", "reaches"), [(COMMAND, False), (f"exec {COMMAND}", True)])
def test_sigterm_reaches_a_command_that_takes_the_place_of_the_shell(
    tmp_path: Path, command: str, reaches: bool
) -> None:
    request, base = submitted(tmp_path, {"command": command}, epochs=100000, save_strategy="steps", save_steps=50)
    process = start(request, base)
    try:
        while not list((base / "checkpoints").glob("run/checkpoint-*")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        # To the container's first process alone, as `docker stop` sends it.
        process.terminate()
        log, _ = process.communicate(timeout=60) if reaches else ("", None)
        assert not reaches or process.returncode == 128 + signal.SIGTERM, log
        if not reaches:
            time.sleep(1)
            listing = subprocess.run(
                ["ps", "-o", "args=", "-g", str(process.pid)], capture_output=True, text=True
            ).stdout
            assert any(shlex.split(line)[1:3] == ["-m", "kdistill.sagemaker"] for line in listing.splitlines()), listing
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    assert not (base / "output" / "failure").exists()
