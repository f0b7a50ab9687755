"""`Distillation`: train a student on the labels and on a teacher's soft targets."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.augmentation import TokenKinds, augmented
from ..data.batch import Batch
from ..data.blocks import blocks_of
from ..data.dataset import Dataset
from ..data.labels import NO_LABEL, labelled_rows
from ..data.ragged import Outputs, take_rows, units
from ..data.sentences import Sentences
from ..data.spans import Spans
from ..losses.mixing import NUMBERS
from ..metrics.prediction import Labels
from ..models.configuration import Config
from ..models.heads import MaskedLanguageModel
from ..system.pickling import Lock, Once
from ..system.progress import Progress
from ..tasks.base import Task
from ..tasks.registry import task_for
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.byte_sizes import bytes_of
from ..train.objective import NO_TAP_LOSS, BatchLoss, InnerLoss, LearnedLoss, LossPart, RunData, RunLength
from ..train.own_metrics import own_metrics
from ..train.plan import RowIndices
from ..train.stages import predictions_count
from .answers import answers_against_labels
from .copies import with_texts_of_copies, word_embeddings
from .courses import args_of_step
from .first_tokens import AskInside, FirstTokens
from .functions import TeacherFunction
from .given import Given
from .hidden_cache import HiddenCache
from .matching import AskTeacher, Matching, matched_teacher
from .partly_taught import answered_rows, taught_parts
from .sources import Teachers
from .teachers import Teacher, read_as_teacher

_MOST_COMPARED = 1 << 17  # training rows whose labels the teacher's answers are compared with
_OF_LABELS = ("alpha", "alpha_end", "temperature", "temperature_end", "label_smoothing_factor")
"""Arguments that weigh labels and probabilities, which embeddings do not have."""


class Distillation:
    """The loss of the labels and that of the teachers, mixed by `alpha`. An `Objective`.

    Rows without a label learn from the teachers alone (alpha 0), and rows without a teacher's answer from their labels
    alone (alpha 1).

    Attributes:
        teachers: the teachers.
        answers: the outputs of each of them for the training rows, see `Source.outputs`; `prepare` makes them, or the
            first trial of a search whose predictions count. They are raw, for the temperature may differ between the
            trials.
        rows: the training rows; `prepare` sets them.
    """

    needs_labels = False

    def __init__(self, teachers: Teachers) -> None:
        self.teachers = teachers
        self.answers: tuple[Outputs, ...] = ()
        self.rows: Dataset | None = None
        self._asking = Lock()
        self._answered: str | None = None  # a hash of what functions have answered, in an earlier process perhaps

    @property
    def teacher(self) -> Teacher | None:
        """The first teacher that is a model; None without one."""
        return self.teachers.models[0] if self.teachers.models else None

    def adapt(self, config: Config) -> Config:
        """Return the student's config, which states as the teacher's does what it leaves open.

        That is the problem type, and how rows are read, see `read_as_teacher`.

        Raises:
            ValueError: it is for another task, or states another problem type.
        """
        for each in self.teachers.models:
            each.check_head(config)
            teacher = each.model.config
            theirs, ours = teacher.problem_type, config.problem_type
            if theirs not in (None, ours) and ours is not None:
                raise ValueError(
                    f"the teacher's problem_type is {theirs!r} and the student's {ours!r}; expected the same"
                )
            config = read_as_teacher(config, teacher)
            config = config if theirs is None or ours is not None else config.replace(problem_type=theirs)
        return config

    def reader(self, tokenizer: PreTrainedTokenizerFast | None, config: Config) -> PreTrainedTokenizerFast | None:
        """Return the tokenizer that rows are read with, see `Teachers.reader`."""
        return self.teachers.reader(tokenizer, config)

    def needs_texts(self, reader: PreTrainedTokenizerFast | None, config: Config) -> bool:
        """Return whether a teacher reads the texts itself, or is asked by them."""
        return self.teachers.needs_texts(config, reader)

    def rows_to_learn_from(
        self, dataset: Dataset, args: DistillationTrainingArguments, tokenizer: PreTrainedTokenizerFast | None
    ) -> Dataset:
        """Return the rows, followed by the views of them that `args.augment` asks for.

        Warns of rows without a label where labels count.

        Raises:
            ValueError: no row has a label although `args.alpha` asks for labels, or copies are asked for that cannot be
                made, see `why_no_copies`.
        """
        if not isinstance(dataset.windows, Sentences) and predictions_count(args.matches):  # embeddings have no labels
            _check_labels(dataset, args)
        if not args.augment:
            return dataset
        if reason := self.why_no_copies(dataset, tokenizer):
            raise ValueError(f"augment is {args.augment}, and {reason}; expected 0: leave --augment (augment=) out")
        teacher = self._whose_words_are_alike
        assert teacher is not None
        assert tokenizer is not None
        words = word_embeddings(teacher, tokenizer)
        kinds = TokenKinds.of(tokenizer, len(words))
        rows = augmented(dataset, args.augment, kinds=kinds, embeddings=words, seed=args.get_data_seed())
        return rows if dataset.texts is None else with_texts_of_copies(rows, dataset.texts, tokenizer, kinds)

    @property
    def _whose_words_are_alike(self) -> Teacher | None:
        """The teacher whose embeddings show which words are alike; None without a model."""
        return next((of for of in self.teachers.models if not of.reads_itself), self.teacher)

    def why_no_copies(self, dataset: Dataset, tokenizer: PreTrainedTokenizerFast | None) -> str:
        """Return why no augmented copies can be made of the rows, as a clause; empty where they can."""
        if isinstance(dataset.windows, Spans):
            return "copies of questions with words replaced or left out would no longer have their answers"
        if dataset.masking is not None:
            return "a language model has other words hidden in each epoch anyway"
        if tokenizer is None:
            return "there is no tokenizer (processing_class), which defines what a word is"
        if self._whose_words_are_alike is None:
            return "no teacher is a model, whose embeddings show which words are alike"
        if dataset.per_token and any(of.reads_itself for of in self.teachers.models):
            return "a teacher reads words with a tokenizer of its own, while copies are made of tokens"
        return ""

    def rows_to_measure(self, dataset: Dataset, args: DistillationTrainingArguments) -> Dataset:
        """Return the rows; of texts that are embedded, with the teacher's embeddings, asked for when needed."""
        if not isinstance(dataset.windows, Sentences) or self._lacks_answers_for(dataset):
            return dataset
        ask = Once(partial(self._embeddings, dataset, args))
        return replace(dataset, windows=replace(dataset.windows, reference=ask))

    def _lacks_answers_for(self, rows: Dataset) -> bool:
        """Return whether answers that came with the rows are all that there could be, and these rows have none."""
        logits = rows.teacher_logits
        only = all(isinstance(source, Given) for source in self.teachers.sources)
        return only and (logits is None or bool(np.isnan(logits).any()))

    def _embeddings(self, rows: Dataset, args: DistillationTrainingArguments) -> NDArray[np.float32]:
        found = self.teachers.together(self.teachers.outputs(rows, args, what="evaluation rows"), NUMBERS)
        assert isinstance(found, np.ndarray)
        return found

    def fingerprint(self) -> dict[str, str]:
        """Return the hash of the teachers."""
        return {"teacher": self.teachers.fingerprint()}

    def keep(self, settled: Mapping[str, Any], args: DistillationTrainingArguments) -> None:
        """Let teachers answer in the compute types that were chosen before. Raises what `Teacher.keep_type` raises."""
        self.teachers.keep_types(settled, args)
        self._answered = settled.get("answers_of_functions")

    def settled(self) -> dict[str, Any]:
        """Return the teachers' compute types and the checks that chose them, and a hash of what functions answered."""
        answered = {} if self._answered is None else {"answers_of_functions": self._answered}
        return self.teachers.settled_types() | answered

    def prepare(self, data: RunData, args: DistillationTrainingArguments, config: Config) -> None:
        """Ask the teachers for their outputs of all rows, measure them, and warn where they do not fit the labels.

        Where the predictions count in no stage of `args.matches`, nobody is asked about the training rows. A teacher of
        a language model answers in each step instead: other words are hidden in each epoch, and an answer is as long as
        the vocabulary. Warns also of arguments about labels where there are none.
        """
        self.rows, counts = data.train, predictions_count(args.matches)
        self.teachers.check_arguments(args, task_for(config, data.train.labels))
        for teacher in self.teachers.models:
            if counts or data.eval is not None:
                teacher.choose_type(data.train, args, config)
            if counts:
                _tell_of_width(teacher, args, config)
        if config.embeds and counts:
            _warn_of_labels(args)
        if data.train.masking is None and counts:
            self.teachers.share(data.train, args, data.world, what="training rows")
            self._ask(args)
            _warn_of_rows_without_a_lesson(self.answers, data.train)
        outputs: tuple[Outputs, ...] = ()
        if data.eval is not None:
            self.teachers.share(data.eval, args, data.world, what="evaluation rows")
            outputs = self.teachers.outputs(data.eval, args, what="evaluation rows", keep=True)
            self._measure(outputs, data.eval, data, args, config)
        if counts:
            self._compare(outputs, data, config)
        self.teachers.release()

    def _ask(self, args: DistillationTrainingArguments) -> None:
        """Ask the teachers for their outputs of the training rows."""
        assert self.rows is not None
        self.answers = self.teachers.outputs(self.rows, args, what="training rows")
        self._compare_with_before()

    def _answers_for(self, rows: RowIndices, args: DistillationTrainingArguments) -> list[Outputs]:
        """Return the outputs for some of the training rows; a search may have begun with matches alone."""
        with self._asking:
            if not self.answers:
                self._ask(args)
                self.teachers.release()
        return [take_rows(of, rows) for of in self.answers]

    def _compare_with_before(self) -> None:
        """Warn where a function answers otherwise than in an earlier process of the run: its weights show nowhere."""
        pairs = zip(self.teachers.sources, self.answers, strict=True)
        functions = [units(of) for source, of in pairs if isinstance(source, TeacherFunction)]
        if not functions:
            return
        answered = hashlib.sha256(b"".join(of.tobytes() for of in functions)).hexdigest()
        if self._answered not in (None, answered):
            warnings.warn(
                "a function among the teachers answers otherwise than before this run was interrupted, so the student "
                "learns from another teacher from here on; is it the same function?",
                stacklevel=7,
            )
        self._answered = answered

    def _measure(
        self,
        outputs: Sequence[Outputs],
        rows: Dataset,
        data: RunData,
        args: DistillationTrainingArguments,
        config: Config,
    ) -> None:
        """Measure each teacher, and all together, on the evaluation rows, if it has an answer for all of them."""
        labels = rows.targets
        if not labelled_rows(labels).any():
            return

        def measured(by: Teachers, of: Outputs) -> dict[str, Any]:
            if not answered_rows(of, rows).all():
                return {}
            suits = args.threshold is None
            task = by.task_suited_to(config, of, rows) if suits else by.task(config, rows.labels)
            metrics = task.evaluate(of, labels)
            metrics |= own_metrics(data.compute_metrics, of, labels, task)
            metrics |= {} if task.threshold is None else {"threshold": task.threshold}
            return {name.removeprefix("eval_"): value for name, value in metrics.items() if name != "n"}

        for source, alone, of in zip(self.teachers.sources, self.teachers.alone(), outputs, strict=True):
            source.metrics = measured(alone, of)
        if len(self.teachers) == 1:
            self.teachers.metrics = self.teachers.sources[0].metrics
        else:
            together = self.teachers.together(outputs, self.teachers.task(config, rows.labels).mixing)
            self.teachers.metrics = measured(self.teachers, together)

    def _compare(self, outputs: Sequence[Outputs], data: RunData, config: Config) -> None:
        """Warn of teachers whose answers do not fit the labels of the evaluation rows, or else the training rows."""
        for place, source in enumerate(self.teachers.sources):
            found = None if data.eval is None else _answered_with_labels(outputs[place], data.eval, whole=True)
            if found is None and self.answers:
                found = _answered_with_labels(self.answers[place], data.train, whole=False)
            if found is None:
                continue
            of, rows, numbered = found
            theirs = config.with_trained(source.trained_with(config)) if isinstance(source, Teacher) else config
            whose = "" if len(self.teachers) == 1 else f"{source.name}: "
            for finding in answers_against_labels(of, rows.targets, theirs, numbered=numbered):
                warnings.warn(f"{whose}{finding.sentence()}", stacklevel=5)

    def figures(self) -> dict[str, Any]:
        """Return the metrics of the teachers together on the evaluation rows, as far as they have been measured."""
        return {f"teacher_{name}": value for name, value in self.teachers.metrics.items()}

    def inner_loss(self, config: Config, args: DistillationTrainingArguments, length: RunLength) -> InnerLoss | None:
        """Return the losses that `args.matches` names, for a new run. Raises what `Matching` raises."""
        if args.matches is None:
            return None
        teacher = matched_teacher(self.teachers, args, config)
        inside = teacher.inside if args.hidden_cache is None else HiddenCache(teacher, bytes_of(args.hidden_cache))

        def rows_as_read() -> Dataset:
            assert self.rows is not None
            return teacher.rows_as_read(self.rows, args)

        ask = FirstTokens(inside, rows_as_read) if teacher.reads_itself else _of_the_same_tokens(inside)
        return Matching(args, teacher.model.config, config, length, ask)

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
        """Return the distillation loss, see `Task.teacher_loss`, with the labels' and the teachers' part.

        It is 0 where the predictions count in no stage of `args.matches`.
        """
        if not predictions_count(args.matches):
            return BatchLoss(0.0, np.zeros_like(units(logits)), [])
        if task.with_loss is not None:
            task = task.with_loss(args.embedding_loss)
        taught = self.teachers.mixed(self._answers_for(rows, args), task, args, labels)
        parts = task.teacher_loss(
            logits,
            taught,
            labels,
            alpha=args.alpha,
            temperature=args.temperature,
            label_smoothing=args.label_smoothing_factor,
        )
        if task.with_loss is not None:  # there are no labels
            return BatchLoss(parts.loss, parts.dlogits, [])
        labelled = labels >= 0 if task.labels_per_token else labelled_rows(labels)
        hard = LossPart("hard_loss", parts.hard, int(labelled.sum()))
        soft = LossPart("soft_loss", parts.soft, taught_parts(task, taught, labels))
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
        assert self.teacher is not None
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
                inside = inner(batch, ours.taps, theirs=theirs.taps)
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


def _of_the_same_tokens(inside: AskInside) -> AskTeacher:
    """Return what asks a teacher that reads the student's batch."""
    return lambda batch, taps, rows: inside(batch, taps)


def _answered_with_labels(outputs: Outputs, rows: Dataset, *, whole: bool) -> tuple[Outputs, Dataset, bool] | None:
    """Return the answers, the rows that have one, and whether the data gives its labels by number.

    None where there are no labels, or no answers; with `whole` also where a row has none.
    """
    there = _first_true(answered_rows(outputs, rows), len(rows) if whole else _MOST_COMPARED)
    if not rows.labelled or not len(there) or (whole and len(there) < len(rows)):
        return None
    numbered = rows.reading is not None and rows.reading.numbered
    if len(there) == len(rows):
        return outputs, rows, numbered
    return take_rows(outputs, there), rows.take(there), numbered


def _first_true(of: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """Return the first places that are true, at most so many."""
    found = np.zeros(0, np.int64)
    for block in blocks_of(len(of)):
        if len(found) < most:
            found = np.concatenate((found, block.start + np.flatnonzero(of[block])))
    return found[:most]


def _tell_of_width(teacher: Teacher, args: DistillationTrainingArguments, student: Config) -> None:
    """Print along how many directions the embeddings of a wider teacher are learned."""
    wide, width = teacher.model.config.num_outputs, student.num_outputs
    if student.embeds and width < wide:
        Progress("teacher", unit="rows", quiet=args.disable_tqdm).write(
            f"the teacher's embeddings of {wide} numbers are learned along the {width} directions in which those of "
            "the training rows are longest"
        )


def _warn_of_labels(args: DistillationTrainingArguments) -> None:
    given = [name for name in _OF_LABELS if args.is_given(name) and getattr(args, name)]
    if given:
        verb = "has" if len(given) == 1 else "have"
        warnings.warn(
            f"{', '.join(given)} {verb} no effect here: embeddings are learned from the teacher alone, by the "
            f"{args.embedding_loss} between them",
            stacklevel=6,
        )


def _warn_of_rows_without_a_lesson(answers: Sequence[Outputs], rows: Dataset) -> None:
    """Warn of rows that have neither a label nor an answer of any teacher: nothing is learned from them."""
    learned = np.logical_or.reduce([answered_rows(of, rows) for of in answers])
    if not isinstance(rows.windows, Sentences):  # embeddings are not learned from labels
        learned |= rows.have_labels()
    lacking = int((~learned).sum())
    if lacking:
        warnings.warn(
            f"{lacking:,} of {len(rows):,} training rows have neither a label nor an answer of a teacher; nothing is "
            "learned from them",
            stacklevel=5,
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
