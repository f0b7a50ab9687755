"""`kdistill doctor` by command: each check fires where it should and nowhere else, and nothing is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.hub_stub import NOWHERE
from support.small_run import small_config

from kdistill.cli import main as cli
from kdistill.doctor import data_checks, machine_checks, subject
from kdistill.models.classes import BertForSequenceClassification
from kdistill.system import memory
from kdistill.text.classes import AutoTokenizer
from kdistill.train.arguments import TrainingArguments
from kdistill.trainers import Trainer

LABELS = ["bad", "fair", "good"]
FILLERS = [f"w{index}" for index in range(60)]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LABELS, *FILLERS]
Row = tuple[str, str]


def rows(count: int, seed: int) -> list[Row]:
    """Rows that share no text, each with the word of its label among ten others."""
    random = np.random.default_rng(seed)
    made = []
    for row in range(count):
        words = list(random.choice(FILLERS, 9))
        words.insert(random.integers(0, 9), LABELS[row % 3])
        made.append((" ".join(words), LABELS[row % 3]))
    return made


def write(path: Path, content: list[Row], header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in content)]) + "\n")
    return path


TRAIN, EVAL = rows(240, seed=0), rows(120, seed=1)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that gets its rows right."""
    directory = tmp_path_factory.mktemp("teacher")
    config = small_config(vocab_size=len(VOCABULARY), id2label=dict(enumerate(LABELS)), initializer_range=0.2)
    model = BertForSequenceClassification(config, seed=3)
    words = model.parameters["bert.embeddings.word_embeddings.weight"]
    words[[VOCABULARY.index(word) for word in FILLERS]] *= 0.1  # so that few epochs suffice
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    model.save_pretrained(directory)
    args = TrainingArguments(
        str(directory / "run"),
        num_train_epochs=8,
        learning_rate=0.01,
        per_device_train_batch_size=8,
        disable_tqdm=True,
        save_strategy="no",
    )
    tokenizer = AutoTokenizer.from_pretrained(directory)
    data = write(directory / "train.csv", TRAIN)
    trainer = Trainer(
        model, args, train_dataset=data, eval_dataset=write(directory / "eval.csv", EVAL), processing_class=tokenizer
    )
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] > 0.9
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def command(tmp_path: Path, teacher: Path) -> dict[str, str]:
    """The options of a run that nothing speaks against."""
    return {
        "--teacher": str(teacher),
        "--student": "L1-H8-A2",
        "--train": str(write(tmp_path / "train.csv", TRAIN)),
        "--eval": str(write(tmp_path / "eval.csv", EVAL)),
        "--output-dir": str(tmp_path / "out"),
    }


def examine(capsys: pytest.CaptureFixture[str], options: dict[str, str], *more: str) -> tuple[int, dict[str, Any]]:
    words = [word for pair in options.items() for word in pair]
    status = cli.main(["doctor", *words, *more, "--json"])
    captured = capsys.readouterr()
    assert captured.err == ""
    return status, json.loads(captured.out)


def found(figures: dict[str, Any], check: str, level: str) -> str:
    """The findings of a check and a level, as text; empty without any."""
    lines = [f for f in figures["findings"] if (f["check"], f["level"]) == (check, level)]
    return "\n".join(f"{f['text']} -> {f['remedy']}" for f in lines)


def files_below(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def changed_teacher(teacher: Path, directory: Path, change: Any) -> str:
    """A copy of the teacher whose tensors `change` has changed."""
    directory.mkdir()
    for name in ("config.json", "vocab.txt"):
        (directory / name).write_bytes((teacher / name).read_bytes())
    tensors = load_file(teacher / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    return str(directory)


def test_run_that_nothing_speaks_against(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    before = files_below(tmp_path)
    status, figures = examine(capsys, command)
    assert (status, figures["errors"], figures["warnings"]) == (0, 0, 0), figures["findings"]
    assert {f["level"] for f in figures["findings"]} == {"ok"}
    checks = {f["check"] for f in figures["findings"]}
    expected = "arguments teacher labels texts columns evaluation student disk memory time"
    assert checks == {*expected.split(), "shared texts", "repeated texts", "teacher cache"}
    assert "failed" not in figures
    assert files_below(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_distill_gives_the_same_bits_after_a_doctor(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    words = [word for pair in command.items() for word in pair]
    weights = []
    for name in ("first", "second"):
        assert cli.main(["distill", *words, "--output-dir", str(tmp_path / name), "--num-train-epochs", "1"]) == 0
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
        assert "warning" not in capsys.readouterr().err
        examine(capsys, command)
    assert weights[0] == weights[1]


def test_lines_fit_into_100_columns_and_end_with_the_verdict(
    capsys: pytest.CaptureFixture[str], command: dict[str, str]
) -> None:
    command["--eval"] = command["--train"]
    assert cli.main(["doctor", *(word for pair in command.items() for word in pair)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if not re.search(r"/\S{60}", line)) <= 100  # a long path is not broken
    assert lines[0].startswith("error    shared texts")
    assert lines[-1].startswith("1 error, 0 warnings: the run would fail or mislead (checked in ")


def test_permuted_teacher_is_mended_by_the_option_that_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path, command: dict[str, str]
) -> None:
    def permute(tensors: dict[str, np.ndarray]) -> None:
        for name in ("classifier.weight", "classifier.bias"):
            tensors[name] = np.ascontiguousarray(tensors[name][[2, 0, 1]])

    command["--teacher"] = changed_teacher(teacher, tmp_path / "permuted", permute)
    status, figures = examine(capsys, command)
    assert (status, figures["failed"]) == (1, ["teacher"])
    said = found(figures, "teacher", "error")
    assert "in another order" in said
    option = "--label-names=good,bad,fair"
    assert f"{option} " in said
    words = [word for pair in command.items() for word in pair]
    assert cli.main(["distill", *words, "--num-train-epochs", "1", "--save-strategy", "no"]) == 0
    assert option in capsys.readouterr().err
    status, figures = examine(capsys, command, option, "--overwrite-output-dir")
    assert status == 0, figures
    again = ["--num-train-epochs", "1", "--overwrite-output-dir", "--save-strategy", "no"]
    assert cli.main(["distill", *words, option, *again]) == 0
    assert "another order" not in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]["0"] == "good"
    assert json.loads((tmp_path / "out" / "all_results.json").read_text())["teacher_accuracy"] > 0.9
    assert cli.main(["report", "--model", str(tmp_path / "out"), "--json"]) == 0


def test_teacher_that_was_not_fine_tuned(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path, command: dict[str, str]
) -> None:
    command["--teacher"] = changed_teacher(teacher, tmp_path / "bare", lambda tensors: tensors.pop("classifier.weight"))
    status, figures = examine(capsys, command)
    said = found(figures, "teacher", "error")
    assert status == 1
    assert "lacks classifier.weight, so it has no trained head for the task" in said
    assert "fine-tune it first" in said


def test_teacher_with_logits_that_are_not_finite(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path, command: dict[str, str]
) -> None:
    def overflow(tensors: dict[str, np.ndarray]) -> None:
        tensors["classifier.weight"] = np.full_like(tensors["classifier.weight"], 3e38)

    command["--teacher"] = changed_teacher(teacher, tmp_path / "wild", overflow)
    status, figures = examine(capsys, command)
    assert status == 1
    assert "logits are not finite for" in found(figures, "teacher", "error")


def test_what_can_be_checked_without_the_teacher_is_checked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    command["--teacher"] = str(tmp_path / "nowhere")
    command["--eval"] = str(write(tmp_path / "some.csv", [*EVAL[:100], *TRAIN[:20]]))
    status, figures = examine(capsys, command)
    assert (status, figures["failed"]) == (1, ["teacher", "shared texts"])
    assert "there is no directory" in found(figures, "teacher", "error")
    assert "20 of 120 rows of some.csv (16.7%) share text" in found(figures, "shared texts", "error")
    assert "train.csv has 240 rows of 3 labels, 80 to 80 rows each" in found(figures, "labels", "ok")
    assert found(figures, "evaluation", "warning") == ""
    note = found(figures, "doctor", "note")
    assert all(check in note for check in ("teacher", "student", "disk", "memory", "time"))


def test_numbers_are_read_without_a_teacher(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    command["--teacher"] = str(tmp_path / "nowhere")
    for which, content in (("--train", TRAIN), ("--eval", EVAL)):
        numbers = [(text, str(len(label) / 4)) for text, label in content]
        command[which] = str(write(tmp_path / f"{which[2:]}.csv", numbers))
    _, figures = examine(capsys, command)
    assert figures["failed"] == ["teacher"]
    assert "240 labels from 0.75 to 1" in found(figures, "labels", "ok")


def test_labels_that_are_withheld(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]) -> None:
    command["--train"] = str(write(tmp_path / "glue.csv", [*TRAIN[:200], *((text, "-1") for text, _ in TRAIN[200:])]))
    status, figures = examine(capsys, command)
    assert status == 1
    assert "how GLUE marks rows whose label is withheld" in found(figures, "train", "error")
    assert "40 of 240 labels of glue.csv are -1 -> leave these labels empty" in found(figures, "labels", "error")
    assert "the teacher's accuracy is" in found(figures, "teacher", "ok")
    assert "glue.csv has 200 rows of 3 labels" in found(figures, "labels", "ok")


@pytest.mark.parametrize(
    ("which", "level", "content", "said"),
    [
        ("--train", "error", [row for row in TRAIN if row[1] == "bad"], "have the label 'bad': there is nothing to"),
        ("--eval", "error", [row for row in EVAL if row[1] == "bad"], "have the label 'bad': its metrics measure"),
        ("--train", "warning", [r for r in TRAIN if r[1] != "bad"], "1 label of eval.csv without any row in"),
        ("--train", "note", [r for r in TRAIN if r[1] != "bad"], "1 of the teacher's labels occur in no row of"),
        ("--train", "warning", [r for r in TRAIN if r[1] != "bad"] + TRAIN[:1], "has fewer than 5 rows: 'bad' (1)"),
        ("--train", "warning", [r for r in TRAIN if r[1] == "bad"] + TRAIN[:30], "are 'bad': accuracy hides how"),
        ("--eval", "note", [*EVAL[:110], *((text, "") for text, _ in EVAL[110:])], "10 of 120 rows of x.csv have no"),
    ],
)
def test_balance_of_labels(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: dict[str, str],
    which: str,
    level: str,
    content: list[Row],
    said: str,
) -> None:
    command[which] = str(write(tmp_path / "x.csv", content))
    status, figures = examine(capsys, command)
    assert said in found(figures, "labels", level)
    assert status == (level == "error")


def test_texts_that_are_empty_or_cut(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    long = [(f"{text} {text}", label) for text, label in rows(60, seed=5)]
    command["--train"] = str(write(tmp_path / "x.csv", [*TRAIN, *long, ('" "', "bad"), ('""', "good")]))
    status, figures = examine(capsys, command)
    said = found(figures, "texts", "warning")
    assert status == 0
    assert "2 of 302 rows of x.csv have no text -> leave them out" in said
    assert "60 of 302 rows (19.9% of x.csv) were longer than 16 tokens and truncated (max_length) -> the model" in said
    _, figures = examine(capsys, command, "--max-length", "8")
    assert "raise --max-length; the model reads up to 16 tokens" in found(figures, "texts", "warning")


def test_columns_that_are_not_used(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]) -> None:
    content = [(text, label, "en") for text, label in TRAIN]
    command["--train"] = str(write(tmp_path / "x.csv", content, header="text,label,language"))  # type: ignore[arg-type]
    status, figures = examine(capsys, command)
    assert status == 0
    assert "the column 'language' is not used" in found(figures, "columns", "note")
    assert figures["warnings"] == 0


def test_texts_that_contradict_each_other_or_repeat(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    other = dict(zip(LABELS, LABELS[1:] + LABELS[:1], strict=True))
    command["--train"] = str(write(tmp_path / "x.csv", [*TRAIN, *((text, other[label]) for text, label in TRAIN[:9])]))
    _, figures = examine(capsys, command)
    assert "9 of 240 texts of x.csv occur with different labels" in found(figures, "repeated texts", "warning")
    command["--train"] = str(write(tmp_path / "y.csv", [*TRAIN, *TRAIN, *TRAIN]))
    _, figures = examine(capsys, command)
    assert "480 of 720 rows of y.csv repeat an earlier one" in found(figures, "repeated texts", "warning")


def test_few_equal_rows_are_a_warning(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    command["--train"] = str(write(tmp_path / "x.csv", [*TRAIN, *EVAL[:3]]))
    status, figures = examine(capsys, command)
    assert status == 0
    assert "3 of 120 rows of eval.csv (2.5%) share text with x.csv" in found(figures, "shared texts", "warning")


def test_evaluation_that_is_missing_small_or_without_labels(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    full = command.pop("--eval")
    _, figures = examine(capsys, command)
    assert "no eval_dataset is given" in found(figures, "evaluation", "warning")
    _, figures = examine(capsys, command, "--eval-strategy", "no")
    assert found(figures, "evaluation", "warning") == ""
    command["--eval"] = str(write(tmp_path / "few.csv", EVAL[:30]))
    _, figures = examine(capsys, command)
    assert "an accuracy of 0.9 is one of 0.79 to 1 with other rows" in found(figures, "evaluation", "warning")
    command["--eval"] = str(write(tmp_path / "none.csv", [(text,) for text, _ in EVAL], header="text"))  # type: ignore[misc]
    status, figures = examine(capsys, command)
    assert status == 1
    assert "has no labels -> expected a label in at least one row" in found(figures, "rows", "error")
    assert full
    command["--train"] = command["--eval"]  # one cause, told once
    _, figures = examine(capsys, command)
    about = [finding for finding in figures["findings"] if finding["level"] != "ok" and "label" in finding["text"]]
    assert [finding["check"] for finding in about] == ["rows"]
    command.pop("--eval")
    _, figures = examine(capsys, command)
    assert "no row of none.csv has a label, so nothing shows how good" in found(figures, "teacher", "warning")


def test_arguments_that_are_chosen_for_new_layers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    _, figures = examine(capsys, command)
    assert "learning_rate 0.001, warmup_ratio 0.1" in found(figures, "arguments", "ok")
    _, figures = examine(capsys, command, "--recipe", "transformers")
    assert found(figures, "arguments", "ok") == ""
    for which in ("--train", "--eval"):
        content = [(text, "w1 w2", label) for text, label in (TRAIN if which == "--train" else EVAL)]
        path = write(tmp_path / f"{which[2:]}.csv", content, header="sentence1,sentence2,label")  # type: ignore[arg-type]
        command[which] = str(path)
    status, figures = examine(capsys, command)
    assert status == 0
    assert "only from many pairs" in found(figures, "arguments", "warning")


def test_arguments_without_effect_and_wrong_ones(capsys: pytest.CaptureFixture[str], command: dict[str, str]) -> None:
    status, figures = examine(capsys, command, "--num-train-epochs", "4", "--max-steps", "9")
    assert status == 0
    assert "num_train_epochs has no effect here: max_steps takes" in found(figures, "arguments", "warning")
    status, figures = examine(capsys, command, "--alpha", "2")
    assert status == 1
    assert "alpha is 2" in found(figures, "arguments", "error")
    assert found(figures, "labels", "ok") != ""


def test_output_directory_that_holds_a_run_or_cannot_be_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    words = [word for pair in command.items() for word in pair]
    assert cli.main(["distill", *words, "--num-train-epochs", "1", "--json"]) == 0
    capsys.readouterr()
    status, figures = examine(capsys, command)
    assert status == 1
    assert "contains a run -> resume it (--resume" in found(figures, "output directory", "error")
    assert "360 of 360 rows are in the teacher cache" in found(figures, "teacher cache", "ok")
    status, _ = examine(capsys, command, "--overwrite-output-dir")
    assert status == 0
    (tmp_path / "file").write_text("")
    command["--output-dir"] = str(tmp_path / "file")
    status, figures = examine(capsys, command)
    assert "is a file -> expected a directory" in found(figures, "output directory", "error")


def test_each_stage_of_the_matches_has_its_own_time(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock({"inside": 2.0, "": 0.5})
    monkeypatch.setattr("kdistill.doctor.subject.time", clock)
    monkeypatch.setattr("kdistill.doctor.subject.training_step", clock.step)
    text = '[[stage]]\nname = "inside"\nshare = 0.75\nprediction_weight = 0\n'
    text += '[[stage.matches]]\nkind = "hidden"\nstudent_layer = -1\nteacher_layer = -1\n[[stage]]\n'
    (tmp_path / "stages.toml").write_text(text)
    options = ("--matches", str(tmp_path / "stages.toml"), "--max-steps", "40", "--eval-strategy", "no")
    status, figures = examine(capsys, command, *options)
    assert status == 0
    said = "training 1:05 for 40 steps: 1:00 for 30 of the stage 'inside', then 0:05 for 10"
    assert said in found(figures, "time", "ok")


class Clock:
    """A clock on which a step takes as many seconds as its stage is given, by what it reads inside the model."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._now = seconds, 0.0

    def monotonic(self) -> float:
        return self._now

    def step(self, *of: Any, inner: Any, **options: Any) -> None:
        self._now += self._seconds["inside" if inner.taps else ""]


def test_predictions_that_count_in_no_stage_are_neither_asked_for_nor_judged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    text = '[[stage]]\nprediction_weight = 0\n[[stage.matches]]\nkind = "relation"\n'
    (tmp_path / "inside.toml").write_text(text + "student_layer = -1\nteacher_layer = -1\n")
    status, figures = examine(capsys, command, "--matches", str(tmp_path / "inside.toml"))
    assert status == 0
    assert "the teacher's predictions are not learned" in found(figures, "teacher", "note")
    assert found(figures, "teacher", "ok") == ""
    assert found(figures, "teacher cache", "ok").startswith("0 of 120 rows are in the teacher cache")
    assert "for 120 rows that its cache lacks" in found(figures, "time", "ok")


def test_student_that_does_not_fit_the_teacher(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path, command: dict[str, str]
) -> None:
    command["--student"] = "L1-H64-A2"
    status, figures = examine(capsys, command)
    assert status == 1
    assert "hidden_size is 64" in found(figures, "student", "error")
    command["--student"] = str(teacher)
    status, figures = examine(capsys, command)
    assert status == 0
    assert "they are of one size (self-distillation)" in found(figures, "student", "note")
    other = changed_teacher(teacher, tmp_path / "other", lambda _: None)
    swapped = [*VOCABULARY[:5], *reversed(VOCABULARY[5:])]
    Path(other, "vocab.txt").write_text("\n".join(swapped) + "\n")
    command["--student"] = other
    status, figures = examine(capsys, command)
    assert status == 0
    assert "texts are read with a tokenizer of its own by the teacher" in found(figures, "student", "note")


def test_upload_without_a_token_and_without_a_hub(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: dict[str, str]
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    status, figures = examine(capsys, command, "--push-to-hub")
    assert status == 1
    assert "uploading needs a token of the hub" in found(figures, "hub", "error")
    with monkeypatch.context() as patched:
        patched.setattr("huggingface_hub.HfApi.whoami", lambda _: {"name": "me"})
        status, figures = examine(capsys, command, "--push-to-hub", "--hub-token", "hf_x")
    assert (status, figures["errors"]) == (0, 0)
    assert "the hub knows the token as that of 'me'" in found(figures, "hub", "ok")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOWHERE)
    status, figures = examine(capsys, command, "--push-to-hub", "--hub-token", "hf_x")
    assert status == 1
    assert "the hub cannot be reached" in found(figures, "hub", "error")


def test_disk_and_memory_that_are_short(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: dict[str, str]
) -> None:
    class Usage:
        free = 20_000

    with monkeypatch.context() as patched:
        patched.setattr(machine_checks.shutil, "disk_usage", lambda _: Usage)
        status, figures = examine(capsys, command)
    assert status == 1
    assert "keep fewer checkpoints" in found(figures, "disk", "error")

    def step(*_: object, **__: object) -> None:
        memory.workspace(1 << 60, 8, 100)  # as a pass does that needs more than there is

    monkeypatch.setattr(subject, "training_step", step)
    status, figures = examine(capsys, command)
    assert status == 1
    assert "a pass of 8 rows with 100 tokens needs" in found(figures, "memory", "error")
    assert "use smaller batches" in found(figures, "memory", "error")


def test_check_that_fails_hides_no_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: dict[str, str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("unforeseen")

    monkeypatch.setattr(data_checks, "find_overlap", broken)
    status, figures = examine(capsys, command)
    assert status == 0
    assert "not checked: 'unforeseen'" in found(figures, "shared texts", "warning")
    assert found(figures, "time", "ok") != ""


def test_distill_warns_at_its_start_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: dict[str, str]
) -> None:
    command["--eval"] = command["--train"]
    words = [word for pair in command.items() for word in pair]
    assert cli.main(["distill", *words, "--num-train-epochs", "1", "--json"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1
    assert "240 of 240 rows of train.csv (100.0%) share text with train.csv" in said[0]
    assert cli.main(["distill", *words, "--num-train-epochs", "1", "--json", "--resume"]) == 0
    assert "share text" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "level", "said"),
    [
        (["0.5", "2", "4"], "ok", "from 0.5 to 4"),
        (["500", "2000", "4000"], "warning", "scale them to about 0 to 1"),
        (["3", "3", "3"], "error", "all 240 labels of x.csv are 3"),
    ],
)
def test_scale_of_numbers(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    teacher: Path,
    command: dict[str, str],
    labels: list[str],
    level: str,
    said: str,
) -> None:
    config = small_config(
        vocab_size=len(VOCABULARY), id2label={0: "LABEL_0"}, problem_type="regression", initializer_range=0.2
    )
    BertForSequenceClassification(config, seed=1).save_pretrained(tmp_path / "numbers")
    (tmp_path / "numbers" / "vocab.txt").write_text((teacher / "vocab.txt").read_text())
    content = [(text, labels[LABELS.index(label)]) for text, label in TRAIN]
    command |= {"--teacher": str(tmp_path / "numbers"), "--train": str(write(tmp_path / "x.csv", content))}
    command["--eval"] = str(write(tmp_path / "y.csv", [(text, labels[LABELS.index(label)]) for text, label in EVAL]))
    _, figures = examine(capsys, command)
    assert said in found(figures, "labels", level)


def test_rows_without_any_of_several_labels(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: Path, command: dict[str, str]
) -> None:
    def rows_of(name: str, lists: list[list[int]]) -> str:
        texts = [text for text, _ in TRAIN]
        lines = [json.dumps({"text": text, "labels": lists[row % len(lists)]}) for row, text in enumerate(texts)]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return str(tmp_path / name)

    command |= {"--train": rows_of("a.jsonl", [[0], [0, 1], []]), "--eval": rows_of("b.jsonl", [[0], [2]])}
    config = small_config(
        vocab_size=len(VOCABULARY), id2label=dict(enumerate(LABELS)), problem_type="multi_label_classification"
    )
    BertForSequenceClassification(config, seed=1).save_pretrained(tmp_path / "several")
    (tmp_path / "several" / "vocab.txt").write_text((teacher / "vocab.txt").read_text())
    command["--teacher"] = str(tmp_path / "several")
    _, figures = examine(capsys, command)
    assert "1 of 3 labels occur in no row of a.jsonl: 'good'" in found(figures, "labels", "warning")
    assert "33.3% with none" in found(figures, "labels", "ok")
    command["--train"] = rows_of("c.jsonl", [[]])
    status, figures = examine(capsys, command)
    assert status == 1
    assert "no row of c.jsonl has any of the 3 labels" in found(figures, "labels", "error")
