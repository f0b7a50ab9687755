"""The options of each command that are not training arguments."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

from ..compress.choice import SCOPES
from ..compress.prune import ROWS
from ..data.token_encoders import SHARD_ROWS
from ..exporters.export import ROWS as ROWS_OF_RANGES
from ..exporters.registry import DTYPES, FORMATS
from ..losses.problem_types import PROBLEM_TYPES
from ..serve.limits import HOST, PORT, Limits
from ..tasks.registry import TASK_OPTIONS
from .row_options import (
    CONFIG_HELP,
    MODEL_HELP,
    OTHER_ROWS_HELP,
    ROWS_HELP,
    add_columns,
    add_dataset,
    add_dtype,
    add_format,
    add_models_and_rows,
    add_switch,
    add_task,
    add_teacher_weights,
)

if TYPE_CHECKING:
    from argparse import _ArgumentGroup

RAY_ADDRESS_HELP = "cluster of Ray, such as 10.0.0.1:6379 (default: that of RAY_ADDRESS, else one on this machine)"
SHELLS = ("bash", "zsh", "fish")


class SearchOption(NamedTuple):
    """An option's type, metavar and help, as argparse wants them."""

    type: type
    metavar: str
    help: str


# Arguments of `Trainer.hyperparameter_search`, under its names.
SEARCH_OPTIONS = {
    "n_trials": SearchOption(int, "N", "total number of trials, over all processes and repeated runs (default: 20)"),
    "hp_space": SearchOption(
        str,
        "FILE",
        'a .toml or .json file with the search space, such as learning_rate = {type = "float", low = 1e-5, high = '
        "1e-3, log = true} (default: epochs 2-10, learning rate 1e-5..1e-3, alpha 0..1, temperature 2..30; where "
        "--recipe chooses epochs and learning rate, as for a student made from a shape, around what it chooses)",
    ),
    "direction": SearchOption(
        str,
        "minimize|maximize",
        "whether to minimize or maximize --metric-for-best-model (default: follows the metric)",
    ),
    "storage": SearchOption(
        str, "FILE", "journal file or Optuna storage URL of the study (default: study.journal in the output directory)"
    ),
    "study_name": SearchOption(str, "NAME", "name of the study in the storage (default: search)"),
    "n_jobs": SearchOption(int, "N", "trials run in parallel; they share the cores (default: 1; -1: one per core)"),
    "pruner": SearchOption(str, "median|hyperband|none", "how to stop unpromising trials early (default: median)"),
    "sampler": SearchOption(str, "tpe|random", "how to choose hyperparameters; seeded by --seed (default: tpe)"),
    "backend": SearchOption(
        str,
        "optuna|ray",
        "who trains the trials that Optuna chooses: threads of this process, or processes of Ray (default: optuna)",
    ),
    "ray_address": SearchOption(
        str,
        "ADDRESS",
        RAY_ADDRESS_HELP,
    ),
    "timeout": SearchOption(float, "SECONDS", "start no new trial after this time (default: no limit)"),
}


def _add_labelling(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    """Add the options of `label`."""
    parser.set_defaults(probs=False, ray=False)
    group.add_argument(
        "--teacher",
        required=True,
        nargs="+",
        action="extend",
        metavar="MODEL",
        help=f"{MODEL_HELP} that answers; of several the mean of their probabilities is written",
    )
    add_teacher_weights(group)
    group.add_argument("--data", required=True, metavar="FILE", help=f"rows to answer: {ROWS_HELP}; {OTHER_ROWS_HELP}")
    group.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="file to write: .parquet, .jsonl, or .npy, which has the logits alone, in the order of the rows",
    )
    group.add_argument(
        "--temperature",
        type=float,
        default=SUPPRESS,
        metavar="T",
        help="average the probabilities of several teachers at this temperature, that of the run that will learn them "
        "(default: 1)",
    )
    add_switch(
        group,
        "--ray",
        "let processes of Ray answer: the files that --data names, perhaps with a pattern such as 'rows-*.parquet', "
        "become shards in the directory --output, in Parquet; those that are there and whole are kept",
    )
    group.add_argument("--ray-address", metavar="ADDRESS", help=RAY_ADDRESS_HELP)
    group.add_argument(
        "--n-jobs",
        type=int,
        metavar="N",
        help="with --ray, processes that share the cores, each with a teacher in memory (default: one per machine)",
    )
    group.add_argument(
        "--shard-rows", type=int, metavar="N", help=f"with --ray, rows of a shard (default: {SHARD_ROWS})"
    )
    add_switch(group, "--probs", "write the probabilities too, as a column teacher_probs")
    group.add_argument(
        "--label-names",
        metavar="A,B,...|FILE",
        help="names of the teacher's labels 0, 1, ..., or a file with one name per line (default: the teacher's)",
    )
    add_dtype(group, "label")
    add_columns(group)
    add_format(group)
    add_task(group, "label")
    group.add_argument("--config", metavar="FILE", help=CONFIG_HELP)


def _add_encoding(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    """Add the options of `encode`."""
    parser.set_defaults(keep_texts=False)
    group.add_argument(
        "--data",
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help=f"rows: {ROWS_HELP}; several files, or a pattern in quotes such as 'rows-*.jsonl', are read one after "
        "another",
    )
    group.add_argument(
        "--tokenizer",
        required=True,
        metavar="MODEL",
        help="directory or hub id of the model whose tokenizer reads the rows: the student's, or for a student of a "
        "shape the teacher's",
    )
    group.add_argument("--output", required=True, metavar="DIR", help="new directory, or one that this has begun")
    group.add_argument(
        "--shard-rows",
        type=int,
        default=SHARD_ROWS,
        metavar="N",
        help=f"rows of a shard, which is kept whole or made anew (default: {SHARD_ROWS})",
    )
    add_switch(group, "--keep-texts", "write the texts too, for teachers with tokenizers of their own")
    add_columns(group)
    add_format(group)
    group.add_argument(
        "--task",
        choices=tuple(TASK_OPTIONS),
        help="what is learned of the rows: token-classification makes windows of words with tags, question-answering "
        "windows of contexts, masked-lm blocks of running text (default: labels of whole texts)",
    )
    group.add_argument(
        "--problem-type",
        choices=PROBLEM_TYPES,
        help="regression where the labels are numbers to learn (default: classes, or lists of them)",
    )
    group.add_argument("--config", metavar="FILE", help=CONFIG_HELP)


def _add_pruning(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    """Add the options of `prune`."""
    parser.set_defaults(vocabulary=False)
    group.add_argument("--model", required=True, metavar="MODEL", help=f"{MODEL_HELP} to prune")
    group.add_argument("--data", required=True, metavar="FILE", help=f"training rows: {ROWS_HELP}; {OTHER_ROWS_HELP}")
    group.add_argument("--output", required=True, metavar="DIR", help="new directory for the smaller model")
    for option, what in (("--heads", "attention heads"), ("--feed-forward", "feed-forward units")):
        group.add_argument(option, type=float, metavar="X", help=f"share of the {what} to keep, such as 0.5")
    group.add_argument(
        "--scope",
        choices=SCOPES,
        help="whether each layer keeps these shares, or all layers together do (default: layer)",
    )
    group.add_argument(
        "--rows",
        type=int,
        metavar="N",
        help=f"rows of --data that tell what heads and units matter, drawn by --seed (default: {ROWS}, or all "
        "that there are)",
    )
    group.add_argument(
        "--teacher",
        metavar="MODEL",
        help=f"{MODEL_HELP} whose answers tell it beside the labels, as in distill (default: the labels alone); with "
        "--rounds it teaches the model, too (default: --model)",
    )
    group.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="prune in N steps, and let the model learn again after each: it is distilled on --data, with the "
        "arguments of distill (default: it is pruned in one step and learns nothing)",
    )
    add_switch(group, "--resume", "with --rounds, go on where the same command was interrupted, if it was")
    group.add_argument("--eval", metavar="FILE", help="with --rounds, labelled rows to evaluate the model on")
    group.add_argument("--layers", metavar="A,B,...", help="layers to keep, counted from 0, such as 0,2,5")
    group.add_argument("--first-layers", type=int, metavar="N", help="keep the first N layers")
    add_switch(group, "--vocabulary", "keep only the word pieces that occur in --data, and those that spell any text")
    group.add_argument(
        "--vocabulary-from",
        metavar="FILE",
        help="keep those that occur in the rows of another file instead, of the same form as --data, or in a .txt file "
        "with a text a line",
    )
    group.add_argument(
        "--keep", type=int, metavar="N", help="keep the N most frequent of these word pieces (default: all that occur)"
    )
    add_columns(group)
    add_format(group)
    group.add_argument("--config", metavar="FILE", help=CONFIG_HELP)


def _add_quantizing(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    """Add the options of `quantize`."""
    parser.set_defaults(float_embeddings=False)
    group.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    group.add_argument(
        "--data", required=True, metavar="FILE", help=f"rows to measure on: {ROWS_HELP} and label; {OTHER_ROWS_HELP}"
    )
    group.add_argument("--output", required=True, metavar="DIR", help="new directory for the model in int8")
    add_switch(group, "--float-embeddings", "keep the embeddings in float32 (default: int8, with a scale for each row)")
    add_columns(group)
    add_format(group)
    add_task(group, "quantize")
    group.add_argument("--config", metavar="FILE", help=CONFIG_HELP)


def _add_reporting(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    group.add_argument(
        "--model", required=True, metavar="DIR", help="output directory of the finished run, or an int8 artefact"
    )
    group.add_argument(
        "--without-teacher",
        nargs="+",
        metavar="DIR",
        help="output directories of the same run without a teacher (the same command with --alpha 1)",
    )
    group.add_argument(
        "--seed-runs", nargs="+", metavar="DIR", help="output directories of the same run with other seeds"
    )
    group.add_argument(
        "--holdout",
        metavar="FILE",
        help=f"labelled rows used neither in training nor in choosing the model: {ROWS_HELP} and label; "
        f"{OTHER_ROWS_HELP}",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="with several labels a row, measure at this threshold and not at the run's",
    )
    group.add_argument(
        "--search-trials",
        type=int,
        metavar="N",
        help="number of hyperparameter search trials scored on the evaluation rows (default: as recorded by the run)",
    )
    add_switch(group, "--plots", "also write pictures into DIR/plots, which the card shows (default: as the run did)")
    moved = parser.add_argument_group("inputs of the run, if they have moved or there is no command.txt")
    moved.add_argument(
        "--teacher", nargs="+", action="extend", metavar="MODEL", help=f"{MODEL_HELP} used as the teacher, or several"
    )
    moved.add_argument("--teacher-logits", metavar="FILE", help="file of a teacher's answers that the run learned from")
    moved.add_argument("--student", metavar="MODEL", help=f"{MODEL_HELP} that the student started from")
    moved.add_argument("--train", metavar="FILE", help="training rows of the run")
    moved.add_argument("--eval", metavar="FILE", help="evaluation rows of the run")
    card = parser.add_argument_group("metadata of the model card")
    card.add_argument("--language", metavar="A,B,...", help="languages of the texts, such as en")
    card.add_argument("--license", metavar="NAME", help="licence of the model, such as apache-2.0")
    card.add_argument("--tags", metavar="A,B,...", help="additional tags")
    add_dataset(card)


def _add_serving(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    """Add the address, and a server's limits under the names of `serve.limits.Limits`; those not given are absent."""
    group.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    group.add_argument(
        "--host",
        default=HOST,
        metavar="HOST",
        help=f"address to listen at; 0.0.0.0 lets other machines in (default: {HOST})",
    )
    group.add_argument("--port", type=int, default=PORT, metavar="N", help=f"0 for a free one (default: {PORT})")
    add_dtype(group, "serve")
    limits = parser.add_argument_group("limits")
    for field in fields(Limits):
        help = str(field.metadata["help"])
        if field.default is not None:
            help += f" (default: {field.default})"
        limits.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=SUPPRESS,
            type=field.metadata["type"],
            metavar=field.metadata["metavar"],
            help=help,
        )
    group.add_argument("--config", metavar="FILE", help=CONFIG_HELP)


def _add_export(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    """Add what `kdistill.exporters.export.export` takes."""
    group.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    group.add_argument("--format", required=True, choices=tuple(FORMATS), help="format to write")
    endings = ", ".join(each.ending for each in FORMATS.values())
    group.add_argument(
        "--output",
        required=True,
        metavar="FILE|DIR",
        help=f"a new file ({endings}) for the model alone, or a directory for the model with its configuration and "
        "tokenizer",
    )
    group.add_argument("--dtype", choices=DTYPES, default="float32", help="type of the weights (default: float32)")
    group.add_argument(
        "--data",
        metavar="FILE",
        help=f"with --format onnx --dtype int8, training rows: {ROWS_HELP}; {OTHER_ROWS_HELP}. Activations are rounded "
        "in the ranges that they have in these rows, in the form QDQ, which suits OpenVINO (default: in ranges found "
        "while the graph is computed, which suits ONNX Runtime)",
    )
    group.add_argument(
        "--rows",
        type=int,
        metavar="N",
        help="rows of --data that show the ranges, evenly spread over it "
        f"(default: {ROWS_OF_RANGES}, or all that there are)",
    )
    add_columns(group)
    add_format(group)
    group.add_argument("--config", metavar="FILE", help=CONFIG_HELP)


def _add_cache(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    """Add what `cache` does."""
    group.add_argument(
        "action",
        metavar="info|clear",
        choices=("info", "clear"),
        help="show the contents of the cache, or delete its files",
    )


def _add_completion(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    """Add the shell that `completion` is for."""
    group.add_argument("shell", metavar="|".join(SHELLS), choices=SHELLS, help="shell to print the script for")


def _add_info(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    """Add the model that `info` tells of."""
    group.add_argument("--model", metavar="MODEL", help=MODEL_HELP)


def _add_search(parser: ArgumentParser) -> None:
    """Add the options of `Trainer.hyperparameter_search`, under its names; those not given are absent."""
    group = parser.add_argument_group("search")
    for name, (kind, metavar, help) in SEARCH_OPTIONS.items():
        group.add_argument(f"--{name.replace('_', '-')}", default=SUPPRESS, type=kind, metavar=metavar, help=help)


# Of those that do not learn, measure or predict; the others share theirs, see `add_models_and_rows`.
_OF_COMMANDS = {
    "cache": _add_cache,
    "completion": _add_completion,
    "encode": _add_encoding,
    "export": _add_export,
    "info": _add_info,
    "label": _add_labelling,
    "prune": _add_pruning,
    "quantize": _add_quantizing,
    "report": _add_reporting,
    "serve": _add_serving,
}


def add_inputs(parser: ArgumentParser, command: str) -> None:
    """Add the options of a command that are not training arguments."""
    group = parser.add_argument_group("input and output" if command == "predict" else "input")
    if command in _OF_COMMANDS:
        _OF_COMMANDS[command](parser, group)
    else:
        add_models_and_rows(group, command)
    group.add_argument("--threads", type=int, metavar="N", help="number of threads (default: the CPUs allowed)")
    add_switch(group, "--json", "do not show progress, and print the results as one last line of JSON")
    parser.set_defaults(json=False, resume=False, per_class=False, ignore_mismatched_sizes=False, quoted=None)
    if command == "search":
        _add_search(parser)
