"""`Distillation`: train a student on the labels and on a teacher's soft targets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ..data.augmentation import TokenKinds, augmented
from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.labels import NO_LABEL, labelled_rows
from ..data.ragged import Outputs, take_rows
from ..data.sentences import Sentences
from ..metrics.prediction import Labels
from ..models.configuration import Config
from ..models.head_names import SPAN
from ..models.heads import MaskedLanguageModel
from ..models.initialization import WORD_EMBEDDINGS
from ..system.progress import Progress
from ..tasks.base import Task
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.objective import NO_TAP_LOSS, BatchLoss, InnerLoss, LearnedLoss, LossPart, RunData, RunLength
from ..train.own_metrics import own_metrics
from ..train.plan import RowIndices
from .answers import answers_against_labels
from .courses import args_of_step
from .matching import Matching
from .teachers import Teacher, read_as_teacher, reader_for_both

_OF_LABELS = ("alpha", "alpha_end", "temperature", "temperature_end", "label_smoothing_factor")
"""Arguments that weigh labels and probabilities, which embeddings do not have."""


class Distillation:
    """The loss of the labels and that of the teacher, mixed by `alpha`. An `Objective`.

    Rows without a label learn from the teacher alone (alpha 0).

    Attributes:
        teacher: the teacher.
        teacher_logits: its logits for the training rows, float32 (rows, num_labels), or a `Ragged` of float32 (tokens,
            num_labels); `prepare` makes them.
    """

    needs_labels = False

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.teacher_logits: Outputs = np.zeros((0, teacher.model.config.num_outputs), np.float32)

    def adapt(self, config: Config) -> Config:
        """Return the student's config, which states as the teacher's does what it leaves open.

        That is the problem type, and how rows are read, see `read_as_teacher`.

        Raises:
            ValueError: it is for another task, or states another problem type.
        """
        self.teacher.check_head(config)
        teacher = self.teacher.model.config
        theirs, ours = teacher.problem_type, config.problem_type
        if theirs not in (None, ours) and ours is not None:
            raise ValueError(f"the teacher's problem_type is {theirs!r} and the student's {ours!r}; expected the same")
        config = read_as_teacher(config, teacher)
        return config if theirs is None or ours is not None else config.replace(problem_type=theirs)

    def reader(self, tokenizer: PreTrainedTokenizerFast | None, config: Config) -> PreTrainedTokenizerFast | None:
        """Return the tokenizer that rows are read with for both models, see `reader_for_both`."""
        return reader_for_both(tokenizer, config, self.teacher.model.config, self.teacher.tokenizer)

    def rows_to_learn_from(
        self, dataset: Dataset, args: DistillationTrainingArguments, tokenizer: PreTrainedTokenizerFast | None
    ) -> Dataset:
        """Return the rows, followed by the views of them that `args.augment` asks for.

        Warns of rows without a label where labels count.

        Raises:
            ValueError: no row has a label although `args.alpha` asks for labels, there is no tokenizer to make
                augmented copies with, or rows are questions, or texts with hidden words.
        """
        if not isinstance(dataset.windows, Sentences):  # embeddings have no labels
            _check_labels(dataset, args)
        if not args.augment:
            return dataset
        if self.teacher.model.head == SPAN:
            raise ValueError(
                f"augment is {args.augment}, and copies of questions with words replaced or left out would no longer "
                "have their answers; expected 0: leave --augment (augment=) out for question answering"
            )
        if dataset.masking is not None:
            raise ValueError(
                f"augment is {args.augment}; expected 0: a language model has other words hidden in each epoch anyway"
            )
        if tokenizer is None:
            raise ValueError(
                f"augment is {args.augment} and processing_class is None; expected the tokenizer, which defines what a "
                "word is"
            )
        teacher = self.teacher.model
        words = teacher.parameters[teacher.stored_names().stored(WORD_EMBEDDINGS)]
        kinds = TokenKinds.of(tokenizer, len(words))
        return augmented(dataset, args.augment, kinds=kinds, embeddings=words, seed=args.get_data_seed())

    def rows_to_measure(self, dataset: Dataset, args: DistillationTrainingArguments) -> Dataset:
        """Return the rows; of texts that are embedded, with the teacher's embeddings, asked for when needed."""
        if not isinstance(dataset.windows, Sentences):
            return dataset
        ask = lru_cache(maxsize=1)(partial(self.teacher.embeddings, dataset, args))
        return replace(dataset, windows=replace(dataset.windows, reference=ask))

    def fingerprint(self) -> dict[str, str]:
        """Return the hash of the teacher's weights."""
        return {"teacher": self.teacher.fingerprint()}

    def keep(self, settled: Mapping[str, Any], args: DistillationTrainingArguments) -> None:
        """Let the teacher answer in the compute type that was chosen before. Raises what `Teacher.keep_type` raises."""
        self.teacher.keep_type(settled, args)

    def settled(self) -> dict[str, Any]:
        """Return the teacher's compute type and the check that chose it."""
        return {} if self.teacher.choice is None else self.teacher.choice.settled()

    def prepare(self, data: RunData, args: DistillationTrainingArguments, config: Config) -> None:
        """Ask the teacher for its logits of all rows, measure it, and warn where they do not fit the labels.

        A teacher of a language model answers in each step instead: other words are hidden in each epoch, and an answer
        is as long as the vocabulary. Warns also of arguments about labels where there are none.
        """
        self.teacher.choose_type(data.train, args, config)
        if config.embeds:
            _warn_of_labels(args)
        wide, width = self.teacher.model.config.num_outputs, config.num_outputs
        if config.embeds and width < wide:
            Progress("teacher", unit="rows", quiet=args.disable_tqdm).write(
                f"the teacher's embeddings of {wide} numbers are learned along the {width} directions in which those "
                "of the training rows are longest"
            )
        measured_on, logits = data.train, self.teacher_logits
        if data.train.masking is None:
            self.teacher_logits = logits = self.teacher.logits(data.train, args, what="training rows")
        elif data.eval is None:
            return
        if data.eval is not None:
            measured_on, logits = data.eval, self.teacher.logits(data.eval, args, what="evaluation rows", keep=True)
        self.teacher.model.release()
        labels = measured_on.targets
        if not labelled_rows(labels).any():
            return
        task = self.teacher.task(config, measured_on.labels)
        if data.eval is not None:
            if args.threshold is None:
                task = self.teacher.task_suited_to(config, logits, measured_on)
            metrics = task.evaluate(logits, labels)
            metrics |= own_metrics(data.compute_metrics, logits, labels, task)
            metrics |= {} if task.threshold is None else {"threshold": task.threshold}
            self.teacher.metrics = {name.removeprefix("eval_"): of for name, of in metrics.items() if name != "n"}
        numbered = measured_on.reading is not None and measured_on.reading.numbered
        theirs = config.with_trained(self.teacher.model.config.trained_with)
        for finding in answers_against_labels(logits, labels, theirs, numbered=numbered):
            warnings.warn(finding.sentence(), stacklevel=4)

    def figures(self) -> dict[str, Any]:
        """Return the teacher's metrics on the evaluation rows, as far as they have been measured."""
        return {f"teacher_{name}": value for name, value in self.teacher.metrics.items()}

    def inner_loss(self, config: Config, args: DistillationTrainingArguments, length: RunLength) -> InnerLoss | None:
        """Return the losses that `args.matches` names, for a new run. Raises what `Matching` raises."""
        if args.matches is None:
            return None
        return Matching(args, self.teacher.model.config, config, length, self.teacher.inside)

    def args_of_step(
        self, args: DistillationTrainingArguments, step: int, length: RunLength
    ) -> DistillationTrainingArguments:
        """Return the arguments as schedules and stages have them in a step, see `courses.args_of_step`."""
        return args_of_step(args, step, length)

    def __call__(
        self,
        logits: Outputs,
        labels: Labels,
        rows: RowIndices,
        *,
        args: DistillationTrainingArguments,
        task: Task,
    ) -> BatchLoss:
        """Return the distillation loss, see `Task.teacher_loss`, with the labels' and the teacher's part."""
        if task.with_loss is not None:
            task = task.with_loss(args.embedding_loss)
        parts = task.teacher_loss(
            logits,
            take_rows(self.teacher_logits, rows),
            labels,
            alpha=args.alpha,
            temperature=args.temperature,
            label_smoothing=args.label_smoothing_factor,
        )
        if task.with_loss is not None:  # there are no labels
            return BatchLoss(parts.loss, parts.dlogits, [])
        labelled = labels >= 0 if task.labels_per_token else labelled_rows(labels)
        hard = LossPart("hard_loss", parts.hard, int(labelled.sum()))
        soft = LossPart("soft_loss", parts.soft, task.parts(labels, len(rows)))
        return BatchLoss(parts.loss, parts.dlogits, [hard, soft])

    def learn_hidden_words(
        self,
        model: MaskedLanguageModel,
        batch: Batch,
        words: Labels,
        *,
        share: float,
        args: DistillationTrainingArguments,
        inner: InnerLoss | None = None,
    ) -> LearnedLoss:
        """Learn the hidden words, and what the teacher expects in their places: it reads the same batch.

        With `inner` also what lies inside the teacher, in the same pass. With alpha 1 nobody asks what it expects.
        Where the loss of the predictions does not count, no word is hidden, and no model computes one.
        """
        assert inner is None or isinstance(inner, Matching)
        weight, taps = (1.0, ()) if inner is None else (inner.prediction_weight, inner.taps)
        predicted = words if weight else None
        if predicted is None:
            batch = batch._replace(ids=np.where(words == NO_LABEL, batch.ids, words).astype(np.int32))
        taught = predicted is not None and args.alpha < 1
        with self.teacher.in_a_step() as teacher:
            ours = model.masked_pass(batch, predicted, train=True, taps=taps)
            theirs, inside = None, NO_TAP_LOSS
            if taught or taps:
                asked = () if inner is None else inner.teacher_taps
                theirs = teacher.masked_pass(batch, predicted if taught else None, taps=asked)
            if inner is not None and theirs is not None:
                inside = inner(batch, ours.taps, theirs.taps)
            found = ours.loss(
                teacher=theirs if taught else None,
                alpha=args.alpha,
                temperature=args.temperature,
                label_smoothing=args.label_smoothing_factor,
                share=weight * share,
                gradients=inside.gradients,
            )
        parts = [LossPart("hard_loss", found.hard, found.tokens), LossPart("soft_loss", found.soft, found.tokens)]
        return LearnedLoss(weight * found.loss, [*parts, *inside.parts], inside.loss)


def _warn_of_labels(args: DistillationTrainingArguments) -> None:
    given = [name for name in _OF_LABELS if args.is_given(name) and getattr(args, name)]
    if given:
        verb = "has" if len(given) == 1 else "have"
        warnings.warn(
            f"{', '.join(given)} {verb} no effect here: embeddings are learned from the teacher alone, by the "
            f"{args.embedding_loss} between them",
            stacklevel=6,
        )


def _check_labels(dataset: Dataset, args: DistillationTrainingArguments) -> None:
    """Warn of rows without a label; raise ValueError where none has one and `alpha` was given for them."""
    missing = dataset.unlabelled
    if not missing or args.alpha == 0:
        return
    if missing < len(dataset):
        warnings.warn(
            f"{missing} of {len(dataset)} training rows have no label; on these the student learns from the teacher "
            "only",
            stacklevel=5,
        )
    elif args.is_given("alpha"):
        raise ValueError(
            f"alpha is {args.alpha}, but no training row has a label; expected labels, or alpha 0 to learn from the "
            f"teacher only{dataset.why_no_labels()}"
        )
    else:
        warnings.warn(
            "no training row has a label, so the student learns from the teacher only (alpha 0 does the same without "
            f"this warning){dataset.why_no_labels()}",
            stacklevel=5,
        )
