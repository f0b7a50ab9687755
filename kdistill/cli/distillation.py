"""The parts of a distillation, which `distill`, `search` and `doctor` make of the same options."""

from __future__ import annotations

import copy
import warnings
from argparse import Namespace
from functools import cached_property, partial
from typing import Any

from ..data.dataset import Dataset
from ..data.label_names import is_unnamed
from ..distill.given import Given
from ..distill.making import teachers_of
from ..distill.objective import Distillation
from ..distill.sources import Teachers
from ..distill.teachers import read_as_teacher
from ..models.auto import AutoConfig, load_model, load_trained, model_class
from ..models.config import named_shape, shape_of_student, student_config
from ..models.configuration import Config, read_config
from ..models.head_names import MASKED, named_head
from ..models.loading import RandomWeights
from ..models.model import Model
from ..models.vocabularies import common_tokens
from ..system.progress import Progress
from ..tasks.registry import task_option
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.chosen_defaults import dropout_of_recipe
from ..train.presets import STUDENT_PRESETS
from ..train.stages import predictions_count
from ..trainers import DistillationTrainer
from .given import GivenParts
from .inputs import dataset_of, dropout_of, label_table, provenance_of, rows_file, task_of, vocabulary_of
from .run_files import RunFiles
from .task import (
    check_labels_are_meant,
    check_trainable,
    compute_metrics_of,
    head_settings,
    names_by_id,
    states_pooling,
    with_problem_type,
)
from .teachers import check_each_once, given_of, names_of_teachers, type_to_load


def parts_of(options: Namespace, args: DistillationTrainingArguments) -> DistillationParts | GivenParts:
    """Return the parts of a distillation: from a model, or from answers that came with the rows.

    Raises:
        ValueError: neither an option nor the recipe names a student, a teacher is named twice, or there are options
            that do not go together.
    """
    recipe = args.recipe
    if options.student is None and recipe not in STUDENT_PRESETS:
        raise ValueError(
            "--student is not given; expected --student MODEL, a directory, a hub id or a shape such as L2-H128-A2, or "
            f"a recipe that names one: --recipe {' or '.join(STUDENT_PRESETS)}"
        )
    if options.student is None and not options.teacher:
        raise ValueError(
            f"--recipe is {recipe}, whose student {STUDENT_PRESETS[recipe].student} is made of the --teacher, and none "
            "is given; expected --teacher MODEL, or the --student to train"
        )
    check_each_once(options.teacher or ())
    return DistillationParts(options, args) if options.teacher else GivenParts(options, args)


class DistillationParts:
    """The parts of a distillation, each made when it is first asked for, so that a doctor can look at every one."""

    def __init__(self, options: Namespace, args: DistillationTrainingArguments) -> None:
        self.args = args
        self.files = RunFiles(options, args)
        self._options = options

    @cached_property
    def teachers(self) -> list[Model]:
        """The teachers, frozen, with the names of their labels that `--label-names` gives."""
        return [self._load_teacher(path) for path in self._options.teacher]

    def _load_teacher(self, path: str) -> Model:
        options = self._options
        if task_of(options).task == task_option(MASKED) and not predictions_count(self.args.matches):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RandomWeights)  # nobody reads the head of an encoder
                teacher = load_model(path, head=MASKED, keep_weights=False)
        else:
            names = None if options.label_names is None else names_by_id(options.label_names)
            dtype = type_to_load(path, self.args.teacher_dtype)
            settings = {"id2label": names, "dtype": dtype, "keep_weights": False}
            teacher = load_trained(path, **settings, **head_settings(path, task_of(options)))
        teacher.config = with_problem_type(teacher.config, task_of(options), "the teacher")
        return teacher

    @property
    def teacher(self) -> Model:
        """The first teacher, of which a student of a shape is made."""
        return self.teachers[0]

    @cached_property
    def teacher_tokenizers(self) -> list[PreTrainedTokenizerFast]:
        """The teachers' tokenizers."""
        return [AutoTokenizer.from_pretrained(path) for path in self._options.teacher]

    @cached_property
    def taught_by(self) -> Teachers:
        """The teachers with their tokenizers and weights."""
        names = names_of_teachers(self._options.teacher, self._options.teacher_logits)
        return teachers_of(*self._sources, self._options.teacher_weights, names or ())

    @cached_property
    def _given(self) -> Given | None:
        """Answers of another teacher, in a file."""
        path = self._options.teacher_logits
        return None if path is None else given_of(path, self._options.train)

    @property
    def _sources(self) -> tuple[list[Any], list[Any]]:
        """All teachers, and their tokenizers."""
        given = [] if self._given is None else [self._given]
        return [*self.teachers, *given], [*self.teacher_tokenizers, *(None for _ in given)]

    @cached_property
    def _shape(self) -> dict[str, Any] | None:
        """The fields of the student's shape, which an option names or the recipe; None of a checkpoint."""
        if self._options.student is None:
            return named_shape(STUDENT_PRESETS[self.args.recipe].student, self.teacher.config)
        return shape_of_student(self._options.student, self.teacher.config)

    @cached_property
    def _loaded_student(self) -> tuple[Model, PreTrainedTokenizerFast] | None:
        """The student and its tokenizer when it is a checkpoint; None when it is a shape."""
        if self._shape is not None:
            return None
        if self._options.tokenizer is not None:
            raise ValueError(
                f"--tokenizer is {self._options.tokenizer}, and the student {self._options.student} has its own; leave "
                "it out"
            )
        student, tokenizer = _load_student(self._options, self.teacher, self.teacher_tokenizers[0], self.args.seed)
        for teacher in self.teachers:
            student.config = read_as_teacher(student.config, teacher.config)
        return student, tokenizer

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The student's tokenizer: its own, and of a shape that of `--tokenizer`, or the teacher's."""
        if self._loaded_student is not None:
            return self._loaded_student[1]
        given = self._options.tokenizer
        return self.teacher_tokenizers[0] if given is None else AutoTokenizer.from_pretrained(given)

    @cached_property
    def _vocabularies(self) -> dict[str, Any]:
        """Those of a student of a shape and of its teacher, where `--tokenizer` gives the student another one."""
        if self._options.tokenizer is None:
            return {}
        return {
            "vocabulary": self.tokenizer.get_vocab(),
            "teacher_vocabulary": self.teacher_tokenizers[0].get_vocab(),
        }

    @cached_property
    def config(self) -> Config:
        """The student's configuration."""
        if self._loaded_student is not None:
            return self._loaded_student[0].config
        assert self._shape is not None
        teacher, why = self.teacher.config, None
        own = vocabulary_of(self.tokenizer) if self._vocabularies else None
        config = student_config(teacher, self._shape, own, **dropout_of(self._options))
        if self._vocabularies:
            why = (
                f"it has another vocabulary than its teacher; {len(common_tokens(**self._vocabularies).ours):,} of "
                f"{config.vocab_size:,} tokens take the embeddings of the same tokens there"
            )
        elif config.model_type != teacher.model_type:
            why = (
                f"the teacher's embeddings, those of {teacher.kind}, have a width of their own, and the student's are "
                "made of them"
            )
        if why is not None:
            told = f"the student of this shape is a {config.kind}: {why}"
            Progress("student", unit="models", quiet=self.args.disable_tqdm).write(told)
        return config

    @cached_property
    def train(self) -> Dataset:
        """The encoded rows to train on."""
        options, config = self._options, self.teacher.config
        check_labels_are_meant(
            config,
            task_of(options),
            options.teacher[0],
            lambda: label_table(rows_file(options.train, options, config.head)),
        )
        return self._encoded(options.train, training=True)

    @cached_property
    def eval(self) -> Dataset | None:
        """The encoded rows to measure on."""
        path = self._options.eval
        return None if path is None else self._encoded(path)

    def _encoded(self, path: str, *, training: bool = False) -> Dataset:
        """Return the rows of a file as the student reads them, with their texts where a teacher reads them itself."""
        reader = self.taught_by.reader(self.tokenizer, self.config)
        assert reader is not None
        keep_texts = self.taught_by.needs_texts(self.config, reader)
        settings: dict[str, Any] = {"training": training, "keep_texts": keep_texts, "given": self._given}
        return dataset_of(path, reader, self.config, self.args, self._options, **settings)

    def _dropout_of_recipe(self) -> dict[str, float]:
        """Return the dropout that the recipe chooses for a new student, as far as no option gives it."""
        no_copies = Distillation(self.taught_by).why_no_copies(self.train, self.tokenizer)
        chosen = dropout_of_recipe(self.args, self.train, no_copies)
        return {name: rate for name, rate in chosen.items() if name not in dropout_of(self._options)}

    def trainer(self, *, for_search: bool = False) -> DistillationTrainer:
        """Return the trainer; for a search, one that copies the student for each trial."""
        options, args, teacher = self._options, self.args, self.teacher
        _ = self.teacher_tokenizers, self.config, self.train
        if self._loaded_student is not None:
            student = self._loaded_student[0]
        else:
            token_counts = self.train.token_counts(self.config.vocab_size)
            student_class = model_class(self.config.to_dict(), teacher.head)
            config = self.config.replace(**self._dropout_of_recipe())
            student = student_class.from_teacher(
                teacher, config, token_counts=token_counts, seed=args.seed, **self._vocabularies
            )
        return DistillationTrainer(
            None if for_search else student,
            args,
            model_init=partial(copy.deepcopy, student) if for_search else None,
            teacher_model=self._sources[0],
            teacher_processing_class=self._sources[1],
            teacher_weights=options.teacher_weights,
            train_dataset=self.train,
            compute_metrics=compute_metrics_of(teacher.config, self.train, task_of(options), args),
            eval_dataset=self.eval,
            processing_class=self.tokenizer,
            provenance=provenance_of(options, started_from=None if self._loaded_student is None else options.student),
        )


def _load_student(
    options: Namespace, teacher: Model, teacher_tokenizer: PreTrainedTokenizerFast, seed: int
) -> tuple[Model, PreTrainedTokenizerFast]:
    """Load a student from a checkpoint, with the teacher's labels where its labels are unnamed or may be replaced."""
    check_trainable("--student", options.student)
    stored, head = AutoConfig.from_pretrained(options.student), named_head(read_config(options.student))
    if head not in (None, teacher.head) and not options.ignore_mismatched_sizes:
        raise ValueError(
            f"the student is a model for {task_option(head)} and the teacher one for {task_option(teacher.head)}; "
            "expected the same task (--ignore-mismatched-sizes gives the student a new last layer)"
        )
    pooling = teacher.config.pooling if teacher.config.embeds else None
    settings: dict[str, Any] = {}
    if pooling is not None and not states_pooling(options.student):  # it embeds texts as its teacher does
        settings = {"pooling": pooling.mode, "normalize": pooling.normalize}
    replaced = options.ignore_mismatched_sizes or is_unnamed(stored.id2label)
    student = load_model(
        options.student,
        head=teacher.head,
        id2label=teacher.config.id2label if replaced else None,
        ignore_mismatched_sizes=options.ignore_mismatched_sizes,
        seed=seed,
        **settings,
        **dropout_of(options),
    )
    try:
        return student, AutoTokenizer.from_pretrained(options.student)
    except FileNotFoundError:
        return student, teacher_tokenizer  # the only one that there is
