"""Models in bfloat16 and int8: how one is asked for, what it is then, and what it refuses."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT
from support.small_run import small_model, write_model

import kdistill as kd
from kdistill import _core
from kdistill.data.batch import pack
from kdistill.models.model import Model
from kdistill.models.packed import PackedFilling
from kdistill.models.parameters import Tensor
from kdistill.system.memory import workspace

SHARED = ROOT.parent / "shared"
NARROW = ("bfloat16", "int8")
ROWS = [[2, 5, 9, 3], [2, 6, 3], [2, 7, 8, 9, 10, 11, 3]]
load = kd.BertForSequenceClassification.from_pretrained


@pytest.fixture(autouse=True)
def _portable_is_right() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is computed portably")
        yield


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("types") / "model")


def of_the_core(model: Model, dtype: str) -> np.ndarray:
    """The logits of a core of this type over the model's float32 weights."""
    core = _core.Model(*model._shape, np.array(model.flat_parameters), None, workspace, dtype=dtype)
    return core.forward(*pack(ROWS), False, 0, 0, 0, 1)


# ---- asked for


@pytest.mark.parametrize(
    ("given", "frozen", "compute"),
    [
        ({}, False, "float32"),
        ({"dtype": "auto"}, False, "float32"),
        ({"torch_dtype": np.float32}, False, "float32"),
        ({"dtype": "float32"}, True, "float32"),
        ({"dtype": "bfloat16"}, True, "bfloat16"),
        ({"torch_dtype": "torch.bfloat16"}, True, "bfloat16"),
        ({"dtype": np.int8}, True, "int8"),
    ],
)
def test_a_dtype_gives_a_frozen_model_of_it(directory: Path, given: Any, frozen: bool, compute: str) -> None:
    model = load(directory, **given)
    assert (model.frozen, str(model.dtype), model.core.compute) == (frozen, compute, compute)
    assert model.dtype == (compute if compute == "bfloat16" else np.dtype(compute))
    assert model.to("cpu") is model.to(dtype=str(model.dtype)) is model
    np.testing.assert_array_equal(model.forward(ROWS), of_the_core(load(directory), compute))


def test_two_types_at_once(directory: Path) -> None:
    with pytest.raises(ValueError, match="dtype is int8 and torch_dtype, its older name, is bfloat16"):
        load(directory, dtype="int8", torch_dtype="bfloat16")


@pytest.mark.parametrize("dtype", NARROW)
def test_freezing_chooses_a_type_and_freezing_again_keeps_or_changes_it(dtype: str) -> None:
    model = small_model()
    exact = model.forward(ROWS)
    narrow = model.freeze(dtype).forward(ROWS)
    assert (narrow != exact).any()
    np.testing.assert_allclose(narrow, exact, atol=0.05)
    core = model.core
    assert model.freeze().core is model.freeze(dtype).core is core
    assert model.freeze("float32").dtype == np.float32
    np.testing.assert_array_equal(model.forward(ROWS), exact)


def test_views_of_before_do_not_reach_a_frozen_model() -> None:
    model = small_model()
    view = model.parameters["classifier.bias"]
    logits = model.freeze("int8").forward(ROWS)
    view[:] = 7
    np.testing.assert_array_equal(model.forward(ROWS), logits)


def test_a_type_that_only_the_portable_kernels_multiply_warns_once(directory: Path) -> None:
    program = """
import sys, kdistill as kd
load = kd.BertForSequenceClassification.from_pretrained
load(sys.argv[1], dtype='bfloat16')
load(sys.argv[1], torch_dtype='bfloat16')
load(sys.argv[1]).freeze('bfloat16')
load(sys.argv[1]).training_dtype = 'bfloat16'
"""
    environment = {**os.environ, "KDISTILL_ISA": "generic"}
    command = [sys.executable, "-c", program, str(directory)]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stderr
    assert said.count("UserWarning") == 1
    assert "bfloat16 is computed portably" in said
    assert "come no sooner than in float32; native here are float32 (generic)" in said


# ---- trained


def test_training_in_bfloat16_is_a_property_of_a_model_that_can_be_trained() -> None:
    model = small_model()
    assert model.training_dtype == "float32"
    exact = model.forward(ROWS, train=True)
    model.backward(np.ones_like(exact))
    model.training_dtype = "bfloat16"
    assert (model.training_dtype, model.dtype, model.core.compute) == ("bfloat16", np.float32, "bfloat16")
    assert not model.flat_gradients.any()
    model.tokens_in_step = 0
    logits = model.forward(ROWS, train=True)
    assert (logits != exact).any()
    model.backward(np.ones_like(logits))
    assert model.flat_gradients.any()
    assert copy.deepcopy(model).training_dtype == pickle.loads(pickle.dumps(model)).training_dtype == "bfloat16"
    assert model.freeze().dtype == np.float32


def test_training_in_another_type_is_refused() -> None:
    model = small_model()
    with pytest.raises(
        ValueError, match="training_dtype is int8, in which no model is trained; expected float32 or bf"
    ):
        model.training_dtype = "int8"
    with pytest.raises(ValueError, match="training_dtype is float16, in which kdistill does not compute"):
        model.training_dtype = "float16"
    with pytest.raises(RuntimeError, match="the model is frozen"):
        model.freeze().training_dtype = "bfloat16"


@pytest.mark.parametrize("dtype", ["float32", *NARROW])
def test_a_frozen_model_is_not_trained(directory: Path, dtype: str) -> None:
    model = load(directory, dtype=dtype)
    remedy = "load one without dtype= to train it"
    with pytest.raises(RuntimeError, match=f"it has no gradients; {remedy}"):
        model.forward(ROWS, train=True)
    with pytest.raises(RuntimeError, match="backward"):
        model.backward(np.ones((3, 2), np.float32))
    with pytest.raises(RuntimeError, match=f"its embeddings cannot be resized; {remedy}"):
        model.resize_token_embeddings(20)
    with pytest.raises(RuntimeError, match=f"it cannot be trained; {remedy}"):
        kd.AdamW(model)


# ---- the key of its logits


def test_the_key_of_a_float32_classifier_is_that_of_earlier_versions() -> None:
    model = small_model()
    names = (
        "num_labels", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size",
        "max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps",
    )  # fmt: skip
    fields = {name: getattr(model.config, name) for name in names}
    about = json.dumps([fields, _core.NUMERICS_VERSION, _core.ISA_LEVEL, _core.BLIS_VERSION], sort_keys=True)
    expected = hashlib.sha256(about.encode() + model.flat_parameters.tobytes()).hexdigest()
    assert model.weights_hash() == model.freeze("float32").weights_hash() == expected


def test_the_key_holds_compute_type_kernels_and_head(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [small_model().freeze(dtype).weights_hash() for dtype in ("float32", *NARROW)]
    for isa in ("one", "another", None):
        with monkeypatch.context() as patch:
            patch.setattr(_core, "COMPUTE", {"float32": "x", "bfloat16": isa or "plain", "int8": isa or "plain"})
            keys += [small_model().freeze(dtype).weights_hash() for dtype in NARROW]
    other = small_model()
    monkeypatch.setattr(type(other), "head", "token-classification")
    keys.append(other.weights_hash())
    assert len(set(keys)) == len(keys)


# ---- memory


def weights_of_products(model: Model) -> int:
    """The values of all matrices but the embeddings."""
    return sum(view.size for name, view in model.parameters.items() if view.ndim == 2 and "embeddings" not in name)


@pytest.mark.parametrize(("dtype", "width"), [("bfloat16", 2), ("int8", 1)])
def test_packed_weights_are_there_alone(directory: Path, dtype: str, width: int) -> None:
    exact = load(directory)
    products = weights_of_products(exact)
    rest = exact.num_parameters() - products
    model = load(directory, dtype=dtype)
    panels = model.core.packed_bytes  # with the head and the last layer's key and value, which are float32
    assert panels >= width * products
    assert model.get_memory_footprint() == 4 * rest + panels
    exact.freeze(dtype).forward(ROWS)
    assert exact.core.packed_bytes == panels
    assert exact.get_memory_footprint() == 4 * exact.num_flat + panels


@pytest.mark.parametrize("dtype", NARROW)
def test_weights_that_are_given_up_change_nothing_else(directory: Path, dtype: str) -> None:
    kept = load(directory).freeze(dtype)
    logits, keys = kept.forward(ROWS), (kept.weights_hash(), kept.weights_digest())
    assert keys[1] == hashlib.sha256(kept.flat_parameters.tobytes()).hexdigest()
    for model in (load(directory, dtype=dtype), load(directory).freeze(dtype, keep_weights=False)):
        assert (model.weights_hash(), model.weights_digest()) == keys
        np.testing.assert_array_equal(model.forward(ROWS), logits)
        model.release()
        np.testing.assert_array_equal(model.forward(ROWS), logits)
        assert model.freeze() is model.freeze(dtype) is model.freeze(keep_weights=False)


def test_float32_weights_can_be_given_up_too(directory: Path) -> None:
    model = load(directory)
    logits, key = model.forward(ROWS), model.weights_hash()
    model.freeze(keep_weights=False)
    np.testing.assert_array_equal(model.forward(ROWS), logits)
    assert model.weights_hash() == key
    with pytest.raises(RuntimeError, match="the model holds its weights in float32 alone, packed to evaluate"):
        model.state_dict()


@pytest.mark.parametrize("dtype", ["float32", *NARROW])
def test_a_model_that_is_packed_alone_takes_every_type_from_its_files(directory: Path, dtype: str) -> None:
    exact = load(directory)
    trained = copy.deepcopy(exact)
    model = load(directory, dtype=dtype, keep_weights=False)
    assert (model.frozen, str(model.dtype), model.holds_float32, model.only_type) == (True, dtype, False, None)
    for other in (dtype, "int8", "float32", "bfloat16", dtype):
        exact.freeze(other)
        assert model.weights_hash(other) == exact.weights_hash(other) == exact.weights_hash()
        np.testing.assert_array_equal(model.freeze(other).forward(ROWS), exact.forward(ROWS))
        assert model.weights_hash() == exact.weights_hash()
        assert not model.holds_float32
    assert model.weights_digest() == trained.weights_digest()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(copied.flat_parameters, trained.flat_parameters)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).forward(ROWS), model.forward(ROWS))


def test_without_a_type_a_model_that_is_packed_alone_is_float32(directory: Path, tmp_path: Path) -> None:
    model = load(directory, keep_weights=False)
    assert (model.frozen, str(model.dtype), model.holds_float32) == (True, "float32", False)
    small_model(1).save_pretrained(tmp_path)
    model = load(tmp_path, keep_weights=False)
    small_model(2).save_pretrained(tmp_path)
    logits = model.forward(ROWS)
    for needs_the_files in (lambda: model.freeze("int8"), lambda: copy.deepcopy(model), lambda: model.weights_hash()):
        with pytest.raises(RuntimeError, match="has other weights than when the model was loaded from it"):
            needs_the_files()
    np.testing.assert_array_equal(model.forward(ROWS), logits)
    with pytest.raises(RuntimeError, match="holds its weights in float32 alone"):
        model.save_pretrained(tmp_path)


def test_an_interrupt_leaves_the_weights_there(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(directory)
    logits = model.freeze("int8").forward(ROWS)
    taken: list[str] = []

    def interrupted(filling: PackedFilling, tensor: Tensor) -> Any:
        taken.append(tensor.name)
        if len(taken) > 9:
            raise KeyboardInterrupt
        return original(filling, tensor)

    original = PackedFilling.__call__
    monkeypatch.setattr(PackedFilling, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.freeze(keep_weights=False)
    np.testing.assert_array_equal(model.forward(ROWS), logits)
    np.testing.assert_array_equal(model.flat_parameters, load(directory).flat_parameters)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("dtype", NARROW)
def test_a_forked_child_computes_the_same(directory: Path, dtype: str) -> None:
    model = load(directory, dtype=dtype)
    logits = model.forward(ROWS)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=lambda: there.send(model.forward(ROWS)))  # of the model itself, not a pickled one
    child.start()
    assert here.poll(60)
    np.testing.assert_array_equal(here.recv(), logits)
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.parametrize("dtype", NARROW)
def test_what_needs_weights_that_were_given_up(directory: Path, tmp_path: Path, dtype: str) -> None:
    model = load(directory, dtype=dtype)
    for needs_them in (
        lambda: model.save_pretrained(tmp_path / "out"),
        lambda: copy.deepcopy(model),
        lambda: pickle.dumps(model),
        lambda: model.state_dict(),
        lambda: model.parameters["classifier.bias"],
        lambda: model.freeze("float32"),
    ):
        with pytest.raises(RuntimeError, match=f"holds its weights in {dtype} alone.* load it without dtype="):
            needs_them()
    assert not (tmp_path / "out").exists()
    assert str(model.dtype) == dtype
    model.forward(ROWS)


@pytest.mark.parametrize("dtype", NARROW)
def test_a_student_copies_the_layers_of_a_narrow_teacher_from_its_files(directory: Path, dtype: str) -> None:
    exact, model = load(directory), load(directory, dtype=dtype)
    config = exact.config.replace(num_hidden_layers=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student = kd.BertForSequenceClassification.from_teacher(model, config, seed=2)
    expected = kd.BertForSequenceClassification.from_teacher(exact, config, seed=2)
    np.testing.assert_array_equal(student.flat_parameters, expected.flat_parameters)
    assert str(model.dtype) == dtype
    assert not model.holds_float32
    with pytest.raises(RuntimeError, match="load it without dtype="):
        kd.BertForSequenceClassification.from_teacher(exact.freeze(dtype, keep_weights=False), config)


def test_files_with_other_weights_by_now_are_no_teachers(tmp_path: Path) -> None:
    small_model(1).save_pretrained(tmp_path)
    model = load(tmp_path, dtype="int8")
    small_model(2).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="has other weights than when the model was loaded from it"):
        kd.BertForSequenceClassification.from_teacher(model, model.config)


def test_a_frozen_model_with_its_weights_is_saved_in_float32(directory: Path, tmp_path: Path) -> None:
    model = load(directory)
    weights = np.array(model.flat_parameters)
    model.freeze("int8").save_pretrained(tmp_path)
    np.testing.assert_array_equal(load(tmp_path).flat_parameters, weights)


def test_loading_in_int8_never_takes_what_float32_takes(tmp_path: Path) -> None:
    """The peak of a process that loads 25 million weights of products, above that of one that only imports."""
    config = kd.BertConfig(
        vocab_size=100, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=2048
    )
    kd.BertForSequenceClassification(config).save_pretrained(tmp_path)
    program = (
        "import re, sys, kdistill as kd; cls = kd.BertForSequenceClassification\n"
        "model = cls.from_pretrained(sys.argv[1], dtype=sys.argv[2]) if len(sys.argv) > 2 else None\n"
        "_ = model and model.forward([[1, 2, 3]])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )

    def peak(*dtype: str) -> int:
        command = [sys.executable, "-c", program, str(tmp_path), *dtype]
        return 1024 * int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    weights, start = 8 * (4 * 512 * 512 + 2 * 512 * 2048), peak()
    assert peak("float32") - start > 7 * weights
    assert peak("bfloat16") - start < 3.5 * weights
    assert peak("int8") - start < 2.5 * weights


def test_the_core_packs_tensors_of_frozen_models_by_their_place() -> None:
    model = small_model()
    with pytest.raises(ValueError, match=r"tensor 99 cannot be packed; expected one of the \d+ of a frozen model"):
        model.freeze().core.pack(99, np.zeros((16, 16), np.float32))
    index = next(i for i, tensor in enumerate(model.layout) if tensor.shape == (16, 16))
    with pytest.raises(ValueError, match="values"):
        model.core.pack(index, np.zeros((16, 15), np.float32))
    assert model.core.packed_bytes == 0
    trained = small_model()
    with pytest.raises(ValueError, match="cannot be packed"):
        trained.trainable_core().pack(index, np.zeros((16, 16), np.float32))


# ---- on real rows


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="there is no ../shared with the teacher and its rows")
def test_the_shared_teacher_answers_as_in_float32() -> None:
    """The bounds: bfloat16 at most 3 fewer right of 872 and 0.995 alike; int8 at most 5 fewer and 0.985 alike."""
    teacher = SHARED / "models" / "minilm-l6-sst2"
    with (SHARED / "data" / "SST-2" / "dev.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels = np.array([int(row["label"]) for row in rows])
    ids = kd.AutoTokenizer.from_pretrained(teacher)([row["sentence"] for row in rows])["input_ids"]
    answers = {dtype: load(teacher, dtype=dtype).forward(ids).argmax(1) for dtype in ("float32", *NARROW)}
    right = {dtype: int((answer == labels).sum()) for dtype, answer in answers.items()}
    assert len(labels) == 872
    for dtype, fewer, alike in (("bfloat16", 3, 0.995), ("int8", 5, 0.985)):
        assert right["float32"] - right[dtype] <= fewer
        assert (answers[dtype] == answers["float32"]).mean() >= alike


def test_a_layer_too_wide_for_int32_sums_is_refused_in_int8() -> None:
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 30}
    widest = kd.BertForSequenceClassification(kd.BertConfig(**shape, intermediate_size=66_310), seed=1)
    assert widest.freeze("int8").dtype == "int8"
    wider = kd.BertForSequenceClassification(kd.BertConfig(**shape, intermediate_size=66_311), seed=1)
    with pytest.raises(ValueError, match=r"a layer is 66311 wide.* expected at most 66310, or another dtype"):
        wider.freeze("int8")
    assert wider.dtype == "float32"
    assert not wider.frozen
    assert wider.freeze("bfloat16").dtype == "bfloat16"
