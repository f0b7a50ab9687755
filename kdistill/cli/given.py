"""The parts of a distillation whose teacher's answers came with the rows, so that no model has to be asked."""

from __future__ import annotations

import copy
from argparse import Namespace
from functools import cached_property, partial

from ..data.dataset import Dataset
from ..data.label_names import default_label_map, is_unnamed
from ..data.table import Table
from ..data.teacher_columns import TeacherColumn, teacher_column_of
from ..distill.given import Given
from ..distill.sources import Teachers
from ..models.auto import AutoConfig, config_to_learn, head_of, load_model, model_class
from ..models.config import BertConfig, shape_of
from ..models.configuration import Config, read_config
from ..models.head_names import ENCODER, MASKED, SPAN
from ..models.model import Model
from ..models.pooling import MEAN, Pooling
from ..tasks.registry import task_for
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.encoding import refuse_other_answers
from ..trainers import DistillationTrainer
from .inputs import (
    dataset_of,
    dropout_of,
    label_table,
    provenance_of,
    rows_file,
    rows_to_learn,
    task_of,
    vocabulary_of,
)
from .run_files import RunFiles
from .task import (
    check_trainable,
    compute_metrics_of,
    head_settings,
    head_to_learn,
    labels_to_learn,
    names_by_id,
)
from .teachers import given_of


class GivenParts:
    """The parts of such a distillation, each made when it is first asked for, so that a doctor can look at each."""

    def __init__(self, options: Namespace, args: DistillationTrainingArguments) -> None:
        self.args = args
        self.files = RunFiles(options, args)
        self._options = options

    @property
    def teachers(self) -> list[Model]:
        """No teacher is a model."""
        return []

    @property
    def teacher_tokenizers(self) -> list[PreTrainedTokenizerFast]:
        """No teacher has a tokenizer."""
        return []

    @cached_property
    def taught_by(self) -> Teachers:
        """The answers that came with the rows."""
        return Teachers([self._given], self._options.teacher_weights)

    @cached_property
    def _given(self) -> Given:
        return given_of(self._options.teacher_logits, self._options.train)

    @cached_property
    def _column(self) -> TeacherColumn:
        """The answers for the training rows."""
        if self._given.source is not None:
            return self._given.source.column
        table = rows_file(self._options.train, self._options, self._head).table
        column = teacher_column_of(table)
        if column is None:
            raise ValueError(
                f"--teacher is not given, and {table.source} has no answers of a teacher (a column teacher_logits or "
                "teacher_probs); expected --teacher MODEL, such a column, or --teacher-logits FILE"
            )
        return column

    @cached_property
    def _stored(self) -> Config | None:
        """The configuration of a student that is a checkpoint; None of a shape."""
        return (
            None if shape_of(self._options.student) is not None else AutoConfig.from_pretrained(self._options.student)
        )

    @cached_property
    def _head(self) -> str:
        """The head of the student: that of its task.

        A directory of sentence-transformers embeds texts, unless the answers name labels, for which it is a beginning.
        """
        options, own = self._options, self._head_of_student
        table = partial(label_table, rows_file(options.train, options))
        if own == ENCODER and task_of(options).task is None and not self._names_labels(table()):
            return own
        # A language model is one for no task here: answers for hidden words are none that data hold.
        named = {} if own in (None, ENCODER) else read_config(options.student)
        head = head_to_learn(named, task_of(options), table)
        if head in (SPAN, MASKED):
            refuse_other_answers(BertConfig().with_head(head))
        return head

    @property
    def _head_of_student(self) -> str | None:
        """The head that the files of the student give it; None of a shape, or a checkpoint that begins any task."""
        return None if self._stored is None else head_of(self._options.student)

    def _names_labels(self, table: Table) -> bool:
        """Return whether the answers are for labels with names, as those of no embedding are."""
        column = teacher_column_of(table) if self._given.source is None else self._given.source.column
        return column is not None and bool(column.label_names())

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The student's tokenizer; of a shape that of `--tokenizer`."""
        options = self._options
        if self._stored is not None:
            if options.tokenizer is not None:
                raise ValueError(
                    f"--tokenizer is {options.tokenizer}, and the student {options.student} has its own; leave it out"
                )
            return AutoTokenizer.from_pretrained(options.student)
        if options.tokenizer is None:
            raise ValueError(
                f"--student is the shape {options.student}, and no --teacher is given to take a vocabulary from; "
                "expected --tokenizer MODEL, a directory or hub id whose tokenizer the student gets"
            )
        return AutoTokenizer.from_pretrained(options.tokenizer)

    @cached_property
    def _student(self) -> Model:
        _ = self._column  # what is wrong with the answers is to be said first
        return self._new_student() if self._stored is None else self._loaded_student(self._stored)

    def _new_student(self) -> Model:
        """Return a student of a shape, with new weights."""
        options, tokenizer = self._options, self.tokenizer
        shape = shape_of(options.student)
        assert shape is not None
        config: Config = BertConfig(**vocabulary_of(tokenizer), **shape, **dropout_of(options)).with_head(self._head)
        if self._head == ENCODER:
            config = config.with_pooling(Pooling(MEAN))
        else:
            labels = self._labels(config)
            config = config if labels is None else config.replace(id2label=labels)
            problem = options.problem_type
            config = config if problem is None else config.replace(problem_type=problem)
        made: Model = model_class(config.to_dict(), self._head)(config, seed=self.args.seed)
        return made

    def _loaded_student(self, stored: Config) -> Model:
        options = self._options
        check_trainable("--student", options.student)
        if self._head == ENCODER:
            settings = head_settings(options.student, task_of(options))
            return load_model(options.student, seed=self.args.seed, **settings, **dropout_of(options))
        return load_model(
            options.student,
            head=self._head,
            id2label=self._labels(config_to_learn(options.student, stored, self._head)),
            problem_type=options.problem_type,
            ignore_mismatched_sizes=options.ignore_mismatched_sizes,
            seed=self.args.seed,
            **dropout_of(options),
        )

    def _labels(self, config: Config) -> dict[int, str] | None:
        """Return the label map of the student, None to keep its own.

        It is `--label-names`; else the student's own, if its labels have names; else the names that the answers state,
        those of the rows, or as many as the answers have numbers.
        """
        options = self._options
        if options.label_names is not None:
            return names_by_id(options.label_names)
        if not is_unnamed(config.id2label) and not options.ignore_mismatched_sizes:
            return None
        names, width = self._column.label_names(), self._column.width()
        if names and not is_unnamed(dict(enumerate(names))):
            return dict(enumerate(names))
        asked = config if options.problem_type is None else config.replace(problem_type=options.problem_type)
        rows = rows_to_learn(config, options)
        labelled = (rows.tags if hasattr(rows, "tags") else rows.labels) is not None
        if width > 1 and labelled and task_for(asked.replace(id2label=default_label_map(width))).names_labels:
            found = labels_to_learn(config, task_of(options), lambda: rows, replace=True)
            if found is not None and len(found) == width:
                return dict(found)
        return None if width == config.num_labels else default_label_map(width)

    @property
    def config(self) -> Config:
        """The student's configuration."""
        return self._student.config

    @cached_property
    def train(self) -> Dataset:
        """The encoded rows to train on."""
        return self._encoded(self._options.train, training=True)

    @cached_property
    def eval(self) -> Dataset | None:
        """The encoded rows to measure on."""
        path = self._options.eval
        return None if path is None else self._encoded(path)

    def _encoded(self, path: str, *, training: bool = False) -> Dataset:
        """Return the rows of a file with the answers for them."""
        return dataset_of(
            path, self.tokenizer, self.config, self.args, self._options, training=training, given=self._given
        )

    def trainer(self, *, for_search: bool = False) -> DistillationTrainer:
        """Return the trainer; for a search, one that copies the student for each trial."""
        options, student = self._options, self._student
        return DistillationTrainer(
            None if for_search else student,
            self.args,
            model_init=partial(copy.deepcopy, student) if for_search else None,
            teacher_model=self._given,
            teacher_weights=options.teacher_weights,
            train_dataset=self.train,
            compute_metrics=compute_metrics_of(student.config, self.train, task_of(options), self.args),
            eval_dataset=self.eval,
            processing_class=self.tokenizer,
            provenance=provenance_of(options, started_from=None if self._stored is None else options.student),
        )
