"""The notebook on task-agnostic distillation: a small version, with a model, books and rows that are written here."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT
from support.small_run import write_pretrained, write_rows
from support.small_texts import documents

import kdistill as kd

nbformat = pytest.importorskip("nbformat")
for package in ("nbclient", "nbconvert", "ipykernel"):
    pytest.importorskip(package)

TOOL = runpy.run_path(str(ROOT / "tools" / "notebooks.py"))
NOTEBOOK = ROOT / "notebooks" / "task-agnostic-distillation.ipynb"
BOOKS = ("war_and_peace", "middlemarch", "pride_and_prejudice")


def write_books(directory: Path) -> Path:
    """Write each book that the notebook reads, between what is to be dropped."""
    directory.mkdir()
    for seed, name in enumerate(BOOKS):
        around = "*** START OF THIS PROJECT GUTENBERG EBOOK ***", "*** END OF THIS PROJECT GUTENBERG EBOOK ***"
        text = "\n\n".join(documents(120, seed))
        (directory / f"{name}.txt").write_text(f"Licence\n\n{around[0]}\n\n{text}\n\n{around[1]}\n\nLicence\n")
    return directory


def test_a_small_version_runs_from_top_to_bottom(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    for name, seed in (("train", 1), ("dev", 2)):
        write_rows(rows / f"{name}.tsv", 64, seed)
    pretrained = write_pretrained(tmp_path / "pretrained", num_hidden_layers=2)
    parameters = {
        "books_dir": str(write_books(tmp_path / "books")),
        "task_rows": str(rows),
        "pretrained_dir": str(pretrained),
        "max_length": 12,
        "blocks_of_a_step": 8,
        "teacher_epochs": 6,
        "teacher_rate": 1e-2,
        "student_epochs": 2,
        "student_rate": 1e-2,
        "task_epochs": 6,
        "task_batch": 8,
        "task_rate": 1e-2,
        "labelled_rows": 48,
        "seeds": (33, 34),
        "output_dir": str(tmp_path / "out"),
        "most_teacher": 8.0,
        "most_of_start": 1.0,
    }
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    TOOL["with_parameters"](notebook, "\n".join(f"{name} = {value!r}" for name, value in parameters.items()))
    own = {"PYTHONPATH": str(ROOT), "KDISTILL_CACHE": str(tmp_path / "cache")}
    TOOL["execute"](notebook, NOTEBOOK.parent, env=own)
    (table,) = (cell for cell in notebook.cells if cell.id == "task-table")
    shown = next(output["data"]["text/markdown"] for output in table.outputs if "data" in output)
    assert [line.split(" | ")[0] for line in shown.splitlines()] == [
        "| SST-2",
        "|---|--:|--:|--:|",
        "| without the stage on text",
        "| after it",
    ]
    assert "<script" not in TOOL["page"](notebook, NOTEBOOK.parent)
    student = kd.AutoModelForMaskedLM.from_pretrained(tmp_path / "out" / "student")
    assert student.config.num_hidden_layers == 1


def test_books_that_are_missing_are_named_in_one_message(tmp_path: Path) -> None:
    """The cell that looks for them, alone."""
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    names: dict[str, Any] = {}
    exec(cells["parameters"], names)
    names |= {"books_dir": str(tmp_path / "nothing"), "Path": Path}
    with pytest.raises(FileNotFoundError) as caught:
        exec(cells["where-things-are"], names)
    for name in BOOKS:
        assert str(tmp_path / "nothing" / f"{name}.txt") in str(caught.value)
    assert "Set books_dir in the first cell" in str(caught.value)
