"""The commands and their options, with the help of both: one list, hence more than 500 lines."""

from __future__ import annotations

import textwrap
from argparse import SUPPRESS, Action, ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ..compress.choice import SCOPES
from ..compress.prune import ROWS
from ..exporters.registry import DTYPES, FORMATS
from ..losses.problem_types import PROBLEM_TYPES
from ..serve.limits import HOST, PORT, Limits
from ..system.compute import COMPUTE_TYPES
from ..tasks.predictions import ALL_DIGITS, DIGITS
from ..tasks.registry import TASK_OPTIONS
from ..train.arguments import DistillationTrainingArguments, TrainingArguments
from ..train.fields import GROUPS, argument_types

if TYPE_CHECKING:
    from argparse import _ArgumentGroup


class CommandLineError(SystemExit):
    """The end of a program whose command line is wrong.

    Attributes:
        sentence: about the error, with the command whose help shows the options.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(2)
        self.sentence = sentence


class _Parser(ArgumentParser):
    """An argparse parser whose errors are one line, as all errors of the program."""

    def error(self, message: str) -> NoReturn:
        raise CommandLineError(f"{message} (see {self.prog} --help)")


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


RECIPE = "auto"
"""The default of `--recipe`, which in Python is that of transformers."""
_OUTPUT_OF_SEARCH = "directory for the study, the best hyperparameters and the logs of the trials"
_METAVARS = {int: "N", float: "X", str: "NAME", dict: "JSON", list: "A,B,..."}
_PREDICTING = (
    *("max_length", "doc_stride", "max_answer_length", "n_best"),
    *("per_device_eval_batch_size", "disable_tqdm"),
)
_MEASURING = (*_PREDICTING, "mlm_probability", "threshold")
# A trial writes no model, so it needs no options about checkpoints and uploads.
_SEARCHING = (
    *("output_dir", "plots", "report_to", "logging_dir", "disable_tqdm"),
    *(
        field.name
        for field in fields(DistillationTrainingArguments)
        if field.metadata["group"] in ("distillation", "training", "optimiser", "evaluation")
    ),
)
# A pruned model that learns again.
_RECOVERING = (
    "disable_tqdm",
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
        "Train a pretrained model of the BERT family on labelled rows, for example to make a teacher. The output "
        "directory receives the model, which `transformers` can load, a model card and the results.",
        "kdistill finetune --model bert-base-uncased --train train.tsv --eval dev.tsv --output-dir teacher",
        TrainingArguments,
    ),
    _Command(
        "distill",
        "--teacher MODEL --student MODEL --train FILE [--eval FILE] --output-dir DIR",
        "train a small model to reproduce a large one",
        "Train a small model (the student) on the labels and on the probabilities that a large fine-tuned one (the "
        "teacher) predicts. On rows without a label the student learns from the teacher only.",
        "kdistill distill --teacher teacher --student L2-H128-A2 --train train.tsv --eval dev.tsv --output-dir student",
        DistillationTrainingArguments,
    ),
    _Command(
        "doctor",
        "--teacher MODEL --student MODEL --train FILE [--eval FILE] [--output-dir DIR]",
        "check a run of distill before it is made",
        "Look at teacher, student, rows, arguments and machine as distill would take them, in seconds: what would make "
        "the run fail or mislead, and what to do about it. The teacher answers sampled rows, a copy of the student "
        "makes a few steps, and nothing is written. The exit status is 1 when there is an error.",
        "kdistill doctor --teacher teacher --student L2-H128-A2 --train train.tsv --eval dev.tsv \\\n"
        "      --output-dir student",
        DistillationTrainingArguments,
    ),
    _Command(
        "search",
        "--teacher MODEL --student MODEL --train FILE --eval FILE --output-dir DIR",
        "find the best hyperparameters for distill",
        "Distil the student repeatedly from the same initial weights, with hyperparameters that Optuna chooses from "
        "the results of earlier trials on the --eval rows. The study is stored in the output directory: running the "
        "same command again continues it, and several processes can work on it at once. The best hyperparameters are "
        "written to best_run.toml, which distill --config reads.",
        "kdistill search --teacher teacher --student L2-H128-A2 --train train.tsv --eval dev.tsv \\\n"
        "      --output-dir search --n-trials 50 --n-jobs 2",
        DistillationTrainingArguments,
        _SEARCHING,
    ),
    _Command(
        "label",
        "--teacher MODEL --data FILE --output FILE",
        "write what a teacher answers beside the rows",
        "Write the rows of --data with the logits that the teacher gives them (a column teacher_logits), as data that "
        "distill --train takes without a teacher, on this machine or another. What the teacher has answered is kept in "
        "the teacher cache: the same command goes on where it was interrupted.",
        "kdistill label --teacher teacher --data train.tsv --output labelled.parquet",
        DistillationTrainingArguments,
        ("max_length", "doc_stride", "teacher_cache", "disable_tqdm"),
    ),
    _Command(
        "prune",
        "--model MODEL --data FILE --output DIR",
        "leave out the parts of a model that matter least",
        "Write a smaller model of a trained one into a new directory: with some of its layers, with the attention "
        "heads and feed-forward units that matter most for its loss on the rows of --data, which are then all that is "
        "computed, or with the word pieces that occur in texts. Rows of these pieces have the same logits, bit for "
        "bit. With --rounds the model learns again, from what it was. The rows of --data are training rows, never "
        "those that the model is measured on.",
        "kdistill prune --model student --data train.tsv --output student-small --feed-forward 0.5 --vocabulary",
        DistillationTrainingArguments,
        _RECOVERING,
    ),
    _Command(
        "quantize",
        "--model MODEL --data FILE --output DIR",
        "write a trained model in int8",
        "Write a trained model with weights and embeddings in int8, a quarter of its size, into a new directory that "
        "every command loads, and print how far it differs on the rows of --data: accuracy before and after with "
        "McNemar's test, and agreement.",
        "kdistill quantize --model student --data dev.tsv --output student-int8",
        TrainingArguments,
        ("max_length", "doc_stride", "mlm_probability", "per_device_eval_batch_size", "disable_tqdm"),
    ),
    _Command(
        "evaluate",
        "--model MODEL --data FILE",
        "measure a model on labelled rows",
        "Print the loss, n (the number of labelled rows) and the metrics of the model's problem type: accuracy for "
        "single-label classification; accuracy (all labels of a row right), micro f1, average precision and top-1 for "
        "multi-label classification; mse, pearson and spearmanr for regression; accuracy of tags, and f1, precision "
        "and recall of entities; exact_match and f1 of answers to questions. --metrics adds others.",
        "kdistill evaluate --model student --data dev.tsv",
        TrainingArguments,
        _MEASURING,
    ),
    _Command(
        "predict",
        "--model MODEL [--data FILE | --text TEXT ...] [--output FILE]",
        "predict labels of texts, tags of words or answers to questions",
        "Write one line per row: its index, the predicted label (or labels, or number), the probability of each label "
        "or of the best (--top-k), and the text, separated by tabs. Tags of words and answers to questions are JSON "
        "lines. Rows are those of --data or --text, or a text a line on standard input.",
        "kdistill predict --model student --data test.tsv --output predictions.tsv",
        TrainingArguments,
        _PREDICTING,
    ),
    _Command(
        "serve",
        "--model MODEL [--host HOST] [--port PORT]",
        "answer texts over HTTP",
        "Load a model and answer requests for predictions until Ctrl-C or SIGTERM: POST /invocations, as SageMaker and "
        "Hugging Face's inference toolkit send them, or POST /predict; GET /ping, /health and /metrics (Prometheus). "
        "Texts of different requests are computed in one batch, with the scores of kdistill predict.",
        "kdistill serve --model student --port 8080",
    ),
    _Command(
        "export",
        "--model MODEL --format onnx --output FILE|DIR [--dtype TYPE]",
        "write a model for other programs",
        "Write a model as ONNX, for ONNX Runtime, transformers.js, OpenVINO and others. --output FILE.onnx gets the "
        "graph alone; a directory gets it as onnx/model.onnx (float16: onnx/model_fp16.onnx, int8: "
        "onnx/model_quantized.onnx) with the configuration and the tokenizer beside it. Before it is written, its "
        "logits in ONNX Runtime are compared with those of kdistill. Needs the extra export.",
        "kdistill export --model student --format onnx --output exported",
    ),
    _Command(
        "report",
        "--model DIR [--without-teacher DIR ...] [--seed-runs DIR ...] [--holdout FILE]",
        "measure a finished run and complete its model card",
        "Measure the run in DIR on its evaluation rows: accuracy with a confidence interval, calibration, agreement "
        "with the teacher, and the speed of both models. Compare it with the same student trained without a teacher, "
        "with other seeds and on held-out rows, if they are given. Write the results to the model card, DIR/README.md. "
        "The inputs of the run are read from DIR/command.txt.",
        "kdistill report --model student --without-teacher student-alone --seed-runs student-34 student-35 \\\n"
        "      --holdout test.tsv",
    ),
    _Command(
        "bench",
        "--model MODEL [--data FILE]",
        "measure the speed of a model on this machine",
        "Measure sentences per second in batches, the latency of a single sentence, and the share of the machine's "
        "measured float32 peak that this reaches, in each compute type of --dtype. PyTorch, ONNX Runtime "
        "and OpenVINO are measured as well, in float32, if they are installed.",
        "kdistill bench --model L2-H128-A2 --dtype float32 bfloat16 int8",
    ),
    _Command(
        "info",
        "[--model MODEL]",
        "show versions, CPU, threads and the teacher cache",
        "Show versions, the instruction sets of the CPU, which of them multiplies each compute type, the number of "
        "threads and the teacher cache.",
        "kdistill info --model student",
    ),
    _Command(
        "cache",
        "info|clear",
        "show or empty the teacher cache",
        "The teacher cache stores the logits of teachers, so that later runs on the same rows need not run the "
        "teacher. It is in $KDISTILL_CACHE or in the user's cache directory, and can be cleared at any time.",
        "kdistill cache info",
    ),
    _Command(
        "completion",
        "bash|zsh|fish",
        "print a shell script that completes commands and options",
        'Print a completion script. Put eval "$(kdistill completion bash)" into ~/.bashrc (the same with zsh in '
        "~/.zshrc), or kdistill completion fish | source into the configuration of fish.",
        "kdistill completion bash",
    ),
)

_DISTILLING = ("distill", "doctor", "search")
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
        "1e-3, log = true} (default: epochs 2-10, learning rate 1e-5..1e-3, alpha 0..1, temperature 2..30; with "
        "--recipe auto and a student made from a shape, epochs and learning rate around what it chooses)",
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
    "n_jobs": SearchOption(int, "N", "trials run in parallel; they share the threads (default: 1; -1: one per thread)"),
    "pruner": SearchOption(str, "median|hyperband|none", "how to stop unpromising trials early (default: median)"),
    "sampler": SearchOption(str, "tpe|random", "how to choose hyperparameters; seeded by --seed (default: tpe)"),
    "timeout": SearchOption(float, "SECONDS", "start no new trial after this time (default: no limit)"),
}


def options_of(parser: ArgumentParser) -> dict[str, Action]:
    """Return the argparse action of every option of a command, by its name, such as `--learning-rate`."""
    # argparse has no public list of a parser's options.
    return {name: action for action in parser._actions for name in action.option_strings if name.startswith("--")}


def build_parsers() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Return the parser of the program, and that of each command by name."""
    parser = _Parser(
        prog="kdistill",
        description="Distil models of the BERT family on a CPU, without PyTorch.",
        epilog="Run kdistill COMMAND --help for the options of a command.",
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
            help="show the contents of the cache, or delete its files",
        )
    elif command == "completion":
        group.add_argument("shell", metavar="|".join(SHELLS), choices=SHELLS, help="shell to print the script for")
    elif command == "info":
        group.add_argument("--model", metavar="MODEL", help=_MODEL_HELP)
    elif command == "report":
        _add_report_options(parser, group)
    elif command == "serve":
        _add_serving(parser, group)
    elif command == "label":
        _add_labelling(group)
    elif command == "prune":
        _add_pruning(group)
    elif command == "quantize":
        _add_quantizing(group)
    elif command == "export":
        _add_export(group)
    else:
        _add_models_and_rows(group, command)
    group.add_argument("--threads", type=int, metavar="N", help="number of threads (default: the CPUs allowed)")
    _add_switch(group, "--json", "do not show progress, and print the results as one last line of JSON")
    parser.set_defaults(json=False, resume=False, per_class=False, ignore_mismatched_sizes=False, quoted=None)
    if command == "label":
        parser.set_defaults(probs=False)
    if command == "prune":
        parser.set_defaults(vocabulary=False)
    if command == "quantize":
        parser.set_defaults(float_embeddings=False)


_MODEL_HELP = "directory or Hugging Face hub id of the model"
_CONFIG_HELP = "TOML file of options, such as seed = 33; options on the command line take precedence"
_SHAPE_HELP = "or a shape such as L2-H128-A2: 2 layers, hidden size 128, 2 heads"
_ROWS_HELP = (
    "a .tsv, .csv, .jsonl, .json or .parquet file with a column sentence or text (or a pair of columns), a .txt file "
    "with a text a line (of masked-lm: with documents), or a folder of texts, DIR/label/*.txt"
)
_OTHER_ROWS_HELP = (
    "for tags a CoNLL file, or columns tokens and tags; for questions a .json file of SQuAD, or columns question, "
    "context and answers"
)


def _add_switch(group: _ArgumentGroup, option: str, help: str) -> None:
    group.add_argument(option, action=BooleanOptionalAction, default=SUPPRESS, help=help)


def _add_models_and_rows(group: _ArgumentGroup, command: str) -> None:
    if command in _DISTILLING:
        group.add_argument(
            "--teacher",
            nargs="+",
            action="extend",
            metavar="MODEL",
            help=f"{_MODEL_HELP} to learn from; several teach together, each reading with its own tokenizer",
        )
        group.add_argument(
            "--teacher-weights",
            type=float,
            nargs="+",
            metavar="X",
            help="what each of several teachers counts, in their order, such as 0.7 0.3 (default: all the same)",
        )
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
            help="without --teacher, the model whose tokenizer a student of a shape gets",
        )
        group.add_argument(
            "--student",
            required=True,
            metavar="MODEL",
            help=f"{_MODEL_HELP} to train, {_SHAPE_HELP}, or self: the shape of the teacher; a shape takes the "
            "vocabulary, the labels and, as far as they fit, the embeddings and layers from the teacher, the first of "
            "several",
        )
    elif command == "bench":
        group.add_argument("--model", required=True, metavar="MODEL", help=f"{_MODEL_HELP}, {_SHAPE_HELP}")
    else:
        group.add_argument("--model", required=True, metavar="MODEL", help=_MODEL_HELP)
    if command in ("finetune", *_DISTILLING):
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
            "--data", required=True, metavar="FILE", help=f"rows to read: {_ROWS_HELP} and label; {_OTHER_ROWS_HELP}"
        )
        _add_switch(group, "--per-class", "show precision, recall and F1 of each class, and which are confused")
    if command in ("evaluate", "predict", "bench"):
        _add_dtype(group, command)
    if command == "bench":
        group.add_argument(
            "--data", metavar="FILE", help=f"{_ROWS_HELP}; {_OTHER_ROWS_HELP} (default: random rows as long as SST-2's)"
        )
        group.add_argument("--rows", type=int, default=2000, metavar="N", help="number of rows (default: 2000)")
        group.add_argument(
            "--batch-size", type=int, default=128, metavar="N", help="rows per batch, for all programs (default: 128)"
        )
    if command == "predict":
        _add_predictions(group)
    _add_columns(group)
    _add_format(group)
    if command != "bench":
        _add_task(group, command)
    group.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)


def _add_labelling(group: _ArgumentGroup) -> None:
    """Add the options of `label`."""
    group.add_argument(
        "--teacher",
        required=True,
        nargs="+",
        action="extend",
        metavar="MODEL",
        help=f"{_MODEL_HELP} that answers; of several the mean of their probabilities is written",
    )
    group.add_argument(
        "--teacher-weights",
        type=float,
        nargs="+",
        metavar="X",
        help="what each of several teachers counts, in their order, such as 0.7 0.3 (default: all the same)",
    )
    group.add_argument(
        "--data", required=True, metavar="FILE", help=f"rows to answer: {_ROWS_HELP}; {_OTHER_ROWS_HELP}"
    )
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
    _add_switch(group, "--probs", "write the probabilities too, as a column teacher_probs")
    group.add_argument(
        "--label-names",
        metavar="A,B,...|FILE",
        help="names of the teacher's labels 0, 1, ..., or a file with one name per line (default: the teacher's)",
    )
    _add_dtype(group, "label")
    _add_columns(group)
    _add_format(group)
    _add_task(group, "label")
    group.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)


def _add_pruning(group: _ArgumentGroup) -> None:
    """Add the options of `prune`."""
    group.add_argument("--model", required=True, metavar="MODEL", help=f"{_MODEL_HELP} to prune")
    group.add_argument("--data", required=True, metavar="FILE", help=f"training rows: {_ROWS_HELP}; {_OTHER_ROWS_HELP}")
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
        help=f"rows of --data that tell what heads and units matter, drawn by --seed (default: {ROWS})",
    )
    group.add_argument(
        "--teacher",
        metavar="MODEL",
        help=f"{_MODEL_HELP} whose answers tell it beside the labels, as in distill (default: the labels alone)",
    )
    group.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="prune in N steps, and let the model learn again after each: --model distils it on --data, with the "
        "arguments of distill (default: it is pruned in one step and learns nothing)",
    )
    group.add_argument("--eval", metavar="FILE", help="with --rounds, labelled rows to evaluate the model on")
    group.add_argument("--layers", metavar="A,B,...", help="layers to keep, counted from 0, such as 0,2,5")
    group.add_argument("--first-layers", type=int, metavar="N", help="keep the first N layers")
    _add_switch(group, "--vocabulary", "keep only the word pieces that occur in --data, and those that spell any text")
    group.add_argument(
        "--vocabulary-from",
        metavar="FILE",
        help="keep those that occur in the rows of another file instead, of the same form as --data",
    )
    group.add_argument(
        "--keep", type=int, metavar="N", help="keep the N most frequent of these word pieces (default: all that occur)"
    )
    _add_columns(group)
    _add_format(group)
    group.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)


def _add_quantizing(group: _ArgumentGroup) -> None:
    """Add the options of `quantize`."""
    group.add_argument("--model", required=True, metavar="MODEL", help=_MODEL_HELP)
    group.add_argument(
        "--data", required=True, metavar="FILE", help=f"rows to measure on: {_ROWS_HELP} and label; {_OTHER_ROWS_HELP}"
    )
    group.add_argument("--output", required=True, metavar="DIR", help="new directory for the model in int8")
    _add_switch(
        group, "--float-embeddings", "keep the embeddings in float32 (default: int8, with a scale for each row)"
    )
    _add_columns(group)
    _add_format(group)
    _add_task(group, "quantize")
    group.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)


def _add_columns(group: _ArgumentGroup) -> None:
    """Add the options that name columns."""
    group.add_argument("--text-column", metavar="NAME", help="column of the text (default: text, sentence, ...)")
    group.add_argument("--text-pair-column", metavar="NAME", help="column of the second text of a pair")
    group.add_argument(
        "--label-column",
        metavar="NAME",
        help="column of the label (default: label, labels, ...); A,B,... for one column of 0 and 1 per label",
    )


def _add_dtype(group: _ArgumentGroup, command: str) -> None:
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
        help=f"the rows: {_ROWS_HELP}; {_OTHER_ROWS_HELP}; - is standard input, with a text a line (the default where "
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


def _add_format(group: _ArgumentGroup) -> None:
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
    _add_switch(group, "--quoted", "fields may be quoted, as pandas writes them (default: yes in .csv, no in .tsv)")


def _add_training_inputs(group: _ArgumentGroup, command: str) -> None:
    group.add_argument(
        "--train", required=True, metavar="FILE", help=f"rows to train on: {_ROWS_HELP} and label; {_OTHER_ROWS_HELP}"
    )
    group.add_argument(
        "--eval", required=command == "search", metavar="FILE", help="labelled rows to evaluate the model on"
    )
    if command != "search":
        _add_dataset(group)
        _add_switch(group, "--resume", "continue from the newest checkpoint in the output directory, if any")
    _add_switch(
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
        help="output directories of the same run without a teacher (the same command with --alpha 1)",
    )
    group.add_argument(
        "--seed-runs", nargs="+", metavar="DIR", help="output directories of the same run with other seeds"
    )
    group.add_argument(
        "--holdout",
        metavar="FILE",
        help=f"labelled rows used neither in training nor in choosing the model: {_ROWS_HELP} and label; "
        f"{_OTHER_ROWS_HELP}",
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
    _add_switch(group, "--plots", "also write pictures into DIR/plots, which the card shows (default: as the run did)")
    moved = parser.add_argument_group("inputs of the run, if they have moved or there is no command.txt")
    moved.add_argument(
        "--teacher", nargs="+", action="extend", metavar="MODEL", help=f"{_MODEL_HELP} used as the teacher, or several"
    )
    moved.add_argument("--teacher-logits", metavar="FILE", help="file of a teacher's answers that the run learned from")
    moved.add_argument("--student", metavar="MODEL", help=f"{_MODEL_HELP} that the student started from")
    moved.add_argument("--train", metavar="FILE", help="training rows of the run")
    moved.add_argument("--eval", metavar="FILE", help="evaluation rows of the run")
    card = parser.add_argument_group("metadata of the model card")
    card.add_argument("--language", metavar="A,B,...", help="languages of the texts, such as en")
    card.add_argument("--license", metavar="NAME", help="licence of the model, such as apache-2.0")
    card.add_argument("--tags", metavar="A,B,...", help="additional tags")
    _add_dataset(card)


def _add_serving(parser: _Parser, group: _ArgumentGroup) -> None:
    """Add the address, and a server's limits under the names of `serve.limits.Limits`; those not given are absent."""
    group.add_argument("--model", required=True, metavar="MODEL", help=_MODEL_HELP)
    group.add_argument(
        "--host",
        default=HOST,
        metavar="HOST",
        help=f"address to listen at; 0.0.0.0 lets other machines in (default: {HOST})",
    )
    group.add_argument("--port", type=int, default=PORT, metavar="N", help=f"0 for a free one (default: {PORT})")
    _add_dtype(group, "serve")
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
    group.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)


def _add_export(group: _ArgumentGroup) -> None:
    """Add what `kdistill.exporters.export.export` takes."""
    group.add_argument("--model", required=True, metavar="MODEL", help=_MODEL_HELP)
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


def _add_dataset(group: _ArgumentGroup) -> None:
    """Add the options that name the data set in the model card."""
    group.add_argument(
        "--dataset-tags", metavar="A,B,...", help="hub ids of the data for the model card, such as stanfordnlp/sst2"
    )
    group.add_argument(
        "--dataset-name", metavar="NAME", help="what people call the data set, such as SST-2 (default: its hub id)"
    )


def _add_task(group: _ArgumentGroup, command: str) -> None:
    """Add the options about the task: what is learned or measured."""
    distills = command in _DISTILLING
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
    if command in ("finetune", *_DISTILLING):
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
            # A mapping or list stays the text that it is: the class of arguments reads it.
            keywords: dict[str, Any] = {"type": str if kind in (dict, list) else kind, "metavar": _METAVARS.get(kind)}
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
    default = RECIPE if field.name == "recipe" else field.metadata["default"]
    if default is None or default is False:
        return text
    return f"{text} (default: {'yes' if default is True else default})"
