"""Options that several commands share: models, rows and how they are read, and the task."""

from __future__ import annotations

from argparse import SUPPRESS, BooleanOptionalAction
from typing import TYPE_CHECKING

from ..bench.exports import PROGRAMS
from ..losses.problem_types import PROBLEM_TYPES
from ..system.compute import COMPUTE_TYPES
from ..tasks.predictions import ALL_DIGITS, DIGITS
from ..tasks.registry import TASK_OPTIONS

if TYPE_CHECKING:
    from argparse import _ArgumentGroup


DISTILLING = ("distill", "doctor", "search")
MODEL_HELP = "directory or Hugging Face hub id of the model"
CONFIG_HELP = "TOML file of options, such as seed = 33; options on the command line take precedence"
SHAPE_HELP = "or a shape such as L2-H128-A2: 2 layers, hidden size 128, 2 heads"
ROWS_HELP = (
    "a .tsv, .csv, .jsonl, .json or .parquet file with a column sentence or text (or a pair of columns), a .txt file "
    "with a text a line (of masked-lm: with documents), or a folder of texts, DIR/label/*.txt"
)
OTHER_ROWS_HELP = (
    "for tags a CoNLL file, or columns tokens and tags; for questions a .json file of SQuAD, or columns question, "
    "context and answers; several files of one form are named by a pattern in quotes, such as 'rows-*.jsonl'"
)


def add_switch(group: _ArgumentGroup, option: str, help: str) -> None:
    """Add an option and its `--no-` form, absent unless it is given."""
    group.add_argument(option, action=BooleanOptionalAction, default=SUPPRESS, help=help)


def add_teacher_weights(group: _ArgumentGroup) -> None:
    """Add the option about several teachers."""
    group.add_argument(
        "--teacher-weights",
        type=float,
        nargs="+",
        metavar="X",
        help="what each of several teachers counts, in their order, such as 0.7 0.3 (default: all the same)",
    )


def add_models_and_rows(group: _ArgumentGroup, command: str) -> None:
    """Add the options of a command that learns, measures or predicts."""
    if command in DISTILLING:
        group.add_argument(
            "--teacher",
            nargs="+",
            action="extend",
            metavar="MODEL",
            help=f"{MODEL_HELP} to learn from; several teach together, each reading with its own tokenizer",
        )
        add_teacher_weights(group)
        group.add_argument(
            "--teacher-logits",
            metavar="FILE",
            help="logits of a teacher that was asked elsewhere: a .npy (rows, labels), or a .parquet, .jsonl or .csv "
            "with a column teacher_logits or teacher_probs and ids or texts; without --teacher and this, such a column "
            "of --train is read",
        )
        group.add_argument(
            "--tokenizer",
            metavar="MODEL",
            help="the model whose tokenizer a student of a shape gets: a BERT, with the --teacher's embeddings of the "
            "tokens that both know (default: the --teacher's; needed without one)",
        )
        group.add_argument(
            "--student",
            metavar="MODEL",
            help=f"{MODEL_HELP} to train, {SHAPE_HELP}, self: the shape of the teacher, or half: that with "
            "every second layer; a shape takes the vocabulary, the labels and, as far as they fit, the embeddings and "
            "layers from the teacher, the first of several (default: the one that --recipe names)",
        )
    elif command == "bench":
        group.add_argument("--model", required=True, metavar="MODEL", help=f"{MODEL_HELP}, {SHAPE_HELP}")
    else:
        group.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    if command in ("finetune", *DISTILLING):
        _add_training_inputs(group, command)
        default = "the model's, or the file's" if command == "finetune" else "the teacher's"
        whose = "" if command == "finetune" else " of the teacher, as the rows call them"
        group.add_argument(
            "--label-names",
            metavar="A,B,...|FILE",
            help=f"names of the labels 0, 1, ...{whose}, or a file with one name per line (default: {default})",
        )
    if command == "evaluate":
        group.add_argument(
            "--data", required=True, metavar="FILE", help=f"rows to read: {ROWS_HELP} and label; {OTHER_ROWS_HELP}"
        )
        add_switch(group, "--per-class", "show precision, recall and F1 of each class, and which are confused")
    if command in ("evaluate", "predict", "bench"):
        add_dtype(group, command)
    if command == "bench":
        group.add_argument(
            "--data", metavar="FILE", help=f"{ROWS_HELP}; {OTHER_ROWS_HELP} (default: random rows as long as SST-2's)"
        )
        group.add_argument("--rows", type=int, default=2000, metavar="N", help="number of rows (default: 2000)")
        group.add_argument(
            "--batch-size",
            type=int,
            metavar="N",
            help="rows per batch, for all programs (default: 128, or of a language model so many that the logits of a "
            "batch have at most 1 GiB)",
        )
        group.add_argument(
            "--export",
            nargs="+",
            choices=("all", *PROGRAMS),
            metavar="NAME",
            help="measure the model as it can be deployed, each in a process of its own, with accuracy, size, memory "
            f"and start: all, or some of {', '.join(PROGRAMS)}",
        )
        group.add_argument(
            "--variants",
            nargs="+",
            metavar="DIR",
            help="with --export, other models to measure likewise, such as a pruned one",
        )
    if command == "predict":
        _add_predictions(group)
    add_columns(group)
    add_format(group)
    if command != "bench":
        add_task(group, command)
    group.add_argument("--config", metavar="FILE", help=CONFIG_HELP)


def add_columns(group: _ArgumentGroup) -> None:
    """Add the options that name columns."""
    group.add_argument("--text-column", metavar="NAME", help="column of the text (default: text, sentence, ...)")
    group.add_argument("--text-pair-column", metavar="NAME", help="column of the second text of a pair")
    group.add_argument(
        "--label-column",
        metavar="NAME",
        help="column of the label (default: label, labels, ...); A,B,... for one column of 0 and 1 per label",
    )


def add_dtype(group: _ArgumentGroup, command: str) -> None:
    """Add the compute type, or for `bench` the types that are compared."""
    native = "kdistill info shows which have instructions on this CPU"
    if command == "bench":
        help = f"types to compute in, a row for each (default: float32, or the model's int8); {native}"
        group.add_argument("--dtype", nargs="+", choices=COMPUTE_TYPES, help=help)
    else:
        help = f"type that weights and activations are multiplied in (default: float32, or the model's int8); {native}"
        group.add_argument("--dtype", choices=COMPUTE_TYPES, help=help)


def _add_predictions(group: _ArgumentGroup) -> None:
    """Add what `predict` reads, and how it writes."""
    group.add_argument(
        "--data",
        metavar="FILE",
        help=f"the rows: {ROWS_HELP}; {OTHER_ROWS_HELP}; - is standard input, with a text a line (the default where "
        "it is piped in)",
    )
    for option, what in (("--text", "a text to label"), ("--text-pair", "the second text of a pair, beside each text")):
        group.add_argument(
            option, nargs="+", action="extend", metavar="TEXT", help=f"{what}; may be given several times"
        )
    group.add_argument(
        "--output", metavar="FILE", help="file to write: JSON lines if it ends in .jsonl, else TSV (default: to stdout)"
    )
    group.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="write the K best labels with their scores, not the scores of all; of a question the K best answers too",
    )
    group.add_argument(
        "--threshold",  # not the argument of training: a row of one label has a threshold too
        dest="above",
        type=float,
        metavar="P",
        help="predict labels with a probability above P: of several labels all those (default: the model's, or 0.5); "
        "of one label the best, or none (default: always the best); of a question no answer where the probability of "
        "none exceeds P (default: the model's, or always an answer)",
    )
    group.add_argument(
        "--digits",
        type=int,
        metavar="N",
        help=f"significant digits of scores in a TSV (default: {DIGITS}; {ALL_DIGITS}: all). JSON has all",
    )


def add_format(group: _ArgumentGroup) -> None:
    """Add the options about how files of rows are written."""
    group.add_argument(
        "--columns",
        metavar="A,B,...",
        help="names of the columns of a file without a header, such as text,label or sentence1,sentence2,label",
    )
    group.add_argument(
        "--delimiter",
        metavar="CHAR",
        help="column separator, such as ';' or tab (default: , in .csv, tab in .tsv)",
    )
    group.add_argument("--encoding", metavar="NAME", help="encoding of text files, such as cp1252 (default: utf-8)")
    add_switch(group, "--quoted", "fields may be quoted, as pandas writes them (default: yes in .csv, no in .tsv)")


def _add_training_inputs(group: _ArgumentGroup, command: str) -> None:
    group.add_argument(
        "--train", required=True, metavar="FILE", help=f"rows to train on: {ROWS_HELP} and label; {OTHER_ROWS_HELP}"
    )
    group.add_argument(
        "--eval", required=command == "search", metavar="FILE", help="labelled rows to evaluate the model on"
    )
    if command != "search":
        add_dataset(group)
        add_switch(group, "--resume", "continue from the newest checkpoint in the output directory, if any")
    add_switch(
        group,
        "--ignore-mismatched-sizes",
        "replace the classifier if its number of labels differs",
    )
    origin = "the model's config" if command == "finetune" else "the student's config, or the teacher's for a shape"
    for name, dropped in (("hidden", "embeddings and layers"), ("attention-probs", "attention")):
        group.add_argument(
            f"--{name}-dropout-prob",
            type=float,
            metavar="P",
            help=f"dropout probability of {dropped} in training (default: from {origin})",
        )


def add_dataset(group: _ArgumentGroup) -> None:
    """Add the options that name the data set in the model card."""
    group.add_argument(
        "--dataset-tags", metavar="A,B,...", help="hub ids of the data for the model card, such as stanfordnlp/sst2"
    )
    group.add_argument(
        "--dataset-name", metavar="NAME", help="what people call the data set, such as SST-2 (default: its hub id)"
    )


def add_task(group: _ArgumentGroup, command: str) -> None:
    """Add the options about the task: what is learned or measured."""
    distills = command in DISTILLING
    whose = "the teacher's" if distills or command == "label" else "the model's"
    group.add_argument(
        "--task",
        choices=tuple(TASK_OPTIONS),
        help="what is learned: a label for a whole text, a tag for each word of it, answers to questions, or words "
        f"hidden in running text (default: {whose}" + (", else that of the rows)" if command == "finetune" else ")"),
    )
    group.add_argument(
        "--problem-type",
        choices=PROBLEM_TYPES,
        help="what a label is: one of several classes, a list of labels, or a number (default: "
        f"{whose}, else derived from the labels)",
    )
    if command in ("finetune", *DISTILLING):
        default = "the teacher's; another is an error" if distills else "that of the model or the file"
        group.add_argument(
            "--num-labels",
            type=int,
            metavar="N",
            help=f"number of labels, or of outputs of a regression (default: {default})",
        )
    if command not in ("predict", "label", "quantize"):
        group.add_argument(
            "--metrics",
            metavar="A,B,...",
            help="additional metrics, such as f1_macro or matthews_correlation",
        )
