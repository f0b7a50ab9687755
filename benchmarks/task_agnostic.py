"""Task-agnostic distillation in small: what it brings to students that are fine-tuned for a task afterwards.

1. all-MiniLM-L6-v2 (6 layers, from PyPI) gets a language model's head and learns to predict hidden words on a part of
   the text (`benchmarks.running_text`). It is the teacher.
2. Each student starts from the teacher: `L3` from every second layer and the head, `L2-H128` with new layers from the
   principal components of the embeddings. On another part of the text L3 learns by DistilBERT's triple loss
   (arXiv:1910.01108: soft words, words, cosine of the last hidden states; 5, 2, 1), L2-H128 by MiniLMv2's relations
   (arXiv:2012.15828) alone, for which widths need not be equal.
3. Both are fine-tuned on the labels of SST-2 and banking77, beside the same start without the second step.

Every training is resumed, and figures of finished ones are kept, in --results: a call goes on where an earlier one
ended. The recipes were fixed beforehand; nothing is chosen on the rows that are reported.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import kdistill as kd
from examples.pretrained import MINILM, fetch_pretrained

from . import common
from .kept_runs import KeptRuns, with_interval
from .running_text import RunningText, running_text

SEEDS = (33, 34, 35)
L3, L2_H128 = "L3", "L2-H128"
ALONE, TAUGHT = "fine-tuned alone", "after the agnostic stage"
MAX_LENGTH = 128
BLOCKS_OF_A_STEP = 32


class Stage(NamedTuple):
    """How a language model is trained on running text; all else is kdistill's default."""

    epochs: int
    learning_rate: float
    settings: Mapping[str, Any]


TEACHER = Stage(2, 3e-4, {})
RELATIONS = [{"prediction_weight": 0, "matches": [{"kind": "relation", "teacher_layer": -1, "student_layer": -1}]}]
STAGES: Mapping[str, Stage] = {
    L3: Stage(3, 5e-4, {"matches": "distilbert", "alpha": 2 / 7, "temperature": 2.0}),
    L2_H128: Stage(6, 1e-3, {"matches": RELATIONS}),
}
"""The learning rate and weights of L3 are those of DistilBERT's code."""


class Finetuning(NamedTuple):
    """How a student is fine-tuned on labels."""

    epochs: int
    learning_rate: float
    batch_size: int = 32


FINETUNING: Mapping[str, Mapping[str, Finetuning]] = {
    L3: {"sst2": Finetuning(3, 1e-4), "banking77": Finetuning(5, 3e-4)},
    L2_H128: {"sst2": Finetuning(5, 1e-3), "banking77": Finetuning(25, 1e-3)},
}


def rows_of(name: str, data: Path, count: int) -> tuple[Any, Any]:
    """Return rows to train on and to evaluate on; of banking77, which has no other part here, a fifth of its rows."""
    if name == "sst2":
        folder = data / "SST-2"
        files = {"train": "train.tsv", "eval": "dev.tsv"}
        rows = kd.load_dataset(str(folder), data_files=files)
        train = rows["train"].shuffle(seed=0)
        return train.select(range(min(count, len(train)))) if count else train, rows["eval"]
    rows = kd.load_dataset(str(data / "banking77"), data_files={"train": "train.csv"})["train"]
    rows = rows.rename_column("category", "label").shuffle(seed=0)
    measured = len(rows) // 5
    train = range(measured, min(measured + count, len(rows)) if count else len(rows))
    return rows.select(train), rows.select(range(measured))


def language_arguments(directory: Path, stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of a training on text."""
    return {
        "output_dir": str(directory),
        "num_train_epochs": stage.epochs * options.share,
        "learning_rate": stage.learning_rate,
        "per_device_train_batch_size": BLOCKS_OF_A_STEP,
        "max_length": MAX_LENGTH,
        "warmup_ratio": 0.05,
        "weight_decay": 0.01,
        "bf16": options.bf16,
        "seed": SEEDS[0],
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": 50,
        "logging_steps": 25,
        "report_to": "none",
        "disable_tqdm": True,
        **stage.settings,
    }


def language_model(directory: Path, seed: int = SEEDS[0]) -> Any:
    """Return a language model; where it has no head yet, with a new one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that the head is new, which is the point
        return kd.AutoModelForMaskedLM.from_pretrained(directory, seed=seed)


def perplexity(model: Any, tokenizer: Any, documents: Sequence[str]) -> float:
    """Return the perplexity of a language model on documents whose words are always hidden in the same way."""
    with tempfile.TemporaryDirectory() as directory:
        args = kd.TrainingArguments(directory, max_length=MAX_LENGTH, report_to="none", disable_tqdm=True)
        trainer = kd.Trainer(model, args, eval_dataset=documents, processing_class=tokenizer)
        return float(trainer.evaluate()["eval_perplexity"])


def train_teacher(options: argparse.Namespace, text: RunningText) -> tuple[Path, Mapping[str, float]]:
    """Return the directory of the teacher, and its perplexity; trained unless it has been."""
    directory = options.results / "teacher"
    tokenizer = kd.AutoTokenizer.from_pretrained(options.model)

    def measure() -> Mapping[str, float]:
        model = language_model(options.model)
        before, started = perplexity(model, tokenizer, text.eval), time.monotonic()
        args = kd.TrainingArguments(**language_arguments(directory, TEACHER, options))
        trainer = kd.Trainer(model, args, train_dataset=text.teacher, processing_class=tokenizer)
        trainer.train(resume_from_checkpoint=True)
        seconds = time.monotonic() - started
        after = perplexity(trainer.model, tokenizer, text.eval)
        return {"before": before, "perplexity": after, "seconds": seconds}

    settings = {"stage": TEACHER._asdict(), "share": options.share, "bf16": options.bf16}
    return directory, KeptRuns(options.results).figures("teacher", settings, measure)


def write_start(options: argparse.Namespace, teacher: Path, student: str, text: RunningText) -> Path:
    """Write the student as it starts, and return its directory."""
    directory: Path = options.results / f"{student}-start"
    if not (directory / "config.json").is_file():
        model, tokenizer = language_model(teacher), kd.AutoTokenizer.from_pretrained(teacher)
        shape = {"num_hidden_layers": 3} if student == L3 else common.STUDENT_SHAPE
        config = model.config.replace(**shape)
        ids = np.concatenate(tokenizer(list(text.student), add_special_tokens=False)["input_ids"])
        counts = np.bincount(ids, minlength=config.vocab_size)
        made = type(model).from_teacher(model, config, token_counts=counts, seed=SEEDS[0])
        made.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return directory


def distil(options: argparse.Namespace, teacher: Path, student: str, text: RunningText) -> Mapping[str, float]:
    """Do the agnostic stage of a student, and return its perplexity before and after; done unless it has been."""
    start, directory = write_start(options, teacher, student, text), options.results / f"{student}-agnostic"
    stage = STAGES[student]

    def measure() -> Mapping[str, float]:
        tokenizer, model = kd.AutoTokenizer.from_pretrained(start), language_model(start)
        before, started = perplexity(model, tokenizer, text.eval), time.monotonic()
        args = kd.DistillationTrainingArguments(**language_arguments(directory, stage, options))
        trainer = kd.DistillationTrainer(
            model,
            args,
            teacher_model=language_model(teacher).freeze(),
            train_dataset=text.student,
            processing_class=tokenizer,
        )
        trainer.train(resume_from_checkpoint=True)
        seconds = time.monotonic() - started
        after = perplexity(trainer.model, tokenizer, text.eval)
        return {"before": before, "perplexity": after, "seconds": seconds}

    settings = {"stage": stage._asdict(), "share": options.share, "bf16": options.bf16}
    return KeptRuns(options.results).figures(f"{student}-agnostic", settings, measure)


def finetune(options: argparse.Namespace, student: str, side: str, task: str, seed: int) -> Mapping[str, float]:
    """Fine-tune a student on the labels of a task; return its accuracy."""
    recipe, directory = FINETUNING[student][task], f"{student}-{'agnostic' if side == TAUGHT else 'start'}"

    def measure() -> Mapping[str, float]:
        train, evaluation = rows_of(task, options.data_dir, options.rows)
        labels = sorted({row["label"] for rows in (train, evaluation) for row in rows})
        names = {index: str(label) for index, label in enumerate(labels)}
        path = options.results / directory
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as output:
            warnings.simplefilter("ignore")
            model = kd.AutoModelForSequenceClassification.from_pretrained(path, id2label=names, seed=seed)
            args = kd.TrainingArguments(
                output,
                num_train_epochs=recipe.epochs,
                learning_rate=recipe.learning_rate,
                per_device_train_batch_size=recipe.batch_size,
                warmup_ratio=0.1,
                weight_decay=0.01,
                bf16=options.bf16,
                seed=seed,
                recipe="transformers",
                eval_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            tokenizer = kd.AutoTokenizer.from_pretrained(path)
            trainer = kd.Trainer(model, args, train_dataset=train, eval_dataset=evaluation, processing_class=tokenizer)
            trainer.train()
            return {"accuracy": trainer.evaluate()["eval_accuracy"]}

    settings = {"recipe": recipe._asdict(), "rows": options.rows, "bf16": options.bf16, "share": options.share}
    label = f"{student}-{task}-{'agnostic' if side == TAUGHT else 'alone'}-{seed}"
    return KeptRuns(options.results).figures(label, settings, measure)


def line_of(options: argparse.Namespace, student: str, task: str) -> tuple[object, ...]:
    """Return a line of the table: accuracies of both sides, and their difference seed by seed."""
    values = {
        side: [finetune(options, student, side, task, seed)["accuracy"] for seed in options.seeds]
        for side in (ALONE, TAUGHT)
    }
    gain = [one - other for one, other in zip(values[TAUGHT], values[ALONE], strict=True)]
    return (student, task, *(with_interval(of, 4) for of in (values[ALONE], values[TAUGHT], gain)))


def main() -> None:
    """Read the options and measure."""
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of the fine-tuning")
    parser.add_argument("--students", nargs="+", choices=(L3, L2_H128), default=[L3, L2_H128], help="students")
    parser.add_argument(
        "--tasks", nargs="+", choices=("sst2", "banking77"), default=["sst2", "banking77"], help="tasks"
    )
    parser.add_argument("--rows", type=int, default=0, help="use so many labelled rows alone (0: all)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the epochs on text, for a quick look")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="train in bfloat16")
    parser.add_argument("--data-dir", type=Path, default=common.SHARED / "data", help="where the data sets are")
    parser.add_argument("--model", type=Path, help=f"the pretrained model (default: {MINILM} of PyPI)")
    parser.add_argument("--results", type=Path, default=Path("build", "task-agnostic"), help="what is kept")
    parser.add_argument("--stop-after", choices=("teacher", "students"), help="leave the later steps to another call")
    options = parser.parse_args()
    kd.set_num_threads(options.threads)
    options.model = options.model or fetch_pretrained(Path("build", "pretrained", MINILM))
    text = running_text(options.data_dir)
    teacher, figures = train_teacher(options, text)
    if options.stop_after == "teacher":
        return
    of_students = {student: distil(options, teacher, student, text) for student in options.students}
    if options.stop_after == "students":
        return
    lines = [line_of(options, student, task) for student in options.students for task in options.tasks]
    language = [("teacher", figures["before"], figures["perplexity"], figures["seconds"] / 60)]
    language += [(s, of["before"], of["perplexity"], of["seconds"] / 60) for s, of in of_students.items()]
    words = {name: sum(len(text.split()) for text in part) for name, part in zip(text._fields, text, strict=True)}
    report = common.table(["on text", "perplexity before", "after", "minutes"], language)
    report += "\n\n" + common.table(["student", "task", ALONE, TAUGHT, "difference, seed by seed"], lines)
    report += f"\n\nWords: {words}. Seeds {', '.join(map(str, options.seeds))}; mean and 95 % interval."
    common.report("Task-agnostic distillation", report, {"lines": lines, "language": language}, options)


if __name__ == "__main__":
    main()
