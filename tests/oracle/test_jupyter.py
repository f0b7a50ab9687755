"""A real Jupyter kernel: interrupting a cell leaves the model usable and the run resumable."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paths import TESTS

manager = pytest.importorskip("jupyter_client.manager", reason="needs jupyter_client and ipykernel")
pytest.importorskip("ipykernel", reason="needs jupyter_client and ipykernel")

PATIENCE = 120.0  # seconds until a cell counts as hung
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Notebook:
    """Cells of one kernel, run one after the other."""

    def __init__(self, kernel: Any, client: Any) -> None:
        self._kernel, self._client = kernel, client

    def run(self, code: str, *, interrupt_at: str | None = None) -> tuple[str, str]:
        """Return the output of a cell, and the name of its error or ""; interrupt it when it has printed that word."""
        printed: list[str] = []

        def see(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
                if interrupt_at is not None and interrupt_at in printed[-1]:
                    self._kernel.interrupt_kernel()

        reply = self._client.execute_interactive(code, output_hook=see, timeout=PATIENCE)
        return "".join(printed), reply["content"].get("ename", "")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "KDISTILL_CACHE": str(tmp_path_factory.mktemp("cache")),
    }
    kernel, client = manager.start_new_kernel(kernel_name="python3", env=environment, startup_timeout=PATIENCE)
    try:
        yield Notebook(kernel, client)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


SETUP = """
import numpy as np
from support.bert_cases import batch_of, gradient, random_dlogits, random_rows, wide_model
from kdistill.train.optim import AdamW

model, other = (wide_model(hidden_size=256, num_attention_heads=4, intermediate_size=1024) for _ in range(2))
batch, small = batch_of(*random_rows([40] * 60, model.config)), batch_of(*random_rows([3, 40], model.config))
"""

# The steps change nothing (lr = 0), so that the model can be compared with its twin whenever the interrupt comes.
ENDLESS = """
optimizer = AdamW(model, lr=0.0)
while True:
    model.forward(batch, train=True)
    model.backward(random_dlogits(model, 60))
    optimizer.step()
    optimizer.zero_grad()
    print("step", flush=True)
"""

COMPARE = """
assert optimizer.state_dict()["step"] == model.optimizer_step > 0
model.zero_grad()
model.optimizer_step = 0
assert np.array_equal(model.forward(small), other.forward(small))
dlogits = random_dlogits(model, 2)
assert np.array_equal(gradient(model, small, dlogits), gradient(other, small, dlogits))
print("equal")
"""


def test_interrupting_a_training_loop(notebook: Notebook) -> None:
    assert notebook.run(SETUP) == ("", "")
    for _ in range(3):
        _, error = notebook.run(ENDLESS, interrupt_at="step")
        assert error == "KeyboardInterrupt"
        assert notebook.run(COMPARE) == ("equal\n", "")


TRAINER = """
import time, warnings
from pathlib import Path
from support.resumable_run import result, trainer
from kdistill.train.callbacks import TrainerCallback

warnings.simplefilter("ignore")

class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 9:
            print("step 9", flush=True)
            time.sleep(60)

run = trainer(Path({out!r}), callbacks=[Slow()])
run.train()
"""

RESUMED = """
run.remove_callback(Slow)
run.train(resume_from_checkpoint=True)
trainer(Path({alone!r})).train()
assert result(Path({out!r})) == result(Path({alone!r}))
print("equal")
"""


def test_interrupting_a_trainer(notebook: Notebook, tmp_path: Path) -> None:
    """The same trainer goes on from its checkpoint and ends with the bits of a run that was never interrupted."""
    names = {"out": str(tmp_path / "out"), "alone": str(tmp_path / "alone")}
    printed, error = notebook.run(TRAINER.format(**names), interrupt_at="step 9")
    assert (printed, error) == ("step 9\n", "KeyboardInterrupt")
    assert notebook.run(RESUMED.format(**names)) == ("equal\n", "")
