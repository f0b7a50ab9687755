"""Every architecture through the commands of every task, and into a BERT and a DistilBERT, on rows of a few words."""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.resumable_run import run_python
from support.small_architectures import write_encoder
from support.small_questions import questions
from support.small_run import LABELS, sentences
from support.small_tags import tagged_sentences

import kdistill as kd
from kdistill.cli.main import main
from kdistill.models.registry import ARCHITECTURES


class Task(NamedTuple):
    """A task: its rows, and what a model of it is measured by.

    Attributes:
        ending: of the model's class.
        rows: of a training file, as JSON lines hold them.
        dev: of an evaluation file.
        options: of training, beside `QUICK`.
        figure: the share, or the percentage, of right answers.
        answer, truth: of `predict`'s lines, and of the rows, what must be equal to be right, or a list of such.
    """

    ending: str
    rows: list[dict[str, Any]]
    dev: list[dict[str, Any]]
    options: list[str]
    figure: str
    answer: str
    truth: Any


def _texts(n: int, seed: int) -> list[dict[str, Any]]:
    return [{"sentence": text, "label": LABELS[label]} for text, label in sentences(n, seed)]


def _words(n: int, seed: int) -> list[dict[str, Any]]:
    rows = tagged_sentences(n, seed)
    return [{"tokens": [word for word, _ in row], "tags": [tag for _, tag in row]} for row in rows]


TASKS = {
    "text-classification": Task(
        "ForSequenceClassification", _texts(200, 0), _texts(50, 1), [], "accuracy", "prediction",
        lambda row: row["label"],
    ),
    "token-classification": Task(
        "ForTokenClassification", _words(100, 0), _words(50, 1), [], "accuracy", "tags", lambda row: row["tags"]
    ),
    "question-answering": Task(
        "ForQuestionAnswering", questions(200), questions(50, 1), ["--max-length", "10", "--doc-stride", "2"],
        "exact_match", "answer", lambda row: row["answers"]["text"][0],
    ),
}  # fmt: skip
QUICK = ["--num-train-epochs", "1", "--per-device-train-batch-size", "20", "--learning-rate", "0.01"]
EVERY_TASK = pytest.mark.parametrize("task", TASKS)


def run(*words: Any) -> None:
    """Run a command that must succeed."""
    assert main([*map(str, words)]) == 0


class Files:
    """What commands read, made once: rows of each task, encoders, and models that `finetune` has made of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.encoder = functools.cache(lambda model_type: write_encoder(model_type, directory / model_type))
        self.finetuned = functools.cache(self._finetune)

    @functools.cache  # noqa: B019  # as long-lived as the tests
    def rows(self, task: str, which: str) -> Path:
        path = self._directory / f"{task}-{which}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in getattr(TASKS[task], which)))
        return path

    def data(self, task: str) -> list[Any]:
        """Return the options that name both files."""
        return ["--train", self.rows(task, "rows"), "--eval", self.rows(task, "dev"), *QUICK, *TASKS[task].options]

    def _finetune(self, model_type: str, task: str) -> Path:
        output = self._directory / f"{model_type} {task}"
        run("finetune", "--model", self.encoder(model_type), "--output-dir", output, *self.data(task))
        return output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("architectures"))


def figures(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    """Run a command that must succeed; return its figures."""
    run(*words, "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def config_of(model: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((model / "config.json").read_text())
    return content


def share_of_right_answers(task: Task, lines: list[str]) -> float:
    """Count for itself what `predict` has written."""
    pairs = zip((json.loads(line)[task.answer] for line in lines), map(task.truth, task.dev), strict=True)
    right = [np.equal(*(np.atleast_1d(each) for each in pair)) for pair in pairs]
    return float(np.concatenate(right).mean()) * (100 if task.figure == "exact_match" else 1)


@EVERY_TASK
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_an_encoder_is_finetuned_measured_and_used(
    model_type: str, task: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, of = files.finetuned(model_type, task), TASKS[task]
    assert config_of(model)["architectures"] == [ARCHITECTURES[model_type].name + of.ending]
    results = json.loads((model / "all_results.json").read_text())
    data = ["--model", model, "--data", files.rows(task, "dev")]
    measured = figures(capsys, "evaluate", *data)
    assert measured["n"] == len(of.dev)
    assert measured[of.figure] == pytest.approx(results[f"eval_{of.figure}"])
    assert measured["loss"] == pytest.approx(results["eval_loss"], rel=1e-5)
    run("predict", *data, "--output", tmp_path / "predictions.jsonl")
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert share_of_right_answers(of, lines) == pytest.approx(measured[of.figure])


@EVERY_TASK
@pytest.mark.parametrize(("teacher", "student"), [("albert", "bert"), ("electra", "distilbert")])
def test_a_bert_and_a_distilbert_learn_from_others(
    teacher: str, student: str, task: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A BERT of a shape reads the teacher's tokens, a DistilBERT of its own files the same ones."""
    shape = "L1-H16-A2" if student == "bert" else files.encoder(student)
    words = ["--teacher", files.finetuned(teacher, task), "--student", shape, "--output-dir", tmp_path]
    results = figures(capsys, "distill", *words, *files.data(task))
    of = TASKS[task]
    assert config_of(tmp_path)["architectures"] == [ARCHITECTURES[student].name + of.ending]
    taught = figures(capsys, "evaluate", "--model", files.finetuned(teacher, task), "--data", files.rows(task, "dev"))
    assert results[f"teacher_{of.figure}"] == pytest.approx(taught[of.figure])
    measured = figures(capsys, "evaluate", "--model", tmp_path, "--data", files.rows(task, "dev"))
    assert measured[of.figure] == pytest.approx(results[f"eval_{of.figure}"])


@pytest.fixture
def _threads() -> Iterator[None]:
    before = kd.get_num_threads()
    yield
    kd.set_num_threads(before)


KILLED_AT = 5
KILLED = """
import os, signal, sys
from kdistill import trainers
from kdistill.cli.main import main
from kdistill.train.callbacks import TrainerCallback

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == {step}:
            os.kill(os.getpid(), signal.SIGKILL)

trainers.default_callbacks = lambda args: [Kill()]
sys.exit(main({words!r}))
"""


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(
    ("model_type", "task"),
    [("mpnet", "text-classification"), ("albert", "token-classification"), ("roberta", "question-answering")],
)
def test_threads_and_a_kill_change_no_bit(model_type: str, task: str, files: Files, tmp_path: Path) -> None:
    """Batches are of several chunks, which threads share, and dropout is on."""
    command = ["finetune", "--model", files.encoder(model_type), *files.data(task), "--save-strategy", "steps"]
    command += ["--save-steps", "2", "--per-device-train-batch-size", "60", "--num-train-epochs", "3"]
    weights = []
    for threads in (1, 2, 3):
        run(*command, "--threads", threads, "--output-dir", tmp_path / f"of {threads}")
        weights.append((tmp_path / f"of {threads}" / "model.safetensors").read_bytes())
    words = [*map(str, command), "--output-dir", str(tmp_path / "killed")]
    process = run_python(KILLED.format(step=KILLED_AT, words=words))
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert (tmp_path / "killed" / "checkpoint-4").is_dir()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    run(*words, "--resume")
    weights.append((tmp_path / "killed" / "model.safetensors").read_bytes())
    assert len(set(weights)) == 1
