"""`Trainer` and `DistillationTrainer`: the names that users of `transformers` know, over recipe, run, loop and report.

It has more than 500 lines because the public methods have long signatures and docstrings; what they do is elsewhere.
"""

from __future__ import annotations

import copy
import enum
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from .data.batch import Batch
from .data.dataset import Dataset
from .data.ragged import Outputs
from .distill.making import AnyTeacher, teachers_of, with_answers
from .distill.matching import check_matches
from .distill.objective import Distillation
from .losses.embeddings import EMBEDDING_LOSSES
from .losses.weights import LabelWeights
from .metrics.prediction import Labels, Logits
from .models.heads import MaskedLanguageModel
from .models.model import Model, check_model
from .models.trained_with import EVALUATION_ROWS
from .report.card import write_model_card
from .report.figures import check_pictures
from .report.measure import make_report
from .report.metadata import CardMetadata
from .report.pictures import draw_search
from .report.report import Questions, Report, Subject
from .report.summary import summarize
from .search.search import Objective as ComputeObjective
from .search.study import BestRun
from .search.trials import HyperparameterSearch, engine_of
from .system.foreign import check_kind
from .system.names import missing_attribute
from .system.notebook import Metrics, html_table
from .system.output import given_path
from .system.progress import Progress
from .system.signals import held_back, sigterm_as_exit
from .tasks.registry import task_for
from .text.collator import DataCollatorWithPadding, check_collator
from .text.tokenizer import PreTrainedTokenizerFast, check_embeddings, check_tokenizer
from .train.arguments import DistillationTrainingArguments, TrainingArguments
from .train.callbacks import Callback, CallbackHandler, DefaultFlowCallback, Events, TrainerControl
from .train.checkpoint import save_model
from .train.chosen_defaults import check_recipe, choose_defaults
from .train.default_callbacks import default_callbacks
from .train.directory import CARD_FILE, RunDirectory, wanted_checkpoint
from .train.encoding import encode_for, name_of, tokenizer_for
from .train.evaluate import PredictionOutput, predict, refuse_threshold, warn_of_empty_predictions
from .train.evaluation_sets import EvalRows, encoded_sets, evaluation_sets, is_dict_of_sets, main_set, metric_prefix
from .train.failures import Failures
from .train.little_learned import little_learned_by
from .train.loop import Training
from .train.metrics_files import metrics_table, save_metrics
from .train.objective import BatchLoss, InnerLoss, LearnedLoss, LossPart, Objective, RunLength, Supervised
from .train.optim import AdamW, averaged
from .train.own_metrics import ComputeMetrics, without_foreign
from .train.plan import EpochPlan, RowIndices
from .train.publishing import check_publishing, upload_run
from .train.recipe import ModelInit, Provenance, Recipe, adapted, made_by, require_labels
from .train.run import Run, RunCheckpoints
from .train.run_logs import discard_logs
from .train.stages import predictions_count
from .train.state import TrainerState
from .train.threshold import keep_threshold, threshold_figures
from .train.transformers_names import (
    TRAINER_METHODS,
    check_overrides,
    check_search_arguments,
    check_trainer_arguments,
)
from .train.without_effect import warn_of_arguments_of_other_heads
from .train.world import ALONE, World, current_world, require_same


class TrainOutput(NamedTuple):
    """The result of `Trainer.train`: steps done, mean training loss, metrics of the run."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]

    def _repr_html_(self) -> str:
        """Return the run's figures as HTML for Jupyter."""
        return html_table(f"{self.global_step:,} steps, training loss {self.training_loss:.4f}", self.metrics.items())


class Trainer:
    """Train `model` on `train_dataset` with `args`, and measure it on `eval_dataset`.

    A data set is a path (TSV, CSV, JSONL, Parquet), rows in memory or an encoded `Dataset`; text needs
    `processing_class`, the tokenizer (`tokenizer` is its name in transformers 4). `eval_dataset` may be a dict of data
    sets: their metrics are eval_<name>_..., and `metric_for_best_model` names one, such as hard_accuracy.
    `compute_metrics` takes an `EvalPrediction` and returns a dictionary, which is added to accuracy, loss and n.
    `model_init`, called without arguments or with None for a trial, makes the model in place of `model`, anew for each
    call of `train`. `callbacks` are `TrainerCallback`s or classes of them; those of transformers work too.
    `data_collator` may be a `DataCollatorWithPadding`, which has nothing to do here. `provenance` names the ingredients
    for the model card. `objective` is for classes that derive from this one: what the model is trained for, the labels
    by default. The other arguments of transformers' `Trainer` are refused (`TypeError`) with a sentence that names what
    to use.

    Attributes: `state`, where the run stands; `results`, what all_results.json holds once it is finished; `report`,
    what the latest model card was written from; `failed`, a sentence by name on what failed at the end of the run or
    after it ("model_card", "upload"; "plots" of a search; "best_model" when the best checkpoint was lost and the last
    weights are kept); `started_from` and `data_names`, what the model card calls the checkpoint that training began
    with and the data; `command`, the command line that `train` leaves in the output directory; `study`, Optuna's study
    of the latest hyperparameter search; `commit_url`, where the latest upload to the hub is; `recipe`, all that makes
    the next run.
    """

    # The fields of `Recipe`, which may be assigned until training begins.
    model: Model
    args: TrainingArguments
    objective: Objective
    model_init: ModelInit | None
    train_dataset: Dataset | None
    eval_dataset: EvalRows
    processing_class: PreTrainedTokenizerFast | None
    compute_metrics: ComputeMetrics | None
    provenance: Provenance

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Refuse a class with methods of transformers that would never be called."""
        super().__init_subclass__(**keywords)
        check_overrides(cls)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError with what to use instead of a method of transformers, or the nearest name."""
            raise missing_attribute(self, name, TRAINER_METHODS)

    def __init__(
        self,
        model: Model | None = None,
        args: TrainingArguments | None = None,
        *,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerFast | None = None,
        compute_metrics: ComputeMetrics | None = None,
        model_init: ModelInit | None = None,
        callbacks: Sequence[Callback] | None = None,
        data_collator: DataCollatorWithPadding | None = None,
        tokenizer: PreTrainedTokenizerFast | None = None,
        objective: Objective | None = None,
        provenance: Provenance | None = None,
        **others: Any,
    ) -> None:
        check_trainer_arguments(others, inspect.signature(Trainer).parameters)
        expected_args = "kdistill's TrainingArguments(output_dir=...), with the same names"
        check_kind("args", args, TrainingArguments | None, expected_args)
        if model is not None:
            check_model("model", model)
        args = args if args is not None else TrainingArguments()
        world = current_world()
        if args.plots:
            check_pictures()
        if not world.leads:
            args.disable_tqdm = True  # rank 0 shows
        objective = objective if objective is not None else Supervised()
        check_recipe(args, taught=not objective.needs_labels)
        model = adapted(_only_one_of(model, model_init), objective)
        warn_of_arguments_of_other_heads(args, model.config.head, stacklevel=2)
        sets = eval_dataset if is_dict_of_sets(eval_dataset) else {"": eval_dataset}
        first, metric = next(iter(sets)), task_for(model.config).best_metric
        args.settle_best_metric(f"{first}_{metric}" if first else metric)
        if tokenizer is not None and processing_class is not None:
            raise ValueError("processing_class and tokenizer, its older name, are both given; expected one of the two")
        check_collator(data_collator)
        tokenizer = tokenizer if processing_class is None else processing_class
        check_tokenizer("processing_class", tokenizer)
        check_embeddings(tokenizer, model.config.vocab_size)
        tokenizer = tokenizer_for(model.config, tokenizer)
        reader = objective.reader(tokenizer, model.config)
        keep_texts = objective.needs_texts(reader, model.config)

        def encode(source: Any, *, training: bool = False) -> Dataset:
            return encode_for(model.config, source, reader, args, training=training, keep_texts=keep_texts)

        recipe = Recipe(
            model=model,
            args=args,
            objective=objective,
            model_init=model_init,
            train_dataset=None if train_dataset is None else encode(train_dataset, training=True),
            eval_dataset=encoded_sets(eval_dataset, lambda source: objective.rows_to_measure(encode(source), args)),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            provenance=(provenance or Provenance()).with_names(
                train=train_dataset, eval=sets[main_set(sets, args.metric_for_best_model)]
            ),
        )
        if recipe.train_dataset is not None:
            no_copies = objective.why_no_copies(recipe.train_dataset, tokenizer)
            chosen = choose_defaults(args, model, recipe.train_dataset, no_copies)
            if chosen is not None:
                Progress("train", unit="steps", quiet=args.disable_tqdm).write(chosen)
        if args.threshold is not None:
            recipe.set_threshold(args.threshold)
        recipe.settle_answers()
        callbacks = callbacks if callbacks is not None else []
        check_kind("callbacks", callbacks, Iterable, "a list of TrainerCallbacks, or of classes of them")
        shown = default_callbacks(args) if world.leads else []
        self._begin(recipe, CallbackHandler([DefaultFlowCallback, *shown, *callbacks]))
        self._call("on_init_end")

    def _begin(self, recipe: Recipe, callbacks: CallbackHandler) -> None:
        """Take the recipe and the callbacks, and set all else to what it is before a run."""
        for field in fields(recipe):
            setattr(self, field.name, getattr(recipe, field.name))
        self.callback_handler = callbacks
        self.state = TrainerState()
        self.results: dict[str, float] = {}
        self.failed = Failures()
        self.report: Report | None = None
        self.optimizer: AdamW | None = None
        self.study: Any = None
        self.commit_url: str | None = None
        self._loss_parts: list[LossPart] = []  # of the latest micro-batch
        self._label_weights: LabelWeights | None = None  # of the present step
        self._inner: InnerLoss | None = None  # of the present run
        self._args_of_step: TrainingArguments | None = None  # with what schedules give the present step
        self._world = ALONE  # those who train with this process, during the steps of a run
        self._chooses_threshold = False  # whether evaluations choose one, until the run has kept one

    @property
    def recipe(self) -> Recipe:
        """All that makes a run, as it is now."""
        return Recipe(**{field.name: getattr(self, field.name) for field in fields(Recipe)})

    @property
    def control(self) -> TrainerControl:
        """The flags that decide what is done next, as the callbacks left them."""
        return self.callback_handler.control

    @property
    def started_from(self) -> str | None:
        """The name in the model card of the checkpoint that training began with."""
        return self.provenance.started_from

    @property
    def data_names(self) -> dict[str, str]:
        """The names of the rows in the model card, by "train", "eval" and "holdout"."""
        return self.provenance.data_names()

    @property
    def command(self) -> str | None:
        """The command line that `train` leaves in the output directory."""
        return self.provenance.command

    # Training

    def train(self, resume_from_checkpoint: bool | str | os.PathLike[str] | None = None) -> TrainOutput:
        """Train, and leave the finished run in `args.output_dir`.

        `resume_from_checkpoint`: a checkpoint's path, or True for the newest whole checkpoint in the output directory
        (a run without one starts; a finished run is left as it is, but gets a model card if it has none). A resumed
        run ends with the bits of one that was never interrupted.

        Raises `ValueError` for data or checkpoints that cannot be trained on, `FileExistsError` or another `OSError`
        for an output directory that may not be or cannot be written, and `FloatingPointError`, with the parameters as
        they were before the step, when loss or gradient are not finite. With `push_to_hub` also what makes an upload
        impossible: no package, no token, no possible name.

        With `enable_jit_checkpoint` an exception that is no `Exception`, such as Ctrl-C's, leaves a checkpoint of the
        latest step, or has a note about why it could not be written. SIGTERM then raises SystemExit(143), unless the
        program answers it itself.

        Once the model is saved, the run is finished: what fails after that (model card, upload) is a warning and an
        entry in `failed`.
        """
        resume, args = wanted_checkpoint(resume_from_checkpoint), self.args
        kept = f"the finished model is in {args.output_dir}"
        if resume_from_checkpoint is None and args.resume_from_checkpoint:
            warnings.warn(
                f"args.resume_from_checkpoint is {args.resume_from_checkpoint!r}, but train() does not use it, as in "
                "transformers; to resume, call train(resume_from_checkpoint=...)",
                stacklevel=2,
            )
        self.failed, self.report = Failures(), None
        directory, world = RunDirectory(args.output_dir), current_world()
        with ExitStack() as stack:
            stack.enter_context(world.together())
            if args.push_to_hub and world.leads:
                check_publishing(args)
            if world.leads:
                stack.enter_context(directory.claim(resume=bool(resume), overwrite=args.overwrite_output_dir))
            if args.enable_jit_checkpoint:
                stack.enter_context(sigterm_as_exit())
            if self.model_init is not None and self.state.global_step:
                self.model = self.recipe.new_model()
            run, new_layers = Run(self.recipe), self.model.has_new_layers
            require_same(world, lambda: self.recipe.facts(run.dataset))  # and by now rank 0 has claimed the directory
            finished = resume is True and self._take_finished(run)
            if not finished:
                inner = run.recipe.inner_loss(run.plan)
                optimizer = run.recipe.new_optimizer(inner)
                self._start(run.start(resume, optimizer))
                self.objective.keep(self.state.settled, self.args)
                if type(self).evaluate is Trainer.evaluate:  # another one may measure more
                    run.recipe.check_best_metric()
                run.recipe.prepare(run.dataset, world)
                self.state.settled = self.objective.settled()
                self._train(run.dataset, run.plan, optimizer, inner, run)
                self._show_little_learned(new_layers=new_layers)
            if world.leads and (
                not finished or not os.path.lexists(directory.path / CARD_FILE)
            ):  # an interrupt may have come before it
                again = f"write it with `kdistill report --model {args.output_dir}` or trainer.create_model_card()"
                self.failed.attempt("model_card", self._write_first_card, kept=kept, again=again)
        if args.push_to_hub and world.leads:
            again = "repeat it with the same command and --resume, or with trainer.push_to_hub()"
            self.failed.attempt("upload", self.push_to_hub, kept=kept, again=again)
        figures = {name: value for name, value in self.results.items() if not name.startswith("eval_")}
        return TrainOutput(self.state.global_step, self.results["train_loss"], figures)

    def train_without_files(self, dataset: Dataset) -> None:
        """Train on these rows from the beginning; neither read nor write the output directory. Trials do it."""
        recipe, state = self.recipe, TrainerState()
        plan = recipe.new_plan(dataset)
        inner = recipe.inner_loss(plan)
        optimizer = recipe.new_optimizer(inner)
        recipe.ready_model()
        state.set_length(recipe.args, recipe.max_steps(plan), plan.steps_per_epoch)
        self._start(state)
        self._train(dataset, plan, optimizer, inner, None)

    def _start(self, state: TrainerState) -> None:
        self.state, self.results = state, {}
        self.callback_handler.control = TrainerControl()
        self.callback_handler.load_states(state.callback_states)

    def _train(
        self, dataset: Dataset, plan: EpochPlan, optimizer: AdamW, inner: InnerLoss | None, run: Run | None
    ) -> None:
        """Do all steps that are left; finish the run, if there is one."""
        self.optimizer, self._inner, self._world = optimizer, inner, ALONE if run is None else current_world()
        events, weights = self._events(), self.recipe.label_weights(dataset)
        self.recipe.set_threshold(self.args.threshold)  # an earlier one fits the weights that training began with
        self._chooses_threshold = self.args.threshold is None

        def begin_step(rows: RowIndices) -> None:
            self._label_weights = None if weights is None else weights.of_step(rows)
            length = RunLength(self.state.max_steps, plan.steps_per_epoch)
            self._args_of_step = self.objective.args_of_step(self.args, self.state.steps_passed, length)

        training = Training(
            optimizer,
            dataset,
            plan,
            self.state,
            self.args,
            loss=self._loss,
            learn_hidden_words=self._learn_hidden_words,
            inner=inner,
            evaluate=None if self.eval_dataset is None else self.evaluate,
            log=self.log,
            events=events,
            checkpoints=RunCheckpoints(run, events) if run is not None and self._world.leads else None,
            begin_step=begin_step,
            world=self._world,
        )
        try:
            events("on_train_begin")
            training.run()
            world, self._world = self._world, ALONE  # from here on rank 0 goes on alone, and the others get the end
            if run is not None and world.leads:
                self._finish(run)
            self._take_end(world)
        except BaseException as error:
            self._chooses_threshold = False
            if not isinstance(error, Exception):
                _keep_latest_step(training, error)
                if run is None or (self.args.enable_jit_checkpoint and not optimizer.steps_done):
                    discard_logs(self.callback_handler.callbacks)  # it begins again
            try:
                self._end(events)
            except Exception as another:  # noqa: BLE001  # the first error is the one to know
                error.add_note(f"on_train_end failed after it: {another}")
            raise
        self._end(events)

    def _end(self, events: Events) -> None:
        assert self.optimizer is not None
        self.optimizer.zero_grad()  # an error or Ctrl-C inside a step may have left some
        try:
            events("on_train_end")
        finally:
            self.optimizer = self._inner = self._args_of_step = None
            self._world = ALONE
            self.model.training_dtype = "float32"  # reports measure the model as it is saved

    def _take_end(self, world: World) -> None:
        """Take what rank 0 has at the end of a run: state, results, failures, weights and config."""
        self.state, self.results, self.failed, self.model.config = world.share(
            (self.state, self.results, self.failed, self.model.config)
        )
        if world.size > 1:
            with self.model.writing() as parameters:
                world.share_array(parameters)

    def _finish(self, run: Run) -> None:
        """Write the model and the results; once the state is there too, the run is finished."""
        if self.args.enable_jit_checkpoint:
            assert self.optimizer is not None
            self.optimizer.set_aside()  # for an interrupt that comes once the model has the best weights
        lost = run.take_best_weights(self.state)
        if lost is not None:
            self.failed.note("best_model", lost)
        self._keep_threshold(run)
        try:
            self.log(run.figures(self.state))
        except BaseException as error:  # of a callback: nothing of the run is lost by it
            if isinstance(error, Exception) or not self.args.enable_jit_checkpoint:
                self._save_finished(run)
            raise
        self._save_finished(run)

    def _save_finished(self, run: Run) -> None:
        results = run.results(self.state) | threshold_figures(self.model.config)
        self.save_model()
        run.write_results(results)
        run.finish(self.state)
        self.results = results

    def _show_little_learned(self, *, new_layers: bool) -> None:
        """Print a sentence about a model that is hardly better on its evaluation rows than a constant answer."""
        sentence = little_learned_by(self.recipe, self.results, new_layers=new_layers)
        if sentence is not None:
            Progress("train", unit="steps", quiet=self.args.disable_tqdm).write(sentence)

    def _keep_threshold(self, run: Run) -> None:
        self._chooses_threshold = False
        name = f"{metric_prefix('eval', self.recipe.main_eval_set)}_threshold"

        def choose(rows: Dataset) -> float:
            prefix = name.removesuffix("_threshold")
            return self._predict(rows, prefix, "choose a threshold", choose_threshold=True).metrics[name]

        keep_threshold(self.recipe, run.dataset, run.results(self.state).get(name), choose)

    def _write_first_card(self) -> None:
        self.create_model_card(measure_speed=self.args.plots)

    def compute_loss(self, logits: Outputs, labels: Labels, rows: RowIndices) -> tuple[float, Logits]:
        """Return the mean loss of a micro-batch and its gradient by the logits, (B, num_labels) float32.

        `rows` are the rows' places in the training data. Where the model answers for each token, logits are a `Ragged`
        of (tokens, num_labels), labels int64 (tokens,) and the gradient (tokens, num_labels). Override it to train on
        another loss. A language model has no logits here, see `MaskedLanguageModel.masked_loss`: it is not called.
        """
        task = task_for(self.model.config, labels)
        if self._label_weights is not None:
            task = task.weighted(self._label_weights)
        loss = self.objective(logits, labels, rows, args=self._args_of_step or self.args, task=task)
        self._loss_parts += loss.parts
        return loss.loss, loss.dlogits

    def _loss(self, logits: Outputs, labels: Labels, rows: RowIndices) -> BatchLoss:
        """Call `compute_loss`, which may be a user's; the parts are those that ours counted inside of it."""
        self._loss_parts = []
        return BatchLoss(*self.compute_loss(logits, labels, rows), self._loss_parts)

    def _learn_hidden_words(self, batch: Batch, words: Labels, share: float) -> LearnedLoss:
        model = self.model
        assert isinstance(model, MaskedLanguageModel)
        if type(self).compute_loss is not Trainer.compute_loss:
            raise TypeError(
                f"{type(self).__name__}.compute_loss would not be called: the logits of a language model exist a few "
                "hundred words at a time; write a loop of your own with model.masked_loss or model.forward(rows=)"
            )
        args = self._args_of_step or self.args
        return self.objective.learn_hidden_words(model, batch, words, share=share, args=args, inner=self._inner)

    def load_finished_run(self) -> None:
        """Take weights, state and results of the finished run in `args.output_dir`, as if it had just ended.

        Raises `FileNotFoundError` when there is no finished run, and `ValueError` when it was trained or evaluated on
        other rows, or had another teacher, than this trainer has.
        """
        run = Run(self.recipe)
        if not self._take_finished(run):
            path = run.directory.path
            raise FileNotFoundError(f"{path} contains no finished run; finish it first (see --resume)")

    def _take_finished(self, run: Run) -> bool:
        finished = run.load_finished()
        if finished is not None:
            self.state, self.results = finished
            self.objective.keep(self.state.settled, self.args)
        return finished is not None

    def hyperparameter_search(
        self,
        hp_space: Any = None,
        compute_objective: ComputeObjective | None = None,
        n_trials: int = 20,
        direction: str | Sequence[str] | None = None,
        backend: str = "optuna",
        hp_name: Callable[[Any], str] | None = None,
        *,
        storage: Any = None,
        study_name: str = "search",
        n_jobs: int = 1,
        pruner: Any = None,
        sampler: Any = None,
        timeout: float | None = None,
        seed: int | None = None,
        catch: type[Exception] | Iterable[type[Exception]] = (),
        load_if_exists: bool = True,
        ray_address: str | None = None,
        **others: Any,
    ) -> BestRun | list[BestRun]:
        """Look for the hyperparameters that train the best model (extra `[search]`); see docs/how-to/search.md.

        hp_space: as in `search_space.hyperparameter_space`: a function (Optuna trial) -> dict, ranges, or their file.
        compute_objective: (metrics of an evaluation) -> number, or numbers for several directions; default
            `args.metric_for_best_model`.
        n_trials: how many the study is to have in all, over every process and every call.
        direction: "minimize" or "maximize"; default what the metric asks for, and "minimize" for a `compute_objective`.
            A list of them for several objectives, such as ["maximize", "minimize"]: nothing is pruned then, and the
            result is the list of the trials that no other beats in all of them.
        backend: who trains the trials that Optuna chooses: "optuna", threads of this process, or "ray", processes of
            Ray (extra `[ray]`), on this host or on many. hp_name: (trial) -> name of the run.
        storage, study_name: see `study.SharedStudy`; the study goes on where it is.
        n_jobs: trials at once, which share the cores, those of the cluster with Ray (-1: one a core).
        pruner, sampler: Optuna's, or names: median (default), hyperband, none; tpe (default), random.
        timeout: seconds after which no trial is begun. seed: of the sampler; default `args.seed`.
        catch: further errors that fail their trial alone.
        load_if_exists: whether to go on with a study of that name; with False there must be none.
        ray_address: of a cluster of Ray; default that of RAY_ADDRESS, or one is started on this host for the search.

        A trial trains what `model_init` makes, with copies of the callbacks, and writes no model. Its objective is that
        of the weights that `train` would keep. One that fails (`ValueError`, `ArithmeticError`,
        `MemoryError`) is recorded and the search goes on. `study` is Optuna's; `args.search_trials`, which the model
        card shows, becomes how many trials were scored. Raises `ValueError` without `model_init` or `eval_dataset` and
        for a space or study that does not fit, `RuntimeError` when no trial finished.
        """
        engine = engine_of(backend.value if isinstance(backend, enum.Enum) else backend, ray_address)
        check_search_arguments(others, inspect.signature(Trainer.hyperparameter_search).parameters)
        if current_world().size > 1:
            raise ValueError(
                f"an MPI launcher has started {current_world().size} processes, and hyperparameter_search is the work "
                "of one; start it without mpirun (n_jobs and storage give it more threads and processes)"
            )
        if self.model_init is None:
            raise ValueError(
                "model_init is None; hyperparameter_search needs a function that makes a new model for each trial: "
                f"{type(self).__name__}(model_init=..., args=...) instead of a model"
            )
        search = HyperparameterSearch(
            self.recipe,
            self.callback_handler,
            # The trials' own, without what belongs to this trainer's runs: it may be sent to other processes.
            self._for_trial(self.recipe.replace(model_init=None), CallbackHandler([]))._for_trial,
            self._measure,
            engine,
            hp_space=hp_space,
            compute_objective=compute_objective,
            n_trials=n_trials,
            direction=direction,
            hp_name=hp_name,
            storage=storage,
            study_name=study_name,
            n_jobs=n_jobs,
            pruner=pruner,
            sampler=sampler,
            timeout=timeout,
            seed=seed,
            catch=catch,
            load_if_exists=load_if_exists,
        )
        self.failed, self.study = Failures(), search.study
        best = search.run()
        if self.args.plots and isinstance(best, BestRun):  # a search of several directions has no history to draw
            directory = Path(self.args.output_dir)
            self.failed.attempt(
                "plots",
                lambda: draw_search(directory, search.study),
                kept="the study holds all trials",
                again="repeat it with the same command, or with the functions of kdistill.figures",
            )
        return best

    def _for_trial(self, recipe: Recipe, callbacks: CallbackHandler) -> Self:
        """Return a trainer of `recipe` with what a user's class has overridden, and what it holds beside the recipe."""
        trainer = copy.copy(self)
        trainer._begin(recipe, callbacks)
        return trainer

    # Measuring

    def evaluate(self, eval_dataset: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Measure the model on `eval_dataset` (default: the trainer's), log the metrics and return them.

        Keys: eval_loss (against the labels, whatever the training loss), eval_n (labelled rows), the default metrics
        of the task and those of `compute_metrics`, eval_threshold with several labels a row while training chooses it
        (see `TrainingArguments.threshold`), eval_runtime (seconds), eval_samples_per_second, epoch. With a dict
        of data sets they are those of each set, eval_<name>_loss and so on; the set's name alone means one of the
        trainer's.
        """
        if (
            isinstance(eval_dataset, str)
            and isinstance(self.eval_dataset, Mapping)
            and eval_dataset in self.eval_dataset
        ):
            eval_dataset = self.eval_dataset[eval_dataset]
        own = eval_dataset is None
        sets = evaluation_sets(self.eval_dataset if own else encoded_sets(eval_dataset, self._encoded))
        if not sets:
            raise ValueError("eval_dataset is None; expected rows to evaluate on")
        for name, rows in sets.items():
            require_labels(rows, name)
        metrics: dict[str, float] = {}
        main = self.recipe.main_eval_set
        if own and self._chooses_threshold:  # those of the main set are for the others as well
            sets = {main: sets[main], **sets}
        for name, rows in sets.items():
            chooses = own and self._chooses_threshold and name == main
            metrics |= self._evaluate(rows, metric_prefix(metric_key_prefix, name), choose_threshold=chooses)
        return Metrics(metrics)

    def _evaluate(self, rows: Dataset, prefix: str, *, choose_threshold: bool) -> dict[str, float]:
        """Measure the model on one set of rows; log the metrics and show them to the callbacks."""
        metrics = self._predict(rows, prefix, "evaluate", choose_threshold=choose_threshold).metrics
        if f"{prefix}_threshold" in metrics and choose_threshold:
            self.recipe.set_threshold(metrics[f"{prefix}_threshold"], EVALUATION_ROWS)
        self.log(metrics)
        metrics = {**metrics, "epoch": self.state.epoch}
        self.callback_handler.control.should_evaluate = False
        self._call("on_evaluate", metrics=metrics)
        return metrics

    def _measure(self) -> dict[str, float]:
        """Return the metrics of all the trainer's evaluation rows, without an entry in the log."""
        metrics: dict[str, float] = {}
        for name, rows in evaluation_sets(self.eval_dataset).items():
            metrics |= self._predict(rows, metric_prefix("eval", name), "evaluate").metrics
        return metrics

    def predict(self, test_dataset: Any, metric_key_prefix: str = "test") -> PredictionOutput:
        """The model's logits for every row, in order, the labels, and metrics as in `evaluate` where labels are."""
        output = self._predict(self._encoded(test_dataset), metric_key_prefix, "predict")
        self._call("on_predict", metrics=output.metrics)
        return output

    def _predict(
        self, dataset: Dataset, prefix: str, description: str, *, choose_threshold: bool = False
    ) -> PredictionOutput:
        refuse_threshold(self.args.threshold, task_for(self.model.config, dataset.labels))
        bar = Progress(description, unit="rows", quiet=self.args.disable_tqdm)
        with averaged(self.optimizer), self.model.evaluating_in_float32(), bar as progress:

            def on_batch(done: int, total: int) -> None:
                progress(done, total)
                if done:
                    self._call("on_prediction_step")

            output = predict(
                self.model,
                dataset,
                batch_size=self.args.per_device_eval_batch_size,
                compute_metrics=self.compute_metrics,
                prefix=prefix,
                progress=on_batch,
                choose_threshold=choose_threshold,
                world=self._world,
            )
        if not choose_threshold:
            warn_of_empty_predictions(self.model, output)
        return output

    def log(self, logs: dict[str, float]) -> None:
        """Add an entry, with epoch and step, to `state.log_history` and show it to the callbacks.

        Numbers of any kind become int or float; what JSON cannot hold is left out with a warning.
        """
        entry = {**without_foreign(logs, "log was given"), "epoch": self.state.epoch, "step": self.state.global_step}
        self.state.log_history.append(entry)
        self._call("on_log", logs=dict(entry))

    # Results

    def save_model(self, output_dir: str | os.PathLike[str] | None = None) -> None:
        """Write the model, and the tokenizer if there is one, as a Hugging Face directory (default: `output_dir`).

        Of the processes that train together rank 0 does it, as all that writes or prints.
        """
        if not self.is_world_process_zero():
            return
        directory = given_path("output_dir", self.args.output_dir if output_dir is None else output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        with averaged(self.optimizer):
            save_model(directory, self.model, self.processing_class)

    def is_world_process_zero(self) -> bool:
        """Return whether this is the process that writes: the only one, or rank 0 of those that mpirun started."""
        return current_world().leads

    def is_local_process_zero(self) -> bool:
        """Return whether it is the first on its host."""
        return current_world().local_rank == 0

    def log_metrics(self, split: str, metrics: Mapping[str, Any]) -> None:
        """Print metrics under the name of their split ("train", "eval", "test"), as in transformers."""
        if self.is_world_process_zero():
            print(metrics_table(split, metrics))

    def save_metrics(self, split: str, metrics: Mapping[str, Any], combined: bool = True) -> None:
        """Write metrics to <split>_results.json in the output directory, as in transformers.

        `combined`: add them to all_results.json too.
        """
        if self.is_world_process_zero():
            save_metrics(Path(self.args.output_dir), split, metrics, combined=combined)

    def save_state(self) -> None:
        """Write `state` to trainer_state.json in the output directory, which `train` does as well."""
        if not self.is_world_process_zero():
            return
        directory = Path(self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        self.state.save(directory)

    def create_model_card(
        self,
        language: str | Sequence[str] | None = None,
        license: str | None = None,
        tags: str | Sequence[str] | None = None,
        model_name: str | None = None,
        *,
        finetuned_from: str | None = None,
        tasks: str | Sequence[str] | None = None,
        dataset_tags: str | Sequence[str] | None = None,
        dataset: str | Sequence[str] | None = None,
        dataset_args: str | Sequence[str] | None = None,
        without_teacher: Sequence[str | os.PathLike[str]] = (),
        seed_runs: Sequence[str | os.PathLike[str]] = (),
        holdout: Any = None,
        search_trials: int | None = None,
        measure_speed: bool = True,
    ) -> dict[str, Any]:
        """Measure the finished run, write the model card README.md into the output directory, return the figures.

        language, license, tags, dataset_tags, dataset: for the card's metadata, as in `transformers`; dataset_tags are
            the ids of the data sets on the hub that the rows are from, and dataset their names (default: those of the
            `provenance`; without either, there is no model-index).
        finetuned_from, tasks, dataset_args: ignored with a warning: the run knows checkpoint, task and rows.
        model_name: default the run's name, or the model's on the hub, or the output directory's.
        without_teacher: output directories of the same run without a teacher (alpha 1), to compare with.
        seed_runs: those of the same run with other seeds.
        holdout: rows, as any data set, that chose nothing.
        search_trials: trials of a hyperparameter search that were scored on the evaluation rows; default
            `args.search_trials`.
        measure_speed: measure sentences per second of this model and its teacher, which takes some seconds.

        Of the processes that train together rank 0 does it; the others get no figures. Raises what
        `report.measure.make_report` raises, and warns as it does.
        """
        if not self.is_world_process_zero():
            return {}
        known = {"finetuned_from": finetuned_from, "tasks": tasks, "dataset_args": dataset_args}
        if ignored := [name for name, value in known.items() if value]:
            warnings.warn(f"{', '.join(ignored)} ignored: the run knows its checkpoint, task and rows", stacklevel=2)
        directory = Path(self.args.output_dir)
        rows = None if holdout is None else self._encoded(holdout)
        questions = Questions(
            without_teacher=without_teacher,
            seed_runs=seed_runs,
            holdout=None if rows is None else (self.data_names.get("holdout", name_of(holdout)), rows),
            speed=measure_speed,
            search_trials=self.args.search_trials if search_trials is None else search_trials,
        )
        name = model_name or self.args.run_name or self.args.hub_model_id or directory.resolve().name
        subject = self._subject(name)
        ids, names = dataset_tags or self.provenance.dataset_tags, dataset or self.provenance.dataset
        metadata = CardMetadata.of(language, license, tags, ids, names)
        self.report = write_model_card(directory, subject, questions, metadata)
        return self.report.figures() | {"model_card": str(directory / CARD_FILE)}

    def summary(self) -> dict[str, Any]:
        """Return the finished run in figures beside its teacher and the best answer that does not look at the text.

        See `report.summary.summarize`. It measures sentences per second, for about a second.
        """
        report = self.report or make_report(self._subject(Path(self.args.output_dir).resolve().name), Questions())
        return summarize(report)

    def _subject(self, name: str) -> Subject:
        return Subject.of_run(name, self.recipe, self.state, self.results)

    def push_to_hub(self, commit_message: str | None = None, blocking: bool = True, **card: Any) -> str:
        """Upload the output directory's model to the Hugging Face hub; return the commit's address (extra `[hub]`).

        Args:
            commit_message: default kdistill and the number of steps.
            blocking: an upload is always waited for; False gives a warning.
            card: arguments of `create_model_card`, which then writes the card anew first, without measuring speed.

        Raises `PermissionError` without a token that may write there and `ConnectionError` when the hub cannot be
        reached or goes on failing; the output directory stays as it is, and a later call does all of it. Of the
        processes that train together rank 0 does it; the others return "".
        """
        if not self.is_world_process_zero():
            return ""
        if not blocking:
            warnings.warn("blocking is ignored: training waits for each upload", stacklevel=2)
        if card:
            self.create_model_card(**{"measure_speed": False, **card})
        self._call("on_push_begin")
        self.commit_url = upload_run(self.args, self.state, commit_message)
        return self.commit_url

    def add_callback(self, callback: Callback) -> None:
        """Let `callback`, or an instance of it when it is a class, watch the training too."""
        self.callback_handler.add(callback)

    def pop_callback(self, callback: Callback) -> Callback | None:
        """Take `callback`, or the first one of a class, out and return it; None when there is none."""
        return self.callback_handler.pop(callback)

    def remove_callback(self, callback: Callback) -> None:
        """Take `callback`, or the first one of a class, out."""
        self.callback_handler.pop(callback)

    def _call(self, event: str, **kwargs: Any) -> None:
        self._events()(event, **kwargs)

    def _events(self) -> Events:
        return Events(
            self.callback_handler,
            self.args,
            self.state,
            model=self.model,
            processing_class=self.processing_class,
            optimizer=self.optimizer,
        )

    def _encoded(self, source: Any) -> Dataset:
        reader = self.objective.reader(self.processing_class, self.model.config)
        keep_texts = self.objective.needs_texts(reader, self.model.config)
        rows = encode_for(self.model.config, source, reader, self.args, keep_texts=keep_texts)
        return self.objective.rows_to_measure(rows, self.args)


class DistillationTrainer(Trainer):
    """A `Trainer` whose loss is `distillation_loss`, that of the labels and that of the teacher mixed by `alpha`.

    `teacher_model` is a model, a function `(list of texts) -> logits (n, num_labels)` (see `TeacherFunction`), or a
    list of such, whose softened probabilities are averaged with `teacher_weights` (default: all the same; see
    `losses.mixing`). Models are frozen. Their logits for all rows are computed once, before the first step, or found in
    the teacher cache. Rows without a label learn from the teacher alone (alpha 0). `teacher_logits` are the answers of
    a teacher that was asked elsewhere: an array (rows, num_labels), a list with None where there is none, or a file or
    rows with a column `teacher_logits` or `teacher_probs` (see `data.teacher_rows`); without any teacher such a column
    of `train_dataset` is read. Rows without an answer learn from their labels alone (alpha 1).
    `teacher_processing_class` is the tokenizer of the teacher, of several a list: a teacher whose tokenizer gives texts
    other ids or token types than `processing_class` reads them itself, and without one it reads the student's tokens.
    With `args.augment` the training rows are followed by views of them (`augmentation.augmented`), which need a
    `processing_class`. The other arguments are those of `Trainer`.

    Attributes: those of `Trainer`; `teacher_model`; `teacher_name`, what the model card calls it; `teacher_metrics`,
    on the evaluation rows, once `train` has measured them, and `teacher_accuracy` among them.

    Raises `ValueError` when teacher and student differ in problem type or label map (names such as LABEL_0 name
    nothing and agree with all), or in vocabulary where the teacher's tokenizer is not known. Warns, once `train` has
    measured it, of a teacher that is no better than the most frequent label.
    """

    args: DistillationTrainingArguments
    objective: Distillation

    def __init__(
        self,
        model: Model | None = None,
        args: DistillationTrainingArguments | None = None,
        *,
        teacher_model: AnyTeacher | Sequence[AnyTeacher] | None = None,
        teacher_processing_class: PreTrainedTokenizerFast | Sequence[PreTrainedTokenizerFast | None] | None = None,
        teacher_weights: Sequence[float] | None = None,
        teacher_logits: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        provenance: Provenance | None = None,
        **kwargs: Any,
    ) -> None:
        args = args if args is not None else DistillationTrainingArguments()
        expected = "kdistill's DistillationTrainingArguments(output_dir=..., alpha=..., temperature=...)"
        check_kind("args", args, DistillationTrainingArguments, expected)
        self._teacher_model = teacher_model
        names = () if provenance is None else provenance.teachers()
        teacher_model, tokenizers, given = with_answers(teacher_model, teacher_processing_class, teacher_logits)
        teachers = teachers_of(teacher_model, tokenizers, teacher_weights, names)
        if given is not None:
            train_dataset, eval_dataset = given.beside_each(train_dataset, eval_dataset)
        if eval_dataset is not None and teachers.answers_for_hidden_words and not predictions_count(args.matches):
            warnings.warn(
                "eval_dataset has no effect here: prediction_weight is 0 in all stages of matches, so that no hidden "
                "word is learned, and a perplexity would be that of a head which nobody has trained",
                stacklevel=2,
            )
            eval_dataset = None
        rows = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
        super().__init__(model, args, objective=Distillation(teachers), provenance=provenance, **rows, **kwargs)
        teachers.check_student(self.model, self.objective.reader(self.processing_class, self.model.config))
        for teacher in teachers.models:
            teacher.suit_width(self.model.config, self.train_dataset, args)
        if given is not None and self.train_dataset is not None:
            given.learn(self.train_dataset, args, alone=len(teachers) == 1)
        if args.embedding_loss != EMBEDDING_LOSSES[0] and not self.model.config.embeds:  # not the default
            raise ValueError(
                f"embedding_loss is {args.embedding_loss!r}, and model is a {type(self.model).__name__}, "
                "which gives texts no embedding; leave it out"
            )
        teachers.keep_types({}, args)
        check_matches(args, teachers, self.model.config)

    @property
    def teacher_model(self) -> Any:
        """The teacher as it was given, or a list of several."""
        given = self._teacher_model
        return given[0] if isinstance(given, list | tuple) and len(given) == 1 else given

    @property
    def teacher_name(self) -> str:
        """The name of the teacher in the model card; of several their names with their weights."""
        return self.objective.teachers.name

    @property
    def teacher_accuracy(self) -> float | None:
        """The teacher's accuracy on the evaluation rows; None where nothing has measured it."""
        return self.teacher_metrics.get("accuracy")

    @property
    def teacher_metrics(self) -> dict[str, Any]:
        """The metrics on the evaluation rows of the teacher, or of several together; empty before `train`.

        Those of `compute_metrics` are among them.
        """
        return self.objective.teachers.metrics


def _keep_latest_step(training: Training, interrupt: BaseException) -> None:
    """Leave a checkpoint of the latest step, if the arguments ask for it; what fails is a note on the interrupt."""
    try:
        with held_back():
            training.keep()
    except Exception as error:  # noqa: BLE001  # the interrupt is what is to be known
        interrupt.add_note(f"the checkpoint of the latest step could not be written: {error}")


def _only_one_of(model: Model | None, model_init: ModelInit | None) -> Model:
    if model is not None and model_init is None:
        return model
    if model is None and model_init is not None:
        return made_by(model_init)
    raise ValueError(f"model and model_init: found {'neither' if model is None else 'both'}; expected one of the two")
