"""The trainer of commands that only measure a model or ask it."""

from __future__ import annotations

from argparse import Namespace

from ..models.auto import load_trained
from ..text.classes import AutoTokenizer
from ..train.arguments import TrainingArguments
from ..trainers import Trainer
from .inputs import read_arguments, task_of
from .task import head_settings, with_problem_type


def measuring_trainer(options: Namespace) -> Trainer:
    """Return a trainer of `--model` that only measures."""
    args = read_arguments(TrainingArguments, options)
    model = load_trained(options.model, dtype=options.dtype, **head_settings(options.model, task_of(options))).freeze()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model.config = with_problem_type(model.config, task_of(options), "the model")
    return Trainer(model, args, processing_class=tokenizer)
