"""The student of a distillation whose teacher's answers came with the rows: its labels, problem and padding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_run import LABELS, VOCABULARY, small_config, write_model

import kdistill as kd
from kdistill.cli.command_line import parse
from kdistill.cli.given import GivenParts
from kdistill.cli.inputs import read_arguments
from kdistill.cli.teachers import names_of_teachers
from kdistill.models.configuration import Config
from kdistill.models.head_names import ENCODER
from kdistill.models.pooling import Pooling
from kdistill.train.arguments import DistillationTrainingArguments

TEXTS = ["good film", "bad plot"] * 4


def parts_of(tmp_path: Path, student: Any, answers: list[Any], *more: Any, **columns: list[Any]) -> GivenParts:
    """The parts that the command makes for a student of these rows."""
    names = {"sentence": TEXTS, "teacher_logits": answers, **columns}
    rows = [dict(zip(names, values, strict=True)) for values in zip(*names.values(), strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["distill", "--student", student, "--train", tmp_path / "rows.jsonl", "--output-dir", tmp_path / "out"]
    options = parse([str(word) for word in (*words, "--json", *more)])
    return GivenParts(options, read_arguments(DistillationTrainingArguments, options))


def config_of(*of: Any, **columns: list[Any]) -> Config:
    return parts_of(*of, **columns).config


@pytest.mark.parametrize("replace", [False, True])
def test_a_student_keeps_its_names_where_the_answers_have_none(tmp_path: Path, replace: bool) -> None:
    student = write_model(tmp_path / "student")
    more = ["--ignore-mismatched-sizes"] * replace
    assert config_of(tmp_path, student, [[1.0, 2.0]] * 8, *more).id2label == LABELS


def test_the_names_of_the_answers_replace_those_of_the_student_where_asked_to(tmp_path: Path) -> None:
    student, answers = write_model(tmp_path / "student"), [{"bad": 1.0, "good": 2.0}] * 8
    assert config_of(tmp_path, student, answers).id2label == LABELS
    assert config_of(tmp_path, student, answers, "--ignore-mismatched-sizes").id2label == {0: "bad", 1: "good"}


def test_a_shape_pads_as_its_tokenizer_does_and_has_the_problem_that_is_named(tmp_path: Path) -> None:
    tokenizer = write_model(tmp_path / "tokenizer")
    (tokenizer / "vocab.txt").write_text("\n".join([VOCABULARY[1], VOCABULARY[0], *VOCABULARY[2:]]) + "\n")
    asked = ("--tokenizer", tokenizer, "--problem-type", "multi_label_classification")
    config = config_of(tmp_path, "L1-H8-A2", [[1.0, 2.0, 3.0]] * 8, *asked)
    assert (config.pad_token_id, config.problem_type, config.num_labels) == (1, "multi_label_classification", 3)


def test_a_shape_that_embeds_texts_takes_the_mean_of_their_tokens(tmp_path: Path) -> None:
    asked = ("--tokenizer", write_model(tmp_path / "tokenizer"), "--task", "feature-extraction")
    parts = parts_of(tmp_path, "L1-H8-A2", [[1.0] * 12] * 8, *asked)
    assert (parts.config.head, parts.config.pooling) == (ENCODER, Pooling("mean"))
    assert parts.train.teacher_logits is not None
    assert parts.train.teacher_logits.shape == (8, 12)


@pytest.mark.filterwarnings("ignore:.*initialised at random")
def test_a_directory_that_embeds_texts_goes_on_with_it_unless_answers_name_labels(tmp_path: Path) -> None:
    student = write_model(tmp_path / "student")
    encoder = kd.BertModel(small_config(id2label={0: "LABEL_0", 1: "LABEL_1"}), seed=1)
    encoder.with_pooling("cls", normalize=True).save_pretrained(student)
    numbers = [[1.0] * 16] * 8
    config = config_of(tmp_path, student, numbers, label=["bad", "good"] * 4)
    assert (config.head, config.pooling) == (ENCODER, Pooling("cls", normalize=True))
    assert config_of(tmp_path, student, numbers, "--task", "text-classification").num_labels == 16
    assert config_of(tmp_path, student, [{"bad": 1.0, "good": 2.0}] * 8).id2label == {0: "bad", 1: "good"}
    with pytest.raises(ValueError, match=r"have 2 numbers and the student's 16; expected .* --task names another"):
        parts_of(tmp_path, student, [[1.0, 2.0]] * 8).trainer().train()


def test_labels_of_the_rows_name_the_outputs_only_if_there_are_as_many(tmp_path: Path) -> None:
    tokenizer, labels = ("--tokenizer", write_model(tmp_path / "tokenizer")), ["bad", "good"] * 4
    two = config_of(tmp_path, "L1-H8-A2", [[1.0, 2.0]] * 8, *tokenizer, label=labels)
    assert two.id2label == {0: "bad", 1: "good"}
    three = config_of(tmp_path, "L1-H8-A2", [[1.0, 2.0, 3.0]] * 8, *tokenizer, label=labels)
    assert three.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


def test_the_directory_of_the_tokenizer_is_not_written_to(tmp_path: Path) -> None:
    tokenizer = write_model(tmp_path / "tokenizer")
    given = ("--tokenizer", tokenizer, "--output-dir", tokenizer)
    with pytest.raises(ValueError, match=r"^--output-dir is '.*tokenizer', and this command reads .*tokenizer; choose"):
        parts_of(tmp_path, "L1-H8-A2", [[1.0, 2.0]] * 8, *given).files.check_output_dir()


def test_a_file_of_answers_is_named_among_the_teachers(tmp_path: Path) -> None:
    teacher = write_model(tmp_path / "teacher")
    assert names_of_teachers([str(teacher)], "directory/answers.jsonl") == ["teacher", "answers.jsonl"]
    assert names_of_teachers([], "directory/answers.jsonl") == ["answers.jsonl"]
    assert names_of_teachers([], None) is None
