"""`--recipe` with a name that stands for a student too: its shape, what a run keeps of it, and what is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.small_run import write_model, write_rows

from kdistill.cli.main import main

pytestmark = pytest.mark.filterwarnings(
    "ignore:the teacher's accuracy", "ignore:.*share text", "ignore:.*is measured on", "ignore:no eval_dataset"
)
SHORT = ("--max-steps", "2", "--save-strategy", "no", "--no-load-best-model-at-end", "--report-to", "none")


@pytest.fixture(autouse=True)
def _inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("teacher"), 9, hidden_size=192, num_hidden_layers=4)
    write_rows(Path("train.tsv"), 20)
    write_rows(Path("dev.tsv"), 10, seed=1)


def distill(recipe: str, *words: str, out: str = "out") -> int:
    files = ("--teacher", "teacher", "--train", "train.tsv", "--eval", "dev.tsv", "--output-dir", out)
    return main(["distill", "--recipe", recipe, *files, *SHORT, *words])


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def of_run(name: str, out: str = "out") -> dict[str, Any]:
    return dict(json.loads(Path(out, name).read_text()))


def test_a_recipe_names_the_student_and_its_run_can_be_resumed_and_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    saving = ("--save-strategy", "steps", "--save-steps", "2")
    assert distill("tiny", *saving, "--json") == 0
    output = capsys.readouterr()
    chosen = {"augment": 24, "per_device_train_batch_size": 64, "learning_rate": 0.001, "warmup_ratio": 0.1}
    figures = json.loads(output.out.splitlines()[-1])
    assert (figures["recipe"], figures["chosen"]) == ("tiny", chosen)
    config, args = of_run("config.json"), of_run("training_args.json")
    assert (config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]) == (2, 128, 2)
    assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (0, 0)
    assert {name: args[name] for name in ("recipe", *chosen)} == {"recipe": "tiny", **chosen}
    card = Path("out/README.md").read_text()
    assert "The recipe `tiny` chose what nobody gave of the student's shape and of the arguments." in card
    assert "starting from" not in card
    assert "--student" not in Path("out/command.txt").read_text()
    assert distill("tiny", *saving, "--resume", "--max-steps", "3") == 0
    error = capsys.readouterr().err
    assert "max_steps was 2 and is now 3" in " ".join(error.split())
    assert "recipe tiny: for a student of L2-H128-A2 and 20 training rows it chooses augment 24," in error
    assert "augment was" not in error
    assert main(["report", "--model", "out"]) == 0
    assert Path("out/README.md").read_text().count("The recipe `tiny` chose") == 1
    assert "recipe tiny:" not in capsys.readouterr().err


def test_small_copies_every_second_layer_whatever_directories_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """A run into a directory of the shape's name is the one that would find it there when it is resumed."""
    assert distill("small", out="half") == 0
    config = of_run("config.json", "half")
    assert (config["num_hidden_layers"], config["hidden_size"], config["hidden_dropout_prob"]) == (2, 192, 0.1)
    assert distill("small", "--resume", "--max-steps", "3", out="half") == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "recipe small: for a student of L2-H192-A2 and 20 training rows it chooses per_device" in printed


def test_options_win_over_a_recipe_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.toml").write_text('recipe = "tiny"\nstudent = "L1-H16-A2"\naugment = 3\nlearning_rate = 0.01\n')
    words = ("--config", "run.toml", "--augment", "2", "--hidden-dropout-prob", "0.2")
    files = ("--teacher", "teacher", "--train", "train.tsv", "--output-dir", "out")
    assert main(["distill", *files, *SHORT, *words]) == 0
    config, args = of_run("config.json"), of_run("training_args.json")
    assert (config["hidden_size"], config["hidden_dropout_prob"]) == (16, 0.2)
    assert config["attention_probs_dropout_prob"] == 0
    assert (args["augment"], args["learning_rate"]) == (2, 0.01)
    printed = " ".join(capsys.readouterr().err.split())
    assert "; given: student L1-H16-A2, augment 2, max_steps 2, learning_rate 0.01" in printed


def test_what_a_recipe_cannot_be_used_for(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ("--train", "train.tsv", "--output-dir", "out")
    taught = ("distill", "--teacher", "teacher", *rows)
    assert "invalid choice: 'tinny' (choose from" in refused(capsys, *taught, "--recipe", "tinny")
    assert "--recipe small or smaller or tiny" in refused(capsys, *taught)
    assert "tiny, whose student L2-H128-A2 is made of the --teacher" in refused(
        capsys, "distill", *rows, "--recipe", "tiny"
    )
    alone = refused(capsys, "finetune", "--model", "teacher", *rows, "--recipe", "tiny")
    assert "recipe is 'tiny', which is for a student that learns from a teacher; expected 'transformers'" in alone
    pretrained = refused(capsys, *taught, "--recipe", "tiny", "--student", "teacher")
    assert (
        "the student's are pretrained, or copied from the teacher; expected its own student, L2-H128-A2" in pretrained
    )
    assert not Path("out").exists()


def test_doctor_says_what_a_recipe_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    """Also beside an argument that cannot be: the recipe's student is looked at all the same."""
    words = ("--teacher", "teacher", "--train", "train.tsv", "--eval", "dev.tsv", "--recipe", "tiny", "--json")
    assert main(["doctor", *words, "--learning-rate", "-1", "--output-dir", "out"]) == 1
    findings = json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]
    error, said = (finding["text"] for finding in findings if finding["check"] == "arguments")
    assert "learning_rate is -1" in error
    assert "recipe tiny: for a student of L2-H128-A2" in said
    assert "augment 24" in said


def test_a_search_around_a_recipe_leaves_the_command_of_its_best_run(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    files = ("--teacher", "teacher", "--train", "train.tsv", "--eval", "dev.tsv", "--output-dir", "search")
    more = ("--n-trials", "1", "--recipe", "tiny", "--max-steps", "2", "--augment", "1", "--json")
    assert main(["search", *files, *more]) == 0
    (command,) = json.loads(capsys.readouterr().out.splitlines()[-1])["next"]
    assert "--student" not in command
    assert command[command.index("--recipe") + 1] == "tiny"
    found = tomllib.loads(Path("search/best_run.toml").read_text())
    assert 2.5e-4 <= found["learning_rate"] <= 4e-3
