"""Short runs that several processes train together: `mpirun -n N python -m support.mpi_run ACTION DIRECTORY ...`.

Six micro-batches make a step, in whatever way N processes share them; the last step of an epoch has four.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kdistill as kd
from kdistill.train.world import current_world
from support import resumable_run
from support.paths import TESTS
from support.small_questions import question_tokenizer
from support.small_run import run_fields, small_dataset, small_model
from support.small_texts import documents, language_model, text_fields

MICRO_BATCHES = 6
_OF_A_STEP = {"per_device_train_batch_size": 3, "save_strategy": "no", "eval_strategy": "no"}


def distilled(directory: Path, **changes: Any) -> kd.Trainer:
    return resumable_run.trainer(directory / "out", save_steps=2, enable_jit_checkpoint=True, **changes)


def finetuned(directory: Path, **changes: Any) -> kd.Trainer:
    """With an average of the parameters and the best weights of an evaluation of 7 batches."""
    own = {"per_device_train_batch_size": 3, "per_device_eval_batch_size": 3, "eval_strategy": "epoch"}
    args = kd.TrainingArguments(**run_fields(directory, own | {"ema_decay": 0.9} | changes))
    rows = {"train_dataset": small_dataset(29), "eval_dataset": small_dataset(20, seed=1)}
    return kd.Trainer(small_model(2), args, **rows)


def matched(directory: Path, **changes: Any) -> kd.Trainer:
    """With projections, which are trained beside the model."""
    own = {"matches": [kd.Match("hidden"), kd.Match("attention")], "teacher_dtype": "float32"}
    args = kd.DistillationTrainingArguments(**run_fields(directory, _OF_A_STEP | own | changes))
    teacher = small_model(9, num_hidden_layers=3, hidden_size=24)
    return kd.DistillationTrainer(small_model(2), args, teacher_model=teacher, train_dataset=small_dataset(29))


def language(directory: Path, **changes: Any) -> kd.Trainer:
    """With word embeddings that are the last product's weights, too."""
    fields = text_fields(directory, **_OF_A_STEP, **changes)
    own = directory / f"tokenizer-{current_world().rank}"
    own.mkdir(parents=True)
    tokenizer = question_tokenizer(own)
    args = kd.TrainingArguments(**fields)
    return kd.Trainer(language_model(), args, train_dataset=documents(29), processing_class=tokenizer)


def of_a_function(directory: Path, **changes: Any) -> kd.Trainer:
    """With a function as the teacher, whose answers depend on the others of a call; it notes how many rows it gets."""

    def answers(rows: list[dict[str, Any]]) -> list[list[float]]:
        with (directory / f"asked-{current_world().rank}").open("a") as file:
            print(len(rows), file=file)
        longest = max(len(row["input_ids"]) for row in rows)
        return [[sum(row["input_ids"]) / 16, longest / 4] for row in rows]

    directory.mkdir(parents=True, exist_ok=True)
    own = {"per_device_eval_batch_size": 4}
    args = kd.DistillationTrainingArguments(**run_fields(directory, _OF_A_STEP | own | changes))
    return kd.DistillationTrainer(small_model(2), args, teacher_model=answers, train_dataset=small_dataset(29))


class StopsRank0(kd.TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = args.process_index == 0 and state.global_step == 2


def stopped(directory: Path, **changes: Any) -> kd.Trainer:
    """With a callback that decides for all because it is that of rank 0."""
    trainer = finetuned(directory, **changes)
    trainer.add_callback(StopsRank0)
    return trainer


CASES: dict[str, Callable[..., kd.Trainer]] = {
    "distilled": distilled,
    "finetuned": finetuned,
    "matched": matched,
    "language": language,
    "stopped": stopped,
    "of_a_function": of_a_function,
}


class At(kd.TrainerCallback):
    """Does something on one rank after a step."""

    def __init__(self, rank: int, step: int, do: Callable[[], object]) -> None:
        self._rank, self._step, self._do = rank, step, do

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.process_index == self._rank and state.global_step == self._step:
            self._do()


def _fail() -> None:
    raise ValueError("this rank had enough")


DISTURBANCES: dict[str, Callable[[], object]] = {
    "undisturbed": lambda: None,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "failed": _fail,
    "interrupted": lambda: os.kill(os.getpid(), signal.SIGINT),
}


def mpirun() -> str | None:
    """Return the launcher that came with this Python, else the system's; None without one."""
    return shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


HOSTS = ("10.77.0.1", "10.77.0.2")


@contextmanager
def two_networks() -> Iterator[list[str]]:
    """Yield the names of two network namespaces with the addresses `HOSTS`, which a cable joins.

    Raises OSError or CalledProcessError where nobody may make them.
    """
    names = [f"kdistill-{os.getpid()}-{which}" for which in "ab"]

    def ip(*words: str) -> str:
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout

    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", names[1])
        for name, address in zip(names, HOSTS, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
            ip("-n", name, "link", "set", "lo", "up")
        until = time.monotonic() + 30  # the kernel takes a moment to call a link up, and MPI takes no other
        while not all("state UP" in ip("-n", name, "link", "show", "wire") for name in names):
            assert time.monotonic() < until
            time.sleep(0.01)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@contextmanager
def two_hosts(directory: Path) -> Iterator[list[str]]:
    """Yield the words before those of MPICH's launcher that spread two processes over `two_networks`, by TCP."""
    with two_networks() as names:
        shell = directory / "shell"  # what the launcher takes for ssh: HOST COMMAND ...
        shell.write_text(
            "#!/bin/sh\nwhile [ $1 != ${1#-} ]; do shift; done\n"
            f"case $1 in {HOSTS[0]}) host={names[0]};; *) host={names[1]};; esac\n"
            'shift; exec ip netns exec $host sh -c "$*"\n'
        )
        shell.chmod(0o755)
        launcher = mpirun()
        assert launcher is not None
        yield [
            *("ip", "netns", "exec", names[0], launcher, "-launcher", "ssh", "-launcher-exec", str(shell)),
            *("-iface", "wire", "-hosts", ",".join(HOSTS), "-ppn", "1"),
            *("-genv", "MPIR_CVAR_NOLOCAL", "1", "-genv", "UCX_TLS", "tcp", "-genv", "UCX_NET_DEVICES", "wire"),
        ]


def command(processes: int, *words: str) -> tuple[list[str], dict[str, str]]:
    """Return the words and the environment with which several processes run this Python, `words` behind its name."""
    launcher = mpirun()
    assert launcher is not None
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "KDISTILL_NUM_THREADS": "1",
        # Open MPI counts cores, and refuses the user of containers.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    return [launcher, "-n", str(processes), sys.executable, "-P", *words], environment


def is_of_mpich() -> bool:
    """Return whether the launcher is MPICH's. That of Open MPI does not show what its processes say after Ctrl-C."""
    launcher = mpirun()
    assert launcher is not None
    return "HYDRA" in subprocess.run([launcher, "--version"], capture_output=True, text=True, check=False).stdout


def started(processes: int, *words: str, by: Sequence[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `words` in several processes, by another launcher than `mpirun` if one is given; return how that ended."""
    line, environment = command(processes, *words)
    line = line if by is None else [*by, *line[1:]]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)


def main(directory: Path, names: list[str], processes: int, disturbance: str, *more: str) -> None:
    """Train each of the cases in a directory of its own, and disturb the last rank after the third step."""
    for name in names:
        changes = {"gradient_accumulation_steps": MICRO_BATCHES // processes}
        trainer = CASES[name](directory / name, **changes)
        trainer.add_callback(At(processes - 1, 3, DISTURBANCES[disturbance]))
        trainer.train(resume_from_checkpoint="resume" in more)
        trainer.save_state()
        with trainer.args.main_process_first():
            told = (trainer.state.global_step, trainer.results["train_loss"], trainer.model.weights_digest()[:8])
        if current_world().size > 1:
            assert len({*current_world().gather(told)}) == 1  # all have the end
        if current_world().size > 1 and trainer.is_world_process_zero():
            print(name, *told, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]), *sys.argv[4:])
