"""Names, defaults and schedules against transformers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.train.schedules import SCHEDULES, get_scheduler
from kdistill.train.state import TrainerState
from kdistill.train.transformers_names import OTHER_ARGUMENTS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

THEIRS = {
    field.name: field.default_factory() if field.default is dataclasses.MISSING else field.default
    for field in dataclasses.fields(transformers.TrainingArguments)
}
OURS = {field.name: field for field in dataclasses.fields(DistillationTrainingArguments)}


def test_every_argument_of_transformers_is_understood() -> None:
    assert len(THEIRS) > 90
    assert set(THEIRS) - set(OURS) - set(OTHER_ARGUMENTS) == set()


def test_what_is_said_to_be_of_transformers_is() -> None:
    ours = {name for name, field in OURS.items() if field.metadata["origin"] == "transformers"}
    others = {name for name, row in OTHER_ARGUMENTS.items() if row.origin == "transformers"}
    assert ours | others == set(THEIRS)


def test_defaults_are_those_of_transformers_or_said_not_to_be() -> None:
    said = {name: field.metadata["theirs"] for name, field in OURS.items()}
    said |= {name: row.default for name, row in OTHER_ARGUMENTS.items()}
    assert {name: said[name] for name in THEIRS} == THEIRS


def test_all_defaults_of_transformers_can_be_passed_on() -> None:
    args = DistillationTrainingArguments(**THEIRS)
    assert (args.eval_strategy, args.save_strategy, args.logging_strategy) == ("no", "steps", "steps")
    assert args.per_device_train_batch_size == 8


@pytest.mark.parametrize("warmup_steps", [0, 0.06, 0.5, 1, 3])
def test_warmup_steps_are_those_of_transformers(warmup_steps: float) -> None:
    theirs = transformers.TrainingArguments("out", warmup_steps=warmup_steps, use_cpu=True)
    ours = DistillationTrainingArguments("out", warmup_steps=warmup_steps)
    assert [ours.get_warmup_steps(n) for n in range(1, 200)] == [theirs.get_warmup_steps(n) for n in range(1, 200)]


@pytest.mark.parametrize("steps", [0.01, 0.1, 0.3, 0.5, 1, 7])
def test_shares_of_a_run_are_those_of_transformers(steps: float) -> None:
    fields = {"logging_steps": steps, "eval_steps": steps, "save_steps": steps}
    for max_steps in (1, 10, 30, 77):
        theirs, ours = transformers.TrainerState(), TrainerState()
        theirs.compute_steps(transformers.TrainingArguments("out", use_cpu=True, **fields), max_steps)
        ours.set_length(DistillationTrainingArguments("out", **fields), max_steps, steps_per_epoch=10)
        for name in fields:
            assert getattr(ours, name) == getattr(theirs, name)


SETTINGS: dict[str, list[dict[str, object]]] = {
    "cosine": [{}, {"num_cycles": 1.3}],
    "cosine_with_restarts": [{}, {"num_cycles": 3}],
    "polynomial": [{}, {"lr_end": 1e-3, "power": 2.0}],
    "inverse_sqrt": [{}, {"timescale": 5}],
    "cosine_with_min_lr": [{"min_lr": 0.01}, {"min_lr_rate": 0.2, "num_cycles": 1.5}],
    "cosine_warmup_with_min_lr": [{"min_lr": 0.01}, {"min_lr_rate": 0.2, "warmup_lr_rate": 0.3}],
    "warmup_stable_decay": [
        {"num_decay_steps": 9},
        {"num_decay_steps": 9, "warmup_type": "cosine", "decay_type": "linear", "min_lr_ratio": 0.1},
        {"num_decay_steps": 9, "warmup_type": "1-sqrt", "decay_type": "1-sqrt", "min_lr_ratio": 0.1},
        {"num_decay_steps": 5, "num_stable_steps": 4, "num_cycles": 1.5},
    ],
}
BY_STEP = [name for name, kind in SCHEDULES.items() if not kind.follows_evaluations]
LR = 0.05


def their_scheduler(name: str, settings: dict[str, object], warmup: int = 0, steps: int = 40):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    return optimizer, transformers.get_scheduler(name, optimizer, warmup, steps, settings)


def test_schedules_have_the_names_of_transformers() -> None:
    assert set(SCHEDULES) == {kind.value for kind in transformers.SchedulerType}


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize(
    ("name", "settings"), [(name, each) for name in BY_STEP for each in SETTINGS.get(name, [{}])], ids=str
)
@pytest.mark.filterwarnings("ignore:Both num_training_steps and num_stable_steps")
def test_schedule_is_that_of_transformers(name: str, settings: dict[str, object], warmup: int) -> None:
    steps = 40
    optimizer, theirs = their_scheduler(name, settings, warmup, steps)
    ours = get_scheduler(name, warmup, steps, lr=LR, scheduler_specific_kwargs=settings)
    for step in range(steps):
        assert ours.at(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-14, abs=1e-17)  # float64's rounding
        optimizer.step()
        theirs.step()


FOLLOWING = [
    ("reduce_lr_on_plateau", {"patience": 1}),
    ("reduce_lr_on_plateau", {"patience": 0, "mode": "max", "factor": 0.5, "cooldown": 2, "min_lr": 0.01}),
    ("reduce_lr_on_plateau", {"patience": 0, "threshold": 0.1, "threshold_mode": "abs"}),
    ("greedy", {"patience": 1}),
    ("greedy", {"patience": 0, "mode": "max", "cooldown": 1, "warmup": 2, "max_lr": 0.06, "min_lr": 0.04}),
    ("greedy", {"patience": 0, "smooth": True, "window_size": 3, "threshold_mode": "rel", "factor": 0.5}),
    ("greedy", {"patience": 0, "min_lr": 0.03, "factor": 0.5, "reset_start": 2}),
]


@pytest.mark.parametrize(("name", "settings"), FOLLOWING, ids=str)
def test_schedule_that_follows_evaluations_is_that_of_transformers(name: str, settings: dict[str, object]) -> None:
    """Also when it is stopped and goes on from its state after every evaluation."""
    metrics = np.random.default_rng(3).normal(1, 0.4, 60).round(2).tolist() + [0.1] * 12
    optimizer, theirs = their_scheduler(name, settings)
    ours = get_scheduler(name, 0, 40, lr=LR, scheduler_specific_kwargs=settings)
    seen = set()
    for metric in metrics:
        theirs.step(metric)
        ours.follow(metric)
        assert ours.at(0) == optimizer.param_groups[0]["lr"]
        seen.add(ours.at(0))
        resumed = get_scheduler(name, 0, 40, lr=LR, scheduler_specific_kwargs=settings)
        resumed.load_state(json.loads(json.dumps(ours.state())))
        ours = resumed
    assert len(seen) > 1


@pytest.mark.parametrize("enum", ["IntervalStrategy", "SaveStrategy", "HubStrategy", "SchedulerType"])
def test_enums_of_transformers_stand_for_their_values(enum: str) -> None:
    argument = {
        "IntervalStrategy": "logging_strategy",
        "SaveStrategy": "save_strategy",
        "HubStrategy": "hub_strategy",
        "SchedulerType": "lr_scheduler_type",
    }[enum]
    args = DistillationTrainingArguments("out", push_to_hub=True, lr_scheduler_kwargs=None)
    for value in getattr(transformers.trainer_utils, enum):
        setattr(args, argument, value)
        assert getattr(args, argument) == value.value
        assert type(getattr(args, argument)) is str
