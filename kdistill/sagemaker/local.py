"""The training job on this machine: the tree of a container below a directory, and the entry in a process of its own.

    python -m kdistill.sagemaker.local --root job --hyperparameters hyperparameters.json \\
        --channel train=train.tsv --channel validation=dev.tsv --channel teacher=teacher
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from ..system.files import read_json_object
from .container import BASE_VARIABLE

GRACE_SECONDS = 120.0
"""The seconds from SIGTERM to SIGKILL, as SageMaker has them."""
HOST, INSTANCE_TYPE = "algo-1", "local"
_FRESH = ("input", "model", "output")
_OF_A_TREE = (*_FRESH, "checkpoints")
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9_-]+")
_OF_THIS_MACHINE = ("SM_", "SAGEMAKER_", "KDISTILL_CACHE", "KDISTILL_HOST")
_TOKEN, _TOKEN_VARIABLE = "hub_token", "HF_TOKEN"


def run_job(
    root: str | os.PathLike[str],
    hyperparameters: Mapping[str, Any],
    channels: Mapping[str, str | os.PathLike[str]],
    *,
    environment: Mapping[str, str] | None = None,
    job_name: str | None = None,
    stop_after: float | None = None,
    grace: float = GRACE_SECONDS,
    log: IO[Any] | int | None = None,
) -> int:
    """Run the training job below a directory, and return its exit status (128 + the signal that ended it).

    Below `root` the job finds its inputs, and leaves model/, output/ and checkpoints/. The first three directories are
    laid anew; the checkpoints of an earlier start stay, and the job goes on from them.

    Args:
        root: made if missing; one that holds other things than a job is an error.
        hyperparameters: by name. A hub_token goes to the job as HF_TOKEN, and into no file.
        channels: files or directories by the name of the channel; they are copied.
        environment: variables that the job gets besides those of this process.
        job_name: TRAINING_JOB_NAME (default: the name of the directory).
        stop_after: seconds after which the job gets SIGTERM, as a spot instance that is taken away.
        grace: seconds from SIGTERM to SIGKILL.
        log: where standard output and error go (default: to those of this process).

    Raises:
        FileNotFoundError: a channel is not there.
        FileExistsError: `root` holds other things.
    """
    base = Path(root).absolute()
    given = {name: value for name, value in hyperparameters.items() if name != _TOKEN}
    token = hyperparameters.get(_TOKEN)
    lay_out(base, given, channels)
    variables = _variables(base, given, channels, job_name or base.name)
    process_environment = {**_inherited(), **variables, **(environment or {})}
    if token is not None:
        process_environment[_TOKEN_VARIABLE] = str(token)
    process = subprocess.Popen(
        [sys.executable, "-m", "kdistill.sagemaker", "train"],
        env=process_environment,
        cwd=base,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches it through this process, once
    )
    with _passing_signals_to(process):
        status = _ended(process, stop_after, grace)
    return status if status >= 0 else 128 - status


def lay_out(base: Path, hyperparameters: Mapping[str, Any], channels: Mapping[str, str | os.PathLike[str]]) -> None:
    """Lay the tree of a container below `base`. Raises as `run_job`."""
    for name, source in channels.items():
        if not Path(source).exists():
            raise FileNotFoundError(f"the channel {name!r} is {os.fspath(source)!r}, which does not exist")
    if base.exists() and not base.is_dir():
        raise FileExistsError(f"{base} is a file; expected a directory for the job")
    _refuse_others(base)
    for name in _FRESH:
        shutil.rmtree(base / name, ignore_errors=True)
    for place in ("input/config", "input/data", "model", "output/data", "checkpoints"):
        (base / place).mkdir(parents=True, exist_ok=True)
    for name, source in channels.items():
        _copy(Path(source), base / "input" / "data" / name)
    config = base / "input" / "config"
    for file, content in (
        ("hyperparameters.json", {name: as_string(value) for name, value in hyperparameters.items()}),
        ("resourceconfig.json", _resources()),
        ("inputdataconfig.json", _input_data(channels)),
    ):
        (config / file).write_text(json.dumps(content, indent=2))


def _refuse_others(base: Path) -> None:
    """Raise for a directory that is not that of a job: it would lose files."""
    is_ours = (base / "input" / "config" / "hyperparameters.json").is_file()
    of_a_job = _OF_A_TREE if is_ours else ("checkpoints",)
    others = sorted(path.name for path in base.iterdir() if path.name not in of_a_job) if base.is_dir() else []
    if others:
        raise FileExistsError(
            f"{base} holds {others[0]!r}, which no job has; expected a new directory or that of a job"
        )


def as_string(value: Any) -> str:
    """Return a hyperparameter as the SDK sends it: text as it is, all else in JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _copy(source: Path, channel: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, channel)
    else:
        channel.mkdir()
        shutil.copyfile(source, channel / source.name)


def _resources() -> dict[str, Any]:
    return {
        "current_host": HOST,
        "current_instance_type": INSTANCE_TYPE,
        "current_group_name": "homogeneousCluster",
        "hosts": [HOST],
        "instance_groups": [
            {"instance_group_name": "homogeneousCluster", "instance_type": INSTANCE_TYPE, "hosts": [HOST]}
        ],
        "network_interface_name": "eth0",
    }


def _input_data(channels: Mapping[str, Any]) -> dict[str, Any]:
    about = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    return {name: dict(about) for name in channels}


def _inherited() -> dict[str, str]:
    """Return the variables of this process without those that a container does not have."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_THIS_MACHINE)}


def _variables(
    base: Path, hyperparameters: Mapping[str, Any], channels: Mapping[str, Any], name: str
) -> dict[str, str]:
    """Return the variables that the service sets, and those that the sagemaker-training toolkit adds."""
    decoded = {key: _decoded(value) for key, value in hyperparameters.items()}
    values: dict[str, Any] = {
        "TRAINING_JOB_NAME": name,
        BASE_VARIABLE: str(base),
        "SM_CHANNELS": sorted(channels),
        "SM_CURRENT_HOST": HOST,
        "SM_HOSTS": [HOST],
        "SM_HPS": decoded,
        "SM_INPUT_CONFIG_DIR": str(base / "input" / "config"),
        "SM_INPUT_DATA_CONFIG": _input_data(channels),
        "SM_INPUT_DIR": str(base / "input"),
        "SM_MODEL_DIR": str(base / "model"),
        "SM_NUM_CPUS": os.cpu_count(),
        "SM_NUM_GPUS": 0,
        "SM_OUTPUT_DATA_DIR": str(base / "output" / "data"),
        "SM_OUTPUT_DIR": str(base / "output"),
        "SM_RESOURCE_CONFIG": _resources(),
        **{f"SM_CHANNEL_{channel.upper()}": str(base / "input" / "data" / channel) for channel in channels},
        **{f"SM_HP_{key.upper().replace('-', '_')}": value for key, value in decoded.items()},
    }
    return {key: as_string(value) for key, value in values.items()}


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


@contextmanager
def _passing_signals_to(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Pass SIGTERM and Ctrl-C on to the process inside the block; only the main thread can."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    previous = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, pass_on)
    except ValueError:  # in a thread, such as that of a notebook
        pass
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ended(process: subprocess.Popen[Any], stop_after: float | None, grace: float) -> int:
    """Wait for the process, stop it when it is time, and return its status as `Popen` does."""
    try:
        return process.wait(stop_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return the job's exit status; 2 for wrong arguments."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        channels = _pairs(options.channel, "--channel", "train=train.tsv")
        for name in channels:
            if not _CHANNEL_NAME.fullmatch(name):
                raise ValueError(f"--channel is '{name}={channels[name]}'; expected a name of letters, digits, - and _")
        for option, seconds in (("--stop-after", options.stop_after), ("--grace", options.grace)):
            if seconds is not None and seconds < 0:
                raise ValueError(f"{option} is {seconds}; expected seconds from 0")
        environment = _pairs(options.environment, "--environment", "OMP_NUM_THREADS=2")
        hyperparameters = {} if options.hyperparameters is None else read_json_object(Path(options.hyperparameters))
        return run_job(
            options.root,
            hyperparameters,
            channels,
            environment=environment,
            job_name=options.job_name,
            stop_after=options.stop_after,
            grace=options.grace,
        )
    except (OSError, ValueError) as error:
        print(f"kdistill: error: {error}", file=sys.stderr)
        return 2


def _pairs(given: Sequence[str], option: str, example: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for each in given:
        name, sign, value = each.partition("=")
        if not (name and sign and value):
            raise ValueError(f"{option} is {each!r}; expected NAME=VALUE, such as {example}")
        if name in pairs:
            raise ValueError(f"{option} {name} is given twice; expected it once")
        pairs[name] = value
    return pairs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kdistill.sagemaker.local",
        description="Run a training job of SageMaker on this machine. Below the directory --root it finds the tree of "
        "a container (input/, model/, output/, checkpoints/), and runs as it would there. Repeat the command to go on "
        "from the checkpoints of an interrupted job.",
        epilog="example:\n  python -m kdistill.sagemaker.local --root job --hyperparameters hyperparameters.json \\\n"
        "      --channel train=train.tsv --channel validation=dev.tsv --channel teacher=teacher\n\n"
        'hyperparameters.json:\n  {"student_id": "L2-H128-A2", "epochs": 3, "alpha": 0.5, "temperature": 4}\n\n'
        "The model is in job/model, the reason of a failure in job/output/failure.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", required=True, metavar="DIR", help="directory of the job, made if missing")
    parser.add_argument("--hyperparameters", metavar="FILE", help="JSON file with an object of hyperparameters by name")
    parser.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a file or directory as a channel: train, validation, teacher, student; may be given several times",
    )
    parser.add_argument(
        "--environment", action="append", default=[], metavar="NAME=VALUE", help="a variable of the job's environment"
    )
    parser.add_argument("--job-name", metavar="NAME", help="TRAINING_JOB_NAME (default: the name of the directory)")
    parser.add_argument(
        "--stop-after", type=float, metavar="SECONDS", help="send SIGTERM then, as when a spot instance is taken away"
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help=f"time from SIGTERM to SIGKILL (default: {GRACE_SECONDS:g})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
