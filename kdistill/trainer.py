"""`Trainer`: fine-tune a model on labelled rows, with evaluation, checkpoints and bit-exact resume.

The path of the data is straight: rows of the dataset -> batch -> forward -> loss -> backward -> clip -> AdamW.
`DistillationTrainer` changes the loss and little else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .data.dataset import Dataset
from .losses.labels import label_loss
from .metrics.prediction import Labels, Logits
from .system.files import read_json_object
from .system.notebook import html_table
from .train.callbacks import TrainerControl
from .train.checkpoint import (
    check_same_run,
    load_checkpoint,
    load_finished_run,
    load_weights,
    save_arguments,
    save_checkpoint,
)
from .train.directory import RESULTS_FILE, RunDirectory
from .train.optim import AdamW
from .train.publishing import check_publishing, upload_checkpoint
from .train.schedules import get_scheduler
from .train.state import TrainerState, write_json
from .train.step import EpochPlan, RowIndices, training_step
from .trainer_base import made_by
from .trainer_search import SearchingTrainer


class TrainOutput(NamedTuple):
    """What `Trainer.train` returns: steps done, mean training loss, metrics of the run."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]

    def _repr_html_(self) -> str:
        """What Jupyter shows: the run's figures."""
        return html_table(f"{self.global_step:,} steps, training loss {self.training_loss:.4f}", self.metrics.items())


class Trainer(SearchingTrainer):
    """Trains `model` on `train_dataset` as `args` say, and measures it on `eval_dataset`.

    A data set is a path (TSV, CSV, JSONL, Parquet), rows in memory or an encoded `Dataset`; text needs
    `processing_class`, the tokenizer (`tokenizer` is its name in transformers 4). `compute_metrics` takes an
    `EvalPrediction` and returns a dictionary, which is added to accuracy, loss and n. `model_init`, called without
    arguments or with None for a trial, makes the model in place of `model`, anew for each call of `train`. `callbacks`
    are `TrainerCallback`s or classes of them; those of transformers work too. `data_collator` may be a
    `DataCollatorWithPadding`, which has nothing to do here. The other arguments of transformers' `Trainer` are refused
    (`TypeError`) with a sentence that says what to use.

    Attributes: `state`, where the run stands; `results`, what all_results.json holds once it is finished;
    `started_from` and `data_names`, what the model card calls the checkpoint that training began with and the data;
    `command`, the command line that `train` leaves in the output directory; `study`, Optuna's study of the latest
    hyperparameter search; `commit_url`, where the latest upload to the hub is.
    """

    def train(self, resume_from_checkpoint: bool | str | os.PathLike[str] | None = None) -> TrainOutput:
        """Train, and leave the finished run in `args.output_dir`.

        `resume_from_checkpoint`: a checkpoint's path, or True for the newest whole checkpoint in the output directory
        (a run without one starts; a finished run is left as it is). A resumed run ends with the bits of one that was
        never interrupted.

        Raises `ValueError` for data or checkpoints that cannot be trained on, `FileExistsError` or another `OSError`
        for an output directory that may not be or cannot be written, and `FloatingPointError`, with the parameters as
        they were before the step, when loss or gradient are not finite. With `push_to_hub` also what an upload raises:
        before any work for want of the package, a token or a possible name, at the end what `push_to_hub` does.
        """
        args, directory = self.args, RunDirectory(self.args.output_dir)
        if args.push_to_hub:
            check_publishing(args)
        with directory.claim(resume=bool(resume_from_checkpoint), overwrite=args.overwrite_output_dir):
            if self.model_init is not None and self.state.global_step:
                self.model = self._taken(made_by(self.model_init))
            dataset = self._rows_to_learn_from()
            self._state_problem_type(dataset)
            begun = self._begun_state(dataset)
            if resume_from_checkpoint is not True or not self._take_finished_run(directory, dataset, begun):
                optimizer = self.optimizer = self._make_optimizer()
                checkpoint = directory.checkpoint_to_resume(resume_from_checkpoint)
                self._start(checkpoint, optimizer, begun)
                directory.rotate(args.save_total_limit, keep=(checkpoint, self.state.best_model_checkpoint))
                self._train_on(dataset, optimizer, directory)
        if args.push_to_hub:
            self.push_to_hub()
        return self._output()

    def load_finished_run(self) -> None:
        """Take weights, state and results of the finished run in `args.output_dir`, as if it had just ended.

        Raises `FileNotFoundError` when there is no finished run, and `ValueError` when it was trained or evaluated on
        other rows, or had another teacher, than this trainer has.
        """
        dataset, directory = self._rows_to_learn_from(), RunDirectory(self.args.output_dir)
        if not self._take_finished_run(directory, dataset, self._begun_state(dataset)):
            raise FileNotFoundError(f"{directory.path} holds no finished run; expected one that ended (see --resume)")

    def _begun_state(self, dataset: Dataset) -> TrainerState:
        """That of a run that begins with these rows."""
        evaluation = self.eval_dataset
        return TrainerState(
            trained_on=self._fingerprint(dataset), evaluated_on="" if evaluation is None else evaluation.fingerprint()
        )

    def _take_finished_run(self, directory: RunDirectory, dataset: Dataset, begun: TrainerState) -> bool:
        max_steps = self._plan(dataset).max_steps(self.args.num_train_epochs, self.args.max_steps)
        finished = load_finished_run(directory.path, self.model, self.args, max_steps, begun)
        if finished is not None:
            self.state, self.results = finished, read_json_object(directory.path / RESULTS_FILE)
        return finished is not None

    def _train_on(self, dataset: Dataset, optimizer: AdamW, directory: RunDirectory) -> None:
        """All steps that are left, and what a finished run leaves."""
        plan = self._begun_plan(dataset)
        save_arguments(directory.path, self.args, self.command)
        self._prepare(dataset)
        with self._training(optimizer):
            self._run_epochs(dataset, optimizer, plan, directory)
            self._finish(plan, directory)

    def _train_without_files(self, dataset: Dataset) -> None:
        self.optimizer = self._make_optimizer()
        self._start(None, self.optimizer, TrainerState())
        plan = self._begun_plan(dataset)
        with self._training(self.optimizer):
            self._run_epochs(dataset, self.optimizer, plan, None)

    def _begun_plan(self, dataset: Dataset) -> EpochPlan:
        """Which rows each step reads, once the state knows how many there are."""
        args, plan = self.args, self._plan(dataset)
        self.state.plan(args, plan.max_steps(args.num_train_epochs, args.max_steps), plan.steps_per_epoch)
        return plan

    @contextmanager
    def _training(self, optimizer: AdamW) -> Iterator[None]:
        self._call("on_train_begin")
        try:
            yield
        finally:
            optimizer.zero_grad()  # an error or Ctrl-C inside a step may have left some
            self._call("on_train_end")
            self.optimizer = None

    def compute_loss(self, logits: Logits, labels: Labels, rows: RowIndices) -> tuple[float, Logits]:
        """Mean loss of a micro-batch and its gradient by the logits, (B, num_labels) float32.

        `rows` are the rows' places in the training data. Override it to train on another loss.
        """
        return label_loss(logits, labels, self.model.config.problem_type_of(labels), self.args.label_smoothing_factor)

    def _count_part(self, name: str, mean: float, rows: int) -> None:
        """Let `compute_loss` tell a part of the loss, its mean over so many rows, to be logged under this name."""
        if rows:
            total, count = self._parts.get(name, (0.0, 0))
            self._parts[name] = (total + mean * rows, count + rows)

    def _plan(self, dataset: Dataset) -> EpochPlan:
        args = self.args
        return EpochPlan(
            len(dataset),
            batch_size=args.per_device_train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            drop_last=args.dataloader_drop_last,
            seed=args.get_data_seed(),
        )

    def _make_optimizer(self) -> AdamW:
        args = self.args
        return AdamW(
            self.model,
            lr=args.learning_rate,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_epsilon,
            weight_decay=args.weight_decay,
            ema_decay=args.ema_decay,
        )

    def _start(self, checkpoint: Path | None, optimizer: AdamW, begun: TrainerState) -> None:
        """Set model, optimiser and state to the beginning of the run, or to `checkpoint`."""
        self.control = TrainerControl()
        self.model.dropout_seed = self.args.seed
        if checkpoint is None:
            self.state = begun
            self.model.optimizer_step = self.model.tokens_in_step = 0
            return
        check_same_run(TrainerState.load(checkpoint), self.args, begun)
        self.state = load_checkpoint(checkpoint, self.model, optimizer)
        self.state.evaluated_on = self.state.evaluated_on or begun.evaluated_on
        self.callback_handler.load_states(self.state.stateful_callbacks)
        if self.state.best_global_step is not None:  # the directory may have been moved since
            best = checkpoint.with_name(f"checkpoint-{self.state.best_global_step}")
            self.state.best_model_checkpoint = str(best)

    def _run_epochs(self, dataset: Dataset, optimizer: AdamW, plan: EpochPlan, directory: RunDirectory | None) -> None:
        """All steps that are left. Without a directory nothing is saved, whoever asks for it."""
        state, args = self.state, self.args
        schedule = get_scheduler(args.lr_scheduler_type, args.get_warmup_steps(state.max_steps), state.max_steps)
        if args.eval_on_start and not state.place:
            self.evaluate()
        started = time.monotonic() - state.train_runtime
        while state.place < state.max_steps and not (self.control.should_training_stop or state.stopped):
            epoch, first = divmod(state.place, plan.steps_per_epoch)
            self.control.should_epoch_stop = False
            self._call("on_epoch_begin")
            for rows in plan.rows_of_epoch(epoch, first):
                optimizer.lr = args.learning_rate * schedule(state.global_step)
                grad_norm = self._step(dataset, optimizer, rows)
                state.train_runtime = time.monotonic() - started
                state.epoch = state.place / plan.steps_per_epoch
                self._call("on_step_end")
                if self.control.should_epoch_stop:
                    state.skipped_steps += -state.place % plan.steps_per_epoch
                    state.epoch = state.place / plan.steps_per_epoch
                ends = self.control.should_training_stop or state.place % plan.steps_per_epoch == 0
                if ends:
                    self._call("on_epoch_end")
                self._do_what_is_due(optimizer, grad_norm, directory)
                if self.control.should_training_stop and not ends:  # an evaluation may have said so
                    self._call("on_epoch_end")
                    self._do_what_is_due(optimizer, grad_norm, directory)
                if ends or self.control.should_training_stop:
                    break
        state.stopped = state.place < state.max_steps
        optimizer.take_average()

    def _step(self, dataset: Dataset, optimizer: AdamW, rows: RowIndices) -> float:
        """One update; the gradient's norm before clipping."""
        state = self.state
        self._call("on_step_begin")
        self._parts.clear()
        try:
            loss, grad_norm = training_step(
                optimizer,
                dataset,
                rows,
                batch_size=self.args.per_device_train_batch_size,
                max_grad_norm=self.args.max_grad_norm,
                compute_loss=self.compute_loss,
                on_event=self._call,
            )
        except FloatingPointError as error:
            raise FloatingPointError(f"step {state.global_step + 1}: {error}") from error
        state.total_loss += loss
        for name, (total, count) in self._parts.items():
            state.add_part(name, total / count)
        state.global_step += 1
        return grad_norm

    def _do_what_is_due(self, optimizer: AdamW, grad_norm: float, directory: RunDirectory | None) -> None:
        state, args = self.state, self.args
        if self.control.should_log and state.global_step > state.logged_step:
            mean_loss = (state.total_loss - state.logged_loss) / (state.global_step - state.logged_step)
            parts = state.take_parts()
            self.log({"loss": mean_loss, **parts, "grad_norm": grad_norm, "learning_rate": optimizer.lr})
            state.logged_step, state.logged_loss = state.global_step, state.total_loss
        if self.control.should_evaluate and self.eval_dataset is not None:
            is_best = self._is_best(self.evaluate())
            if is_best and (args.load_best_model_at_end or args.save_strategy == "best"):
                self.control.should_save = True
        if self.control.should_save and directory is not None:
            self._save_checkpoint(optimizer, directory)
            self._call("on_save")
        self.control.should_log = self.control.should_evaluate = self.control.should_save = False

    def _is_best(self, metrics: dict[str, float]) -> bool:
        """Whether this evaluation beats all before it; if so, it is the one to beat."""
        return self.state.take_if_better(self._best_metric(metrics), bool(self.args.greater_is_better))

    def _save_checkpoint(self, optimizer: AdamW, directory: RunDirectory) -> None:
        state = self.state
        state.stopped = self.control.should_training_stop and state.place < state.max_steps
        state.stateful_callbacks = self.callback_handler.states()
        path = directory.checkpoint(state.global_step)
        if state.best_global_step == state.global_step:
            state.best_model_checkpoint = str(path)
        directory.write_checkpoint(
            state.global_step,
            lambda target: save_checkpoint(target, self.model, self.processing_class, optimizer, state, self.args),
        )
        directory.rotate(self.args.save_total_limit, keep=(path, state.best_model_checkpoint))
        if self.args.push_to_hub and self.args.hub_strategy != "end" and state.place < state.max_steps:
            self._call("on_push_begin")
            upload_checkpoint(path, self.args, self.state)

    def _finish(self, plan: EpochPlan, directory: RunDirectory) -> None:
        """Take the best weights, log the run's figures and write all of the output directory."""
        state = self.state
        if self.args.load_best_model_at_end and state.best_model_checkpoint:
            load_weights(Path(state.best_model_checkpoint), self.model)
        runtime = max(state.train_runtime, 1e-9)
        self.log(
            {
                "train_runtime": runtime,
                "train_samples_per_second": state.global_step / plan.steps_per_epoch * plan.rows_per_epoch / runtime,
                "train_steps_per_second": state.global_step / runtime,
                "train_loss": state.total_loss / max(1, state.global_step),
            }
        )
        self.results = self._figures()
        self.save_model()
        write_json(directory.path / RESULTS_FILE, self.results)
        self.create_model_card(measure_speed=False)
        state.save(directory.path)  # last: this file says that the run is finished

    def _figures(self) -> dict[str, float]:
        """The run's figures, and the evaluation of the weights that were kept."""
        state = self.state
        took_best = self.args.load_best_model_at_end and state.best_model_checkpoint
        kept = state.best_global_step if took_best else state.global_step
        figures: dict[str, float] = {}
        for entry in state.log_history:
            if "train_loss" in entry or (entry["step"] == kept and "eval_loss" in entry):
                figures |= entry
        del figures["step"]
        return figures

    def _output(self) -> TrainOutput:
        train_metrics = {name: value for name, value in self.results.items() if not name.startswith("eval_")}
        return TrainOutput(self.state.global_step, self.results["train_loss"], train_metrics)
