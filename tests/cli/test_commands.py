"""The commands: their options, their output, their errors."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
from support.small_run import LABELS, sentences, write_model, write_rows

from kdistill import __version__
from kdistill.cli import main as cli
from kdistill.cli.command_list import COMMANDS
from kdistill.cli.inputs import read_arguments
from kdistill.models.classes import BertForSequenceClassification
from kdistill.tasks.predictions import LabelPredictions
from kdistill.text.classes import AutoTokenizer
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.fields import argument_types

NAMES = [command.name for command in COMMANDS]
QUICK = ["--num-train-epochs", "2", "--per-device-train-batch-size", "8", "--learning-rate", "0.01"]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = cli.main([str(word) for word in words])
    return status, *capsys.readouterr()


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command with bad input prints."""
    status, output, errors = run(capsys, *words)
    assert (status, output) == (2, "")
    assert errors.startswith("kdistill: error: ")
    assert errors.count("\n") == 1
    return errors


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.tsv", 40)


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "dev.tsv", 21, seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, output, _ = run(capsys, name, "--help")
    assert status == 0
    assert f"example:\n  kdistill {name} " in output
    assert "--threads N" in output


def test_examples_of_the_help_are_understood() -> None:
    for command in COMMANDS:
        assert cli.parse(command.example.replace("\\\n", "").split()[1:]).command == command.name


def test_help_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = run(capsys, "--help")
    assert status == 0
    assert all(command.summary in output for command in COMMANDS)
    status, without_words, _ = run(capsys)
    assert (status, without_words) == (2, output)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"kdistill {__version__}\n", "")


# Without these an option warns that it has no effect.
FOR_AN_EFFECT: dict[str, dict[str, Any]] = {
    name: {"push_to_hub": True}
    for name in ("hub_model_id", "hub_private_repo", "hub_strategy", "hub_revision", "hub_token")
}
FOR_AN_EFFECT |= {
    "alpha_schedule": {"alpha_end": 0.25},
    "alpha_end": {"alpha_schedule": "linear"},
    "temperature_schedule": {"temperature_end": 1.0},
    "temperature_end": {"temperature_schedule": "cosine"},
    "match_learning_rate": {"matches": "pkd"},
    "hidden_cache": {"matches": "pkd"},
}
OTHER_VALUES = {"matches": "minilm", "hidden_cache": "20GB"}  # than those that any argument of the type takes


@pytest.mark.parametrize(
    ("cls", "inputs"),
    [
        (TrainingArguments, ["finetune", "--model", "m", "--train", "t"]),
        (DistillationTrainingArguments, ["distill", "--teacher", "m", "--student", "s", "--train", "t"]),
    ],
)
def test_every_argument_is_an_option(cls: type[TrainingArguments], inputs: list[str]) -> None:
    """Each option changes its argument and no other; without any the defaults of commands hold."""
    of_commands: dict[str, Any] = {"recipe": "auto"}
    assert read_arguments(cls, cli.parse(inputs)) == cls(**of_commands)
    other: dict[type, Any] = {bool: True, int: 5, float: 0.125, str: "other", dict: "{}", list: "1.0,2.0"}
    for field in dataclasses.fields(cls):
        kind, _ = argument_types(cls)[field.name]
        value = OTHER_VALUES.get(field.name, other[kind])
        option = f"--{field.name.replace('_', '-')}"
        words = [option, str(value)]
        if field.metadata["choices"]:
            default = of_commands.get(field.name, field.metadata["default"])
            value = words[1] = next(c for c in field.metadata["choices"] if c != default)
        if kind is bool:
            value = field.default is not True
            words = [option if value else f"--no-{option[2:]}"]
        needed = FOR_AN_EFFECT.get(field.name, {})
        words += [
            word for name, of in needed.items() for word in (f"--{name.replace('_', '-')}", str(of))[: 2 - (of is True)]
        ]
        assert read_arguments(cls, cli.parse([*inputs, *words])) == cls(**(of_commands | {field.name: value}), **needed)


def test_finetune_evaluate_predict(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model_dir: Path, rows: Path, dev: Path
) -> None:
    out, predictions = tmp_path / "out", tmp_path / "predictions.tsv"
    status, output, errors = run(
        capsys, "finetune", "--model", model_dir, "--train", rows, "--eval", dev, "--output-dir", out, "--json", *QUICK
    )
    assert (status, errors) == (0, "")
    figures = json.loads(output.splitlines()[-1])
    assert figures["eval_n"] == 21
    assert figures["output_dir"] == str(out)
    ending = {name: figures.pop(name) for name in ("summary", "next", "seconds", "checkpoints", "checkpoint_bytes")}
    assert figures == json.loads((out / "all_results.json").read_text()) | {"output_dir": str(out)}
    assert ending["summary"]["model"]["accuracy"] == figures["eval_accuracy"]
    assert ending["seconds"] > figures["train_runtime"]
    checkpoints = list(out.glob("checkpoint-*"))
    assert ending["checkpoints"] == len(checkpoints) > 0
    sizes = [file.stat().st_size for path in checkpoints for file in path.iterdir()]
    assert ending["checkpoint_bytes"] == sum(sizes)
    assert "starting from `model`" in (out / "README.md").read_text()

    status, output, errors = run(capsys, "evaluate", "--model", out, "--data", dev, "--json")
    assert (status, errors, output.count("\n")) == (0, "", 1)
    measured = json.loads(output)
    assert {"dtype", "accuracy", "loss", "n", "runtime", "samples_per_second"} == set(measured)
    assert (measured["accuracy"], measured["loss"]) == (figures["eval_accuracy"], figures["eval_loss"])

    status, output, _ = run(
        capsys, "predict", *("--model", out, "--data", dev), *("--output", predictions, "--digits", 17, "--json")
    )
    assert json.loads(output)["n"] == 21
    header, *lines = [line.split("\t") for line in predictions.read_text().splitlines()]
    assert header == ["index", "prediction", "score_negative", "score_positive", "text"]
    assert [line[-1] for line in lines] == [text for text, _ in sentences(21, seed=1)]
    assert [line[0] for line in lines] == [str(index) for index in range(21)]
    model, tokenizer = BertForSequenceClassification.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    logits = model(**tokenizer([text for text, _ in sentences(21, seed=1)])).logits.astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose([[float(score) for score in line[2:4]] for line in lines], probabilities, rtol=1e-6)
    assert [line[1] for line in lines] == [LABELS[index] for index in logits.argmax(axis=1)]
    hits = [line[1] == LABELS[label] for line, (_, label) in zip(lines, sentences(21, seed=1), strict=True)]
    assert np.mean(hits) == measured["accuracy"]

    status, output, errors = run(capsys, "predict", "--model", out, "--data", dev, "--digits", 17)
    assert output == predictions.read_text()
    assert "n " in errors


def test_distill_from_a_shape_and_from_a_directory(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model_dir: Path, rows: Path, dev: Path
) -> None:
    student = write_model(tmp_path / "student", seed=5, num_hidden_layers=1, id2label={0: "LABEL_0", 1: "LABEL_1"})
    for name in ("L1-H8-A2", student):
        out = tmp_path / f"out-{Path(name).name}"
        status, output, errors = run(
            capsys,
            *("distill", "--teacher", model_dir, "--student", name, "--train", rows, "--eval", dev),
            *("--output-dir", out, "--augment", "1", "--hidden-dropout-prob", "0", "--json", *QUICK),
        )
        assert status == 0
        assert "no better than always" in errors  # an untrained teacher
        assert json.loads(output)["eval_n"] == 21
        assert json.loads((out / "training_args.json").read_text())["augment"] == 1
        config = json.loads((out / "config.json").read_text())
        assert config["num_hidden_layers"] == 1
        assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (0, 0.1)
        assert config["id2label"] == {"0": "negative", "1": "positive"}
        assert "distilled from the teacher `model`" in (out / "README.md").read_text()
        assert AutoTokenizer.from_pretrained(out).vocab == AutoTokenizer.from_pretrained(model_dir).vocab
    shape = json.loads((tmp_path / "out-L1-H8-A2" / "config.json").read_text())
    assert (shape["hidden_size"], shape["num_attention_heads"], shape["intermediate_size"]) == (8, 2, 32)


def test_label_names(capsys: pytest.CaptureFixture[str], tmp_path: Path, rows: Path) -> None:
    """From --label-names, or else from the file, for a model whose labels have none."""
    unnamed = write_model(tmp_path / "unnamed", id2label={0: "LABEL_0", 1: "LABEL_1"})
    named = tmp_path / "named.tsv"
    named.write_text(
        "".join(f"{text}\t{'good' if label else 'bad'}\n" for text, label in [("sentence", 0), *sentences(8)])
    )
    named.write_text(named.read_text().replace("sentence\tbad", "sentence\tlabel", 1))
    for number, (train, options, expected) in enumerate(
        [
            (rows, [], ["LABEL_0", "LABEL_1"]),
            (rows, ["--label-names", "no,yes"], ["no", "yes"]),
            (named, [], ["bad", "good"]),
            (named, ["--label-names", "good,bad"], ["good", "bad"]),
        ]
    ):
        out = tmp_path / str(number)
        status, _, errors = run(
            capsys,
            *("finetune", "--model", unnamed, "--train", train, "--eval", train, "--output-dir", out, "--json"),
            *(*options, *QUICK),
        )
        assert (status, errors) == (0, "")
        assert list(json.loads((out / "config.json").read_text())["id2label"].values()) == expected


def test_a_csv_of_pairs_under_other_names_and_a_model_of_other_labels(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model_dir: Path
) -> None:
    names = ("entailment", "neutral", "contradiction")
    lines = [f'{row},"good, film","bad ""plot""\nscene",{names[row % 3]}' for row in range(12)]
    (tmp_path / "pairs.csv").write_text("\n".join(["id,first,second,verdict", *lines]) + "\n")
    columns = ["--text-column", "first", "--text-pair-column", "second", "--label-column", "verdict"]
    words = ["finetune", "--model", model_dir, "--train", tmp_path / "pairs.csv", *columns, "--json", *QUICK]
    assert "pairs.csv:2: label 'entailment' is not one of the model's labels: 0 (negative), 1 (positive)" in error_of(
        capsys, *words, "--output-dir", tmp_path / "refused"
    )
    teacher = tmp_path / "teacher"
    status, _, errors = run(capsys, *words, "--ignore-mismatched-sizes", "--output-dir", teacher)
    assert status == 0
    assert "classifier.weight (in the file (2, 16), here (3, 16)): initialised at random" in errors
    assert json.loads((teacher / "config.json").read_text())["id2label"] == dict(zip("012", sorted(names), strict=True))
    distill = ["distill", "--teacher", teacher, "--student", model_dir, *words[3:]]
    assert "'entailment' is not one of the model's labels" in error_of(
        capsys, *distill, "--output-dir", tmp_path / "refused"
    )
    status, _, errors = run(capsys, *distill, "--ignore-mismatched-sizes", "--output-dir", tmp_path / "student")
    assert (status, "initialised at random" in errors) == (0, True)
    status, output, _ = run(
        capsys, "evaluate", "--model", tmp_path / "student", "--data", tmp_path / "pairs.csv", *columns, "--json"
    )
    assert json.loads(output)["n"] == 12


def test_output_directory_with_a_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model_dir: Path, rows: Path
) -> None:
    out = tmp_path / "out"
    words = ["finetune", "--model", model_dir, "--train", rows, "--eval", rows, "--output-dir", out, "--json", *QUICK]
    assert run(capsys, *words)[0] == 0
    saved = (out / "model.safetensors").read_bytes()
    assert "contains a run; resume it (--resume" in error_of(capsys, *words)
    status, output, _ = run(capsys, *words, "--resume")
    assert status == 0
    assert json.loads(output)["eval_n"] == 40
    assert (out / "model.safetensors").read_bytes() == saved
    (out / "all_results.json").unlink()
    assert "out holds a finished run, but not its all_results.json; put the file back, or train anew" in error_of(
        capsys, *words, "--resume"
    )
    assert run(capsys, *words, "--overwrite-output-dir", "--seed", "7")[0] == 0
    assert (out / "model.safetensors").read_bytes() != saved
    words[words.index(out)] = model_dir
    assert f"and this command reads {model_dir}; choose another" in error_of(capsys, *words, "--overwrite-output-dir")


def test_a_checkpoint_is_not_deleted_by_the_run_that_begins_with_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model_dir: Path, rows: Path
) -> None:
    out = tmp_path / "out"
    words = ["finetune", "--model", model_dir, "--train", rows, "--output-dir", out, "--json", *QUICK]
    assert run(capsys, *words)[0] == 0
    checkpoint = min(out.glob("checkpoint-*"))
    words[words.index(model_dir)] = checkpoint
    assert f"and this command reads {checkpoint}; choose" in error_of(capsys, *words, "--overwrite-output-dir")
    assert (checkpoint / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["rows.tsv", "link.tsv", "model/model.safetensors"])
def test_predictions_do_not_replace_what_they_are_made_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model_dir: Path, rows: Path, name: str
) -> None:
    (tmp_path / "link.tsv").symlink_to(rows)
    before = (tmp_path / name).read_bytes()
    said = error_of(capsys, "predict", "--model", model_dir, "--data", rows, "--output", tmp_path / name)
    assert f"--output is '{tmp_path / name}', which this command reads; choose another file" in said
    assert (tmp_path / name).read_bytes() == before


def test_bad_words(capsys: pytest.CaptureFixture[str]) -> None:
    distill = ["distill", "--teacher", "t", "--student", "s", "--train", "x.tsv"]
    assert "no option --temparature; did you mean '--temperature'?" in error_of(capsys, *distill, "--temparature", "3")
    assert "no option --alhpa; did you mean '--alpha'?" in error_of(capsys, *distill, "--alhpa=1")
    for elsewhere, here in (("--lr", "--learning-rate"), ("--batch_size=3", "--per-device-train-batch-size")):
        assert f"; did you mean '{here}'?" in error_of(capsys, *distill, elsewhere, "3")
    assert "'L2-H128' is neither a directory nor a shape; expected one such as L2-H128-A2" in error_of(
        capsys, "bench", "--model", "L2-H128"
    )
    assert "no command 'distil'; did you mean 'distill'?" in error_of(capsys, "distil")
    assert "required: --train" in error_of(capsys, "finetune", "--model", "m")
    assert "argument --seed: invalid int value: 'x'" in error_of(capsys, *distill, "--seed", "x")
    assert "alpha is 1.5; expected" in error_of(capsys, *distill, "--alpha", "1.5")
    assert "temperature is 0.0; expected" in error_of(capsys, *distill, "--temperature", "0")
    assert "the number of threads is 0; expected" in error_of(capsys, *distill, "--threads", "0")
    assert "'more' is an unexpected argument (see kdistill info --help)" in error_of(capsys, "info", "more")
    assert "no option --resume: the same command goes on" in error_of(capsys, "search", "--resume")
    assert "no option --tokenizer: the tokenizer is read with the model (see" in error_of(
        capsys, "finetune", "--model", "m", "--train", "x.tsv", "--tokenizer"
    )
    # An abbreviation would change its meaning when an option is added.
    assert "no option --temp" in error_of(capsys, *distill, "--temp", "3")


def test_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path, model_dir: Path, rows: Path) -> None:
    ragged = tmp_path / "ragged.tsv"
    ragged.write_text("sentence\tlabel\ngood film\t1\nbad film\t0\textra\n")
    named = ["finetune", "--model", model_dir, "--train", rows, "--output-dir", tmp_path / "out", "--eval"]
    assert f"--eval is 'hard={rows}'; expected one file, without a name: {rows}. In Python, eval_dataset=" in error_of(
        capsys, *named, f"hard={rows}"
    )
    evaluate = ["evaluate", "--model", model_dir, "--data"]
    assert f"{ragged}:3: 3 fields" in error_of(capsys, *evaluate, ragged)
    assert "nowhere.tsv does not exist" in error_of(capsys, *evaluate, tmp_path / "nowhere.tsv")
    assert "no such column" in error_of(capsys, *evaluate, rows, "--label-column", "stars")
    no_model = error_of(capsys, "evaluate", "--model", tmp_path / "no-model", "--data", rows)
    assert "no-model" in no_model
    (tmp_path / "file").write_text("")
    finetune = ["finetune", "--model", model_dir, "--train", rows, "--output-dir", tmp_path / "file" / "out"]
    assert "cannot be written" in error_of(capsys, *finetune)
    assert "file' is a file; expected a directory" in error_of(capsys, *finetune[:-1], tmp_path / "file")
    predict = ["predict", "--model", model_dir, "--data", rows, "--output", tmp_path]
    assert f"--output is '{tmp_path}', a directory; expected the file to write" in error_of(capsys, *predict)
    dropout = [*finetune[:-1], tmp_path / "out", "--attention-probs-dropout-prob", "1"]
    assert "--attention-probs-dropout-prob is 1.0; expected 0 <= " in error_of(capsys, *dropout)
    assert not (tmp_path / "predictions").exists()
    assert "fields" in error_of(
        capsys, "predict", "--model", model_dir, "--data", ragged, "--output", tmp_path / "predictions"
    )
    assert not (tmp_path / "predictions").exists()
    nowhere = tmp_path / "nowhere" / "predictions"
    assert "there is no such directory to write it into" in error_of(
        capsys, "predict", "--model", model_dir, "--data", rows, "--output", nowhere
    )


def test_predictions_are_written_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_dir: Path, rows: Path
) -> None:
    def fail_midway(self: LabelPredictions, file: TextIO, *_: object) -> None:
        file.write("index\tprediction\n")
        raise OSError("disk full")

    monkeypatch.setattr(LabelPredictions, "write_tsv", fail_midway)
    (tmp_path / "predictions").write_text("earlier")
    words = ["predict", "--model", model_dir, "--data", rows, "--output", tmp_path / "predictions"]
    assert cli.main([str(word) for word in words]) == 2
    assert (tmp_path / "predictions").read_text() == "earlier"


def test_teacher_and_student_that_do_not_fit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model_dir: Path, rows: Path
) -> None:
    student = write_model(tmp_path / "student", seed=5, id2label={0: "positive", 1: "negative"})
    words = ["distill", "--teacher", model_dir, "--student", student, "--train", rows, "--output-dir", tmp_path / "out"]
    assert "teacher's id2label is" in error_of(capsys, *words)
    words[words.index(student)] = "L2-H9-A2"
    assert "hidden_size" in error_of(capsys, *words)


def test_info(capsys: pytest.CaptureFixture[str], model_dir: Path) -> None:
    status, output, _ = run(capsys, "info", "--model", model_dir, "--json")
    figures = json.loads(output)
    assert status == 0
    assert figures["version"] == __version__
    assert figures["num_parameters"] == BertForSequenceClassification.from_pretrained(model_dir).num_parameters()
    status, output, _ = run(capsys, "info", "--threads", "3")
    assert status == 0
    assert "num_threads" in output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_dir: Path, rows: Path
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    words = [
        "finetune",
        "--model",
        model_dir,
        "--train",
        rows,
        "--eval",
        rows,
        "--output-dir",
        tmp_path / "out",
        *QUICK,
    ]
    assert cli.main([str(word) for word in words]) == 0
    shown = terminal.getvalue()
    assert "train:" in shown
    assert "/10" in shown  # steps
    assert "epoch 2 of 2: loss" in shown


def test_python_m_and_a_reader_who_has_seen_enough(model_dir: Path, rows: Path) -> None:
    """As `kdistill predict | head -0`: silence, and the status of a program that SIGPIPE ends."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "kdistill", "predict", "--model", str(model_dir), "--data", str(rows)]
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, "")


def test_student_made_from_a_shape_gets_arguments_chosen_for_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model_dir: Path, rows: Path
) -> None:
    """The choice is printed and kept with the run; what is given wins; a resumed run chooses the same."""
    words = ["distill", "--teacher", model_dir, "--train", rows, "--eval", rows, "--output-dir", tmp_path / "out"]
    words += ["--num-train-epochs", "1"]
    status, _, printed = run(capsys, *words, "--student", "L1-H8-A2")
    assert status == 0
    assert "recipe auto: for new layers" in printed
    assert "chooses per_device_train_batch_size 32, learning_rate 0.001, warmup_ratio 0.1" in printed
    assert "; given: num_train_epochs 1 (--recipe transformers:" in printed
    kept = json.loads((tmp_path / "out" / "training_args.json").read_text())
    chosen = {"num_train_epochs": 1, "learning_rate": 1e-3, "per_device_train_batch_size": 32, "warmup_ratio": 0.1}
    assert kept | chosen | {"recipe": "auto"} == kept
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `recipe` | auto |" in card
    assert "| `learning_rate` | 0.001 |" in card
    status, _, printed = run(capsys, *words, "--student", "L1-H8-A2", "--num-train-epochs", "2", "--resume")
    assert status == 0
    assert "num_train_epochs was 1.0 and is now 2.0" in " ".join(printed.split())
    assert "learning_rate was" not in printed
    for student, recipe in (("L1-H8-A2", "transformers"), (model_dir, "auto")):
        out = tmp_path / f"{recipe}"
        status, _, printed = run(
            capsys, *words[:-4], "--output-dir", out, *words[-2:], "--student", student, "--recipe", recipe
        )
        assert status == 0
        assert "recipe auto:" not in printed
        assert json.loads((out / "training_args.json").read_text())["learning_rate"] == 5e-5
