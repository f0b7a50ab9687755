"""The README's commands and lines of Python are run as printed, with small models in the place of the hub's."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import kdistill as kd
from kdistill import cli

WORDS = ["good", "bad", "film", "plot", "a", "the", "very", "not"]
TEACHER, STUDENT = "textattack/bert-base-uncased-SST-2", "google/bert_uncased_L-2_H-128_A-2"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def recipe_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory where the README's hub ids are small local models and its rows exist."""
    monkeypatch.chdir(tmp_path)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = kd.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    for name, seed in ((TEACHER, 1), (STUDENT, 2)):
        model = kd.BertForSequenceClassification(config, seed=seed)
        model.save_pretrained(name)
        Path(name, "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    random = np.random.default_rng(0)
    for name, rows in (("train.tsv", 40), ("dev.tsv", 20)):
        lines = [f"{' '.join(random.choice(WORDS, 5))}\t{row % 2}" for row in range(rows)]
        Path(name).write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")
    return tmp_path


def test_readme_opens_with_the_two_commands() -> None:
    assert commands()[:2] == [["make", "demo"], ["make", "test"]]
    targets = re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command[1] for command in commands() if command[0] == "make"} <= set(targets)


def test_recipe_as_one_command(recipe_dir: Path) -> None:
    (recipe,) = (command for command in commands() if command[0] == "kdistill")
    assert recipe[recipe.index("--teacher") + 1] == TEACHER
    assert recipe[recipe.index("--student") + 1] == STUDENT
    with contextlib.redirect_stderr(io.StringIO()):
        assert not cli.main(recipe[1:])
    assert (recipe_dir / "tiny-bert-sst2" / "model.safetensors").is_file()


@pytest.mark.filterwarnings("ignore:the teacher's accuracy")
def test_recipe_as_ten_lines_of_python(recipe_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recipe,) = blocks("python")
    exec(compile(recipe, "README.md", "exec"), {})
    assert (recipe_dir / "tiny-bert-sst2" / "model.safetensors").is_file()
    assert "eval_accuracy" in capsys.readouterr().out


def test_links_inside_the_project_lead_somewhere() -> None:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")]
    for page in [*pages, *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
