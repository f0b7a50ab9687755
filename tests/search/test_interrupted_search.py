"""A search that was interrupted chooses what an uninterrupted one would have chosen."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.small_search import distillation_trainer, search

from kdistill.search.search import POLL_SECONDS
from kdistill.search.study import SharedStudy
from kdistill.train.callbacks import TrainerCallback

pytestmark = pytest.mark.filterwarnings("ignore:the teacher.s accuracy")  # of random weights
N_TRIALS = 12  # TPE draws the first ten at random


class InterruptOnce(TrainerCallback):
    """Ctrl-C in the first step of a trial, the first time that it runs."""

    def __init__(self, number: int) -> None:
        self.number, self.done = number, [False]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.run_name == f"run-{self.number}" and not self.done[0]:
            self.done[0] = True
            os.kill(os.getpid(), signal.SIGINT)  # answered by the main thread, which ends the search
            time.sleep(2 * POLL_SECONDS)


def chosen(trainer: Any) -> list[tuple[dict[str, Any], Any]]:
    """What the trials that count were given, and what came of them."""
    counted = [trial for trial in trainer.study.trials if trial.state.name in ("COMPLETE", "PRUNED")]
    return [(trial.params, trial.values) for trial in counted]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_an_interrupted_search_draws_what_an_uninterrupted_one_draws(tmp_path: Path, sampler: str) -> None:
    whole = distillation_trainer(tmp_path / "whole", num_train_epochs=1)
    space = {
        "learning_rate": {"type": "float", "low": 1e-3, "high": 3e-2, "log": True},
        "alpha": {"type": "float", "low": 0.0, "high": 1.0},
    }
    search(whole, n_trials=N_TRIALS, sampler=sampler, hp_space=space)
    for number in (4, 11):
        broken = distillation_trainer(tmp_path / "broken", num_train_epochs=1, callbacks=[InterruptOnce(number)])
        with pytest.raises(KeyboardInterrupt):
            search(broken, n_trials=N_TRIALS, sampler=sampler, hp_space=space)
    resumed = distillation_trainer(tmp_path / "broken", num_train_epochs=1)
    search(resumed, n_trials=N_TRIALS, sampler=sampler, hp_space=space)
    assert len(resumed.study.trials) == N_TRIALS
    assert chosen(resumed) == chosen(whole)


class KillError(BaseException):
    """The end of a process: nothing is written after it."""


@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_a_search_killed_among_the_draws_of_a_trial_draws_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: int
) -> None:
    """With some of its hyperparameters stored, or all of them but not yet noted as the trial's."""
    space = {
        "learning_rate": {"type": "float", "low": 1e-3, "high": 3e-2, "log": True},
        "alpha": {"type": "float", "low": 0.0, "high": 1.0},
    }
    whole = distillation_trainer(tmp_path / "whole", num_train_epochs=1)
    search(whole, n_trials=4, hp_space=space)

    def kill(*_: Any) -> None:
        raise KillError

    def killed_space(trial: Any) -> dict[str, Any]:
        values = {}
        for number, (name, of) in enumerate(space.items()):
            if (trial.number, number) == (2, drawn):
                kill()
            values[name] = trial.suggest_float(name, of["low"], of["high"], log=of.get("log", False))
        if trial.number == 2:
            trial.set_user_attr = kill
        return values

    with monkeypatch.context() as during:
        during.setattr("kdistill.search.search._note_error", lambda *_: None)
        during.setattr("kdistill.search.study.SharedStudy.end_trial", end_unless_killed(SharedStudy.end_trial))
        with pytest.raises(KillError):
            search(distillation_trainer(tmp_path / "broken", num_train_epochs=1), n_trials=4, hp_space=killed_space)
    resumed = distillation_trainer(tmp_path / "broken", num_train_epochs=1)
    search(resumed, n_trials=4, hp_space=space)
    assert chosen(resumed) == chosen(whole)


def end_unless_killed(end: Any) -> Any:
    def end_trial(study: Any, number: int, state: str, objective: Any = None) -> None:
        if state != "FAIL":
            end(study, number, state, objective)

    return end_trial
