"""Training arguments: checked when set, one list for Python and the command line."""

from __future__ import annotations

import copy
import dataclasses
import enum
import inspect
import json
import pickle
import runpy
import warnings
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT

from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments, whole_steps
from kdistill.train.fields import GROUPS, argument
from kdistill.train.transformers_names import OTHER_ARGUMENTS, OtherArgument


def test_defaults_of_its_own() -> None:
    args = DistillationTrainingArguments()
    assert (args.per_device_train_batch_size, args.per_device_eval_batch_size) == (128, 128)
    assert (args.alpha, args.temperature, args.teacher_cache) == (0.5, 4.0, True)
    assert (args.eval_strategy, args.save_strategy, args.logging_strategy) == ("epoch", "epoch", "epoch")
    assert args.load_best_model_at_end is True
    assert (args.metric_for_best_model, args.greater_is_better) == ("accuracy", True)


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [("temparature", "temperature"), ("eval_stategy", "eval_strategy"), ("lerning_rate", "learning_rate")],
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
        ("save_total_limit", -1),
        ("max_length", 2),
        ("seed", -1),
        ("eval_strategy", "epochs"),
        ("lr_scheduler_type", "polynomal"),
        ("report_to", "comet_ml"),
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
    args = TrainingArguments(report_to=["tensorboard", "wandb", "tensorboard"])
    assert args == TrainingArguments(report_to="tensorboard,wandb,tensorboard")
    assert args.reporters() == ("tensorboard", "wandb")
    with pytest.raises(
        ValueError, match=r"^report_to is 'comet_ml'; expected one or more of 'none', .*'wandb', 'mlflow'"
    ):
        TrainingArguments(report_to=["tensorboard", "comet_ml"])
    with pytest.raises(ValueError, match=r"^report_to is 'none,files'; expected 'none' alone"):
        TrainingArguments(report_to=["none", "files"])


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
    assert TrainingArguments(eval_strategy="steps", logging_steps=7).eval_steps == 7
    assert TrainingArguments(logging_steps=7, eval_steps=3).eval_steps == 3
    assert TrainingArguments(eval_strategy="steps").eval_steps == 500


INTERVALS_OF = ("logging", "eval", "save")


@pytest.mark.parametrize("what", INTERVALS_OF)
def test_a_number_of_steps_decides_the_strategy(what: str) -> None:
    args = TrainingArguments(**{f"{what}_steps": 7})
    for other in INTERVALS_OF:
        expected = ("steps", 7) if other == what else ("epoch", None)
        assert (getattr(args, f"{other}_strategy"), getattr(args, f"{other}_steps")) == expected
    assert TrainingArguments(**args.to_dict()) == args


@pytest.mark.parametrize("what", INTERVALS_OF)
@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_a_number_of_steps_beside_another_strategy_has_no_effect(what: str, strategy: str) -> None:
    with pytest.warns(UserWarning, match=f"^{what}_steps has no effect here: {what}_strategy is given, and only"):
        args = TrainingArguments(**{f"{what}_steps": 7, f"{what}_strategy": strategy})
    assert (getattr(args, f"{what}_strategy"), getattr(args, f"{what}_steps")) == (strategy, None)
    assert getattr(TrainingArguments(**{f"{what}_steps": 7, f"{what}_strategy": "steps"}), f"{what}_steps") == 7


@pytest.mark.parametrize("what", INTERVALS_OF)
def test_the_latest_assignment_decides_an_interval(what: str) -> None:
    args = TrainingArguments(**{f"{what}_strategy": "epoch"})
    setattr(args, f"{what}_steps", 7)
    assert (getattr(args, f"{what}_strategy"), getattr(args, f"{what}_steps")) == ("steps", 7)
    setattr(args, f"{what}_strategy", "epoch")
    assert (getattr(args, f"{what}_strategy"), getattr(args, f"{what}_steps")) == ("epoch", None)
    setattr(args, f"{what}_strategy", "steps")
    assert getattr(args, f"{what}_steps") == 500


class Strategy(str, enum.Enum):  # noqa: UP042  # str() of a StrEnum is its value
    """Like the enums of transformers: a text whose str() is another one."""

    STEPS = "steps"
    COSINE = "cosine"


def test_an_enum_stands_for_its_value() -> None:
    args = TrainingArguments(eval_strategy=Strategy.STEPS, lr_scheduler_type=Strategy.COSINE)
    assert (args.eval_strategy, args.lr_scheduler_type) == ("steps", "cosine")
    assert type(args.eval_strategy) is str
    args.logging_strategy = Strategy.STEPS
    assert args.to_dict()["logging_strategy"] == "steps"
    with pytest.raises(ValueError, match=r"^eval_strategy is 'cosine'; expected one of 'no'"):
        args.eval_strategy = Strategy.COSINE


def test_warmup_steps_go_before_the_ratio() -> None:
    assert TrainingArguments(warmup_ratio=0.06).get_warmup_steps(101) == 7  # rounded up
    with pytest.warns(UserWarning, match="^warmup_ratio has no effect here: warmup_steps takes precedence$"):
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


def others(*verdicts: str) -> list[OtherArgument]:
    return [row for row in OTHER_ARGUMENTS.values() if row.verdict in verdicts]


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("evaluation_strategy", "steps", "eval_strategy"),
        ("per_gpu_train_batch_size", 7, "per_device_train_batch_size"),
        ("per_gpu_eval_batch_size", 7, "per_device_eval_batch_size"),
        ("push_to_hub_model_id", "me/tiny", "hub_model_id"),
        ("push_to_hub_token", "hf_x", "hub_token"),
    ],
)
def test_older_name_sets_what_it_is_now_called(name: str, value: Any, becomes: str) -> None:
    assert TrainingArguments(**{name: value}) == TrainingArguments(**{becomes: value})
    args = TrainingArguments()
    setattr(args, name, value)
    assert getattr(args, becomes) == getattr(args, name) == value
    assert name not in args.to_dict()
    for given in ({name: value, becomes: value}, {becomes: value, name: value}):
        with pytest.raises(TypeError, match=f"^{becomes} is given twice"):
            TrainingArguments(**given)
    assert TrainingArguments(**{name: None}) == TrainingArguments()


def test_every_older_name_is_tested_and_names_a_field() -> None:
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert {row.becomes for row in others("renamed")} <= names
    assert len(others("renamed")) == 5
    assert not names & set(OTHER_ARGUMENTS)


@pytest.mark.parametrize("row", OTHER_ARGUMENTS.values(), ids=lambda row: row.name)
def test_default_of_transformers_changes_nothing(row: OtherArgument) -> None:
    """A script may pass every argument on: only what it asks for beyond the defaults is worth a word."""
    empty = () if row.default else (False, "", [], {}, 0)
    for value in (row.default, None, *row.harmless, *empty):
        assert TrainingArguments(**{row.name: value}) == TrainingArguments()


@pytest.mark.parametrize("row", others("ignored"), ids=lambda row: row.name)
def test_ignored_argument_says_why(row: OtherArgument) -> None:
    other = not row.default if isinstance(row.default, bool) else "other"
    with pytest.warns(UserWarning, match=f"^{row.name} is ignored: .") as caught:
        assert TrainingArguments(**{row.name: other}) == TrainingArguments()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=f"^{row.name} is ignored: ."):
        setattr(TrainingArguments(), row.name, other)


@pytest.mark.parametrize("row", others("refused"), ids=lambda row: row.name)
def test_refused_argument_says_why(row: OtherArgument) -> None:
    with pytest.raises(ValueError, match=f"^{row.name} is 'other', which kdistill does not support: ."):
        TrainingArguments(**{row.name: "other"})
    with pytest.raises(ValueError, match=f"^{row.name} is 'other', which kdistill does not support: ."):
        setattr(TrainingArguments(), row.name, "other")
    assert getattr(TrainingArguments(), row.name) == row.default


@pytest.mark.parametrize("row", others("without effect"), ids=lambda row: row.name)
def test_what_is_always_so_is_accepted_in_silence(row: OtherArgument) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TrainingArguments(**{row.name: True}) == TrainingArguments()


def test_subclasses_know_the_names_too() -> None:
    @dataclasses.dataclass
    class Mine(TrainingArguments):
        extra: int = argument(1, "something of mine", group="training", at_least=0)

    assert Mine(evaluation_strategy="steps", extra=3).eval_strategy == "steps"


@pytest.mark.parametrize("name", ["logging_steps", "eval_steps", "save_steps", "warmup_steps"])
def test_steps_are_whole_or_a_share(name: str) -> None:
    for given, kept in ((7, 7), (7.0, 7), (1, 1), (0.25, 0.25)):
        value = getattr(TrainingArguments(**{name: given}), name)
        assert (value, type(value)) == (kept, type(kept))
    with pytest.raises(ValueError, match=f"^{name} is 2.5; expected a whole number of steps, or below 1 a share"):
        TrainingArguments(**{name: 2.5})
    assert [whole_steps(steps, 30) for steps in (0.1, 0.11, 7)] == [3, 4, 7]


def test_none_stands_for_the_default_where_it_does_in_transformers() -> None:
    names = ("output_dir", "disable_tqdm", "metric_for_best_model", "report_to")
    assert TrainingArguments(**dict.fromkeys(names)) == TrainingArguments()


def test_token_is_never_written_or_shown() -> None:
    args = TrainingArguments(hub_token="hf_secret")
    assert args.hub_token == "hf_secret"
    assert "hf_secret" not in f"{args!r} {json.dumps(args.to_dict())}"


def test_output_directory_below_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert TrainingArguments("~/out").output_dir == "/somewhere/out"


def test_best_checkpoints_need_evaluations() -> None:
    assert TrainingArguments(save_strategy="best").load_best_model_at_end is True
    with pytest.raises(ValueError, match="save_strategy is 'best' with eval_strategy 'no'"):
        TrainingArguments(save_strategy="best", eval_strategy="no")


def test_page_of_all_arguments_is_that_of_the_code() -> None:
    module = runpy.run_path(str(ROOT / "tools" / "arguments_page.py"))
    assert module["PAGE"].read_text() == module["page"](), "docs/arguments.md is old: run `make docs`"


@pytest.mark.parametrize("cls", [TrainingArguments, DistillationTrainingArguments])
def test_help_shows_the_arguments_by_name(cls: type) -> None:
    signature = inspect.signature(cls)
    assert list(signature.parameters) == [field.name for field in dataclasses.fields(cls)]
    assert signature.parameters["learning_rate"].default == 5e-5


def test_scripts_read_what_holds_of_arguments_that_are_not_here() -> None:
    with pytest.warns(UserWarning, match="fp16 is ignored"):
        args = TrainingArguments(do_train=True, fp16=True, optim="adamw_torch", num_train_epochs=1)
    assert (args.do_train, args.do_eval, args.fp16, args.optim, args.local_rank) == (
        True,
        False,
        False,
        "adamw_torch",
        -1,
    )
    args.do_train = False
    assert args.do_train is False
    assert TrainingArguments(eval_strategy="steps").do_eval is True  # as in transformers
    assert copy.deepcopy(TrainingArguments(do_predict=True)).do_predict is True
    assert (args.device, args.n_gpu, args.world_size, args.parallel_mode.value) == ("cpu", 0, 1, "not_parallel")
    assert (args.train_batch_size, args.get_process_log_level()) == (args.per_device_train_batch_size, 30)
    with args.main_process_first(desc="reading"):
        assert json.loads(args.to_json_string()) == args.to_dict()
    with pytest.raises(AttributeError, match="no argument 'set_training': assign the arguments one by one"):
        args.set_training(learning_rate=1e-3)
