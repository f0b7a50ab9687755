"""Rows of the word embeddings that move late against AdamW that moves everything in every step."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from support.encoder_cases import CLASSIFIER, ENCODER, Case
from support.paths import ROOT

import kdistill as kd
from kdistill import _core

EXAMPLES = ROOT / "examples" / "SST-2"
VOCABULARY = 300
LR = 1e-3


class DenseAdamW:
    """Every parameter in every step, through the core's AdamW on plain arrays (which test_optim checks)."""

    def __init__(self, model: kd.BertForSequenceClassification, weight_decay: float) -> None:
        self.layout = model.layout
        self.weight_decay = weight_decay
        self.p = model.flat_parameters.copy()
        self.m, self.v = np.zeros_like(self.p), np.zeros_like(self.p)
        self.t = 0

    def step(self, gradients: NDArray[np.float32], lr: float) -> None:
        self.t += 1
        for tensor in self.layout:
            part = slice(tensor.offset, tensor.offset + int(np.prod(tensor.shape)))
            decay = self.weight_decay if tensor.decay else 0.0
            arrays = (self.p[part], gradients[part].copy(), self.m[part], self.v[part])
            _core.adamw(*arrays, (lr, 0.9, 0.999, 1e-8, decay), self.t, 1)


def steps(count: int, seed: int) -> Iterator[tuple[list[list[int]], NDArray[np.int64]]]:
    """Batches of words that are common, rare (every 50th step) or never used (the last ten)."""
    rng = np.random.default_rng(seed)
    for step in range(count):
        common = 40 if step % 50 else VOCABULARY - 10
        rows = [rng.integers(0, common, rng.integers(2, 9)).tolist() for _ in range(4)]
        yield rows, rng.integers(0, 2, 4)


def small_model() -> kd.BertForSequenceClassification:
    shape = {"num_hidden_layers": 2, "hidden_size": 40, "num_attention_heads": 2, "intermediate_size": 64}
    return kd.BertForSequenceClassification(kd.BertConfig(vocab_size=VOCABULARY, **shape), seed=1)


def train_step(model: kd.BertForSequenceClassification, rows: list[list[int]], labels: NDArray[np.int64]) -> None:
    _, dlogits = kd.cross_entropy(model.forward(rows, train=True), labels)
    model.backward(dlogits)
    kd.clip_grad_norm_(model, 1.0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_the_same_bits_as_moving_everything(weight_decay: float) -> None:
    model = small_model()
    optimizer = kd.AdamW(model, lr=LR, weight_decay=weight_decay)
    dense = DenseAdamW(model, weight_decay)
    for step, (rows, labels) in enumerate(steps(300, seed=0)):
        train_step(model, rows, labels)
        optimizer.lr = LR * (1 - step / 400)
        dense.step(model.flat_gradients, optimizer.lr)
        optimizer.step()
        optimizer.zero_grad()
        if step in (3, 120):  # looking in between changes nothing
            np.testing.assert_array_equal(model.flat_parameters, dense.p)
    np.testing.assert_array_equal(model.flat_parameters, dense.p)
    state = optimizer.state_dict()
    np.testing.assert_array_equal(state["m"], dense.m)
    np.testing.assert_array_equal(state["v"], dense.v)


@pytest.mark.parametrize("width", [7, 70])
def test_a_table_of_another_width_than_the_encoder(width: int) -> None:
    """Rows that move late, the norm of all gradients, scaling and clearing take the table's own width."""
    case, constants = Case({**ENCODER, "embedding_width": width}, CLASSIFIER), (LR, 0.9, 0.999, 1e-8, 0.01)
    (p, m, v), zeros, count = (case.flat.copy(), *np.zeros((2, case.flat.size), np.float32)), np.zeros_like, 12
    moments, done = (zeros(m), zeros(v)), np.zeros(ENCODER["vocabulary"] + 1, np.int32)
    history = np.zeros((count, _core.ADAMW_CONSTANTS), np.float32)
    rng = np.random.default_rng(5)
    for t in range(1, count + 1):
        case.ids = [rng.integers(0, 31 if t % 5 == 0 else 4, n).tolist() for n in case.lengths]
        case.core.catch_up((*moments, None, done, history, 0, t - 1), case.batch.ids, 2)
        case.core.touch()
        case.forward(train=True)
        case.core.backward(case.dlogits, 2)
        norm = np.linalg.norm(case.gradients.astype(np.float64))
        assert case.core.gradient_norm(2) == pytest.approx(norm, rel=1e-6)
        before = case.gradients.copy()
        case.core.scale_gradients(0.5, 2)
        np.testing.assert_array_equal(case.gradients, before / 2)
        for tensor in case.layout:
            part = slice(tensor.offset, tensor.offset + tensor.size)
            own = (*constants[:4], 0.01 if tensor.decay else 0.0)
            _core.adamw(p[part], case.gradients[part].copy(), m[part], v[part], own, t, 1)
        case.core.adamw_step((*moments, None, done, history, 0, t), (*constants, 0.0), 2)
        case.core.clear_gradients(2)
        assert not case.gradients.any()
    case.core.catch_up((*moments, None, done, history, 0, count), None, 2)
    for found, expected in ((case.flat, p), (moments[0], m), (moments[1], v)):
        np.testing.assert_array_equal(found, expected)


def test_an_epoch_of_real_sentences() -> None:
    """The words of the demo's training rows, most of them rare; the dense update sees the same gradients."""
    lines = lzma.decompress((EXAMPLES / "train.tsv.xz").read_bytes()).decode("utf-8").splitlines()[1:]
    model = kd.BertForSequenceClassification(
        kd.BertConfig(num_hidden_layers=1, hidden_size=32, num_attention_heads=2, intermediate_size=64), seed=1
    )
    rows = [[zlib.crc32(word.encode()) % model.config.vocab_size for word in line.split()[:-1]] for line in lines]
    labels = np.array([int(line.split()[-1]) for line in lines])
    optimizer, dense = kd.AdamW(model, lr=LR, weight_decay=0.01), DenseAdamW(model, 0.01)
    order = np.random.default_rng(0).permutation(len(rows))
    schedule = kd.get_linear_schedule_with_warmup(20, len(rows) // 128 + 1)
    for step, first in enumerate(range(0, len(rows), 128)):
        chosen = order[first : first + 128]
        train_step(model, [rows[i] for i in chosen], labels[chosen])
        optimizer.lr = LR * schedule(step)
        dense.step(model.flat_gradients, optimizer.lr)
        optimizer.step()
        optimizer.zero_grad()
    assert step > 200
    np.testing.assert_array_equal(model.flat_parameters, dense.p)
    np.testing.assert_array_equal(optimizer.state_dict()["v"], dense.v)


def test_moments_that_die_out_stay_within_a_millionth() -> None:
    """After some 800 steps without a gradient m is subnormal and is taken as 0; the dense update goes on with it."""
    model = small_model()
    optimizer = kd.AdamW(model, lr=LR, weight_decay=0.01)
    dense = DenseAdamW(model, 0.01)
    batches = steps(1100, seed=2)
    for step, (rows, labels) in enumerate(batches):
        words = rows if step == 0 else [[word % 20 for word in row] for row in rows]
        train_step(model, words, labels)
        dense.step(model.flat_gradients, optimizer.lr)
        optimizer.step()
        optimizer.zero_grad()
    np.testing.assert_allclose(model.flat_parameters, dense.p, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("look", ["parameters", "save", "evaluate", "state", "hash"])
def test_whatever_reads_a_row_sees_it_up_to_date(look: str, tmp_path: object) -> None:
    model, looked = small_model(), small_model()
    optimizers = [kd.AdamW(m, lr=LR, weight_decay=0.01) for m in (model, looked)]
    for rows, labels in steps(60, seed=3):
        for m, optimizer in zip((model, looked), optimizers, strict=True):
            train_step(m, rows, labels)
            optimizer.step()
            optimizer.zero_grad()
        match look:
            case "parameters":
                looked.parameters["classifier.bias"]
            case "save":
                looked.save_pretrained(str(tmp_path))
            case "evaluate":
                looked.forward([[VOCABULARY - 1, 5], [7]])
            case "state":
                optimizers[1].load_state_dict(optimizers[1].state_dict())
            case "hash":
                looked.weights_hash()
    np.testing.assert_array_equal(model.flat_parameters, looked.flat_parameters)
    assert model.weights_hash() == looked.weights_hash()


def test_a_new_optimiser_takes_over_from_up_to_date_rows() -> None:
    """The twin is looked at before its second optimiser begins, which brings its rows up to date; the model is not."""
    model, twin = small_model(), small_model()
    for m in (model, twin):
        first = kd.AdamW(m, lr=LR)
        for rows, labels in steps(5, seed=4):
            train_step(m, rows, labels)
            first.step()
            first.zero_grad()
    expected = DenseAdamW(twin, 0.0)
    second = kd.AdamW(model, lr=LR)
    for rows, labels in steps(5, seed=5):
        train_step(model, rows, labels)
        expected.step(model.flat_gradients, LR)
        second.step()
        second.zero_grad()
    np.testing.assert_array_equal(model.flat_parameters, expected.p)


def test_the_constants_of_done_steps_are_forgotten() -> None:
    model = small_model()
    optimizer = kd.AdamW(model, lr=LR)
    for step, (rows, labels) in enumerate(steps(600, seed=6)):
        train_step(model, rows, labels)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            optimizer.catch_up()
    assert len(optimizer._history) <= 256


def test_gradients_are_zero_outside_the_touched_rows_and_after_clearing() -> None:
    model = small_model()
    train_step(model, [[3, 5, 5], [9]], np.array([0, 1]))
    words = model.gradients["bert.embeddings.word_embeddings.weight"]
    assert set(np.flatnonzero(words.any(axis=1))) == {3, 5, 9}
    norm = float(np.linalg.norm(model.flat_gradients.astype(np.float64)))
    assert model.core.gradient_norm(2) == pytest.approx(norm, rel=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        words[0] = 1
    model.zero_grad()
    assert not model.flat_gradients.any()
    train_step(model, [[4]], np.array([0]))
    words = model.gradients["bert.embeddings.word_embeddings.weight"]
    assert set(np.flatnonzero(words.any(axis=1))) == {4}
