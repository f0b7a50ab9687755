"""`TrainerBase`: what a trainer does apart from training. It holds model, rows and callbacks, measures and saves."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .arguments import TrainingArguments
from .callbacks import Callback, CallbackHandler, DefaultFlowCallback, TrainerControl
from .data import Dataset
from .data_collator import DataCollatorWithPadding, check_collator
from .files import atomic_write
from .inference import ComputeMetrics, PredictionOutput, encode_for, name_of, predict
from .model import BertForSequenceClassification
from .optim import AdamW, averaged
from .progress import Progress
from .publishing import upload_run
from .report import CardFacts, DataFacts, TeacherFacts, model_card
from .reporters import default_callbacks
from .rows import labelled_rows
from .state import TrainerState
from .tokenizer import BertTokenizer
from .training_checkpoint import save_model
from .transformers_arguments import check_trainer_arguments

ModelInit = Callable[..., BertForSequenceClassification]


class TrainerBase:
    """The part of `Trainer` around the training loop; `Trainer` tells of its arguments and attributes."""

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
        self.args = args if args is not None else TrainingArguments()
        self.model = self._taken(_only_one_of(model, model_init))
        self.args.settle_best_metric(self.model.config.is_regression)
        self.model_init = model_init
        if tokenizer is not None and processing_class is not None:
            raise ValueError("processing_class and tokenizer, its older name, are both given; expected one of the two")
        check_collator(data_collator)
        self.processing_class = tokenizer if processing_class is None else processing_class
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
        self.callback_handler = CallbackHandler(
            [DefaultFlowCallback, *default_callbacks(self.args), *(callbacks or ())]
        )
        self._call("on_init_end")

    def _taken(self, model: BertForSequenceClassification) -> BertForSequenceClassification:
        """The model to train, once its task is certain."""
        return model

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
        return metrics

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

    def create_model_card(self) -> None:
        """Write the model card README.md into the output directory."""
        facts = CardFacts(
            name=self.args.run_name or Path(self.args.output_dir).resolve().name,
            started_from=self.started_from,
            config=self.model.config,
            num_parameters=self.model.num_parameters(),
            args=self.args,
            state=self.state,
            results=self.results,
            train=DataFacts.of(self.data_names["train"], self.train_dataset),
            eval=DataFacts.of(self.data_names["eval"], self.eval_dataset),
            teacher=self._teacher_facts(),
        )
        atomic_write(Path(self.args.output_dir, "README.md"), model_card(facts).encode())

    def _teacher_facts(self) -> TeacherFacts | None:
        return None

    def push_to_hub(self) -> str:
        """Upload the output directory's model to the Hugging Face hub; return its address (extra `[hub]`)."""
        self._call("on_push_begin")
        return upload_run(self.args, self.state)

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


def _only_one_of(
    model: BertForSequenceClassification | None, model_init: ModelInit | None
) -> BertForSequenceClassification:
    if model is not None and model_init is None:
        return model
    if model is None and model_init is not None:
        return made_by(model_init)
    raise ValueError(f"model and model_init: found {'neither' if model is None else 'both'}; expected one of the two")


def made_by(model_init: ModelInit) -> BertForSequenceClassification:
    """A new model. What people wrote for a search takes the trial as its one argument, which is None here."""
    parameters = inspect.signature(model_init).parameters.values()
    takes_trial = any(p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD for p in parameters)
    return model_init(None) if takes_trial else model_init()


def require_labels(dataset: Dataset) -> None:
    if not labelled_rows(dataset.labels).any():
        raise ValueError("eval_dataset has no labels; expected a label in at least one row (predict needs none)")
