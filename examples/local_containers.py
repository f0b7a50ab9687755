"""Run the containers of SageMaker as processes of this machine: a training job and an endpoint, fed from S3.

The container image is not built: its entry, `python -m kdistill.sagemaker`, runs in this environment. S3 and CloudWatch
Logs are those of boto3, so inside `local_sagemaker.LocalSageMaker` they are those of moto.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import boto3

GRACE = 120  # seconds between SIGTERM and SIGKILL, as on SageMaker
START = 60  # seconds in which a server must answer a ping


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of s3://bucket/key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def fetch(uri: str, directory: Path) -> int:
    """Copy all objects whose keys begin with a prefix below a directory. Returns their number."""
    bucket, prefix = split_uri(uri)
    s3 = boto3.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    for key in keys:
        below = key[len(prefix) :].lstrip("/") if key != prefix else ""
        path = directory / (below or Path(key).name)
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, key, str(path))
    return len(keys)


def store(directory: Path, uri: str) -> None:
    """Copy all files below a directory to keys below a prefix."""
    bucket, prefix = split_uri(uri)
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            boto3.client("s3").upload_file(str(path), bucket, f"{prefix.rstrip('/')}/{path.relative_to(directory)}")


def store_archive(directory: Path, uri: str) -> None:
    """Put what is in a directory into one .tar.gz in S3, as SageMaker does with a model."""
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        with tarfile.open(file.name, "w:gz", compresslevel=1) as archive:
            for path in sorted(directory.iterdir()):
                archive.add(path, path.name)
        boto3.client("s3").upload_file(file.name, *split_uri(uri))


class Log:
    """A stream of CloudWatch Logs."""

    def __init__(self, group: str, stream: str) -> None:
        self._client = boto3.client("logs")
        self._where = {"logGroupName": group, "logStreamName": stream}
        with contextlib.suppress(self._client.exceptions.ResourceAlreadyExistsException):
            self._client.create_log_group(logGroupName=group)
        self._client.create_log_stream(**self._where)

    def write(self, line: str) -> None:
        if line.strip():  # CloudWatch takes no empty message
            event = {"timestamp": int(time.time() * 1000), "message": line}
            self._client.put_log_events(**self._where, logEvents=[event])


def container_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a container: that of this process without AWS's variables and without a hub."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SM_", "SAGEMAKER_"))}
    return ours | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | dict(given)


class Container:
    """A process and everything that it prints."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command],
            env=container_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the notebook does not reach it
        )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def lines(self) -> Iterator[str]:
        """Give each line when it is printed, without its end, until the process closes its output."""
        output: IO[str] = self._process.stdout  # type: ignore[assignment]
        with output:
            for line in output:
                yield line.rstrip("\n")

    def wait(self) -> int:
        return self._process.wait()

    def stop(self, grace: float = GRACE) -> int:
        """Send SIGTERM and, where that does not end it in time, SIGKILL to it and its children."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()


@dataclass
class TrainingOutcome:
    """How a training job ended.

    Attributes:
        status: Completed, Failed or Stopped.
        reason: of a failure, as SageMaker words it.
        metrics: the last value of each metric that the definitions found in the log.
        seconds: from the start of the process to its end.
    """

    status: str
    reason: str | None
    metrics: dict[str, float]
    seconds: float


@dataclass
class Training:
    """A training job from its request to what lies in S3 afterwards.

    Checkpoints and TensorBoard files are copied to S3 when the process has ended; SageMaker does it all the while.

    Attributes:
        request: that of CreateTrainingJob.
        model_uri: of the model.tar.gz to write.
    """

    request: Mapping[str, Any]
    model_uri: str
    _container: Container | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Send SIGTERM to the job, as a spot interruption and StopTrainingJob do."""
        self._stopped.set()
        if self._container is not None:
            self._container.stop()

    def run(self, at_phase: Callable[[str], None]) -> TrainingOutcome:
        """Fetch the channels, run the job and store what it leaves.

        Args:
            at_phase: receives the secondary status: Downloading, Training, Uploading.
        """
        root = Path(tempfile.mkdtemp(prefix="sagemaker-"))
        try:
            at_phase("Downloading")
            command = self._prepare(root)
            at_phase("Training")
            code, metrics, seconds = self._train(command)
            at_phase("Uploading")
            self._store(root / "job", code)
            if code == 0:
                return TrainingOutcome("Completed", None, metrics, seconds)
            if self._stopped.is_set():
                return TrainingOutcome("Stopped", None, metrics, seconds)
            failure = root / "job" / "output" / "failure"
            told = failure.read_text() if failure.is_file() else "nothing in /opt/ml/output/failure"
            return TrainingOutcome("Failed", f"AlgorithmError: {told[:1024]}, exit code: {code}", metrics, seconds)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _prepare(self, root: Path) -> list[str]:
        """Lay out what the local runner needs. Returns its command line."""
        hyperparameters = root / "hyperparameters.json"
        hyperparameters.write_text(json.dumps(self.request.get("HyperParameters") or {}))
        command = ["-m", "kdistill.sagemaker.local", "--root", str(root / "job")]
        command += ["--hyperparameters", str(hyperparameters)]
        for channel in self.request.get("InputDataConfig") or []:
            directory = root / "channels" / channel["ChannelName"]
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            if not fetch(uri, directory):
                raise FileNotFoundError(f"ClientError: No S3 objects found under S3 URL {uri!r}")
            command += ["--channel", f"{channel['ChannelName']}={directory}"]
        checkpoints = self.request.get("CheckpointConfig")
        if checkpoints:
            fetch(f"{checkpoints['S3Uri'].rstrip('/')}/", root / "job" / "checkpoints")
        environment = {"TRAINING_JOB_NAME": self.request["TrainingJobName"], **(self.request.get("Environment") or {})}
        for name, value in environment.items():
            command += ["--environment", f"{name}={value}"]
        return command

    def _train(self, command: Sequence[str]) -> tuple[int, dict[str, float], float]:
        name = self.request["TrainingJobName"]
        log = Log("/aws/sagemaker/TrainingJobs", f"{name}/algo-1-{int(time.time())}")
        definitions = {
            of["Name"]: re.compile(of["Regex"])
            for of in self.request["AlgorithmSpecification"].get("MetricDefinitions") or []
        }
        metrics: dict[str, float] = {}
        began = time.monotonic()
        self._container = Container(command, {})
        if self._stopped.is_set():  # between the request and the start
            self._container.stop()
        limit = threading.Timer(self.request["StoppingCondition"]["MaxRuntimeInSeconds"], self.stop)
        limit.daemon = True
        limit.start()
        for line in self._container.lines():
            log.write(line)
            for metric, pattern in definitions.items():
                if found := pattern.search(line):
                    metrics[metric] = float(found.group(1))
        code = self._container.wait()
        limit.cancel()
        return code, metrics, time.monotonic() - began

    def _store(self, job: Path, code: int) -> None:
        model, data = job / "model", job / "output" / "data"
        if model.is_dir() and (code == 0 or (self._stopped.is_set() and any(model.iterdir()))):
            store_archive(model, self.model_uri)
        if data.is_dir() and any(data.iterdir()):
            store_archive(data, self.model_uri.replace("model.tar.gz", "output.tar.gz"))
        checkpoints, events = self.request.get("CheckpointConfig"), self.request.get("TensorBoardOutputConfig")
        if checkpoints and (job / "checkpoints").is_dir():
            store(job / "checkpoints", checkpoints["S3Uri"])
        if events and (job / "output" / "tensorboard").is_dir():
            name = self.request["TrainingJobName"]
            store(job / "output" / "tensorboard", f"{events['S3OutputPath'].rstrip('/')}/{name}/tensorboard-output")


class Server:
    """An endpoint: the model unpacked, and the real server on a port of this machine."""

    def __init__(self, name: str, model_uri: str, environment: Mapping[str, str]) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="sagemaker-"))
        self._port = free_port()
        fetch(model_uri, self._root)
        with tarfile.open(self._root / "model.tar.gz") as archive:
            archive.extractall(self._root / "model", filter="data")
        places = {"SAGEMAKER_BASE_DIR": str(self._root), "SAGEMAKER_BIND_TO_PORT": str(self._port)}
        self._container = Container(["-m", "kdistill.sagemaker", "serve"], {**environment, **places})
        self._last = "it printed nothing"
        self._log = Log(f"/aws/sagemaker/Endpoints/{name}", f"AllTraffic/i-{self._port}")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._container.lines():
            self._last = line or self._last
            self._log.write(line)

    def wait_until_ready(self) -> str | None:
        """Ping the server until it answers 200. Returns why it does not."""
        ends = time.monotonic() + START
        while self._container.running and time.monotonic() < ends:
            with contextlib.suppress(OSError):
                if self.request("GET", "/ping")[0] == 200:
                    return None
            time.sleep(0.1)
        if not self._container.running:  # its last line may not have been read yet
            self._reader.join(START)
        return f"the container did not pass the ping health check: {self._last}"

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the server's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)  # SageMaker's limit
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def stop(self) -> None:
        self._container.stop()
        shutil.rmtree(self._root, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
