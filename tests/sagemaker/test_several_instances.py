"""Jobs of two instances, which train one model: the bits of one that accumulates, and what ends one ends both."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import mpi_run
from support.instances import lay_out_instances, run_instances, skip_without_mpich, start_instances, statuses
from support.small_job import HYPERPARAMETERS, failure_of, model_of, run_here, write_channels
from support.small_run import write_rows

from kdistill.sagemaker import instances
from kdistill.sagemaker.local import lay_out

Channels = dict[str, Path]
LONG = {**HYPERPARAMETERS, "epochs": "300"}


@pytest.fixture
def mpich() -> None:
    skip_without_mpich()


@pytest.fixture
def channels(tmp_path: Path) -> Channels:
    return write_channels(tmp_path / "inputs")


def of_one(
    monkeypatch: pytest.MonkeyPatch, base: Path, hyperparameters: Mapping[str, Any], channels: Channels
) -> bytes:
    """The model of the job of one instance that accumulates two micro-batches."""
    given = {**hyperparameters, "gradient_accumulation_steps": 2}
    status, log = run_here(monkeypatch, base, given, channels)
    assert status == 0, log
    return model_of(base)


def wait_until_trained(instance: Any, checkpoint: str = "checkpoint-*") -> None:
    until = time.monotonic() + 60
    while not [*(instance.base / "checkpoints").glob(f"run/{checkpoint}/manifest.json")]:
        assert time.monotonic() < until, instance.log
        assert instance.process.poll() is None, instance.log
        time.sleep(0.02)


@pytest.mark.usefixtures("mpich")
def test_a_stopped_job_of_two_instances_goes_on_and_ends_with_the_bits_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: Channels
) -> None:
    both = lay_out_instances(tmp_path / "job", {**LONG, "epochs": "12"}, [channels, channels])
    start_instances(both)
    wait_until_trained(both[0])
    for instance in both:
        instance.process.send_signal(signal.SIGTERM)
    assert statuses(both) == [143, 143], both[0].log
    assert [instance.failure for instance in both] == [None, None]
    assert not [*(both[1].base / "checkpoints").iterdir()]  # the service mirrors them to the place of the first one's

    both = lay_out_instances(tmp_path / "job", {**LONG, "epochs": "12"}, [channels, channels])
    assert run_instances(both) == [0, 0], both[0].log
    assert model_of(both[0].base) == of_one(monkeypatch, tmp_path / "one", {**LONG, "epochs": "12"}, channels)
    assert "{'final_accuracy': " in both[0].log.splitlines()[-1]
    assert "HYDRA" not in both[0].log
    assert both[1].log == ""
    left = [path for place in ("model", "output", "checkpoints") for path in (both[1].base / place).rglob("*")]
    assert [path for path in left if path.is_file()] == []
    assert (both[0].base / "output" / "success").exists()


@pytest.mark.usefixtures("mpich")
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_instance_ends_the_other_with_a_sentence(tmp_path: Path, channels: Channels, lost: int) -> None:
    both = lay_out_instances(tmp_path / "job", LONG, [channels, channels])
    start_instances(both)
    wait_until_trained(both[0])
    both[lost].lose()
    since = time.monotonic()
    assert statuses(both)[1 - lost] == 1
    assert time.monotonic() - since < 10
    assert "was ended: it was lost" in str(both[1 - lost].failure)
    assert "started again, the job goes on from its checkpoints" in both[1 - lost].log


@pytest.mark.usefixtures("mpich")
def test_instances_with_other_rows_are_an_error_on_each(tmp_path: Path, channels: Channels) -> None:
    other = {**channels, "train": write_rows(tmp_path / "train.tsv", 63)}
    both = lay_out_instances(tmp_path / "job", HYPERPARAMETERS, [channels, other])
    assert run_instances(both) == [2, 2]
    said = "files in the channel 'train' of rank 1 of 2 differ from those of rank 0"
    assert [said in str(instance.failure) for instance in both] == [True, True]
    assert both[0].log.count(said) == 1
    assert not (both[0].base / "checkpoints" / "run").exists()


@pytest.mark.usefixtures("mpich")
def test_instances_that_a_network_joins_have_the_bits_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: Channels
) -> None:
    with ExitStack() as stack:
        try:
            namespaces = stack.enter_context(mpi_run.two_networks())
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"needs `ip` and the right to make network namespaces: {error}")
        both = lay_out_instances(tmp_path / "job", HYPERPARAMETERS, [channels, channels], mpi_run.HOSTS)
        by = {host: ["ip", "netns", "exec", name] for host, name in zip(mpi_run.HOSTS, namespaces, strict=True)}
        by_tcp = {"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp", "UCX_NET_DEVICES": "wire"}
        assert run_instances(both, by=by, **by_tcp) == [0, 0], both[0].log
    assert model_of(both[0].base) == of_one(monkeypatch, tmp_path / "one", HYPERPARAMETERS, channels)


@pytest.mark.usefixtures("mpich")
def test_an_instance_without_the_other_gives_up(tmp_path: Path, channels: Channels) -> None:
    _, alone = lay_out_instances(tmp_path / "job", HYPERPARAMETERS, [channels, channels])
    assert run_instances([alone], KDISTILL_INSTANCES_TIMEOUT="0.5") == [1]
    assert "127.0.0.1, 127.0.0.2 have not come together in 0.5 seconds, as seen from 127.0.0.2" in str(alone.failure)


@pytest.mark.usefixtures("mpich")
def test_processes_that_the_platform_has_started_train_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: Channels
) -> None:
    """As SageMaker's toolkit starts a script with its distribution mpi: the variables are the first instance's."""
    base = tmp_path / "job"
    lay_out(base, HYPERPARAMETERS, channels)
    (tmp_path / "train.py").write_text(
        "import sys\nfrom kdistill.sagemaker.entry import main\nraise SystemExit(main(sys.argv[1:]))\n"
    )
    words = ["-m", "mpi4py", str(tmp_path / "train.py"), "--epochs", "2"]
    line, environment = mpi_run.command(2, *words)
    places = {"SAGEMAKER_BASE_DIR": str(base), "SM_HOSTS": '["algo-1", "algo-2"]', "SM_CURRENT_HOST": "algo-1"}
    environment = {name: of for name, of in environment.items() if name != "KDISTILL_CACHE"} | places
    run = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("{'final_accuracy': ") == 1
    assert model_of(base) == of_one(monkeypatch, tmp_path / "one", HYPERPARAMETERS, channels)

    (base / "input" / "config" / "hyperparameters.json").write_text('{"run_hpo": "true", "student_id": "L1-H16-A2"}')
    run = subprocess.run(line[:-2], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "run_hpo is true and the job has 2 processes, and a search is the work of one" in str(failure_of(base))


def test_a_container_without_mpi_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: Channels
) -> None:
    monkeypatch.setattr(instances, "find_spec", lambda name: None)
    hosts = {"SM_HOSTS": '["algo-1", "algo-2"]'}
    status, _ = run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, channels, **hosts)
    failure = str(failure_of(tmp_path / "job"))
    assert status == 2
    assert "the job has 2 instances, and its container lacks mpi4py" in failure
    assert "pip install 'kdistill[mpi]' mpich" in failure


def test_rows_that_are_split_among_instances_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: Channels
) -> None:
    from kdistill.sagemaker import local

    (sharded := local._input_data(channels))["train"]["S3DistributionType"] = "ShardedByS3Key"
    monkeypatch.setattr(local, "_input_data", lambda channels: sharded)
    hosts = {"SM_HOSTS": '["algo-1", "algo-2"]'}
    status, _ = run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, channels, **hosts)
    assert status == 2
    assert "the channel 'train' is ShardedByS3Key" in str(failure_of(tmp_path / "job"))
