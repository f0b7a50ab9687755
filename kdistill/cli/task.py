"""Settle the task of a command: `--task`, `--problem-type`, `--num-labels`, `--label-names`, `--metrics`, and rows."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..data.columns import TEXT_COLUMNS, Rows, label_column_of
from ..data.dataset import Dataset
from ..data.label_names import default_label_map, is_unnamed
from ..data.label_values import split_at_commas
from ..data.questions import has_questions
from ..data.table import Table
from ..data.text_files import decoded, lines_of
from ..data.words import WordRows, has_words
from ..hub import resolve
from ..models.auto import head_of
from ..models.configuration import CONFIG_FILE, Config, read_config
from ..models.head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN, named_head
from ..models.pooling import MEAN
from ..models.quantization import Quantization
from ..models.sentence_files import OPTIONAL_FILES, has_sentence_files
from ..tasks.registry import (
    TASK_OPTIONS,
    ChosenMetrics,
    choose_metrics,
    has_one_class,
    refuse_one_class,
    task_for,
    task_option,
)
from ..train.arguments import TrainingArguments


class TaskOptions(NamedTuple):
    """The options about the task; None for those that were not given."""

    task: str | None = None
    problem_type: str | None = None
    num_labels: int | None = None
    label_names: str | None = None
    metrics: str | None = None


def head_settings(path: str, options: TaskOptions) -> dict[str, Any]:
    """Return the arguments of `load_trained` for a model that `--task` has embed texts, or that names no task itself.

    One without the files of sentence-transformers embeds texts by the mean of their tokens, as there, with a warning.
    """
    if options.task is None:
        return {}
    head = TASK_OPTIONS[options.task]
    if head != ENCODER:  # so that what a model without a head lacks is said of the head that is asked for
        return {"head": head} if head_of(path, language_models=True) is None else {}
    if states_pooling(path):
        return {"head": ENCODER}
    warnings.warn(
        f"{path} has no files of sentence-transformers that state a pooling: its texts are embedded by the mean of "
        "their tokens",
        stacklevel=3,
    )
    return {"head": ENCODER, "pooling": MEAN}


def check_trainable(option: str, path: str) -> None:
    """Raise ValueError, before any work, for a model to train that is an int8 artefact."""
    if Quantization.of(read_config(path)) is not None:
        raise ValueError(
            f"{option} is {path}, an int8 artefact, which only evaluates; expected the model that it was made of: "
            "train that, and quantize it again"
        )


def states_pooling(path: str) -> bool:
    """Return whether a model has the files of sentence-transformers, which state how it embeds texts."""
    return has_sentence_files(resolve(path, [[CONFIG_FILE]], OPTIONAL_FILES))


def with_problem_type(config: Config, options: TaskOptions, whose: str) -> Config:
    """Return the config of a finished model, with `--problem-type` where it states none itself.

    Args:
        config: the model's.
        options: the options.
        whose: the model, in messages.

    Raises:
        ValueError: the config and the options differ, or the model's head has one task.
    """
    if options.task is not None and TASK_OPTIONS[options.task] != config.head:
        raise ValueError(f"--task is {options.task}; {whose} is one for {task_option(config.head)}: leave --task out")
    if config.embeds:
        _refuse_labels(options, "embeddings have no labels")
        return config
    if config.head in (SPAN, MASKED):
        _no_labels(config, options)
    if options.num_labels not in (None, config.num_labels):
        raise ValueError(f"--num-labels is {options.num_labels}; {whose} has {config.num_labels}")
    if options.problem_type is None:
        return config
    _refuse_problem_type(config.head, options)
    if config.problem_type not in (None, options.problem_type):
        raise ValueError(f"--problem-type is {options.problem_type}; that of {whose} is {config.problem_type}")
    return config.replace(problem_type=options.problem_type)


def check_labels_are_meant(config: Config, options: TaskOptions, model: str, table: Callable[[], Table]) -> None:
    """Raise ValueError for a language model, chosen by its config alone, and rows with labels, which it cannot give.

    Args:
        config: the model's.
        options: the options.
        model: its directory or id.
        table: reads the rows.
    """
    if config.head != MASKED or options.task is not None:
        return
    rows = table()
    column = label_column_of(rows, None)
    if column is not None:
        raise ValueError(
            f"{model} lacks a head for labels, and {rows.source} has some (column {column!r}): a language model has no "
            "trained head for the task; fine-tune it first, as `kdistill finetune` does, and give the model that comes "
            f"of it, or give --task {task_option(MASKED)} to hide words of the texts"
        )


def _refuse_labels(options: TaskOptions, why: str) -> None:
    """Raise ValueError for an option about labels."""
    for name in ("problem_type", "num_labels", "label_names"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}, and {why}; leave it out")


def head_to_learn(content: Mapping[str, Any], options: TaskOptions, table: Callable[[], Table]) -> str:
    """Return the head of a model that is to be fine-tuned: that of `--task`, else of the model's class, else the rows'.

    A language model begins any task, so it goes on as one where the rows are nothing but texts.

    Args:
        content: the model's config.json, parsed, which may name a head.
        options: the options.
        table: reads the training rows.
    """
    named = named_head(content)
    if options.task is not None:
        return TASK_OPTIONS[options.task]
    if named is not None:
        return named
    rows = table()
    if has_words(rows) or has_questions(rows):
        return TOKEN if has_words(rows) else SPAN
    texts_alone = len(rows.columns) == 1 and rows.columns.keys() <= {*TEXT_COLUMNS}
    return MASKED if texts_alone and named_head(content, language_models=True) == MASKED else SEQUENCE


def names_by_id(label_names: str) -> dict[int, str]:
    """Return the label map that `--label-names` gives, see `read_label_names`: the names of labels 0, 1, ..."""
    return dict(enumerate(read_label_names(label_names)))


def labels_to_learn(
    config: Config, options: TaskOptions, read: Callable[[], Rows | WordRows], *, replace: bool
) -> Mapping[int, str] | None:
    """Return the label map of a model that is to be fine-tuned; None to keep its own.

    It is `--label-names`; or LABEL_0, ... for numbers; or that of the training rows, when the model's labels have no
    names, or `replace` or `--num-labels` let them go.

    Args:
        config: the model's.
        options: the options.
        read: reads the training rows.
        replace: whether the model's own names may go.

    Raises:
        ValueError: the options do not fit the rows or each other.
    """
    wanted = options.num_labels
    if wanted is not None and wanted < 1:
        raise ValueError(f"--num-labels is {wanted}; expected at least 1")
    _refuse_problem_type(config.head, options)
    if config.head in (SPAN, MASKED):
        return _no_labels(config, options)
    if options.label_names is not None:
        names = names_by_id(options.label_names)
        if wanted not in (None, len(names)):
            raise ValueError(f"--num-labels is {wanted}, and --label-names has {len(names)} names; expected as many")
        return names
    changes = {"problem_type": options.problem_type, "num_labels": wanted}
    asked = config.replace(**{name: value for name, value in changes.items() if value is not None})
    tags = config.head == TOKEN
    if has_one_class(asked) and not (tags and wanted is None):  # rows have the tags, and there may be more
        refuse_one_class(asked)
    if not task_for(asked).names_labels or (asked.num_labels == 1 and not tags):
        outputs = wanted or (1 if task_for(config).names_labels else config.num_labels)
        return None if outputs == config.num_labels else default_label_map(outputs)
    if not (is_unnamed(config.id2label) or replace or wanted not in (None, config.num_labels)):
        return None
    rows = read()
    if isinstance(rows, WordRows):
        implied = rows.id2label()
    else:
        if not task_for(asked).one_label and rows.labels is not None:
            rows = dataclasses.replace(rows, labels=[split_at_commas(label) for label in rows.labels])
        implied = rows.id2label(wanted or config.num_labels)
    if wanted is None:
        return implied if len(implied) > config.num_labels or not is_unnamed(implied) else None
    if is_unnamed(implied) and len(implied) <= wanted:
        return default_label_map(wanted)
    if len(implied) != wanted:
        raise ValueError(
            f"--num-labels is {wanted}, and {rows.table.source} has {len(implied)} labels: "
            f"{', '.join(implied.values())}; expected their number, or --label-names with the names of all"
        )
    return implied


def _refuse_problem_type(head: str, options: TaskOptions) -> None:
    """Raise ValueError for `--problem-type` where the head of a model decides what a label is."""
    if options.problem_type is not None and head != SEQUENCE:
        raise ValueError(
            f"--problem-type is {options.problem_type}, and a model for {task_option(head)} has none: only "
            f"{task_option(SEQUENCE)} has several; leave it out"
        )


def _no_labels(config: Config, options: TaskOptions) -> Mapping[int, str] | None:
    """Return the label map of a model without labels: two outputs without names of one that answers questions."""
    masked = config.head == MASKED
    given: dict[str, Any] = {"--label-names": options.label_names}
    given |= {"--num-labels": options.num_labels} if masked else {}
    for option, value in given.items():
        if value is not None:
            what = "hidden words" if masked else "answers to questions"
            raise ValueError(f"{option} is {value}, and {what} have no labels; leave it out")
    if masked:
        return None
    if options.num_labels not in (None, 2):
        raise ValueError(f"--num-labels is {options.num_labels}; a model that answers questions has 2 outputs")
    return None if config.num_labels == 2 else default_label_map(2)


def read_label_names(given: str) -> Sequence[str]:
    """Return the names that `--label-names` lists, or that stand in the file which it names.

    The file has a name a line; or ends in .json and holds the list of them.

    Raises:
        FileNotFoundError: it looks like a file, and there is none.
        ValueError: the file is empty or no such list, or a name occurs twice.
    """
    path = Path(given)
    if "," in given or not (path.is_file() or path.suffix in (".txt", ".json")):
        names: Any = [name.strip() for name in given.split(",")]
    elif not path.is_file():
        raise FileNotFoundError(
            f"--label-names is {given!r}, and there is no such file; expected names with commas between them, or a "
            "file with a name a line"
        )
    else:
        text = decoded(path, path.read_bytes())
        try:
            names = json.loads(text) if path.suffix == ".json" else list(filter(None, map(str.strip, lines_of(text))))
        except json.JSONDecodeError as error:
            raise ValueError(f"--label-names is {given!r}, which is not valid JSON: {error}") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"--label-names is {given!r}, which holds no list of names; expected a name a line")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise ValueError(f"--label-names has {twice!r} twice; expected different names")
    return names


def compute_metrics_of(
    config: Config, dataset: Dataset, options: TaskOptions, args: TrainingArguments | None = None
) -> ChosenMetrics | None:
    """Return the function that measures `--metrics`, and in training `metric_for_best_model` unless it is a default.

    Raises:
        ValueError: before any work, a metric does not exist or the task does not have it.
    """
    task = task_for(config, dataset.labels)
    names = [name.strip() for name in options.metrics.split(",")] if options.metrics is not None else []
    if args is not None and args.eval_strategy != "no":
        args.settle_best_metric(task.best_metric)
        best = args.metric_for_best_model.removeprefix("eval_")
        if best not in (*task.default_metrics, "loss", "n"):
            if best not in task.metrics:
                known = ", ".join(("loss", *task.metrics))
                raise ValueError(f"metric_for_best_model is {best!r}; expected for {task.name} one of {known}")
            names.append(best)
    if not names:
        return None
    return choose_metrics(*dict.fromkeys(names), problem_type=task.name)
