"""`kdistill search`: its options, what it prints and leaves, and how it ends early."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.paths import TESTS
from support.small_run import write_model, write_rows

from kdistill import trainers
from kdistill.cli import main as cli
from kdistill.cli.command_line import parse
from kdistill.cli.input_options import SEARCH_OPTIONS
from kdistill.search.study import open_journal
from kdistill.train.callbacks import TrainerCallback
from kdistill.trainers import Trainer

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
INPUTS = [
    *("--teacher", "teacher", "--student", "student"),
    *("--train", "train.tsv", "--eval", "dev.tsv", "--output-dir", "out"),
]
QUICK = ["--num-train-epochs", "2", "--per-device-train-batch-size", "8", "--hp-space", "space.toml"]
SPACE = """
learning_rate = {type = "float", low = 1e-3, high = 3e-2, log = true}
alpha = {type = "float", low = 0, high = 1}
"""


@pytest.fixture(autouse=True)
def _inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("teacher", "student")):
        write_model(Path(name), seed)
    write_rows(Path("train.tsv"), 40)
    write_rows(Path("dev.tsv"), 21, seed=1)
    Path("space.toml").write_text(SPACE)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = cli.main(["search", *INPUTS, *QUICK, *words])
    return status, *capsys.readouterr()


def test_a_best_run_that_no_search_wrote_stays(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/best_run.toml").write_text("mine = 1\n")
    status, _, errors = run(capsys, "--n-trials", "1")
    assert status == 2
    assert "out/best_run.toml exists, and no search wrote it" in errors
    assert [(path.name, path.read_text()) for path in Path("out").iterdir()] == [("best_run.toml", "mine = 1\n")]


def test_best_run_is_what_distill_reads(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, errors = run(capsys, "--n-trials", "3", "--json")
    assert (status, errors.count("trial ")) == (0, 0)
    figures = json.loads(output)
    study = optuna.load_study(study_name="search", storage=open_journal("out/study.journal"))
    assert (figures["run_id"], figures["objective"]) == (str(study.best_trial.number), study.best_value)
    assert figures["hyperparameters"] == study.best_params
    assert tomllib.loads(Path("out/best_run.toml").read_text()) == study.best_params | {"search_trials": 3}
    assert (figures["trials"], figures["best_run"]) == ({"complete": 3}, "out/best_run.toml")
    (command,) = figures["next"]
    output_dir = command.index("--output-dir") + 1
    assert command[output_dir] == "out-best"
    command[output_dir] = "again"
    assert cli.main([*command[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["eval_accuracy"] == study.best_value
    told = "a hyperparameter search scored 3 trials on them"
    assert told in Path("again/README.md").read_text()
    assert cli.main(["report", "--model", "again", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["search_trials"] == 3
    assert told in Path("again/README.md").read_text()
    assert cli.main(["report", "--model", "again", "--search-trials", "50", "--json"]) == 0
    assert told.replace("3", "50") in Path("again/README.md").read_text()
    assert cli.main(["report", "--model", "again", "--search-trials", "0"]) == 0
    assert "hyperparameter search" not in Path("again/README.md").read_text()
    assert cli.main(["report", "--model", "again", "--search-trials", "-1"]) == 2
    assert "--search-trials is -1; expected a whole number >= 0" in capsys.readouterr().err


def test_options_that_no_trial_uses_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, errors = run(capsys, "--n-trials", "1", "--alpha", "0.5", "--json")
    assert status == 0
    assert "--alpha 0.5: no effect here, because --hp-space space.toml varies alpha, and" in " ".join(errors.split())
    words = ["--num-train-epochs", "1", "--temperature", "2", "--max-steps", "2", "--n-trials", "1", "--seed", "5"]
    assert cli.main(["search", *INPUTS, *words, "--output-dir", "second"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "--temperature 2.0: no effect here, because the default space varies temperature, and each trial" in said
    (trial,) = optuna.load_study(study_name="search", storage=open_journal("second/study.journal")).trials
    assert set(trial.params) == {"learning_rate", "alpha", "temperature"}


def test_trials_are_shown_and_the_command_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """A shape as the student, two jobs, and the options that say where and how."""
    shape = ["--student", "L1-H16-A2", "--n-jobs", "2", "--storage", "here/s.journal", "--study-name", "mine"]
    choices = ["--sampler", "random", "--pruner", "hyperband", "--direction", "minimize", "--timeout", "600"]
    status, output, errors = run(capsys, *shape, *choices, "--n-trials", "2")
    assert status == 0, errors
    assert [line.split(":")[0] for line in errors.splitlines() if line.startswith("trial")] in (
        ["trial 0", "trial 1"],
        ["trial 1", "trial 0"],
    )
    assert "(learning_rate 0.0" in errors
    assert [line.split()[0] for line in output.splitlines() if line.startswith(("  learning", "  alpha"))] == [
        "learning_rate",
        "alpha",
    ]
    assert "2 trials: 2 complete" in output
    status, output, errors = run(capsys, *shape, *choices, "--n-trials", "3")
    assert [line.split(":")[0] for line in errors.splitlines() if line.startswith("trial")] == ["trial 2"]
    study = optuna.load_study(study_name="mine", storage=open_journal("here/s.journal"))
    assert (len(study.trials), study.direction.name) == (3, "MINIMIZE")
    assert not Path("out/study.journal").exists()


def test_options_are_the_arguments_with_their_defaults() -> None:
    parameters = inspect.signature(Trainer.hyperparameter_search).parameters
    of_python = {"self", "compute_objective", "hp_name", "seed"}  # functions, and what --seed sets
    of_python |= {"catch", "load_if_exists", "others"}
    assert set(SEARCH_OPTIONS) == set(parameters) - of_python
    options = parse(["search", *INPUTS])
    for name, option in SEARCH_OPTIONS.items():
        assert not hasattr(options, name)
        default = parameters[name].default
        assert default is None or f"(default: {default}" in option.help


def test_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.toml").write_text('lerning_rate = {type = "float", low = 1e-3, high = 3e-2}')
    for words, message in (
        (["--hp-space", "other.toml"], "--hp-space has 'lerning_rate', which is not a hyperparameter; did you mean"),
        (["--n-trials", "0"], "--n-trials is 0"),
        (["--sampler", "grid"], "--sampler is 'grid'; expected one of 'tpe', 'random'"),
        (["--resume"], "there is no option --resume"),
        (["--output-dir", "train.tsv"], "--output-dir 'train.tsv' is a file; expected a directory"),
    ):
        status, output, errors = run(capsys, *words)
        assert (status, output) == (2, "")
        assert errors.startswith(f"kdistill: error: {message}")


def signalled(number: int) -> None:
    """Run a search that gets a signal in the third step of its second trial."""

    class Signal(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            if args.run_name == "run-1" and state.global_step == 3:
                os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    trainers.default_callbacks = lambda args: [Signal()]
    sys.exit(cli.main(["search", *INPUTS, *QUICK, "--n-trials", "4", "--json"]))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_keep_the_trials(
    capsys: pytest.CaptureFixture[str], number: signal.Signals, status: int
) -> None:
    path = os.pathsep.join([str(TESTS), *sys.path])
    program = f"import test_search_command; test_search_command.signalled({int(number)})"
    command = [sys.executable, "-W", "ignore", "-c", program]
    process = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=60
    )
    assert process.returncode == status, process.stderr
    assert process.stderr.endswith(
        "kdistill: interrupted; finished trials are kept (1 complete, 1 queued again); the best "
        "so far is in out/best_run.toml. Repeat the command to continue\n"
    )
    study = optuna.load_study(study_name="search", storage=open_journal("out/study.journal"))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "WAITING"]
    so_far = tomllib.loads(Path("out/best_run.toml").read_text())
    assert so_far == study.trials[0].params | {"search_trials": 1}
    status, output, _ = run(capsys, "--n-trials", "4", "--json")
    assert (status, json.loads(output)["trials"]) == (0, {"complete": 4})


def test_a_summary_or_a_picture_that_fails_costs_no_search(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr("kdistill.trainers.draw_search", fail)
    monkeypatch.setattr("kdistill.cli.search.compare_search", fail)
    monkeypatch.setattr("kdistill.trainers.check_pictures", lambda: None)
    monkeypatch.setattr("kdistill.cli.inputs.check_pictures", lambda: None)
    status, output, errors = run(capsys, "--n-trials", "1", "--plots", "--json")
    found = json.loads(output)
    assert (status, set(found["failed"]), found["trials"]) == (1, {"plots", "summary"}, {"complete": 1})
    assert "Nothing is lost: the best run is in out/best_run.toml" in errors
    assert tomllib.loads(Path("out/best_run.toml").read_text()).keys() > found["hyperparameters"].keys()


def test_ctrl_c_after_the_last_trial_keeps_the_best_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kdistill.cli.search.compare_search", interrupt)
    status, _, errors = run(capsys, "--n-trials", "1")
    assert status == 130
    assert "(1 complete); the best so far is in out/best_run.toml" in errors.splitlines()[-1]
