"""The recipes that name a student: what they choose of rows, what wins over them, and where they are refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_model, question_tokenizer, questions
from support.small_run import small_dataset, small_model, write_model

import kdistill as kd
from kdistill.data.dataset import Dataset
from kdistill.search.space import default_space
from kdistill.tasks.question_answering import encode
from kdistill.train.chosen_defaults import choose_defaults, dropout_of_recipe
from kdistill.train.presets import STUDENT_PRESETS

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def dataset(rows: int, *, pairs: bool = False) -> Dataset:
    return Dataset(np.full(rows, 5, np.int32), np.full(rows, pairs, np.int32), np.arange(rows + 1), np.zeros(rows, int))


def student(**changes: Any) -> kd.BertForSequenceClassification:
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    return small_model(**(sizes | changes))


def copied() -> kd.BertForSequenceClassification:
    """A student that has the layers of its teacher."""
    teacher = small_model(2, num_hidden_layers=4)
    return kd.BertForSequenceClassification.from_teacher(teacher, teacher.config.replace(num_hidden_layers=2))


def chosen(recipe: str, rows: int, **given: Any) -> tuple[dict[str, Any], str]:
    args = kd.DistillationTrainingArguments(recipe=recipe, **given)
    model = student() if STUDENT_PRESETS[recipe].new_layers else copied()
    sentence = choose_defaults(args, model, dataset(rows))
    assert sentence is not None
    return args.chosen, sentence


# 67,349 are SST-2's, of which an epoch with 24 copies has 1,683,725.
@pytest.mark.parametrize(
    ("rows", "copies", "epochs"),
    [(67_349, 24, 6), (2_000, 24, 6), (398, 24, 20), (70_000, 23, 6), (200_000, 7, 6), (800_000, 1, 6)],
)
def test_rows_decide_copies_and_epochs_of_tiny(rows: int, copies: int, epochs: int) -> None:
    values, sentence = chosen("tiny", rows)
    assert values == {
        "augment": copies,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": 64,
        "learning_rate": 1e-3,
        "warmup_ratio": 0.1,
    }
    assert (
        f"recipe tiny: for a student of L2-H128-A2 and {rows:,} training rows it chooses augment {copies}, " in sentence
    )
    bounded = f"{copies} copies and not 24: an epoch is to have at most 1,683,725 rows"
    assert (bounded in sentence) == (copies < 24)


def test_copied_layers_get_a_smaller_learning_rate_and_no_copies() -> None:
    for rows in (1_000, 67_349):
        values, _ = chosen("small", rows)
        expected = {"num_train_epochs": 3, "per_device_train_batch_size": 32, "learning_rate": 2e-4}
        assert values == expected | {"warmup_ratio": 0.1}


@pytest.mark.parametrize(
    ("rows", "no_copies", "given", "why"),
    [
        (10**6, "", {}, "an epoch is to have at most 1,683,725 rows"),
        (9_003, "they are questions", {}, "they are questions"),
        (9_003, "", {"augment": 0}, "augment is given as 0"),
        (9_003, "", {"alpha": 1.0}, "alpha is 1, and copies have no labels"),
    ],
)
def test_without_copies_all_else_is_as_auto_chooses(rows: int, no_copies: str, given: dict[str, Any], why: str) -> None:
    args = kd.DistillationTrainingArguments(recipe="tiny", **given)
    sentence = choose_defaults(args, student(), dataset(rows), no_copies)
    auto = kd.DistillationTrainingArguments(recipe="auto", **given)
    choose_defaults(auto, student(), dataset(rows))
    assert args.augment == 0
    assert {**args.chosen, "augment": 0} == {**auto.chosen, "augment": 0}
    assert sentence is not None
    assert f"no copies and not 24: {why}, so the other values are those of recipe auto" in sentence
    assert "dropout" not in sentence
    assert dropout_of_recipe(args, dataset(rows), no_copies) == {}


def test_what_is_given_wins_and_is_said() -> None:
    given = {"augment": 4, "num_train_epochs": 2, "learning_rate": 5e-5, "hidden_dropout_prob": 0.1}
    model = student(num_hidden_layers=4, hidden_dropout_prob=given.pop("hidden_dropout_prob"))
    args = kd.DistillationTrainingArguments(recipe="tiny", **given)
    sentence = choose_defaults(args, model, dataset(9_003))
    assert {name: getattr(args, name) for name in given} == given
    assert args.per_device_train_batch_size == 64
    assert sentence is not None
    assert "; given: student L4-H128-A2, augment 4, num_train_epochs 2, learning_rate 5e-05" in sentence
    assert "the student has hidden_dropout_prob 0.1, attention_probs_dropout_prob 0.1, and copies" in sentence
    assert "without dropout" in str(choose_defaults(args, student(**NO_DROPOUT), dataset(9_003)))
    assert chosen("tiny", 9_003, per_device_train_batch_size=128)[0]["learning_rate"] == 1.4e-3


def test_a_learning_rate_for_other_layers_is_refused_unless_somebody_gives_one() -> None:
    for recipe, model, found, others in (
        ("tiny", copied(), "are pretrained, or copied from the teacher", "'auto' or 'small'"),
        ("small", student(), "are new", "'auto' or 'smaller' or 'tiny'"),
    ):
        own = STUDENT_PRESETS[recipe].student
        with pytest.raises(ValueError, match=f"{found}; expected its own student, {own} .* recipe: {others}$"):
            choose_defaults(kd.DistillationTrainingArguments(recipe=recipe), model, dataset(40))
        args = kd.DistillationTrainingArguments(recipe=recipe, learning_rate=3e-4)
        assert choose_defaults(args, model, dataset(40)) is not None
        saved = kd.DistillationTrainingArguments(**args.to_dict())  # as a report on a finished run reads them
        assert choose_defaults(saved, copied(), dataset(40)) is None


def test_names_and_the_trainer_without_a_teacher() -> None:
    with pytest.raises(ValueError, match=r"recipe is 'tinny'; expected .*'auto', 'small', 'smaller', 'tiny'"):
        kd.DistillationTrainingArguments(recipe="tinny")
    with pytest.raises(ValueError, match="recipe is 'tiny', which is for a student that learns from a teacher"):
        kd.Trainer(small_model(), kd.TrainingArguments(recipe="tiny"))


def test_a_trainer_learns_from_the_copies_that_it_chooses(tmp_path: Path) -> None:
    """The tokenizer says what a word is; without one there are no copies. A search shares them among its trials."""
    teacher = small_model(3, hidden_size=192)
    tokenizer = kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "teacher"))
    args = kd.DistillationTrainingArguments(recipe="tiny", eval_strategy="no", disable_tqdm=True)
    parts = {"teacher_model": teacher, "train_dataset": small_dataset(40)}
    trainer = kd.DistillationTrainer(student(**NO_DROPOUT), args, processing_class=tokenizer, **parts)
    assert (args.augment, len(trainer.recipe.rows_to_learn_from())) == (24, 25 * 40)
    assert default_space(args)["learning_rate"] == {"type": "float", "low": 2.5e-4, "high": 4e-3, "log": True}
    other = copy.copy(args)
    kd.DistillationTrainer(student(), other, **parts)
    assert (other.augment, other.per_device_train_batch_size) == (0, 32)
    other.recipe = "transformers"
    kd.DistillationTrainer(student(), other, processing_class=tokenizer, **parts)
    assert (other.augment, other.learning_rate, other.chosen) == (0, 5e-5, {})


def test_questions_and_pairs_are_told_what_new_layers_do_not_learn(tmp_path: Path) -> None:
    teacher, tokenizer = question_model(), question_tokenizer(tmp_path)
    rows = encode(questions(20), tokenizer, max_length=8, doc_stride=1)
    args = kd.DistillationTrainingArguments(recipe="tiny", disable_tqdm=True)
    trainer = kd.DistillationTrainer(
        question_model(), args, teacher_model=teacher, train_dataset=rows, processing_class=tokenizer
    )
    assert args.augment == 0
    reason = trainer.objective.why_no_copies(rows, tokenizer)
    assert "copies of questions" in reason
    lines = choose_defaults(args, trainer.model, rows, reason)
    assert lines is not None
    assert "which a shape of its width copies (--recipe small)" in lines
    pairs = choose_defaults(kd.DistillationTrainingArguments(recipe="tiny"), student(), dataset(5_749, pairs=True))
    assert "which a shape of its width copies (--recipe small)" in str(pairs)
