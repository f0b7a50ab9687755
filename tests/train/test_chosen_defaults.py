"""What `recipe="auto"` chooses: the rule of docs/recipe.md, and that everything given stays as it is."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_model, question_tokenizer, questions
from support.small_run import small_config, small_dataset, small_model, write_model

import kdistill as kd
from kdistill.data.dataset import Dataset
from kdistill.models.classes import BertForSequenceClassification
from kdistill.search.space import default_space
from kdistill.tasks.question_answering import encode
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.chosen_defaults import choose_defaults
from kdistill.train.optim import AdamW
from kdistill.trainers import DistillationTrainer, Trainer

TRANSFORMERS = {
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 128,
    "learning_rate": 5e-5,
    "warmup_ratio": 0.0,
}


def dataset(rows: int, *, pairs: bool = False) -> Dataset:
    return Dataset(np.full(rows, 5, np.int32), np.full(rows, pairs, np.int32), np.arange(rows + 1), np.zeros(rows, int))


def chosen(rows: int, **given: Any) -> dict[str, Any]:
    args = TrainingArguments(recipe="auto", **given)
    choose_defaults(args, small_model(), dataset(rows))
    return args.chosen


# The sizes of SST-2, GoEmotions, CLINC150 and BANKING77 as docs/recipe.md measures them, and the bounds of the rule.
@pytest.mark.parametrize(
    ("rows", "epochs"), [(67_349, 3), (43_410, 5), (15_100, 13), (9_003, 22), (100, 120), (4_000, 50), (10**6, 3)]
)
def test_rows_decide_the_epochs(rows: int, epochs: int) -> None:
    assert chosen(rows) == {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-3,
        "warmup_ratio": 0.1,
    }


def test_a_teacher_of_several_labels_is_not_softened() -> None:
    args = DistillationTrainingArguments(recipe="auto")
    model = small_model(problem_type="multi_label_classification")
    choose_defaults(args, model, small_dataset(8))
    assert (args.temperature, args.chosen["temperature"]) == (1.0, 1.0)
    assert default_space(args)["temperature"] == {"type": "float", "low": 1.0, "high": 4.0, "log": True}
    choose_defaults(args, small_model(), small_dataset(8))
    assert args.temperature == 4.0
    given = DistillationTrainingArguments(recipe="auto", temperature=4.0)
    choose_defaults(given, model, small_dataset(8))
    assert given.temperature == 4.0
    alone = TrainingArguments(recipe="auto")
    choose_defaults(alone, model, small_dataset(8))
    assert "temperature" not in alone.chosen


@pytest.mark.parametrize(("name", "value"), [*TRANSFORMERS.items(), ("warmup_steps", 0), ("max_steps", 50)])
def test_given_arguments_win_even_if_they_are_the_default(name: str, value: Any) -> None:
    args = TrainingArguments(recipe="auto", **{name: value})
    sentence = choose_defaults(args, small_model(), dataset(9_003))
    assert getattr(args, name) == value
    assert name not in args.chosen
    assert sentence is not None
    assert f"; given: {name} {value:g}" in sentence
    if name == "warmup_steps":
        assert args.get_warmup_steps(1000) == 0
    if name == "max_steps":
        assert args.num_train_epochs == 3


@pytest.mark.parametrize(
    ("batch", "accumulation", "rate"), [(8, 1, 5e-4), (16, 2, 1e-3), (64, 1, 1.4e-3), (128, 1, 2e-3), (128, 8, 2e-3)]
)
def test_larger_updates_have_a_larger_learning_rate_up_to_a_limit(batch: int, accumulation: int, rate: float) -> None:
    given = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    assert chosen(9_003, **given)["learning_rate"] == rate


@pytest.mark.parametrize("schedule", ["constant", "reduce_lr_on_plateau", "greedy"])
def test_schedules_without_a_warm_up_get_none(schedule: str) -> None:
    assert "warmup_ratio" not in chosen(9_003, lr_scheduler_type=schedule)


def test_augmented_copies_are_rows_too() -> None:
    args = DistillationTrainingArguments(recipe="auto", augment=4)
    choose_defaults(args, small_model(), dataset(9_003))
    assert args.num_train_epochs == 4


def test_trainer_chooses_for_new_layers_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrained = BertForSequenceClassification.from_pretrained(write_model(tmp_path / "model"))
    for model, recipe, epochs in (
        (small_model(), "auto", 120),
        (small_model(), "transformers", 3),
        (pretrained, "auto", 3),
    ):
        trainer = Trainer(model, TrainingArguments(recipe=recipe), train_dataset=small_dataset(40))
        assert trainer.args.num_train_epochs == epochs
        printed = capsys.readouterr().err
        assert ("40 training rows per epoch" in printed) == (epochs == 120)
    assert {name: getattr(trainer.args, name) for name in TRANSFORMERS} == TRANSFORMERS


def test_arguments_that_serve_a_second_trainer_are_chosen_anew(tmp_path: Path) -> None:
    args = TrainingArguments(recipe="auto", disable_tqdm=True, warmup_ratio=0.2)
    Trainer(small_model(), args, train_dataset=small_dataset(40))
    pretrained = BertForSequenceClassification.from_pretrained(write_model(tmp_path / "model"))
    Trainer(pretrained, args, train_dataset=small_dataset(40))
    assert {name: getattr(args, name) for name in TRANSFORMERS} == TRANSFORMERS | {"warmup_ratio": 0.2}


def test_assignments_after_the_choice_are_given() -> None:
    args = TrainingArguments(recipe="auto", disable_tqdm=True)
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(40))
    trainer.args.learning_rate = 0.5
    assert "learning_rate" not in args.chosen
    Trainer(small_model(), args, train_dataset=small_dataset(40))
    assert args.learning_rate == 0.5


def test_copies_know_what_was_given() -> None:
    args = TrainingArguments(recipe="auto", learning_rate=5e-5)
    choose_defaults(args, small_model(), dataset(40))
    for other in (copy.copy(args), copy.deepcopy(args), pickle.loads(pickle.dumps(args))):
        assert (other.is_given("learning_rate"), other.is_given("warmup_ratio")) == (True, False)
        assert other.chosen == args.chosen


def test_scripts_of_transformers_give_what_stands_in_the_command_alone() -> None:
    words = ["--recipe", "auto", "--learning_rate", "5e-5"]
    (args,) = kd.HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(words)
    choose_defaults(args, small_model(), dataset(40))
    assert (args.learning_rate, args.num_train_epochs) == (5e-5, 120)


def test_layers_are_new_until_they_are_trained_or_read(tmp_path: Path) -> None:
    model = small_model()
    assert model.has_new_layers
    assert copy.deepcopy(model).has_new_layers
    assert pickle.loads(pickle.dumps(model)).has_new_layers
    assert not BertForSequenceClassification.from_pretrained(write_model(tmp_path / "model")).has_new_layers
    teacher = small_model(2)
    narrow = small_config(hidden_size=8, intermediate_size=16)
    assert BertForSequenceClassification.from_teacher(teacher, narrow).has_new_layers
    copied = BertForSequenceClassification.from_teacher(teacher, small_config(num_hidden_layers=1))
    assert not copied.has_new_layers
    loaded = small_model()
    loaded.load_state_dict(model.state_dict())
    assert not loaded.has_new_layers
    model.forward([[2, 5, 3]], train=True)
    model.backward(np.ones((1, 2), np.float32))
    AdamW(model, lr=0.1).step()
    assert not model.has_new_layers


@pytest.mark.parametrize(("rows", "pairs", "note"), [(5_749, True, True), (5_749, False, False), (50_000, True, False)])
def test_few_pairs_are_worth_a_note(rows: int, pairs: bool, note: bool) -> None:
    sentence = choose_defaults(TrainingArguments(recipe="auto"), small_model(), dataset(rows, pairs=pairs))
    assert sentence is not None
    assert (f"only from many pairs, and {rows:,} may be too few" in sentence) == note
    assert ("or of the teacher, which a shape of its width copies" in sentence) == note


def test_windows_of_questions_are_called_so(tmp_path: Path) -> None:
    rows = encode(questions(40), question_tokenizer(tmp_path), max_length=8, doc_stride=1)
    lines = choose_defaults(TrainingArguments(recipe="auto"), question_model(), rows)
    assert lines is not None
    assert f"made from a shape, and {len(rows)} training windows per epoch" in lines
    assert "note: new layers learn to find answers only from many questions, and 40 may be too few" in lines


def test_search_lies_around_what_was_chosen() -> None:
    args = DistillationTrainingArguments(recipe="auto", disable_tqdm=True)
    assert default_space(args)["learning_rate"] == {"type": "float", "low": 1e-5, "high": 1e-3, "log": True}
    DistillationTrainer(small_model(), args, teacher_model=small_model(3), train_dataset=small_dataset(40))
    space = default_space(args)
    assert set(space) == {"num_train_epochs", "learning_rate", "alpha", "temperature"}
    assert space["learning_rate"] == {"type": "float", "low": 2.5e-4, "high": 4e-3, "log": True}
    assert space["num_train_epochs"] == {"type": "int", "low": 60, "high": 180}
    args.learning_rate = 1e-4
    assert default_space(args)["learning_rate"]["high"] == 1e-3
