"""`Teacher`: a frozen model whose logits a student learns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.label_names import is_unnamed
from ..data.ragged import Outputs, Ragged
from ..metrics.prediction import Labels
from ..models.config import same_but_for_padding
from ..models.configuration import Config
from ..models.head_names import ENCODER, ENDINGS, MASKED, SPAN
from ..models.heads import MaskedLanguageModel
from ..models.model import Model, Tap, check_model
from ..models.trained_with import TrainedWith
from ..system.pickling import Lock, Once
from ..system.progress import Progress
from ..tasks.base import Task
from ..tasks.registry import task_for
from ..text.tokenizer import PreTrainedTokenizerFast, check_tokenizer
from ..train.arguments import DistillationTrainingArguments
from ..train.encoding import tokenizer_for
from ..train.evaluate import outputs_for
from ..train.objective import Inside
from ..train.world import World
from .alignment import for_tokens_of
from .cache import teacher_logits
from .cache_exchange import exchange_answers
from .own_reading import read_texts
from .projection import principal_directions, projected
from .teacher_type import AUTO, TypeChoice, chosen_type, inside_type

_WITH_ITS_VOCABULARY = (
    "take a student with the teacher's vocabulary, which from_teacher of the student's class makes, and on the command "
    "line --student with a shape such as L4-H256-A4"
)


class Teacher:
    """A model that teaches, and what a model card calls it.

    Attributes:
        model: the teacher, which `check_student` freezes. Others may use it in another compute type, see `answering`.
        tokenizer: the one that it was trained with; None where nobody knows it.
        name: what a model card calls it.
        metrics: on the evaluation rows, as an evaluation of the student names them; empty where nothing has measured
            them.
        choice: the compute type that it answers in; None while it is to be chosen.
        reads_itself: whether it reads the texts of rows with its own tokenizer, since rows have other tokens.
    """

    def __init__(self, model: Model, name: str | None = None, tokenizer: PreTrainedTokenizerFast | None = None) -> None:
        check_model("teacher_model", model)
        check_tokenizer("teacher_processing_class", tokenizer)
        self.model = model
        self.tokenizer = tokenizer
        self.choice: TypeChoice | None = None
        self.name = "the teacher" if name is None else name
        self.metrics: dict[str, Any] = {}
        self._answering = Lock()
        self._named: str | None = None  # the compute type that is not to be chosen
        self._directions: Callable[[], NDArray[np.float64]] | None = None
        self._unit = False
        self.reads_itself = False
        self._latest: tuple[Dataset, Dataset] | None = None  # rows, and as the teacher reads them

    def check_head(self, student: Config) -> None:
        """Raise ValueError for a student whose head is for another task than the teacher's, or a teacher without one.

        An encoder gives texts no embeddings without a pooling.
        """
        theirs, ours, kind = self.model.config.head, student.head, type(self.model).__name__
        if theirs != ours:
            task, teacher = f"is one for {ours}", f"a {self.model.architecture.name}{ENDINGS[ours]}"
            if ours == ENCODER:
                task, teacher = "embeds texts", f"{teacher} with a pooling"
            raise ValueError(
                f"teacher_model is a {kind}, and model {task}; expected two models for one task, here {teacher} as "
                "teacher that was fine-tuned for it"
            )
        if theirs == ENCODER and not self.model.config.embeds:
            raise ValueError(
                f"teacher_model is a {kind} without a pooling, which gives a text no embedding; expected one with a "
                "pooling, as the files of sentence-transformers state it, or where it has a head the class in the "
                "architectures of its config.json"
            )

    def keep_type(self, settled: Mapping[str, Any], args: DistillationTrainingArguments) -> None:
        """Take the compute type that is not to be chosen: an earlier process of the run, `args` or the model fixes it.

        Args:
            settled: what that process settled, see `TypeChoice.settled`; empty without one.
            args: the training arguments.

        Raises:
            ValueError: two of them name two types.
        """
        earlier, asked = TypeChoice.of(settled), None if args.teacher_dtype == AUTO else args.teacher_dtype
        only = self.model.only_type
        if only is not None and asked not in (None, only):
            raise ValueError(
                f"teacher_dtype is {asked}, and teacher_model was loaded with dtype {only}, so that its weights are in "
                "memory in no other type; leave teacher_dtype out, or load the teacher without dtype="
            )
        self._named = named = only or asked
        if earlier is not None and named not in (None, earlier.dtype):
            raise ValueError(
                f"teacher_dtype is {named}, and the teacher of the run in output_dir computed in {earlier.dtype}; "
                f"expected auto or {earlier.dtype}, for a student learns from one type alone: leave it out, or start a "
                "new run in another output_dir"
            )
        self.choice = earlier or (None if named is None else TypeChoice(named))

    def choose_type(self, rows: Dataset, args: DistillationTrainingArguments, student: Config) -> None:
        """Choose the compute type by a check on the first rows and print it, unless it is known. See `chosen_type`.

        A language model, whose logits nobody keeps to compare them, computes in float32.
        """
        if self.choice is not None:
            return
        if rows.masking is not None:
            self.choice = TypeChoice("float32")
            return
        task, quiet = self.task(student, rows.labels), args.disable_tqdm
        rows = self.rows_as_read(rows, args)
        self.choice = chosen_type(self.model, rows, task, cached=args.teacher_cache, quiet=quiet)
        if self.choice.checks:
            Progress("teacher", unit="rows", quiet=quiet).write(f"the teacher {self.choice.sentence()}")

    @property
    def dtype(self) -> str:
        """The compute type that the teacher answers in: float32 as long as none is chosen."""
        return "float32" if self.choice is None else self.choice.dtype

    @property
    def answering(self) -> Model:
        """The model in the teacher's compute type, which another trainer with the same model may have changed."""
        return self.model.freeze(self.dtype)

    @contextmanager
    def in_a_step(self) -> Iterator[MaskedLanguageModel]:
        """Give the teacher, a language model, to one step at a time: a search may have trials in several threads."""
        with self._answering:
            model = self.answering
            assert isinstance(model, MaskedLanguageModel)
            yield model

    def inside(self, batch: Batch, taps: Sequence[Tap]) -> Inside:
        """Return what lies inside the teacher at these taps, float32, see `Model.forward`: of one step at a time."""
        with self._answering:
            return self.observed.forward(batch, taps=taps)[1]

    @property
    def observed(self) -> Model:
        """The model in the type in which what lies inside is computed: the one that was named, else `inside_type`."""
        return self.model.freeze(self._named or inside_type())

    def type_figures(self) -> dict[str, Any]:
        """Return the type for a report: "dtype", and "dtype_check" with its figures by type where it was checked."""
        found: dict[str, Any] = {"dtype": self.dtype}
        if self.choice is not None and self.choice.checks:
            checks = {of.dtype: {"agreement": of.agreement, "kl": of.divergence} for of in self.choice.checks}
            found["dtype_check"] = {"rows": self.choice.rows, **checks}
        return found

    def outputs(self, rows: Dataset, args: DistillationTrainingArguments, *, what: str) -> Outputs:
        """Return the logits of all rows, float32 (rows, num_labels), from the teacher cache where they are there.

        Of a teacher that answers for each token they are a `Ragged` of float32 (tokens, num_labels); of a language
        model they are its scores of the hidden words (`Task.outputs`), which are not cached. Embeddings are as wide as
        the student's, see `suit_width`.
        """
        with Progress(f"teacher, {what}", unit="rows", quiet=args.disable_tqdm) as progress:
            if rows.hidden:
                size = args.per_device_eval_batch_size
                logits = outputs_for(self.answering, rows, batch_size=size, progress=progress)
            else:
                read = self.rows_as_read(rows, args)
                logits = teacher_logits(self.answering, read, progress=progress, enabled=args.teacher_cache)
                if isinstance(logits, Ragged) and self.reads_itself:
                    logits = for_tokens_of(rows, read, logits)
        if self._directions is not None:
            assert isinstance(logits, np.ndarray)
            logits = projected(logits, self._directions(), unit=self._unit)
        return logits

    def exchange(self, rows: Dataset, args: DistillationTrainingArguments, world: World) -> None:
        """Let the teacher cache of each process hold what those of the others hold of these rows. All call it."""
        exchange_answers(self.answering, self.rows_as_read(rows, args), world)

    def suit_width(self, student: Config, rows: Dataset | None, args: DistillationTrainingArguments) -> None:
        """Let the embeddings of a wider teacher be those along as many directions as the student's have numbers.

        The directions are `principal_directions` of the training rows, found when they are first needed.

        Args:
            student: the student's.
            rows: the training rows.
            args: see `outputs`.
        """
        width = student.num_outputs
        if not self.model.config.embeds or width == self.model.config.num_outputs:
            return
        if rows is None:
            raise ValueError(
                f"train_dataset is None; expected the training rows, which show along which {width} directions the "
                f"teacher's {self.model.config.num_outputs} numbers are learned"
            )

        def directions() -> NDArray[np.float64]:
            with Progress("teacher, training rows", unit="rows", quiet=args.disable_tqdm) as progress:
                read = self.rows_as_read(rows, args)
                found = teacher_logits(self.answering, read, progress=progress, enabled=args.teacher_cache)
            assert isinstance(found, np.ndarray)
            return principal_directions(found, width)

        self._directions = Once(directions)
        self._unit = student.pooling is not None and student.pooling.normalize

    def task(self, student: Config, labels: Labels) -> Task:
        """Return the teacher's task on these labels, with a threshold of its own; the problem may be the student's."""
        config = self.model.config.with_trained(self.trained_with(student))
        return task_for(config if config.problem_type else config.replace(problem_type=student.problem_type), labels)

    def trained_with(self, student: Config) -> TrainedWith:
        """Return what the teacher was trained with, and of questions whether they may have no answer, as the student's.

        Models of other programs do not state it.
        """
        theirs, own = self.model.config.trained_with, student.trained_with
        states_none = self.model.head == SPAN and theirs.threshold is None and theirs.no_answers is None
        return replace(theirs, no_answers=own.no_answers or own.threshold is not None) if states_none else theirs

    def fingerprint(self) -> str:
        """Return a hash of the weights, the same on every CPU, unlike `weights_hash`: a run may go on elsewhere."""
        return self.model.weights_digest()

    def needs_texts(self, student: Config, reader: PreTrainedTokenizerFast | None) -> bool:
        """Return whether the teacher reads the texts of rows itself, since `reader` gives them other tokens.

        That is remembered for the rows to come.
        """
        self.reads_itself = bool(self._differences_from(reader))
        return self.reads_itself

    def _differences_from(self, reader: PreTrainedTokenizerFast | None) -> list[str]:
        """Return in what the rows that `reader` makes differ from what the teacher would read, a phrase for each."""
        config, theirs = self.model.config, tokenizer_for(self.model.config, self.tokenizer)
        if theirs is None or reader is None:
            return []
        different = reader.differences_from(theirs)
        if config.type_vocab_size > 1 and theirs.has_token_types != reader.has_token_types:
            different.append("whether they give token types (model_input_names)")
        return different

    def check_student(self, student: Model, reader: PreTrainedTokenizerFast | None) -> None:
        """Freeze the teacher, once it is certain that it reads the rows as it should and gives the same labels.

        Warns where the two were trained on rows that were read otherwise.

        Raises:
            ValueError: they are one model, or differ in their label map, or in their vocabulary where one tokenizer is
                unknown or they answer for tokens that only one tokenizer makes.
        """
        if self.model is student:
            raise ValueError("teacher_model and model are the same object; expected two models")
        _check_widths(self.model.config, student.config)
        different = self._differences_from(reader)
        if different:
            _check_reads_itself(self.model.config, different)
        elif self.tokenizer is None or reader is None:
            _check_vocabulary_sizes(self.model.config, student.config)
        self.reads_itself = bool(different)
        if not different:
            _warn_of_other_reading(self.model.config, student.config)
        if student.config.head == MASKED:
            _check_outputs(self.model.config, student.config)
        else:
            _check_label_maps(self.model.config, student.config)
        self.model.freeze()

    def rows_as_read(self, rows: Dataset, args: DistillationTrainingArguments) -> Dataset:
        """Return the rows as the teacher reads them: as they are, or their texts by its own tokenizer.

        Raises:
            ValueError: it has to read them itself, and they hold no texts.
        """
        if not self.reads_itself:
            return rows
        if self._latest is None or self._latest[0].ids is not rows.ids:
            assert self.tokenizer is not None
            self._latest = rows, read_texts(self.model.config, self.tokenizer, rows, args, self.name)
        return self._latest[1]

    def release(self) -> None:
        """Give back memory that is needed for answers alone."""
        self.model.release()
        self._latest = None


def reader_for_both(
    tokenizer: PreTrainedTokenizerFast | None,
    student: Config,
    teacher: Config,
    teacher_tokenizer: PreTrainedTokenizerFast | None,
) -> PreTrainedTokenizerFast | None:
    """Return the tokenizer that reads rows for teacher and student: the student's, with the token types of the teacher.

    A student whose architecture has no token types reads none of them, and its own tokenizer gives none. Where the
    teacher's tokenizer is unknown, a teacher with several types was trained with those that the vocabulary's template
    of pairs gives.

    Args:
        tokenizer: the student's.
        student: its configuration.
        teacher: the teacher's configuration.
        teacher_tokenizer: the teacher's tokenizer, if it is known.
    """
    if tokenizer is None or teacher.type_vocab_size < 2 or student.type_vocab_size > 1:
        return tokenizer
    if teacher_tokenizer is None:
        return tokenizer.with_token_types(True) if student.type_vocab_size == 0 else tokenizer
    likewise = tokenizer.with_token_types(teacher_tokenizer.has_token_types)
    return tokenizer if likewise.differences_from(teacher_tokenizer) else likewise


def read_as_teacher(student: Config, teacher: Config) -> Config:
    """Return the student's config, which takes from the teacher's how rows are read where it holds nothing about it.

    A threshold belongs to the probabilities of one model and is not taken. Where both hold something and differ, the
    student's counts, and `Teacher.check_student` warns.
    """
    return student.with_trained(TrainedWith(**(_reading(teacher) | student.trained_with.given())))


def _reading(config: Config) -> dict[str, Any]:
    """Return how rows were read for the model, by argument."""
    return {name: value for name, value in config.trained_with.given().items() if "threshold" not in name}


def _warn_of_other_reading(teacher: Config, student: Config) -> None:
    """Warn where the rows of teacher and student were read otherwise."""
    theirs = _reading(teacher)
    for name, value in _reading(student).items():
        if value != theirs.get(name, value):
            warnings.warn(
                f"the student was trained with {name} {value!r} and the teacher with {theirs[name]!r}; the student's "
                "is used unless an argument names another",
                stacklevel=4,
            )


def _check_reads_itself(teacher: Config, different: list[str]) -> None:
    """Raise ValueError for a teacher whose answers are for tokens that only its own tokenizer makes."""
    if teacher.head == MASKED:
        raise ValueError(
            f"the tokenizers of teacher and student differ in {', and in '.join(different)}; expected the same ids and "
            f"types for every text, for a language model answers with tokens: {_WITH_ITS_VOCABULARY}, and "
            "give both the teacher's tokenizer"
        )


def _check_vocabulary_sizes(teacher: Config, student: Config) -> None:
    """Raise ValueError for rows of token ids that cannot mean the same to both, where a tokenizer is unknown.

    The rows of the embedding matrices tell it, of which some may be padding.
    """
    if not same_but_for_padding(teacher.vocab_size, student.vocab_size):
        raise ValueError(
            f"the teacher's vocabulary has {teacher.vocab_size} entries and the student's {student.vocab_size}; "
            "expected the same vocabulary, or texts and both tokenizers (processing_class and "
            f"teacher_processing_class), with which each reads them itself. Or {_WITH_ITS_VOCABULARY}"
        )


def _check_outputs(teacher: Config, student: Config) -> None:
    """Raise ValueError unless two language models have an output for each of the same words."""
    if teacher.vocab_size != student.vocab_size:
        raise ValueError(
            f"the teacher has {teacher.vocab_size} outputs and the student {student.vocab_size}, one for each row of "
            "their embeddings; expected as many: resize_token_embeddings makes the smaller one larger"
        )


def _check_widths(teacher: Config, student: Config) -> None:
    """Raise ValueError for a student whose embeddings are wider than the teacher's."""
    if teacher.embeds and teacher.num_outputs < student.num_outputs:
        raise ValueError(
            f"the teacher's embeddings have {teacher.num_outputs} numbers and the student's {student.num_outputs}; "
            f"expected a student with hidden_size {teacher.num_outputs} or less, such as L2-H{teacher.num_outputs}-A"
            f"{teacher.num_attention_heads}"
        )


def _check_label_maps(teacher: Config, student: Config) -> None:
    if teacher.embeds:
        return
    theirs, ours = teacher.id2label, student.id2label
    if len(theirs) != len(ours) or (theirs != ours and not is_unnamed(theirs) and not is_unnamed(ours)):
        raise ValueError(f"the teacher's id2label is {theirs} and the student's {ours}; expected the same")
