"""Pictures of a run as files: written, linked by the card, uploaded with it, and deleted with the run."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model

from kdistill.report import figures, pictures
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.directory import RunDirectory
from kdistill.trainers import DistillationTrainer, Trainer

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
PNG = b"\x89PNG\r\n\x1a\n"


def trained(directory: Path, **changes: Any) -> DistillationTrainer:
    args = DistillationTrainingArguments(**run_fields(directory, {"plots": True, **changes}))
    rows = {"train_dataset": small_dataset(40), "eval_dataset": small_dataset(31, seed=1)}
    trainer = DistillationTrainer(small_model(), args, teacher_model=small_model(7), **rows)
    trainer.train()
    assert not trainer.failed
    return trainer


def linked(card: Path) -> list[str]:
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", card.read_text())


def test_the_card_shows_each_picture_that_was_written(tmp_path: Path) -> None:
    trained(tmp_path)
    out = tmp_path / "out"
    paths = linked(out / "README.md")
    assert sorted(paths) == sorted(f"plots/{path.name}" for path in (out / "plots").iterdir())
    assert [Path(path).stem for path in paths] == list(pictures.OF_A_REPORT)
    for path in paths:
        content = (out / path).read_bytes()
        width, height = struct.unpack(">II", content[16:24])  # of the header, PNG specification 11.2.2
        assert content.startswith(PNG)
        assert width > height > 100


def test_a_run_without_plots_writes_none(tmp_path: Path) -> None:
    trained(tmp_path, plots=False)
    assert not (tmp_path / "out/plots").exists()
    assert linked(tmp_path / "out/README.md") == []


def test_a_regression_has_the_pictures_that_it_can_have(tmp_path: Path) -> None:
    rows = small_dataset(24)
    numbers = type(rows)(rows.ids, rows.types, rows.starts, rows.labels.astype(np.float32))
    args = TrainingArguments(**run_fields(tmp_path, {"plots": True}))
    model = small_model(id2label={0: "LABEL_0"}, problem_type="regression")
    Trainer(model, args, train_dataset=numbers, eval_dataset=numbers).train()
    assert linked(tmp_path / "out/README.md") == ["plots/training_curves.png"]


def test_pictures_go_with_the_run_that_is_overwritten_and_those_of_people_stay(tmp_path: Path) -> None:
    trained(tmp_path)
    plots = tmp_path / "out/plots"
    mine = plots / "mine.png"
    mine.write_bytes(PNG + b"drawn by hand")
    with RunDirectory(tmp_path / "out").claim(resume=False, overwrite=True):
        RunDirectory(tmp_path / "out").delete_run()
    assert list(plots.iterdir()) == [mine]
    mine.unlink()
    (plots / "reliability.png").write_bytes(PNG + b"drawn by hand")
    args = TrainingArguments(**run_fields(tmp_path, {"plots": True}))
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(40), eval_dataset=small_dataset(31, seed=1))
    with pytest.warns(UserWarning, match=r"reliability.png exists, and kdistill did not write it"):
        trainer.train()
    assert (plots / "reliability.png").read_bytes() == PNG + b"drawn by hand"


def test_missing_matplotlib_is_an_error_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures._picture.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    try:
        with pytest.raises(ImportError, match=r'pip install "kdistill\[plots\]"'):
            trained(tmp_path)
    finally:
        figures._picture.cache_clear()
    assert not (tmp_path / "out").exists()


def test_pictures_of_a_search(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    from support.small_search import distillation_trainer, search

    search(distillation_trainer(tmp_path, plots=True, metric_for_best_model="loss"), n_trials=3)
    assert {path.stem for path in (tmp_path / "out/plots").iterdir()} == set(pictures.OF_A_SEARCH)
