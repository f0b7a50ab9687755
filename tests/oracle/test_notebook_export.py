"""The cells of the notebooks that export, alone: the small versions of the notebooks run without ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT
from support.small_run import sentences, write_model, write_rows

import kdistill as kd

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def cell(notebook: str, name: str) -> str:
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    (source,) = ("".join(found["source"]) for found in cells if found["id"] == name)
    return source


def test_the_first_notebook_exports_its_student_and_asks_onnx_runtime(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_model(tmp_path / "best")
    tokenizer, model = kd.AutoTokenizer.from_pretrained(directory), kd.AutoModelForSequenceClassification
    texts = [text for text, _ in sentences(20)]
    names: dict[str, Any] = {"Path": Path, "shutil": shutil, "np": np, "kd": kd, "output": tmp_path}
    names |= {"tokenizer": tokenizer, "sentences": texts, "options": {"eval": write_rows(tmp_path / "dev.tsv", 20)}}
    names["logits_of"] = lambda model: model(tokenizer(texts)).logits
    args = SimpleNamespace(output_dir=str(directory))
    names["optimal_trainer"] = SimpleNamespace(args=args, model=model.from_pretrained(directory))
    exec(cell("knowledge-distillation", "export-onnx"), names)
    exec(cell("knowledge-distillation", "quantize-it"), names)
    printed = capsys.readouterr().out
    assert "checked with onnxruntime" in printed
    assert "logits of 20 sentences differ by" in printed
    assert (tmp_path / "onnx" / "onnx" / "model.onnx").is_file()
    assert kd.AutoModelForSequenceClassification.from_pretrained(tmp_path / "int8").dtype == "int8"


def test_the_second_notebook_exports_the_model_of_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(
        cell("sagemaker-distillation", "export-onnx"),
        {"kd": kd, "output": tmp_path, "best_model": write_model(tmp_path / "best")},
    )
    assert "logits differ from those of kdistill by" in capsys.readouterr().out
    assert (tmp_path / "onnx" / "onnx" / "model.onnx").is_file()
