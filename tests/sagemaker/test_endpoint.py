"""The container as an endpoint: `serve` on the model that a job has left."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_run import write_model

from kdistill.sagemaker import endpoint, entry

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")


def test_the_container_serves_the_model_where_sagemaker_asks(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    settings = {**os.environ, "SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_BIND_TO_PORT": "0"}
    command = [sys.executable, "-m", "kdistill.sagemaker", "serve"]
    with subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        ports = (re.search(r"http://0\.0\.0\.0:(\d+)", line) for line in process.stderr)
        port = next(int(found[1]) for found in ports if found)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/ping")
        answer = connection.getresponse()
        assert (answer.status, answer.read() is not None) == (200, True)
        body = json.dumps({"inputs": "good film"})
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())[0]["label"] in ("negative", "positive")
        connection.close()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert process.returncode == 0


def test_the_port_is_that_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(endpoint, "main", lambda words: asked.append(words) or 0)
    assert endpoint.serve(["--threads", "2"], {"SAGEMAKER_BASE_DIR": str(tmp_path)}) == 0
    options = ["serve", "--model", str(tmp_path / "model"), "--host", "0.0.0.0", "--port", "8080", "--threads", "2"]
    assert asked == [options]


def test_help_names_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--help"]) == 0
    assert "usage: python -m kdistill.sagemaker [train [--NAME VALUE ...] | serve]" in capsys.readouterr().out


def test_another_word_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    assert entry.main(["trian"]) == 2
    sentence = "the job is given the word 'trian'; expected --name value (python -m kdistill.sagemaker --help)"
    assert capsys.readouterr().err == f"kdistill: error: {sentence}\n"


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        ({}, 6 * 2**20),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "20"}, 20 * 2**20),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}, 2**30),
    ],
)
def test_a_batch_transform_may_fill_its_payload_with_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: dict[str, str], size: int
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(endpoint, "main", lambda words: asked.append(words) or 0)
    assert endpoint.serve([], {"SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_BATCH": "true"} | payload) == 0
    assert asked[0][7:] == ["--max-request-bytes", str(size), "--max-texts", str(size), "--timeout", "3600"]
