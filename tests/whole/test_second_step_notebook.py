"""The notebook on a second step of distillation: a small version of it, with models and rows that are written here."""

from __future__ import annotations

import json
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT
from support.small_questions import questions
from support.small_run import WORDS, write_pretrained

import kdistill as kd

nbformat = pytest.importorskip("nbformat")
for package in ("nbclient", "nbconvert", "ipykernel", "seqeval"):
    pytest.importorskip(package)

TOOL = runpy.run_path(str(ROOT / "tools" / "notebooks.py"))
NOTEBOOK = ROOT / "notebooks" / "second-step-distillation.ipynb"
ARTICLES = 10


def tagged(n: int, seed: int) -> list[list[tuple[str, str]]]:
    """Sentences in which good words are one kind of entity, and bad ones another."""
    random = np.random.default_rng(seed)
    kind = dict(zip(WORDS[:4], ("B-praise", "B-praise", "B-blame", "B-blame"), strict=True))
    sentences = [random.choice(WORDS, random.integers(3, 9)).tolist() for _ in range(n)]
    return [[(word, kind.get(word, "O")) for word in words] for words in sentences]


def write_data(directory: Path) -> Path:
    """Write data sets under the names that those of the notebook have."""
    asked = questions(12 * ARTICLES)
    articles: list[dict[str, Any]] = [{"title": f"article {number}", "paragraphs": []} for number in range(ARTICLES)]
    for row, question in enumerate(asked):
        texts, starts = question["answers"]["text"], question["answers"]["answer_start"]
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
        qas = [{"id": question["id"], "question": question["question"], "answers": answers}]
        articles[row % ARTICLES]["paragraphs"].append({"context": question["context"], "qas": qas})
    files = {"squadshifts/new_wiki_v1.0.json": json.dumps({"version": "1.1", "data": articles})}
    parts = {"wnut17/train.conll": 1, "wnut17/dev.conll": 2, "bc5cdr/train.tsv": 3, "bc5cdr/devel.tsv": 4}
    for seed, name in enumerate(parts):
        sentences = tagged(64, seed)
        files[name] = "\n".join("".join(f"{word}\t{tag}\n" for word, tag in words) for words in sentences)
    slots = [{"data": pieces(words)} for words in tagged(100, 5)]
    files["snips/train_PlayMusic_full.json"] = json.dumps({"PlayMusic": slots})
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    return directory


def pieces(words: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """A sentence as the files of SNIPS have it."""
    return [{"text": word} | ({} if tag == "O" else {"entity": tag[2:]}) for word, tag in spaced(words)]


def spaced(words: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [piece for word in words for piece in (word, (" ", "O"))]


def test_a_small_version_runs_from_top_to_bottom(tmp_path: Path) -> None:
    shape = {"max_position_embeddings": 64, "hidden_size": 32}
    parameters = {
        "data_dir": str(write_data(tmp_path / "data")),
        "student_dir": str(write_pretrained(tmp_path / "student", 1, num_hidden_layers=1, **shape)),
        "pretrained_dir": str(write_pretrained(tmp_path / "pretrained", 2, num_hidden_layers=2, **shape)),
        "questions": 90,
        "sentences": {"wnut17": 60, "bc5cdr": 60, "snips": 80},
        "epochs_of_questions": 1,
        "epochs_of_tags": 12,
        "learning_rate": 5e-3,
        "output_dir": str(tmp_path / "out"),
        "least_f1": {"squadshifts": 0, "wnut17": 50, "bc5cdr": 50, "snips": 50},
    }
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    TOOL["with_parameters"](notebook, "\n".join(f"{name} = {value!r}" for name, value in parameters.items()))
    own = {"PYTHONPATH": str(ROOT), "KDISTILL_CACHE": str(tmp_path / "cache")}
    TOOL["execute"](notebook, NOTEBOOK.parent, env=own)
    (results,) = (cell for cell in notebook.cells if cell.id == "all-results")
    (shown,) = (output["data"]["text/markdown"] for output in results.outputs if "data" in output)
    assert [line.split(" | ")[0] for line in shown.splitlines()[2:]] == [
        "| squadshifts",
        "| wnut17",
        "| bc5cdr",
        "| snips",
    ]
    assert "<script" not in TOOL["page"](notebook, NOTEBOOK.parent)
    taught = kd.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "out" / "answers-taught")
    assert taught.config.num_hidden_layers == 1


def test_what_is_missing_is_named_in_one_message(tmp_path: Path) -> None:
    """The cell that looks for rows and student, alone."""
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    names: dict[str, Any] = {}
    exec(cells["parameters"], names)
    names |= {"data_dir": str(tmp_path / "nothing"), "student_dir": str(tmp_path / "nobody"), "Path": Path}
    with pytest.raises(FileNotFoundError) as caught:
        exec(cells["where-things-are"], names)
    message = str(caught.value)
    for name in ("squadshifts", "wnut17", "bc5cdr", "snips"):
        assert str(tmp_path / "nothing" / name) in message
    assert str(tmp_path / "nobody") in message
    assert "Set data_dir and student_dir in the first cell" in message
