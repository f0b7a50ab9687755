"""`--student` with a shape: which architecture the student has, by that of its teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.other_teacher import TOKENS, write_other_teacher
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


def test_a_student_with_another_tokenizer_takes_the_embeddings_of_the_tokens_that_both_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A BERT of pieces from a RoBERTa of letters; the learning rate leaves the weights as they begin."""
    teacher, rows = write_other_teacher(tmp_path / "teacher"), write_rows(tmp_path / "rows.tsv", 24)
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    (pieces / "vocab.txt").write_text("\n".join([*VOCABULARY, "goo", "##oo"]) + "\n")
    (pieces / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    inputs = ["--teacher", str(teacher), "--student", "L1-H24-A2", "--tokenizer", str(pieces), "--train", str(rows)]
    output = ["--output-dir", str(tmp_path / "out"), "--max-steps", "1", "--learning-rate", "1e-30"]
    cli.main(["doctor", *inputs, *output, "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert "texts are read with a tokenizer of its own by the teacher" in [of["text"] for of in findings]
    assert [of["check"] for of in findings if of["level"] == "error"] == ["teacher"]  # which has learned nothing

    assert cli.main(["distill", *inputs, *output]) == 0
    said = "the student of this shape is a BERT: it has another vocabulary than its teacher; 7 of 15 tokens take"
    assert said in capsys.readouterr().err
    student = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert isinstance(student, kd.BertForSequenceClassification)
    assert kd.AutoTokenizer.from_pretrained(tmp_path / "out").tokenize("goo good") == ["goo", "good"]
    ours = student.parameters["bert.embeddings.word_embeddings.weight"]
    theirs = kd.AutoModelForSequenceClassification.from_pretrained(teacher).parameters[
        "roberta.embeddings.word_embeddings.weight"
    ]
    names = {"[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>", "goo": "\u0120goo", "##oo": "oo"}
    for piece, token in names.items():
        row = ours[[*VOCABULARY, "goo", "##oo"].index(piece)]
        np.testing.assert_allclose(row, theirs[TOKENS.index(token)], atol=1e-6, err_msg=piece)
    own = ["--student", str(tmp_path / "out"), "--output-dir", str(tmp_path / "again")]
    assert cli.main(["distill", *inputs, *own]) == 2
    assert "has its own; leave it out" in capsys.readouterr().err


def test_a_search_varies_a_student_with_another_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    teacher, rows = write_other_teacher(tmp_path / "teacher"), write_rows(tmp_path / "rows.tsv", 24)
    inputs = ["--teacher", str(teacher), "--student", "L1-H8-A2", "--tokenizer", str(write_model(tmp_path / "pieces"))]
    inputs += ["--train", str(rows), "--eval", str(rows), "--output-dir", str(tmp_path / "out"), "--max-steps", "1"]
    assert cli.main(["search", *inputs, "--n-trials", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == {"complete": 1}
