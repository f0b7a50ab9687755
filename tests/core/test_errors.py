"""Bad input to a model: one clear error each, and parameters, gradients and the pass in progress stay as they were."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.bert_cases import SMALL, gradient, random_dlogits, wide_model

from kdistill import _core
from kdistill.data.batch import Batch
from kdistill.losses.labels import cross_entropy
from kdistill.losses.teacher import distillation_loss
from kdistill.models.classes import BertForSequenceClassification
from kdistill.system.memory import workspace
from kdistill.train.optim import AdamW

GOOD = [[1, 2, 3], [4], [5, 6]]
Model = BertForSequenceClassification


def filled() -> Model:
    """A model whose gradients are not zero."""
    model = wide_model(**SMALL)
    gradient(model, model_batch(), random_dlogits(model, 3))
    return model


def model_batch() -> Batch:
    ids = np.array([1, 2, 3, 4, 5, 6], np.int32)
    return Batch(ids, np.zeros_like(ids), np.array([0, 3, 4, 6], np.int64))


def refused(model: Model, error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    """`call` raises exactly this, and changes nothing."""
    before = (model.flat_parameters.copy(), model.flat_gradients.copy(), model.tokens_in_step, model.optimizer_step)
    with pytest.raises(error, match=re.escape(message)):
        call()
    np.testing.assert_array_equal(model.flat_parameters, before[0])
    np.testing.assert_array_equal(model.flat_gradients, before[1])
    assert (model.tokens_in_step, model.optimizer_step) == before[2:]


def test_the_message_of_an_id_out_of_range() -> None:
    model = wide_model(hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=30522)
    rows = [[101, 102]] * 3 + [[7] * 17 + [30999]]
    message = "input_ids[3][17] is 30999; the vocabulary has 30522 entries"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model.forward(rows)
    rows[3][17] = 30521
    assert model.forward(rows).shape == (4, 3)


BAD_ROWS = pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1], [2, -1]], "input_ids[1][1] is -1; the vocabulary has 31 entries"),
        ([[31]], "input_ids[0][0] is 31; the vocabulary has 31 entries"),
        ([[1], []], "input_ids[1] is empty; every row needs at least one token"),
        ([], "input_ids is empty; a batch needs at least one row"),
        ([[1] * 40, [1] * 41], "input_ids[1] has 41 tokens; the model has 40 positions (truncate with max_length)"),
        (
            {"input_ids": GOOD, "token_type_ids": [[0, 1, 2], [0], [0, 0]]},
            "token_type_ids[0][2] is 2; the model has 2 token types",
        ),
        (
            {"input_ids": GOOD, "token_type_ids": [[0, 0, 0], [-1], [0, 0]]},
            "token_type_ids[1][0] is -1; the model has 2 token types",
        ),
        ({"input_ids": [[1, 2, 3]], "attention_mask": [[1, 0, 1]]}, "attention_mask"),
    ],
)


@BAD_ROWS
@pytest.mark.parametrize("train", [False, True])
def test_rows_that_are_refused(rows: Any, message: str, train: bool) -> None:
    model = filled()
    refused(model, ValueError, message, lambda: model.forward(rows, train=train))
    assert np.isfinite(model.forward(GOOD)).all()


@BAD_ROWS
def test_rows_that_are_refused_while_an_optimizer_moves_words_late(rows: Any, message: str) -> None:
    model, other = filled(), filled()
    for each in (model, other):
        AdamW(each).step()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        model.forward(rows)
    np.testing.assert_array_equal(model.flat_parameters, other.flat_parameters)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"starts": np.array([0, 3, 4], np.int64)}, ValueError, "starts must run from 0 to 6, the number of tokens"),
        ({"starts": np.array([1, 3, 4, 6], np.int64)}, ValueError, "starts must run from 0 to 6"),
        ({"starts": np.array([0, 4, 3, 6], np.int64)}, ValueError, "input_ids[1] is empty"),
        ({"starts": np.array([0], np.int64)}, ValueError, "the batch is empty; it needs at least one row"),
        ({"starts": np.array([], np.int64)}, ValueError, "the batch is empty; it needs at least one row"),
        ({"starts": np.array([0, 2**40, 4, 6], np.int64)}, ValueError, "input_ids[0] has 1099511627776 tokens"),
        ({"types": np.zeros(5, np.int32)}, ValueError, "ids and types differ in size"),
        ({"ids": np.zeros(6, np.int64)}, TypeError, "ids must be an array of int32, not of int64"),
        ({"types": np.zeros(6)}, TypeError, "types must be an array of int32, not of float64"),
        ({"starts": np.array([0, 3, 4, 6], np.int32)}, TypeError, "starts must be an array of int64, not of int32"),
        ({"ids": np.zeros((2, 3), np.int32)}, ValueError, "ids must be a C-contiguous array with 1 dimension"),
        ({"ids": np.zeros(12, np.int32)[::2]}, ValueError, "ids is not C-contiguous, aligned and in the byte order"),
        ({"ids": np.zeros(6, ">i4")}, ValueError, "of this machine; give np.require(ids, np.int32, 'CA')"),
        ({"ids": [1, 2, 3, 4, 5, 6]}, TypeError, "ids must be a NumPy array of int32"),
    ],
)
def test_batches_packed_by_hand(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    model = filled()
    refused(model, error, message, lambda: model.forward(model_batch()._replace(**changes)))


def test_whole_numbers_that_c_calls_long_long_are_int64() -> None:
    model, batch = filled(), model_batch()
    expected = model.forward(batch)
    np.testing.assert_array_equal(model.forward(batch._replace(starts=batch.starts.astype(np.longlong))), expected)


def test_backward_needs_a_forward_of_its_own() -> None:
    model = filled()
    dlogits = random_dlogits(model, 3)
    message = "backward() without a forward pass to go back through"
    refused(model, RuntimeError, message, lambda: model.backward(dlogits))  # filled() has used its forward
    refused(wide_model(), RuntimeError, message, lambda: wide_model().backward(np.ones((3, 3), np.float32)))
    model.forward(GOOD)  # an evaluation keeps nothing
    refused(model, RuntimeError, message, lambda: model.backward(dlogits))
    model.forward(GOOD, train=True)
    model.forward(GOOD)
    refused(model, RuntimeError, message, lambda: model.backward(dlogits))
    model.forward(GOOD, train=True)
    model.backward(dlogits)
    refused(model, RuntimeError, message, lambda: model.backward(dlogits))


@pytest.mark.parametrize("shape", [(3, 3), (2, 2), (4, 2), (3, 1)])
def test_gradients_of_another_shape_than_the_logits(shape: tuple[int, int]) -> None:
    model = filled()
    dlogits = random_dlogits(model, 3)
    expected = gradient(model, model_batch(), dlogits)
    model.zero_grad()
    model.forward(model_batch(), train=True)
    message = f"dlogits has shape {shape}; expected (3, 2), the shape of the logits"
    refused(model, ValueError, message, lambda: model.backward(np.zeros(shape, np.float32)))
    refused(model, ValueError, "dlogits must be", lambda: model.backward(np.zeros(6, np.float32)))
    # The pass is still there for the right ones, and so it is after a batch that was refused.
    refused(model, ValueError, "input_ids[0][0]", lambda: model.forward([[-1]], train=True))
    model.backward(dlogits)
    np.testing.assert_array_equal(model.flat_gradients, expected)


def test_a_frozen_model_cannot_be_trained() -> None:
    model = filled()
    logits = model.forward(GOOD)
    assert model.freeze() is model
    assert model.freeze().frozen
    for call in (
        lambda: model.forward(GOOD, train=True),
        lambda: model.gradients,
        lambda: model.load_flat(model.flat_parameters),
    ):
        with pytest.raises(RuntimeError, match="the model is frozen"):
            call()
    with pytest.raises(RuntimeError, match="backward"):
        model.backward(np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="read-only"):
        model.parameters["classifier.bias"][0] = 1
    np.testing.assert_array_equal(model.forward(GOOD), logits)


PRUNED = {"layers": ((2, 8), (1, 8)), "relative_buckets": 32, "relative_distance": 128}
ENCODER: dict[str, Any] = {
    "layers": ((2, 8),),
    "hidden": 8,
    "head_width": 4,
    "vocabulary": 10,
    "positions": 10,
    "types": 2,
    "first_position": 0,
    "activation": "gelu",
    "eps": 1e-12,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
HEAD: dict[str, Any] = {"pick": "first", "dense": "tanh", "dropout_before": 0.0, "dropout_after": 0.0, "outputs": 2}


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_numbers_of_threads_out_of_range(threads: int) -> None:
    parameters = np.zeros(_core.layout(ENCODER, HEAD)[0], np.float32)
    core = _core.Model(ENCODER, HEAD, parameters, None, workspace)
    with pytest.raises(ValueError, match=f"threads is {threads}; expected 1 to 256"):
        core.forward(*model_batch(), False, 0, 0, 0, threads)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layers": ()}, ValueError, "the number of layers is 0; expected 1 to 4096"),
        ({"layers": ((2, 8),) * 4097}, ValueError, "the number of layers is 4097; expected 1 to 4096"),
        ({"layers": ((2, 8), (0, 8))}, ValueError, "layers[1][0] is 0; expected 1 to 2147483647"),
        ({"layers": ((2, -3),)}, ValueError, "layers[0][1] is -3; expected 1 to 2147483647"),
        ({"layers": (3,)}, TypeError, "layers[0] must be a pair (heads, feed_forward)"),
        ({"layers": [(2, 8)]}, TypeError, "must be tuple"),
        ({"hidden": 0}, ValueError, "hidden is 0; expected 1 to 2147483647"),
        ({"head_width": 0}, ValueError, "head_width is 0; expected 1 to 2147483647"),
        ({"vocabulary": 2**31}, ValueError, "vocabulary is 2147483648; expected 1 to 2147483647"),
        ({"positions": -1}, ValueError, "positions is -1; expected 1 to 2147483647"),
        ({"types": -1}, ValueError, "types is -1; expected 0 to 2147483647"),
        ({"first_position": 10}, ValueError, "first_position is 10; the model has 10 positions"),
        ({"embedding_width": -1}, ValueError, "embedding_width is -1; expected 0 to 2147483647"),
        (
            {"shared": True, "layers": ((2, 8), (2, 8), (1, 8))},
            ValueError,
            "layers[2] is (1, 8); layers that are shared must all be (2, 8)",
        ),
        (
            {"shared": True, "layers": ((2, 8), (2, 9))},
            ValueError,
            "layers[1] is (2, 9); layers that are shared must all be (2, 8)",
        ),
        (
            {"relative_buckets": 3, "relative_distance": 9},
            ValueError,
            "relative_buckets is 3; expected 4 to 2147483647",
        ),
        ({"relative_distance": 9}, ValueError, "relative_buckets is 0; expected 4 to 2147483647"),
        ({"relative_buckets": 32}, ValueError, "relative_distance is 0; expected 9 to 2147483647"),
        (
            {"relative_buckets": 32, "relative_distance": 8},
            ValueError,
            "relative_distance is 8; expected 9 to 2147483647",
        ),
        (
            PRUNED,
            ValueError,
            "layers[1] has 1 heads; with relative_buckets all layers must have as many as the first, 2, unless "
            "relative_heads tells which they are",
        ),
        (
            {**PRUNED, "relative_heads": (2, ((0, 1),))},
            ValueError,
            "the number of layers in relative_heads[1] is 1; expected 2 to 2",
        ),
        (
            {**PRUNED, "relative_heads": (2, ((0, 1), (0, 1)))},
            ValueError,
            "relative_heads[1][1] is (0, 1); expected a tuple of the layer's 1 heads",
        ),
        (
            {**PRUNED, "relative_heads": (2, ((0, 1), (2,)))},
            ValueError,
            "a head in relative_heads[1] is 2; expected 0 to 1",
        ),
        ({**PRUNED, "relative_heads": (2, ((0, 1), (-1,)))}, ValueError, "a head in relative_heads[1] is -1; expected"),
        ({**PRUNED, "relative_heads": (2, ((0, 1), ("a",)))}, TypeError, "integer"),
        ({**PRUNED, "relative_heads": (0, ((0, 1), (0,)))}, ValueError, "relative_heads[0] is 0; expected"),
        ({"relative_heads": (2, ((0, 1),))}, ValueError, "relative_buckets is 0; expected 4 to 2147483647"),
        ({"eps": -1.0}, ValueError, "eps is -1; expected a finite number of at least 0"),
        ({"eps": float("nan")}, ValueError, "eps is nan; expected a finite number of at least 0"),
        ({"eps": 1e60}, ValueError, "eps is inf; expected a finite number of at least 0"),
        ({"activation": "mish"}, ValueError, "activation is 'mish'; expected one of gelu, "),
        ({"hidden": 2**30}, ValueError, "more than 1e11 parameters"),
        ({"layers": ((2**30, 8),)}, ValueError, "more than 1e11 parameters"),
        ({"width": 8}, TypeError, "'width'"),  # an unknown keyword; the sentence is that of Python's version
    ],
)
def test_encoders_that_no_model_has(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        _core.layout({**ENCODER, **changes}, HEAD)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": -1}, "outputs is -1; expected 0 to 2147483647"),
        ({"outputs": 2**31 - 1, "dense": None}, None),
        ({"dropout_before": -2.0}, "dropout_before is -2; expected at least 0 and less than 1"),
        ({"dropout_after": 1.0}, "dropout_after is 1; expected at least 0 and less than 1"),
        ({"dropout_after": float("nan")}, "dropout_after is nan; expected at least 0 and less than 1"),
        ({"pick": "last"}, "pick is 'last'; expected first, all, listed or mean"),
        ({"dense": None, "norm": True}, "norm is given and dense is None; expected an activation"),
        ({"dense": None, "dense_width": 8}, "dense_width is given and dense is None; expected an activation"),
        ({"tied": True}, "tied is True for 2 outputs of rows 8 wide; expected 10 of 8, as the word embeddings have"),
        ({"unit": True}, "unit is True and outputs 2; expected 0 outputs of a product"),
        ({"dense_width": -1}, "dense_width is -1; expected 0 to 2147483647"),
        ({"dense": "mish"}, "activation is 'mish'"),
    ],
)
def test_heads_that_no_model_has(changes: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert _core.layout(ENCODER, {**HEAD, **changes})[0] > 2**34
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        _core.layout(ENCODER, {**HEAD, **changes})


def test_a_history_without_the_step() -> None:
    constants = (1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0)
    size, _ = _core.layout(ENCODER, HEAD)
    p, g, m, v = (np.zeros(size, np.float32) for _ in range(4))
    model = _core.Model(ENCODER, HEAD, p, g, workspace)
    for base, t in ((3, 3), (3, 2), (3, 6), (-1, 1)):
        state = (m, v, None, np.zeros(11, np.int32), np.zeros((2, _core.ADAMW_CONSTANTS), np.float32), base, t)
        with pytest.raises(ValueError, match="history does not hold the steps after base"):
            model.adamw_step(state, constants, 1)


def test_arrays_that_do_not_fit_the_model() -> None:
    size, _ = _core.layout(ENCODER, HEAD)

    def made(parameters: Any, gradients: Any = None) -> _core.Model:
        return _core.Model(ENCODER, HEAD, parameters, gradients, workspace)

    good = np.zeros(size, np.float32)
    with pytest.raises(ValueError, match=f"parameters has {size - 1} elements; expected {size}"):
        made(good[:-1])
    with pytest.raises(ValueError, match="gradients has 1 elements"):
        made(good, good[:1])
    locked = good.copy()
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="parameters is read-only"):
        made(locked, good)
    arguments = (*model_batch(), False, 0, 0, 0, 1)
    np.testing.assert_array_equal(made(locked).forward(*arguments), made(good).forward(*arguments))  # frozen: only read
    model = made(good)
    with pytest.raises(TypeError, match="initialised once"):
        model.__init__(ENCODER, HEAD, good, None, workspace)  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="not initialised"):
        _core.Model.__new__(_core.Model).forward(*model_batch(), False, 0, 0, 0, 1)


def test_a_loss_that_is_not_finite_leaves_the_gradients_alone() -> None:
    model = filled()
    model.parameters["bert.encoder.layer.0.output.dense.weight"][0, 0] = np.nan
    logits = model.forward(GOOD, train=True)
    message = "the loss of 3 of 3 rows is not finite (rows 0, 1, 2 of the batch)"
    refused(model, FloatingPointError, message, lambda: cross_entropy(logits, [0, 1, 0]))
    refused(model, FloatingPointError, message, lambda: distillation_loss(logits, np.zeros((3, 2))))
