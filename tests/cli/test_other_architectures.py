"""Checkpoints of architectures that kdistill does not compute: each command says so before anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.small_run import write_model, write_rows

import kdistill as kd
from kdistill.cli import main as cli


@pytest.mark.parametrize(
    "words",
    [
        "finetune --model OTHER --train rows.tsv --output-dir out",
        "distill --teacher OTHER --student L1-H16-A2 --train rows.tsv --output-dir out",
        "distill --teacher bert --student OTHER --train rows.tsv --output-dir out",
        "evaluate --model OTHER --data rows.tsv",
        "predict --model OTHER --text good",
        "serve --model OTHER",
        "bench --model OTHER",
        "info --model OTHER",
    ],
)
def test_the_architecture_is_refused_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """The directory has no tokenizer."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.tsv", 8)
    write_model(tmp_path / "bert")
    for model_type, name in (("deberta-v2", "DebertaV2ForTokenClassification"), ("modernbert", "ModernBertModel")):
        other = tmp_path / model_type
        other.mkdir()
        (other / "model.safetensors").touch()
        (other / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [name]}))
        assert cli.main(words.replace("OTHER", model_type).split()) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"model_type is '{model_type}', which kdistill does not compute; expected a model of one of" in error
        assert "A model of another kind teaches by its answers: a column teacher_logits of the rows, --teach" in error


def test_a_pipeline_refuses_the_architecture_first(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "modernbert"}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="model_type is 'modernbert', which kdistill does not compute"):
        kd.pipeline("token-classification", tmp_path)
