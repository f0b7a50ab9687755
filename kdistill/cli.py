"""The command line: `kdistill finetune|distill|evaluate|predict|bench|info`."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
import warnings
from argparse import SUPPRESS, Action, ArgumentParser, BooleanOptionalAction, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from .arguments import GROUPS, DistillationTrainingArguments, TrainingArguments, argument_types, did_you_mean

_BAD_INPUT = (ValueError, TypeError, OSError, ImportError)
_FAILED = (ArithmeticError, RuntimeError, MemoryError)


class _Parser(ArgumentParser):
    """Reports an error in one line, as every other error of the program."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"kdistill: error: {message} (see {self.prog} --help)\n")


class _Version(Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: ArgumentParser, *_: object) -> NoReturn:
        from .runtime import show_config

        print(f"kdistill {show_config()['version']}")
        parser.exit()


class _Terminated(KeyboardInterrupt):
    """SIGTERM: leave as on Ctrl-C, with another exit status."""


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


_METAVARS = {int: "N", float: "X", str: "NAME"}
_MEASURING = ("max_length", "per_device_eval_batch_size", "disable_tqdm")
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
        "evaluate",
        "--model MODEL --data FILE",
        "measure a model on labelled rows",
        "Print accuracy, loss (cross-entropy) and n, the number of labelled rows.",
        "kdistill evaluate --model student --data dev.tsv",
        TrainingArguments,
        _MEASURING,
    ),
    _Command(
        "predict",
        "--model MODEL --data FILE [--output FILE]",
        "label rows of text",
        "Write one line per row: its index, the predicted label and the probability of each label, separated by tabs.",
        "kdistill predict --model student --data test.tsv --output predictions.tsv",
        TrainingArguments,
        _MEASURING,
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
        "Show what kdistill runs on: versions, the CPU's instruction set, threads, and where the teacher cache lies.",
        "kdistill info --model student",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 1 (failed), 2 (bad input), 130 (Ctrl-C) or 143 (SIGTERM)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with _warnings_in_one_line(), _sigterm_as_interrupt():
        options = Namespace()
        try:
            options = parse(argv)
            figures = _run(options)
            sys.stdout.flush()  # a closed pipe shows here, not when the interpreter ends
            _print_figures(figures, options)
            sys.stdout.flush()
        except SystemExit as end:  # argparse's, after --help or an error
            return int(end.code or 0)
        except BrokenPipeError:  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except _BAD_INPUT as error:
            return _report(error, 2)
        except _FAILED as error:
            return _report(error, 1)
        except KeyboardInterrupt as interrupt:
            _report_interrupt(options)
            return 143 if isinstance(interrupt, _Terminated) else 130
    return 0


def _run(options: Namespace) -> dict[str, Any]:
    from . import commands
    from .runtime import set_num_threads

    if options.threads is not None:
        set_num_threads(options.threads)
    run: Callable[[Namespace], dict[str, Any]] = getattr(commands, options.command)
    return run(options)


def parse(argv: list[str]) -> Namespace:
    """Read the words of a command line. Exits as argparse does; misspelt words suggest the nearest."""
    parser, of_command = _parsers()
    if not argv:
        parser.print_help()
        raise SystemExit(2)
    command = of_command.get(argv[0])
    if command is not None:
        known = command._option_string_actions  # argparse has no public list of a parser's options
        for word in argv[1:]:
            option = word.split("=")[0]
            if word.startswith("--") and option not in known:
                command.error(f"there is no option {option}{did_you_mean(option, known)}")
    elif not argv[0].startswith("-"):
        parser.error(f"there is no command {argv[0]!r}{did_you_mean(argv[0], of_command)}")
    return parser.parse_args(argv)


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="kdistill",
        description="Distil BERT classifiers on a CPU, without PyTorch.",
        epilog="kdistill COMMAND --help explains a command's options.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    of_command = {}
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
        if command.arguments is not None:
            _add_training_arguments(subparser, command.arguments, command.only)
        of_command[command.name] = subparser
    return parser, of_command


def _add_inputs(parser: _Parser, command: str) -> None:
    """The options that are not training arguments."""
    group = parser.add_argument_group("input and output" if command == "predict" else "input")
    model_help = "directory or Hugging Face hub id of the model"
    shape_help = "or a shape such as L2-H128-A2: 2 layers, hidden size 128, 2 heads"
    rows_help = "a .tsv, .csv, .jsonl or .parquet file with a column sentence or text (or a pair of columns)"
    if command == "distill":
        group.add_argument("--teacher", required=True, metavar="MODEL", help=f"{model_help} to learn from")
        group.add_argument(
            "--student",
            required=True,
            metavar="MODEL",
            help=f"{model_help} to train, {shape_help}, with the teacher's vocabulary and labels, and its word "
            "embeddings as far as they fit",
        )
    elif command == "bench":
        group.add_argument("--model", required=True, metavar="MODEL", help=f"{model_help}, {shape_help}")
        group.add_argument("--data", metavar="FILE", help=f"{rows_help} (default: random rows as long as SST-2's)")
        group.add_argument("--rows", type=int, default=2000, metavar="N", help="how many rows to take (default: 2000)")
        group.add_argument(
            "--batch-size", type=int, default=128, metavar="N", help="rows of a batch, for all programs (default: 128)"
        )
    else:
        group.add_argument("--model", required=command != "info", metavar="MODEL", help=model_help)
    if command in ("finetune", "distill"):
        group.add_argument("--train", required=True, metavar="FILE", help=f"rows to train on: {rows_help} and label")
        group.add_argument("--eval", metavar="FILE", help="rows with labels to measure accuracy on")
        group.add_argument(
            "--resume", action="store_true", help="go on from the newest checkpoint in the output directory, if any"
        )
    if command == "finetune":
        group.add_argument(
            "--label-names", metavar="A,B,...", help="names of labels 0, 1, ... (default: the model's, or the file's)"
        )
    if command in ("evaluate", "predict"):
        labels = " and label" if command == "evaluate" else ""
        group.add_argument("--data", required=True, metavar="FILE", help=f"the rows: {rows_help}{labels}")
    if command == "predict":
        group.add_argument("--output", metavar="FILE", help="file to write (default: standard output)")
    if command != "info":
        group.add_argument("--text-column", metavar="NAME", help="column of the text, if it has another name")
        group.add_argument("--text-pair-column", metavar="NAME", help="column of the second text of a pair")
        group.add_argument("--label-column", metavar="NAME", help="column of the label, if it has another name")
    group.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: the CPUs allowed)")
    group.add_argument("--json", action="store_true", help="no progress; one line of JSON last on standard output")


def _add_training_arguments(parser: _Parser, cls: type[TrainingArguments], only: tuple[str, ...] | None) -> None:
    """One option per dataclass field; options that are not given are absent, so that the class's defaults hold."""
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
            keywords: dict[str, Any] = {"type": kind, "metavar": _METAVARS.get(kind)}
            if field.metadata["choices"] is not None:
                keywords = {"choices": field.metadata["choices"]}
            elif kind is bool:
                keywords = {"action": "store_true" if field.default is False else BooleanOptionalAction}
            option = f"--{field.name.replace('_', '-')}"
            group.add_argument(option, default=SUPPRESS, help=_help(field), **keywords)


def _help(field: Field[Any]) -> str:
    text = str(field.metadata["help"]).replace("%", "%%")
    if field.default is None or field.default is False:
        return text
    return f"{text} (default: {'yes' if field.default is True else field.default})"


def _print_figures(figures: dict[str, Any], options: Namespace) -> None:
    if options.json:
        print(json.dumps(figures))
        return
    if options.command == "bench":
        from .bench import table

        print(table(figures))
        return
    # The predictions themselves may be on standard output.
    file: TextIO = sys.stderr if options.command == "predict" else sys.stdout
    width = max(map(len, figures))
    for name, value in figures.items():
        if value is not None:
            print(f"{name:{width}}  {_shown(value)}", file=file)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _report(error: BaseException, status: int) -> int:
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"kdistill: error: {message}", file=sys.stderr)
    return status


def _report_interrupt(options: Namespace) -> None:
    if not hasattr(options, "train"):
        print("kdistill: interrupted", file=sys.stderr)
        return
    from .run_directory import RunDirectory

    output_dir = getattr(options, "output_dir", TrainingArguments.output_dir)
    checkpoints = RunDirectory(output_dir).checkpoints() if Path(output_dir).is_dir() else []
    kept = f"{checkpoints[-1]} is kept" if checkpoints else "there is no checkpoint yet"
    print(f"kdistill: interrupted; {kept}. To go on, repeat the command with --resume", file=sys.stderr)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"kdistill: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind the program as Ctrl-C does, so that temporary files go and locks end."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
