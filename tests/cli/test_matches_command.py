"""`--matches` of `distill`, `search` and `doctor`: presets, files, and what a wrong one says before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.small_run import write_model, write_rows

from kdistill.cli import main as cli

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
QUICK = ["--num-train-epochs", "1", "--per-device-train-batch-size", "8", "--json"]
INPUTS = ["--teacher", "teacher", "--student", "L1-H8-A2", "--train", "train.tsv", "--eval", "dev.tsv"]
STAGES = """
[[stage]]
name = "inside"
epochs = 0.5
prediction_weight = 0
[[stage.matches]]
kind = "hidden"
[[stage]]
"""


@pytest.fixture(autouse=True)
def _inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    write_model(Path("teacher"))
    write_rows(Path("train.tsv"), 32)
    write_rows(Path("dev.tsv"), 16, seed=1)
    Path("stages.toml").write_text(STAGES)


def run(capsys: pytest.CaptureFixture[str], command: str, *words: str) -> tuple[int, str, str]:
    status = cli.main([command, *INPUTS, *QUICK, *words])
    return status, *capsys.readouterr()


def test_a_file_of_stages_trains_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, errors = run(
        capsys, "distill", "--matches", "stages.toml", "--output-dir", "out", "--logging-steps", "1"
    )
    assert status == 0, errors
    entries = [
        entry for entry in json.loads(Path("out/trainer_state.json").read_text())["log_history"] if "loss" in entry
    ]
    assert ["match_hidden_1_0_loss" in entry for entry in entries] == [True, True, False, False]
    assert "Stage(matches=(Match(kind='hidden', loss='mse'),), name='inside'" in Path("out/README.md").read_text()
    written = json.loads(Path("out/training_args.json").read_text())["matches"]
    assert [stage["name"] for stage in written] == ["inside", ""]
    assert not list(Path("out").glob("*projection*"))


def test_matches_that_the_models_have_no_place_for_are_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("m.toml").write_text('[[matches]]\nkind = "attention"\nteacher_layer = 7\nstudent_layer = 0\n')
    status, output, errors = run(capsys, "distill", "--matches", "m.toml", "--output-dir", "out")
    assert (status, output) == (2, "")
    assert "matches[0] (attention): teacher_layer is 7; expected -2 to 1, as the teacher has 2 layers" in errors
    assert not Path("out").exists()


def test_the_doctor_examines_a_run_with_matches(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = run(capsys, "doctor", "--matches", "minilm", "--output-dir", "out")
    findings = json.loads(output)["findings"]
    assert "measured on" in next(finding["text"] for finding in findings if finding["check"] == "time")
    assert not [finding for finding in findings if "matches" in finding["text"]]
    Path("m.toml").write_text('[[matches]]\nkind = "relation"\nheads = 3\n')
    status, output, _ = run(capsys, "doctor", "--matches", "m.toml", "--output-dir", "out")
    assert status == 1
    assert "heads is 3, and the teacher is 16 and the student 8 wide" in output
