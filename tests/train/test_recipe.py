"""`Recipe` and `Provenance`: what is fixed before a run, and what a run calls its ingredients."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support.small_run import run_fields, small_dataset, small_model

import kdistill as kd
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.recipe import Provenance, Recipe
from kdistill.trainers import DistillationTrainer, Trainer


def test_a_changed_recipe_is_another_one(tmp_path: Path) -> None:
    model, args = small_model(), TrainingArguments(**run_fields(tmp_path, {}))
    recipe = Recipe(model, args, train_dataset=small_dataset(8))
    other = recipe.replace(args=TrainingArguments(**run_fields(tmp_path, {"seed": 7})), model=small_model(2))
    assert (recipe.model, recipe.args) == (model, args)
    assert other.args.seed == 7
    assert (other.train_dataset, other.objective) == (recipe.train_dataset, recipe.objective)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.args = args  # type: ignore[misc]
    with pytest.raises(TypeError, match="argz"):
        recipe.replace(argz=args)


def test_the_recipe_of_a_trainer_is_what_is_assigned_to_it(tmp_path: Path) -> None:
    trainer = Trainer(small_model(), TrainingArguments(**run_fields(tmp_path, {})), train_dataset=small_dataset(8))
    before = trainer.recipe
    trainer.eval_dataset = small_dataset(5, seed=1)
    trainer.model = small_model(2)
    assert (trainer.recipe.eval_dataset, trainer.recipe.model) == (trainer.eval_dataset, trainer.model)
    assert (before.eval_dataset, before.train_dataset) == (None, trainer.train_dataset)


def card(directory: Path) -> str:
    return (directory / "out" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:the teacher's accuracy")
def test_the_card_calls_the_ingredients_as_they_were_named(tmp_path: Path) -> None:
    provenance = kd.Provenance(
        started_from="someone/small",
        teacher="someone/large",
        train="reviews",
        holdout="later reviews",
        command="make it",
    )
    trainer = DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**run_fields(tmp_path, {})),
        teacher_model=small_model(3),
        train_dataset=small_dataset(16),
        eval_dataset=small_dataset(8, seed=1),
        provenance=provenance,
    )
    assert (trainer.started_from, trainer.teacher_name, trainer.command) == (
        "someone/small",
        "someone/large",
        "make it",
    )
    assert trainer.data_names == {"train": "reviews", "eval": "rows in memory", "holdout": "later reviews"}
    assert trainer.teacher_accuracy is None
    trainer.train()
    trainer.create_model_card(holdout=small_dataset(9, seed=2), measure_speed=False)
    assert (
        trainer.teacher_accuracy == json.loads((tmp_path / "out" / "all_results.json").read_text())["teacher_accuracy"]
    )
    assert (tmp_path / "out" / "command.txt").read_text() == "make it\n"
    told = card(tmp_path)
    for fact in ("teacher `someone/large`", "starting from `someone/small`", "`reviews`", "`later reviews`"):
        assert fact in told
    assert 'base_model: "someone/small"' in told


def test_rows_without_a_name_are_called_after_their_file(tmp_path: Path) -> None:
    def names(source: Any) -> dict[str, str]:
        return Provenance().with_names(train=source, eval=None).data_names()

    assert names(tmp_path / "rows.tsv") == {"train": "rows.tsv", "eval": "rows in memory"}
    assert names([{"text": "good", "label": 1}])["train"] == "rows in memory"
    assert Provenance(train="mine").with_names(train="rows.tsv").data_names() == {"train": "mine"}
