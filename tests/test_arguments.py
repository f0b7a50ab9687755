"""Training arguments: checked when set, one list for Python and the command line."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import numpy as np
import pytest

from kdistill.arguments import GROUPS, DistillationTrainingArguments, TrainingArguments


def test_defaults_of_its_own() -> None:
    args = DistillationTrainingArguments()
    assert (args.per_device_train_batch_size, args.per_device_eval_batch_size) == (128, 128)
    assert (args.alpha, args.temperature, args.teacher_cache) == (0.5, 4.0, True)
    assert (args.eval_strategy, args.save_strategy, args.logging_strategy) == ("epoch", "epoch", "epoch")
    assert args.load_best_model_at_end is True
    assert (args.metric_for_best_model, args.greater_is_better) == ("accuracy", True)


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [("temparature", "temperature"), ("evaluation_strategy", "eval_strategy"), ("lerning_rate", "learning_rate")],
)
def test_unknown_argument_suggests_the_nearest(misspelt: str, nearest: str) -> None:
    with pytest.raises(TypeError, match=f"'{misspelt}'; did you mean '{nearest}'"):
        DistillationTrainingArguments(**{misspelt: 1})
    with pytest.raises(AttributeError, match=f"'{misspelt}'; did you mean '{nearest}'"):
        setattr(DistillationTrainingArguments(), misspelt, 1)


def test_unknown_argument_without_a_near_one() -> None:
    with pytest.raises(TypeError, match=r"has no argument 'qqqq'$"):
        TrainingArguments(qqqq=1)


def test_distillation_arguments_are_unknown_to_fine_tuning() -> None:
    with pytest.raises(TypeError, match="TrainingArguments has no argument 'alpha'"):
        TrainingArguments(alpha=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", -0.1),
        ("alpha", 1.5),
        ("alpha", float("nan")),
        ("temperature", 0),
        ("temperature", -1.0),
        ("temperature", float("inf")),
        ("per_device_train_batch_size", 0),
        ("per_device_eval_batch_size", -3),
        ("gradient_accumulation_steps", 0),
        ("num_train_epochs", 0),
        ("max_steps", -2),
        ("learning_rate", -1e-3),
        ("warmup_ratio", 1.01),
        ("adam_beta1", 1.0),
        ("max_grad_norm", -1),
        ("save_total_limit", 0),
        ("max_length", 2),
        ("seed", -1),
        ("eval_strategy", "epochs"),
        ("lr_scheduler_type", "polynomial"),
        ("report_to", "wandb"),
    ],
)
def test_value_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is .*; expected"):
        DistillationTrainingArguments(**{name: value})
    args = DistillationTrainingArguments()
    before = args.to_dict()
    with pytest.raises(ValueError, match=f"^{name} is .*; expected"):
        setattr(args, name, value)
    assert args.to_dict() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", "0.5"),
        ("num_train_epochs", None),
        ("per_device_train_batch_size", 8.0),
        ("per_device_train_batch_size", True),
        ("disable_tqdm", "yes"),
        ("output_dir", 3),
    ],
)
def test_value_of_the_wrong_type(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} is .*; expected"):
        DistillationTrainingArguments(**{name: value})


def test_numpy_numbers_become_python_numbers() -> None:
    args = DistillationTrainingArguments(alpha=np.float32(0.25), seed=np.int64(7))
    assert type(args.alpha) is float
    assert type(args.seed) is int
    assert json.loads(json.dumps(args.to_dict()))["alpha"] == 0.25


def test_report_to_takes_a_list_as_in_transformers() -> None:
    assert TrainingArguments(report_to=["tensorboard"]).report_to == "tensorboard"
    assert TrainingArguments(report_to=[]).report_to == "none"


def test_best_model_needs_evaluations_and_checkpoints() -> None:
    assert TrainingArguments(eval_strategy="no").load_best_model_at_end is False
    assert TrainingArguments(save_strategy="no").load_best_model_at_end is False
    assert TrainingArguments(eval_strategy="steps").load_best_model_at_end is True
    for name in ("eval_strategy", "save_strategy"):
        with pytest.raises(ValueError, match=f"load_best_model_at_end is True with .*{name} 'no'"):
            TrainingArguments(**{name: "no"}, load_best_model_at_end=True)


def test_loss_is_better_when_smaller() -> None:
    assert TrainingArguments(metric_for_best_model="eval_loss").greater_is_better is False
    assert TrainingArguments(metric_for_best_model="f1").greater_is_better is True


def test_eval_steps_follow_logging_steps() -> None:
    assert TrainingArguments(logging_steps=7).eval_steps == 7
    assert TrainingArguments(logging_steps=7, eval_steps=3).eval_steps == 3


def test_warmup_steps_go_before_the_ratio() -> None:
    assert TrainingArguments(warmup_ratio=0.06).get_warmup_steps(101) == 7  # rounded up
    assert TrainingArguments(warmup_ratio=0.5, warmup_steps=3).get_warmup_steps(100) == 3
    assert TrainingArguments().get_warmup_steps(100) == 0


def test_copies_are_equal() -> None:
    args = DistillationTrainingArguments("out", alpha=0.25, eval_strategy="no")
    assert copy.deepcopy(args) == args == pickle.loads(pickle.dumps(args))
    assert DistillationTrainingArguments(**json.loads(json.dumps(args.to_dict()))) == args
    assert dataclasses.replace(args, seed=1).seed == 1


def test_every_argument_has_help_in_a_known_group() -> None:
    for field in dataclasses.fields(DistillationTrainingArguments):
        assert field.metadata["group"] in GROUPS
        assert len(field.metadata["help"]) > 10
