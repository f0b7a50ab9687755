"""Names, defaults and schedules against transformers."""

from __future__ import annotations

import dataclasses

import pytest

from kdistill.train.arguments import SCHEDULERS, DistillationTrainingArguments
from kdistill.train.schedules import get_scheduler
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


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_schedule_is_that_of_transformers(name: str, warmup: int) -> None:
    steps = 40
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    ours = get_scheduler(name, warmup, steps)
    for step in range(steps):
        assert ours(step) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()
