"""`TrainerBase`: what a trainer does apart from training. It holds model, rows and callbacks, measures and saves."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .data.dataset import Dataset
from .data.labels import labelled_rows
from .models.checkpoint import WEIGHTS_FILES
from .models.model import BertForSequenceClassification
from .report.card import CARD_FILE, model_card
from .report.measure import make_report
from .report.metadata import CardMetadata
from .report.report import Questions, Subject, Teacher
from .system.files import atomic_write
from .system.notebook import Metrics
from .system.progress import Progress
from .text.collator import DataCollatorWithPadding, check_collator
from .text.tokenizer import BertTokenizer
from .train.arguments import TrainingArguments
from .train.callbacks import Callback, CallbackHandler, DefaultFlowCallback, TrainerControl
from .train.checkpoint import save_model
from .train.default_callbacks import default_callbacks
from .train.evaluate import ComputeMetrics, PredictionOutput, encode_for, name_of, predict
from .train.optim import AdamW, averaged
from .train.publishing import upload_run
from .train.state import TrainerState
from .train.transformers_names import check_trainer_arguments

ModelInit = Callable[..., BertForSequenceClassification]


class TrainerBase:
    """The part of `Trainer` around the training loop; `Trainer` tells of its arguments and attributes."""

    _needs_labels = True

    def __init__(
        self,
        model: BertForSequenceClassification | None = None,
        args: TrainingArguments | None = None,
        *,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: BertTokenizer | None = None,
        compute_metrics: ComputeMetrics | None = None,
        model_init: ModelInit | None = None,
        callbacks: Sequence[Callback] | None = None,
        data_collator: DataCollatorWithPadding | None = None,
        tokenizer: BertTokenizer | None = None,
        **others: Any,
    ) -> None:
        check_trainer_arguments(others, inspect.signature(TrainerBase).parameters)
        check_no_path("args", args, "TrainingArguments(output_dir=...)")
        check_no_path("model", model, "a model: BertForSequenceClassification.from_pretrained(...)")
        self.args = args if args is not None else TrainingArguments()
        self.model = self._taken(_only_one_of(model, model_init))
        self.args.settle_best_metric(self.model.config.is_regression)
        self.model_init = model_init
        if tokenizer is not None and processing_class is not None:
            raise ValueError("processing_class and tokenizer, its older name, are both given; expected one of the two")
        check_collator(data_collator)
        self.processing_class = tokenizer if processing_class is None else processing_class
        check_no_path("processing_class", self.processing_class, "a tokenizer: AutoTokenizer.from_pretrained(...)")
        self.compute_metrics = compute_metrics
        self.train_dataset = None if train_dataset is None else self._encoded(train_dataset)
        self.eval_dataset = None if eval_dataset is None else self._encoded(eval_dataset)
        self.data_names = {"train": name_of(train_dataset), "eval": name_of(eval_dataset)}
        self.started_from: str | None = None
        self.command: str | None = None
        self.state = TrainerState()
        self.control = TrainerControl()
        self.results: dict[str, float] = {}
        self.optimizer: AdamW | None = None
        self.study: Any = None
        self.commit_url: str | None = None
        self._parts: dict[str, tuple[float, int]] = {}  # of the present step's loss: sums over rows, and how many
        self.callback_handler = CallbackHandler(
            [DefaultFlowCallback, *default_callbacks(self.args), *(callbacks or ())]
        )
        self._call("on_init_end")

    def _taken(self, model: BertForSequenceClassification) -> BertForSequenceClassification:
        """The model to train, once its task is certain."""
        return model

    def _checked_datasets(self) -> Dataset:
        """The training rows. Raises or warns, before any work, of data that would disappoint later."""
        train, evaluation = self.train_dataset, self.eval_dataset
        if train is None:
            raise ValueError("train_dataset is None; expected rows to train on")
        unlabelled = int((~labelled_rows(train.labels)).sum())
        if unlabelled and self._needs_labels:
            raise ValueError(
                f"train_dataset (--train) has {unlabelled} rows without a label of {len(train)}; expected a label in "
                "every row (DistillationTrainer, which is `kdistill distill`, also trains on rows without one)"
            )
        if self.args.eval_strategy != "no":
            if evaluation is None:
                warnings.warn(
                    "there is no eval_dataset: nothing is evaluated, and the weights of the last step are kept",
                    stacklevel=4,
                )
            else:
                require_labels(evaluation)
        return train

    def _rows_to_learn_from(self) -> Dataset:
        """The training rows, and what can be made of them."""
        return self._with_views(self._checked_datasets())

    def _with_views(self, dataset: Dataset) -> Dataset:
        return dataset

    def _state_problem_type(self, dataset: Dataset) -> None:
        """What is deduced from the labels is saved with the model, as in transformers."""
        if dataset.labels.dtype.kind == "f":
            config = self.model.config
            self.model.config = config.replace(problem_type=config.problem_type_of(dataset.labels))

    def _fingerprint(self, dataset: Dataset) -> str:
        """Hash of everything that is trained on."""
        return dataset.fingerprint()

    def _prepare(self, dataset: Dataset) -> None:
        """What must be done once before the first step."""

    # Measuring

    def evaluate(self, eval_dataset: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Measure the model on `eval_dataset` (default: the trainer's), log the metrics and return them.

        Keys: eval_loss (against the labels, whatever the training loss), eval_n (labelled rows), those of the problem
        type (`metrics.metrics_of`) and of `compute_metrics`, eval_runtime (seconds), eval_samples_per_second, epoch.
        """
        dataset = self.eval_dataset if eval_dataset is None else self._encoded(eval_dataset)
        if dataset is None:
            raise ValueError("eval_dataset is None; expected rows to evaluate on")
        require_labels(dataset)
        metrics = self._predict(dataset, metric_key_prefix, "evaluate").metrics
        self.log(metrics)
        metrics = {**metrics, "epoch": self.state.epoch}
        self.control.should_evaluate = False
        self._call("on_evaluate", metrics=metrics)
        return Metrics(metrics)

    def predict(self, test_dataset: Any, metric_key_prefix: str = "test") -> PredictionOutput:
        """The model's logits for every row, in order, the labels, and metrics as in `evaluate` where labels are."""
        output = self._predict(self._encoded(test_dataset), metric_key_prefix, "predict")
        self._call("on_predict", metrics=output.metrics)
        return output

    def _predict(self, dataset: Dataset, prefix: str, description: str) -> PredictionOutput:
        with averaged(self.optimizer), Progress(description, unit="rows", quiet=self.args.disable_tqdm) as progress:

            def on_batch(done: int, total: int) -> None:
                progress(done, total)
                if done:
                    self._call("on_prediction_step")

            return predict(
                self.model,
                dataset,
                batch_size=self.args.per_device_eval_batch_size,
                compute_metrics=self.compute_metrics,
                prefix=prefix,
                progress=on_batch,
            )

    def _best_metric(self, metrics: dict[str, float]) -> float:
        """What `metric_for_best_model` names."""
        name = f"eval_{self.args.metric_for_best_model.removeprefix('eval_')}"
        if name not in metrics:
            raise ValueError(
                f"metric_for_best_model is {self.args.metric_for_best_model!r}; the evaluation gives "
                f"{', '.join(metrics)}; compute_metrics adds others (kdistill.choose_metrics)"
            )
        return metrics[name]

    def log(self, logs: dict[str, float]) -> None:
        """Add an entry, with epoch and step, to `state.log_history` and show it to the callbacks."""
        entry = {**logs, "epoch": self.state.epoch, "step": self.state.global_step}
        self.state.log_history.append(entry)
        self._call("on_log", logs=dict(entry))

    # Results

    def save_model(self, output_dir: str | os.PathLike[str] | None = None) -> None:
        """Write the model, and the tokenizer if there is one, as a Hugging Face directory (default: `output_dir`)."""
        directory = Path(self.args.output_dir if output_dir is None else output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        with averaged(self.optimizer):
            save_model(directory, self.model, self.processing_class)

    def create_model_card(
        self,
        language: str | Sequence[str] | None = None,
        license: str | None = None,
        tags: str | Sequence[str] | None = None,
        model_name: str | None = None,
        *,
        dataset_tags: str | Sequence[str] | None = None,
        without_teacher: Sequence[str | os.PathLike[str]] = (),
        seed_runs: Sequence[str | os.PathLike[str]] = (),
        holdout: Any = None,
        search_trials: int | None = None,
        measure_speed: bool = True,
    ) -> dict[str, Any]:
        """Measure the finished run, write the model card README.md into the output directory, return the figures.

        language, license, tags, dataset_tags: for the card's metadata, as in `transformers`; dataset_tags are the ids
            of the data sets on the hub that the rows are from.
        model_name: default the run's name, or the model's on the hub, or the output directory's.
        without_teacher: output directories of the same run without a teacher (alpha 1), to compare with.
        seed_runs: those of the same run with other seeds.
        holdout: rows, as any data set, that chose nothing.
        search_trials: trials of a hyperparameter search that were scored on the evaluation rows; default
            `args.search_trials`.
        measure_speed: measure sentences per second of this model and its teacher, which takes some seconds.

        Raises what `report_measuring.make_report` raises, and warns as it does.
        """
        rows = None if holdout is None else self._encoded(holdout)
        questions = Questions(
            without_teacher=without_teacher,
            seed_runs=seed_runs,
            holdout=None if rows is None else (self.data_names.get("holdout", name_of(holdout)), rows),
            speed=measure_speed,
            search_trials=self.args.search_trials if search_trials is None else search_trials,
        )
        metadata = CardMetadata(_several(language), license, _several(tags), _several(dataset_tags))
        directory = Path(self.args.output_dir)
        weights = directory / WEIGHTS_FILES[0]
        subject = Subject(
            name=model_name or self.args.run_name or self.args.hub_model_id or directory.resolve().name,
            started_from=self.started_from,
            model=self.model,
            args=self.args,
            state=self.state,
            train=self.train_dataset,
            eval=self.eval_dataset,
            data_names=self.data_names,
            teacher=self._teacher(),
            results=self.results,
            file_bytes=weights.stat().st_size if weights.is_file() else None,
        )
        report = make_report(subject, questions)
        atomic_write(directory / CARD_FILE, model_card(report, metadata).encode())
        return report.figures() | {"model_card": str(directory / CARD_FILE)}

    def _teacher(self) -> Teacher | None:
        return None

    def push_to_hub(self) -> str:
        """Upload the output directory's model to the Hugging Face hub; return the commit's address (extra `[hub]`).

        Raises `PermissionError` without a token that may write there and `ConnectionError` when the hub cannot be
        reached or goes on failing; the output directory stays as it is, and a later call does all of it.
        """
        self._call("on_push_begin")
        self.commit_url = upload_run(self.args, self.state)
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
        self.control = self.callback_handler.call(
            event,
            self.args,
            self.state,
            self.control,
            model=self.model,
            processing_class=self.processing_class,
            optimizer=self.optimizer,
            **kwargs,
        )

    def _encoded(self, source: Any) -> Dataset:
        return encode_for(self.model.config, source, self.processing_class, self.args)


def check_no_path(name: str, value: object, expected: str) -> None:
    """Raise `TypeError` for a path or hub id where an object is wanted; `expected` says which, and how to get one."""
    if isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} is {value!r}; expected {expected}")


def _only_one_of(
    model: BertForSequenceClassification | None, model_init: ModelInit | None
) -> BertForSequenceClassification:
    if model is not None and model_init is None:
        return model
    if model is None and model_init is not None:
        return made_by(model_init)
    raise ValueError(f"model and model_init: found {'neither' if model is None else 'both'}; expected one of the two")


def made_by(model_init: ModelInit, trial: Any = None) -> BertForSequenceClassification:
    """A new model. What people wrote for a search takes the trial as its one argument, None outside of a search."""
    parameters = inspect.signature(model_init).parameters.values()
    takes_trial = any(p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD for p in parameters)
    return model_init(trial) if takes_trial else model_init()


def _several(values: str | Sequence[str] | None) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values or ())


def require_labels(dataset: Dataset) -> None:
    if not labelled_rows(dataset.labels).any():
        raise ValueError(
            "eval_dataset (--eval or --data) has no labels; expected a label in at least one row (predict needs none)"
        )
