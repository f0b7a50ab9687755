"""`--dtype` of the commands that only evaluate: what is computed, shown and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import sentences, write_model, write_rows

import kdistill as kd
from kdistill import _core
from kdistill.cli import main as cli
from kdistill.cli.command_line import parse
from kdistill.serve.classifier import Classifier

pytestmark = pytest.mark.filterwarnings("ignore:.* is computed portably")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("dtype") / "model")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("dtype") / "rows.tsv", 20)


def figures(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert cli.main([*map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def scores_of(model: Path, dtype: str) -> np.ndarray:
    """The probabilities that a pipeline gives."""
    texts = [text for text, _ in sentences(20)]
    answers = kd.pipeline(model=model, dtype=dtype, top_k=None)(texts)
    return np.array([sorted((one["label"], one["score"]) for one in answer) for answer in answers])[:, :, 1].astype(
        float
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_every_command_computes_in_the_type(
    capsys: pytest.CaptureFixture[str], model: Path, rows: Path, dtype: str
) -> None:
    chosen = [] if dtype == "float32" else ["--dtype", dtype]
    measured = figures(capsys, "evaluate", "--model", model, "--data", rows, *chosen)
    texts = [text for text, _ in sentences(20)]
    predicted = figures(capsys, "predict", "--model", model, "--text", *texts, *chosen)
    assert measured["dtype"] == predicted["dtype"] == dtype
    loaded = kd.BertForSequenceClassification.from_pretrained(model, dtype=dtype)
    logits = loaded.forward(kd.AutoTokenizer.from_pretrained(model)(texts)["input_ids"]).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([label for _, label in sentences(20)])
    np.testing.assert_allclose(measured["loss"], -np.log(expected[np.arange(20), labels]).mean(), rtol=1e-6)
    best = [answer["score"] for answer in predicted["predictions"]]
    np.testing.assert_allclose(best, expected.max(1), rtol=1e-6)
    served = Classifier.load(model, dtype=dtype)
    assert str(served.model.dtype) == dtype
    np.testing.assert_array_equal(served.logits(served.tokenise(texts)), logits.astype(np.float32))
    np.testing.assert_allclose(scores_of(model, dtype), expected, rtol=1e-6)


def test_a_type_that_nothing_computes_in(capsys: pytest.CaptureFixture[str], model: Path, rows: Path) -> None:
    for words in (["evaluate", "--data", rows], ["predict", "--text", "good"], ["serve"], ["bench"]):
        command, *inputs = map(str, words)
        assert cli.main([command, "--model", str(model), *inputs, "--dtype", "float16"]) == 2
        error = capsys.readouterr().err
        assert "argument --dtype: invalid choice: 'float16'" in error
        assert f"(see kdistill {command} --help)" in error
    assert cli.main(["finetune", "--model", "m", "--train", "t", "--dtype", "int8"]) == 2
    assert "--dtype" in capsys.readouterr().err


def test_types_from_a_file_of_options(tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('dtype = ["float32", "int8"]')
    assert parse(["bench", "--model", "m", "--config", str(file)]).dtype == ["float32", "int8"]
    assert parse(["bench", "--model", "m", "--config", str(file), "--dtype", "bfloat16"]).dtype == ["bfloat16"]
    file.write_text('dtype = "int8"')
    assert parse(["bench", "--model", "m", "--config", str(file)]).dtype == ["int8"]
    assert parse(["evaluate", "--model", "m", "--data", "d", "--config", str(file)]).dtype == "int8"


def test_info_shows_what_multiplies_each_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert figures(capsys, "info")["compute"] == _core.COMPUTE
    assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    for dtype, isa in _core.COMPUTE.items():
        assert f"compute {dtype}" in shown
        assert next(line for line in shown.splitlines() if line.startswith(f"compute {dtype} ")).endswith(
            isa or "none (portable)"
        )


def test_a_pipeline_of_a_model_that_is_loaded_keeps_its_type(model: Path) -> None:
    loaded = kd.BertForSequenceClassification.from_pretrained(model, dtype="int8")
    assert kd.pipeline(model=loaded, tokenizer=model, dtype="int8").model is loaded
    with pytest.raises(
        ValueError, match=r"dtype is bfloat16, and the model computes in int8; call its freeze\('bfloat16'"
    ):
        kd.pipeline(model=loaded, tokenizer=model, dtype="bfloat16")
    with pytest.raises(ValueError, match="dtype is int8 and torch_dtype"):
        kd.pipeline(model=model, dtype="int8", torch_dtype="bfloat16")


def test_a_trainer_takes_a_narrow_model_to_measure_and_not_to_train(model: Path, rows: Path, tmp_path: Path) -> None:
    narrow = kd.BertForSequenceClassification.from_pretrained(model, dtype="bfloat16")
    tokenizer = kd.AutoTokenizer.from_pretrained(model)
    data = str(rows)
    args = kd.TrainingArguments(output_dir=str(tmp_path / "out"), disable_tqdm=True)
    trainer = kd.Trainer(narrow, args, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
    assert trainer.evaluate()["eval_loss"] > 0
    with pytest.raises(RuntimeError, match=r"the model is frozen.*; load one without dtype= to train it"):
        trainer.train()
    assert not (tmp_path / "out").exists()
