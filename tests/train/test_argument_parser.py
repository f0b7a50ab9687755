"""`kd.HfArgumentParser`: scripts of transformers with the argument classes of kdistill (tests/oracle has theirs)."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

import kdistill as kd


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class ModelArguments:
    student: str = field(metadata={"help": "100% of a student"})
    layers: list[int] = field(default_factory=lambda: [1, 2])
    size: Size = Size.SMALL
    mode: Literal["fast", "slow"] = "fast"
    revision: str | None = None
    cased: bool = True


PARSER = kd.HfArgumentParser((ModelArguments, kd.DistillationTrainingArguments))


def test_words_become_instances_of_each_class() -> None:
    words = (
        "--student s --layers 3 4 --size large --mode slow --no_cased --output_dir o --logging-steps 5 --push_to_hub"
    )
    words += " --no_teacher_cache --report_to files,wandb --load_best_model_at_end False --lr_scheduler_type cosine"
    settings = ["--lr_scheduler_kwargs", '{"num_cycles": 1}']
    model, args = PARSER.parse_args_into_dataclasses([*words.split(), *settings])
    assert model == ModelArguments("s", [3, 4], "large", "slow", None, False)  # type: ignore[arg-type]
    assert args == kd.DistillationTrainingArguments(
        "o",
        logging_steps=5,
        push_to_hub=True,
        teacher_cache=False,
        report_to=["files", "wandb"],
        load_best_model_at_end=False,
        lr_scheduler_type="cosine",
        lr_scheduler_kwargs={"num_cycles": 1},
    )
    assert "--metric-for-best-model" in PARSER.format_help()


def test_no_words_leave_every_default() -> None:
    (args,) = kd.HfArgumentParser(kd.TrainingArguments).parse_args_into_dataclasses([])
    assert args == kd.TrainingArguments()
    args.settle_best_metric("loss")  # still open
    assert (args.metric_for_best_model, args.greater_is_better) == ("loss", False)


def test_files_and_dicts(tmp_path: Path) -> None:
    given = {"student": "s", "seed": 3, "eval_steps": 7}
    (tmp_path / "args.json").write_text(json.dumps(given))
    for model, args in (PARSER.parse_dict(given), PARSER.parse_json_file(tmp_path / "args.json")):
        assert (model.student, args.seed, args.eval_strategy) == ("s", 3, "steps")
    with pytest.raises(ValueError, match="there is no argument 'sead'; did you mean 'seed'"):
        PARSER.parse_dict({**given, "sead": 4})
    assert PARSER.parse_dict({**given, "sead": 4}, allow_extra_keys=True)[1].seed == 3
    (tmp_path / "args.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"args\.json holds a list; expected an object"):
        PARSER.parse_json_file(tmp_path / "args.json")


def test_words_that_are_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--student", "s", "--lerning_rate", "3"]
    with pytest.raises(SystemExit):
        PARSER.parse_args_into_dataclasses(words)
    assert "there is no option --lerning_rate; did you mean '--learning_rate'" in capsys.readouterr().err
    *_, remaining = PARSER.parse_args_into_dataclasses(words, return_remaining_strings=True)
    assert remaining == ["--lerning_rate", "3"]
    with pytest.raises(SystemExit):
        PARSER.parse_args_into_dataclasses(["--student", "s", "--push_to_hub", "perhaps"])
    with pytest.raises(SystemExit):
        PARSER.parse_args_into_dataclasses([])  # --student is required


def test_arguments_of_transformers_that_are_not_here_are_options_too(tmp_path: Path) -> None:
    words = "--student s --do_train --do-eval False --evaluation_strategy steps --per_gpu_train_batch_size 8"
    words += " --label_names labels --resume_from_checkpoint c --log_level passive"
    _, args = PARSER.parse_args_into_dataclasses(words.split())
    assert (args.do_train, args.do_predict, args.resume_from_checkpoint) == (True, False, "c")
    assert (args.eval_strategy, args.per_device_train_batch_size, args.label_names) == ("steps", 8, ["labels"])
    with pytest.warns(UserWarning, match="fp16 is ignored"):
        _, args = PARSER.parse_args_into_dataclasses(["--student", "s", "--fp16"])
    assert args.fp16 is False
    with pytest.raises(ValueError, match="adafactor is True, which kdistill does not support"):
        PARSER.parse_args_into_dataclasses(["--student", "s", "--adafactor"])
    (tmp_path / "args.json").write_text('{"student": "s", "do_train": true, "evaluation_strategy": "no"}')
    _, args = PARSER.parse_json_file(tmp_path / "args.json")
    assert (args.do_train, args.do_eval, args.eval_strategy) == (True, False, "no")
