"""A recipe's run in its output directory: how it begins or goes on, its checkpoints, and what it leaves."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..models.auto import AutoConfig
from ..system.files import verify_manifest, write_json
from .callbacks import Events
from .checkpoint import (
    check_same_run,
    check_same_steps,
    load_checkpoint,
    load_finished_run,
    load_weights,
    save_arguments,
    save_checkpoint,
)
from .directory import RESULTS_FILE, RunDirectory
from .optim import AdamW
from .publishing import upload_checkpoint
from .recipe import Recipe
from .state import STATE_FILE, TrainerState, is_evaluation, read_figures


class Run:
    """The run of a recipe in its output directory. Making one touches nothing on disk.

    Attributes:
        recipe: what is trained.
        dataset: the rows that the steps read.
        plan: which of them each step reads.
        directory: the output directory.
        left_by_interrupts: the checkpoints that interrupts have left; the next checkpoint takes their place.
        saved: the state in the checkpoint of a strategy that was last read or begun to be written.
        finished: whether the finished run is saved.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Raise ValueError for rows that cannot be trained on."""
        self.recipe = recipe
        self.dataset = recipe.rows_to_learn_from()
        recipe.settle_config(self.dataset)
        recipe.label_weights(self.dataset)  # raises before any work
        self.plan = recipe.new_plan(self.dataset)
        self.directory = RunDirectory(recipe.args.output_dir)
        self._new_state = recipe.new_state(self.dataset)
        self._overwrites = False
        self._kept_at_start: tuple[Path | str | None, ...] = ()
        self.left_by_interrupts: list[Path] = []
        self.saved, self.finished = "", False

    def load_finished(self) -> tuple[TrainerState, dict[str, float]] | None:
        """Give the model weights and threshold of the finished run in the directory; return its state and results.

        Returns None when no finished run is there. Raises ValueError for a run on other rows or by another teacher,
        and FileNotFoundError for one without its results.
        """
        recipe, directory = self.recipe, self.directory.path
        max_steps = recipe.max_steps(self.plan)
        state = load_finished_run(directory, recipe.model, recipe.args, max_steps, self._new_state)
        if state is None:
            return None
        if not (directory / RESULTS_FILE).is_file():
            raise FileNotFoundError(
                f"{directory} holds a finished run, but not its {RESULTS_FILE}; put the file back, or train anew with "
                "overwrite_output_dir (--overwrite-output-dir)"
            )
        kept = AutoConfig.from_pretrained(directory).trained_with
        recipe.set_threshold(kept.threshold, kept.threshold_rows)
        return state, read_figures(directory / RESULTS_FILE)

    def start(self, resume: bool | Path, optimizer: AdamW) -> TrainerState:
        """Set model and optimiser to the checkpoint that `resume` names, or to the beginning; return the state there.

        Nothing on disk changes before `begin`.

        Best weights that are to be loaded at the end, and whose checkpoint is gone or damaged, are forgotten with a
        warning: the evaluations from here on find others.

        Raises ValueError for a checkpoint of a run on other rows, by another teacher or by processes with other
        steps, and what `RunDirectory.checkpoint_to_resume` does.
        """
        recipe, checkpoint = self.recipe, self.directory.checkpoint_to_resume(resume)
        recipe.ready_model()
        if checkpoint is None:
            state = self._new_state
        else:
            saved = TrainerState.load(checkpoint)
            check_same_run(saved, recipe.args, self._new_state)
            check_same_steps(saved, recipe.args)
            state = load_checkpoint(checkpoint, recipe.model, optimizer)
            state.evaluated_on = state.evaluated_on or self._new_state.evaluated_on
            self._find_best_weights(state, checkpoint)
            self.left_by_interrupts = self.directory.left_by_interrupts()
            if not state.interrupted:
                self.saved = (checkpoint / STATE_FILE).read_text("utf-8")
            state.interrupted = False
        self._overwrites = recipe.args.overwrite_output_dir and not resume
        self._kept_at_start = (checkpoint, state.best_model_checkpoint)
        state.set_length(recipe.args, recipe.max_steps(self.plan), self.plan.steps_per_epoch)
        return state

    def _find_best_weights(self, state: TrainerState, checkpoint: Path) -> None:
        """Let the state name the best checkpoint beside the one resumed from, or forget it with a warning."""
        if state.best_global_step is None or state.best_model_checkpoint is None:
            return
        best = checkpoint.with_name(Path(state.best_model_checkpoint).name)  # the directory may have been moved since
        state.best_model_checkpoint = str(best)
        damage = verify_manifest(best) if self.recipe.args.load_best_model_at_end else None
        if damage is not None:
            warnings.warn(
                f"the best weights so far, those of step {state.best_global_step}, are lost ({damage}); the best of "
                "the evaluations from here on will be kept",
                stacklevel=4,
            )
            state.forget_best()

    def begin(self) -> None:
        """Mark the output directory as this run's, and delete the run that it replaces.

        Call it when the first step is next: what fails before then leaves the directory as it was.
        """
        if self._overwrites:
            self.directory.delete_run()
        self.directory.rotate(self.recipe.args.save_total_limit, self._kept_at_start, self.left_by_interrupts)
        save_arguments(self.directory.path, self.recipe.args, self.recipe.provenance.command)

    def take_best_weights(self, state: TrainerState) -> str | None:
        """Give the model the weights of the best evaluation, where the run keeps these.

        Returns None, or, when their checkpoint is gone or damaged, a sentence about it; the model then keeps the
        weights of the last step, and the state forgets the best one. Warns where no evaluation could be the best.
        """
        args, evaluated = self.recipe.args, any(map(is_evaluation, state.log_history))
        if args.load_best_model_at_end and evaluated and state.best_global_step is None:
            warnings.warn(
                f"the weights of the last step, {state.global_step}, are kept: no evaluation gave a finite "
                f"{args.metric_for_best_model!r}, the metric that chooses the best ones",
                stacklevel=4,
            )
        if not self._keeps_best(state) or state.best_global_step == state.global_step:  # the model has them
            return None
        assert state.best_model_checkpoint is not None
        best = Path(state.best_model_checkpoint)
        damage = verify_manifest(best)
        if damage is None:
            load_weights(best, self.recipe.model)
            return None
        sentence = (
            f"the weights of the last step, {state.global_step}, are kept, because the best ones, those of step "
            f"{state.best_global_step}, are lost: {damage}"
        )
        state.forget_best()
        return sentence

    def _keeps_best(self, state: TrainerState) -> bool:
        return bool(self.recipe.args.load_best_model_at_end and state.best_model_checkpoint)

    def figures(self, state: TrainerState) -> dict[str, float]:
        """Return the entry that the log of a run ends with."""
        runtime = max(state.train_runtime, 1e-9)
        return {
            "train_runtime": runtime,
            "train_samples_per_second": (
                state.global_step / self.plan.steps_per_epoch * self.plan.rows_per_epoch / runtime
            ),
            "train_steps_per_second": state.global_step / runtime,
            "train_loss": state.total_loss / max(1, state.global_step),
        }

    def results(self, state: TrainerState) -> dict[str, float]:
        """Return the run's figures, the evaluation of the weights that are kept, and what the objective measured."""
        kept = state.best_global_step if self._keeps_best(state) else state.global_step
        results: dict[str, float] = {}
        for entry in state.log_history:
            if "train_loss" in entry or (entry["step"] == kept and is_evaluation(entry)):
                results |= entry
        results.pop("step", None)
        return self.figures(state) | results | self.recipe.objective.figures()

    def finish(self, state: TrainerState) -> None:
        """Save the state, with which the run is finished; checkpoints that interrupts have left are needed no more."""
        state.save(self.directory.path)
        self.finished = True
        self.delete_left_by_interrupts(state.best_model_checkpoint)

    def delete_left_by_interrupts(self, *keep: Path | str | None) -> None:
        """Delete the checkpoints that interrupts have left, except those of `keep`."""
        kept = {Path(path) for path in keep if path is not None}
        for path in self.left_by_interrupts:
            if path.is_dir() and path not in kept:
                self.directory.delete_checkpoint(path)
        self.left_by_interrupts = []

    def write_results(self, results: dict[str, float]) -> None:
        """Write all_results.json."""
        write_json(self.directory.path / RESULTS_FILE, results)


class RunCheckpoints:
    """The checkpoints of a run: written, the oldest deleted, and uploaded where the arguments ask for it."""

    def __init__(self, run: Run, events: Events) -> None:
        self._run, self._recipe, self._directory, self._events = run, run.recipe, run.directory, events

    def begin(self) -> None:
        """Let the output directory be this run's."""
        self._run.begin()

    def save(self, optimizer: AdamW, state: TrainerState) -> None:
        """Write the checkpoint of the present step. An upload that fails is a warning."""
        args, path = self._recipe.args, self._directory.checkpoint(state.global_step)
        if state.best_global_step == state.global_step:
            state.best_model_checkpoint = str(path)
        self._run.saved = state.to_json()
        self._write(path, optimizer, state)
        self._directory.rotate(args.save_total_limit, keep=(path, state.best_model_checkpoint))
        if args.push_to_hub and args.hub_strategy != "end" and state.steps_passed < state.max_steps:
            self._events("on_push_begin")
            upload_checkpoint(path, args, state)

    def save_interrupted(self, optimizer: AdamW, state: TrainerState) -> None:
        """Write the checkpoint of the latest step, unless `save` has written it: the interrupt may have come then."""
        path = self._directory.checkpoint(state.global_step)
        stands = (path / STATE_FILE).is_file() and (path / STATE_FILE).read_text("utf-8") == self._run.saved
        if not (stands or self._run.finished):
            state.interrupted = True
            self._write(path, optimizer, state)

    def _write(self, path: Path, optimizer: AdamW, state: TrainerState) -> None:
        recipe, args = self._recipe, self._recipe.args
        self._directory.write_checkpoint(
            state.global_step,
            lambda target: save_checkpoint(target, recipe.model, recipe.processing_class, optimizer, state, args),
        )
        self._run.delete_left_by_interrupts(path, state.best_model_checkpoint)
