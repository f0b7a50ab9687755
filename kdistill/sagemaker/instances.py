"""The processes of a job of several instances, started by MPICH's launcher without ssh.

SageMaker starts the same container on each instance, and nothing that joins them. Of MPICH's launcher, Hydra, each
instance starts the part that it needs: the first one `mpiexec`, with the launcher "manual", which waits at a port until
all have come, and each of them the proxy that mpiexec would otherwise start through ssh. The proxies start the
processes of the job, one on each instance, and end them when one is lost.

https://github.com/pmodels/mpich/blob/main/doc/wiki/how_to/Using_the_Hydra_Process_Manager.md
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..system.names import listing
from .container import Container

PORT_VARIABLE, PORT = "KDISTILL_INSTANCES_PORT", "29500"
"""Where the first instance waits for the others."""
REPORT_VARIABLE = "KDISTILL_PROCESS_REPORT"
PATIENCE_VARIABLE, PATIENCE = "KDISTILL_INSTANCES_TIMEOUT", "900"
"""Seconds for all instances to come together, which SageMaker starts some minutes apart."""
_PAUSE = 0.05
_BETWEEN_TRIES = 0.5  # seconds from one look for the first instance to the next
_LAUNCHES = "HYDRA_LAUNCH"  # with it begin the lines that Hydra prints for whoever starts its proxies
_LAST_LAUNCH = "HYDRA_LAUNCH_END"
_CONTROL_PORT = "--control-port"


class ProcessReport:
    """What a process of the job tells the one that waits for it on its instance: its number, and how it has ended.

    Attributes:
        status: the exit status, which leaving the block reports.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get(REPORT_VARIABLE)
        self._path = None if path is None else Path(path)
        self.status = 1

    def __enter__(self) -> ProcessReport:
        self._write(str(os.getpid()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._write(f"{os.getpid()} {self.status}")

    def _write(self, text: str) -> None:
        if self._path is not None:
            new = self._path.with_suffix(".new")
            new.write_text(text)
            new.replace(self._path)


def run_on_each(container: Container, words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Do the job together with the other instances, which all call this; return the exit status of this one's process.

    A signal is passed on to that process, which ends the others, too.

    Args:
        container: names the instances.
        words: of the job's command line.
        environment: its variables, besides those of this process.

    Raises:
        ImportError: MPICH or mpi4py is missing.
        RuntimeError: the instances have not come together, or one was lost.
    """
    mpiexec = _mpiexec(len(container.hosts))
    with tempfile.TemporaryDirectory(prefix="kdistill-instance-") as scratch:
        instance = _Instance(container, mpiexec, words, environment, Path(scratch))
        try:
            return instance.status()
        except KeyboardInterrupt:
            instance.interrupt()
            raise
        finally:
            instance.end()


def _mpiexec(count: int) -> str:
    """Return Hydra's launcher. Raises ImportError where something is missing."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = next((of for name in ("mpiexec.hydra", "mpiexec") if (of := shutil.which(name, path=path))), None)
    has_hydra = found is not None and (Path(found).resolve().parent / "hydra_pmi_proxy").is_file()
    missing = [name for name, there in (("mpi4py", find_spec("mpi4py")), ("MPICH", has_hydra)) if not there]
    if missing or found is None:
        raise ImportError(
            f"the job has {count} instances, and its container lacks {listing(missing)}, with which they would train "
            "one model; put into the image: pip install 'kdistill[mpi]' mpich"
        )
    return found


class _Instance:
    """The processes of one instance: of Hydra, and below them that of the job."""

    def __init__(
        self, container: Container, mpiexec: str, words: Sequence[str], environment: Mapping[str, str], scratch: Path
    ) -> None:
        assert container.host is not None
        self._hosts, self._host = container.hosts, container.host
        self._rank, self._port = self._hosts.index(self._host), environment.get(PORT_VARIABLE) or PORT
        self._patience = float(environment.get(PATIENCE_VARIABLE) or PATIENCE)
        self._report, self._said = scratch / "report", scratch / "stderr"
        self._environment = {**os.environ, **environment, REPORT_VARIABLE: str(self._report)}
        interface = container.interface
        if interface is not None and (Path("/sys/class/net") / interface).exists():
            self._environment.setdefault("UCX_NET_DEVICES", interface)
        job = [sys.executable, "-m", "kdistill.sagemaker", "train", *words]
        several = ["-hosts", ",".join(self._hosts), "-ppn", "1", "-n", str(len(self._hosts))]
        # Each process gets the variables of its own instance, those of its proxy.
        self._launch = [mpiexec, "-launcher", "manual", *several, "-genvnone", *job]
        self._launcher: subprocess.Popen[str] | None = None
        self._relay: threading.Thread | None = None
        self._proxy: subprocess.Popen[bytes] | None = None

    def status(self) -> int:
        """Start what this instance needs, and return the exit status of its process of the job."""
        words = self._words_of_proxy()
        until = time.monotonic() + self._patience
        if self._rank == 0:
            self._launcher = self._start_launcher()
        while self._process is None:
            if self._launcher is not None and self._launcher.poll() is not None:
                raise RuntimeError(f"mpiexec could not start the job on {listing(self._hosts)}; the log says why")
            if time.monotonic() > until:
                raise RuntimeError(
                    f"the instances {listing(self._hosts)} have not come together in {self._patience:g} seconds, as "
                    f"seen from {self._host}; expected all of them to reach port {self._port} of {self._hosts[0]}"
                    f"{self._last_words()}"
                )
            if self._proxy is None or self._proxy.poll() is not None:  # the first instance may not wait yet
                time.sleep(0 if self._proxy is None else _BETWEEN_TRIES)
                with self._said.open("wb") as said:
                    self._proxy = self._started(words, stdout=said, stderr=said)
            time.sleep(_PAUSE)
        assert self._proxy is not None
        self._proxy.wait()
        if self._launcher is not None:
            self._launcher.wait()
        if self._relay is not None:
            self._relay.join()
        ended = self._report.read_text().split()[1:]
        if not ended:
            raise RuntimeError(
                f"the process of the instance {self._host}, one of {listing(self._hosts)}, was ended: it was lost, for "
                "example for want of memory, or another one with its instance; started again, the job goes on from its "
                "checkpoints"
            )
        return int(ended[0])

    @property
    def _process(self) -> int | None:
        """The number of the process of the job; None before it begins."""
        return int(self._report.read_text().split()[0]) if self._report.is_file() else None

    def _start_launcher(self) -> subprocess.Popen[str]:
        started = self._started(
            self._launch, stdout=subprocess.PIPE, text=True, errors="backslashreplace", port=self._port
        )
        self._relay = threading.Thread(target=_relay, args=(started.stdout,), daemon=True)
        self._relay.start()
        return started

    def _words_of_proxy(self) -> list[str]:
        """Return the command line of this instance's proxy, as the launcher of the first one prints it there, too."""
        with self._started(self._launch, stdout=subprocess.PIPE, text=True) as launcher:
            assert launcher.stdout is not None
            lines = []
            for line in launcher.stdout:
                if line.startswith(_LAST_LAUNCH):
                    break
                lines.append(line)
            launcher.kill()
        words = lines[self._rank].split()[1:] if self._rank < len(lines) else []
        if _CONTROL_PORT not in words:
            raise RuntimeError(f"{self._launch[0]} does not name its proxies; expected the mpiexec of MPICH 4 or 5")
        words[words.index(_CONTROL_PORT) + 1] = f"{self._hosts[0]}:{self._port}"
        return words

    def _started(self, words: Sequence[str], *, port: str | None = None, **streams: Any) -> subprocess.Popen[Any]:
        """Start a process in a session of its own: this one passes signals on."""
        of_port = {} if port is None else {"MPIEXEC_PORT_RANGE": f"{port}:{port}"}
        environment = self._environment | of_port
        return subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, **streams)

    def _last_words(self) -> str:
        said = self._said.read_text(errors="replace").split("\n") if self._said.is_file() else []
        return f" ({said[-2].strip()})" if len(said) > 1 else ""

    def interrupt(self) -> None:
        """Let the process of the job end as SIGTERM ends it, with a checkpoint, and wait for that."""
        if self._process is None or self._proxy is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGTERM)
        self._proxy.wait()
        if self._launcher is not None:
            self._launcher.wait()

    def end(self) -> None:
        """End what is left."""
        for process in (self._launcher, self._proxy):
            if process is not None and process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._process is not None and not self._report.read_text().split()[1:]:
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)


def _relay(lines: IO[str]) -> None:
    """Print what the processes print, and not what Hydra prints for whoever starts its proxies."""
    for line in lines:
        if not line.startswith(_LAUNCHES):
            print(line, end="", flush=True)
