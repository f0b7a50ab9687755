"""The end of a run or a search on a terminal: its table, where it is, and the commands to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..report.summary import WIDTH, aligned, duration, sentences, table
from ..system.progress import few_digits

A_TEXT = "..."
"""A text that the reader is to replace; it is the one word of a command that is always in quotes."""
_OUTCOMES = {"fail": "failed", "waiting": "queued again"}  # Optuna's name of a state -> ours


def run_text(figures: Mapping[str, Any]) -> str:
    """Return what `finetune` and `distill` print of their figures."""
    summary = figures["summary"]
    where = f"{figures['output_dir']} holds the model, its card (README.md) and all figures (all_results.json)"
    lines = [*sentences(summary), f"the command took {duration(figures['seconds'])}", where]
    if figures["checkpoints"]:
        size = f"{figures['checkpoint_bytes'] / 1e6:,.1f} MB"
        path = shlex.quote(as_value(figures["output_dir"]))
        lines.append(f"its checkpoints, for more epochs with --resume, take {size} (rm -r {path}/checkpoint-*)")
    if "commit_url" in figures:
        lines.append(f"uploaded: {figures['commit_url']}")
    lines += [f"failed: {what}: {sentence}" for what, sentence in figures.get("failed", {}).items()]
    return _joined(table(summary), lines, figures["next"])


def search_text(figures: Mapping[str, Any]) -> str:
    """Return what `search` prints of its figures."""
    number, trials = figures["run_id"], figures["trials"]
    found = [[f"  {name}", _value(value)] for name, value in figures["hyperparameters"].items()]
    lines = [
        f"{sum(trials.values())} trials: {outcomes_text(trials)}",
        f"the command took {duration(figures['seconds'])}",
        f"the hyperparameters of trial {number}, in {figures['best_run']}:",
    ]
    best = table(figures["summary"], f"the best student, of trial {number}")
    return _joined(best, [*lines, *aligned(["", ""], found, WIDTH)[1:]], figures["next"])


def outcomes_text(trials: Mapping[str, int]) -> str:
    """Return how many trials ended how, such as "3 complete, 1 interrupted"."""
    return ", ".join(f"{number} {_OUTCOMES.get(how, how)}" for how, number in trials.items())


def _value(value: Any) -> str:
    return few_digits(value) if isinstance(value, float) else str(value)


def _joined(table: str, lines: Iterable[str], commands: Iterable[Sequence[str]]) -> str:
    return "\n".join([table, "", *lines, "", "next:", *map(_to_paste, commands), ""])


def next_of_run(
    directory: str, *, pair_file: str | None, file_format: Sequence[str] = (), text: str = A_TEXT
) -> list[list[str]]:
    """Return the commands that are of use after a run, as words.

    Args:
        directory: its output directory.
        pair_file: rows to answer, where a row has two texts; None: it has one, which can be typed.
        file_format: the options with which `pair_file` can be read.
        text: one that the model can answer.
    """
    asked = ["--text", text] if pair_file is None else ["--data", pair_file, *file_format]
    model = ["--model", as_value(directory)]
    return [["kdistill", "predict", *model, *asked], ["kdistill", "report", *model]]


def as_value(path: str) -> str:
    """Return a path that follows an option: one that begins with a dash would be taken for another option."""
    return f"./{path}" if path.startswith("-") else path


def _to_paste(words: Sequence[str]) -> str:
    """Return a command to paste into a shell, with a line end before the options that exceed `WIDTH`."""
    program, *rest = (f'"{A_TEXT}"' if word == A_TEXT else shlex.quote(word) for word in words)
    options = [f"{program} {rest[0]}"]
    for word in rest[1:]:
        if word.startswith("--"):
            options.append(word)
        else:
            options[-1] += f" {word}"
    lines = [f"  {options[0]}"]
    for option in options[1:]:
        if len(lines[-1]) + len(option) + 3 > WIDTH:
            lines[-1] += " \\"
            lines.append(f"      {option}")
        else:
            lines[-1] += f" {option}"
    return "\n".join(lines)
