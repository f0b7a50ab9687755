"""Entity F1, exact match and F1 of answers: kdistill beside PyTorch, fine-tuned by the same recipe.

Both sides start from one pretrained model with one new head, and read the same rows in the same batches
(`benchmarks.torch_tasks`). Figures of each run are kept in --results; a call goes on where an earlier one ended, and
the table has the runs of the options. --sides kdistill needs no PyTorch. Recipes are tried with --held-out.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path

import kdistill as kd
from kdistill.tasks.registry import task_for
from kdistill.train.encoding import encode_for

from . import common
from .kept_runs import KeptRuns, with_interval
from .task_rows import TaskRows
from .task_training import (
    PRETRAINED,
    SEEDS,
    Recipe,
    add_options,
    check_options,
    directory_of,
    new_model,
    rows_for,
    shown,
    trained,
    trainer_for,
    with_options,
)

KDISTILL, PYTORCH = "kdistill", "pytorch"


def by_kdistill(
    options: argparse.Namespace, rows: TaskRows, recipe: Recipe, seed: int, keep: Path | None
) -> Mapping[str, float]:
    """Fine-tune with kdistill and return the figures of the run."""
    model, tokenizer = new_model(options.model, rows, seed), kd.AutoTokenizer.from_pretrained(options.model)
    return trained(model, tokenizer, rows, recipe, seed, keep=keep)


def by_pytorch(options: argparse.Namespace, rows: TaskRows, recipe: Recipe, seed: int) -> Mapping[str, float]:
    """Fine-tune with PyTorch and return the figures of the run."""
    import torch

    from . import torch_tasks

    torch.set_num_threads(options.threads)
    model, tokenizer = new_model(options.model, rows, seed), kd.AutoTokenizer.from_pretrained(options.model)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        trainer = trainer_for(model, tokenizer, rows, recipe, seed, Path(directory, "run"))
        assert trainer.train_dataset is not None
        peer, seconds = torch_tasks.train(Path(directory), trainer.train_dataset, recipe, seed)
        evaluated = encode_for(model.config, rows.eval, trainer.processing_class, trainer.args)
    metrics = task_for(model.config, evaluated.labels).evaluate(torch_tasks.outputs(peer, evaluated), evaluated.targets)
    return {name: float(metrics[name]) for name in rows.metrics} | {"seconds": seconds}


def run(options: argparse.Namespace, name: str, side: str, seed: int) -> Mapping[str, float]:
    """Return the figures of a run, which are measured unless they are kept."""
    recipe = with_options(PRETRAINED[name], options)
    settings = {"recipe": recipe._asdict(), "model": options.model.name}
    label = f"{name}-{side}-{seed}" + (f"-{shown(recipe)}" if options.held_out else "")
    measure = functools.partial(by_pytorch, options)
    if side == KDISTILL:
        keep = teacher_directory(options, name) if (seed, recipe) == (SEEDS[0], PRETRAINED[name]) else None
        measure = functools.partial(by_kdistill, options, keep=keep)
    kept = KeptRuns(directory_of(options))
    return kept.figures(label, settings, lambda: measure(rows_for(options, name), recipe, seed))


def teacher_directory(options: argparse.Namespace, name: str) -> Path:
    """Return where the model of the first seed is, the teacher of `taught_students`."""
    return directory_of(options) / f"{name}-teacher"


def lines_of(options: argparse.Namespace, name: str) -> list[tuple[object, ...]]:
    """Return the lines of a data set: its metrics on each side, and the differences of the seeds."""
    runs = {side: [run(options, name, side, seed) for seed in options.seeds] for side in options.sides}
    lines: list[tuple[object, ...]] = []
    metrics = [metric for metric in runs[options.sides[0]][0] if metric != "seconds"]
    for metric in metrics:
        digits = 2 if "exact_match" in metrics else 4  # answers are measured in percent
        values = {side: [figures[metric] for figures in of] for side, of in runs.items()}
        if len(values) == 2:
            one, other = values.values()
            values[" - ".join(values)] = [a - b for a, b in zip(one, other, strict=True)]
        for side, of in values.items():
            each = ", ".join(f"{value:.{digits}f}" for value in of)
            seconds = [f"{figures['seconds']:.0f}" for figures in runs.get(side, ())]
            lines.append((name, metric, side, each, with_interval(of, digits), ", ".join(seconds)))
    return lines


def main() -> None:
    """Read the options and measure."""
    parser = common.parser(__doc__)
    add_options(parser)
    parser.add_argument("--sides", nargs="+", choices=(KDISTILL, PYTORCH), default=[KDISTILL, PYTORCH], help="sides")
    options = parser.parse_args()
    check_options(options, parser)
    lines = [line for name in options.data for line in lines_of(options, name)]
    seeds = f"seeds {', '.join(map(str, options.seeds))}"
    text = common.table(["data", "metric", "", seeds, "mean, 95 % interval", "seconds of training"], lines)
    recipes = {name: with_options(PRETRAINED[name], options)._asdict() for name in options.data}
    text += "".join(f"\n\n{name}: {recipe}" for name, recipe in recipes.items())
    common.report("Tasks beside PyTorch", text, {"lines": lines, "recipes": recipes}, options)


if __name__ == "__main__":
    main()
