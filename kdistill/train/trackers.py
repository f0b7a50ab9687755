"""Callbacks that log a run to Weights & Biases and to MLflow, through these packages.

They log what the metrics files of the run hold, under the names that the callbacks of transformers give it. A tracker
that fails, for want of a network or a login, gives one warning and ends, and the run goes on.
"""

from __future__ import annotations

import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .arguments import TrainingArguments
from .callbacks import TrainerCallback, TrainerControl
from .run_logs import hyperparameters, tag
from .state import TrainerState, numbers_of


class Tracker(TrainerCallback):
    """A base class for trackers: override `open`, `log` and `close`, whose errors it catches."""

    package: str
    """The package, and the extra that installs it."""

    def __init__(self) -> None:
        self._run: Any = None

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether the package can be imported."""
        return importlib.util.find_spec(cls.package) is not None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open a run with the hyperparameters."""
        self._try(lambda: self.open(args, state))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log the numbers of the entry."""
        if self._run is not None:
            self._try(lambda: self.log(numbers_of(kwargs["logs"]), state.global_step))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the run."""
        if self._run is not None:
            self._try(lambda: self.close(finished=state.stopped or state.steps_passed >= state.max_steps))
            self._run = None

    def open(self, args: TrainingArguments, state: TrainerState) -> None:
        """Set `_run` to a new run with the hyperparameters."""
        raise NotImplementedError

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Log the numbers of an entry of the log, with its epoch and step."""
        raise NotImplementedError

    def close(self, *, finished: bool) -> None:
        """Close the run."""
        raise NotImplementedError

    def _try(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001  # whatever a tracker raises, it must not end the run
            self._run = None
            warnings.warn(
                f"report_to: {self.package} failed and receives no more logs of this run: {type(error).__name__}: "
                f"{error}",
                stacklevel=3,
            )


class WandbCallback(Tracker):
    """A callback that logs to Weights & Biases.

    The project is WANDB_PROJECT, by default that of transformers' callback; the other variables of wandb, such as
    WANDB_MODE=offline, count too. Its files go into the output directory, or into WANDB_DIR.
    """

    package = "wandb"

    def open(self, args: TrainingArguments, state: TrainerState) -> None:
        """Open a run of wandb, beside others of this process."""
        import wandb

        directory = os.environ.get("WANDB_DIR") or args.output_dir
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "huggingface"),
            name=args.run_name,
            config=hyperparameters(args),
            dir=directory,
            reinit="create_new",
        )

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Log the numbers under names such as train/loss and eval/loss."""
        self._run.log(
            {tag(name): value for name, value in numbers.items() if name != "step"} | {"train/global_step": step}
        )

    def close(self, *, finished: bool) -> None:
        """Close the run; one that was cut short counts as failed there."""
        self._run.finish(exit_code=0 if finished else 1)


class MlflowCallback(Tracker):
    """A callback that logs to MLflow: to MLFLOW_TRACKING_URI, into the experiment MLFLOW_EXPERIMENT_NAME.

    It logs into the active run, if there is one, and leaves it open.
    """

    package = "mlflow"

    def open(self, args: TrainingArguments, state: TrainerState) -> None:
        """Open a run of MLflow and log the hyperparameters."""
        import mlflow
        from mlflow.entities import Param

        self._client = mlflow.MlflowClient()
        active = mlflow.active_run()
        self._is_ours = active is None
        if active is None:
            active = self._client.create_run(self._experiment(), run_name=args.run_name)
        self._run = active.info.run_id
        params = [Param(name, str(value)) for name, value in hyperparameters(args).items()]
        self._client.log_batch(self._run, params=params)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Log the numbers as metrics of the step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in numbers.items() if name != "step"]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        """End the run, unless it was active before."""
        if self._is_ours:
            self._client.set_terminated(self._run, status="FINISHED" if finished else "FAILED")


TRACKERS: tuple[type[Tracker], ...] = (WandbCallback, MlflowCallback)
"""All trackers; `report_to` names their packages."""
