"""Parameters by name, under the names of torch: views, copies, and what may be written."""

from __future__ import annotations

import numpy as np
import pytest
from support.small_run import small_model, weights

import kdistill as kd
from kdistill.models.classes import BertForSequenceClassification
from kdistill.train.optim import AdamW

WORDS = "bert.embeddings.word_embeddings.weight"


def train_steps(model: BertForSequenceClassification, optimizer: AdamW, rows: list[list[int]]) -> None:
    for row in rows:
        logits = model.forward([row], train=True)
        model.backward(np.ones_like(logits) * np.array([[1.0, -1.0]], np.float32))
        optimizer.step()
        optimizer.zero_grad()


def test_names_views_and_iteration() -> None:
    model = small_model()
    named = dict(model.named_parameters())
    assert list(named) == list(model.parameters) == [tensor.name for tensor in model.layout]
    arrays = list(model.parameters())
    assert sum(array.size for array in arrays) == model.num_parameters()
    for array, view in zip(arrays, named.values(), strict=True):
        assert np.shares_memory(array, view)
    named["classifier.bias"][0] = 7
    assert model.parameters["classifier.bias"][0] == 7
    assert [gradient.shape for gradient in model.gradients()] == [array.shape for array in arrays]


def test_a_parameter_is_up_to_date_when_it_is_asked_for() -> None:
    """Not only `model.parameters`: also a mapping from before the steps, for words the last steps did not read."""
    model = small_model()
    parameters = model.parameters
    optimizer = AdamW(model, lr=0.01)
    train_steps(model, optimizer, [[2, 5, 3]])  # word 5 has momentum now
    train_steps(model, optimizer, [[2, 7, 3]] * 3)
    late = parameters[WORDS].copy()
    dense = np.array(model.flat_parameters)
    offset = next(tensor.offset for tensor in model.layout if tensor.name == WORDS)
    np.testing.assert_array_equal(late.ravel(), dense[offset : offset + late.size])

    again = small_model()
    optimizer = AdamW(again, lr=0.01)
    for rows in ([[2, 5, 3]], *[[[2, 7, 3]]] * 3):
        train_steps(again, optimizer, rows)
        optimizer.catch_up()  # as a step that moves every row in time
    np.testing.assert_array_equal(late, again.parameters[WORDS])
    assert not np.array_equal(late[5], small_model().parameters[WORDS][5])


def test_gradients_are_read_only() -> None:
    model = small_model()
    gradients = model.gradients
    with pytest.raises(ValueError, match="read-only"):
        gradients[WORDS][0, 0] = 1
    for gradient in model.gradients():
        assert not gradient.flags.writeable
    train_steps(model, AdamW(model), [[2, 5, 3]])  # the trainer needs no writing
    model.freeze()
    with pytest.raises(RuntimeError, match="frozen"):
        gradients[WORDS]


def test_a_frozen_model_shows_parameters_and_lets_nobody_write() -> None:
    model = small_model()
    before = model.parameters
    model.freeze()
    for views in (before, model.parameters):
        with pytest.raises(ValueError, match="read-only"):
            views[WORDS][0, 0] = 1
    with pytest.raises(RuntimeError, match="frozen"):
        model.load_state_dict(model.state_dict())


@pytest.mark.parametrize("way", ["view", "mapping", "flat", "state_dict"])
def test_what_was_given_away_before_freezing_changes_nothing_afterwards(way: str) -> None:
    model = small_model()
    if way == "view":
        given = [model.parameters[WORDS]]
    elif way == "mapping":
        given = list(model.parameters())
    elif way == "state_dict":
        given = list(model.state_dict().values())
    else:
        with model.writing() as flat:
            given = [flat]
    model.freeze()
    logits, content = model.forward([[2, 5, 3]]), model.weights_hash()
    for array in given:
        array[...] = 7
    model.release()  # the weights are packed again
    np.testing.assert_array_equal(model.forward([[2, 5, 3]]), logits)
    assert model.weights_hash() == content == small_model().freeze().weights_hash()


def test_no_view_of_a_frozen_model_can_be_made_writable() -> None:
    model = small_model()
    before = model.flat_parameters
    model.freeze()
    for view in (before, model.flat_parameters, model.parameters[WORDS]):
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
            view.flags.writeable = True


def test_freezing_packs_weights_once_even_after_views_were_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    assert model.parameters[WORDS].any()
    model.freeze()
    touched = []

    class Core:
        def touch(self) -> None:
            touched.append(1)

        def __getattr__(self, name: str) -> object:
            return getattr(core, name)

    core = model.core
    monkeypatch.setattr(model, "core", Core())
    model.forward([[2, 5, 3]])
    assert not touched


def test_number_of_parameters() -> None:
    model = small_model()
    c = model.config
    embeddings = (c.vocab_size + c.max_position_embeddings + c.type_vocab_size) * c.hidden_size
    layer = 4 * (c.hidden_size + 1) * c.hidden_size + 4 * c.hidden_size
    layer += 2 * c.hidden_size * c.intermediate_size + c.intermediate_size + c.hidden_size
    head = (c.hidden_size + 1) * (c.hidden_size + c.num_labels)
    rest = 2 * c.hidden_size + c.num_hidden_layers * layer + head
    assert model.num_parameters() == model.num_parameters(only_trainable=True) == embeddings + rest
    assert model.num_parameters(exclude_embeddings=True) == rest
    model.freeze()
    assert model.num_parameters() == embeddings + rest
    assert model.num_parameters(only_trainable=True) == 0


def test_state_dict_is_a_copy_that_can_be_loaded() -> None:
    model, other = small_model(1), small_model(2)
    state = model.state_dict()
    before = weights(model)
    train_steps(model, AdamW(model, lr=0.1), [[2, 5, 3]])
    assert not np.array_equal(weights(model), before)
    for target in (model, other):
        assert target.load_state_dict(state) == ([], [])
        np.testing.assert_array_equal(weights(target), before)
    logits = other.forward([[2, 5, 3]])
    np.testing.assert_array_equal(logits, small_model(1).forward([[2, 5, 3]]))


def test_state_dict_that_does_not_fit_changes_nothing() -> None:
    model = small_model()
    before, state = weights(model), small_model(2).state_dict()
    missing = {name: array for name, array in state.items() if name != "classifier.bias"}
    with pytest.raises(ValueError, match=r"lacks classifier\.bias and has the unknown extra; expected the names"):
        model.load_state_dict(missing | {"extra": np.zeros(1)})
    with pytest.raises(ValueError, match=r"state_dict\['classifier.bias'\] has shape \(3,\); expected \(2,\)"):
        model.load_state_dict(state | {"classifier.bias": np.zeros(3)}, strict=False)
    with pytest.raises(TypeError, match=r"state_dict\['classifier.bias'\] is <U1; expected real numbers"):
        model.load_state_dict(state | {"classifier.bias": np.array(["a", "b"])})
    np.testing.assert_array_equal(weights(model), before)

    keys = model.load_state_dict(missing | {"extra": np.zeros(1)}, strict=False)
    assert (keys.missing_keys, keys.unexpected_keys) == (["classifier.bias"], ["extra"])
    np.testing.assert_array_equal(model.parameters["classifier.bias"], small_model().parameters["classifier.bias"])
    np.testing.assert_array_equal(model.parameters[WORDS], state[WORDS])


def test_loaded_parameters_are_those_of_the_next_pass() -> None:
    """Also for rows that an optimiser still owed steps to."""
    model = small_model()
    optimizer = AdamW(model, lr=0.1)
    train_steps(model, optimizer, [[2, 5, 3], [2, 7, 3]])
    model.load_state_dict(small_model(2).state_dict())
    np.testing.assert_array_equal(model.forward([[2, 5, 3]]), small_model(2).forward([[2, 5, 3]]))


def test_train_and_eval_change_nothing() -> None:
    model = small_model()
    logits = model.forward([[2, 5, 3]])
    assert model.train() is model.train(False) is model.eval() is model
    np.testing.assert_array_equal(model.train()([[2, 5, 3]]).logits, logits)
    np.testing.assert_array_equal(model.eval().forward([[2, 5, 3]]), logits)
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_auto_classes(tmp_path) -> None:
    model = small_model()
    model.save_pretrained(tmp_path)
    config = kd.AutoConfig.from_pretrained(tmp_path)
    assert config == model.config
    loaded = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(weights(loaded), weights(model))
    made = kd.AutoModelForSequenceClassification.from_config(config, seed=3)
    np.testing.assert_array_equal(weights(made), weights(BertForSequenceClassification(config, seed=3)))
    assert kd.AutoConfig.for_model("bert", hidden_size=128, num_attention_heads=2).hidden_size == 128
    with pytest.raises(
        ValueError, match=r"model_type is 'gpt2', which kdistill does not compute; expected .*distilbert"
    ):
        kd.AutoConfig.for_model("gpt2")
    with pytest.raises(TypeError, match="did you mean 'hidden_size'"):
        kd.AutoConfig.for_model("bert", hiden_size=128)
