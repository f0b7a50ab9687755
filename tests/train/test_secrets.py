"""A secret is never shown or written, whatever is wrong with it or beside it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.small_run import run_fields, small_dataset, small_model, write_model, write_rows
from support.small_search import SPACE, distillation_trainer

import kdistill as kd
from kdistill import hub
from kdistill.cli import main as cli
from kdistill.train.arguments import secret_arguments

SECRET = "hf_5ecret"


@pytest.mark.parametrize("name", ["hub_token", "push_to_hub_token"])
@pytest.mark.parametrize("value", [[SECRET], SECRET.encode(), {SECRET: 1}])
def test_an_argument_of_the_wrong_type_is_not_shown(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=r"hub_token is a secret \((list|bytes|dict)\); expected str or None") as raised:
        kd.TrainingArguments(**{name: value})
    assert SECRET not in str(raised.value)
    args = kd.TrainingArguments()
    with pytest.raises(TypeError, match="hub_token is a secret") as raised:
        setattr(args, name, value)
    assert SECRET not in str(raised.value)


def test_every_secret_argument_is_left_out_of_every_form() -> None:
    for name in secret_arguments():
        args = kd.DistillationTrainingArguments(**{name: SECRET})
        assert SECRET not in f"{args!r}{args}{args.to_dict()}{args._repr_html_()}{copy.copy(args)!r}"


@pytest.mark.parametrize(
    "line", [f'hub_token = ["{SECRET}", 1]', "hub_token = true", f'hub-token = {{a = "{SECRET}"}}']
)
def test_a_config_file_does_not_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    (tmp_path / "run.toml").write_text(f"{line}\n")
    assert cli.main(["finetune", "--config", str(tmp_path / "run.toml")]) == 2
    error = capsys.readouterr().err
    assert "is a secret; expected" in error
    assert SECRET not in error


@pytest.mark.parametrize(
    ("token", "error"),
    [
        (f"{SECRET}\n", ValueError),
        (f"{SECRET}é", ValueError),
        (f"{SECRET} x", ValueError),
        ([SECRET], TypeError),
        (SECRET.encode(), TypeError),
    ],
)
def test_a_token_that_cannot_be_one_is_refused_before_anything_is_asked(
    tmp_path: Path, token: Any, error: type[Exception]
) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: hub.upload(tmp_path, "me/model", token=token, message=""),
        lambda: hub.check_upload("me/model", token),
        lambda: kd.BertForSequenceClassification.from_pretrained("me/model", token=token),
        lambda: kd.BertConfig.from_pretrained("me/model", token=token),
        lambda: kd.AutoTokenizer.from_pretrained("me/model", token=token),
        lambda: kd.pipeline(model="me/model", token=token),
    ]
    for call in calls:
        with pytest.raises(error, match=r"the hub's token (is a|has a character)") as raised:
            call()
        assert SECRET not in str(raised.value)


def written_below(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_no_file_and_no_line_of_a_run_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher, rows = write_model(tmp_path / "teacher"), write_rows(tmp_path / "rows.tsv", 24)
    words = ["--teacher", teacher, "--student", "L1-H16-A2", "--train", rows, "--eval", rows, "--json"]
    words += ["--output-dir", tmp_path / "out", "--num-train-epochs", "2", "--hub-token", SECRET]
    for more in ([], ["--resume", "--num-train-epochs", "3"]):
        assert cli.main(["distill", *map(str, words), *more]) == 0
    assert cli.main(["report", "--model", str(tmp_path / "out"), "--json"]) == 0
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err
    written = written_below(tmp_path)
    assert b"--num-train-epochs" in written
    assert SECRET.encode() not in written


@pytest.mark.filterwarnings("ignore:the teacher's accuracy")
def test_no_study_and_no_trainer_shows_it(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    trainer = distillation_trainer(tmp_path, hub_token=SECRET)
    trainer.hyperparameter_search(SPACE, n_trials=2)
    assert (tmp_path / "out" / "study.journal").is_file()
    assert SECRET.encode() not in written_below(tmp_path)
    assert SECRET not in f"{trainer.recipe!r}{trainer.state!r}{json.dumps(trainer.state.args)}"


def test_the_password_of_a_storage_is_not_shown(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    trainer = distillation_trainer(tmp_path)
    for url in (f"nosuch://me:{SECRET}@host/db", f"postgresql+nosuch://me:{SECRET}@host/db", f"://me:{SECRET}@x"):
        with pytest.raises(ValueError, match=r"storage is .*:\*\*\*@") as raised:
            trainer.hyperparameter_search(SPACE, n_trials=1, storage=url)
        assert SECRET not in str(raised.value)
        assert raised.value.__cause__ is None


def test_a_trainer_writes_none_of_it_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    args = kd.TrainingArguments(
        **run_fields(tmp_path, {"hub_token": SECRET, "report_to": "tensorboard", "eval_strategy": "no"})
    )
    kd.Trainer(small_model(), args, train_dataset=small_dataset(16)).train()
    assert SECRET.encode() not in written_below(tmp_path)
