"""Long work takes no more memory than short work: 10,000 steps, 300 trainers, in a process of their own each."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.resumable_run import run_python

STEPS = """
import numpy as np
from support.small_run import small_dataset, small_model
from kdistill.losses.labels import cross_entropy
from kdistill.train.loop import training_step
from kdistill.train.objective import BatchLoss
from kdistill.train.optim import AdamW
from test_growth import resident_bytes

model, dataset = small_model(), small_dataset(64)
optimizer = AdamW(model, lr=1e-4)

def steps(n):
    for step in range(n):
        rows = np.arange(step % 7, 64, 9)
        training_step(optimizer, dataset, rows, batch_size=8, max_grad_norm=1.0, on_event=lambda name: None,
                      loss=lambda logits, labels, rows: BatchLoss(*cross_entropy(logits, labels), []))

steps(500)
before = resident_bytes()
steps(10_000)
print(resident_bytes() - before)
"""

TRAINERS = """
import gc, tempfile, warnings
from pathlib import Path
from support.resumable_run import trainer
from test_growth import resident_bytes

warnings.simplefilter("ignore")

def trainers(n):
    for _ in range(n):
        with tempfile.TemporaryDirectory() as directory:
            unsaved = {"save_strategy": "no", "save_steps": None, "load_best_model_at_end": False}
            run = trainer(Path(directory, "out"), max_steps=2, **unsaved)
            run.train()
    del run
    gc.collect()

trainers(100)  # until the heap has found its size
objects, grown = len(gc.get_objects()), []
for _ in range(3):
    before = resident_bytes()
    trainers(100)
    grown.append(resident_bytes() - before)
print(min(grown))  # what is lost is lost each time, and the allocator's arenas come and go
assert len(gc.get_objects()) - objects < 100, "objects stay behind: each trainer leaves at least one"
"""


def resident_bytes() -> int:
    """Return the bytes that this process has in memory now (getrusage gives the peak only)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see a process's memory")
@pytest.mark.parametrize("work", [STEPS, TRAINERS], ids=["steps", "trainers"])
def test_nothing_grows(work: str) -> None:
    """A hundred lost models with gradients and moments would be 8 MB, a lost array in each of 10,000 steps as much.

    A few arenas of the allocator come and go, so of trainers the least that a hundred took counts.
    """
    process = run_python(work)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 2 << 20
