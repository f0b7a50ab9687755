"""What `--problem-type`, `--num-labels`, `--label-names` and `--metrics` ask for, beside what model and rows say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..data.columns import Rows
from ..data.dataset import Dataset
from ..data.problem_types import REGRESSION
from ..metrics.classification import choose_metrics, named, names_of
from ..models.config import BertConfig, is_unnamed
from ..train.arguments import TrainingArguments
from ..train.evaluate import ComputeMetrics


class TaskOptions(NamedTuple):
    """The options about the task, as given; None for those that are not."""

    problem_type: str | None = None
    num_labels: int | None = None
    label_names: str | None = None
    metrics: str | None = None


def stated(config: BertConfig, options: TaskOptions, whose: str) -> BertConfig:
    """The config of a finished model, with `--problem-type` where it states none itself.

    Raises ValueError where it says something else than the options; `whose` says which model, for the message.
    """
    if options.num_labels not in (None, config.num_labels):
        raise ValueError(f"--num-labels is {options.num_labels}; {whose} has {config.num_labels}")
    if options.problem_type is None:
        return config
    if config.problem_type not in (None, options.problem_type):
        raise ValueError(f"--problem-type is {options.problem_type}; that of {whose} is {config.problem_type}")
    return config.replace(problem_type=options.problem_type)


def labels_to_learn(
    config: BertConfig, options: TaskOptions, read: Callable[[], Rows], *, replace: bool
) -> Mapping[int, str] | None:
    """The label map of a model that is to be fine-tuned; None to keep its own.

    `--label-names`; or LABEL_0, ... for numbers; or what the training rows say, which `read` reads, when `replace` or
    `--num-labels` let the model's own names go, or they are no names. Raises ValueError where the options do not fit
    the rows or each other.
    """
    wanted = options.num_labels
    if wanted is not None and wanted < 1:
        raise ValueError(f"--num-labels is {wanted}; expected at least 1")
    if options.label_names is not None:
        names = options.label_names.split(",")
        if wanted not in (None, len(names)):
            raise ValueError(f"--num-labels is {wanted}, and --label-names has {len(names)} names; expected as many")
        return dict(enumerate(names))
    if (options.problem_type or config.problem_type) == REGRESSION or (wanted or config.num_labels) == 1:
        outputs = wanted or (config.num_labels if config.is_regression else 1)
        return None if outputs == config.num_labels else _unnamed(outputs)
    if not (is_unnamed(config.id2label) or replace or wanted not in (None, config.num_labels)):
        return None
    rows = read()
    implied = rows.id2label()
    if wanted is None:
        return implied if len(implied) > config.num_labels or not is_unnamed(implied) else None
    if is_unnamed(implied) and len(implied) <= wanted:
        return _unnamed(wanted)
    if len(implied) != wanted:
        raise ValueError(
            f"--num-labels is {wanted}, and {rows.table.source} has {len(implied)} labels: "
            f"{', '.join(implied.values())}; expected their number, or --label-names with the names of all"
        )
    return implied


def compute_metrics_of(
    config: BertConfig, dataset: Dataset, options: TaskOptions, args: TrainingArguments | None = None
) -> ComputeMetrics | None:
    """What measures `--metrics`, and in training `metric_for_best_model` where it is none of the usual ones.

    Raises ValueError, before any work, for a metric that there is not or that the problem type does not have.
    """
    problem_type = config.problem_type_of(dataset.labels)
    names = [name.strip() for name in options.metrics.split(",")] if options.metrics is not None else []
    if args is not None and args.eval_strategy != "no":
        args.settle_best_metric(config.is_regression)
        best = args.metric_for_best_model.removeprefix("eval_")
        if best not in names_of(problem_type):
            if best not in named(problem_type):
                known = ", ".join(("loss", *named(problem_type)))
                raise ValueError(f"metric_for_best_model is {best!r}; expected for {problem_type} one of {known}")
            names.append(best)
    return choose_metrics(*dict.fromkeys(names), problem_type=problem_type) if names else None


def _unnamed(count: int) -> dict[int, str]:
    return {index: f"LABEL_{index}" for index in range(count)}
