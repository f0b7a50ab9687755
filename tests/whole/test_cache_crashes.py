"""The teacher cache under kills and other writers, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from support.formula_teacher import (
    HEADER_BYTES,
    RECORD_BYTES,
    FormulaTeacher,
    check,
    keys_and_logits,
    make_dataset,
    open_cache,
)
from support.paths import TESTS

from kdistill.data.batch import Batch
from kdistill.distill import cache
from kdistill.distill.cache import teacher_logits

WORKING_DIRECTORY = Path(cache.__file__).parents[2]

# --- kills ----------------------------------------------------------------------------------------------------------


def test_cut_at_every_byte_of_header_and_record(tmp_path: Path) -> None:
    store = open_cache(tmp_path)
    store.append(*keys_and_logits(0, 3))
    content = store.path.read_bytes()
    assert len(content) == HEADER_BYTES + 3 * RECORD_BYTES
    for size in range(len(content) + 1):
        store.path.write_bytes(content[:size])
        whole = max(0, size - HEADER_BYTES) // RECORD_BYTES
        check(tmp_path, whole)
        open_cache(tmp_path).append(*keys_and_logits(whole, 4))
        check(tmp_path, whole + 4)
        assert store.path.stat().st_size == HEADER_BYTES + (whole + 4) * RECORD_BYTES


def test_a_reader_of_a_file_with_a_torn_end_sees_the_whole_records(tmp_path: Path) -> None:
    store = open_cache(tmp_path)
    store.append(*keys_and_logits(0, 3))
    os.truncate(store.path, HEADER_BYTES + 3 * RECORD_BYTES - 1)
    keys, logits = keys_and_logits(0, 3)
    found, stored = store.lookup(keys)
    assert found.tolist() == [True, True, False]
    np.testing.assert_array_equal(stored[:2], logits[:2])


def run_python(source: str, *arguments: object, stdin: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)],
        cwd=WORKING_DIRECTORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(WORKING_DIRECTORY), str(TESTS)])},
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
    )


DIES_WHILE_WRITING = """
    import os, pathlib, signal, sys
    from support import formula_teacher
    store = formula_teacher.open_cache(pathlib.Path(sys.argv[1]))
    write, left = os.write, int(sys.argv[2])
    def write_some_and_die(file, data):
        global left
        written = write(file, bytes(data[: min(left, 5)]))
        left -= written
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return written
    os.write = write_some_and_die
    store.append(*formula_teacher.keys_and_logits(3, 4))
"""


@pytest.mark.parametrize("written", [1, RECORD_BYTES - 1, RECORD_BYTES, 2 * RECORD_BYTES + 17])
def test_a_process_killed_while_it_appends(tmp_path: Path, written: int) -> None:
    open_cache(tmp_path).append(*keys_and_logits(0, 3))
    with run_python(DIES_WHILE_WRITING, tmp_path, written) as process:
        process.wait()
    assert process.returncode == -signal.SIGKILL
    store = open_cache(tmp_path)
    whole = 3 + written // RECORD_BYTES
    check(tmp_path, whole)
    store.append(*keys_and_logits(whole, 2))
    check(tmp_path, whole + 2)


KILLED_WHILE_COMPUTING = """
    import sys, time
    from support import formula_teacher
    from kdistill.distill.cache import teacher_logits
    class Slow(formula_teacher.FormulaTeacher):
        def forward(self, batch):
            if len(self.rows_computed) >= 50:
                print("computing", flush=True)
                time.sleep(600)
            return super().forward(batch)
    dataset = formula_teacher.make_dataset([[i, i + 1] for i in range(200)])
    teacher_logits(Slow(), dataset, cache_dir=sys.argv[1], batch_tokens=20)
"""


def test_a_killed_run_keeps_what_it_computed(tmp_path: Path) -> None:
    with run_python(KILLED_WHILE_COMPUTING, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        process.kill()
    teacher = FormulaTeacher()
    dataset = make_dataset([[i, i + 1] for i in range(200)])
    logits = teacher_logits(teacher, dataset, cache_dir=tmp_path)
    assert len(teacher.rows_computed) == 150
    np.testing.assert_array_equal(logits, teacher.forward(Batch(dataset.ids, dataset.types, dataset.starts)))


# --- other writers --------------------------------------------------------------------------------------------------

WRITES_IN_SHORT_PIECES = """
    import os, pathlib, sys
    from support import formula_teacher
    directory, first = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    write = os.write
    os.write = lambda file, data: write(file, bytes(data[:13]))
    print("ready", flush=True)
    sys.stdin.readline()
    for block in range(60):
        formula_teacher.open_cache(directory).append(*formula_teacher.keys_and_logits(first + 5 * block, 5))
"""


def test_two_processes_writing_at_once_and_a_reader(tmp_path: Path) -> None:
    """Each write reaches the file in pieces of 13 bytes, so that without the lock the records would mix."""
    go_read, go_write = os.pipe()
    writers = [run_python(WRITES_IN_SHORT_PIECES, tmp_path, first, stdin=go_read) for first in (0, 300)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    os.close(go_read)
    os.close(go_write)
    keys, logits = keys_and_logits(0, 600)
    reader = open_cache(tmp_path)
    while any(writer.poll() is None for writer in writers):
        found, stored = reader.lookup(keys)
        np.testing.assert_array_equal(stored[found], logits[found])
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    check(tmp_path, 600)
    assert reader.path.stat().st_size == HEADER_BYTES + 600 * RECORD_BYTES


def test_a_writer_waits_for_the_lock_and_notices_that_the_file_was_replaced(tmp_path: Path) -> None:
    store = open_cache(tmp_path)
    store.append(*keys_and_logits(0, 3))
    with store._locked():
        waiting = threading.Thread(target=store.append, args=keys_and_logits(0, 2))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        cache.clear(tmp_path)
    waiting.join()
    check(tmp_path, 2)
