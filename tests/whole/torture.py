"""Kill or interrupt real training runs, resume them, and compare what they end with to an uninterrupted run.

    python tests/whole/torture.py --kills 300        at moments drawn from a clock
    python tests/whole/torture.py --file-operations  before every single file operation of a run, one after the other
    python tests/whole/torture.py --interrupts 300   by SIGTERM before random calls of functions, with the checkpoint of
                                                     the latest step that `enable_jit_checkpoint` leaves

Each attempt is a forked process that trains with `resume_from_checkpoint=True` until it is killed or done; it has a
number of threads of its own. The teacher cache is killed with it, since every run begins with an empty one.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.interrupts import Calls, counted
from support.resumable_run import result, trainer

from kdistill.system.files import verify_manifest
from kdistill.system.threads import set_num_threads

# What CPython's audit hooks call the operations on files that a run does; each names its file first.
FILE_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}


TERMINATED = 128 + signal.SIGTERM  # the status of a run that SIGTERM interrupts; before and after one it kills


def train(directory: Path, threads: int = 1, *, killed_before: int | None = None) -> int:
    """Begin a run in a child process, or go on with it; returns the child's pid. See `kill_before`."""
    return in_child(
        directory, threads, lambda: trainer(directory / "out").train(resume_from_checkpoint=True), killed_before
    )


def train_interrupted(directory: Path, threads: int = 1, *, at: int | None = None) -> int:
    """Do as `train`, with a SIGTERM before the nth call of a function; the child writes how many calls it has made."""

    def run() -> None:
        with counted(Calls(at, lambda: os.kill(os.getpid(), signal.SIGTERM))) as calls:
            trainer(directory / "out", enable_jit_checkpoint=True).train(resume_from_checkpoint=True)
        (directory / "calls").write_text(str(calls.count))

    return in_child(directory, threads, run)


def in_child(directory: Path, threads: int, run: Callable[[], object], killed_before: int | None = None) -> int:
    """Call `run` in a child process with a teacher cache of the directory; returns the child's pid."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        warnings.simplefilter("ignore")
        set_num_threads(threads)
        os.environ["KDISTILL_CACHE"] = str(directory / "cache")
        if killed_before is not None:
            kill_before(directory, killed_before)
        run()
        status = 0
    except SystemExit as end:
        status = end.code
    finally:  # the child must not go on with what its parent was doing
        if status == 1:
            traceback.print_exc()
        os._exit(status)


def was_killed(child: int) -> bool:
    """Wait for the child: whether a signal ended it. Raises RuntimeError when it failed by itself."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL, -signal.SIGTERM, TERMINATED):
        raise RuntimeError(f"a run ended with status {status}; its traceback stands above")
    return status != 0


def check_checkpoints(out: Path) -> None:
    """A directory called checkpoint-<step> is whole at any moment."""
    for checkpoint in out.glob("checkpoint-*"):
        damage = verify_manifest(checkpoint)
        if damage is not None:
            raise AssertionError(damage)


def check_finished(out: Path, expected: dict[str, object]) -> None:
    """The run ended as the uninterrupted one did and left nothing else behind."""
    found = result(out)
    different = [name for name, value in expected.items() if found[name] != value]
    leftovers = [path.name for path in out.iterdir() if path.name.startswith(".")]
    if different or leftovers:
        raise AssertionError(f"{out}: differs in {different}, left behind {leftovers}")


def moment(out: Path) -> str:
    """Where the kill has hit, as the output directory shows it."""
    if any(out.glob(".partial-checkpoint-*")):
        return "while writing or deleting a checkpoint"
    if (out / "model.safetensors").exists():
        return "while writing the finished run"
    if any(out.glob("checkpoint-*")):
        return "between checkpoints"
    return "before the first checkpoint"


def random_kills(kills: int, chance: random.Random, scratch: Path) -> Counter[str]:
    """Kill runs at random moments until there were so many kills; how many hit where."""
    expected, seconds = uninterrupted(scratch)
    moments: Counter[str] = Counter()
    while moments.total() < kills:
        directory = Path(tempfile.mkdtemp(dir=scratch))
        killed = True
        while killed:
            child = train(directory, chance.choice([1, 2, 3]))
            if moments.total() < kills:
                time.sleep(chance.uniform(0, seconds))
                os.kill(child, signal.SIGKILL)
            killed = was_killed(child)
            if killed:
                moments[moment(directory / "out")] += 1
                check_checkpoints(directory / "out")
        check_finished(directory / "out", expected)
        shutil.rmtree(directory)
    return moments


def random_interrupts(interrupts: int, chance: random.Random, scratch: Path) -> Counter[str]:
    """Interrupt runs before random calls of functions until there were so many interrupts; how many hit where."""
    first = Path(tempfile.mkdtemp(dir=scratch))
    if was_killed(train_interrupted(first)):
        raise AssertionError("terminated by somebody else")
    expected, calls = result(first / "out"), int((first / "calls").read_text())
    moments: Counter[str] = Counter()
    while moments.total() < interrupts:
        directory, step = Path(tempfile.mkdtemp(dir=scratch)), 0
        killed = True
        while killed:
            at = chance.randrange(1, calls) if moments.total() < interrupts else None
            killed = was_killed(train_interrupted(directory, chance.choice([1, 2, 3]), at=at))
            if killed:
                moments[moment(directory / "out")] += 1
                check_checkpoints(directory / "out")
                former, step = step, newest_step(directory / "out")
                if step < former or any((directory / "out").glob(".partial-*")):
                    raise AssertionError(f"{directory}: of step {former} an interrupt has left {step}, or half of one")
        check_finished(directory / "out", expected)
        shutil.rmtree(directory)
    return moments


def newest_step(out: Path) -> int:
    return max((int(path.name.removeprefix("checkpoint-")) for path in out.glob("checkpoint-*")), default=0)


def kill_before_each_operation(scratch: Path, every: int = 1) -> Counter[str]:
    """Kill a run before its nth file operation, for n = 1, 1 + every, ... until it has no more; how many hit where."""
    expected, _ = uninterrupted(scratch)
    moments: Counter[str] = Counter()
    operation = 1
    while True:
        directory = Path(tempfile.mkdtemp(dir=scratch))
        if not was_killed(train(directory, killed_before=operation)):
            return moments
        moments[moment(directory / "out")] += 1
        check_checkpoints(directory / "out")
        if was_killed(train(directory)):
            raise AssertionError("killed by somebody else")
        check_finished(directory / "out", expected)
        shutil.rmtree(directory)
        operation += every


def kill_before(directory: Path, operation: int) -> None:
    """End this process before its nth operation on a file below `directory`."""
    left = operation

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in FILE_OPERATIONS and str(arguments[0]).startswith(str(directory)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def uninterrupted(scratch: Path) -> tuple[dict[str, object], float]:
    """Return the result of an undisturbed run, and the seconds it takes."""
    directory = Path(tempfile.mkdtemp(dir=scratch))
    started = time.monotonic()
    if was_killed(train(directory)):
        raise AssertionError("killed by somebody else")
    return result(directory / "out"), time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0, help="kills at random moments")
    parser.add_argument("--interrupts", type=int, default=0, help="interrupts by SIGTERM at random moments")
    parser.add_argument("--file-operations", action="store_true", help="a kill before every operation on a file")
    parser.add_argument("--every", type=int, default=1, help="before every so-manieth operation only")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (which depend on the machine too)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.kills:
            report("at random moments", random_kills(options.kills, random.Random(options.seed), Path(scratch)))
        if options.interrupts:
            chance = random.Random(options.seed)
            report("by SIGTERM", random_interrupts(options.interrupts, chance, Path(scratch)))
        if options.file_operations:
            report("before file operations", kill_before_each_operation(Path(scratch), options.every))


def report(title: str, moments: Counter[str]) -> None:
    print(f"{moments.total()} kills {title}; every resumed run equals the uninterrupted one, bit for bit")
    for where, count in moments.most_common():
        print(f"  {count:5} {where}")


if __name__ == "__main__":
    main()
