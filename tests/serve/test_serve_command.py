"""`kdistill serve` as a process: how it starts, stops and refuses to start."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.served import PATIENCE, Answer, Gate, in_threads, request, served, until
from support.small_run import write_model

from kdistill.cli.main import main
from kdistill.serve.classifier import Classifier

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

# A server whose passes take as long as the first argument says, in seconds.
SLOW = """
import sys, time
from kdistill.cli.main import main
from kdistill.serve.classifier import Classifier
logits = Classifier.logits
def slow(self, rows):
    time.sleep(float(sys.argv[1]) if started else 0)
    return logits(self, rows)
started, load = [], Classifier.load
def loaded(*args, **keywords):
    classifier = load(*args, **keywords)
    started.append(True)
    return classifier
Classifier.logits, Classifier.load = slow, loaded
sys.exit(main(["serve", "--port", "0", *sys.argv[2:]]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("command") / "model")


@contextmanager
def process(seconds: float, model: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the command with passes of so many seconds; yield the process and its port."""
    words = [sys.executable, "-c", SLOW, str(seconds), "--model", str(model), *map(str, options)]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        line = running.stderr.readline()
        found = re.fullmatch(r"kdistill: serving model at http://127.0.0.1:(\d+); Ctrl-C or SIGTERM stops\n", line)
        assert found, line + running.stderr.read()
        yield running, int(found[1])
    finally:
        running.kill()
        running.communicate()


def ask(port: int) -> Answer:
    return request(port, "POST", "/predict", '{"inputs": "good film"}', content_type="application/json")


def queued(port: int) -> int:
    return int(request(port, "GET", "/health").json["queue"]["texts"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_all_that_is_accepted_and_ends_with_0(model: Path, number: signal.Signals) -> None:
    with process(0.3, model, "--max-batch-tokens", 20) as (running, port):
        answers, join = in_threads([lambda: ask(port)] * 15)
        until(lambda: sum(map(bool, answers)) + queued(port) >= 15)  # all are accepted: several batches
        running.send_signal(number)
        join()
        output, errors = running.communicate(timeout=PATIENCE)
        assert [answer.status for answer in answers] == [200] * 15
        assert len({answer.body for answer in answers}) == 1
        assert running.returncode == 0
        assert re.fullmatch(r"stopped after 0:\d\d: 15 requests answered, 15 texts\n", output)
        assert errors == ""
        with pytest.raises(ConnectionRefusedError):
            ask(port)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_at_once(model: Path, number: signal.Signals, status: int) -> None:
    # On a busy machine the second signal may come late: the first one must not have ended the server by then.
    with process(2 * PATIENCE, model, "--graceful-timeout", 2 * PATIENCE) as (running, port):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.request("POST", "/predict", '{"inputs": "good"}')
            until(lambda: queued(port) == 1)
            running.send_signal(number)
            until(lambda: _refused(port))
            running.send_signal(number)
            _, errors = running.communicate(timeout=PATIENCE)
        assert running.returncode == status
        assert errors == "kdistill: interrupted\n"


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_is_not_done_in_the_time_for_a_stop_is_503_and_the_status_1(model: Path) -> None:
    with process(1, model, "--graceful-timeout", "0.1", "--json", "--max-batch-tokens", 1) as (running, port):
        answers, join = in_threads([lambda: ask(port)] * 4)
        until(lambda: queued(port) == 4)
        running.send_signal(signal.SIGTERM)
        output, errors = running.communicate(timeout=PATIENCE)
        join()
        assert running.returncode == 1
        figures = json.loads(output)
        late = [answer for answer in answers if answer.status == 503]
        assert len(late) == figures["unanswered"] >= 2
        assert all("its time to finish is over (--graceful-timeout)" in answer.json["error"] for answer in late)
        assert figures["requests"] == sum(answer.status == 200 for answer in answers)
        assert errors == ""


def test_a_signal_while_the_model_is_loaded_ends_as_every_command(model: Path) -> None:
    script = "import os, signal\nfrom kdistill.serve.classifier import Classifier\n"
    script += "Classifier.load = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
    script += "import sys\nfrom kdistill.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "serve", "--model", str(model), "--port", "0"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (143, "kdistill: interrupted\n")


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["serve", *map(str, words)]) == 2
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    return errors


def test_what_keeps_a_server_from_starting_is_one_sentence(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        errors = error_of(capsys, "--model", model, "--port", port)
        assert f"cannot listen at 127.0.0.1, port {port}: Address already in use; choose another" in errors
    assert "--port is 70000; expected 0 to 65535" in error_of(capsys, "--model", model, "--port", 70000)
    assert "--host is 'a..b'" in error_of(capsys, "--model", model, "--host", "a..b")
    assert "there is no directory" in error_of(capsys, "--model", tmp_path / "nothing")
    assert "expected a Hugging Face model directory" in error_of(capsys, "--model", tmp_path, "--port", 0)
    for option, value in (("max-queue", 0), ("timeout", "nan"), ("max-length", 2), ("max-wait-ms", -1)):
        assert f"--{option} is {value}" in error_of(capsys, "--model", model, f"--{option}", value)


@pytest.mark.parametrize("package", ["uvicorn", "starlette", "prometheus_client"])
def test_without_the_extra_the_error_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: Path, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    errors = error_of(capsys, "--model", model)
    assert f"kdistill serve needs the package {package}; install it with `pip install 'kdistill[serve]'`" in errors


def test_a_stopping_server_is_not_ready(model: Path) -> None:
    classifier = Classifier.load(model)
    gate = Gate(classifier)
    with served(classifier) as server:
        answers, join = in_threads([lambda: server.post({"inputs": "good"})])
        until(lambda: gate.rows == [1])
        assert server.service.is_ready
        server.server.should_exit = True
        until(lambda: server.service.stopping)
        assert not server.service.is_ready
        gate.open()
        join()
        assert answers[0].status == 200


def test_a_fault_of_the_application_is_one_line_of_the_log(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    with served(model) as server:
        monkeypatch.setattr(type(server.service), "is_ready", property(lambda _: 1 / 0))
        assert server.ask("GET", "/ping").status == 500
    errors = capfd.readouterr().err.splitlines()
    assert errors[1:] == ["kdistill: error: Exception in ASGI application: ZeroDivisionError: division by zero"]
