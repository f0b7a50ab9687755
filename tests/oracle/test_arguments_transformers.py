"""Names, defaults and schedules against transformers."""

from __future__ import annotations

import dataclasses

import pytest

from kdistill.arguments import SCHEDULERS, DistillationTrainingArguments
from kdistill.schedules import get_scheduler

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

OUR_OWN = {"alpha", "temperature", "teacher_cache", "max_length"}
# transformers 5 dropped the first and folds the second into warmup_steps; older versions have both.
OLDER = {"overwrite_output_dir", "warmup_ratio"}
# Set apart in the documentation, or worked out from other arguments.
OTHER_DEFAULT = {
    "output_dir",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "eval_strategy",
    "save_strategy",
    "logging_strategy",
    "metric_for_best_model",
    "load_best_model_at_end",
    "disable_tqdm",
}


def test_names_and_defaults_are_those_of_transformers() -> None:
    theirs = {field.name: field.default for field in dataclasses.fields(transformers.TrainingArguments)}
    ours = {field.name: field.default for field in dataclasses.fields(DistillationTrainingArguments)}
    assert set(ours) - set(theirs) <= OUR_OWN | OLDER
    shared = set(ours) & set(theirs) - OTHER_DEFAULT
    assert len(shared) > 20
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


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
