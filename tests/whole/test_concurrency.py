"""Processes made in every way that multiprocessing knows, trainers in threads of one process, a second interpreter."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bert_cases import gradient
from support.resumable_run import result, run_python, trainer
from support.small_run import small_dataset, small_model

from kdistill.models.classes import BertForSequenceClassification
from kdistill.system.threads import get_num_threads, set_num_threads

# Python warns of fork in a process with threads: exactly what is to work here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:the teacher's accuracy"),
]
PATIENCE = 120.0  # seconds until a process or a thread counts as hung


def gradient_of(directory: str) -> bytes:
    """The gradient of a saved model on a fixed batch, with two threads."""
    set_num_threads(2)
    model = BertForSequenceClassification.from_pretrained(directory)
    batch, _ = small_dataset(60).batch(range(60))
    return gradient(model, batch, np.ones((60, 2), np.float32)).tobytes()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_process_of_each_kind_after_use(tmp_path: Path, method: Any) -> None:
    before = get_num_threads()
    small_model().save_pretrained(tmp_path)
    expected = gradient_of(str(tmp_path))
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["kdistill.models.classes"])
    with context.Pool(2) as pool:
        found = pool.map_async(gradient_of, [str(tmp_path)] * 4, chunksize=1).get(PATIENCE)
    assert found == [expected] * 4
    assert gradient_of(str(tmp_path)) == expected
    set_num_threads(before)


def test_trainers_in_threads_of_one_process(tmp_path: Path) -> None:
    """They share the pool, the teacher cache and nothing else."""
    outs = [tmp_path / name for name in ("alone", "one", "two", "three")]
    trainer(outs[0]).train()
    runs = [trainer(out) for out in outs[1:]]
    threads = [threading.Thread(target=run.train) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    for out in outs[1:]:
        assert result(out) == result(outs[0])


SECOND_INTERPRETER = """
try:
    import _interpreters as interpreters  # from Python 3.13 on
except ImportError:
    import _xxsubinterpreters as interpreters
import kdistill._core  # the first one has it
code = '''
try:
    import kdistill._core
except ImportError as error:
    print(error, flush=True)
'''
interpreters.run_string(interpreters.create(), code)
"""


def test_a_second_interpreter_is_refused() -> None:
    process = run_python(SECOND_INTERPRETER)
    # From Python 3.12 on, the import system says so before the module can.
    refusals = ("kdistill works in the main interpreter only", "does not support loading in subinterpreters")
    assert any(refusal in process.stdout for refusal in refusals), process.stdout + process.stderr
    assert process.returncode == 0, process.stderr
