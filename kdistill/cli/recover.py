"""`kdistill prune --rounds`: prune in steps, after each of which the model learns again from what it was before."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..compress.layers import checked_layers
from ..distill.making import teachers_of
from ..distill.objective import Distillation
from ..hub import public_name
from ..models.auto import AutoConfig, load_trained
from ..models.model import Model
from ..system.files import made_directory, scratch_directory
from ..system.progress import Progress
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.directory import RESULTS_FILE
from ..train.encoding import name_of, tokenizer_for
from ..train.recipe import Provenance
from ..train.state import read_figures
from ..trainers import DistillationTrainer
from .inputs import dataset_of, read_arguments

Figures = dict[str, Any]
Prune = Callable[..., Figures]
"""(model, output, **shares and what else is asked for) -> figures."""


def prune_in_rounds(options: Namespace, layers: list[int] | int | None, prune: Prune) -> Figures:
    """Prune `--model` in `--rounds` steps to `--output`, each distilled from the whole model.

    Layers and word pieces go in the first round. After round r of R a share X has become X ** (r / R) of what there
    was, so that each round leaves out the same part of what the one before has left.

    Args:
        options: of the command.
        layers: that are kept.
        prune: does one round.

    Returns:
        What `prune` returns, of all rounds together, and the results of the last run.
    """
    shapes = AutoConfig.from_pretrained(options.model).layer_shapes()
    if layers is not None:
        shapes = tuple(shapes[layer] for layer in checked_layers(layers, len(shapes)))
    whole = {"heads": sum(of.heads for of in shapes), "feed_forward": sum(of.feed_forward for of in shapes)}
    present, rounds, output = dict(whole), options.rounds, Path(options.output)
    teacher, tokenizer = load_trained(options.model).freeze(), AutoTokenizer.from_pretrained(options.model)
    first, current, kept = Figures(), options.model, list[float]()
    with made_directory(output.absolute().parent), scratch_directory(output.absolute()) as work:
        for number in range(1, rounds + 1):
            shares = {
                name: min(1.0, getattr(options, name) ** (number / rounds) * whole[name] / present[name])
                for name in whole
                if getattr(options, name) is not None
            }
            only_first = {} if number == 1 else {"layers": None, "vocabulary": False, "keep": None}
            figures = prune(current, work / f"pruned-{number}", **shares, **only_first)
            present = {name: sum(figures[name]) for name in whole}
            first, kept = first or figures, [*kept, figures["operations_kept"]]
            options.output_dir = str(output if number == rounds else work / f"recovered-{number}")
            args = read_arguments(DistillationTrainingArguments, options)
            Progress("prune", unit="rounds", quiet=args.disable_tqdm).write(
                f"round {number} of {rounds}: {figures['num_parameters']:,} parameters are left, and learn again"
            )
            _recover(work / f"pruned-{number}", teacher, tokenizer, args, options)
            current = options.output_dir
    before = {name: value for name, value in first.items() if name.endswith("_before")}
    of_words = {name: first[name] for name in ("n", "rows_with_same_tokens") if name in first}
    figures |= before | of_words | {"operations_kept": math.prod(kept)}
    figures["parameters_kept"] = figures["num_parameters"] / figures["num_parameters_before"]
    results = read_figures(output / RESULTS_FILE)
    return results | figures | {"output": options.output, "rounds": rounds}


def _recover(
    pruned: Path,
    teacher: Model,
    tokenizer: PreTrainedTokenizerFast,
    args: DistillationTrainingArguments,
    options: Namespace,
) -> None:
    """Distil a pruned model from the whole one, into `args.output_dir`."""
    student, own = load_trained(pruned), AutoTokenizer.from_pretrained(pruned)
    objective = Distillation(teachers_of(teacher, tokenizer))
    reader = objective.reader(tokenizer_for(student.config, own), student.config)
    assert reader is not None
    keep_texts = objective.needs_texts(reader, student.config)

    def read(path: str, *, training: bool) -> Any:
        return dataset_of(path, reader, student.config, args, options, training=training, keep_texts=keep_texts)

    whole = public_name(options.model)
    # No command: `report` could not find the pruned model in it, which is gone.
    origin = Provenance(
        started_from=f"{whole}, pruned", teacher=whole, train=name_of(options.data), eval=name_of(options.eval)
    )
    DistillationTrainer(
        student,
        args,
        teacher_model=teacher,
        teacher_processing_class=tokenizer,
        train_dataset=read(options.data, training=True),
        eval_dataset=None if options.eval is None else read(options.eval, training=False),
        processing_class=own,
        provenance=origin,
    ).train()
