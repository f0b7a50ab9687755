"""Table 3 of FastFormers (arXiv:2010.13382) retold: step by step from a teacher in PyTorch to a small model in int8.

Every student is distilled from the teacher by `kdistill distill`, pruned in two rounds, after each of which the same
teacher teaches it again (`prune --rounds`), left with the word pieces of the training rows (`prune --vocabulary`, also
without the rounds), written in int8 (`quantize`), and exported as ONNX. The forms of a model are then measured beside
the teacher in PyTorch, one sentence at a time and in batches (`kdistill.bench.exports`): each in a process of its own,
rounds alternate. Accuracy is that of the evaluation rows in the very program that is timed.

The factor of a step is its sentences per second, one at a time, over those of the teacher in PyTorch beside it, which
has the number of threads that is best for it: one, or --threads. The last lines name the largest factor with its loss,
and the largest one at a loss of at most --most-points.

Models and figures are kept in --results: a call goes on where an earlier one ended, within a training too.
`benchmarks.mpnet_teacher` makes a teacher of 12 layers.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import kdistill as kd
from kdistill.bench.exports import Subject, bench_exports
from kdistill.data.columns import read_rows
from kdistill.data.dataset import encode
from kdistill.models.flops import forward_flops
from kdistill.system.files import json_text
from kdistill.system.output import new_directory

from . import common, first_hour
from .kept_runs import KeptRuns

TEACHER = "teacher"
SHORT, PRUNED, PRUNED_SHORT = ", vocabulary", ", pruned", ", pruned, vocabulary"
BASELINE = "pytorch-float32"
WANTED: Mapping[str, float] = {"whatever it loses": 234.0, "at most": 100.0}
"""Factors of FastFormers' abstract, and what is wanted where little may be lost."""
# No epoch is chosen by its accuracy on the evaluation rows: the weights are those of the last one.
_KEPT = (
    *("--save-strategy", "steps", "--save-steps", "500", "--save-total-limit", "1"),
    *("--no-load-best-model-at-end", "--eval-strategy", "epoch", "--resume", "--disable-tqdm"),
)
_PRETRAINED = (
    "--per-device-train-batch-size 32 --learning-rate 5e-5 --warmup-ratio 0.1 --alpha 0.2 --temperature 2 --bf16 "
    "--teacher-dtype int8"
)
_NEW = "--per-device-train-batch-size 64 --warmup-ratio 0.1 --alpha 0.5 --temperature 4 --augment 2"
_NO_DROPOUT = "--hidden-dropout-prob 0 --attention-probs-dropout-prob 0"  # which the model keeps


Asked = Sequence[tuple[Subject, Sequence[str]]]
"""What `bench_exports` is asked for."""


class Student(NamedTuple):
    """A student, and how it is made smaller.

    Attributes:
        name: in the table.
        start: what `--student` is, of the options and the teacher's configuration.
        distill: options of `kdistill distill`.
        heads, feed_forward: the shares that pruning keeps.
        recovery: options of the training after each of the two rounds.
    """

    name: str
    start: Callable[[argparse.Namespace, Any], str]
    distill: str
    heads: float
    feed_forward: float
    recovery: str


def _half(options: argparse.Namespace, teacher: Any) -> str:
    """Return the shape of a student that copies every second layer of the teacher."""
    return f"L{teacher.num_hidden_layers // 2}-H{teacher.hidden_size}-A{teacher.num_attention_heads}"


def _pretrained(options: argparse.Namespace, teacher: Any) -> str:
    """Return the directory of a small pretrained model."""
    return str(options.pretrained)


def _smallest(options: argparse.Namespace, teacher: Any) -> str:
    """Write the start of the smallest student, a BERT with BERT's vocabulary and the teacher's embeddings."""
    place = options.results / "models" / "start"
    if not place.is_dir():
        model = kd.AutoModelForSequenceClassification.from_pretrained(options.teacher)
        pieces, own = (kd.AutoTokenizer.from_pretrained(path) for path in (options.vocabulary, options.teacher))
        config = kd.BertConfig(
            vocab_size=len(pieces.get_vocab()),
            max_position_embeddings=teacher.max_tokens,
            id2label=teacher.id2label,
            **common.STUDENT_SHAPE,
        )
        known = {"vocabulary": pieces.get_vocab(), "teacher_vocabulary": own.get_vocab()}
        student = kd.BertForSequenceClassification.from_teacher(model, config, seed=common.SEED, **known)
        with new_directory(place) as scratch:
            student.save_pretrained(scratch)
            pieces.save_pretrained(scratch)
    return str(place)


STUDENTS = (
    Student(
        "half of the layers",
        _half,
        f"--num-train-epochs 2 {_PRETRAINED}",
        0.5,
        1 / 6,
        f"--num-train-epochs 1 {_PRETRAINED}",
    ),
    Student(
        "L6-H384",
        _pretrained,
        f"--num-train-epochs 2 {_PRETRAINED}",
        2 / 3,
        0.5,
        f"--num-train-epochs 1 {_PRETRAINED}",
    ),
    Student(
        "L2-H128",
        _smallest,
        f"--num-train-epochs 6 --learning-rate 1e-3 {_NEW} {_NO_DROPOUT}",
        0.5,
        0.5,
        f"--num-train-epochs 2 --learning-rate 5e-4 {_NEW}",
    ),
)
OF_TEACHER = (
    *("kdistill-float32", "kdistill-bfloat16", "kdistill-int8"),
    *("onnxruntime-float32", "onnxruntime-int8", "openvino-float32"),
)
OF_STUDENT = ("kdistill-float32", "kdistill-int8")
OF_LAST = ("kdistill-float32", "artefact", "onnxruntime-float32", "onnxruntime-int8", "openvino-float32")
ARTEFACT = ("artefact",)
STUDENT_ON_MORE, LAST_ON_MORE = ("kdistill-int8",), ("artefact", "onnxruntime-int8")
"""What runs the models of a student, and the last of them, on more threads, too."""


class Chain:
    """The models, which are made once.

    Args:
        options: of the command.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._kept = KeptRuns(options.results / "figures")
        self._config = kd.AutoConfig.from_pretrained(options.teacher)
        self._shortened = ("--max-steps", str(options.max_steps)) if options.max_steps else ()

    def train(self) -> Path:
        """Return the training rows: all, or --rows of them, which are drawn once."""
        count, options = self._options.rows, self._options
        if not count:
            return Path(options.train)
        options.results.mkdir(parents=True, exist_ok=True)
        target: Path = options.results / f"train-{count}.tsv"
        if not target.is_file():
            lines = options.train.read_text(encoding="utf-8").splitlines(keepends=True)
            chosen = np.random.default_rng(common.SEED).permutation(np.arange(1, len(lines)))[:count]
            target.write_text("".join([lines[0], *(lines[line] for line in chosen)]), encoding="utf-8")
        return target

    def models(self, student: Student) -> dict[str, Path]:
        """Return the directories of a student and of its smaller forms by name, in the order of the steps."""
        names = {what: student.name + what for what in ("", SHORT, PRUNED, PRUNED_SHORT)}
        places = {what: self._options.results / "models" / _slug(name) for what, name in names.items()}
        self._make(places[""], student.distill, partial(self._distilled, student, places[""]))
        words = f"--rounds 2 --heads {student.heads} --feed-forward {student.feed_forward} {student.recovery}"
        recovered = [*shlex.split(words), *self._shortened, *_KEPT, "--seed", str(common.SEED)]
        self._make(places[PRUNED], words, partial(self._pruned, places[""], places[PRUNED], recovered))
        words = "--vocabulary"
        for whole, short in (("", SHORT), (PRUNED, PRUNED_SHORT)):
            self._make(places[short], words, partial(self._pruned, places[whole], places[short], [words]))
        return {names[what]: place for what, place in places.items()}

    def _make(self, place: Path, settings: str, make: Callable[[], Mapping[str, Any]]) -> None:
        """Make a model unless it is kept, with what its making cost since the last interrupt."""

        def made() -> Mapping[str, Any]:
            before = first_hour.cpu_minutes()
            return {**make(), "cpu_minutes": first_hour.cpu_minutes() - before}

        of_all = {name: getattr(self._options, name) for name in ("rows", "max_steps")}
        self._kept.figures(place.name, of_all | {"options": settings, "teacher": str(self._options.teacher)}, made)
        if not place.is_dir():
            raise FileNotFoundError(f"{place} is gone, and its figures are kept; delete {self._options.results}")

    def _distilled(self, student: Student, place: Path) -> Mapping[str, Any]:
        options = self._options
        figures = first_hour.run(
            "distill",
            *("--teacher", str(options.teacher), "--student", student.start(options, self._config)),
            *("--train", str(self.train()), "--eval", str(options.eval), "--output-dir", str(place)),
            *("--threads", str(options.threads), "--seed", str(common.SEED)),
            *(*shlex.split(student.distill), *self._shortened, *_KEPT),
        )
        return {name: figures[name] for name in ("eval_accuracy", "train_loss")}

    def _pruned(self, source: Path, place: Path, words: Sequence[str]) -> Mapping[str, Any]:
        given = [*words]
        if "--rounds" in given:
            given += ["--teacher", str(self._options.teacher), "--eval", str(self._options.eval)]
        else:
            shutil.rmtree(place, ignore_errors=True)
        files = ("--model", str(source), "--data", str(self.train()), "--output", str(place))
        figures = first_hour.run("prune", *files, "--threads", str(self._options.threads), *given)
        return {name: figures[name] for name in ("num_parameters", "parameters_kept", "operations_kept", "heads")}


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-").lower()


def subjects(models: Mapping[str, Path], options: argparse.Namespace) -> dict[str, Subject]:
    """Return models with the evaluation rows as each reads them."""
    found = {}
    for name, directory in models.items():
        rows = encode(read_rows(options.eval), kd.AutoTokenizer.from_pretrained(directory))
        count = min(options.eval_rows or len(rows), len(rows))
        found[name] = Subject(name, directory, rows.take(np.arange(count)), threads=1)
    return found


def steps_of(models: Mapping[str, Subject], threads: int) -> Asked:
    """Return what a student's models are measured in: one thread, and in int8 more, too."""
    whole, short, pruned, last = models.values()
    asked = [
        (whole, OF_STUDENT, STUDENT_ON_MORE),
        (short, ARTEFACT, ARTEFACT),
        (pruned, OF_STUDENT, STUDENT_ON_MORE),
        (last, OF_LAST, LAST_ON_MORE),
    ]
    steps: list[tuple[Subject, Sequence[str]]] = []
    for of, programs, on_more in asked:
        steps.append((of, programs))
        if threads > 1:
            steps.append((of._replace(threads=threads), on_more))
    return steps


def measured(asked: Asked, batch_size: int) -> Mapping[str, Any]:
    """Return the figures of `bench_exports` as JSON has them."""
    figures: Mapping[str, Any] = json.loads(json_text(bench_exports(asked, batch_size=batch_size)))
    return figures


def baseline_of(figures: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the figures of the teacher in PyTorch, with the threads that are best for one sentence at a time."""
    of_torch = [of for of in figures if (of["model"], of["program"]) == (TEACHER, BASELINE)]
    ran = [of for of in of_torch if "left_out" not in of]
    if not ran:
        raise RuntimeError(f"the teacher in PyTorch did not run: {of_torch[0]['left_out']}")
    return max(ran, key=lambda of: of["alone_per_second"])


def lines_of(figures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps that ran, with what each is beside the teacher in PyTorch."""
    first = baseline_of(figures)
    in_batches = max(of["rows_per_second"] for of in figures if of["program"] == BASELINE and "left_out" not in of)
    return [
        {
            **{name: of[name] for name in ("model", "program", "threads", "alone_per_second", "rows_per_second")},
            "factor": of["alone_per_second"] / first["alone_per_second"],
            "factor_in_batches": of["rows_per_second"] / in_batches,
            "accuracy": of["metrics"]["accuracy"],
            "loss_points": 100 * (first["metrics"]["accuracy"] - of["metrics"]["accuracy"]),
            "bytes": of["bytes"],
        }
        for of in figures
        if "left_out" not in of
    ]


def best(steps: Sequence[Mapping[str, Any]], most_points: float | None) -> Mapping[str, Any] | None:
    """Return the step with the largest factor among those that lose at most so many points of accuracy."""
    within = [of for of in steps if most_points is None or of["loss_points"] <= most_points]
    return max(within, key=lambda of: of["factor"], default=None)


def conclusion(steps: Sequence[Mapping[str, Any]], most_points: float) -> str:
    """Return the two lines that tell which chain is the fastest."""
    text = []
    limits = (
        ("The largest factor", None, "whatever it loses"),
        (f"At most {most_points:g} points", most_points, "at most"),
    )
    for title, limit, wanted in limits:
        of = best(steps, limit)
        if of is None:
            text.append(f"- {title}: no step.")
            continue
        reached = "reached" if of["factor"] >= WANTED[wanted] else "not reached"
        text.append(
            f"- {title}: {of['factor']:,.1f} times, {of['model']} as {of['program']} on {threads_of(of)}, which "
            f"loses {of['loss_points']:.2f} points of accuracy (wanted {WANTED[wanted]:g}: {reached})."
        )
    return "\n".join(text)


def threads_of(step: Mapping[str, Any]) -> str:
    """Return the threads of a step in words."""
    return f"{step['threads']} thread{'s' * (step['threads'] > 1)}"


def measure(options: argparse.Namespace) -> None:
    """Make all models, measure them and report."""
    chain, kept = Chain(options), KeptRuns(options.results / "figures")
    students = [student for student in STUDENTS if student.name in options.students]
    settings = {name: getattr(options, name) for name in ("threads", "eval_rows", "batch_size")}
    settings["teacher"] = str(options.teacher)

    def kept_steps(name: str, asked: Asked) -> list[Mapping[str, Any]]:
        figures = kept.figures(f"measured-{_slug(name)}", settings, partial(measured, asked, options.batch_size))
        found: list[Mapping[str, Any]] = figures["measured"]
        return found

    # The smallest first, for it is made in minutes; the table begins with the largest.
    made = {student.name: chain.models(student) for student in reversed(students)}
    models = {TEACHER: subjects({TEACHER: options.teacher}, options)}
    models |= {of.name: subjects(made[of.name], options) for of in students}
    teacher = models[TEACHER][TEACHER]
    asked: Asked = [(teacher._replace(threads=options.threads), (BASELINE, *OF_TEACHER))]
    asked = asked if options.threads == 1 else [(teacher, (BASELINE,)), *asked]
    of_teacher = kept_steps(TEACHER, asked)
    best_threads = teacher._replace(threads=baseline_of(of_teacher)["threads"])
    of_models = [step for student in students for step in steps_of(models[student.name], options.threads)]
    names = " ".join(student.name for student in students)
    of_students = kept_steps(names, [(best_threads, (BASELINE,)), *of_models])
    steps, all_figures = [*lines_of(of_teacher), *lines_of(of_students)[1:]], [*of_teacher, *of_students]
    left_out = [of for of in all_figures if "left_out" in of]
    operations = {
        of.name: forward_flops(kd.AutoConfig.from_pretrained(of.directory), of.rows.lengths)
        for group in models.values()
        for of in group.values()
    }
    text = f"{steps_table(steps, operations)}\n\n{conclusion(steps, options.most_points)}\n"
    text += "".join(f"- {of['model']}, {of['program']}: {of['left_out']}\n" for of in left_out)
    text += f"\n{len(teacher.rows):,} rows of {options.eval.name}; batches of {options.batch_size}."
    common.report("FastFormers' chain", text, {"steps": steps, "left_out": left_out}, options)


def steps_table(steps: Sequence[Mapping[str, Any]], operations: Mapping[str, float]) -> str:
    """Return the steps as a table in Markdown.

    Args:
        steps: see `lines_of`.
        operations: of each model by name, in a pass over the rows.
    """
    header = [
        *("model", "program", "threads", "one at a time, sentences/s", "factor"),
        *("in batches, sentences/s", "factor in batches"),
        *("accuracy", "points lost", "MB", "share of the teacher's multiplications"),
    ]
    rows = [
        (
            *(of["model"], of["program"], of["threads"], of["alone_per_second"], of["factor"]),
            *(of["rows_per_second"], of["factor_in_batches"], f"{of['accuracy']:.4f}", f"{of['loss_points']:.2f}"),
            *(f"{of['bytes'] / 1e6:.1f}", operations[of["model"]] / operations[TEACHER]),
        )
        for of in steps
    ]
    return common.table(header, rows)


def main() -> None:
    """Read the options."""
    parser = common.parser(__doc__)
    common.add_data(parser)
    shared = common.SHARED / "models"
    parser.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    parser.add_argument("--eval-rows", type=int, default=0, help="measure only so many of these rows (0: all)")
    parser.add_argument("--batch-size", type=int, default=64, help="of the passes in batches")
    parser.add_argument("--max-steps", type=int, default=0, help="of each training, to see all steps work (0: all)")
    parser.add_argument("--most-points", type=float, default=3.0, help="of accuracy that the second chain may lose")
    names = [of.name for of in STUDENTS]
    parser.add_argument("--students", nargs="+", choices=names, default=names, help="of the table")
    parser.add_argument("--pretrained", type=Path, default=shared / "minilm-l6-sst2", help="the start of L6-H384")
    parser.add_argument(
        "--vocabulary", type=Path, default=shared / "bert-base-uncased", help="tokenizer of the smallest student"
    )
    parser.add_argument("--results", type=Path, default=Path("build", "fastformers"), help="where models are kept")
    options = parser.parse_args()
    os.environ.setdefault("KDISTILL_CACHE", str(options.results / "cache"))
    kd.set_num_threads(options.threads)
    measure(options)


if __name__ == "__main__":
    main()
