"""Arrays that others change while the core works: what it reads is a copy, made before it is checked.

Sizes that no memory holds are refused before any memory is asked for.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.bert_cases import wide_model
from support.encoder_cases import CLASSIFIER, ENCODER, Case

from kdistill import _core
from kdistill._core import testing
from kdistill.data.batch import pack
from kdistill.system.memory import workspace
from kdistill.train.optim import AdamW

FAR = 2**30  # an index that no table has


@contextmanager
def meanwhile(change: Callable[[], None]) -> Iterator[None]:
    """Have another thread do `change` again and again inside the block, as often as the lock lets it."""
    done = False

    def run() -> None:
        while not done:
            change()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done = True
        thread.join()
        sys.setswitchinterval(interval)


@contextmanager
def as_soon_as_the_lock_is_free(change: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Have another thread do `change` when the core first lets go of Python's lock after a call of what is yielded."""
    gate = threading.Lock()
    gate.acquire()

    def run() -> None:
        gate.acquire()  # and never released here: at the end the gate is opened for a thread that may be through it
        change()

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=run)
    sys.setswitchinterval(1000.0)  # before: a thread that waits for Python's lock with the usual one asks for it soon
    try:
        thread.start()
        yield gate.release
    finally:
        sys.setswitchinterval(interval)
        if gate.locked():
            gate.release()
        thread.join()


@pytest.mark.parametrize("name", ["ids", "types", "starts"])
def test_a_batch_that_changes_once_it_was_checked_is_not_read(name: str) -> None:
    """The core asks for a workspace after its checks; what is changed then counts for nothing."""
    case = Case(ENCODER, CLASSIFIER)
    expected = case.forward(train=True)
    batch = case.batch

    def changing(size: int, rows: int, tokens: int) -> NDArray[np.int8]:
        getattr(batch, name)[1:-1] = FAR
        return workspace(size, rows, tokens)

    gradients = np.zeros_like(case.gradients)
    core = _core.Model(ENCODER, CLASSIFIER, case.flat, gradients, changing)
    np.testing.assert_array_equal(core.forward(*batch, True, 5, 6, 7, 2), expected)
    core.backward(case.dlogits, 2)
    case.core.backward(case.dlogits, 2)
    np.testing.assert_array_equal(gradients, case.gradients)


@pytest.mark.parametrize("late", [False, True], ids=["", "words-move-late"])
def test_a_thread_that_refills_a_batch(late: bool) -> None:
    model = wide_model(hidden_size=192, num_attention_heads=4, intermediate_size=768)
    assert model.parameters["classifier.bias"].any()  # handed out: packed before each pass
    if late:
        model.forward([[1, 2]], train=True)
        model.backward(np.ones((1, 3), np.float32))
        AdamW(model).step()
    batch = pack([list(range(7)), list(range(31))])

    def refill() -> None:
        batch.ids[:] = FAR
        batch.ids[:] = 3

    expected = model.forward(batch)
    with as_soon_as_the_lock_is_free(lambda: batch.ids.fill(FAR)) as let:
        model.core.touch()  # packs first, without the lock
        let()
        logits = model.core.forward(*batch, False, 0, 0, 0, 1)
    np.testing.assert_array_equal(logits, expected)

    passed, messages = 0, set()
    with meanwhile(refill):
        for _ in range(100):
            try:
                assert np.isfinite(model.forward(batch)).all()
                passed += 1
            except ValueError as error:
                messages.add(str(error))
    assert passed
    assert all("the vocabulary has 31 entries" in message for message in messages)


def test_labels_and_logits_that_change_during_a_loss_are_not_read() -> None:
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((2, 40_000, 5)).astype(np.float32)  # a tenth of a second, without the lock
    y = rng.integers(0, 5, 40_000)
    arguments = (0.5, 2.0, 0.0, 2)
    expected = _core.loss(_core.LOSS_SINGLE_LABEL, z, t, y, *arguments)
    arrays = [array.copy() for array in (z, t, y)]

    def spoil() -> None:
        for array, value in zip(arrays, (np.nan, np.nan, FAR), strict=True):
            array[:] = value

    with as_soon_as_the_lock_is_free(spoil) as let:
        let()
        found = _core.loss(_core.LOSS_SINGLE_LABEL, *arrays, *arguments)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def match(loss: str, student: Any, teacher: Any, projection: Any) -> Any:
    """A loss on taps of rows, on as many scores in ten sequences, or on relations."""
    if loss == "scores":
        return _core.match_attention("kl", student.reshape(-1), teacher.reshape(-1), np.arange(11) * 400, 10, 2)
    if loss == "relations":
        return _core.match_relation("kl", student, teacher, np.arange(11) * 400, 4, 2)
    return _core.match_rows("mse", student, teacher, projection, 2)


@pytest.mark.parametrize(
    ("loss", "rows"), [("rows", 40_000), ("projected rows", 4000), ("scores", 40_000), ("relations", 4000)]
)
def test_taps_that_change_during_a_loss_on_them_are_not_read(loss: str, rows: int) -> None:
    """Each takes long enough for the other thread to wake up in it."""
    student, teacher = np.random.default_rng(0).standard_normal((2, rows, 400)).astype(np.float32)
    projection = np.eye(400, dtype=np.float32) if loss == "projected rows" else None
    arrays = [student, teacher, projection]
    expected = match(loss, *arrays)

    def spoil() -> None:
        for array in arrays:
            if array is not None:
                array[:] = np.nan

    with as_soon_as_the_lock_is_free(spoil) as let:
        let()
        found = match(loss, *arrays)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def test_gradients_of_taps_that_vanish_during_backward_are_not_read() -> None:
    taps = [("hidden", 0), ("hidden", 1), ("hidden", 2), ("scores", 1)]
    case = Case(ENCODER, CLASSIFIER, lengths=[40] * 100)
    dlogits = case.dlogits

    def gradients(spoiled: bool) -> NDArray[np.float32]:
        case.gradients[:] = 0
        _, arrays = case.forward(train=True, taps=taps)
        given = {tap: np.full_like(array, 0.01) for tap, array in arrays.items()}

        def spoil() -> None:
            for array in given.values():
                array[:] = np.nan
            given.clear()

        with as_soon_as_the_lock_is_free(spoil) as let:
            if spoiled:
                let()
            case.core.backward(dlogits, 1, given)
        return case.gradients.copy()

    np.testing.assert_array_equal(gradients(spoiled=True), gradients(spoiled=False))


def test_rows_are_taken_by_a_copy_of_their_indices() -> None:
    ids = np.arange(100_000, dtype=np.int32)
    starts = np.arange(0, 100_001, 10, dtype=np.int64)
    indices = np.arange(10_000, dtype=np.int64)

    def refill() -> None:
        np.copyto(indices, FAR)
        np.copyto(indices, 3)

    with meanwhile(refill):
        for _ in range(100):
            try:
                taken = _core.take_rows(ids, ids, starts, indices)
            except IndexError:
                continue
            assert (taken[0][:10] < 100_000).all()


@pytest.mark.parametrize("done", [-5, 2, 2**31 - 1])
def test_steps_done_that_the_history_does_not_have(done: int) -> None:
    case = Case(ENCODER, CLASSIFIER)
    case.forward(train=True)
    case.core.backward(case.dlogits, 2)
    word = case.ids[0][0]
    size, steps = case.flat.size, np.zeros(ENCODER["vocabulary"] + 1, np.int32)
    steps[word] = done
    history = np.zeros((4, _core.ADAMW_CONSTANTS), np.float32)
    state = (np.zeros(size, np.float32), np.zeros(size, np.float32), None, steps, history, 0, 1)
    before = case.flat.copy()
    with pytest.raises(ValueError, match=rf"done\[{word}\] is {done}; expected 0 to 0"):
        case.core.adamw_step(state, (1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0), 2)
    with pytest.raises(ValueError, match=rf"done\[{word}\] is {done}; expected 0 to 1"):
        case.core.catch_up(state, np.array([word], np.int32), 2)
    np.testing.assert_array_equal(case.flat, before)


@pytest.mark.parametrize(("base", "t"), [(1, -(2**63)), (2**62, 2**62 + 1), (-1, 1), (5, 4)])
def test_steps_that_are_no_numbers_of_steps(base: int, t: int) -> None:
    case = Case(ENCODER, CLASSIFIER)
    zeros = np.zeros(case.flat.size, np.float32)
    steps, history = np.zeros(ENCODER["vocabulary"] + 1, np.int32), np.zeros((4, _core.ADAMW_CONSTANTS), np.float32)
    with pytest.raises(ValueError, match="history does not hold the steps after base"):
        case.core.catch_up((zeros, zeros, None, steps, history, base, t), None, 1)


# ---- sizes


def empty(*shape: int) -> NDArray[np.float32]:
    return np.empty(shape, np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: testing.dots(empty(0, 5), empty(3), empty(2**60, 0), empty(2**60, 0)), "a is empty"),
        (
            lambda: testing.dots(empty(2, 3), empty(3), empty(3, 4), empty(2, 4)),
            "c has the wrong shape; expected 3 x 2",
        ),
        (lambda: testing.product(empty(0, 5), empty(2**60, 0), empty(0, 2**60), False), "a is empty"),
        (lambda: testing.pack_right(empty(2**60, 0), False), "b is empty"),
        (lambda: testing.pack_right(empty(0, 2**60), True), "b is empty"),
        (lambda: packed(right_rows=2**60), "right lacks some"),
        (lambda: packed(right_rows=2**63 - 1), "right lacks some"),
        (lambda: packed(first_row=2**63 - 1), "right lacks some"),
        (lambda: packed(first_column=2**63 - 1), "right lacks some"),
        (lambda: testing.norm_forward(empty(2**60, 0), empty(0), empty(0), 1e-12), "x is empty"),
        (lambda: testing.dropout(empty(2**60, 0), (0.5, 0, 0, 0, 0)), "x is empty"),
        (lambda: attention(features=2**62), "of all heads there can be 2^31"),
        (lambda: attention(features=-64), "of all heads there can be 2^31"),
    ],
)
def test_sizes_whose_products_no_number_holds(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def packed(right_rows: int = 8, first_row: int = 0, first_column: int = 0) -> None:
    right = testing.pack_right(np.ones((8, 4), np.float32), False)
    c, a = np.zeros((2, 4), np.float32), np.ones((2, 8), np.float32)
    testing.packed_product(c, a, right, right_rows, first_row, first_column, None, None, None)


def attention(features: int) -> None:
    x = np.ones((2, 8), np.float32)
    testing.attention_forward(x, x, x, 2, features, (0.0, 0, 0, 0, 0))


def test_a_pass_larger_than_any_memory_is_refused_before_memory_is_asked_for() -> None:
    """Wide outputs for many tokens: 2^28 of each of 2^18 rows, and room for 256 threads."""
    encoder = {**ENCODER, "hidden": 1, "head_width": 1, "layers": ((1, 1),), "positions": 2}
    head = {**CLASSIFIER, "outputs": 2**28, "dense": None}
    parameters = np.zeros(_core.layout(encoder, head)[0], np.float32)  # 2 GiB that nobody touches

    def asked(size: int, rows: int, tokens: int) -> NDArray[np.int8]:
        raise AssertionError

    core = _core.Model(encoder, head, parameters, None, asked)
    ids = np.zeros(2**18, np.int32)
    batch = (ids, ids, np.arange(2**18 + 1, dtype=np.int64))
    with pytest.raises(MemoryError, match="a pass of 262144 rows with 262144 tokens is larger than any memory"):
        core.forward(*batch, False, 0, 0, 0, 256)
