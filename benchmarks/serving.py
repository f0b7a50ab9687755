"""Requests per second of `kdistill serve` on loopback, beside ONNX Runtime behind the same framework.

Closed loop: so many clients send one sentence after another over kept connections, each a sentence of its own. The
number of clients rises until p99 is far beyond the bound; the figure is the most requests per second within it. All
servers run at the same time, and the rounds alternate between them; one without a request costs nothing.

The load comes from `wrk` (Debian: apt-get install wrk), one thread in C that takes some 15 us a request. It shares the
machine's cores with the server, for all of them alike. Its latencies are corrected for clients that wait.

The peer (`benchmarks.serving_peer`) is tried in all its settings, and the fastest two take part. Its graphs are
exported with PyTorch and transformers, unless --work has them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kdistill as kd
from kdistill.bench.other_runtimes import export_onnx, optimize_onnx

from . import common

SCRIPT = """
local bodies, n = {}, 0
for line in io.lines("BODIES") do bodies[#bodies + 1] = line end
request = function()
  n = n % #bodies + 1
  return wrk.format("POST", "/predict", {["Content-Type"] = "application/json"}, bodies[n])
end
done = function(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.read + summary.errors.connect + summary.errors.timeout
  io.write(string.format("figures %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), failed))
end
"""
WAYS = ("one", "threads", "gathered")
FINALISTS = 2


@dataclass(frozen=True)
class Load:
    """What a number of clients saw: requests a second, milliseconds, and the server's CPU time per request in us."""

    clients: int
    rate: float
    p50: float
    p99: float
    cpu: float


@dataclass(frozen=True)
class Contestant:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has taken."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, clients: int, seconds: float, script: Path) -> Load:
        """Let so many clients ask for so long."""
        before = self.cpu_seconds()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{self.port}/"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.search(r"^figures (\d+) (\d+) (\d+) (\d+) (\d+)$", output, re.MULTILINE)
        assert found is not None, output
        requests, duration, p50, p99, failed = map(int, found.groups())
        if failed:
            raise RuntimeError(f"{failed} of {requests} requests failed: {self.process.args!r}")
        cpu = (self.cpu_seconds() - before) / max(requests, 1)
        return Load(clients, requests / duration * 1e6, p50 / 1e3, p99 / 1e3, cpu * 1e6)


@contextmanager
def started(words: Sequence[object]) -> Iterator[Contestant]:
    """Start a server, with --port, and wait until it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *map(str, words), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"{command} ended: {process.stderr.read().decode() if process.stderr else ''}")
            try:
                body = json.dumps({"inputs": "a film"}).encode()
                headers = {"content-type": "application/json"}
                urllib.request.urlopen(
                    urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, headers), timeout=10
                ).read()
                break
            except OSError:
                time.sleep(0.1)
        yield Contestant(process, port)
    finally:
        process.terminate()
        process.communicate()


def peers(model: Path, graphs: Path, threads: int) -> dict[str, list[object]]:
    """Return the commands of the peer in every setting, by name."""
    return {
        f"ONNX Runtime, {graph}, {way}, {count} threads": [
            *("benchmarks.serving_peer", "--tokenizer", model / "tokenizer.json", "--graph", graphs / f"{graph}.onnx"),
            *("--way", way, "--threads", count),
        ]
        for graph in ("exported", "optimised")
        for way in WAYS
        for count in sorted({1, threads})
    }


def exported(model: Path, graphs: Path) -> Path:
    """Return the directory with the model's graphs, which are made where they are missing."""
    graphs.mkdir(parents=True, exist_ok=True)
    if not (graphs / "optimised.onnx").exists():
        export_onnx(model, graphs / "exported.onnx")
        optimize_onnx(graphs / "exported.onnx", graphs / "optimised.onnx", kd.AutoConfig.from_pretrained(model))
    return graphs


def finalists(commands: Mapping[str, Sequence[object]], script: Path, options: argparse.Namespace) -> list[str]:
    """Return the settings that answer the most requests a second from 8 clients."""
    rates = {}
    for name, words in commands.items():
        with started(words) as contestant:
            contestant.load(2, 1, script)
            rates[name] = contestant.load(8, 1, script).rate
    return sorted(rates, key=rates.__getitem__)[-FINALISTS:]


def within(loads: Sequence[Load], bound: float) -> Load:
    """Return the load with the most requests a second among those within the bound; a load of 0 where none is."""
    kept = [load for load in loads if load.p99 <= bound]
    return max(kept, key=lambda load: load.rate, default=Load(0, 0.0, 0.0, 0.0, 0.0))


def compare(model: Path, graphs: Path, script: Path, options: argparse.Namespace) -> dict[str, list[list[Load]]]:
    """Return the loads of each contestant: a list for each round, with one for each number of clients."""
    commands: dict[str, Sequence[object]] = {
        f"kdistill serve, {count} threads": ["kdistill", "serve", "--model", model, "--threads", count]
        for count in sorted({1, options.threads})
    }
    of_peer = peers(model, exported(model, graphs), options.threads)
    commands |= {name: of_peer[name] for name in finalists(of_peer, script, options)}
    loads: dict[str, list[list[Load]]] = {name: [] for name in commands}
    with ExitStack() as stack:
        contestants = {name: stack.enter_context(started(words)) for name, words in commands.items()}
        for contestant in contestants.values():
            contestant.load(8, 1, script)
        for _ in range(options.rounds):
            for name, contestant in contestants.items():
                loads[name].append([])
                for clients in options.clients:
                    loads[name][-1].append(contestant.load(clients, options.seconds, script))
                    if loads[name][-1][-1].p99 > 3 * options.bound:
                        break
    return loads


def row_of(name: str, rounds: Sequence[Sequence[Load]], options: argparse.Namespace) -> list[object]:
    """Return the row of a contestant: medians over the rounds."""
    best = [within(loads, options.bound) for loads in rounds]
    chosen = sorted(best, key=lambda load: load.rate)[len(best) // 2]
    most = statistics.median(max(load.rate for load in loads) for loads in rounds)
    alone = statistics.median(loads[0].p50 for loads in rounds)
    return [name, chosen.rate, chosen.clients, chosen.p50, chosen.p99, chosen.cpu, most, alone]


def measure(options: argparse.Namespace) -> None:
    """Run both models and report."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed, which makes the load; install it with apt-get install wrk")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(options.work or scratch)
        student = Path(scratch, "student")
        config = kd.BertConfig.from_pretrained(options.teacher).replace(**common.STUDENT_SHAPE)
        kd.BertForSequenceClassification(config, seed=common.SEED).save_pretrained(student)
        kd.AutoTokenizer.from_pretrained(options.teacher).save_pretrained(student)
        lines = options.train.read_text(encoding="utf-8").splitlines()[1:]
        bodies = [json.dumps({"inputs": line.split("\t")[0]}) for line in dict.fromkeys(lines)]
        Path(scratch, "bodies").write_text("\n".join(bodies), encoding="utf-8")
        script = Path(scratch, "script.lua")
        script.write_text(SCRIPT.replace("BODIES", str(Path(scratch, "bodies"))), encoding="utf-8")
        header = ["", f"1/s at p99 <= {options.bound:g} ms", "clients", "p50 ms", "p99 ms", "CPU us/request",
                  "most 1/s", "p50 ms of one client"]  # fmt: skip
        text = ""
        for name, model in (("student L2-H128-A2", student), ("6 layers, hidden 384", options.teacher)):
            loads = compare(model, work / name.replace(" ", "-").replace(",", ""), script, options)
            rows = [row_of(contestant, rounds, options) for contestant, rounds in loads.items()]
            text += f"\n{name}:\n\n{common.table(header, rows)}\n"
            figures[name] = {
                key: [[vars(load) for load in loads_of_round] for loads_of_round in rounds]
                for key, rounds in loads.items()
            }
    common.report("Serving over HTTP", text.strip(), figures, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=3)
    common.add_data(options, sample=False)
    options.add_argument("--bound", type=float, default=10, help="milliseconds of p99")
    options.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16, 24, 32], help="one after another")
    options.add_argument("--seconds", type=int, default=1, help="of each number of clients")
    options.add_argument("--work", type=Path, help="directory that keeps the exported graphs")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
