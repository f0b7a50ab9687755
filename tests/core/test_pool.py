"""Threads around the core and inside it: two users of one model, models side by side, processes made by fork."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.bert_cases import SMALL, batch_of, gradient, random_dlogits, random_rows, wide_config, wide_model

from kdistill import _core
from kdistill.data.batch import Batch
from kdistill.losses.labels import cross_entropy
from kdistill.models.classes import BertForMaskedLM, BertForSequenceClassification
from kdistill.models.parameters import TensorViews
from kdistill.system.threads import get_num_threads, set_num_threads
from kdistill.train.optim import AdamW, clip_grad_norm_

# Python warns of fork in a process with threads: exactly what is to work here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
PATIENCE = 60.0  # seconds until a child counts as hung


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = get_num_threads()
    set_num_threads(3)
    yield
    set_num_threads(before)


def case(seed: int = 7, rows: int = 40) -> tuple[BertForSequenceClassification, Batch, NDArray[np.float32]]:
    model = wide_model(**SMALL, seed=seed, hidden_dropout_prob=0.1)
    return model, batch_of(*random_rows([40, 3, 17, 1] * (rows // 4), model.config, seed)), random_dlogits(model, rows)


def run_threads(*work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_one_model_in_two_threads_is_an_error_and_no_harm() -> None:
    model, batch, _ = case(rows=800)
    expected = model.forward(batch)
    refusals: list[str] = []
    wrong: list[NDArray[np.float32]] = []

    def use() -> None:
        for _ in range(1000):
            try:
                logits = model.forward(batch)
            except RuntimeError as error:
                refusals.append(str(error))
            else:
                if not np.array_equal(logits, expected):
                    wrong.append(logits)
            if refusals:
                return

    run_threads(use, use)
    assert not wrong
    assert refusals, "two threads never met in 1000 passes each"
    assert set(refusals) == {"this model is in use by another thread; give each thread its own model"}
    np.testing.assert_array_equal(model.forward(batch), expected)


def test_two_models_in_two_threads_give_what_they_give_alone() -> None:
    cases = [case(seed) for seed in (7, 8)]
    expected = [gradient(*each) for each in cases]
    found: list[list[NDArray[np.float32]]] = [[], []]

    def use(index: int) -> Callable[[], None]:
        return lambda: found[index].extend(gradient(*cases[index]) for _ in range(20))

    run_threads(use(0), use(1))
    for index in (0, 1):
        assert len(found[index]) == 20
        for result in found[index]:
            np.testing.assert_array_equal(result, expected[index])


def test_members_that_have_slept_through_a_long_item_take_part_again() -> None:
    model = wide_model(**SMALL, seed=7, max_position_embeddings=512)
    lengths = [512, 1, 2, 3]  # one item of the first loop takes long, the others end while it runs
    batch, dlogits = batch_of(*random_rows(lengths, model.config, 7)), random_dlogits(model, len(lengths))
    set_num_threads(1)
    expected = gradient(model, batch, dlogits)
    set_num_threads(8)
    for _ in range(50):
        np.testing.assert_array_equal(gradient(model, batch, dlogits), expected)


def answer(model: BertForSequenceClassification, batch: Batch, dlogits: NDArray[np.float32], pipe: Connection) -> None:
    """The child's work; it must be able to fork in its turn."""
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0)
    os.waitpid(grandchild, 0)
    pipe.send_bytes(gradient(model, batch, dlogits).tobytes())


def forked_gradient(model: BertForSequenceClassification, batch: Batch, dlogits: NDArray[np.float32]) -> bytes:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=answer, args=(model, batch, dlogits, theirs))
    child.start()
    theirs.close()
    try:
        assert ours.poll(PATIENCE), "the forked process hangs"
        return ours.recv_bytes()
    finally:
        child.kill()
        child.join()


def test_a_forked_process_works_and_so_does_its_parent() -> None:
    model, batch, dlogits = case()
    expected = gradient(model, batch, dlogits)
    assert forked_gradient(model, batch, dlogits) == expected.tobytes()
    np.testing.assert_array_equal(gradient(model, batch, dlogits), expected)


def test_fork_waits_for_passes_of_other_threads() -> None:
    model, batch, dlogits = case()
    expected = gradient(model, batch, dlogits).tobytes()
    other, other_batch, other_dlogits = case(seed=8, rows=200)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            gradient(other, other_batch, other_dlogits)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        results = [forked_gradient(model, batch, dlogits) for _ in range(4)]
    finally:
        done.set()
        thread.join(PATIENCE)
    assert results == [expected] * 4


def answer_of_child(work: Callable[[], bytes]) -> bytes:
    """Return what a child that is forked here, wherever another thread or this one is in the core, makes of `work`."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writes, work())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_a_child_that_is_forked_during_a_step_has_the_whole_step() -> None:
    """Its parameters have moved, so the step is counted, and products have the weights of after it."""
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 4096, "num_hidden_layers": 4}
    model = wide_model(**sizes)
    optimizer = AdamW(model)
    model.forward([[1, 2, 3]], train=True)
    model.backward(random_dlogits(model, 1))
    optimizer.step()
    model.forward([[1, 2, 3]])  # packs the weights
    early = TensorViews(model.flat_parameters, model.layout)["bert.embeddings.position_embeddings.weight"]
    before = early[0, 0]

    def look() -> bytes:
        logits = model.forward([[1, 2, 3]])
        model.release()
        same = np.array_equal(model.forward([[1, 2, 3]]), logits)
        return bytes([optimizer.steps_done, same])

    thread = threading.Thread(target=optimizer.step)
    thread.start()
    while early[0, 0] == before and thread.is_alive():
        pass
    answer = answer_of_child(look)
    thread.join(PATIENCE)
    assert answer == bytes([2, True])


def test_a_child_that_is_forked_while_a_tensor_is_packed_has_all_of_it() -> None:
    """The packed weights are its only copy, so it could not pack them again."""
    sizes = {"hidden_size": 1024, "num_attention_heads": 8, "intermediate_size": 8192, "num_hidden_layers": 1}
    model = wide_model(**sizes)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    index = [tensor.name for tensor in model.layout].index(name)
    values = TensorViews(model.flat_parameters, model.layout)[name].copy()
    core = model.freeze().core
    expected = model.forward([[1, 2, 3]]).tobytes()
    core.pack(index, np.zeros_like(values))
    assert model.forward([[1, 2, 3]]).tobytes() != expected
    thread = threading.Thread(target=core.pack, args=(index, values))
    thread.start()
    try:
        while thread.is_alive():
            core.release()
    except RuntimeError:  # it is in use
        pass
    answer = answer_of_child(lambda: model.forward([[1, 2, 3]]).tobytes())
    thread.join(PATIENCE)
    assert answer == expected


LOADED_TWICE = """
import os, sys
from kdistill import _core
for name in [name for name in sys.modules if name.startswith("kdistill")]:
    del sys.modules[name]
from kdistill import _core as again
assert again is not _core
child = os.fork()
if child == 0:
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_fork_after_the_module_was_loaded_twice() -> None:
    """Each load would register the fork handlers again, which then would wait for themselves."""
    done = subprocess.run([sys.executable, "-c", LOADED_TWICE], timeout=60, check=False)
    assert done.returncode == 7


def test_many_more_threads_than_cpus_and_than_work() -> None:
    model, batch, dlogits = case(rows=4)
    expected = gradient(model, batch, dlogits)
    set_num_threads(100)
    np.testing.assert_array_equal(gradient(model, batch, dlogits), expected)


@contextmanager
def on_every_tick(handler: Callable[[], None]) -> Iterator[None]:
    """Call `handler` each time the core looks for signals, which are sent every 5 ms of work, until it raises."""

    ended = False

    def tick(_: int, frame: FrameType | None) -> None:
        nonlocal ended
        if ended:  # a tick that came before the timer was off
            return
        if frame is None or frame.f_globals["__name__"].partition(".")[0] not in ("kdistill", __name__):
            return  # in Python's library, which may just have opened a file and would leave it to the collector
        try:
            handler()
        except BaseException:
            ended = True
            signal.setitimer(signal.ITIMER_PROF, 0)  # another would hit whoever catches this one
            signal.signal(signal.SIGPROF, signal.SIG_IGN)
            raise

    before = signal.signal(signal.SIGPROF, tick)
    try:
        signal.setitimer(signal.ITIMER_PROF, 0.005, 0.005)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def long_case() -> tuple[BertForSequenceClassification, Batch, NDArray[np.float32]]:
    """Passes of several times what is done without a look at signals."""
    model = wide_model(hidden_size=512, num_attention_heads=8, intermediate_size=2048, num_hidden_layers=2)
    batch = batch_of(*random_rows([40] * 100, model.config))
    set_num_threads(1)
    return model, batch, random_dlogits(model, 100)


def interrupt() -> None:
    raise InterruptedError


def test_a_signal_is_answered_in_the_middle_of_a_pass() -> None:
    """The pass ends early: what backward needs is not there, and the next pass is whole again."""
    model, batch, dlogits = long_case()
    small = model.forward([[1, 2, 3]])
    with on_every_tick(interrupt), pytest.raises(InterruptedError):
        model.forward(batch, train=True)
    assert model.tokens_in_step == 0
    with pytest.raises(RuntimeError, match="without a forward pass"):
        model.backward(dlogits)
    assert not model.flat_gradients.any()
    np.testing.assert_array_equal(model.forward([[1, 2, 3]]), small)


@pytest.mark.parametrize("pick_all", [True, False], ids=["all rows", "picked rows"])
def test_a_signal_is_answered_in_the_middle_of_the_attention_of_a_narrow_model(pick_all: bool) -> None:
    """Its products are few: nearly all that it does is attention."""
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 16, "num_hidden_layers": 2}
    model = wide_model(**sizes, max_position_embeddings=2048)
    batch = batch_of(*random_rows([2048] * 16, model.config))
    set_num_threads(1)
    with on_every_tick(after_the_second_tick()), pytest.raises(InterruptedError):
        model.forward(batch, **({"taps": [("hidden", 2)]} if pick_all else {}))


def test_a_signal_is_answered_while_gradients_are_added_up() -> None:
    """Gradients added before are given up too: all are zero, and the next effective batch is whole."""
    model, batch, dlogits = long_case()
    model.forward(batch, train=True)
    half_added: list[bool] = []

    def interrupt_late() -> None:
        if model.flat_gradients.any():
            half_added.append(True)
            raise InterruptedError

    with on_every_tick(interrupt_late), pytest.raises(InterruptedError):
        model.backward(dlogits)
    assert half_added
    assert not model.flat_gradients.any()
    model.zero_grad()
    model.forward([[1, 2, 3], [4]], train=True)
    model.backward(dlogits[:2])
    other, _, _ = long_case()
    other.forward([[1, 2, 3], [4]], train=True)
    other.backward(dlogits[:2])
    np.testing.assert_array_equal(model.flat_gradients, other.flat_gradients)
    assert clip_grad_norm_(model, 1.0) == clip_grad_norm_(other, 1.0)


def after_the_second_tick() -> Callable[[], None]:
    """A handler that interrupts the second time that it is called, or in the middle of that a third time.

    A call into the core that answers no signal on its way is followed by one tick, whenever the others came.
    """
    ticks = itertools.count()

    def interrupt_second() -> None:
        if next(ticks) >= 1:
            raise InterruptedError

    return interrupt_second


def test_a_signal_is_answered_while_weights_are_packed() -> None:
    sizes = {"hidden_size": 1024, "num_attention_heads": 8, "intermediate_size": 4096, "num_hidden_layers": 12}
    model = wide_model(**sizes)
    set_num_threads(1)
    # One token: packing is all there is to do, into memory that is new, which takes longest.
    with on_every_tick(after_the_second_tick()), pytest.raises(InterruptedError):
        model.forward([[1]])
    logits = model.forward([[1]])
    model.release()
    np.testing.assert_array_equal(model.forward([[1]]), logits)  # packed in one go


def in_children(work: Callable[[], bytes], answers: list[bytes], most: int = 2) -> Callable[[], None]:
    """A handler that forks a child where a call is between two slices, and keeps what the child makes of `work`."""

    begun = itertools.count()  # a tick may come while a child answers

    def fork() -> None:
        if next(begun) < most:
            answers.append(answer_of_child(work))

    return fork


def test_a_child_that_is_forked_while_weights_are_packed_packs_them_again() -> None:
    sizes = {"hidden_size": 1024, "num_attention_heads": 8, "intermediate_size": 4096, "num_hidden_layers": 2}
    model = wide_model(**sizes)
    set_num_threads(1)
    expected = model.forward([[1]])
    model.release()
    answers: list[bytes] = []
    with on_every_tick(in_children(lambda: model.forward([[1]]).tobytes(), answers)):
        found = model.forward([[1]])
    assert answers
    assert set(answers) == {expected.tobytes()}
    np.testing.assert_array_equal(found, expected)


def test_a_child_that_is_forked_while_gradients_are_added_up_has_none_of_them() -> None:
    """It would never get the rest; its own next ones are whole, and so are its parent's."""
    model, _, dlogits = long_case()
    batch, dlogits = batch_of(*random_rows([40] * 50, model.config)), dlogits[:50]
    expected = gradient(model, batch, dlogits)
    small = gradient(model, *(few := (batch_of(*random_rows([3, 1], model.config)), dlogits[:2])))
    model.zero_grad()
    model.forward(batch, train=True)

    def work() -> bytes:
        norm = clip_grad_norm_(model, 1.0)
        return bytes([norm == 0, np.array_equal(gradient(model, *few), small)])

    answers: list[bytes] = []
    fork = in_children(work, answers, most=1)
    with on_every_tick(lambda: fork() if model.flat_gradients.any() else None):
        model.backward(dlogits)
    assert answers == [bytes([True, True])]
    np.testing.assert_array_equal(model.flat_gradients, expected)


def test_a_signal_is_answered_while_rows_catch_up() -> None:
    """The rows that had no turn are still behind, and end with the same bits."""
    set_num_threads(1)
    models = [wide_model(**SMALL | {"hidden_size": 256, "vocab_size": 4000, "num_hidden_layers": 1}) for _ in range(2)]
    optimizers = [AdamW(model, weight_decay=0.1) for model in models]
    words = batch_of(*random_rows([40] * 400, models[0].config))
    for model, optimizer in zip(models, optimizers, strict=True):
        gradient(model, words, random_dlogits(model, 400))
        for _ in range(600):
            optimizer.step()
            optimizer.zero_grad()
    with on_every_tick(after_the_second_tick()), pytest.raises(InterruptedError):
        optimizers[0].catch_up()
    np.testing.assert_array_equal(models[0].flat_parameters, models[1].flat_parameters)
    states = [optimizer.state_dict() for optimizer in optimizers]
    for name in ("step", "m", "v"):
        np.testing.assert_array_equal(states[0][name], states[1][name])


def long_loss() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits and labels of a loss that one thread computes in several slices."""
    set_num_threads(1)
    return np.random.default_rng(0).standard_normal((3000, 3000)).astype(np.float32), np.zeros(3000, np.int64)


def test_a_signal_is_answered_in_the_middle_of_a_loss() -> None:
    z, y = long_loss()
    with on_every_tick(after_the_second_tick()), pytest.raises(InterruptedError):
        cross_entropy(z, y)
    expected = np.log(np.exp(z.astype(np.float64)).sum(axis=1)) - z[:, 0]
    assert cross_entropy(z, y)[0] == pytest.approx(expected.mean(), rel=1e-12)  # the roundings of 3000 sums and terms


def words_case(**sizes: int) -> tuple[BertForMaskedLM, Batch, NDArray[np.int64]]:
    """A language model of one layer, rows of 40 words, and each as its own label."""
    set_num_threads(1)
    model = BertForMaskedLM(wide_config(num_hidden_layers=1, num_attention_heads=2, vocab_size=31000, **sizes))
    batch = batch_of(*random_rows([40] * 40, model.config))
    return model, batch, batch.ids.astype(np.int64)


def test_a_signal_is_answered_between_the_small_blocks_of_a_language_models_loss() -> None:
    model, batch, labels = words_case(hidden_size=32, intermediate_size=32)
    computed = model.masked_pass(batch, labels)
    with on_every_tick(after_the_second_tick()), pytest.raises(InterruptedError):
        computed.loss()


def test_an_interrupted_loss_that_has_added_nothing_leaves_gradients_of_before() -> None:
    model, batch, labels = words_case(hidden_size=512, intermediate_size=32)  # a block's logits take several slices
    model.masked_loss([[1, 2, 3]], np.array([4, 5, 6]), train=True)
    before = model.flat_gradients.copy()
    assert before.any()
    computed = model.masked_pass(batch, labels, train=True)
    with on_every_tick(interrupt), pytest.raises(InterruptedError):
        computed.loss()
    np.testing.assert_array_equal(model.flat_gradients, before)


def long_match() -> Callable[[], Any]:
    """A loss on rows behind a projection, in several slices."""
    student, teacher = np.random.default_rng(0).standard_normal((2, 4000, 1024)).astype(np.float32)
    return partial(_core.match_rows, "mse", student, teacher, np.eye(1024, dtype=np.float32), 1)


def long_relation() -> Callable[[], Any]:
    """A loss on relations of long sequences, in several slices."""
    student, teacher = np.random.default_rng(0).standard_normal((2, 8000, 256)).astype(np.float32)
    return partial(_core.match_relation, "kl", student, teacher, np.arange(5) * 2000, 8, 1)


@pytest.mark.parametrize("make", [long_match, long_relation])
def test_a_signal_is_answered_in_the_middle_of_a_loss_on_taps(make: Callable[[], Callable[[], Any]]) -> None:
    call = make()
    with on_every_tick(after_the_second_tick()), pytest.raises(InterruptedError):
        call()


def test_another_thread_runs_during_a_loss() -> None:
    """Python asks no thread to give up the lock here: one that waits for it runs only if the core lets go of it."""
    z, y = long_loss()
    z, y = z[:300], y[:300]
    turns = [0]
    let_go: list[bool] = []

    def compute() -> None:
        while len(let_go) < 100 and not any(let_go):  # a busy machine may not wake the other thread the first time
            before = turns[0]
            _core.loss(_core.LOSS_SINGLE_LABEL, z, None, y, 1.0, 1.0, 0.0, 1)  # nothing of NumPy's, which lets go too
            let_go.append(turns[0] > before)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    try:
        thread = threading.Thread(target=compute)
        thread.start()
        while thread.is_alive():
            turns[0] += 1
            time.sleep(0)  # lets the other thread go on
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert any(let_go)
