"""Teachers that read token types, of students that have none: each reads pairs as it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_model, questions
from support.small_run import LABELS, VOCABULARY, run_fields, sentences, small_model, write_model

import kdistill as kd
from kdistill.cli import main as cli

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy", "ignore:no eval_dataset")
SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "dim": 16,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": 32,
    "max_position_embeddings": 16,
    "initializer_range": 0.2,
}
PAIRS = [
    (first[:20], second[:20]) for (first, _), (second, _) in zip(sentences(24), sentences(24, seed=5), strict=True)
]


def write_student(directory: Path, head: str = "ForSequenceClassification", **changes: Any) -> Path:
    """A DistilBERT with a vocab.txt, which transformers' class for it reads without token types."""
    config = kd.DistilBertConfig(**SIZES, **({"id2label": LABELS} | changes))
    getattr(kd, f"DistilBert{head}")(config, seed=2).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return directory


@pytest.fixture
def teacher_dir(tmp_path: Path) -> Path:
    return write_model(tmp_path / "teacher", seed=9)


@pytest.fixture
def student_dir(tmp_path: Path) -> Path:
    return write_student(tmp_path / "student")


def arguments(directory: Path, **changes: Any) -> kd.DistillationTrainingArguments:
    fields = {"num_train_epochs": 1, "teacher_dtype": "float32", "teacher_cache": False, **changes}
    return kd.DistillationTrainingArguments(**run_fields(directory, fields))


@pytest.mark.parametrize("given", ["both tokenizers", "the student's alone", "the teacher's for both"])
def test_pairs_have_the_token_types_that_the_teacher_was_trained_with(
    tmp_path: Path, teacher_dir: Path, student_dir: Path, given: str
) -> None:
    theirs, ours = (kd.AutoTokenizer.from_pretrained(path) for path in (teacher_dir, student_dir))
    assert (theirs.has_token_types, ours.has_token_types) == (True, False)
    rows = [{"sentence1": a, "sentence2": b, "label": n % 2} for n, (a, b) in enumerate(PAIRS)]
    teacher = small_model(9)
    trainer = kd.DistillationTrainer(
        kd.DistilBertForSequenceClassification.from_pretrained(student_dir),
        arguments(tmp_path),
        teacher_model=teacher,
        teacher_processing_class=theirs if given == "both tokenizers" else None,
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=theirs if given == "the teacher's for both" else ours,
    )
    trainer.train()
    expected = teacher.forward(kd.pack(dict(theirs(PAIRS))))
    untyped = teacher.forward(kd.pack({"input_ids": theirs(PAIRS)["input_ids"]}))
    assert np.abs(expected - untyped).max() > 0.1
    np.testing.assert_array_equal(trainer.objective.answers[0], expected)
    holdout = trainer.predict(rows).predictions
    np.testing.assert_array_equal(holdout, trainer.model.forward(kd.pack({"input_ids": ours(PAIRS)["input_ids"]})))
    saved = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert saved["model_input_names"] == ["input_ids", "attention_mask"]
    assert kd.AutoTokenizer.from_pretrained(tmp_path / "out")(PAIRS) == ours(PAIRS)


def test_questions_have_the_token_types_of_the_teacher(tmp_path: Path, teacher_dir: Path) -> None:
    student_dir = write_student(tmp_path / "student", "ForQuestionAnswering", id2label={0: "LABEL_0", 1: "LABEL_1"})
    trainer = kd.DistillationTrainer(
        kd.DistilBertForQuestionAnswering.from_pretrained(student_dir),
        arguments(tmp_path, max_length=12),
        teacher_model=question_model(9),
        teacher_processing_class=kd.AutoTokenizer.from_pretrained(teacher_dir),
        train_dataset=questions(8),
        processing_class=kd.AutoTokenizer.from_pretrained(student_dir),
    )
    ids, types = trainer.train_dataset.ids, trainer.train_dataset.types
    of_context = np.concatenate(
        [np.cumsum(row == 3) - (row == 3) for row in np.split(ids, trainer.train_dataset.starts[1:-1])]
    )
    np.testing.assert_array_equal(types, of_context)


def test_a_command_measures_the_teacher_as_it_measures_itself(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher_dir: Path, student_dir: Path
) -> None:
    data, out = tmp_path / "pairs.tsv", tmp_path / "out"
    lines = [f"{a}\t{b}\t{LABELS[row % 2]}" for row, (a, b) in enumerate(PAIRS)]
    data.write_text("\n".join(["sentence1\tsentence2\tlabel", *lines]) + "\n")

    def figures(*words: object) -> dict[str, Any]:
        assert cli.main([*map(str, words), "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))

    common = ["--teacher", teacher_dir, "--student", student_dir, "--train", data, "--eval", data]
    figures("distill", *common, "--output-dir", out, "--num-train-epochs", 1, "--teacher-dtype", "float32")
    alone = figures("evaluate", "--model", teacher_dir, "--data", data)
    results = json.loads((out / "all_results.json").read_text())
    assert results["teacher_loss"] == pytest.approx(alone["loss"], abs=1e-6)
    figures("report", "--model", out, "--holdout", data)  # finds the rows of the run


def test_two_models_with_token_types_read_pairs_as_each_was_trained(tmp_path: Path, teacher_dir: Path) -> None:
    theirs = kd.AutoTokenizer.from_pretrained(teacher_dir)
    teacher, ours = small_model(9), theirs.with_token_types(False)
    trainer = kd.DistillationTrainer(
        small_model(2),
        arguments(tmp_path),
        teacher_model=teacher,
        teacher_processing_class=theirs,
        train_dataset=[{"sentence1": a, "sentence2": b, "label": 0} for a, b in PAIRS],
        processing_class=ours,
    )
    trainer.train()
    assert not trainer.train_dataset.types.any()
    np.testing.assert_array_equal(trainer.objective.answers[0], teacher.forward(kd.pack(dict(theirs(PAIRS)))))
