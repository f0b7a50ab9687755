"""`kdistill bench`: what is counted, and what it says of programs that are not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support.small_run import small_config, small_model, write_model, write_rows

from kdistill import _core
from kdistill.bench import bench
from kdistill.bench.other_runtimes import PaddedBatch, bucketed
from kdistill.cli import main as cli
from kdistill.data.dataset import Dataset


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no peer were installed."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    return cli.main(["bench", *map(str, words)]), *capsys.readouterr()


@pytest.mark.usefixtures("alone")
def test_figures_hang_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates and shares follow from the seconds measured: here from a clock that counts the times it is asked."""
    model = small_model()
    dataset = bench.synthetic_rows(model.config, 30)
    monkeypatch.setattr(bench, "peak_flops", lambda threads: 1e6)
    monkeypatch.setattr(bench, "forward_flops", lambda config, lengths, cls_only: 5e5)
    ticks = iter(range(10**6))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: float(next(ticks)))
    figures = bench.bench(model, dataset, batch_size=8)
    assert figures["rows"] == 30
    assert figures["tokens"] == dataset.starts[-1]
    assert figures["peak_gflops"] == 1e-3
    assert figures["programs"] == {
        "kdistill": {
            "sentences_per_second": 30.0,
            "median_ms": 1000.0,
            "p99_ms": 1000.0,
            "percent_of_peak": 50.0,
            "largest_difference": 0.0,
        },
        "PyTorch": "not installed (torch)",
        "ONNX Runtime": "not installed (onnxruntime)",
        "OpenVINO": "not installed (openvino)",
    }


@pytest.mark.usefixtures("alone")
def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 40)
    status, output, errors = run(capsys, "--model", model, "--data", rows, "--rows", 7, "--json")
    assert (status, errors) == (0, "")
    figures: dict[str, Any] = json.loads(output)
    assert figures["model"] == str(model)
    assert (figures["rows"], figures["batch_size"]) == (7, 128)
    assert figures["programs"]["kdistill"]["sentences_per_second"] > 0

    status, output, _ = run(capsys, "--model", "L1-H8-A2", "--rows", 5, "--batch-size", 2, "--threads", 2)
    assert status == 0
    head, _, own, *peers = output.splitlines()
    assert head.startswith("L1-H8-A2: 5 rows, ")
    assert ", batch size 2, 2 threads; peak " in head
    assert own.split()[0] == "kdistill"
    assert peers == [
        "PyTorch         not installed (torch)",
        "ONNX Runtime    not installed (onnxruntime)",
        "OpenVINO        not installed (openvino)",
    ]


@pytest.mark.usefixtures("alone")
def test_a_runtime_without_what_writes_its_graph_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    output = run(capsys, "--model", "L1-H8-A2", "--rows", 5)[1]
    assert output.splitlines()[-3:] == [
        "PyTorch         not installed (torch)",
        "ONNX Runtime    cannot run it: torch, which writes its graph, is not installed; --export measures it with "
        "graphs of `kdistill export`",
        "OpenVINO        not installed (openvino)",
    ]


def test_a_peer_that_fails_is_left_out_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> Any:
        raise RuntimeError("no such\noperator")

    def zeros(batch: PaddedBatch) -> Any:
        return np.zeros((len(batch.rows), 2), np.float32)

    monkeypatch.setattr(bench, "pytorch", lambda directory, threads: {"eager": lambda: zeros, "oneDNN": fails})
    monkeypatch.setattr(bench, "onnx_runtime", fails)
    monkeypatch.setitem(sys.modules, "openvino", None)
    words = ["--model", "L1-H8-A2", "--rows", 5]
    status, output, errors = run(capsys, *words, "--json")
    programs = json.loads(output)["programs"]
    assert (status, errors) == (0, "")
    assert programs["kdistill"]["sentences_per_second"] > 0
    assert programs["PyTorch"]["sentences_per_second"] > 0
    assert programs["PyTorch"]["left_out"] == {"oneDNN": "RuntimeError: no such operator"}
    assert programs["ONNX Runtime"] == "failed: RuntimeError: no such operator"
    assert run(capsys, *words)[1].splitlines()[-3:] == [
        "                without oneDNN, which failed: RuntimeError: no such operator",
        "ONNX Runtime    failed: RuntimeError: no such operator",
        "OpenVINO        not installed (openvino)",
    ]

    monkeypatch.setattr(bench, "pytorch", lambda directory, threads: {"eager": fails, "oneDNN": fails})
    programs = json.loads(run(capsys, *words, "--json")[1])["programs"]
    assert programs["PyTorch"] == "failed: RuntimeError: no such operator"


@pytest.mark.usefixtures("alone")
def test_types_are_rows_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    shape, types = ["--model", "L1-H8-A2", "--rows", 5], ["float32", "bfloat16", "int8", "int8"]
    status, output, _ = run(capsys, *shape, "--dtype", *types, "--json")
    figures: dict[str, Any] = json.loads(output)
    assert status == 0
    assert figures["compute"] == _core.COMPUTE
    own = {name: program for name, program in figures["programs"].items() if name.startswith("kdistill")}
    assert [*own] == ["kdistill", "kdistill bfloat16", "kdistill int8"]
    differences = [program["largest_difference"] for program in own.values()]
    assert differences[0] == 0 < min(differences[1:])

    head, titles, *rows = run(capsys, *shape, "--dtype", "int8")[1].splitlines()
    assert head.endswith(f" GF/s; int8 by {_core.COMPUTE['int8'] or 'portable kernels'}")
    assert rows[0].startswith("kdistill int8 ")
    assert len(titles) == len(rows[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "L1-H8-A2", "--data", "rows.tsv"], "L1-H8-A2 has no tokenizer"),
        (["--model", "L1-H8-A2", "--rows", "0"], "--rows is 0; expected at least 1"),
        (["--model", "L1-H8-A2", "--batch-size", "0"], "--batch-size is 0; expected at least 1"),
        (["--model", "nowhere"], "nowhere"),
        (["--model", "L1-H8-A2", "--dtype", "fp8"], "argument --dtype: invalid choice: 'fp8'"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    status, output, errors = run(capsys, *words)
    assert (status, output) == (2, "")
    assert message in errors


def test_synthetic_rows_are_as_long_as_those_of_sst2() -> None:
    dataset = bench.synthetic_rows(small_config(max_position_embeddings=512), 20_000)
    # The training rows of SST-2: 13.3 tokens in the mean, 10 in the median, 33 at the 95th percentile, 66 at most.
    assert dataset.lengths.mean() == pytest.approx(13.3, abs=0.7)
    assert abs(np.median(dataset.lengths) - 10) <= 1
    assert abs(np.quantile(dataset.lengths, 0.95) - 33) <= 1
    assert (dataset.lengths.min(), dataset.lengths.max() <= 66) == (3, True)
    assert bench.synthetic_rows(small_config(), 1000).lengths.max() == 16  # the model's positions


@pytest.mark.parametrize("padding", [0, 1, 12, None])
def test_synthetic_rows_hold_every_token_but_padding(padding: int | None) -> None:
    config = small_config(pad_token_id=padding)
    assert set(bench.synthetic_rows(config, 200).ids) == set(range(13)) - {padding}


def test_bucketed_pads_rows_of_like_length() -> None:
    starts = np.array([0, 3, 4, 6, 9])
    ids = np.arange(1, 10, dtype=np.int32)
    batches = bucketed(Dataset(ids, np.zeros_like(ids), starts, np.zeros(4, np.int64)), 2)
    assert [batch.rows.tolist() for batch in batches] == [[1, 2], [0, 3]]
    assert batches[0].ids.tolist() == [[4, 0], [5, 6]]
    assert batches[0].mask.tolist() == [[1, 0], [1, 1]]
    assert batches[1].ids.tolist() == [[1, 2, 3], [7, 8, 9]]
    assert [batch.full for batch in batches] == [False, True]
