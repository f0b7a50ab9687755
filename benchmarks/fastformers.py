"""Table 3 of FastFormers (arXiv:2010.13382) retold: step by step from a teacher in PyTorch to a small model in int8.

Every student is distilled from the teacher by `kdistill distill`, pruned in two rounds with recovery (`prune
--rounds`), left with the word pieces of the training rows (`prune --vocabulary`) and written in int8 (`quantize`), and
exported as ONNX. The forms of a model are then measured beside the teacher in PyTorch, one sentence at a time and in
batches, with the same threads (`kdistill.bench.exports`): each in a process of its own, rounds alternate. Accuracy is
that of the evaluation rows in the very program that is timed.

The factor of a step is its sentences per second, one at a time, over those of the teacher in PyTorch beside it. The
last lines name the largest factor with its loss, and the largest one at a loss of at most --most-points.

Models and figures are kept in --results; a call goes on where an earlier one ended. `benchmarks.mpnet_teacher` makes a
teacher of 12 layers.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
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

from . import accuracy, common, first_hour
from .kept_runs import KeptRuns

TEACHER, SMALLEST = "teacher", "L2-H128"
BASELINE = "pytorch-float32"
WANTED: Mapping[str, float] = {"whatever it loses": 234.0, "at most": 100.0}
"""Factors of FastFormers' abstract, and what is wanted where little may be lost."""
_COPIED = (
    "--augment 4 --num-train-epochs 3 --per-device-train-batch-size 32 --learning-rate 1e-4 --warmup-ratio 0.1 --bf16"
)
_RECOVERY = (
    "--num-train-epochs 2 --per-device-train-batch-size 32 --learning-rate 5e-5 --alpha 0.2 --temperature 2 --bf16"
)


class Student(NamedTuple):
    """A student, and how it is made smaller.

    Attributes:
        name: in the table.
        layers: of the teacher's that are copied; None: the smallest shape, a BERT whatever the teacher is.
        distill: options of `kdistill distill`.
        heads, feed_forward: the shares that pruning keeps; of heads only where the architecture lets them be pruned.
        recovery: options of the training after each round.
    """

    name: str
    layers: int | None
    distill: str
    heads: float
    feed_forward: float
    recovery: str = _RECOVERY


STUDENTS = (
    Student("6 layers", 6, _COPIED, 0.5, 0.25),
    Student("3 layers", 3, _COPIED, 0.5, 0.25),
    Student(
        SMALLEST,
        None,
        " ".join(word for word in accuracy.RECIPE if word not in ("--student", "L2-H128-A2")),
        0.5,
        0.5,
        "--num-train-epochs 2 --per-device-train-batch-size 64 --learning-rate 5e-4 --alpha 0.2 --temperature 2",
    ),
)
OF_TEACHER = (
    *("kdistill-float32", "kdistill-bfloat16", "kdistill-int8"),
    *("onnxruntime-float32", "onnxruntime-int8", "openvino-float32"),
)
OF_STUDENT = ("kdistill-float32", "kdistill-int8")
OF_LAST = ("kdistill-float32", "artefact", "onnxruntime-float32", "onnxruntime-int8", "openvino-float32")


class Chain:
    """The models, which are made once.

    Args:
        options: of the command.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._kept = KeptRuns(options.results / "figures")
        self._config = kd.AutoConfig.from_pretrained(options.teacher)

    def train(self) -> Path:
        """Return the training rows: all, or the first --rows, which are drawn once."""
        count, options = self._options.rows, self._options
        if not count:
            return Path(options.train)
        options.results.mkdir(parents=True, exist_ok=True)
        target = options.results / f"train-{count}.tsv"
        if not target.is_file():
            lines = options.train.read_text(encoding="utf-8").splitlines(keepends=True)
            chosen = np.random.default_rng(common.SEED).permutation(np.arange(1, len(lines)))[:count]
            target.write_text("".join([lines[0], *(lines[line] for line in chosen)]), encoding="utf-8")
        return target

    def models(self) -> dict[str, Path]:
        """Return the directories of all models by name, in the order of the table."""
        found = {TEACHER: Path(self._options.teacher)}
        for student in self._options.students:
            found |= self._of(student)
        return found

    def _of(self, student: Student) -> dict[str, Path]:
        names = {what: f"{student.name}{what}" for what in ("", ", pruned", ", pruned, vocabulary")}
        places = {what: self._options.results / "models" / _slug(name) for what, name in names.items()}
        self._make(names[""], places[""], student.distill, lambda: self._distilled(student, places[""]))
        shares = f"--feed-forward {student.feed_forward}"
        model = kd.AutoConfig.from_pretrained(places[""])
        if "pruned_heads" not in model.only:  # else the architecture has no form for it
            shares += f" --heads {student.heads}"
        words = f"--rounds 2 {shares} {student.recovery} {' '.join(self._shortened())}"
        self._make(names[", pruned"], places[", pruned"], words, lambda: self._pruned(places, ", pruned", "", words))
        last = ", pruned, vocabulary"
        self._make(names[last], places[last], "", lambda: self._pruned(places, last, ", pruned", "--vocabulary"))
        return {names[what]: place for what, place in places.items()}

    def _make(self, name: str, place: Path, settings: str, make: Any) -> None:
        """Make a model unless it is kept, with what its making cost."""

        def made() -> Mapping[str, Any]:
            before = first_hour.cpu_minutes()
            return {**make(), "cpu_minutes": first_hour.cpu_minutes() - before}

        wanted = {"options": settings, "teacher": str(self._options.teacher), "rows": self._options.rows}
        self._kept.figures(_slug(name), wanted, made)
        if not place.is_dir():
            raise FileNotFoundError(f"{place} is gone, and its figures are kept; delete {self._options.results}")

    def _shortened(self) -> Sequence[str]:
        return ("--max-steps", str(self._options.max_steps)) if self._options.max_steps else ()

    def _distilled(self, student: Student, place: Path) -> Mapping[str, Any]:
        options, width = self._options, self._config.hidden_size
        shape = f"L{student.layers}-H{width}-A{self._config.num_attention_heads}"
        start = str(self._smallest()) if student.layers is None else shape
        shutil.rmtree(place, ignore_errors=True)
        inputs = argparse.Namespace(
            teacher=options.teacher, train=self.train(), eval=options.eval, threads=options.threads
        )
        words = ["--student", start, *shlex.split(student.distill), *self._shortened()]
        figures = accuracy.distill(inputs, words, place, common.SEED)
        return {name: figures[name] for name in ("eval_accuracy", "train_loss")}

    def _smallest(self) -> Path:
        """Write the start of the smallest student, a BERT with BERT's vocabulary and the teacher's embeddings."""
        options, place = self._options, self._options.results / "models" / "start"
        teacher = kd.AutoModelForSequenceClassification.from_pretrained(options.teacher)
        pieces, own = (kd.AutoTokenizer.from_pretrained(path) for path in (options.vocabulary, options.teacher))
        config = kd.BertConfig(
            vocab_size=len(pieces.get_vocab()),
            max_position_embeddings=self._config.max_tokens,
            id2label=self._config.id2label,
            **common.STUDENT_SHAPE,
        )
        known = {"vocabulary": pieces.get_vocab(), "teacher_vocabulary": own.get_vocab()}
        shutil.rmtree(place, ignore_errors=True)
        student = kd.BertForSequenceClassification.from_teacher(teacher, config, seed=common.SEED, **known)
        student.save_pretrained(place)
        pieces.save_pretrained(place)
        return place

    def _pruned(self, places: Mapping[str, Path], what: str, of: str, words: str) -> Mapping[str, Any]:
        given = shlex.split(words)
        rounds = "--rounds" in given
        if rounds:
            given += ["--eval", str(self._options.eval), "--seed", str(common.SEED), "--resume"]
        else:
            shutil.rmtree(places[what], ignore_errors=True)
        files = ("--model", str(places[of]), "--data", str(self.train()), "--output", str(places[what]))
        figures = first_hour.run("prune", *files, "--threads", str(self._options.threads), *given)
        return {name: figures[name] for name in ("num_parameters", "parameters_kept", "operations_kept", "heads")}


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-").lower()


def programs_of(name: str) -> tuple[str, ...]:
    """Return the programs that a model is measured in."""
    if name == TEACHER:
        return OF_TEACHER
    return OF_LAST if name.endswith("vocabulary") else OF_STUDENT


def subject(name: str, directory: Path, options: argparse.Namespace) -> Subject:
    """Return a model with the evaluation rows as it reads them."""
    rows = encode(read_rows(options.eval), kd.AutoTokenizer.from_pretrained(directory))
    count = min(options.eval_rows or len(rows), len(rows))
    return Subject(name, directory, rows.take(np.arange(count)))


def plain(asked: Sequence[tuple[Subject, Sequence[str]]], batch_size: int) -> Mapping[str, Any]:
    """Return the figures of `bench_exports` as JSON has them."""
    figures: Mapping[str, Any] = json.loads(json_text(bench_exports(asked, batch_size=batch_size)))
    return figures


def lines_of(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps that ran, with what each is beside the first, the teacher in PyTorch."""
    first = measured[0]
    if "left_out" in first:
        raise RuntimeError(f"the teacher in PyTorch did not run: {first['left_out']}")
    return [
        {
            "model": of["model"],
            "program": of["program"],
            "alone_per_second": of["alone_per_second"],
            "factor": of["alone_per_second"] / first["alone_per_second"],
            "rows_per_second": of["rows_per_second"],
            "factor_in_batches": of["rows_per_second"] / first["rows_per_second"],
            "accuracy": of["metrics"]["accuracy"],
            "loss_points": 100 * (first["metrics"]["accuracy"] - of["metrics"]["accuracy"]),
            "bytes": of["bytes"],
        }
        for of in measured
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
            f"- {title}: {of['factor']:,.1f} times, {of['model']} as {of['program']}, which loses "
            f"{of['loss_points']:.2f} points of accuracy (wanted {WANTED[wanted]:g}: {reached})."
        )
    return "\n".join(text)


def measure(options: argparse.Namespace) -> None:
    """Make all models, measure them and report."""
    models, kept = Chain(options).models(), KeptRuns(options.results / "figures")
    subjects = {name: subject(name, directory, options) for name, directory in models.items()}
    settings = {name: getattr(options, name) for name in ("threads", "eval_rows", "batch_size")}
    operations = {
        name: forward_flops(kd.AutoConfig.from_pretrained(models[name]), of.rows.lengths)
        for name, of in subjects.items()
    }
    steps: list[dict[str, Any]] = []
    left_out: list[Mapping[str, Any]] = []
    for name, directory in models.items():
        asked = [(subjects[TEACHER], (BASELINE,)), (subjects[name], programs_of(name))]
        made = partial(plain, asked, options.batch_size)
        measured = kept.figures(f"measured-{_slug(name)}", settings | {"model": str(directory)}, made)["measured"]
        of_model = lines_of(measured)
        steps += of_model if name == TEACHER else of_model[1:]
        left_out += [of for of in measured if "left_out" in of]
    header = [
        *("model", "program", "one at a time, sentences/s", "factor", "in batches, sentences/s", "factor"),
        *("accuracy", "points lost", "MB", "share of the teacher's multiplications"),
    ]
    rows = [
        (
            *(of["model"], of["program"], of["alone_per_second"], of["factor"]),
            *(of["rows_per_second"], of["factor_in_batches"], f"{of['accuracy']:.4f}", f"{of['loss_points']:.2f}"),
            *(f"{of['bytes'] / 1e6:.1f}", operations[of["model"]] / operations[TEACHER]),
        )
        for of in steps
    ]
    text = f"{common.table(header, rows)}\n\n{conclusion(steps, options.most_points)}\n"
    text += "".join(f"- {of['model']}, {of['program']}: {of['left_out']}\n" for of in left_out)
    text += f"\n{len(subjects[TEACHER].rows):,} rows of {options.eval.name}; batches of {options.batch_size}."
    common.report("FastFormers' chain", text, {"steps": steps, "left_out": left_out}, options)


def main() -> None:
    """Read the options."""
    parser = common.parser(__doc__)
    common.add_data(parser)
    parser.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    parser.add_argument("--eval-rows", type=int, default=0, help="measure only so many of these rows (0: all)")
    parser.add_argument("--batch-size", type=int, default=64, help="of the passes in batches")
    parser.add_argument("--max-steps", type=int, default=0, help="of each training, to see all steps work (0: all)")
    parser.add_argument("--most-points", type=float, default=3.0, help="of accuracy that the second chain may lose")
    parser.add_argument("--students", nargs="+", default=[of.name for of in STUDENTS], help="of the table")
    parser.add_argument(
        "--vocabulary",
        type=Path,
        default=common.SHARED / "models" / "bert-base-uncased",
        help="of the smallest student",
    )
    parser.add_argument("--results", type=Path, default=Path("build", "fastformers"), help="where models are kept")
    options = parser.parse_args()
    os.environ.setdefault("KDISTILL_CACHE", str(options.results / "cache"))
    options.students = [of for of in STUDENTS if of.name in options.students]
    kd.set_num_threads(options.threads)
    measure(options)


if __name__ == "__main__":
    main()
