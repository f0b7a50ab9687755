"""`kd.quantize`: int8 artefacts, what they hold, where they load and what happens to those that do not fit."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.small_architectures import write_encoder
from support.small_run import labelled_rows, sentences, small_model, write_rows

import kdistill as kd
from kdistill.compress.int8 import int8_tensors
from kdistill.models.auto import load_trained
from kdistill.models.registry import ARCHITECTURES
from kdistill.serve.classifier import Classifier

ROWS = labelled_rows(24)
BATCH = [[2, 5, 9, 3], [2, 6, 3], [2, 7, 12, 10, 11, 8, 3]]


def copy_of(artefact: Path, directory: Path) -> Path:
    directory.mkdir()
    for file in artefact.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    return directory


def change_tensors(directory: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory


def test_rows_are_rounded_to_a_127th_of_their_largest_number(artefact: Path, original: Path) -> None:
    stored, weights = load_file(artefact / "model.safetensors"), load_file(original / "model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    w = weights[name].astype(np.float64)
    scale = np.abs(w).max(axis=1, keepdims=True) / 127
    assert stored[name].dtype == np.int8
    np.testing.assert_allclose(stored[f"{name}_scale"], scale, rtol=1e-7)
    np.testing.assert_array_equal(stored[name], np.rint(w / scale))
    for other in ("bert.encoder.layer.1.attention.self.key.weight", "bert.pooler.dense.weight", "classifier.weight"):
        np.testing.assert_array_equal(stored[other], weights[other])


MODELS = [
    *((model_type, "SequenceClassification") for model_type in ARCHITECTURES),
    *(("bert", head) for head in ("TokenClassification", "QuestionAnswering", "MaskedLM")),
    ("albert", "MaskedLM"),
    ("electra", "TokenClassification"),
    ("mpnet", "QuestionAnswering"),
]


@pytest.mark.parametrize(("model_type", "head"), MODELS)
def test_logits_have_the_bits_of_the_original_in_int8(tmp_path: Path, model_type: str, head: str) -> None:
    encoder, kind = write_encoder(model_type, tmp_path / "encoder"), f"{ARCHITECTURES[model_type].name}For{head}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(kd, kind).from_pretrained(encoder, seed=3)
    model.save_pretrained(tmp_path / "model")
    rows = kd.Dataset(*kd.pack(BATCH), np.full(len(BATCH), -100))
    tokenizer = kd.AutoTokenizer.from_pretrained(encoder)
    if head == "QuestionAnswering":
        answers = {"text": ["plot"], "answer_start": [4]}
        rows = [{"id": "1", "question": "good film", "context": "bad plot", "answers": answers}]
    elif head == "MaskedLM":
        rows = ["good film great plot awful scene bad actor"]
    elif head == "TokenClassification":
        rows = [{"tokens": ["good", "film"], "labels": [0, 1]}, {"tokens": ["bad"], "labels": [1]}]
    kd.quantize(model, rows, tmp_path / "int8", float_embeddings=True, processing_class=tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_trained(tmp_path / "int8")
    expected = type(model).from_pretrained(tmp_path / "model", dtype="int8")
    assert type(loaded) is type(model)
    assert str(loaded.dtype) == "int8"
    np.testing.assert_array_equal(loaded.forward(BATCH), expected.forward(BATCH))


def test_an_encoder_that_embeds_texts_keeps_its_pooling(tmp_path: Path) -> None:
    encoder = write_encoder("bert", tmp_path / "encoder")
    model = kd.BertModel.from_pretrained(encoder, pooling="mean", normalize=True)
    tokenizer = kd.AutoTokenizer.from_pretrained(encoder)
    texts = ["good film", "bad plot", "awful scene"]
    kd.quantize(model, texts, tmp_path / "int8", float_embeddings=True, processing_class=tokenizer)
    loaded = load_trained(tmp_path / "int8")
    np.testing.assert_array_equal(loaded.forward(BATCH), model.freeze("int8").forward(BATCH))


def test_a_narrow_type_holds_no_float32_weights_of_products(artefact: Path) -> None:
    loaded = load_trained(artefact)
    assert loaded.frozen
    assert not loaded.holds_float32
    with pytest.raises(RuntimeError, match='load it with dtype="float32"'):
        _ = loaded.flat_parameters


@pytest.mark.parametrize(
    ("model_type", "head"),
    [
        ("bert", "SequenceClassification"),
        ("distilbert", "TokenClassification"),
        ("albert", "SequenceClassification"),
        ("roberta", "SequenceClassification"),
        ("bert", "MaskedLM"),
    ],
)
def test_word_embeddings_in_int8_stay_so_and_have_the_bits_of_widened_ones(
    tmp_path: Path, model_type: str, head: str
) -> None:
    encoder, kind = write_encoder(model_type, tmp_path / "encoder"), f"{ARCHITECTURES[model_type].name}For{head}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(kd, kind).from_pretrained(encoder, seed=3)
        rows = kd.Dataset(*kd.pack(BATCH), np.full(len(BATCH), -100))
        data: Any = {
            "MaskedLM": ["good film great plot awful scene bad actor"],
            "TokenClassification": [{"tokens": ["good", "film"], "labels": [0, 1]}],
        }.get(head, rows)
        kd.quantize(model, data, tmp_path / "int8", processing_class=kd.AutoTokenizer.from_pretrained(encoder))
        loaded = load_trained(tmp_path / "int8")
        widened = load_trained(tmp_path / "int8", dtype="float32")
    assert loaded.weights_digest() == widened.weights_digest()
    held, words = loaded.get_memory_footprint(), widened.parameters[widened.layout[0].name]
    of_float32 = widened.freeze("int8", keep_weights=False)
    np.testing.assert_array_equal(loaded.forward(BATCH), of_float32.forward(BATCH))
    assert loaded.weights_hash() == of_float32.weights_hash()
    saved = 0 if head == "MaskedLM" else 3 * words.size - 4 * len(words)  # its last product has them in float32
    assert held == of_float32.get_memory_footprint() - saved
    np.testing.assert_array_equal(loaded.float32_tensors["embeddings.word"], words)


def test_config_json_describes_the_modules_in_int8(artefact: Path, original: Path, tmp_path: Path) -> None:
    """With compressed-tensors the oracle reads it; see tests/oracle/test_int8_transformers.py."""
    described = json.loads((artefact / "config.json").read_text())["quantization_config"]
    groups, stored = described["config_groups"], load_file(artefact / "model.safetensors")
    scaled = {name.removesuffix(".weight_scale") for name in stored if name.endswith("_scale")}
    assert {*groups["products"]["targets"], *groups["embeddings"]["targets"]} == scaled
    assert {*groups["embeddings"]["targets"]} == {name for name in scaled if "embeddings" in name}
    assert groups["products"]["format"] == groups["embeddings"]["format"] == described["format"] == "int-quantized"
    assert groups["products"]["input_activations"]["dynamic"]
    assert groups["products"]["input_activations"]["strategy"] == "token"
    assert described["ignore"] == []
    kd.quantize(original, ROWS, tmp_path / "float", float_embeddings=True)
    described = json.loads((tmp_path / "float" / "config.json").read_text())["quantization_config"]
    assert [*described["config_groups"]] == ["products"]


def test_a_core_takes_words_of_its_shape_alone() -> None:
    trained, frozen = small_model(), small_model().freeze()
    (rows, width), core = frozen.layout[0].shape, frozen.core
    integers, scales = np.zeros((rows, width), np.int8), np.zeros((rows, 1), np.float32)
    with pytest.raises(ValueError, match="if it is frozen"):
        trained.trainable_core().take_words(integers, scales)
    with pytest.raises(ValueError, match=f"integers has {rows * width - width} elements; expected {rows * width}"):
        core.take_words(integers[1:], scales)
    with pytest.raises(ValueError, match=f"scales has {rows - 1} elements; expected {rows}"):
        core.take_words(integers, scales[1:])
    with pytest.raises(TypeError, match="integers must be an array of int8, not of uint8"):
        core.take_words(integers.astype(np.uint8), scales)  # type: ignore[arg-type]
    before = frozen.forward(BATCH)
    for sign in (1, -1):  # the second takes the place of the first
        core.take_words(integers + np.int8(sign), scales + np.float32(0.5))
    assert not np.array_equal(frozen.forward(BATCH), before)


def test_a_server_and_a_pipeline_compute_in_int8(artefact: Path) -> None:
    served, pipeline = Classifier.load(artefact), kd.pipeline("text-classification", artefact)
    expected = load_trained(artefact).forward(BATCH)
    for model in (served.model, pipeline.model):
        np.testing.assert_array_equal(model.forward(BATCH), expected)


def test_it_loads_from_the_cache_of_the_hub(artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--me--int8"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    copy_of(artefact, repository / "snapshots" / "abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    loaded = kd.AutoModelForSequenceClassification.from_pretrained("me/int8")
    np.testing.assert_array_equal(loaded.forward(BATCH), load_trained(artefact).forward(BATCH))


def test_another_type_is_dequantised_with_a_warning(artefact: Path) -> None:
    with pytest.warns(UserWarning, match="is an int8 artefact, and is read in float32"):
        widened = load_trained(artefact, dtype="float32")
    stored = load_file(artefact / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(widened.parameters[name], stored[name] * stored[f"{name}_scale"])
    np.testing.assert_array_equal(widened.freeze("int8").forward(BATCH), load_trained(artefact).forward(BATCH))


def test_golden_logits_that_do_not_match_give_float32_with_one_warning(artefact: Path, tmp_path: Path) -> None:
    def shift(tensors: dict[str, Any]) -> None:
        tensors["golden.logits"] = tensors["golden.logits"] + np.float32(1)

    changed = change_tensors(copy_of(artefact, tmp_path / "int8"), shift)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load_trained(changed)
    assert [str(w.message).partition(": ")[0].rpartition(" does ")[2] for w in caught] == [
        "not give its golden logits in int8 here"
    ]
    assert str(loaded.dtype) == "float32"
    with pytest.warns(UserWarning, match="is read in float32"):
        expected = load_trained(artefact, dtype="float32")
    np.testing.assert_array_equal(loaded.forward(BATCH), expected.forward(BATCH))


WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("golden.logits"), "has no golden.logits of type F32"),
        (lambda t: t.update({"golden.input_ids": t["golden.input_ids"] + 1000}), "golden rows are none of this model"),
        (lambda t: t.pop(f"{WORDS}_scale"), "as I8; expected floating-point numbers"),
        (lambda t: t.update({f"{WORDS}_scale": t[f"{WORDS}_scale"][1:]}), "a float32 for each of its rows"),
        (lambda t: t.update({f"{WORDS}_scale": -t[f"{WORDS}_scale"]}), "negative or not finite"),
        (lambda t: t.update({WORDS: np.full_like(t[WORDS], -128)}), "integers below -127"),
    ],
)
def test_a_damaged_artefact_gives_one_clear_error(
    artefact: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    damaged = change_tensors(copy_of(artefact, tmp_path / "int8"), change)
    with pytest.raises(ValueError, match=message):
        load_trained(damaged)


def test_a_truncated_artefact_gives_one_clear_error(artefact: Path, tmp_path: Path) -> None:
    damaged = copy_of(artefact, tmp_path / "int8")
    content = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is truncated"):
        load_trained(damaged)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantization_config must be {}"),
        ({"quant_method": "compressed-tensors", "kdistill": {"version": 2}}, "a later kdistill wrote it"),
        ({"quant_method": "compressed-tensors", "kdistill": {"version": 1}}, "kdistill has embeddings None"),
    ],
)
def test_a_foreign_artefact_gives_one_clear_error(
    artefact: Path, tmp_path: Path, described: dict[str, Any], message: str
) -> None:
    foreign = copy_of(artefact, tmp_path / "int8")
    config = json.loads((foreign / "config.json").read_text()) | {"quantization_config": described}
    (foreign / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_trained(foreign)


def test_a_model_object_stays_as_it_was(tmp_path: Path) -> None:
    model = small_model()
    kd.quantize(model, kd.Dataset(*kd.pack(BATCH), np.zeros(len(BATCH), np.int64)), tmp_path / "int8")
    assert (model.frozen, model.holds_float32) == (False, True)


def test_the_tokenizer_of_a_model_object_is_that_of_its_directory(original: Path, tmp_path: Path) -> None:
    read = kd.AutoModelForSequenceClassification.from_pretrained(original)
    assert (read.name_or_path, small_model().name_or_path) == (str(original), "")
    assert pickle.loads(pickle.dumps(read)).name_or_path == str(original)
    kd.quantize(read, ROWS, tmp_path / "int8")
    expected, found = (kd.AutoTokenizer.from_pretrained(path).vocab for path in (original, tmp_path / "int8"))
    assert found == expected


def test_the_size_of_the_original_is_that_of_all_its_shards(original: Path, tmp_path: Path) -> None:
    sharded, tensors = copy_of(original, tmp_path / "sharded"), load_file(original / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    names = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    of = {name: names[place % 2] for place, name in enumerate(tensors)}
    for name in names:
        save_file({tensor: tensors[tensor] for tensor in tensors if of[tensor] == name}, sharded / name)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": of}))
    figures = kd.quantize(sharded, ROWS, tmp_path / "int8")
    assert figures["bytes_before"] == sum((sharded / name).stat().st_size for name in names)
    assert figures["size_ratio"] == figures["bytes_after"] / figures["bytes_before"]


def test_an_artefact_is_neither_trained_nor_quantised_again(artefact: Path, tmp_path: Path) -> None:
    loaded = load_trained(artefact)
    with pytest.raises(RuntimeError, match="the model is an int8 artefact, which only evaluates"):
        loaded.forward(BATCH, train=True)
    with pytest.raises(ValueError, match="is an int8 artefact already"):
        kd.quantize(loaded, ROWS, tmp_path / "again")
    with pytest.raises(ValueError, match="is an int8 artefact already"):
        kd.quantize(artefact, ROWS, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_nothing_is_written_where_something_is(original: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("mine")
    with pytest.raises(FileExistsError, match=r"output is .*expected a new directory"):
        kd.quantize(original, ROWS, tmp_path / "kept")
    (tmp_path / "a file").write_text("mine")
    with pytest.raises(OSError, match="cannot be written"):
        kd.quantize(original, ROWS, tmp_path / "a file" / "int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file", "kept"]


def test_a_failure_leaves_nothing_behind(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdistill.compress.int8.write_config", fail)
    with pytest.raises(OSError, match="No space left"):
        kd.quantize(original, ROWS, tmp_path / "new" / "int8")
    assert not [*tmp_path.iterdir()]


def test_figures_compare_both_models(original: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.tsv", 40)
    figures = kd.quantize(original, rows, tmp_path / "int8")
    before = load_trained(original)
    after = load_trained(tmp_path / "int8")
    tokenizer = kd.AutoTokenizer.from_pretrained(original)
    texts, labels = zip(*sentences(40), strict=True)
    right = [model(**tokenizer([*texts])).logits.argmax(axis=1) == labels for model in (before, after)]
    assert figures["n"] == 40
    assert [figures["right_before"], figures["right_after"]] == [int(of.sum()) for of in right]
    assert figures["before"]["accuracy"] == right[0].mean()
    assert figures["mcnemar"]["only_first"] == int((right[0] & ~right[1]).sum())
    assert figures["bytes_after"] == (tmp_path / "int8" / "model.safetensors").stat().st_size
    card = (tmp_path / "int8" / "README.md").read_text()
    assert f"Right are {figures['right_before']} before and {figures['right_after']} in int8" in card


def test_a_pruned_model_keeps_the_shapes_of_its_layers(original: Path, tmp_path: Path) -> None:
    kd.prune(original, ROWS, tmp_path / "pruned", heads=0.5, feed_forward=0.5, scope="global")
    kd.quantize(tmp_path / "pruned", ROWS, tmp_path / "int8", float_embeddings=True)
    loaded, pruned = load_trained(tmp_path / "int8"), load_trained(tmp_path / "pruned", dtype="int8")
    assert [tensor.shape for tensor in loaded.layout] == [tensor.shape for tensor in pruned.layout]
    np.testing.assert_array_equal(loaded.forward(BATCH), pruned.forward(BATCH))


def test_rows_without_labels_are_compared_by_their_answers(original: Path, tmp_path: Path) -> None:
    figures = kd.quantize(original, [text for text, _ in sentences(8)], tmp_path / "int8")
    assert "mcnemar" not in figures
    assert 0 <= figures["agreement"] <= 1


def test_a_student_starts_from_an_artefact_as_from_its_weights(artefact: Path) -> None:
    teacher = load_trained(artefact)
    with pytest.warns(UserWarning, match="is read in float32"):
        widened = load_trained(artefact, dtype="float32")
    narrower = teacher.config.replace(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16)
    for config in (narrower, teacher.config.replace(num_hidden_layers=1), teacher.config):
        students = [kd.BertForSequenceClassification.from_teacher(of, config) for of in (teacher, widened)]
        np.testing.assert_array_equal(students[0].flat_parameters, students[1].flat_parameters)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    stored = load_file(artefact / "model.safetensors")
    np.testing.assert_array_equal(students[0].parameters[name], stored[name] * stored[f"{name}_scale"])
    assert str(teacher.dtype) == "int8"


def test_tensors_of_int8_are_those_of_an_int8_engine() -> None:
    names = {tensor.canonical for tensor in int8_tensors(small_model(), embeddings=False)}
    layers = {f"layer.{i}.{name}" for i in (0, 1) for name in ("query", "key", "value", "output", "up", "down")}
    assert names == layers - {"layer.1.key", "layer.1.value"}
