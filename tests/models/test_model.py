"""The model as a user holds it: saved and loaded, its views, its hash, what a call returns, what it refuses."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bert_cases import SMALL, batch_of, gradient, random_dlogits, random_rows, wide_model

from kdistill.data.batch import pack
from kdistill.losses.labels import cross_entropy
from kdistill.models import content_key
from kdistill.models.checkpoint import write_weights
from kdistill.models.classes import BertForSequenceClassification
from kdistill.models.config import BertConfig
from kdistill.models.parameters import TensorViews
from kdistill.train.optim import AdamW

ROWS = [[1, 2, 3], [4], [5, 6, 7, 8]]


def small_model(**changes: Any) -> BertForSequenceClassification:
    return wide_model(**(SMALL | changes))


def saved(directory: Path, model: BertForSequenceClassification, *leave_out: str) -> Path:
    """`model` as a directory whose weights lack every tensor that begins with one of `leave_out`."""
    model.save_pretrained(directory)
    kept = {name: view for name, view in model.parameters.items() if not name.startswith(leave_out or "/")}
    write_weights(directory, kept)
    return directory


# ---- saving and loading


def test_a_saved_model_comes_back_to_the_bit(tmp_path: Path) -> None:
    model = small_model(num_labels=3, id2label={0: "bad", 1: "fair", 2: "good"}, hidden_act="relu")
    model.save_pretrained(tmp_path / "new" / "directory")
    loaded = BertForSequenceClassification.from_pretrained(tmp_path / "new" / "directory")
    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded.flat_parameters, model.flat_parameters)
    np.testing.assert_array_equal(loaded.forward(ROWS), model.forward(ROWS))
    assert loaded.weights_hash() == model.weights_hash()
    assert sorted(path.name for path in (tmp_path / "new" / "directory").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_what_is_saved_is_up_to_date_after_training(tmp_path: Path) -> None:
    """Rows of words that were not in the last batches move when they are next looked at; saving looks at all."""
    model = small_model(vocab_size=200)
    optimizer = AdamW(model, lr=0.1, weight_decay=0.1)
    for word in range(3):
        gradient(model, pack([[word]]), np.ones((1, 2), np.float32))
        optimizer.step()
    model.save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.weights_hash() == model.weights_hash()
    np.testing.assert_array_equal(loaded.forward([[0, 1, 2, 150]]), model.forward([[0, 1, 2, 150]]))


def test_a_model_can_be_saved_over_itself(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path)
    loaded.parameters["classifier.bias"][:] = [1, 2]
    loaded.save_pretrained(tmp_path)
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again.flat_parameters, loaded.flat_parameters)


@pytest.mark.parametrize("leave_out", ["classifier.", "bert.pooler."])
def test_what_pretraining_cannot_give_is_initialised_and_said(tmp_path: Path, leave_out: str) -> None:
    model = small_model()
    saved(tmp_path, model, leave_out)
    with pytest.warns(UserWarning, match=f"lacks {re.escape(leave_out)}.*initialised at random, to be trained"):
        loaded = BertForSequenceClassification.from_pretrained(tmp_path, seed=5)
    drawn = {name for name in model.parameters if name.startswith(leave_out)}
    assert drawn
    for name, view in loaded.parameters.items():
        if name not in drawn:
            np.testing.assert_array_equal(view, model.parameters[name])
        elif view.ndim == 1:
            assert not view.any()
        else:
            # initializer_range is 0.02: five sigma.
            assert 0 < np.abs(view).max() < 0.1
    with pytest.warns(UserWarning, match="initialised at random"):
        same = BertForSequenceClassification.from_pretrained(tmp_path, seed=5)
    with pytest.warns(UserWarning, match="initialised at random"):
        other = BertForSequenceClassification.from_pretrained(tmp_path, seed=6)
    np.testing.assert_array_equal(same.flat_parameters, loaded.flat_parameters)
    assert not np.array_equal(other.flat_parameters, loaded.flat_parameters)


@pytest.mark.parametrize(
    "labels",
    [
        {"num_labels": 3},
        {"id2label": {0: "a", 1: "b", 2: "c"}},
        {"label2id": {"a": 0, "b": 1, "c": 2}},
    ],
)
def test_labels_for_a_checkpoint_without_a_classifier(tmp_path: Path, labels: dict[str, Any]) -> None:
    saved(tmp_path, small_model(), "classifier.")
    with pytest.warns(UserWarning, match="initialised at random"):
        loaded = BertForSequenceClassification.from_pretrained(tmp_path, **labels)
    assert loaded.config.num_labels == 3
    assert loaded.forward(ROWS).shape == (3, 3)
    if "num_labels" not in labels:
        assert loaded.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_config_in_place_of_the_directorys(tmp_path: Path) -> None:
    model = small_model()
    saved(tmp_path, model)
    config = BertConfig.from_pretrained(tmp_path, hidden_dropout_prob=0.25, id2label={0: "no", 1: "yes"})
    (tmp_path / "config.json").unlink()
    loaded = BertForSequenceClassification.from_pretrained(tmp_path, config=config)
    assert loaded.config == model.config.replace(hidden_dropout_prob=0.25, id2label={0: "no", 1: "yes"})
    np.testing.assert_array_equal(loaded.forward(ROWS), model.forward(ROWS))
    wider = config.replace(intermediate_size=config.intermediate_size + 1)
    with pytest.raises(ValueError, match=r"intermediate\.dense.* the configuration expects"):
        BertForSequenceClassification.from_pretrained(tmp_path, config=wider)


def test_arguments_of_the_configuration_replace_those_of_the_file(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(
        tmp_path,
        classifier_dropout=0.25,
        hidden_act="relu",
        layer_norm_eps=1e-5,
        vocab_size=small_model().config.vocab_size,
    )
    assert loaded.config == small_model().config.replace(
        classifier_dropout=0.25, hidden_act="relu", layer_norm_eps=1e-5
    )
    np.testing.assert_array_equal(loaded.flat_parameters, small_model().flat_parameters)


def test_the_first_layers_of_a_checkpoint(tmp_path: Path) -> None:
    whole = small_model(num_hidden_layers=12)
    whole.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="has 12 layers and num_hidden_layers is 2: 160 tensors of layers 2 to 11 are"):
        first = BertForSequenceClassification.from_pretrained(tmp_path, num_hidden_layers=2)
    assert first.config == whole.config.replace(num_hidden_layers=2)
    assert {name for name in whole.parameters if name not in first.parameters} == {
        name for name in whole.parameters if re.match(r"bert\.encoder\.layer\.([2-9]|1[01])\.", name)
    }
    for name, value in first.parameters.items():
        np.testing.assert_array_equal(value, whole.parameters[name])


def test_layers_that_neither_the_file_nor_the_argument_knows(tmp_path: Path) -> None:
    small_model(num_hidden_layers=3).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match=r"encoder\.layer\.2.*check that both are of one model"):
        BertForSequenceClassification.from_pretrained(tmp_path, num_hidden_layers=1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_attention_heads": 4}, ValueError, "num_attention_heads is 4; the checkpoint's weights were made with 2"),
        ({"num_hidden_layers": 3}, ValueError, "num_hidden_layers is 3; .* with 2: expected at most 2"),
        ({"vocab_size": 99}, ValueError, "vocab_size is 99; .*call resize_token_embeddings afterwards"),
        ({"hidden_size": 48}, ValueError, "hidden_size is 48; .*: leave it out"),
        ({"num_hidden_layer": 1}, TypeError, "no argument 'num_hidden_layer'; did you mean 'num_hidden_layers'"),
    ],
)
def test_changes_that_do_not_fit_the_weights(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    small_model().save_pretrained(tmp_path)
    with pytest.raises(error, match=message):
        BertForSequenceClassification.from_pretrained(tmp_path, **changes)


def test_labels_that_the_classifier_was_not_made_for(tmp_path: Path) -> None:
    saved(tmp_path, small_model())
    renamed = BertForSequenceClassification.from_pretrained(tmp_path, id2label={0: "no", 1: "yes"})
    assert renamed.config.label2id == {"no": 0, "yes": 1}
    with pytest.raises(ValueError, match=re.escape("'classifier.") + ".*" + re.escape("expects (3")):
        BertForSequenceClassification.from_pretrained(tmp_path, num_labels=3)


def test_a_classifier_of_other_labels_is_replaced_when_asked_for(tmp_path: Path) -> None:
    source = small_model()
    saved(tmp_path, source)
    with pytest.warns(
        UserWarning, match=r"does not fit in .*classifier\.weight \(in the file \(2, 24\), here \(3, 24\)\)"
    ):
        model = BertForSequenceClassification.from_pretrained(
            tmp_path, id2label={0: "a", 1: "b", 2: "c"}, ignore_mismatched_sizes=True, seed=5
        )
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    for name, value in model.parameters.items():
        if not name.startswith("classifier."):
            np.testing.assert_array_equal(value, source.parameters[name])
    weight = model.parameters["classifier.weight"]
    assert weight.shape == (3, 24)
    assert 0.0 < weight.std() < 3 * model.config.initializer_range
    assert not model.parameters["classifier.bias"].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = BertForSequenceClassification.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    np.testing.assert_array_equal(same.flat_parameters, source.flat_parameters)


def test_directories_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        BertForSequenceClassification.from_pretrained(tmp_path / "nothing here")
    with pytest.raises(FileNotFoundError, match=re.escape("config.json")):
        BertForSequenceClassification.from_pretrained(tmp_path)
    small_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=re.escape("model.safetensors")):
        BertForSequenceClassification.from_pretrained(tmp_path)


def test_a_configuration_of_another_shape_than_the_weights(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    for changes, message in (
        ({"intermediate_size": 48}, "intermediate.dense"),
        ({"num_hidden_layers": 3}, "lacks"),
        ({"num_hidden_layers": 1}, "encoder.layer.1"),
        ({"model_type": "roberta"}, "model_type is 'roberta'; expected 'bert'"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(content | changes))
        with pytest.raises(ValueError, match=re.escape(message)):
            BertForSequenceClassification.from_pretrained(tmp_path)


# ---- what a call returns


def test_a_call_gives_logits_and_with_labels_a_loss() -> None:
    model = small_model()
    output = model(ROWS)
    assert output.loss is None
    np.testing.assert_array_equal(output.logits, model.forward(ROWS))
    with_labels = model(ROWS, labels=[0, 1, 1])
    assert with_labels.loss == cross_entropy(output.logits, [0, 1, 1])[0]


@pytest.mark.parametrize("stated", [True, False])
def test_the_loss_of_a_call_follows_the_problem_type(stated: bool) -> None:
    regression = small_model(num_labels=1, problem_type="regression" if stated else None)
    output = regression(ROWS, labels=[1, 2, 4])  # whole numbers are numbers too where there is one output
    assert output.loss == pytest.approx(((output.logits[:, 0].astype(float) - [1, 2, 4]) ** 2).mean())
    targets = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 1]], np.float32)
    several = small_model(num_labels=3, problem_type="multi_label_classification" if stated else None)
    output = several(ROWS, labels=targets)
    z = output.logits.astype(float)
    assert output.loss == pytest.approx((np.logaddexp(0, z) - targets * z).mean())


def test_a_call_takes_padded_arrays_as_transformers_does() -> None:
    model = small_model()
    ids, types = random_rows([3, 1, 5], model.config)
    expected = model.forward(pack({"input_ids": ids, "token_type_ids": types}))
    padded, kinds, mask = np.zeros((3, 3, 7), np.int64)
    for row, (tokens, kind) in enumerate(zip(ids, types, strict=True)):
        padded[row, : len(tokens)], kinds[row, : len(kind)], mask[row, : len(tokens)] = tokens, kind, 1
    np.testing.assert_array_equal(model(padded, mask, kinds).logits, expected)
    encodings = {"input_ids": padded, "attention_mask": mask, "token_type_ids": kinds}
    np.testing.assert_array_equal(model(**encodings).logits, expected)
    np.testing.assert_array_equal(model.forward(encodings), expected)
    np.testing.assert_array_equal(model(encodings).logits, expected)
    np.testing.assert_array_equal(model(pack(encodings), labels=[0, 1, 0]).logits, expected)
    with pytest.raises(TypeError, match="input_ids is a Batch, which already contains attention_mask"):
        model(pack(encodings), mask, kinds)


# ---- parameters and gradients


def test_writing_through_a_view_is_seen_by_the_next_pass() -> None:
    model = small_model()
    seen = [model.forward(ROWS)]
    views = [model.parameters[name] for name in ("bert.encoder.layer.1.output.dense.weight", "classifier.bias")]
    for view in views:
        view += 1
        seen.append(model.forward(ROWS))
    with model.writing() as flat:
        flat *= 2
    seen.append(model.forward(ROWS))
    assert len({logits.tobytes() for logits in seen}) == 4
    fresh = small_model()
    fresh.load_flat(model.flat_parameters)
    np.testing.assert_array_equal(fresh.forward(ROWS), seen[-1])


def test_loading_flat_parameters() -> None:
    model, other = small_model(), small_model(seed=8)
    expected = other.forward(ROWS)
    model.forward(ROWS)
    model.load_flat(other.flat_parameters)
    np.testing.assert_array_equal(model.forward(ROWS), expected)
    size = model.flat_parameters.size
    with pytest.raises(ValueError, match=re.escape(f"values have shape (3,); this model's parameters ({size},)")):
        model.load_flat(np.zeros(3, np.float32))
    np.testing.assert_array_equal(model.forward(ROWS), expected)


def test_flat_arrays_cannot_be_written_by_accident() -> None:
    model = small_model()
    for flat in (model.flat_parameters, model.flat_gradients):
        with pytest.raises(ValueError, match="read-only"):
            flat[0] = 1


def test_views_have_the_names_and_shapes_of_transformers() -> None:
    model = small_model()
    views = model.parameters
    assert len(views) == 5 + 16 * 2 + 4
    assert views["bert.encoder.layer.1.intermediate.dense.weight"].shape == (40, 24)
    assert views["classifier.weight"].shape == (2, 24)
    assert set(model.gradients) == set(views)
    assert model.num_parameters() == sum(view.size for view in views.values())
    # No two tensors share an element, and each is where its registers begin.
    used = np.zeros(model.flat_parameters.size, int)
    counted = TensorViews(used, model.layout)  # type: ignore[arg-type]
    for tensor in model.layout:
        counted[tensor.name][...] += 1
        assert tensor.offset % 16 == 0
        assert tensor.decay == (len(tensor.shape) == 2)
    assert used.max() == 1
    with pytest.raises(KeyError):
        views["classifier"]


def test_zero_grad_begins_a_new_batch() -> None:
    model = small_model()
    model.zero_grad()  # before there are any
    gradient(model, pack(ROWS), random_dlogits(model, 3))
    assert model.flat_gradients.any()
    assert model.tokens_in_step == 8
    model.zero_grad()
    assert not model.flat_gradients.any()
    assert model.tokens_in_step == 0


_LOAD = """
import re, sys
from pathlib import Path
import kdistill as kd
def peak():  # getrusage's begins with what the parent had
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
load = kd.BertForSequenceClassification.from_pretrained
before = peak()
model = load(sys.argv[1])
loaded = peak()
model.freeze().forward([[1, 2, 3]])
packed = peak()
print(model.flat_parameters.nbytes, loaded - before, packed - loaded)
"""


def test_weights_are_in_memory_once_while_they_are_loaded(tmp_path: Path) -> None:
    """Mapped, copied, given back; a frozen model adds the packed weights of its products, here most of the model."""
    small_model(hidden_size=512, num_attention_heads=8, intermediate_size=2048, num_hidden_layers=8).save_pretrained(
        tmp_path
    )
    done = subprocess.run([sys.executable, "-c", _LOAD, str(tmp_path)], capture_output=True, text=True, check=True)
    size, loaded, packed = map(int, done.stdout.split())
    assert size > 100e6
    assert loaded < 1.3 * size
    assert packed < 1.3 * size


def test_memory_given_back_is_taken_again() -> None:
    model = small_model(**SMALL).freeze()
    before = model.forward(ROWS)
    model.release()
    assert model.core.workspace_bytes == 0
    np.testing.assert_array_equal(model.forward(ROWS), before)


def test_a_frozen_model_owns_no_gradients_and_gives_the_same_bits() -> None:
    model = small_model()
    expected, key = model.forward(ROWS), model.weights_hash()
    gradient(model, pack(ROWS), random_dlogits(model, 3))
    assert model.freeze() is model
    assert model._gradients is None
    np.testing.assert_array_equal(model.forward(ROWS), expected)
    assert model.weights_hash() == key
    model.zero_grad()  # harmless
    assert "frozen" in repr(model)


def test_a_copy_has_the_weights_and_a_life_of_its_own() -> None:
    """Also while rows of the embeddings are behind, and of a frozen model: the copy can be trained."""
    model = wide_model(**SMALL)
    optimizer = AdamW(model, lr=0.1)
    rows, _ = random_rows([3, 5], model.config)
    model.forward(rows, train=True)
    model.backward(random_dlogits(model, 2))
    optimizer.step()
    for original in (model, copy.deepcopy(model).freeze()):
        other = copy.deepcopy(original)
        before = np.array(original.flat_parameters)
        np.testing.assert_array_equal(other.flat_parameters, before)
        assert (other.config, other.frozen) == (original.config, False)
        with other.writing() as parameters:
            parameters += 1
        other.forward(rows, train=True)
        np.testing.assert_array_equal(original.flat_parameters, before)


def test_models_of_one_seed_are_equal_and_of_two_are_not() -> None:
    config = BertConfig(**SMALL, num_hidden_layers=1, vocab_size=20, max_position_embeddings=8)
    one, same, other = (BertForSequenceClassification(config, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.flat_parameters, same.flat_parameters)
    assert not np.array_equal(one.flat_parameters, other.flat_parameters)
    assert (one.dropout_seed, other.dropout_seed) == (1, 2)


def test_repr_says_shape_and_size() -> None:
    assert repr(small_model()) == (
        "BertForSequenceClassification(L2-H24-A2, feed-forward 40, vocabulary 31, 2 labels, 11,410 parameters)"
    )


# ---- the key of cached logits


def test_the_hash_is_of_all_parameters_in_whatever_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    whole = model.weights_hash()
    monkeypatch.setattr(content_key, "_HASHED_FLOATS", 1000)
    assert model.weights_hash() == whole
    for name in ("bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight", "classifier.bias"):
        changed = copy.deepcopy(model)
        changed.parameters[name][-1] += 1
        assert changed.weights_hash() != whole


def test_the_hash_changes_with_what_changes_logits() -> None:
    model = small_model()
    key = model.weights_hash()
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert small_model().weights_hash() == key
    assert small_model(hidden_dropout_prob=0.3, id2label={0: "x", 1: "y"}).weights_hash() == key
    changed = [
        small_model(seed=8),
        small_model(hidden_act="gelu_new"),
        small_model(layer_norm_eps=1e-6),
        small_model(num_attention_heads=4),
    ]
    assert len({key, *(other.weights_hash() for other in changed)}) == 5


def test_the_hash_follows_the_weights() -> None:
    model = small_model()
    keys = [model.weights_hash()]
    view = model.parameters["classifier.bias"]
    for value in (1, 2):
        view[0] = value
        keys.append(model.weights_hash())
    with model.writing() as flat:
        flat[0] += 1
    keys.append(model.weights_hash())
    gradient(model, pack(ROWS), random_dlogits(model, 3))
    AdamW(model).step()
    keys.append(model.weights_hash())
    assert len(set(keys)) == 5
    model.freeze()
    assert model.weights_hash() == keys[-1]


def test_taps_come_with_the_logits_and_their_gradients_go_back() -> None:
    model = wide_model(**SMALL, hidden_dropout_prob=0.1)
    last = ("hidden", model.config.num_hidden_layers)
    rows = batch_of(*random_rows([3, 9], model.config))
    logits, taps = model.forward(rows, train=True, taps=[last])
    model.tokens_in_step = 0  # the same dropout; only now the last layer is computed for [CLS] alone
    np.testing.assert_allclose(model.forward(rows, train=True), logits, rtol=2e-5)
    with pytest.raises(ValueError, match=r"gradients has \('hidden', \d\), which was no tap of the forward pass"):
        model.backward(np.zeros_like(logits), {last: taps[last]})
    model.tokens_in_step = 0
    logits, taps = model.forward(rows, train=True, taps=[last])
    random = np.random.default_rng(0).standard_normal(taps[last].shape).astype(np.float32)
    model.backward(np.zeros_like(logits), {last: random})
    # The last layer's output is its LayerNorm's, to which the bias is added: its gradient is that of the rows.
    found = model.gradients[f"bert.encoder.layer.{last[1] - 1}.output.LayerNorm.bias"]
    np.testing.assert_allclose(found, random.sum(axis=0), rtol=1e-5)
    assert not model.gradients["classifier.weight"].any()
