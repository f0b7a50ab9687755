"""Commands that only evaluate a model hold its weights once: packed, without the float32 copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_run import write_model, write_rows

from kdistill.cli.main import main
from kdistill.distill import teacher_type
from kdistill.models import auto
from kdistill.models.auto import load_trained
from kdistill.models.model import Model
from kdistill.serve.classifier import Classifier


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """The models that have been loaded, in this order."""
    models: list[Model] = []
    load = auto.load_model

    def remembered(*args: Any, **settings: Any) -> Model:
        models.append(load(*args, **settings))
        return models[-1]

    monkeypatch.setattr(auto, "load_model", remembered)
    return models


def figures_of(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return figures


def test_commands_that_answer(tmp_path: Path, loaded: list[Model], capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 10)
    for dtype in ([], ["--dtype", "float32"], ["--dtype", "int8"]):
        figures_of(capsys, "evaluate", "--model", model, "--data", rows, *dtype)
        figures_of(capsys, "predict", "--model", model, "--text", "good film", *dtype)
        figures_of(capsys, "label", "--teacher", model, "--data", rows, "--output", tmp_path / "l.jsonl", *dtype)
    Classifier.load(model)
    assert len(loaded) == 10
    assert [str(of.dtype) for of in loaded] == [*["float32"] * 6, *["int8"] * 3, "float32"]
    assert not any(of.holds_float32 for of in loaded)


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("more", [[], ["--matches", "minilm"]])
def test_a_teacher_teaches_the_same(
    tmp_path: Path, loaded: list[Model], monkeypatch: pytest.MonkeyPatch, dtype: str, more: list[str]
) -> None:
    """The student has the bits of one whose teacher keeps its float32 weights, also where a check chooses its type."""
    monkeypatch.setattr(teacher_type, "faster_types", lambda: ["int8"])
    monkeypatch.setattr(teacher_type, "LEAST_CHECKED_ROWS", 2)
    model = write_model(tmp_path / "model")
    train, rows = write_rows(tmp_path / "train.tsv", 20), write_rows(tmp_path / "rows.tsv", 10, seed=3)
    run = ["distill", "--teacher", model, "--train", train, "--eval", rows, "--max-steps", "2", "--no-teacher-cache"]
    run += ["--student", "L1-H16-A2", "--teacher-dtype", dtype, *more, "--output-dir"]
    assert main([*map(str, [*run, tmp_path / "packed"])]) == 0
    monkeypatch.setattr(
        "kdistill.cli.distillation.load_trained",
        lambda *args, keep_weights, **settings: load_trained(*args, **settings | {"dtype": None}).freeze(),
    )
    assert main([*map(str, [*run, tmp_path / "kept"])]) == 0
    assert [of.holds_float32 for of in loaded] == [False, True]
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("packed", "kept")]
    assert written[0] == written[1]
    settled = json.loads((tmp_path / "packed" / "trainer_state.json").read_text())["settled"]
    assert settled["teacher_dtype"] == ("int8" if dtype == "auto" else dtype)
