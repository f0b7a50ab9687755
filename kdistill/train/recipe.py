"""`Recipe`: everything that makes a training run, fixed before it begins."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..data.dataset import Dataset
from ..data.sentences import Sentences
from ..data.spans import Spans
from ..losses.problem_types import PROBLEM_TYPES, SINGLE_LABEL
from ..models.head_names import ENCODER, ENDINGS, OF_TASKS
from ..models.model import Model, check_model
from ..models.trained_with import TrainedWith
from ..tasks.registry import has_one_class, refuse_one_class, task_for
from ..text.tokenizer import PreTrainedTokenizerFast
from .arguments import TrainingArguments
from .checkpoint import arguments_with_effect
from .encoding import name_of
from .evaluate import metric_names, refuse_threshold
from .evaluation_sets import EvalRows, check_main_set, evaluation_sets, main_set, metric_prefix
from .label_weights import RunWeights, run_weights
from .loop import best_metric
from .objective import InnerLoss, Objective, RunData, RunLength, Supervised
from .optim import AdamW
from .own_metrics import ComputeMetrics
from .plan import EpochPlan
from .state import TrainerState
from .without_effect import is_used_by
from .world import ALONE, World

ModelInit = Callable[..., Model]
NO_EVALUATION = "no eval_dataset is given: the run is not evaluated, and the weights of the last step are kept"


@dataclass(frozen=True)
class Provenance:
    """The origin of a run's ingredients, as the model card names it.

    Attributes:
        started_from: the checkpoint that training began with; None for new weights.
        teacher: the teacher, or several.
        train, eval, holdout: the rows; None is the name of their file, or that they were given in memory.
        dataset: what people call the data set that the rows are from.
        dataset_tags: its id on the hub, or the ids of several.
        command: the command line that `train` leaves in the output directory as command.txt.
    """

    started_from: str | None = None
    teacher: str | Sequence[str] | None = None
    train: str | None = None
    eval: str | None = None
    holdout: str | None = None
    dataset: str | Sequence[str] | None = None
    dataset_tags: str | Sequence[str] | None = None
    command: str | None = None

    def with_names(self, **sources: Any) -> Provenance:
        """Return a copy that names rows, where this one does not, after the sources given by "train" and "eval"."""
        return replace(self, **{field: getattr(self, field) or name_of(source) for field, source in sources.items()})

    def teachers(self) -> list[str]:
        """Return the names of the teachers."""
        return [] if self.teacher is None else [self.teacher] if isinstance(self.teacher, str) else list(self.teacher)

    def data_names(self) -> dict[str, str]:
        """Return the names of the rows that have one, by "train", "eval" and "holdout"."""
        names = {"train": self.train, "eval": self.eval, "holdout": self.holdout}
        return {which: name for which, name in names.items() if name is not None}


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a training run. A trial of a search is the recipe with other arguments and a new model.

    Attributes:
        model: the model to train.
        args: the training arguments.
        objective: what the model is trained for.
        model_init: makes a model like `model`, for `new_model`.
        train_dataset, eval_dataset: the encoded rows; those to evaluate on may be several sets by name.
        processing_class: the tokenizer, which is saved with the model.
        compute_metrics: adds metrics to those of an evaluation.
        provenance: what a model card calls the ingredients.
    """

    model: Model
    args: TrainingArguments
    objective: Objective = field(default_factory=Supervised)
    model_init: ModelInit | None = None
    train_dataset: Dataset | None = None
    eval_dataset: EvalRows = None
    processing_class: PreTrainedTokenizerFast | None = None
    compute_metrics: ComputeMetrics | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def replace(self, **changes: Any) -> Recipe:
        """Return the recipe with other values in the fields that are named."""
        return replace(self, **changes)

    def new_model(self, trial: Any = None) -> Model:
        """Return another model of `model_init`, which gets the trial of a search if it takes an argument."""
        assert self.model_init is not None
        return adapted(made_by(self.model_init, trial), self.objective)

    @property
    def main_eval_set(self) -> str:
        """The name of the evaluation set whose metric chooses the best weights; empty for the only one."""
        return main_set(evaluation_sets(self.eval_dataset), self.args.metric_for_best_model)

    @property
    def main_eval_dataset(self) -> Dataset | None:
        """The rows of the evaluation set whose metric chooses the best weights."""
        return evaluation_sets(self.eval_dataset).get(self.main_eval_set)

    def evaluated_on(self) -> str:
        """Return a hash of the rows that the run is evaluated on, empty without any."""
        return " ".join(
            f"{name}:{rows.fingerprint()}" if name else rows.fingerprint()
            for name, rows in evaluation_sets(self.eval_dataset).items()
        )

    def rows_to_learn_from(self) -> Dataset:
        """Return the rows that the steps read. Raises or warns of data that would disappoint later."""
        train, evaluations = self.train_dataset, evaluation_sets(self.eval_dataset)
        if train is None:
            raise ValueError("train_dataset is None; expected rows to train on")
        if train.labelled and has_one_class(self.model.config):
            refuse_one_class(self.model.config)
        if self.objective.needs_labels and self.model.config.embeds:
            raise ValueError(
                "model embeds texts, which have no labels to learn; expected a teacher: DistillationTrainer, which is "
                "`kdistill distill`, trains embeddings"
            )
        unlabelled = train.unlabelled
        if unlabelled and self.objective.needs_labels:
            raise ValueError(
                f"train_dataset (--train) has {unlabelled} rows without a label of {len(train)}; "
                "expected a label in every row (DistillationTrainer, which is `kdistill distill`, also trains on rows "
                f"without one){train.why_no_labels()}"
            )
        if self.args.eval_strategy != "no":
            if not evaluations:
                warnings.warn(NO_EVALUATION, stacklevel=4)
            check_main_set(evaluations, self.args.metric_for_best_model)
            for name, rows in evaluations.items():
                require_labels(rows, name)
        return self.objective.rows_to_learn_from(train, self.args, self.processing_class)

    def check_best_metric(self) -> None:
        """Raise what the first evaluation would where it is known to lack the metric that chooses the best weights."""
        if self.eval_dataset is None or self.args.eval_strategy == "no" or self.compute_metrics is not None:
            return
        names: list[str] = []
        for name, rows in evaluation_sets(self.eval_dataset).items():
            names += metric_names(task_for(self.model.config, rows.labels), metric_prefix("eval", name))
        best_metric(dict.fromkeys(names, 0.0), self.args)

    def settle_config(self, dataset: Dataset) -> None:
        """Let the model's config state what these rows settle, for it is saved with the model.

        That is the problem type, as in transformers, and how the rows were read (`Config.trained_with`).
        """
        config = self.model.config
        name = task_for(config, dataset.labels).name
        if dataset.labelled and name in PROBLEM_TYPES:
            config = config.replace(problem_type=name)
        refuse_threshold(self.args.threshold, task_for(config, dataset.labels))
        self.model.config = config.with_trained(self._trained_with())

    def _trained_with(self) -> TrainedWith:
        """Return what the model was trained with: what the training rows show, else what its config has held."""
        rows, former = self.train_dataset, self.model.config.trained_with
        if rows is None:
            return former
        head = self.model.config.head
        others = [name for name in former.given() if not is_used_by(name, head)]
        former = replace(former, **dict.fromkeys(others))
        reading, length = rows.reading, self.args.max_length or former.max_length
        spans = rows.windows if isinstance(rows.windows, Spans) else None
        if spans is None:  # perhaps an encoder that answered questions before
            former = replace(former, no_answers=None)
        elif spans.questions.answerless:
            former = replace(former, no_answers=True)
        positions = self.model.config.max_tokens
        if reading is not None and length is None and (reading.max_length or positions) < positions:
            length = reading.max_length
        if length is not None and rows.lengths.max() > length:  # rows that were tokenized elsewhere
            length = None
        if reading is None:
            return replace(former, max_length=length)
        text, pair, label = reading.columns
        label = label or former.label_column
        if self.args.doc_stride is not None and is_used_by("doc_stride", head):
            former = replace(former, doc_stride=self.args.doc_stride)
        former = replace(former, max_length=length)
        return replace(former, text_column=text, text_pair_column=pair, label_column=label)

    def settle_answers(self) -> None:
        """Let the model's config hold how answers to questions are chosen, as far as the arguments state it."""
        given = {name: getattr(self.args, name) for name in ("doc_stride", "max_answer_length", "n_best")}
        given = {name: value for name, value in given.items() if value is not None}
        if given and task_for(self.model.config).in_windows:
            self.model.config = self.model.config.with_trained(replace(self.model.config.trained_with, **given))

    def set_threshold(self, threshold: float | None, rows: str | None = None) -> None:
        """Let the model's config hold a threshold, None for none, and the rows that it was chosen on."""
        config = self.model.config
        self.model.config = config.with_trained(config.trained_with.at_threshold(threshold, rows))

    def label_weights(self, dataset: Dataset) -> RunWeights | None:
        """Return the weights of the labels in the loss of a run on these rows. Raises ValueError if they do not fit."""
        task = task_for(self.model.config, dataset.labels)
        of_words = task.labels_per_token and not task.makes_labels
        name, starts = (SINGLE_LABEL, dataset.starts) if of_words else (task.name, None)
        return run_weights(self.args, name, self.model.config, dataset.labels, starts)

    def fingerprint(self, dataset: Dataset) -> dict[str, str]:
        """Return the hashes of everything that is learned from: the rows, and what objective and arguments add."""
        return {"data": dataset.fingerprint(), **self.objective.fingerprint(), **self.args.fingerprint()}

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """Return what must be the same on all processes that train together, by the name in an error."""
        return {
            "arguments": arguments_with_effect(self.args),
            "rows": self.fingerprint(dataset),
            "rows to evaluate on": self.evaluated_on(),
            "first weights": self.model.weights_hash(),  # with instruction set, version and what else decides on bits
        }

    def prepare(self, dataset: Dataset, world: World = ALONE) -> None:
        """Let the objective do what must be done once before the first step, by all processes that train together."""
        data = RunData(dataset, self.main_eval_dataset, self.compute_metrics, world)
        self.objective.prepare(data, self.args, self.model.config)

    def new_state(self, dataset: Dataset) -> TrainerState:
        """Return the state with which a run on these rows begins."""
        return TrainerState(trained_on=self.fingerprint(dataset), evaluated_on=self.evaluated_on())

    def new_plan(self, dataset: Dataset) -> EpochPlan:
        """Return which rows each step reads."""
        args = self.args
        return EpochPlan(
            len(dataset),
            batch_size=args.per_device_train_batch_size,
            accumulation=args.micro_batches_per_step,
            drop_last=args.dataloader_drop_last,
            seed=args.get_data_seed(),
        )

    def max_steps(self, plan: EpochPlan) -> int:
        """Return the optimiser steps of the whole run."""
        return plan.max_steps(self.args.num_train_epochs, self.args.max_steps)

    def ready_model(self) -> None:
        """Set the model to the beginning of a run: the type of its products, and its stream of dropout masks."""
        self.model.training_dtype = self.args.training_dtype
        self.model.dropout_seed = self.args.seed
        self.model.optimizer_step = self.model.tokens_in_step = 0

    def inner_loss(self, plan: EpochPlan) -> InnerLoss | None:
        """Return the loss of a run by this plan on what lies inside the model, if there is one. Raises ValueError."""
        length = RunLength(self.max_steps(plan), plan.steps_per_epoch)
        return self.objective.inner_loss(self.model.config, self.args, length)

    def new_optimizer(self, inner: InnerLoss | None = None) -> AdamW:
        """Return an optimiser, which has done no step, of the model and of what its inner loss trains beside it."""
        args = self.args
        return AdamW(
            self.model,
            lr=args.learning_rate,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_epsilon,
            weight_decay=args.weight_decay,
            ema_decay=args.ema_decay,
            auxiliary=None if inner is None else inner.auxiliary,
        )


def adapted(model: Model, objective: Objective) -> Model:
    """Return the model, once its config states what the objective settles.

    Raises:
        ValueError: its head has no task, or the objective is for another one.
    """
    check_task(model)
    model.config = objective.adapt(model.config)
    return model


def check_task(model: Model) -> None:
    """Raise ValueError, which names the classes to load, for a model whose head has no task that rows could teach."""
    if model.head not in OF_TASKS and not model.config.embeds:
        known = ", ".join(f"{model.architecture.name}{ENDINGS[head]}" for head in OF_TASKS)
        raise ValueError(
            f"model is a {type(model).__name__}, whose head has no task to train for; expected one of {known}, whose "
            "from_pretrained(...) takes the encoder of such a model's directory"
            + (", or to embed texts from_pretrained(..., pooling='mean')" if model.head == ENCODER else "")
        )


def made_by(model_init: ModelInit, trial: Any = None) -> Model:
    """Return a new model. What people wrote for a search takes the trial as its one argument, None outside of it."""
    parameters = inspect.signature(model_init).parameters.values()
    takes_trial = any(p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD for p in parameters)
    model = model_init(trial) if takes_trial else model_init()
    check_model("what model_init returns", model)
    return model


def require_labels(dataset: Dataset, name: str = "") -> None:
    """Raise `ValueError` for rows to evaluate on of which none has a label; `name` is that of one of several sets."""
    if not dataset.labelled and isinstance(dataset.windows, Sentences):
        raise ValueError(
            "the rows to evaluate embeddings on (--eval or --data, eval_dataset) have no scores; expected pairs of "
            "texts with a score, such as the columns sentence1, sentence2 and score, or a teacher to compare with, as "
            "`kdistill distill` has"
        )
    if not dataset.labelled:
        which = f"the set {name!r} of eval_dataset" if name else "eval_dataset (--eval or --data)"
        raise ValueError(
            f"{which} has no labels; expected a label in at least one row (predict needs none){dataset.why_no_labels()}"
        )
