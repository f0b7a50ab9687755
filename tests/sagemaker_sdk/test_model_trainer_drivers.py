"""A job whose container starts with the scripts that version 3 of the SDK uploads beside a user's source.

The scripts name /opt/ml absolutely. They run in a mount namespace where that is a directory of the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.small_job import CONTAINER_VARIABLES, HYPERPARAMETERS, MODEL, channel_directories, model_of_command

pytest.importorskip("sagemaker.core", reason="needs the extra sagemaker-test: make sagemaker")

# The SDK's own: its modules still import each other by an old name (hence our imports in functions), and it leaves its
# temporary directories to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:sagemaker.train.configs has been moved:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up <TemporaryDirectory:ResourceWarning"),
]

SCRIPT = "import sys\nfrom kdistill.sagemaker.entry import main\nsys.exit(main(sys.argv[1:]))\n"
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


def submitted(directory: Path, source: dict[str, str] | None) -> tuple[dict[str, Any], Path]:
    """Let the SDK submit a job; return its request and the directory that stands for /opt/ml.

    Args:
        directory: receives everything.
        source: arguments of `SourceCode`, or None for a job without it.
    """
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.training.configs import Compute, InputData, SourceCode
    from sagemaker.train import ModelTrainer
    from support.sagemaker_service import IMAGE, service

    channels = channel_directories(directory / "channels")
    with service(directory) as aws:
        trainer = ModelTrainer(
            training_image=IMAGE,
            role=aws.role,
            sagemaker_session=Session(),
            compute=Compute(instance_type="ml.c6i.xlarge", instance_count=1),
            base_job_name="small-job",
            hyperparameters=HYPERPARAMETERS,
            source_code=SourceCode(**source) if source else None,
        )
        inputs = [InputData(channel_name=name, data_source=str(path)) for name, path in channels.items()]
        trainer.train(input_data_config=inputs, wait=False, logs=False)
        request = aws.of("CreateTrainingJob")
        return request, aws.lay_out(request, directory / "ml")


@pytest.fixture(scope="module")
def submissions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], Path]]:
    """Requests and trees of the same job by a command, by one in the shell's place, by a script (10 s in the SDK)."""
    directory = tmp_path_factory.mktemp("submissions")
    for name in ("command", "exec", "script", "script/source"):
        (directory / name).mkdir()
    (directory / "script" / "source" / "train.py").write_text(SCRIPT)
    return {
        "command": submitted(directory / "command", {"command": COMMAND}),
        "exec": submitted(directory / "exec", {"command": f"exec {COMMAND}"}),
        "script": submitted(
            directory / "script", {"source_dir": str(directory / "script" / "source"), "entry_script": "train.py"}
        ),
    }


Submissions = dict[str, tuple[dict[str, Any], Path]]


def job(submissions: Submissions, form: str, directory: Path, **changes: str) -> tuple[dict[str, Any], Path]:
    """Return a request and a copy of its tree, with changed hyperparameters."""
    request, submitted = submissions[form]
    base = shutil.copytree(submitted, directory / "ml")
    file = base / "input" / "config" / "hyperparameters.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return request, base


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


def test_without_source_code_the_image_starts_by_its_own_entry_point(tmp_path: Path) -> None:
    request, base = submitted(tmp_path, None)
    assert not {"ContainerEntrypoint", "ContainerArguments"} & set(request["AlgorithmSpecification"])
    assert sorted(path.name for path in (base / "input" / "data").iterdir()) == ["teacher", "train", "validation"]


@pytest.mark.parametrize("form", ["command", "exec", "script"])
def test_a_job_leaves_the_model_of_the_command_line(
    tmp_path: Path, submissions: Submissions, expected: bytes, form: str
) -> None:
    base = job(submissions, form, tmp_path)[1]
    status, log = run(submissions[form][0], base)
    assert status == 0, log
    assert (base / "model" / MODEL).read_bytes() == expected
    assert (base / "output" / "success").exists()


@pytest.mark.parametrize("form", ["command", "exec", "script"])
def test_a_failure_is_our_sentence_once(tmp_path: Path, submissions: Submissions, form: str) -> None:
    request, base = job(submissions, form, tmp_path, temparature="2")
    status, log = run(request, base)
    assert status == 2, log
    failure = (base / "output" / "failure").read_text()
    assert failure.startswith("temparature is not a hyperparameter")
    assert "\n" not in failure
    assert log.count(failure) == 1


@pytest.mark.parametrize("form", ["command", "exec", "script"])
def test_the_drivers_log_a_token_only_if_it_is_a_hyperparameter_of_a_script(
    tmp_path: Path, submissions: Submissions, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the words of the script's command, before our entry begins; in what they show of variables they mask it.
    monkeypatch.setenv("HF_TOKEN", "hf_ofTheEnvironment")
    request, base = job(submissions, form, tmp_path, hub_token="hf_ofAHyperparameter", temparature="2")
    _, log = run(request, base)
    assert "SM_HP_HUB_TOKEN=******" in log
    assert ("hf_ofAHyperparameter" in log) is (form == "script")
    assert "hf_ofTheEnvironment" not in log


@pytest.mark.parametrize("form", ["command", "exec", "script"])
def test_sigterm_reaches_only_a_command_that_takes_the_place_of_the_shell(
    tmp_path: Path, submissions: Submissions, form: str
) -> None:
    request, base = job(submissions, form, tmp_path, epochs="100000", save_strategy="steps", save_steps="50")
    process = start(request, base)
    try:
        while not list((base / "checkpoints").glob("run/checkpoint-*")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        process.terminate()  # the container's first process alone, as the service does
        if form == "exec":
            log, _ = process.communicate(timeout=60)
            assert process.returncode == 128 + signal.SIGTERM, log
        else:
            time.sleep(1)
            listed = subprocess.run(["ps", "-o", "args=", "-g", str(process.pid)], capture_output=True, check=False)
            assert any(b"kdistill.sagemaker" in line or b"train.py" in line for line in listed.stdout.splitlines())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (base / "output" / "failure").exists()
