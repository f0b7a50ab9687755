"""The metrics that SageMaker reads from the log of a job, line by line, and the lines that they are in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..train.state import numbers_of

FINAL = "final_"
"""The beginning of the names in the last line of a job."""
_NUMBER = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)"
_OF_TRAINING = ("loss", "hard_loss", "soft_loss", "learning_rate", "grad_norm")
_OF_EVALUATION = (
    *("loss", "accuracy", "f1", "f1_macro", "f1_micro", "precision", "recall", "matthews_correlation", "roc_auc"),
    *("average_precision", "top_1", "mse", "pearson", "spearmanr"),
)
# Of an evaluation, and of the machine.
_NOT_OF_THE_MODEL = ("runtime", "samples_per_second", "steps_per_second", "n")


def metric_definition(name: str) -> dict[str, str]:
    """Return the definition of a metric by its name for SageMaker: train:loss, eval:accuracy, final:accuracy."""
    stage, _, metric = name.partition(":")
    key = metric if stage == "train" else f"{stage}_{metric}"
    return {"Name": name, "Regex": f"'{key}': {_NUMBER}"}


METRIC_DEFINITIONS = [
    *(metric_definition(f"train:{name}") for name in _OF_TRAINING),
    *(metric_definition(f"eval:{name}") for name in _OF_EVALUATION),
    *(metric_definition(f"final:{name}") for name in _OF_EVALUATION),
    {"Name": "trial:objective", "Regex": rf"trial [0-9]+: {_NUMBER} "},
]
"""What `CreateTrainingJob` takes as `MetricDefinitions`, of which a job may have 40; other metrics:
`metric_definition`."""


def log_line(entry: Mapping[str, Any]) -> str:
    """Return the line of a log entry, which looks as that of transformers: a dict of Python."""
    return str({name: value for name, value in numbers_of(dict(entry)).items() if name != "step"})


def final_line(results: Mapping[str, Any], best: str) -> str:
    """Return the last line of a job: the evaluation of the model that it leaves.

    Args:
        results: those of a run.
        best: `metric_for_best_model`, which comes first.
    """
    evaluated = {
        name.removeprefix("eval_"): value
        for name, value in numbers_of(dict(results)).items()
        if name.startswith("eval_") and name.removeprefix("eval_") not in _NOT_OF_THE_MODEL
    }
    if not evaluated:
        evaluated = {"train_loss": results["train_loss"]}
    first = best.removeprefix("eval_")
    ordered = sorted(evaluated, key=lambda name: name != first)
    return str({f"{FINAL}{name}": evaluated[name] for name in ordered})
