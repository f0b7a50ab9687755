"""Exported graphs in the programs that they are made for, against kdistill's own logits."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architecture_cases import CASES, ENDINGS, Case, random_rows, small
from numpy.typing import NDArray
from support.small_run import write_model, write_pretrained

import kdistill as kd
from kdistill.bench.other_runtimes import export_onnx
from kdistill.cli import main as cli
from kdistill.exporters import onnx_check
from kdistill.exporters.onnx_check import CheckedRows, expected_outputs
from kdistill.exporters.onnx_graph import graph_of
from kdistill.models.loading import RandomWeights
from kdistill.models.sentence_files import has_sentence_files

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

LENGTHS = (7, 1, 20, 3)
TOLERANCE = 1e-4  # logits here are of the order 10, and two programs add sums of up to 84 products in other orders
FUSED = ("Attention", "BiasGelu", "FastGelu", "Gelu", "SkipLayerNormalization", "EmbedLayerNormalization")


def outputs_of(path: Path, padded: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.float32]]:
    """What ONNX Runtime returns for padded rows, by name; of each token what is not padding."""
    session = onnxruntime.InferenceSession(path)
    per_token = {output.name: "sequence_length" in output.shape for output in session.get_outputs()}
    present = padded["attention_mask"] == 1
    found = dict(zip(per_token, session.run([*per_token], padded), strict=True))
    return {name: value[present] if per_token[name] else value for name, value in found.items()}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_graph_gives_padded_rows_the_logits_of_kdistill(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: Case, ending: str
) -> None:
    monkeypatch.setattr("kdistill.exporters.onnx.compared", lambda *_: 0.0)  # the check is not to be its own witness
    model = small(case, ending)
    path = kd.export(model, tmp_path / "m.onnx", format="onnx").path
    rows = random_rows(case, LENGTHS, seed=1)
    last = ("hidden", model.config.num_hidden_layers)
    logits, inside = model.forward(rows.packed, taps=[last])
    shape = (len(LENGTHS), max(LENGTHS))
    mask = (np.arange(shape[1]) < np.array(LENGTHS)[:, None]).astype(np.int64)
    padded = {"attention_mask": mask, **{name: np.full(shape, 3) for name in ("input_ids", "token_type_ids")}}
    padded["token_type_ids"][:] = 0
    padded["input_ids"][mask == 1] = np.concatenate(rows.ids)
    padded["token_type_ids"][mask == 1] = np.concatenate(rows.types)
    if case.types < 2:
        del padded["token_type_ids"]
    found = outputs_of(path, padded)
    if ending == "Model":
        assert list(found) == ["last_hidden_state"]
        logits = inside[last]
    values = np.stack(list(found.values()), axis=-1) if len(found) == 2 else next(iter(found.values()))
    assert values.shape == logits.shape
    assert np.abs(values - logits).max() < TOLERANCE
    assert np.abs(logits).max() > 1


@pytest.mark.parametrize("name", ["Roberta", "MPNet"])
def test_padding_may_stand_in_front_where_positions_follow_the_mask(tmp_path: Path, name: str) -> None:
    model = small(CASES[name], "ForTokenClassification")
    path = kd.export(model, tmp_path / "m.onnx", format="onnx").path
    rows = CheckedRows.of(model, LENGTHS)
    flipped = {given: np.zeros_like(values) for given, values in rows.padded.items()}
    for given, values in rows.padded.items():
        for row, length in enumerate(LENGTHS):
            flipped[given][row, values.shape[1] - length :] = values[row, :length]
    difference = outputs_of(path, flipped)["logits"] - model.forward(rows.packed)
    assert np.abs(difference).max() < TOLERANCE


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_an_encoder_gives_the_embeddings_of_texts(tmp_path: Path, pooling: str, normalize: bool) -> None:
    model = small(CASES["Bert"], "Model")
    assert isinstance(model, kd.BertModel)
    model = model.with_pooling(pooling, normalize)
    path = kd.export(model, tmp_path / "m.onnx", format="onnx").path
    rows = CheckedRows.of(model)
    found, expected = outputs_of(path, rows.padded), expected_outputs(model, rows)
    assert [*found] == ["last_hidden_state", "sentence_embedding"]
    for name, values in found.items():
        assert np.abs(values - expected[name]).max() < TOLERANCE
    kd.export(model, tmp_path / "directory", format="onnx")
    assert has_sentence_files(tmp_path / "directory")


def test_as_many_labels_or_numbers_of_a_text_as_tokens_are_no_rows_of_tokens(tmp_path: Path) -> None:
    tokens = CheckedRows.of(small(CASES["Bert"], "Model")).padded["attention_mask"].shape[1]
    classifier = small(CASES["Bert"], "ForSequenceClassification", num_labels=tokens)
    assert kd.export(classifier, tmp_path / "c.onnx", format="onnx").largest_difference < TOLERANCE
    embedder = small(CASES["Bert"], "Model", hidden_size=tokens, num_attention_heads=2).with_pooling("mean", True)
    assert kd.export(embedder, tmp_path / "e.onnx", format="onnx").largest_difference < TOLERANCE


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_embedding_of_length_zero_stays_one(tmp_path: Path, dtype: str) -> None:
    model = small(CASES["Bert"], "Model")
    assert isinstance(model, kd.BertModel)
    last = f"encoder.layer.{model.config.num_hidden_layers - 1}.output.LayerNorm"
    for name in ("weight", "bias"):
        model.parameters[f"{last}.{name}"][:] = 0
    model = model.with_pooling("mean", True)
    path = kd.export(model, tmp_path / "m.onnx", format="onnx", dtype=dtype).path
    assert not outputs_of(path, CheckedRows.of(model).padded)["sentence_embedding"].any()


def test_int8_weights_have_a_scale_for_each_output(tmp_path: Path) -> None:
    model = small(CASES["Bert"], "ForSequenceClassification")
    path = kd.export(model, tmp_path / "m.onnx", format="onnx", dtype="int8").path
    scales = [array for array in onnx.load(path).graph.initializer if "query" in array.name and "_scale" in array.name]
    assert [list(array.dims) for array in scales] == [[model.config.hidden_size]] * model.config.num_hidden_layers


def test_a_model_beyond_the_size_of_a_message_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kdistill.exporters.onnx._MOST_BYTES", 1000)
    with pytest.raises(ValueError, match=r"the model takes [\d,]+ bytes; expected at most 1,000, which an ONNX file"):
        kd.export(small(CASES["Bert"], "ForSequenceClassification"), tmp_path / "m.onnx", format="onnx")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu", "quick_gelu", "tanh"])
def test_every_activation_is_computed(tmp_path: Path, activation: str) -> None:
    model = small(CASES["Bert"], "ForSequenceClassification", hidden_act=activation)
    assert kd.export(model, tmp_path / "m.onnx", format="onnx").largest_difference < TOLERANCE


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("name", ["Bert", "Albert", "MPNet"])
@pytest.mark.parametrize("ending", ["ForSequenceClassification", "ForMaskedLM"])
def test_narrow_types_are_near(tmp_path: Path, name: str, ending: str, dtype: str) -> None:
    model = small(CASES[name], ending, initializer_range=0.1)
    written = kd.export(model, tmp_path / "m.onnx", format="onnx", dtype=dtype)
    rows = CheckedRows.of(model)
    found, expected = outputs_of(written.path, rows.padded)["logits"], expected_outputs(model, rows)["logits"]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > (0.9999 if dtype == "float16" else 0.99)
    graph = onnx.load(written.path)
    types = {each.data_type for each in graph.graph.initializer if len(each.dims) == 2 and min(each.dims) > 1}
    kept = {onnx.TensorProto.FLOAT} if ending == "ForSequenceClassification" else set()  # the head's products
    integers = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8} | kept  # products, tables
    assert types == ({onnx.TensorProto.FLOAT16} if dtype == "float16" else integers)
    whole = kd.export(model, tmp_path / "whole.onnx", format="onnx")
    assert written.largest_difference > whole.largest_difference


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_fuses_every_layer_while_it_loads_a_graph(tmp_path: Path, name: str) -> None:
    model = small(CASES[name], "ForSequenceClassification", vocab_size=200)
    path = kd.export(model, tmp_path / "m.onnx", format="onnx").path
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3  # it warns that such a file suits one machine
    onnxruntime.InferenceSession(path, options)
    counts = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    layers, projected = model.config.num_hidden_layers, name in ("Albert", "Electra")
    # MPNet's scores have relative positions, and a product stands between the embeddings' LayerNorm and attention in
    # ALBERT and ELECTRA: patterns that it does not know.
    assert counts["Attention"] == (0 if name == "MPNet" else layers - projected)
    assert counts["SkipLayerNormalization"] >= 2 * layers
    assert counts["EmbedLayerNormalization"] == (name in ("Bert", "DistilBert"))
    assert counts["ReduceMean"] == counts["Erf"] == 0


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtimes_optimiser_fuses_every_layer(tmp_path: Path, name: str) -> None:
    from onnxruntime.transformers import optimizer

    model = small(CASES[name], "ForSequenceClassification", vocab_size=200)
    path = kd.export(model, tmp_path / "m.onnx", format="onnx").path
    fused = optimizer.optimize_model(str(path), "bert", num_heads=5, hidden_size=60, opt_level=0)
    fused.save_model_to_file(str(tmp_path / "fused.onnx"))
    counts = {kind: count for kind, count in fused.get_fused_operator_statistics().items() if count}
    layers = model.config.num_hidden_layers
    # MPNet's scores have a second summand, that of relative positions, which the optimiser does not know.
    assert counts.get("Attention", 0) == (0 if name == "MPNet" else layers)
    assert sum(counts.get(kind, 0) for kind in FUSED[1:4]) == layers + (name == "Electra")  # whose head has a GELU
    norms = ("SkipLayerNormalization", "EmbedLayerNormalization", "LayerNormalization")
    assert counts["SkipLayerNormalization"] >= 2 * layers
    assert sum(counts.get(kind, 0) for kind in norms) == 2 * layers + 1
    rows = CheckedRows.of(model)
    difference = outputs_of(tmp_path / "fused.onnx", rows.padded)["logits"] - model.forward(rows.packed)
    assert np.abs(difference).max() < TOLERANCE


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_openvino_gives_the_same_logits(tmp_path: Path, dtype: str) -> None:
    openvino = pytest.importorskip("openvino")
    model = small(CASES["Bert"], "ForSequenceClassification", initializer_range=0.1)
    path = kd.export(model, tmp_path / "m.onnx", format="onnx", dtype=dtype).path
    rows = CheckedRows.of(model)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    difference = compiled(rows.padded)["logits"] - outputs_of(path, rows.padded)["logits"]
    # float16 weights are computed in float32 there; the activations of int8 may fall on the other side of a half.
    assert np.abs(difference).max() < {"float32": TOLERANCE, "float16": 0.02, "int8": 0.05}[dtype]


def test_a_model_that_is_frozen_in_a_narrow_type_is_compared_in_float32(tmp_path: Path) -> None:
    model = small(CASES["Bert"], "ForSequenceClassification").freeze("bfloat16")
    assert kd.export(model, tmp_path / "m.onnx", format="onnx").largest_difference < TOLERANCE
    assert str(model.dtype) == "bfloat16"


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_an_int8_artefact_is_exported_from_what_its_integers_stand_for(tmp_path: Path, dtype: str) -> None:
    model = small(CASES["Bert"], "ForSequenceClassification", initializer_range=0.1)
    rows = kd.Dataset(*kd.pack([[2, 5, 9, 3], [2, 6, 3]]), np.full(2, -100))
    kd.quantize(model, rows, tmp_path / "int8")
    with pytest.warns(UserWarning, match="its weights are its integers times their scales"):
        written = kd.export(tmp_path / "int8", tmp_path / "m.onnx", format="onnx", dtype=dtype)
    assert written.largest_difference < {"float32": TOLERANCE, "int8": 0.05}[dtype]
    loaded = type(model).from_pretrained(tmp_path / "int8")
    with pytest.raises(RuntimeError, match='give its directory, or load it with dtype="float32"'):
        kd.export(loaded, tmp_path / "other.onnx", format="onnx")
    assert not (tmp_path / "other.onnx").exists()


def test_layers_of_different_sizes_are_written_as_they_are(tmp_path: Path) -> None:
    """Pruned layers have fewer heads and feed-forward units than others."""
    pruned = {"pruned_heads": {0: [0, 2, 3], 2: [1, 2, 3, 4]}, "intermediate_sizes": [84, 20, 7]}
    for name in ("Bert", "Roberta", "MPNet"):
        model = small(CASES[name], "ForSequenceClassification", **pruned)
        assert [len(model.tensors[f"layer.{layer}.query"]) for layer in range(3)] == [24, 60, 12]
        assert kd.export(model, tmp_path / f"{name}.onnx", format="onnx").largest_difference < TOLERANCE


def test_a_directory_is_one_of_transformers_with_graphs(tmp_path: Path) -> None:
    import transformers

    model = write_model(tmp_path / "model")
    for dtype, name in (("float32", "model"), ("float16", "model_fp16"), ("int8", "model_quantized")):
        written = kd.export(model, tmp_path / "out", format="onnx", dtype=dtype)
        assert written.path == tmp_path / "out" / "onnx" / f"{name}.onnx"
        assert written.bytes == written.path.stat().st_size
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.architectures == ["BertForSequenceClassification"]
    texts = ["a good film", "bad"]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(texts, padding=True, return_tensors="np")
    found = outputs_of(tmp_path / "out" / "onnx" / "model.onnx", {name: np.int64(theirs[name]) for name in theirs})
    ours = kd.AutoModelForSequenceClassification.from_pretrained(model)
    expected = ours(**kd.AutoTokenizer.from_pretrained(model)(texts, padding=True)).logits
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
    with pytest.raises(FileExistsError, match=r"model.onnx', which exists; expected a new file"):
        kd.export(model, tmp_path / "out", format="onnx")


def test_a_model_object_brings_the_tokenizer_of_its_directory(tmp_path: Path) -> None:
    model = kd.AutoModelForSequenceClassification.from_pretrained(write_model(tmp_path / "model"))
    kd.export(model, tmp_path / "out", format="onnx")
    expected, found = (kd.AutoTokenizer.from_pretrained(tmp_path / name).vocab for name in ("model", "out"))
    assert found == expected


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_exported_file_is_read_as_a_checkpoint(tmp_path: Path, case: Case, ending: str) -> None:
    model = small(case, ending)
    path = tmp_path / "onnx" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(graph_of(model, "float32").SerializeToString())
    model.config.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeights)  # of a pooler, which is not exported
        again = type(model).from_pretrained(tmp_path)
    pooled = {name for name in model.parameters if ending == "Model" and "pooler" in name}
    for name in model.parameters.keys() - pooled:
        np.testing.assert_array_equal(again.parameters[name], model.parameters[name], err_msg=name)


@pytest.mark.parametrize("trained", [True, False])
def test_a_file_of_pytorchs_exporter_is_read_as_a_checkpoint(tmp_path: Path, trained: bool) -> None:
    """It has equal tensors once, as the zero biases of a new model."""
    model = small(CASES["Bert"], "ForSequenceClassification")
    if trained:
        with model.writing() as flat:
            flat[:] = np.random.default_rng(0).normal(size=flat.size)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "traced").mkdir()
    export_onnx(tmp_path / "model", tmp_path / "traced" / "model.onnx")
    model.config.save_pretrained(tmp_path / "traced")
    again = kd.BertForSequenceClassification.from_pretrained(tmp_path / "traced")
    for name, values in model.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], values, err_msg=name)


def test_quantised_and_foreign_files_are_no_checkpoints(tmp_path: Path) -> None:
    model = small(CASES["Bert"], "ForSequenceClassification")
    model.config.save_pretrained(tmp_path)
    kd.export(model, tmp_path / "model.onnx", format="onnx", dtype="int8")
    with pytest.raises(ValueError, match=r"has quantised weights \((MatMulInteger|DynamicQ|Deq)"):
        type(model).from_pretrained(tmp_path)
    graph = graph_of(model, "float32")
    for each in graph.graph.initializer:
        each.name = "w" + each.name.replace(".", "_")
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match="has no weights under the names of a checkpoint"):
        type(model).from_pretrained(tmp_path)


def test_a_graph_can_join_the_files_of_its_model(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    content = json.loads((model / "config.json").read_text()) | {"note": "of another program"}
    (model / "config.json").write_text(json.dumps(content))  # as no kdistill writes it
    before = {path: path.read_bytes() for path in model.iterdir()}
    kd.export(model, model, format="onnx")
    assert {path: path.read_bytes() for path in before} == before
    assert (model / "onnx" / "model.onnx").is_file()


def test_the_command_prints_what_it_wrote(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    words = ["export", "--model", model, "--format", "onnx", "--output", tmp_path / "m.onnx", "--json"]
    assert cli.main([str(word) for word in words]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["path"] == str(tmp_path / "m.onnx")
    assert figures["outputs"] == ["logits"]
    assert figures["largest_difference"] < 1e-5
    assert figures["checked_with"].startswith("onnxruntime ")
    assert cli.main([str(word) for word in words]) == 2
    assert "which exists; expected a new file" in capsys.readouterr().err


def test_a_model_without_a_head_is_an_encoder_only_where_it_says_so(tmp_path: Path) -> None:
    encoder = small(CASES["Bert"], "Model")
    encoder.save_pretrained(tmp_path / "encoder")
    assert kd.export(tmp_path / "encoder", tmp_path / "m.onnx", format="onnx").outputs == ("last_hidden_state",)
    with pytest.raises(ValueError, match="so it has no trained head for the task"):
        kd.export(write_pretrained(tmp_path / "pretrained"), tmp_path / "p.onnx", format="onnx")


def test_a_wrong_graph_is_an_error_and_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outputs = onnx_check._outputs

    def wrong(*given: Any) -> dict[str, Any]:
        return {name: value + np.float32(0.01) for name, value in outputs(*given).items()}

    monkeypatch.setattr(onnx_check, "_outputs", wrong)
    with pytest.raises(RuntimeError, match=r"the exported graph is wrong: logits differs by 0\.01 in ONNX Runtime"):
        kd.export(small(CASES["Bert"], "ForSequenceClassification"), tmp_path / "out", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_float16_and_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    model = small(CASES["Bert"], "ForSequenceClassification")
    model.parameters["classifier.bias"][0] = 1e6
    with pytest.raises(ValueError, match=r"classifier.bias has numbers beyond the range of float16; expected dtype="):
        kd.export(model, tmp_path / "m.onnx", format="onnx", dtype="float16")
    with pytest.raises(RuntimeError, match="in int8 alone"):
        kd.export(model.freeze("int8", keep_weights=False), tmp_path / "m.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_runtime_a_warning_says_that_nothing_was_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(onnx_check, "find_spec", lambda _: None)
    with pytest.warns(UserWarning, match="was not compared with the model, which needs onnxruntime"):
        written = kd.export(small(CASES["Bert"], "Model"), tmp_path / "m.onnx", format="onnx")
    assert (written.checked_with, written.largest_difference) == (None, None)
