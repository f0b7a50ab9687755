"""Weights of ONNX files; tests/oracle/test_export_onnx.py has files of other programs, test_hostile.py damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.onnx_files import node, onnx_file, sound_onnx_file, tensor
from support.small_run import small_model

import kdistill as kd
from kdistill.formats.onnx_file import read_onnx
from kdistill.hub import _choose
from kdistill.models.checkpoint import WEIGHTS_FILES


def read(directory: Path, data: bytes) -> dict[str, np.ndarray]:
    (directory / "m.onnx").write_bytes(data)
    return {name: stored.read() for name, stored in read_onnx(directory / "m.onnx").items()}


def test_the_weight_of_a_product_has_the_name_of_its_bias(tmp_path: Path) -> None:
    found = read(tmp_path, sound_onnx_file())
    assert sorted(found) == ["a.dense.bias", "a.dense.weight"]
    np.testing.assert_array_equal(found["a.dense.weight"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(found["a.dense.bias"], [0, 1, 2])
    assert found["a.dense.bias"].dtype == np.float32


def test_a_value_that_equals_another_is_there_once(tmp_path: Path) -> None:
    ones = tensor("a.norm.weight", (2,), np.ones(2, np.float32).tobytes())
    found = read(tmp_path, onnx_file([ones], [node("Identity", ["a.norm.weight"], "b.norm.weight")]))
    np.testing.assert_array_equal(found["b.norm.weight"], [1, 1])


def test_graphs_under_other_names_are_named_where_weights_are_missing(tmp_path: Path) -> None:
    """As `kdistill export --dtype float16` and `--dtype int8` leave them."""
    small_model().config.save_pretrained(tmp_path)
    (tmp_path / "onnx").mkdir()
    names = ("onnx/model_fp16.onnx", "onnx/model_quantized.onnx")
    for name in names:
        (tmp_path / name).write_bytes(sound_onnx_file())
    what = f"it has {', '.join(names)}; a graph is read as onnx/model.onnx or model.onnx, with weights that are not"
    with pytest.raises(FileNotFoundError, match=rf"has no model.safetensors or .*; {what} quantised"):
        kd.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"the hub's 'u/m' has no model.safetensors or .*; {what}"):
        _choose("u/m", names, [WEIGHTS_FILES], [])


def test_weights_without_names_and_quantised_ones_are_refused(tmp_path: Path) -> None:
    nameless = tensor("onnx::MatMul_7", (1,), bytes(4))
    with pytest.raises(ValueError, match=r"m.onnx has no weights under the names of a checkpoint"):
        read(tmp_path, onnx_file([nameless]))
    with pytest.raises(ValueError, match=r"m.onnx has quantised weights \(MatMulInteger\)"):
        read(tmp_path, onnx_file([nameless], [node("MatMulInteger", ["x", "w"], "y")]))
