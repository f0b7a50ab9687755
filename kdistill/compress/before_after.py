"""Compare a model with what was made of it, on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.ragged import units
from ..metrics.mcnemar import mcnemar
from ..models.model import Model
from ..system.progress import Progress
from ..tasks.registry import task_for
from ..train.arguments import TrainingArguments
from ..train.evaluate import predict

_OTHERS = ("eval_n", "eval_runtime", "eval_samples_per_second")


def compared(
    before: Model, after: Model, rows: Dataset, args: TrainingArguments, names: tuple[str, str]
) -> dict[str, Any]:
    """Return figures of both models on the rows.

    Args:
        before: the model.
        after: what was made of it.
        rows: the rows; some or all without labels.
        args: the batch size, and whether to show progress.
        names: what progress bars call the two.

    Returns:
        `n`, the rows with a label, or all where none has one; `before` and `after`, the metrics; `agreement` and
        `divergence` of the second from the first (not of hidden words); `right_before`, `right_after` and `mcnemar`,
        with the first model as first, where rows are right or wrong and some have labels.
    """
    outputs = []
    for model, name in zip((before, after), names, strict=True):
        with Progress(f"evaluate in {name}", unit="rows", quiet=args.disable_tqdm) as progress:
            size = args.per_device_eval_batch_size
            outputs.append(predict(model, rows, batch_size=size, prefix="eval", progress=progress))
    first, second = outputs
    figures: dict[str, Any] = {"n": int(first.metrics.get("eval_n", len(rows)))}
    for key, output in zip(("before", "after"), outputs, strict=True):
        of = {name.removeprefix("eval_"): value for name, value in output.metrics.items() if name not in _OTHERS}
        figures |= {key: of} if of else {}
    task = task_for(before.config, rows.labels)
    if not task.makes_labels:
        logits, reference = units(second.predictions), units(first.predictions)
        if task.taught is not None:
            counted = task.taught(rows.labels)
            if counted.any():
                logits, reference = logits[counted], reference[counted]
        figures["agreement"] = task.agreement(logits, reference)
        figures["divergence"] = task.divergence(logits, reference)
    if not rows.labelled:
        return figures
    right = [task.right(output.predictions, rows.targets) for output in outputs]
    if right[0] is not None and right[1] is not None:
        figures |= {"right_before": int(np.sum(right[0])), "right_after": int(np.sum(right[1]))}
        figures["mcnemar"] = mcnemar(right[0], right[1])._asdict()
    return figures
