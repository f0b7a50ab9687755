"""Weights of ONNX files; tests/oracle/test_export_onnx.py has files of other programs, test_hostile.py damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.onnx_files import node, onnx_file, sound_onnx_file, tensor

from kdistill.formats.onnx_file import read_onnx


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


def test_weights_without_names_and_quantised_ones_are_refused(tmp_path: Path) -> None:
    nameless = tensor("onnx::MatMul_7", (1,), bytes(4))
    with pytest.raises(ValueError, match=r"m.onnx has no weights under the names of a checkpoint"):
        read(tmp_path, onnx_file([nameless]))
    with pytest.raises(ValueError, match=r"m.onnx has quantised weights \(MatMulInteger\)"):
        read(tmp_path, onnx_file([nameless], [node("MatMulInteger", ["x", "w"], "y")]))
