"""`kdistill label`: what a teacher answers, written beside the rows as data that `distill` learns from."""

from __future__ import annotations

import time
from argparse import Namespace

from ..data.patterns import matching_paths
from ..data.teacher_files import ending_of
from ..system.output import check_output
from ..train.arguments import DistillationTrainingArguments
from ..train.without_effect import warn_of_arguments_of_other_heads
from .inputs import label_table, read_arguments, rows_file, task_of
from .label_ray import label_by_ray
from .labelling import Figures, Labelling
from .task import check_labels_are_meant

_OF_RAY = ("ray_address", "n_jobs", "shard_rows")


def label(options: Namespace) -> Figures:
    """Write the rows of `--data` with the logits that `--teacher` gives them to `--output`."""
    if options.ray:
        return label_by_ray(options)
    for name in _OF_RAY:
        if getattr(options, name) is not None:
            given = f"--{name.replace('_', '-')} is {getattr(options, name)}"
            raise ValueError(f"{given}, and belongs to --ray, which is not given")
    ending = ending_of(options.output)
    check_output("--output", options.output, inputs=[*matching_paths(options.data), *options.teacher])
    args, started = read_arguments(DistillationTrainingArguments, options), time.monotonic()
    labelling = Labelling(options, args, ending)
    warn_of_arguments_of_other_heads(args, labelling.first.head, stacklevel=1)
    file = rows_file(options.data, options, labelling.first.head)
    check_labels_are_meant(labelling.first.config, task_of(options), options.teacher[0], lambda: label_table(file))
    rows, known = labelling(file)
    rows.write(options.output)
    return labelling.figures(options, len(rows.table), known) | {"runtime": time.monotonic() - started}
