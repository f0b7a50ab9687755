"""What tools/image.py runs in the finished image: a job and an endpoint, as the image's user."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
MODEL = "model.safetensors"
SECONDS = 120  # longest that a check may take on a busy machine

LIMITS = """
import importlib.util, os, shutil
assert os.getuid() == 0 or not os.access("/usr/local/bin", os.W_OK), "may write into /usr/local"
found = [name for name in ("torch", "tensorflow", "jax") if importlib.util.find_spec(name)]
assert not found, f"has {found}"
found = [name for name in ("cc", "gcc", "clang", "ld") if shutil.which(name)]
assert not found, f"has the compiler {found}"
import datasets, huggingface_hub, kdistill, kdistill.serve, optuna, pyarrow, tensorboard
"""


def prepare_job(job: Path, expected: Path) -> None:
    """Lay out a small job as SageMaker lays it out below /opt/ml, and compute its model with the command here."""
    sys.path.insert(0, str(TESTS))
    from support.small_job import HYPERPARAMETERS, lay_out_as_service, model_of_command

    for directory in (job, expected):
        shutil.rmtree(directory, ignore_errors=True)
    lay_out_as_service(job, {name: str(value) for name, value in HYPERPARAMETERS.items()})
    (expected / MODEL).write_bytes(model_of_command(expected))


def check_image(image: Any, job: Path, expected: Path) -> None:
    """Run the image (a `Filesystem`) as SageMaker does, and raise AssertionError for what is not as it should be."""
    assert image.entrypoint == ["python", "-m", "kdistill.sagemaker"], image.entrypoint
    assert image.ports == ["8080"], image.ports
    assert image.labels == {"com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true"}, image.labels
    uid, _, _ = image.account()
    _run(image, ["python", "-c", LIMITS])
    _run(image, ["mpirun", "--version"])
    print(_run(image, ["kdistill", "info"]))
    shutil.copytree(job, image.root / "opt/ml", dirs_exist_ok=True)
    _run(image, [*image.entrypoint, "train"])
    made = image.root / "opt/ml/model" / MODEL
    assert made.stat().st_uid == uid, f"the model belongs to {made.stat().st_uid}"
    assert made.read_bytes() == (expected / MODEL).read_bytes(), "the image trains another model"
    print("A job in the image leaves the model that `kdistill distill` makes here, bit for bit.")
    _check_endpoint(image)
    print("An endpoint in the image answers /ping and /invocations, and ends by SIGTERM.")


def _run(image: Any, words: list[str]) -> str:
    done = subprocess.run(
        image.command(words, {}), capture_output=True, text=True, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{' '.join(words)[:60]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def _check_endpoint(image: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = image.root.parent / "serve.log"
    with log.open("w") as file:
        command = image.command([*image.entrypoint, "serve"], {"SAGEMAKER_BIND_TO_PORT": str(port)})
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + SECONDS
        while not _answers(f"{address}/ping"):
            assert process.poll() is None, f"the endpoint ended with {process.returncode}:\n{log.read_text()}"
            assert time.monotonic() < end, f"the endpoint does not answer:\n{log.read_text()}"
            time.sleep(0.1)
        body = json.dumps({"inputs": "a good film"}).encode()
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            (prediction,) = json.load(answer)
        assert prediction["label"] in ("negative", "positive"), prediction
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=SECONDS)
        assert status in (0, 128 + signal.SIGTERM), f"the endpoint ended with {status}:\n{log.read_text()}"
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False
