"""A command that cannot begin, or is interrupted before its first step, leaves no directory behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_run import small_dataset, small_model, write_model, write_rows

import kdistill as kd
from kdistill.cli import main as cli
from kdistill.distill.teachers import Teacher
from kdistill.models.model import Model
from kdistill.train import loop
from kdistill.train.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
STARTS = {
    "finetune": ["finetune", "--model", "teacher"],
    "distill": ["distill", "--teacher", "teacher", "--student", "L1-H16-A2"],
    "search": ["search", "--teacher", "teacher", "--student", "L1-H16-A2", "--n-trials", "1"],
}
ROWS = ["--train", "train.tsv", "--eval", "dev.tsv"]
MISTAKES = {
    "no such rows": ["--train", "nowhere.tsv"],
    "rows without labels": ["--train", "unlabelled.tsv", "--label-column", "nothing"],
    "an argument out of range": ["--learning-rate", "-1"],
    "an unknown metric": ["--metric-for-best-model", "luck"],
    "no evaluation rows with labels": ["--eval", "unlabelled.tsv"],
}


@pytest.fixture(autouse=True)
def _inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("teacher"), 1)
    write_rows(Path("train.tsv"), 16)
    write_rows(Path("dev.tsv"), 8, seed=1)
    Path("unlabelled.tsv").write_text("sentence\ngood film\n")


OUTPUTS = {
    "finetune": [*STARTS["finetune"], *ROWS, "--output-dir"],
    "export": ["export", "--model", "teacher", "--format", "onnx", "--output"],
    "quantize": ["quantize", "--model", "teacher", "--data", "train.tsv", "--output"],
    "prune": ["prune", "--model", "teacher", "--data", "train.tsv", "--layers", "0", "--output"],
    "encode": ["encode", "--tokenizer", "teacher", "--data", "train.tsv", "--output"],
    "predict": ["predict", "--model", "teacher", "--data", "train.tsv", "--output"],
}


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("command", STARTS)
def test_a_mistake_leaves_no_directory(command: str, mistake: str) -> None:
    if command == "search":
        pytest.importorskip("optuna")
    words = [*STARTS[command], *ROWS, *MISTAKES[mistake], "--output-dir", "new/nested/out"]
    assert cli.main(words) == 2
    assert not Path("new").exists()


@pytest.mark.parametrize("command", ["distill", "search", "doctor"])
def test_a_teacher_that_is_named_twice_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "search":
        pytest.importorskip("optuna")
    words = ["--teacher", "teacher", "--teacher", "teacher", "--student", "L1-H16-A2", *ROWS, "--output-dir", "new/out"]
    assert cli.main([command, *words]) == 2
    assert "--teacher has teacher twice; expected each once: --teacher-weights" in capsys.readouterr().err
    assert not Path("new").exists()


def test_a_missing_model_leaves_no_directory() -> None:
    for words in (["finetune", "--model", "gone"], ["distill", "--teacher", "gone", "--student", "L1-H16-A2"]):
        assert cli.main([*words, *ROWS, "--output-dir", "new/out"]) == 2
        assert not Path("new").exists()


@pytest.mark.parametrize("command", OUTPUTS)
def test_an_empty_output_is_not_the_working_directory(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kdistill.exporters.onnx.find_spec", lambda _: object())
    before = sorted(Path().rglob("*"))
    assert cli.main([*OUTPUTS[command], ""]) == 2
    option = OUTPUTS[command][-1]
    assert capsys.readouterr().err.startswith(f"kdistill: error: {option} is '', which names nothing to write")
    assert sorted(Path().rglob("*")) == before


def test_models_tokenizers_and_configurations_are_saved_nowhere_without_a_name() -> None:
    tokenizer = kd.AutoTokenizer.from_pretrained("teacher")
    for saved in (small_model(), small_model().config, tokenizer):
        with pytest.raises(ValueError, match="directory is '', which names nothing to write"):
            saved.save_pretrained("")


def test_a_directory_that_was_there_stays_though_it_is_empty() -> None:
    Path("old").mkdir()
    assert cli.main([*STARTS["distill"], *ROWS, "--learning-rate", "-1", "--output-dir", "old/out"]) == 2
    assert list(Path("old").iterdir()) == []
    Path("old/out").mkdir()
    assert cli.main([*STARTS["distill"], *ROWS, "--metric-for-best-model", "luck", "--output-dir", "old/out"]) == 2
    assert list(Path("old").iterdir()) == [Path("old/out")]


@pytest.mark.parametrize("command", ["distill", "search"])
def test_ctrl_c_while_the_teacher_reads_leaves_no_directory(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == "search":
        pytest.importorskip("optuna")
    monkeypatch.setattr(Teacher, "outputs", interrupt)
    storage = ["--storage", "elsewhere/study/of.journal"] if command == "search" else []
    assert cli.main([*STARTS[command], *ROWS, *storage, "--output-dir", "new/out"]) == 130
    assert not Path("new").exists()
    assert not Path("elsewhere").exists()
    assert "interrupted before the first" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("where", ["Teacher.outputs", "Run.begin", "training_step"])
def test_ctrl_c_before_the_first_step_of_a_run_that_overwrites_tells_of_the_earlier_one(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoints are no part of the run that was interrupted."""
    monkeypatch.setenv("KDISTILL_CACHE", "cache")
    words = [*STARTS["distill"], *ROWS, "--num-train-epochs", "1", "--output-dir", "out"]
    assert cli.main(words) == 0
    earlier = sorted(path.name for path in Path("out").iterdir())
    places: dict[str, Any] = {"Teacher.outputs": Teacher, "Run.begin": Run, "training_step": loop}
    monkeypatch.setattr(places[where], where.split(".")[-1], interrupt)
    assert cli.main([*words, "--overwrite-output-dir"]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    kept = "" if where == "training_step" else "; the earlier run in out is as it was"
    assert said == f"kdistill: interrupted before the first step{kept}. Repeat the command to start again"
    assert (sorted(path.name for path in Path("out").iterdir()) == earlier) == bool(kept)


@pytest.mark.parametrize("wrong", [["--n-trials", "0"], ["--n-jobs", "0"], ["--timeout", "-1"], ["--sampler", "luck"]])
def test_a_wrong_option_of_a_search_leaves_no_journal(wrong: list[str]) -> None:
    pytest.importorskip("optuna")
    assert cli.main([*STARTS["search"], *ROWS, *wrong, "--output-dir", "new/out"]) == 2
    assert not Path("new").exists()


def test_a_trainer_that_cannot_begin_leaves_no_directory(tmp_path: Path) -> None:
    from kdistill.train.arguments import TrainingArguments
    from kdistill.trainers import Trainer

    args = TrainingArguments(str(tmp_path / "new/out"), disable_tqdm=True, metric_for_best_model="luck")
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(8), eval_dataset=small_dataset(8))
    with pytest.raises(ValueError, match="luck"):
        trainer.train()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("made", [kd.BertForMaskedLM, kd.BertModel], ids=["masked-lm", "encoder"])
def test_checkpoint_without_a_trained_head_answers_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, made: type[Model]
) -> None:
    finished, data = write_model(tmp_path / "finished"), write_rows(tmp_path / "rows.tsv", 24)
    bare = write_model(tmp_path / "bare")
    made(kd.AutoConfig.from_pretrained(bare), seed=1).save_pretrained(bare)
    run = ["--train", data, "--num-train-epochs", "1"]
    answers = [["predict", "--model", bare, "--text", "a [MASK] film"], ["serve", "--model", bare]]
    for words in (
        *(answers if made is kd.BertModel else []),  # a language model fills masks
        ["evaluate", "--model", bare, "--data", data],
        ["distill", "--teacher", bare, "--student", "L1-H16-A2", *run, "--output-dir", tmp_path / "refused"],
    ):
        assert cli.main([str(word) for word in words]) == 2
        output, errors = capsys.readouterr()
        assert (output, errors.count("\n")) == ("", 1)
        assert f"{bare} lacks" in errors
        assert "no trained head" in errors
        assert "fine-tune it first, as `kdistill finetune` does" in errors
        if made is kd.BertModel:  # the other one hides words
            assert "or embed texts with its encoder: --task feature-extraction where a command has it" in errors
    as_advised = ["predict", "--model", bare, "--task", "feature-extraction", "--text", "good film", "--json"]
    assert cli.main([str(word) for word in as_advised]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"][0]) == 16
    for words in (
        ["finetune", "--model", bare, *run, "--output-dir", tmp_path / "tuned"],
        ["distill", "--teacher", finished, "--student", bare, *run, "--output-dir", tmp_path / "distilled"],
    ):
        assert cli.main([str(word) for word in words]) == 0
        assert "initialised at random, to be trained" in capsys.readouterr().err


def test_warnings_and_errors_name_options_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*STARTS["distill"], *ROWS, "--teacher-weighting", "confidence", "--max-steps", "1"]
    assert cli.main([*words, "--output-dir", "out"]) == 0
    assert "kdistill: warning: --teacher-weighting is 'confidence', which has no effect" in capsys.readouterr().err
    assert cli.main([*words, "--learning-rate", "-1", "--output-dir", "other"]) == 2
    assert "kdistill: error: --learning-rate is -1" in capsys.readouterr().err
