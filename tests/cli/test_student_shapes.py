"""`--student` with a shape: which architecture the student has, by that of its teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_run import LABELS, VOCABULARY, write_model, write_rows

import kdistill as kd
from kdistill.cli import main as cli

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "id2label": LABELS,
    "initializer_range": 0.2,
}


def write_teacher(directory: Path, name: str, **changes: Any) -> Path:
    """A classifier of this architecture, with the tokenizer of the small run."""
    write_model(directory)
    tokenizer = kd.AutoTokenizer.from_pretrained(directory)
    config = getattr(kd, f"{name}Config")(**SIZES, **changes)
    getattr(kd, f"{name}ForSequenceClassification")(config, seed=1).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.mark.parametrize(
    ("name", "changes", "student"),
    [
        ("Albert", {"embedding_size": 8}, "bert"),
        ("Albert", {"embedding_size": 24}, "bert"),
        ("Electra", {"embedding_size": 8, "type_vocab_size": 3, "hidden_act": "relu"}, "bert"),
        ("Electra", {"embedding_size": 24}, "electra"),
        ("DistilBert", {}, "distilbert"),
    ],
)
@pytest.mark.parametrize("shape", ["L1-H16-A2", "L1-H8-A2", "L2-H24-A2"])
def test_architecture_of_a_shape(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, changes: dict[str, Any], student: str, shape: str
) -> None:
    teacher, data, out = write_teacher(tmp_path / "teacher", name, **changes), tmp_path / "rows.tsv", tmp_path / "out"
    write_rows(data, 24)
    words = ["--teacher", teacher, "--student", shape, "--train", data, "--num-train-epochs", "1", "--max-length", "9"]
    assert cli.main([str(word) for word in ["distill", *words, "--output-dir", out]]) == 0
    told = "the student of this shape is a BERT: the teacher's embeddings" in capsys.readouterr().err
    made = json.loads((out / "config.json").read_text())
    assert (made["model_type"], told) == (student, name in ("Albert", "Electra") and student == "bert")
    assert made["id2label"] == {str(index): label for index, label in LABELS.items()}
    if student == "bert":
        fields = ("vocab_size", "max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps")
        stored = json.loads((teacher / "config.json").read_text())
        assert {field: made[field] for field in fields} == {field: stored[field] for field in fields}
    assert cli.main(["predict", "--model", str(out), "--text", "good film"]) == 0
