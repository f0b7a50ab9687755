"""The study of small students: which recipe, for which student, on six data sets (docs/accuracy.md).

`RUNS` lists what is tried. A run is one call of `kdistill distill` with the weights of its last epoch, trained on a
part of the training rows and measured on rows held out of them (`benchmarks.study_rows`), with the first seed. `--dev`
then measures on the development rows, with all seeds: of each student the plain recipe, and the one with the best
figure on the held-out rows. Teachers are fine-tuned by `TEACHERS` on the rows that students learn from while recipes
are chosen, so that neither has seen the others; those of SST-2 are given, and have seen all training rows.

Figures, models and teachers are kept in --results; a call goes on where an earlier one ended. --only-kept prints the
tables of what is there. The teacher cache is in --results too unless KDISTILL_CACHE is set.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import kdistill as kd
from examples.pretrained import MINILM, MPNET, fetch_pretrained
from kdistill.report.assessment import mcnemar

from . import accuracy, common, first_hour, study_rows
from .kept_runs import KeptRuns, with_interval

SEEDS = (33, 34, 35)
"""Fixed beforehand; recipes are chosen with the first."""
SHAPE, WIDER, COPIED, PRETRAINED = "L2-H128-A2", "L4-H256-A4", "L3-H384-A12", "paraphrase-minilm-l3"
EQUAL_WORDS = f"{SHAPE}, equal words"
"""The shape, with a first layer that begins by looking at equal words; an experiment, see `looking_at_equal_words`."""
SIX_LAYERS = "all-minilm-l6"
"""L6-H384 pretrained: the model that teachers of 6 layers are made of, as a student."""
SIX, TWELVE = "6 layers", "12 layers"
PLAIN = "plain"
EQUAL_WEIGHT = 0.75
STUDIED = ("sst2", "banking77", "goemotions", "stsb", "wnut17")
"""The data sets on which every size of a student, every kind of recipe and both teachers are tried."""
METRICS = {"stsb": "pearson", "goemotions": "f1", "wnut17": "f1"}
"""Of what is not measured by its accuracy."""


STUDENTS = (SHAPE, EQUAL_WORDS, WIDER, COPIED, PRETRAINED, SIX_LAYERS)


class Teacher(NamedTuple):
    """How a teacher is fine-tuned.

    Attributes:
        options: of `kdistill finetune`.
        given: a directory that is taken instead; None: it is fine-tuned.
        pretrained: the model of PyPI that it begins with; None: that of the command.
    """

    options: str
    given: Path | None = None
    pretrained: str | None = None


_FINETUNED = "--per-device-train-batch-size 32 --learning-rate 1e-4 --warmup-ratio 0.1 --seed 33 --bf16"
_FINETUNED_TWELVE = "--per-device-train-batch-size 32 --learning-rate 2e-5 --warmup-ratio 0.1 --seed 33 --bf16"
TEACHERS: Mapping[tuple[str, str], Teacher] = {
    ("stsb", SIX): Teacher(f"--num-train-epochs 4 --problem-type regression {_FINETUNED}"),
    ("banking77", SIX): Teacher(f"--num-train-epochs 6 {_FINETUNED}"),
    ("clinc150", SIX): Teacher(f"--num-train-epochs 4 {_FINETUNED}"),
    ("sst2", SIX): Teacher("", common.SHARED / "models" / "minilm-l6-sst2"),
    ("sst2", TWELVE): Teacher("", Path("build", "mpnet-sst2")),  # where benchmarks.mpnet_teacher leaves it
    ("goemotions", SIX): Teacher(f"--num-train-epochs 3 --problem-type multi_label_classification {_FINETUNED}"),
    ("wnut17", SIX): Teacher(f"--num-train-epochs 5 {_FINETUNED}"),
    ("stsb", TWELVE): Teacher(f"--num-train-epochs 4 --problem-type regression {_FINETUNED_TWELVE}", None, MPNET),
    ("banking77", TWELVE): Teacher(f"--num-train-epochs 6 {_FINETUNED_TWELVE}", None, MPNET),
    ("goemotions", TWELVE): Teacher(
        f"--num-train-epochs 3 --problem-type multi_label_classification {_FINETUNED_TWELVE}", None, MPNET
    ),
    ("wnut17", TWELVE): Teacher(f"--num-train-epochs 5 {_FINETUNED_TWELVE}", None, MPNET),
}
"""By data set and name. A larger teacher is another name here, and the `teacher` of runs below."""


NAMES = ("data", "student", "teacher", "recipe")
"""What tells a run apart."""


class Run(NamedTuple):
    """What is tried.

    Attributes:
        data: the data set, of `study_rows.NAMES`.
        student: a shape, `PRETRAINED` or `SIX_LAYERS`.
        name: of the recipe.
        options: of `kdistill distill`.
        label_free: rows without a label that are added: of which kind, see `study_rows.LABEL_FREE`, and how many.
        teacher: its name in `TEACHERS`.
    """

    data: str
    student: str
    name: str
    options: str = ""
    label_free: tuple[str, int] = ("", 0)
    teacher: str = SIX

    def names(self) -> tuple[str, str, str, str]:
        """Return its `NAMES`."""
        return self.data, self.student, self.teacher, self.name

    def slug(self, seed: int) -> str:
        """Return the name of the run's files."""
        teacher = "" if self.teacher == SIX else f"-{self.teacher}"
        return re.sub(r"[^a-z0-9.]+", "-", f"{self.data}-{self.student}-{self.name}{teacher}-{seed}".lower())


_NO_DROPOUT = " ".join(accuracy.dropout("0"))
_NEW_LAYERS = "--per-device-train-batch-size 64 --learning-rate 1e-3 --warmup-ratio 0.1"
_SMALL_BATCH = "--per-device-train-batch-size 32 --learning-rate 1e-3 --warmup-ratio 0.1"
_COPIED_LAYERS = "--per-device-train-batch-size 32 --learning-rate 2e-4 --warmup-ratio 0.1"

RUNS = (
    # Pairs: from a shape, with more and more pairs that the teacher labels; then students that begin with layers.
    Run("stsb", SHAPE, PLAIN),
    Run("stsb", SHAPE, "8 epochs", f"--num-train-epochs 8 {_SMALL_BATCH}"),
    Run("stsb", SHAPE, "16 copies", f"--augment 16 --num-train-epochs 4 {_NEW_LAYERS} {_NO_DROPOUT}"),
    Run("stsb", SHAPE, "20,000 pairs", f"--num-train-epochs 4 {_NEW_LAYERS}", ("pairs", 20_000)),
    Run("stsb", SHAPE, "20,000 near pairs", f"--num-train-epochs 4 {_NEW_LAYERS}", ("near pairs", 20_000)),
    Run(
        "stsb",
        SHAPE,
        "100,000 near pairs",
        f"--num-train-epochs 4 {_NEW_LAYERS} {_NO_DROPOUT}",
        ("near pairs", 100_000),
    ),
    Run("stsb", EQUAL_WORDS, "8 epochs", f"--num-train-epochs 8 {_SMALL_BATCH}"),
    Run("stsb", EQUAL_WORDS, "20,000 pairs", f"--num-train-epochs 4 {_NEW_LAYERS}", ("pairs", 20_000)),
    Run("stsb", COPIED, PLAIN),
    Run("stsb", COPIED, "learning rate 2e-4", f"--num-train-epochs 3 {_COPIED_LAYERS}"),
    Run("stsb", COPIED, "20,000 near pairs", f"--num-train-epochs 3 {_COPIED_LAYERS}", ("near pairs", 20_000)),
    Run("stsb", PRETRAINED, PLAIN),
    Run("stsb", PRETRAINED, "learning rate 2e-4", f"--num-train-epochs 3 {_COPIED_LAYERS}"),
    Run("stsb", PRETRAINED, "20,000 near pairs", f"--num-train-epochs 3 {_COPIED_LAYERS}", ("near pairs", 20_000)),
    Run("stsb", WIDER, PLAIN),
    Run(
        "stsb",
        WIDER,
        "100,000 near pairs",
        f"--num-train-epochs 4 {_NEW_LAYERS} {_NO_DROPOUT}",
        ("near pairs", 100_000),
    ),
    # Intents.
    Run("banking77", SHAPE, PLAIN),
    Run("banking77", SHAPE, "8 copies", f"--augment 8 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}"),
    Run("banking77", SHAPE, "24 copies", f"--augment 24 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}"),
    Run("clinc150", SHAPE, PLAIN),
    Run("clinc150", SHAPE, "8 copies", f"--augment 8 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}"),
    Run("clinc150", SHAPE, "24 copies", f"--augment 24 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}"),
    # Sentiment: the recipe of before, longer, with more copies, with texts from elsewhere.
    Run("sst2", SHAPE, PLAIN),
    Run("sst2", SHAPE, "24 copies", f"--augment 24 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}"),
    Run(
        "sst2",
        SHAPE,
        "24 copies, 40,000 texts",
        f"--augment 24 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}",
        ("texts", 40_000),
    ),
    Run("sst2", SHAPE, "24 copies, 12 epochs", f"--augment 24 --num-train-epochs 12 {_NEW_LAYERS} {_NO_DROPOUT}"),
    Run("sst2", SHAPE, "8 copies", f"--augment 8 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}"),
    Run(
        "sst2",
        SHAPE,
        "8 copies, sentences of reviews",
        f"--augment 8 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}",
        ("reviews", 30_000),
    ),
    Run(
        "sst2",
        SHAPE,
        "24 copies, sentences of reviews",
        f"--augment 24 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}",
        ("reviews", 30_000),
    ),
    Run("sst2", WIDER, PLAIN),
    Run("sst2", WIDER, "24 copies", f"--augment 24 --num-train-epochs 3 {_NEW_LAYERS} {_NO_DROPOUT}"),
    Run("sst2", PRETRAINED, PLAIN),
    Run("sst2", PRETRAINED, "4 copies", f"--augment 4 --num-train-epochs 3 {_COPIED_LAYERS}"),
    # The same from the teacher of 12 layers.
    Run("sst2", SHAPE, PLAIN, teacher=TWELVE),
    Run("sst2", SHAPE, "8 copies", f"--augment 8 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}", teacher=TWELVE),
    Run("sst2", PRETRAINED, "4 copies", f"--augment 4 --num-train-epochs 3 {_COPIED_LAYERS}", teacher=TWELVE),
    # Several labels, and tags.
    Run("goemotions", SHAPE, PLAIN),
    Run(
        "goemotions", SHAPE, "8 copies", f"--augment 8 --num-train-epochs 4 --temperature 1 {_NEW_LAYERS} {_NO_DROPOUT}"
    ),
    Run("wnut17", SHAPE, PLAIN),
    Run("wnut17", SHAPE, "24 copies", f"--augment 24 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}"),
    Run("wnut17", PRETRAINED, PLAIN),
    Run("wnut17", PRETRAINED, "8 copies", f"--augment 8 --num-train-epochs 3 {_COPIED_LAYERS}"),
    *(Run(data, PRETRAINED, PLAIN) for data in ("banking77", "goemotions")),
    # Intermediate losses: relations between the words of the last layers, which no width or head stands against.
    *(Run(data, SHAPE, "relations", "--matches minilm") for data in STUDIED),
    *(Run(data, SHAPE, "last hidden states", "--matches distilbert") for data in STUDIED),
    *(
        Run(data, PRETRAINED, "relations", f"--matches minilm --num-train-epochs 3 {_COPIED_LAYERS}")
        for data in STUDIED
    ),
    # Rows without a label, as near to the task as other data sets have them.
    Run(
        "banking77",
        SHAPE,
        "8 copies, 18,000 queries",
        f"--augment 8 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}",
        ("queries", 18_000),
    ),
    Run(
        "goemotions",
        SHAPE,
        "8 copies, 40,000 sentences",
        f"--augment 8 --num-train-epochs 4 --temperature 1 {_NEW_LAYERS} {_NO_DROPOUT}",
        ("sentences", 40_000),
    ),
    Run(
        "wnut17",
        SHAPE,
        "24 copies, 40,000 comments",
        f"--augment 24 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}",
        ("comments", 40_000),
    ),
    # Wider and pretrained students, with and without copies, where they are not above.
    *(Run(data, WIDER, PLAIN) for data in ("banking77", "goemotions", "wnut17")),
    Run("banking77", WIDER, "24 copies", f"--augment 24 --num-train-epochs 3 {_NEW_LAYERS} {_NO_DROPOUT}"),
    Run(
        "goemotions", WIDER, "8 copies", f"--augment 8 --num-train-epochs 3 --temperature 1 {_NEW_LAYERS} {_NO_DROPOUT}"
    ),
    Run("wnut17", WIDER, "24 copies", f"--augment 24 --num-train-epochs 3 {_NEW_LAYERS} {_NO_DROPOUT}"),
    *(
        Run(data, PRETRAINED, "4 copies", f"--augment 4 --num-train-epochs 3 {_COPIED_LAYERS}")
        for data in ("banking77", "goemotions", "stsb")
    ),
    # 6 layers as a student, of teachers that are no smaller.
    *(Run(data, SIX_LAYERS, PLAIN) for data in STUDIED),
    *(Run(data, SIX_LAYERS, "4 copies", f"--augment 4 --num-train-epochs 3 {_COPIED_LAYERS}") for data in STUDIED),
    # From teachers of 12 layers; that of SST-2 is above.
    *(Run(data, SHAPE, PLAIN, teacher=TWELVE) for data in STUDIED if data != "sst2"),
    *(
        Run(
            data,
            SHAPE,
            "8 copies",
            f"--augment 8 --num-train-epochs 6 {_NEW_LAYERS} {_NO_DROPOUT}",
            teacher=TWELVE,
        )
        for data in STUDIED
        if data != "sst2"
    ),
    *(Run(data, SIX_LAYERS, PLAIN, teacher=TWELVE) for data in STUDIED),
    *(
        Run(data, SIX_LAYERS, "4 copies", f"--augment 4 --num-train-epochs 3 {_COPIED_LAYERS}", teacher=TWELVE)
        for data in STUDIED
    ),
)
"""In the order in which they are made."""


class Study:
    """The runs, their files and their figures.

    Args:
        options: of the command.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._kept = KeptRuns(options.results / "figures")

    def files(self, data: str) -> study_rows.Files:
        """Return the rows of a data set."""
        return study_rows.files_of(data, self._options.data_dir, self._options.results / "rows")

    def teacher(self, data: str, name: str) -> Path:
        """Return the directory of a teacher, which is fine-tuned unless it is there."""
        teacher, directory = (
            TEACHERS[data, name],
            self._options.results / "teachers" / f"{data}-{name.replace(' ', '-')}",
        )
        if teacher.given is not None or directory.is_dir():
            return teacher.given or directory
        unfinished = directory.with_name(f"unfinished-{directory.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        files, name = self.files(data), teacher.pretrained
        model = self._options.model if name is None else fetch_pretrained(Path("build", "pretrained", name), name)
        words = ("--train", str(files.fit), "--eval", str(files.held_out), "--output-dir", str(unfinished))
        threads = ("--threads", str(self._options.threads))
        first_hour.run(
            "finetune",
            "--model",
            str(model),
            *words,
            *threads,
            *accuracy.LAST_EPOCH,
            *shlex.split(teacher.options),
        )
        return unfinished.rename(directory)

    def taught_by(self, data: str, name: str) -> Mapping[str, Any]:
        """Return the figures of a teacher on both parts."""
        settings = {"options": TEACHERS[data, name].options}
        slug = f"{data}-teacher-{name.replace(' ', '-')}"
        return self._kept.figures(slug, settings, lambda: self._measured(data, self.teacher(data, name), held_out=True))

    def figures(self, run: Run, seed: int, *, dev: bool) -> Mapping[str, Any]:
        """Return the figures of a run, which is made unless they are kept.

        Args:
            run: the run.
            seed: of the student's new weights and of dropout; the copies and the order of the rows are always the same.
            dev: train on what the development rows are measured with, and measure on these.
        """
        files, name = self.files(run.data), self._name(run, seed, dev=dev)
        model = self._options.results / "models" / name
        settings = {"options": run.options, "label_free": run.label_free, "teacher": run.teacher}
        source = files.train if dev else files.fit
        trained = dict(self._kept.figures(name, settings, lambda: self._trained(run, seed, source, model)))
        if not dev:
            return trained
        return trained | dict(self._kept.figures(f"{name}-dev", settings, lambda: self._measured(run.data, model)))

    def holds(self, run: Run, seed: int, *, dev: bool) -> bool:
        """Return whether the figures of a run are kept."""
        return f"{self._name(run, seed, dev=dev)}{'-dev' if dev else ''}" in self._kept

    def _name(self, run: Run, seed: int, *, dev: bool) -> str:
        files = self.files(run.data)
        return run.slug(seed) + ("-all" if dev and files.train.read_bytes() != files.fit.read_bytes() else "")

    def _trained(self, run: Run, seed: int, source: Path, model: Path) -> Mapping[str, Any]:
        """Train a student and return its metric on the held-out rows, and what it cost."""
        options, files = self._options, self.files(run.data)
        train = study_rows.with_label_free(source, *run.label_free, options.data_dir, options.model)
        teacher = self.teacher(run.data, run.teacher)
        inputs = argparse.Namespace(teacher=teacher, train=train, eval=files.held_out, threads=options.threads)
        pretrained = {PRETRAINED: common.SHARED / "models" / PRETRAINED, SIX_LAYERS: options.model}
        student = str(pretrained.get(run.student, run.student))
        if run.student == EQUAL_WORDS:
            start = options.results / "starts" / model.name
            looking_at_equal_words(teacher, start, seed)
            student = str(start)
        shutil.rmtree(model, ignore_errors=True)
        before = first_hour.cpu_minutes()
        words = ["--student", student, "--data-seed", str(SEEDS[0]), *shlex.split(run.options)]
        figures: Mapping[str, Any] = accuracy.distill(inputs, words, model, seed)
        return {
            "held_out": figures[f"eval_{metric_of(run.data)}"],
            "rows": len(study_rows.read(train)),
            "cpu_minutes": first_hour.cpu_minutes() - before,
            "train_loss": figures["train_loss"],
        }

    def _measured(self, data: str, model: Path, *, held_out: bool = False) -> Mapping[str, Any]:
        """Return the metric of a model on the development rows, with its answers, and on the held-out rows if asked."""
        files, metric = self.files(data), metric_of(data)
        kind = kd.AutoModelForTokenClassification if data == "wnut17" else kd.AutoModelForSequenceClassification
        args = kd.TrainingArguments(str(self._options.results / "scratch"), report_to="none", disable_tqdm=True)
        trainer = kd.Trainer(
            kind.from_pretrained(model), args, processing_class=kd.AutoTokenizer.from_pretrained(model)
        )
        found = trainer.predict(str(files.dev))
        figures = {"dev": found.metrics[f"test_{metric}"]}
        if metric == "accuracy":
            figures["right"] = (found.predictions.argmax(axis=1) == found.label_ids).astype(int).tolist()
        if held_out:
            figures["held_out"] = trainer.evaluate(str(files.held_out))[f"eval_{metric}"]
        return figures


def looking_at_equal_words(teacher: Path, directory: Path, seed: int) -> None:
    """Write a student of the shape whose first layer begins by attending to equal words, in the other text too.

    Each head's products for queries and keys begin near `EQUAL_WEIGHT` times the same half of the embeddings, after the
    mimetic initialisation of Trockman and Kolter (arXiv:2305.09828).

    Args:
        teacher: the teacher's directory, whose embeddings the student takes.
        directory: to write.
        seed: of the other weights.
    """
    model = kd.AutoModelForSequenceClassification.from_pretrained(teacher)
    student = type(model).from_teacher(model, model.config.replace(**common.STUDENT_SHAPE), seed=seed)
    width, heads = student.config.hidden_size, student.config.num_attention_heads
    share = np.concatenate([np.eye(width, dtype=np.float32)[head::heads] for head in range(heads)])
    state = student.state_dict()
    for name in state:
        if name.endswith(("layer.0.attention.self.query.weight", "layer.0.attention.self.key.weight")):
            state[name] = state[name] + np.float32(EQUAL_WEIGHT) * share
    student.load_state_dict(state)
    student.save_pretrained(directory)
    kd.AutoTokenizer.from_pretrained(teacher).save_pretrained(directory)


def metric_of(data: str) -> str:
    """Return the metric of a data set."""
    return METRICS.get(data, "accuracy")


def tried(study: Study, runs: Sequence[Run]) -> list[tuple[Any, ...]]:
    """Return a line for each run: its figure on the held-out rows, and the teacher's."""
    lines: list[tuple[Any, ...]] = []
    for run in runs:
        teacher, figures = study.taught_by(run.data, run.teacher), study.figures(run, SEEDS[0], dev=False)
        found, minutes = figures["held_out"], round(figures["cpu_minutes"], 1)
        share = f"{100 * found / teacher['held_out']:.1f} %"
        lines.append((*run.names(), figures["train_loss"], found, teacher["held_out"], share, minutes))
    return lines


def chosen(study: Study, runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Return of each student and teacher the plain run and the best on the held-out rows."""
    of_student: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        of_student.setdefault((run.data, run.student, run.teacher), []).append(run)
    best = {
        student: max(of, key=lambda run: study.figures(run, SEEDS[0], dev=False)["held_out"])
        for student, of in of_student.items()
    }
    return [tuple(dict.fromkeys((of[0], best[student]))) for student, of in of_student.items()]


def measured(study: Study, runs: Sequence[Run], options: argparse.Namespace) -> list[tuple[Any, ...]]:
    """Return the lines of the development rows: seeds, mean and interval, share of the teacher, McNemar's test."""
    lines: list[tuple[Any, ...]] = []
    for pair in chosen(study, runs):
        plain: list[Mapping[str, Any]] = []
        for run in pair:
            seeds = [seed for seed in options.seeds if not options.only_kept or study.holds(run, seed, dev=True)]
            if not seeds:
                continue
            of = [study.figures(run, seed, dev=True) for seed in seeds]
            teacher, values = study.taught_by(run.data, run.teacher), [figures["dev"] for figures in of]
            tests = ""
            if plain and "right" in of[0]:
                rights = [[np.array(figures["right"], bool) for figures in side] for side in (of, plain)]
                tests = ", ".join(f"{mcnemar(*two).p_value:.2g}" for two in zip(*rights, strict=False))
            each = ", ".join(f"{value:.4f}" for value in values)
            share = f"{100 * np.mean(values) / teacher['dev']:.1f} %"
            lines.append((*run.names(), each, with_interval(values, 4), teacher["dev"], share, tests))
            plain = plain or of
    return lines


def main() -> None:
    """Read the options and measure."""
    parser = common.parser(__doc__)
    parser.add_argument("--data", nargs="+", choices=study_rows.NAMES, default=list(study_rows.NAMES), help="data sets")
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), help="students")
    parser.add_argument("--runs", nargs="+", help="the names of the recipes (default: all)")
    parser.add_argument("--dev", action="store_true", help="measure on the development rows what has been chosen")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of --dev")
    parser.add_argument("--only-kept", action="store_true", help="make no run: the tables of those that are there")
    parser.add_argument("--data-dir", type=Path, default=common.SHARED / "data", help="where the data sets are")
    parser.add_argument("--model", type=Path, help=f"the pretrained model of the teachers (default: {MINILM} of PyPI)")
    parser.add_argument("--results", type=Path, default=Path("build", "study"), help="where everything is kept")
    options = parser.parse_args()
    os.environ.setdefault("KDISTILL_CACHE", str(options.results / "cache"))
    kd.set_num_threads(options.threads)
    options.model = options.model or fetch_pretrained(Path("build", "pretrained", MINILM))
    study = Study(options)
    runs = [
        run
        for run in RUNS
        if run.data in options.data and run.student in options.students and run.name in (options.runs or (run.name,))
        if not options.only_kept or study.holds(run, SEEDS[0], dev=False)
    ]
    if options.dev:
        seeds = f"seeds {', '.join(map(str, options.seeds))}"
        header = [*NAMES, seeds, "mean, 95 % interval", "the teacher's", "share", "McNemar's p, beside plain"]
        lines = measured(study, runs, options)
    else:
        header = [*NAMES, "training loss", "held-out rows", "the teacher's", "share", "CPU minutes"]
        lines = tried(study, runs)
    common.report("Study of small students", common.table(header, lines), {"lines": lines}, options)


if __name__ == "__main__":
    main()
