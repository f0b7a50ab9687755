"""The inputs of a command, as its options name them: arguments, rows, the task, and names for the model card."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from .. import __version__
from ..data.columns import Rows, read_rows
from ..data.dataset import Dataset
from ..data.files import DataFile
from ..data.table import Table
from ..data.token_files import token_files_of
from ..data.words import WordRows, words_of
from ..distill.given import Given
from ..hub import public_name
from ..models.configuration import Config
from ..report.figures import check_pictures
from ..tasks.registry import task_for
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments, TrainingArguments
from ..train.chosen_defaults import check_recipe
from ..train.directory import RunDirectory
from ..train.encoding import encode_for, name_of, trained_on
from ..train.recipe import Provenance
from ..train.without_effect import warn_of_arguments_without_effect
from ..train.world import current_world
from .data_files import FORMAT, data_file
from .options import RECIPE
from .report import names_in
from .task import TaskOptions
from .teachers import names_of_teachers

_Arguments = TypeVar("_Arguments", bound=TrainingArguments)


def read_arguments(cls: type[_Arguments], options: Namespace) -> _Arguments:
    """Return the training arguments given as options; the others keep their defaults."""
    given = {field.name: getattr(options, field.name) for field in fields(cls) if hasattr(options, field.name)}
    if options.json:
        given["disable_tqdm"] = True
    given.setdefault("recipe", RECIPE)
    args = cls(**given)
    check_recipe(args, taught=issubclass(cls, DistillationTrainingArguments))
    warn_of_arguments_without_effect(args, given, stacklevel=2, of_a_command=True)
    if args.plots:
        check_pictures()
    return args


def check_output_dir(args: TrainingArguments, options: Namespace, sources: list[str]) -> None:
    """Raise, before any work, for an output directory that holds a run or model, or an input of this command.

    A checkpoint of a run is deleted with the run that is overwritten, or later, when newer ones are kept.
    """
    if not args.should_save:  # rank 0 of several processes looks, and has perhaps begun to write there
        return
    output = Path(args.output_dir).resolve()
    own = [output, *RunDirectory(output).checkpoints()] if output.is_dir() else []
    for source in sources:
        if Path(source).resolve() in own:
            raise ValueError(
                f"--output-dir is {args.output_dir!r}, and this command reads {source}; choose another directory"
            )
    RunDirectory(args.output_dir).check(resume=options.resume, overwrite=args.overwrite_output_dir)


def dropout_of(options: Namespace) -> dict[str, Any]:
    """Return the given options that replace the config's dropout."""
    given = {name: getattr(options, name) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
    return {name: p for name, p in given.items() if p is not None}


def columns_of(options: Namespace) -> dict[str, Any]:
    """Return the columns that the options name."""
    return {name: getattr(options, name) for name in ("text_column", "text_pair_column", "label_column")}


def task_of(options: Namespace) -> TaskOptions:
    """Return the options that decide what is learned and measured."""
    return TaskOptions(**{name: getattr(options, name, None) for name in TaskOptions._fields})


def dataset_of(
    path: str,
    tokenizer: PreTrainedTokenizerFast,
    config: Config,
    args: TrainingArguments,
    options: Namespace,
    *,
    training: bool = False,
    keep_texts: bool = False,
    given: Given | None = None,
) -> Dataset:
    """Return the encoded rows of a file for a model of this config, see `encode_for`; with the answers for them."""
    if path == getattr(options, "eval", None):
        _check_is_one_set(path)
    file, columns = rows_file(path, options, config.head), columns_of(options)
    rows = file if given is None else given.beside(file, training=training)
    return encode_for(config, rows, tokenizer, args, training=training, keep_texts=keep_texts, **columns)


def _check_is_one_set(path: str) -> None:
    """Raise ValueError for evaluation rows with a name, which only trainers take."""
    name, _, file = path.partition("=")
    if file and not Path(path).exists() and Path(file).exists():
        raise ValueError(
            f"--eval is {path!r}; expected one file, without a name: {file}. In Python, eval_dataset={{{name!r}: "
            f"{file!r}, ...}} of a trainer measures on several sets; `kdistill evaluate` measures a model on one more"
        )


def rows_file(path: str, options: Namespace, head: str | None = None) -> DataFile:
    """Return a file of rows for a model with this head, to be read in the format that the options name."""
    return data_file(path, {name: getattr(options, name) for name in FORMAT}, head)


def label_table(file: DataFile) -> Table:
    """Return the rows of a file; of token files one for each different label, with empty texts.

    That is what shows what is to be learned, and which labels there are.
    """
    files = token_files_of(file)
    return file.table if files is None else files.labels_table


def rows_to_learn(config: Config, options: Namespace) -> Rows | WordRows:
    """Return the rows of `--train` as a model of this config reads them."""
    file, trained, columns = rows_file(options.train, options, config.head), trained_on(config), columns_of(options)
    if not task_for(config).labels_per_token:
        return read_rows(label_table(file), **columns, trained_on=trained)
    del columns["text_pair_column"]
    return words_of(label_table(file), **columns, trained_on=trained)


def _of_one_process(options: Namespace) -> str:
    """Return what lets one process repeat, with the same bits, a run of several; empty for that of one."""
    size, each = current_world().size, getattr(options, "gradient_accumulation_steps", None) or 1
    return "" if size == 1 else f" --gradient-accumulation-steps {size * each}"


def vocabulary_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the fields of the configuration of a new model that has this tokenizer."""
    return {"vocab_size": len(tokenizer), "pad_token_id": getattr(tokenizer, "pad_token_id", None) or 0}


def provenance_of(options: Namespace, *, started_from: str | None) -> Provenance:
    """Return the names of the inputs for the model card, and the command that repeats the run."""
    teachers: list[str] = getattr(options, "teacher", None) or []
    return Provenance(
        started_from=None if started_from is None else public_name(started_from),
        teacher=names_of_teachers(teachers, getattr(options, "teacher_logits", None)),
        train=name_of(options.train),
        eval=name_of(options.eval),
        dataset=getattr(options, "dataset_name", None),
        dataset_tags=names_in(getattr(options, "dataset_tags", None)),
        command=command_of(options),
    )


def command_of(options: Namespace) -> str:
    """Return the command that repeats a run, as its output directory keeps it."""
    return f"# kdistill {__version__}, in {Path.cwd()}\n{options.command_line}{_of_one_process(options)}"
