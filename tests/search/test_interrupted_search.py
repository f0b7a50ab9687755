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
