"""The commands and their options, with the help of both."""

from __future__ import annotations

import textwrap
from argparse import SUPPRESS, Action, ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ..losses.problem_types import PROBLEM_TYPES
from ..train.arguments import DistillationTrainingArguments, TrainingArguments
from ..train.fields import GROUPS, argument_types

if TYPE_CHECKING:
    from argparse import _ArgumentGroup


class _Parser(ArgumentParser):
    """An argparse parser whose errors are one line, as all errors of the program."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"kdistill: error: {message} (see {self.prog} --help)\n")


class _Version(Action):
    """The action of `--version`, which loads the version only on request."""

    def __call__(self, parser: ArgumentParser, *_: object) -> NoReturn:
        from ..system.threads import show_config

        print(f"kdistill {show_config()['version']}")
        parser.exit()


@dataclass(frozen=True)
class _Command:
    name: str
    usage: str
    summary: str
    description: str
    example: str
    arguments: type[TrainingArguments] | None = None
    """The training arguments that are options of this command, ..."""
    only: tuple[str, ...] | None = None
    """... or only these of them."""


_OUTPUT_OF_SEARCH = "directory that receives the study, the best hyperparameters and the trials' logs"
_METAVARS = {int: "N", float: "X", str: "NAME", dict: "JSON"}
_MEASURING = ("max_length", "per_device_eval_batch_size", "disable_tqdm")
# A trial writes no model, so it needs no options about checkpoints and uploads.
_SEARCHING = (
    *("output_dir", "plots", "report_to", "logging_dir", "disable_tqdm"),
    *(
        field.name
        for field in fields(DistillationTrainingArguments)
        if field.metadata["group"] in ("distillation", "training", "optimiser", "evaluation")
    ),
)
COMMANDS = (
    _Command(
        "finetune",
        "--model MODEL --train FILE [--eval FILE] --output-dir DIR",
        "train a model on labelled rows",
        "Train a pretrained BERT on rows of text with labels, for example to make a teacher. The output directory "
        "receives a model that `transformers` opens too, a model card and the results.",
        "kdistill finetune --model bert-base-uncased --train train.tsv --eval dev.tsv --output-dir teacher",
        TrainingArguments,
    ),
    _Command(
        "distill",
        "--teacher MODEL --student MODEL --train FILE [--eval FILE] --output-dir DIR",
        "train a small model to answer like a large one",
        "Train a small BERT, the student, on the labels and on the probabilities that a large fine-tuned BERT, the "
        "teacher, gives to every label. Rows without a label learn from the teacher alone.",
        "kdistill distill --teacher teacher --student L2-H128-A2 --train train.tsv --eval dev.tsv \\\n"
        "      --output-dir student --num-train-epochs 7 --learning-rate 5e-4",
        DistillationTrainingArguments,
    ),
    _Command(
        "search",
        "--teacher MODEL --student MODEL --train FILE --eval FILE --output-dir DIR",
        "find the best hyperparameters for distill",
        "Distil the student again and again, each time from the same start, with hyperparameters that Optuna chooses "
        "by the results of earlier trials on the rows of --eval. The study is kept in the output directory: the same "
        "command continues it, and several processes may work on it at once. distill --config takes the best_run.toml "
        "that it writes.",
        "kdistill search --teacher teacher --student L2-H128-A2 --train train.tsv --eval dev.tsv \\\n"
        "      --output-dir search --n-trials 50 --n-jobs 2",
        DistillationTrainingArguments,
        _SEARCHING,
    ),
    _Command(
        "evaluate",
        "--model MODEL --data FILE",
        "measure a model on labelled rows",
        "Print the loss against the labels, n (the number of labelled rows) and the metrics of the model's problem "
        "type: accuracy; accuracy of whole rows and micro f1 for several labels at once; mse, pearson and spearmanr "
        "for a regression. --metrics adds others.",
        "kdistill evaluate --model student --data dev.tsv",
        TrainingArguments,
        _MEASURING,
    ),
    _Command(
        "predict",
        "--model MODEL --data FILE [--output FILE]",
        "label rows of text",
        "Write one line per row: its index, the predicted label (or labels, or number) and the probability of each "
        "label, separated by tabs.",
        "kdistill predict --model student --data test.tsv --output predictions.tsv",
        TrainingArguments,
        _MEASURING,
    ),
    _Command(
        "report",
        "--model DIR [--without-teacher DIR ...] [--seed-runs DIR ...] [--holdout FILE]",
        "measure a finished run, beside others, for its model card",
        "Measure the run in DIR on its evaluation rows: accuracy with its interval, calibration, agreement with the "
        "teacher, speed of both; the same student without a teacher, other seeds and held-out rows where they are "
        "given. Write it into the model card, DIR/README.md. The run's inputs are found through its command.txt.",
        "kdistill report --model student --without-teacher student-alone --seed-runs student-34 student-35 \\\n"
        "      --holdout test.tsv",
    ),
    _Command(
        "bench",
        "--model MODEL [--data FILE]",
        "measure how fast a model is on this machine",
        "Show how many sentences a second a model takes in batches, how long one sentence alone takes, and what part "
        "of the machine's measured peak that is; the same for PyTorch and ONNX Runtime when they are installed.",
        "kdistill bench --model L2-H128-A2 --threads 2",
    ),
    _Command(
        "info",
        "[--model MODEL]",
        "show versions, CPU, threads and the teacher cache",
        "Show what kdistill runs on: versions, the CPU's instruction set, threads, and the teacher cache.",
        "kdistill info --model student",
    ),
    _Command(
        "cache",
        "info|clear",
        "show or empty the teacher cache",
        "The teacher cache keeps the logits that teachers gave, so that later runs on the same rows skip the teacher. "
        "It is in $KDISTILL_CACHE, or in the user's cache directory, and may be cleared at any time.",
        "kdistill cache info",
    ),
    _Command(
        "completion",
        "bash|zsh|fish",
        "print a script that lets a shell complete commands and options",
        'Print a script for a shell to read: eval "$(kdistill completion bash)" in ~/.bashrc (zsh likewise), or '
        "kdistill completion fish | source in fish's configuration.",
        "kdistill completion bash",
    ),
)

SHELLS = ("bash", "zsh", "fish")


class SearchOption(NamedTuple):
    """An option's type, metavar and help, as argparse wants them."""

    type: type
    metavar: str
    help: str


# Arguments of `Trainer.hyperparameter_search`, under its names.
SEARCH_OPTIONS = {
    "n_trials": SearchOption(int, "N", "trials of the study in all, over every process and repetition (default: 20)"),
    "hp_space": SearchOption(
        str,
        "FILE",
        'a .toml or .json file of ranges, such as learning_rate = {type = "float", low = 1e-5, high = 1e-3, log = '
        "true} (default: epochs 2-10, learning rate 1e-5..1e-3, alpha 0..1, temperature 2..30)",
    ),
    "direction": SearchOption(
        str, "minimize|maximize", "what to do with --metric-for-best-model (default: what suits it)"
    ),
    "storage": SearchOption(
        str, "FILE", "the study's journal, or a URL that Optuna knows (default: study.journal in the output directory)"
    ),
    "study_name": SearchOption(str, "NAME", "the study in that storage (default: search)"),
    "n_jobs": SearchOption(int, "N", "trials at once, which share the threads (default: 1; -1: one a thread)"),
    "pruner": SearchOption(str, "median|hyperband|none", "what ends unpromising trials early (default: median)"),
    "sampler": SearchOption(str, "tpe|random", "what chooses hyperparameters, from --seed on (default: tpe)"),
    "timeout": SearchOption(float, "SECONDS", "begin no trial after this time (default: never)"),
}


def options_of(parser: ArgumentParser) -> dict[str, Action]:
    """Return the argparse action of every option of a command, by its name, such as `--learning-rate`."""
    # argparse has no public list of a parser's options.
    return {name: action for action in parser._actions for name in action.option_strings if name.startswith("--")}


def build_parsers() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Return the parser of the program, and that of each command by name."""
    parser = _Parser(
        prog="kdistill",
        description="Distil BERT classifiers on a CPU, without PyTorch.",
        epilog="kdistill COMMAND --help explains a command's options.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    of_command: dict[str, ArgumentParser] = {}
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            usage=f"kdistill {command.name} {command.usage} [options]",
            description=textwrap.fill(command.description, 100),
            epilog=f"example:\n  {command.example}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        _add_inputs(subparser, command.name)
        if command.name == "search":
            _add_search(subparser)
        if command.arguments is not None:
            _add_training_arguments(subparser, command.name, command.arguments, command.only)
        of_command[command.name] = subparser
    return parser, of_command


def _add_inputs(parser: _Parser, command: str) -> None:
    """Add the options that are not training arguments."""
    group = parser.add_argument_group("input and output" if command == "predict" else "input")
    if command == "cache":
        group.add_argument(
            "action",
            metavar="info|clear",
            choices=("info", "clear"),
            help="show what the cache holds, or delete its files",
        )
    elif command == "completion":
        group.add_argument(
            "shell", metavar="|".join(SHELLS), choices=SHELLS, help="the shell that is to read the script"
        )
    elif command == "info":
        group.add_argument("--model", metavar="MODEL", help=_MODEL_HELP)
    elif command == "report":
        _add_report_options(parser, group)
    else:
        _add_models_and_rows(group, command)
    group.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: the CPUs allowed)")
    _add_switch(group, "--json", "no progress; one line of JSON last on standard output")
    parser.set_defaults(json=False, resume=False, ignore_mismatched_sizes=False, quoted=None)


_MODEL_HELP = "directory or Hugging Face hub id of the model"
_SHAPE_HELP = "or a shape such as L2-H128-A2: 2 layers, hidden size 128, 2 heads"
_ROWS_HELP = "a .tsv, .csv, .jsonl, .json or .parquet file with a column sentence or text (or a pair of columns)"


def _add_switch(group: _ArgumentGroup, option: str, help: str) -> None:
    group.add_argument(option, action=BooleanOptionalAction, default=SUPPRESS, help=help)


def _add_models_and_rows(group: _ArgumentGroup, command: str) -> None:
    if command in ("distill", "search"):
        group.add_argument("--teacher", required=True, metavar="MODEL", help=f"{_MODEL_HELP} to learn from")
        group.add_argument(
            "--student",
            required=True,
            metavar="MODEL",
            help=f"{_MODEL_HELP} to train, {_SHAPE_HELP}, with the teacher's vocabulary and labels, and its word "
            "embeddings as far as they fit",
        )
    elif command == "bench":
        group.add_argument("--model", required=True, metavar="MODEL", help=f"{_MODEL_HELP}, {_SHAPE_HELP}")
    else:
        group.add_argument("--model", required=True, metavar="MODEL", help=_MODEL_HELP)
    if command in ("finetune", "distill", "search"):
        _add_training_inputs(group, command)
    if command == "finetune":
        group.add_argument(
            "--label-names", metavar="A,B,...", help="names of labels 0, 1, ... (default: the model's, or the file's)"
        )
    if command in ("evaluate", "predict"):
        labels = " and label" if command == "evaluate" else ""
        group.add_argument("--data", required=True, metavar="FILE", help=f"the rows: {_ROWS_HELP}{labels}")
    if command == "bench":
        group.add_argument("--data", metavar="FILE", help=f"{_ROWS_HELP} (default: random rows as long as SST-2's)")
        group.add_argument("--rows", type=int, default=2000, metavar="N", help="how many rows to take (default: 2000)")
        group.add_argument(
            "--batch-size", type=int, default=128, metavar="N", help="rows of a batch, for all programs (default: 128)"
        )
    if command == "predict":
        group.add_argument("--output", metavar="FILE", help="file to write (default: standard output)")
    group.add_argument("--text-column", metavar="NAME", help="column of the text, if it has another name")
    group.add_argument("--text-pair-column", metavar="NAME", help="column of the second text of a pair")
    group.add_argument(
        "--label-column",
        metavar="NAME",
        help="column of the label, if it has another name; A,B,... for columns of 0 and 1",
    )
    _add_format(group)
    if command != "bench":
        _add_task(group, command)
    group.add_argument(
        "--config",
        metavar="FILE",
        help="a TOML file of these options, such as seed = 33; the command line wins",
    )


def _add_format(group: _ArgumentGroup) -> None:
    """Add the options about how files of rows are written."""
    group.add_argument(
        "--delimiter",
        metavar="CHAR",
        help="what separates columns, such as ';' or tab (default: , in .csv, tab in .tsv)",
    )
    _add_switch(
        group, "--quoted", "fields may stand in quotes, as pandas writes them (default: yes in .csv, no in .tsv)"
    )


def _add_training_inputs(group: _ArgumentGroup, command: str) -> None:
    group.add_argument("--train", required=True, metavar="FILE", help=f"rows to train on: {_ROWS_HELP} and label")
    group.add_argument(
        "--eval", required=command == "search", metavar="FILE", help="rows with labels to measure the model on"
    )
    if command != "search":
        _add_switch(group, "--resume", "go on from the newest checkpoint in the output directory, if any")
    _add_switch(
        group,
        "--ignore-mismatched-sizes",
        "begin with a new classifier where the checkpoint's has another number of labels",
    )
    origin = "the model's config" if command == "finetune" else "the student's config, for a shape the teacher's"
    for name, dropped in (("hidden", "embeddings and layers"), ("attention-probs", "attention")):
        group.add_argument(
            f"--{name}-dropout-prob",
            type=float,
            metavar="P",
            help=f"dropout of {dropped} in training (default: that of {origin})",
        )


def _add_search(parser: _Parser) -> None:
    """Add the options of `Trainer.hyperparameter_search`, under its names; those not given are absent."""
    group = parser.add_argument_group("search")
    for name, (kind, metavar, help) in SEARCH_OPTIONS.items():
        group.add_argument(f"--{name.replace('_', '-')}", default=SUPPRESS, type=kind, metavar=metavar, help=help)


def _add_report_options(parser: _Parser, group: _ArgumentGroup) -> None:
    group.add_argument("--model", required=True, metavar="DIR", help="output directory of the finished run")
    group.add_argument(
        "--without-teacher",
        nargs="+",
        metavar="DIR",
        help="output directories of the same run without a teacher: the same command with --alpha 1",
    )
    group.add_argument(
        "--seed-runs", nargs="+", metavar="DIR", help="output directories of the same run with other seeds"
    )
    group.add_argument("--holdout", metavar="FILE", help=f"rows with labels that chose nothing: {_ROWS_HELP} and label")
    group.add_argument(
        "--search-trials",
        type=int,
        metavar="N",
        help="a hyperparameter search scored N trials on the evaluation rows (default: as the run knows)",
    )
    _add_switch(group, "--plots", "also write pictures into DIR/plots, which the card shows (default: as the run did)")
    moved = parser.add_argument_group("inputs of the run, if they have moved or there is no command.txt")
    moved.add_argument("--teacher", metavar="MODEL", help=f"{_MODEL_HELP} that it learned from")
    moved.add_argument("--student", metavar="MODEL", help=f"{_MODEL_HELP} that it began with")
    moved.add_argument("--train", metavar="FILE", help="the rows that it was trained on")
    moved.add_argument("--eval", metavar="FILE", help="the rows that it was evaluated on")
    card = parser.add_argument_group("metadata of the model card")
    card.add_argument("--language", metavar="A,B,...", help="languages of the text, such as en")
    card.add_argument("--license", metavar="NAME", help="licence of the model, such as apache-2.0")
    card.add_argument("--tags", metavar="A,B,...", help="further tags")
    card.add_argument("--dataset-tags", metavar="A,B,...", help="hub ids of the data, such as stanfordnlp/sst2")


def _add_task(group: _ArgumentGroup, command: str) -> None:
    """Add the options about the task: what is learned or measured."""
    distills = command in ("distill", "search")
    whose = "the teacher's" if distills else "the model's"
    group.add_argument(
        "--problem-type",
        choices=PROBLEM_TYPES,
        help=f"what a label is: one of several, a list of them, or a number (default: {whose}, or as the labels are)",
    )
    if command in ("finetune", "distill", "search"):
        default = "the teacher's, which it must be" if distills else "those of the model or the file"
        group.add_argument(
            "--num-labels", type=int, metavar="N", help=f"how many labels there are, or numbers (default: {default})"
        )
    if command != "predict":
        group.add_argument(
            "--metrics",
            metavar="A,B,...",
            help="metrics to measure beside the usual ones, such as f1_macro or matthews_correlation",
        )


def _add_training_arguments(
    parser: _Parser, command: str, cls: type[TrainingArguments], only: tuple[str, ...] | None
) -> None:
    """Add one option per dataclass field; options that are not given are absent, so that the class's defaults hold."""
    kinds = argument_types(cls)
    for group_name in GROUPS:
        members = [
            field
            for field in fields(cls)
            if field.metadata["group"] == group_name and (only is None or field.name in only)
        ]
        group = parser.add_argument_group(group_name) if members else parser
        for field in members:
            kind, _ = kinds[field.name]
            # A mapping stays the text that it is: the class of arguments reads it.
            keywords: dict[str, Any] = {"type": str if kind is dict else kind, "metavar": _METAVARS.get(kind)}
            if field.metadata["several"]:
                keywords = {"metavar": "A,B,..."}
            elif field.metadata["choices"] is not None:
                keywords = {"choices": field.metadata["choices"]}
            elif kind is bool:
                keywords = {"action": BooleanOptionalAction}
            elif field.name.endswith("_dir"):
                keywords["metavar"] = "DIR"
            option = f"--{field.name.replace('_', '-')}"
            help = _OUTPUT_OF_SEARCH if command == "search" and field.name == "output_dir" else _help(field)
            group.add_argument(option, default=SUPPRESS, help=help, **keywords)


def _help(field: Field[Any]) -> str:
    text = str(field.metadata["help"]).replace("%", "%%")
    default = field.metadata["default"]
    if default is None or default is False:
        return text
    return f"{text} (default: {'yes' if default is True else default})"
