"""Students with a teacher beside the same without: a second step of distillation, for entities, slots and answers.

The teacher is the model of 6 layers that `benchmarks.task_accuracy` fine-tunes with its first seed. The students are

- `L3`: a pretrained BERT of 3 layers and the teacher's width (--student), with a new head: the DistilBERT paper's
  experiment (arXiv:1910.01108, section 3) in small;
- `L2-H128`: a BERT-Tiny whose embeddings are the teacher's on 128 principal components, and whose layers are new.

Without a teacher a student has the same start, recipe and order of rows; the labels alone are its loss. Figures of each
run are kept in --results; a call goes on where an earlier one ended. Recipes are tried with --held-out, for students
without a teacher too.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kdistill as kd

from . import common
from .kept_runs import KeptRuns, with_interval
from .task_accuracy import KDISTILL, run, teacher_directory
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
    with_options,
)

PRETRAINED_STUDENT, NEW_STUDENT = "L3", "L2-H128"
TAUGHT, ALONE = "with a teacher", "without"
NEW: Mapping[str, Recipe] = {
    "wnut17": Recipe(59, 32, 1e-3),
    "bc5cdr": Recipe(44, 32, 1e-3),
    "snips": Recipe(16, 32, 1e-3),
    "squadshifts": Recipe(31, 32, 1e-3),
}
"""Recipes for students with new layers: what `--recipe auto` chooses for so many rows (docs/recipe.md)."""


def recipe_of(options: argparse.Namespace, name: str, student: str) -> Recipe:
    """Return the recipe of a student on a data set."""
    return with_options((PRETRAINED if student == PRETRAINED_STUDENT else NEW)[name], options)


def measure_teacher(options: argparse.Namespace, name: str) -> Mapping[str, float]:
    """Return the figures of the teacher, which is fine-tuned by its own recipe if it has not been."""
    own = argparse.Namespace(**{**vars(options), "epochs": None, "learning_rate": None})
    return run(own, name, KDISTILL, SEEDS[0])


def new_student(options: argparse.Namespace, teacher: Any, rows: TaskRows, student: str, seed: int) -> Any:
    """Return a student as it is before the first step."""
    if student == PRETRAINED_STUDENT:
        return new_model(options.student, rows, seed)
    config = teacher.config.replace(**common.STUDENT_SHAPE)
    return type(teacher).from_teacher(teacher, config, seed=seed)


def train(options: argparse.Namespace, name: str, student: str, seed: int, *, taught: bool) -> Mapping[str, float]:
    """Train a student and return the figures of the run."""
    rows, directory = rows_for(options, name), teacher_directory(options, name)
    kind = kd.AutoModelForQuestionAnswering if rows.id2label is None else kd.AutoModelForTokenClassification
    teacher = kind.from_pretrained(directory).freeze()
    model = new_student(options, teacher, rows, student, seed)
    tokenizer = kd.AutoTokenizer.from_pretrained(directory)
    recipe = recipe_of(options, name, student)
    return trained(model, tokenizer, rows, recipe, seed, teacher=teacher if taught else None)


def runs_of(options: argparse.Namespace, name: str, student: str) -> dict[str, list[Mapping[str, float]]]:
    """Return the figures of all seeds with a teacher and without; measured unless they are kept."""
    kept, recipe = KeptRuns(directory_of(options)), recipe_of(options, name, student)
    settings = {"recipe": recipe._asdict(), "teacher": PRETRAINED[name]._asdict()}
    runs: dict[str, list[Mapping[str, float]]] = {TAUGHT: [], ALONE: []}
    for seed in options.seeds:
        for side, of in runs.items():
            label = f"{name}-{student}-{side.replace(' ', '-')}-{seed}"
            label += f"-{shown(recipe)}" if options.held_out else ""
            measure = functools.partial(train, options, name, student, seed, taught=side == TAUGHT)
            of.append(kept.figures(label, settings, measure))
    return runs


def lines_of(options: argparse.Namespace, name: str) -> list[tuple[object, ...]]:
    """Return the lines of a data set: its teacher, and the students with their means, intervals and differences."""
    teacher = measure_teacher(options, name)
    metrics = [metric for metric in teacher if metric != "seconds"]
    digits = 2 if "exact_match" in metrics else 4  # answers are measured in percent
    lines: list[tuple[object, ...]] = []
    for metric in metrics:
        lines.append((name, metric, "teacher", "", f"{teacher[metric]:.{digits}f}", ""))
        for student in options.students:
            runs = runs_of(options, name, student)
            values = {side: [figures[metric] for figures in of] for side, of in runs.items()}
            gain = [one - other for one, other in zip(values[TAUGHT], values[ALONE], strict=True)]
            cells = (with_interval(of, digits) for of in (values[ALONE], values[TAUGHT], gain))
            lines.append((name, metric, student, *cells))
    return lines


def main() -> None:
    """Read the options and measure."""
    parser = common.parser(__doc__)
    add_options(parser)
    models = common.SHARED / "models"
    parser.add_argument("--students", nargs="+", choices=(PRETRAINED_STUDENT, NEW_STUDENT),
                        default=[PRETRAINED_STUDENT, NEW_STUDENT], help="students")  # fmt: skip
    parser.add_argument("--student", type=Path, default=models / "paraphrase-minilm-l3", help="the student L3")
    options = parser.parse_args()
    check_options(options, parser)
    lines = [line for name in options.data for line in lines_of(options, name)]
    header = ["data", "metric", "", ALONE, TAUGHT, "difference, seed by seed"]
    recipes = {f"{name}, {s}": recipe_of(options, name, s)._asdict() for name in options.data for s in options.students}
    text = common.table(header, lines) + f"\n\nSeeds {', '.join(map(str, options.seeds))}; mean and 95 % interval."
    text += "".join(f"\n\n{name}: {recipe}" for name, recipe in recipes.items())
    common.report("Students with a teacher and without", text, {"lines": lines, "recipes": recipes}, options)


if __name__ == "__main__":
    main()
