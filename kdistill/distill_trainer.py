"""`DistillationTrainer`: train a student on the labels and on a teacher's soft targets."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any

from .data.augmentation import TokenKinds, augmented
from .data.dataset import Dataset
from .data.labels import labelled_rows
from .distill.cache import teacher_logits
from .losses.problem_types import SINGLE_LABEL
from .losses.teacher import distillation_loss_parts
from .metrics.classification import accuracy, majority_share
from .metrics.prediction import Labels, Logits
from .models.config import BertConfig
from .models.initialization import WORD_EMBEDDINGS
from .models.model import BertForSequenceClassification
from .report.report import Teacher
from .system.progress import Progress
from .text.tokenizer import BertTokenizer
from .train.arguments import DistillationTrainingArguments
from .train.step import RowIndices
from .trainer import Trainer
from .trainer_base import check_no_path


class DistillationTrainer(Trainer):
    """A `Trainer` whose loss is `distillation_loss`, that of the labels and that of the teacher mixed by `alpha`.

    `teacher_model` is frozen. Its logits for all rows are computed once, before the first step, or found in the
    teacher cache. Rows without a label learn from the teacher alone (alpha 0). `teacher_processing_class`, when given,
    must have the vocabulary of `processing_class`. With `args.augment` the training rows are followed by views of them
    (`augmentation.augmented`), which need a `processing_class`. The other arguments are those of `Trainer`.

    Raises `ValueError` when teacher and student differ in vocabulary, problem type or label map (names such as
    LABEL_0 name nothing and agree with all). Warns, once `train` has measured it, of a teacher that is no better than
    the most frequent label.
    """

    args: DistillationTrainingArguments
    _needs_labels = False

    def __init__(
        self,
        model: BertForSequenceClassification | None = None,
        args: DistillationTrainingArguments | None = None,
        *,
        teacher_model: BertForSequenceClassification,
        teacher_processing_class: BertTokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        args = args if args is not None else DistillationTrainingArguments()
        if not isinstance(args, DistillationTrainingArguments):
            raise TypeError(f"args is a {type(args).__name__}; expected DistillationTrainingArguments")
        check_no_path("teacher_model", teacher_model, "a model: BertForSequenceClassification.from_pretrained(...)")
        self.teacher_model = teacher_model
        super().__init__(model, args, **kwargs)
        if teacher_model is self.model:
            raise ValueError("teacher_model and model are the same object; expected two models")
        _check_vocabularies(teacher_model, self.model, teacher_processing_class, self.processing_class)
        _check_label_maps(teacher_model.config, self.model.config)
        teacher_model.freeze()
        self.teacher_name = "the teacher"
        self.teacher_accuracy: float | None = None
        self._eval_logits: Logits | None = None  # the teacher's, of the evaluation rows

    def _taken(self, model: BertForSequenceClassification) -> BertForSequenceClassification:
        """The student, whose problem type is the teacher's when its own config states none."""
        theirs, ours = self.teacher_model.config.problem_type, model.config.problem_type
        if ours is None and theirs is not None:
            model.config = model.config.replace(problem_type=theirs)
        elif theirs not in (None, ours):
            raise ValueError(f"the teacher's problem_type is {theirs!r} and the student's {ours!r}; expected the same")
        return model

    def _with_views(self, dataset: Dataset) -> Dataset:
        """The training rows with the views of them that `args.augment` asks for."""
        args, tokenizer = self.args, self.processing_class
        if not args.augment:
            return dataset
        if tokenizer is None:
            raise ValueError(
                f"augment is {args.augment} and processing_class is None; expected the tokenizer, which says what a "
                "word is"
            )
        words = self.teacher_model.parameters[WORD_EMBEDDINGS]
        kinds = TokenKinds.of(tokenizer, len(words))
        return augmented(dataset, args.augment, kinds=kinds, embeddings=words, seed=args.get_data_seed())

    def compute_loss(self, logits: Logits, labels: Labels, rows: RowIndices) -> tuple[float, Logits]:
        """The distillation loss of a micro-batch and its gradient by the student's logits."""
        parts = distillation_loss_parts(
            logits,
            self._teacher_logits[rows],
            labels,
            alpha=self.args.alpha,
            temperature=self.args.temperature,
            label_smoothing=self.args.label_smoothing_factor,
            problem_type=self.model.config.problem_type_of(labels),
        )
        self._count_part("hard_loss", parts.hard, int(labelled_rows(labels).sum()))
        self._count_part("soft_loss", parts.soft, len(rows))
        return parts.loss, parts.dlogits

    def _figures(self) -> dict[str, float]:
        measured = {} if self.teacher_accuracy is None else {"teacher_accuracy": self.teacher_accuracy}
        return super()._figures() | measured

    def _fingerprint(self, dataset: Dataset) -> str:
        # Not weights_hash, which includes the CPU's instruction set: a run may go on elsewhere.
        teacher = hashlib.sha256(self.teacher_model.flat_parameters.data)
        return f"{super()._fingerprint(dataset)} {teacher.hexdigest()}"

    def _prepare(self, dataset: Dataset) -> None:
        """Compute the teacher's logits, and see whether the teacher has something to teach."""
        self._teacher_logits = self._logits_of_teacher(dataset, "teacher, training rows")
        measured_on, logits = dataset, self._teacher_logits
        if self.eval_dataset is not None:
            measured_on = self.eval_dataset
            logits = self._eval_logits = self._logits_of_teacher(measured_on, "teacher, evaluation rows")
        self.teacher_model.release()
        labels = measured_on.labels
        single_label = self.model.config.problem_type_of(labels) == SINGLE_LABEL
        if not single_label or not labelled_rows(labels).any():
            return
        teacher, majority = accuracy(logits, labels), majority_share(labels)
        if self.eval_dataset is not None:
            self.teacher_accuracy = teacher
        if teacher <= majority:
            warnings.warn(
                f"the teacher's accuracy is {teacher:.4f}, no better than always answering the most frequent label "
                f"({majority:.4f}): the student has nothing to learn from it",
                stacklevel=3,
            )

    def _logits_of_teacher(self, dataset: Dataset, description: str) -> Logits:
        with Progress(description, unit="rows", quiet=self.args.disable_tqdm) as progress:
            return teacher_logits(self.teacher_model, dataset, progress=progress, enabled=self.args.teacher_cache)

    def _teacher(self) -> Teacher:
        def logits(rows: Dataset) -> Logits:
            if rows is self.eval_dataset and self._eval_logits is not None:
                return self._eval_logits
            return self._logits_of_teacher(rows, "teacher, rows of the report")

        return Teacher(self.teacher_name, self.teacher_model, logits)


def _check_vocabularies(
    teacher: BertForSequenceClassification,
    student: BertForSequenceClassification,
    teacher_tokenizer: BertTokenizer | None,
    student_tokenizer: BertTokenizer | None,
) -> None:
    """The two models read the same token ids, so these must mean the same."""
    teacher_size, student_size = teacher.config.vocab_size, student.config.vocab_size
    if teacher_size != student_size:
        raise ValueError(
            f"the teacher's vocabulary has {teacher_size} entries and the student's {student_size}; expected the same "
            "vocabulary (BertForSequenceClassification.from_teacher makes a student that has it)"
        )
    if teacher_tokenizer is None or student_tokenizer is None:
        return
    theirs, ours = teacher_tokenizer.vocab, student_tokenizer.vocab
    different = [token for token, index in theirs.items() if ours.get(token) != index]
    if different or len(theirs) != len(ours):
        example = f", for example in {different[0]!r}" if different else ""
        raise ValueError(
            f"the tokenizers of teacher and student differ in {len(different) or len(ours) - len(theirs)} "
            f"entries{example}; expected the same vocabulary"
        )


def _check_label_maps(teacher: BertConfig, student: BertConfig) -> None:
    theirs, ours = teacher.id2label, student.id2label
    if len(theirs) != len(ours) or (theirs != ours and not is_unnamed(theirs) and not is_unnamed(ours)):
        raise ValueError(f"the teacher's id2label is {theirs} and the student's {ours}; expected the same")


def is_unnamed(id2label: Mapping[int, str]) -> bool:
    """Whether the labels have no names but the defaults LABEL_0, LABEL_1, ..."""
    return all(name == f"LABEL_{index}" for index, name in id2label.items())
