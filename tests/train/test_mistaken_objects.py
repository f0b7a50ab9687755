"""Objects of another kind than a trainer takes, such as those of transformers: one sentence each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.small_run import run_fields, small_dataset, small_model

import kdistill as kd
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.trainers import DistillationTrainer, Trainer


def of_transformers(name: str, module: str = "transformers.there") -> Any:
    """An object whose class looks like one of transformers (tests/oracle has the real ones)."""
    return type(name, (), {"__module__": module, "on_log": lambda *args, **kwargs: None})()


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        (
            "args",
            of_transformers("TrainingArguments"),
            "args is of type transformers.TrainingArguments; expected kdistill",
        ),
        ("args", {"seed": 3}, "args is of type dict; expected kdistill's TrainingArguments"),
        ("args", "out", "args is 'out'; expected kdistill's TrainingArguments"),
        (
            "model",
            of_transformers("BertModel"),
            "model is of type transformers.BertModel; expected a model of kdistill",
        ),
        (
            "processing_class",
            of_transformers("BertTokenizer"),
            "processing_class is of type transformers.BertTokenizer",
        ),
        (
            "callbacks",
            [of_transformers("TensorBoardCallback", "transformers.integrations.x")],
            "report_to='tensorboard'",
        ),
        ("callbacks", [of_transformers("WandbCallback", "transformers.integrations.x")], "expected report_to='wandb'"),
        ("callbacks", [of_transformers("CometCallback", "transformers.integrations.x")], "a TrainerCallback of yours"),
        ("callbacks", ["tensorboard"], r"callbacks has 'tensorboard' \(str\); expected a TrainerCallback"),
        (
            "callbacks",
            of_transformers("EarlyStopping"),
            "callbacks is of type transformers.*; expected a list of Trainer",
        ),
        ("callbacks", [3], r"callbacks has 3 \(int\); expected a TrainerCallback"),
    ],
)
def test_an_object_of_another_kind_is_refused(tmp_path: Path, argument: str, value: Any, message: str) -> None:
    given = {"model": small_model(), "args": TrainingArguments(str(tmp_path)), argument: value}
    with pytest.raises(TypeError, match=message):
        Trainer(**given)


def test_a_teacher_and_a_callback_of_another_kind(tmp_path: Path) -> None:
    args = DistillationTrainingArguments(**run_fields(tmp_path, {}))
    with pytest.raises(
        TypeError, match=r"teacher_model is of type transformers.BertModel; expected a model of kdistill"
    ):
        DistillationTrainer(small_model(), args, teacher_model=of_transformers("BertModel"))
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(8))
    with pytest.raises(TypeError, match="expected report_to='mlflow'"):
        trainer.add_callback(of_transformers("MLflowCallback", "transformers.integrations.y"))


def test_any_object_with_an_event_is_a_callback(tmp_path: Path) -> None:
    class Mine:
        def on_log(self, *args: Any, **kwargs: Any) -> None:
            pass

    trainer = Trainer(
        small_model(), TrainingArguments(str(tmp_path)), callbacks=[Mine, Mine(), kd.EarlyStoppingCallback]
    )
    assert sum(isinstance(callback, Mine) for callback in trainer.callback_handler.callbacks) == 2


def test_a_class_with_methods_that_would_never_be_called_is_refused() -> None:
    def weighted_loss(self: Any, model: Any, inputs: Any, return_outputs: bool = False) -> None: ...

    with pytest.raises(TypeError, match=r"Mine\.compute_loss has the arguments of transformers; expected compute_loss"):
        type("Mine", (Trainer,), {"compute_loss": weighted_loss})
    for name, remedy in {
        "get_train_dataloader": "change those",
        "create_optimizer": "lr_scheduler_type",
        "training_step": "loop",
        "prediction_step": "override evaluate or predict",
    }.items():
        with pytest.raises(TypeError, match=rf"Mine\.{name} would never be called: .*{remedy}"):
            type("Mine", (DistillationTrainer,), {name: weighted_loss})
        with pytest.raises(AttributeError, match=rf"Trainer has no attribute '{name}': .*{remedy}"):
            getattr(Trainer(small_model()), name)

    class Mine(Trainer):
        def compute_loss(self, logits: Any, labels: Any, rows: Any) -> Any:
            return super().compute_loss(logits, labels, rows)

    with pytest.raises(AttributeError, match="Mine has no attribute 'evalute'; did you mean 'evaluate'"):
        Mine(small_model()).evalute  # noqa: B018
    assert Mine(small_model()).is_world_process_zero()
    assert Mine(small_model()).is_local_process_zero()


def test_a_run_that_the_arguments_want_resumed_and_train_does_not(tmp_path: Path) -> None:
    args = TrainingArguments(**run_fields(tmp_path, {"resume_from_checkpoint": "checkpoint-4"}))
    rows = small_dataset(8)
    with pytest.warns(
        UserWarning, match=r"args.resume_from_checkpoint is 'checkpoint-4', but train\(\) does not use it"
    ):
        Trainer(small_model(), args, train_dataset=rows, eval_dataset=rows).train()


def test_a_card_with_the_arguments_of_run_glue(tmp_path: Path) -> None:
    rows = small_dataset(8)
    trainer = Trainer(
        small_model(), TrainingArguments(**run_fields(tmp_path, {})), train_dataset=rows, eval_dataset=rows
    )
    trainer.train()
    with pytest.warns(UserWarning, match="^finetuned_from, tasks ignored: the run knows its checkpoint"):
        trainer.create_model_card(finetuned_from="m", tasks="text-classification", language="de", measure_speed=False)
    assert '"de"' in (tmp_path / "out/README.md").read_text()
