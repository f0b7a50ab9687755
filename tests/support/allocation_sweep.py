"""The program that test_allocations.py runs under failing_malloc.c: `python allocation_sweep.py steps` or `pool`.

Prints how many failures were answered by an exception, and how many allocations there were.
"""

from __future__ import annotations

import ctypes
import math
import sys

import numpy as np
import pytest

from kdistill.losses.teacher import distillation_loss
from kdistill.metrics.prediction import Labels, Logits
from kdistill.system import memory
from kdistill.system.threads import set_num_threads
from kdistill.train.auxiliary import Auxiliary
from kdistill.train.loop import StepResult, training_step
from kdistill.train.objective import BatchLoss
from kdistill.train.optim import AdamW, clip_grad_norm_
from kdistill.train.plan import RowIndices
from support.small_run import small_dataset, small_model

shim = ctypes.CDLL(None)
shim.kd_fail.argtypes, shim.kd_fail.restype = [ctypes.c_long], ctypes.c_long
ROWS = 40
DATASET = small_dataset(ROWS)
TEACHER_LOGITS = np.ones((ROWS, 2), np.float32)


def failed() -> bool:
    """Let no more allocation fail; whether one has."""
    try:
        return bool(shim.kd_fail(0) == 0)
    except (MemoryError, ctypes.ArgumentError):
        return False  # it was one of this very call


def is_no_memory(error: Exception | None) -> bool:
    """Indexing by an array of indices fails in NumPy 2 without saying why."""
    return isinstance(error, MemoryError | None) or str(error) == "error return without exception set"


class Run:
    def __init__(self) -> None:
        self.model = small_model()
        self.auxiliary = Auxiliary({"a": np.ones((3, 4), np.float32)})
        self.optimizer = AdamW(self.model, lr=0.01, weight_decay=0.1, auxiliary=self.auxiliary)
        moments = np.zeros(self.model.num_flat, np.float32)
        # Late in a run, where the numbers of steps are objects that Python allocates.
        state = {"step": 1000, "m": moments, "v": moments, "auxiliary": self.auxiliary.state_dict()}
        self.optimizer.load_state_dict(state)
        self.model.optimizer_step = 1000

    def step(self, number: int) -> StepResult:
        return training_step(
            self.optimizer,
            DATASET,
            np.arange(number % 3, ROWS, 2),
            batch_size=16,
            max_grad_norm=1.0,
            loss=self.loss,
            on_event=lambda name: None,
        )

    def loss(self, logits: Logits, labels: Labels, rows: RowIndices) -> BatchLoss:
        gradients = self.auxiliary.flat_gradients
        gradients += np.float32(len(rows))
        return BatchLoss(*distillation_loss(logits, TEACHER_LOGITS[rows], labels), [])

    def state(self) -> tuple[list[bytes], int, int]:
        moments = self.optimizer.state_dict()
        arrays = (self.model.flat_parameters, moments["m"], moments["v"], *moments["auxiliary"].values())
        return [array.tobytes() for array in arrays], moments["step"], self.model.optimizer_step


def steps() -> tuple[int, int]:
    """The disturbed run does each step anew after the failure; its twin never knows."""
    set_num_threads(2)
    run, twin = Run(), Run()
    refused = number = 0
    reached = True
    while reached:
        number += 1
        before, expected, after = twin.state(), twin.step(number), twin.state()
        run.model.release()  # so that workspace and packed weights are allocated again
        found, error = None, None
        shim.kd_fail(number)
        try:
            found = run.step(number)
        except (MemoryError, SystemError) as caught:
            error = caught
        reached = failed()
        assert is_no_memory(error), error
        if found is None:
            refused += 1
            assert run.state() == before, f"allocation {number}: the model or its optimiser has changed"
            run.optimizer.zero_grad()
            found = run.step(number)
        assert found == expected, f"allocation {number}: {found} and not {expected}"
        assert run.state() == after, f"allocation {number}: the step came out differently"
    return refused, number


def pool() -> tuple[int, int]:
    """Each call wants one thread more than ever; then threads are refused."""
    run = Run()
    run.model.forward([[1, 2]], train=True)
    run.model.backward(np.ones((1, 2), np.float32))
    norm = clip_grad_norm_(run.model, math.inf)
    refused = number = 0
    reached = True
    while reached:
        number += 1
        set_num_threads(1 + number)
        shim.kd_fail(number)
        try:
            assert clip_grad_norm_(run.model, math.inf) == norm
        except (MemoryError, RuntimeError):  # the C library does not say why it cannot start a thread
            refused += 1
        reached = failed()
        assert clip_grad_norm_(run.model, math.inf) == norm
    set_num_threads(200)
    shim.kd_refuse_threads(1)
    with pytest.raises(RuntimeError, match="cannot start 200 threads: the operating system refused one"):
        clip_grad_norm_(run.model, math.inf)
    shim.kd_refuse_threads(0)
    assert clip_grad_norm_(run.model, math.inf) == norm
    return refused, number


if __name__ == "__main__":
    memory.available_memory = lambda: None  # it uses the standard library, which makes TypeErrors of some failures
    print(*{"steps": steps, "pool": pool}[sys.argv[1]]())
