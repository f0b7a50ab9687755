"""Whole training runs in processes of their own that must end with the same bits, whatever they were run with.

Runs that are killed and resumed are in test_resume.py and torture.py, single passes in test_bits.py.
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT, TESTS
from support.resumable_run import result, run_python, trainer

# Enough tokens in a batch for four chunks, which threads share; 5 steps an epoch, the last one smaller.
ROWS = 580
BATCHES = {"per_device_train_batch_size": 60}

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")


def trained(directory: Path, changes: dict[str, Any] | None = None, before: str = "", **environment: str) -> Any:
    """The result of a run in a new process with an empty teacher cache; `before` is done first there."""
    code = f"""
import warnings, kdistill
from support import resumable_run
from pathlib import Path
warnings.simplefilter("ignore")
run = resumable_run.trainer(Path({str(directory / "out")!r}), rows={ROWS}, **{BATCHES | (changes or {})!r})
{before}
run.train()
print(kdistill.__file__)
"""
    process = run_python(code, **({"KDISTILL_CACHE": str(directory / "cache")} | environment))
    assert process.returncode == 0, process.stderr
    return result(directory / "out") | {"installed": Path(process.stdout.strip()).parent}


def differences(one: dict[str, Any], other: dict[str, Any], *but: str) -> list[str]:
    """Names of what differs, leaving out `but`."""
    return [name for name, value in one.items() if name not in (*but, "installed") and other[name] != value]


@pytest.fixture(scope="module")
def with_one_thread(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(tmp_path_factory.mktemp("one"), KDISTILL_NUM_THREADS="1")


@pytest.mark.parametrize("threads", ["2", "3", "8"])
def test_any_number_of_threads(tmp_path: Path, with_one_thread: dict[str, Any], threads: str) -> None:
    assert differences(trained(tmp_path, KDISTILL_NUM_THREADS=threads), with_one_thread) == []


# The first rows, each in a pass of its own; the run finds these and computes the others together.
HALF_FULL_CACHE = f"""
from kdistill.distill.cache import teacher_logits
from support.resumable_run import small_dataset
teacher_logits(run.teacher_model, small_dataset({ROWS // 2}), batch_tokens=1)
"""


def test_a_teacher_cache_filled_in_other_batches(tmp_path: Path, with_one_thread: dict[str, Any]) -> None:
    half_full = trained(tmp_path / "half", before=HALF_FULL_CACHE)
    assert differences(half_full, with_one_thread) == []


@pytest.mark.parametrize("batch_size", [1, 7])
def test_evaluation_in_other_batches(tmp_path: Path, with_one_thread: dict[str, Any], batch_size: int) -> None:
    """The states hold the arguments, which differ here; the log of the evaluations is in them too."""
    other = trained(tmp_path, {"per_device_eval_batch_size": batch_size})
    assert differences(other, with_one_thread, "state", "checkpoint's state") == []
    assert other["state"]["log_history"] == with_one_thread["state"]["log_history"]


def test_another_seed_gives_other_bits(tmp_path: Path, with_one_thread: dict[str, Any]) -> None:
    """So the comparisons above can fail."""
    assert "model" in differences(trained(tmp_path, {"seed": 43}), with_one_thread)


def wheel() -> Path:
    """A wheel of these sources: $KDISTILL_WHEEL, or the newest in dist/. Skips the test when there is none."""
    named = os.environ.get("KDISTILL_WHEEL")
    built = [Path(named)] if named else sorted((ROOT / "dist").glob("kdistill-*.whl"), key=os.path.getmtime)
    sources = [*(ROOT / "csrc").rglob("kd_*"), *(ROOT / "kdistill").rglob("*.py"), ROOT / "setup.py"]
    if not built or built[-1].stat().st_mtime < max(map(os.path.getmtime, sources)):
        pytest.skip("needs a wheel of these sources: no KDISTILL_WHEEL, and none in dist/ that is newer than they are")
    return built[-1]


def test_a_wheel_and_this_installation(tmp_path: Path, with_one_thread: dict[str, Any]) -> None:
    installed = tmp_path / "site-packages"
    with zipfile.ZipFile(wheel()) as archive:
        archive.extractall(installed)
    path = os.pathsep.join([str(installed), str(TESTS), *sys.path])
    from_wheel = trained(tmp_path, PYTHONPATH=path)
    assert from_wheel["installed"] == installed / "kdistill" != with_one_thread["installed"]
    assert differences(from_wheel, with_one_thread) == []


def test_the_run_has_what_a_run_can_lose(tmp_path: Path) -> None:
    """Dropout, accumulation and a half-full last step: the run of these comparisons is no trivial one."""
    run = trainer(tmp_path, rows=ROWS, **BATCHES)
    assert run.model.config.hidden_dropout_prob > 0
    assert run.args.gradient_accumulation_steps > 1
    assert len(run.train_dataset) % (run.args.per_device_train_batch_size * run.args.gradient_accumulation_steps)
