"""`kdistill prune --rounds`: prune in steps, after each of which the model learns again from what it was before.

In the output directory, `prune.json` tells of the rounds whose pruning is done, and `rounds/` holds their models until
the last one is finished: `--resume` goes on there.
"""

from __future__ import annotations

import math
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..compress.layers import checked_layers
from ..distill.making import teachers_of
from ..distill.objective import Distillation
from ..doctor.examination import warn_at_start
from ..hub import public_name
from ..models.auto import AutoConfig, load_trained
from ..models.model import Model
from ..system.files import is_leftover, made_directory, read_json_object, run_lock, write_json
from ..system.output import check_new_directory
from ..system.progress import Progress
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.directory import RESULTS_FILE
from ..train.encoding import name_of, tokenizer_for
from ..train.recipe import Provenance
from ..train.state import read_figures
from ..trainers import DistillationTrainer
from .data_files import FORMAT
from .inputs import command_of, dataset_of, read_arguments
from .report import started_from_pruned

Figures = dict[str, Any]
Prune = Callable[..., Figures]
"""(model, output, **shares and what else is asked for) -> figures."""
ROUNDS_FILE, _ROUNDS = "prune.json", "rounds"
# What makes the pruned models, and how rows are read; the arguments of the training are checked by the run that is
# resumed.
_ASKED = (
    *("model", "data", "rounds", "heads", "feed_forward", "scope", "rows", "teacher"),
    *("layers", "first_layers", "vocabulary", "vocabulary_from", "keep"),
    *("text_column", "text_pair_column", "label_column", *FORMAT),
)


def check_output(options: Namespace) -> None:
    """Raise, before any work, for an output directory in which these rounds can neither begin nor go on.

    Raises:
        FileExistsError: it holds something else, or rounds that are to be resumed.
        ValueError: the rounds in it were asked for with other options.
    """
    output = Path(options.output)
    kept = output / ROUNDS_FILE
    if not kept.is_file():
        # A run that is killed in its first pruning leaves this alone, and perhaps a file that it was writing.
        there = [of.name for of in output.iterdir() if not is_leftover(of)] if output.is_dir() else []
        if not (options.resume and there == [_ROUNDS]):
            check_new_directory("--output", options.output)
        return
    if not options.resume:
        raise FileExistsError(
            f"--output is {options.output!r}, which holds rounds of prune; go on with them (--resume) or choose "
            "another directory"
        )
    for name, before in read_json_object(kept)["asked"].items():
        if getattr(options, name) != before:
            raise ValueError(
                f"--{name.replace('_', '-')} is {getattr(options, name)}, and was {before} when the rounds in "
                f"{options.output} began; expected the same command with --resume"
            )


def prune_in_rounds(options: Namespace, layers: list[int] | int | None, prune: Prune) -> Figures:
    """Prune `--model` in `--rounds` steps to `--output`, each distilled from `--teacher`, by default the whole model.

    Layers and word pieces go in the first round. After round r of R a share X has become X ** (r / R) of what there
    was, so that each round leaves out the same part of what the one before has left. With `--resume` the rounds that
    are there stay, and the one that was interrupted goes on.

    Args:
        options: of the command.
        layers: that are kept.
        prune: does one round.

    Returns:
        What `prune` returns, of all rounds together, and the results of the last run.

    Raises:
        BlockingIOError: another process is doing these rounds.
    """
    shapes = AutoConfig.from_pretrained(options.model).layer_shapes()
    if layers is not None:
        shapes = tuple(shapes[layer] for layer in checked_layers(layers, len(shapes)))
    whole = {"heads": sum(of.heads for of in shapes), "feed_forward": sum(of.feed_forward for of in shapes)}
    rounds, output = options.rounds, Path(options.output)
    kept_file, work = output / ROUNDS_FILE, output / _ROUNDS
    there = Figures(figures=[], finished=False) if not kept_file.is_file() else read_json_object(kept_file)
    kept: list[Figures] = there["figures"]
    if not there["finished"]:
        teaches = options.teacher or options.model
        with made_directory(work), run_lock(work):
            teacher, tokenizer = load_trained(teaches).freeze(), AutoTokenizer.from_pretrained(teaches)
            for number in range(max(1, len(kept)), rounds + 1):
                place = work / str(number)
                if number > len(kept):
                    present = {name: sum(kept[-1][name]) for name in whole} if kept else whole
                    shares = {
                        name: min(1.0, getattr(options, name) ** (number / rounds) * whole[name] / present[name])
                        for name in whole
                        if getattr(options, name) is not None
                    }
                    only_first = {} if number == 1 else {"layers": None, "vocabulary": False, "keep": None}
                    before = options.model if number == 1 else str(work / str(number - 1) / "recovered")
                    shutil.rmtree(place, ignore_errors=True)  # of an interrupt before prune.json told of it
                    kept.append(prune(before, place / "pruned", **shares, **only_first))
                    there["asked"] = {name: getattr(options, name) for name in _ASKED}
                    write_json(kept_file, there)
                    shutil.rmtree(work / str(number - 1), ignore_errors=True)
                options.output_dir = str(output if number == rounds else place / "recovered")
                args = read_arguments(DistillationTrainingArguments, options)
                Progress("prune", unit="rounds", quiet=args.disable_tqdm).write(
                    f"round {number} of {rounds}: {kept[-1]['num_parameters']:,} parameters are left, and learn again"
                )
                begins = number == 1 and not options.resume
                _recover(place / "pruned", teacher, tokenizer, args, options, begins)
            write_json(kept_file, there | {"finished": True})
    shutil.rmtree(work, ignore_errors=True)
    return read_figures(output / RESULTS_FILE) | _of_all(kept) | {"output": options.output, "rounds": rounds}


def _of_all(kept: list[Figures]) -> Figures:
    """Return the figures of all rounds together."""
    first, figures = kept[0], dict(kept[-1])
    figures |= {name: value for name, value in first.items() if name.endswith("_before")}
    figures |= {name: first[name] for name in ("n", "rows_with_same_tokens") if name in first}
    figures["operations_kept"] = math.prod(of["operations_kept"] for of in kept)
    figures["parameters_kept"] = figures["num_parameters"] / figures["num_parameters_before"]
    return figures


def _recover(
    pruned: Path,
    teacher: Model,
    tokenizer: PreTrainedTokenizerFast,
    args: DistillationTrainingArguments,
    options: Namespace,
    begins: bool,
) -> None:
    """Distil a pruned model from its teacher, into `args.output_dir`; a run that is there goes on.

    Where the command `begins` with it, what speaks against the rows is warned of, as in `distill`.
    """
    student, own = load_trained(pruned), AutoTokenizer.from_pretrained(pruned)
    objective = Distillation(teachers_of(teacher, tokenizer))
    reader = objective.reader(tokenizer_for(student.config, own), student.config)
    assert reader is not None
    keep_texts = objective.needs_texts(reader, student.config)

    def read(path: str, *, training: bool) -> Any:
        return dataset_of(path, reader, student.config, args, options, training=training, keep_texts=keep_texts)

    origin = Provenance(
        started_from=started_from_pruned(options.model),
        teacher=public_name(options.teacher or options.model),
        train=name_of(options.data),
        eval=name_of(options.eval),
        command=command_of(options),
    )
    trainer = DistillationTrainer(
        student,
        args,
        teacher_model=teacher,
        teacher_processing_class=tokenizer,
        train_dataset=read(options.data, training=True),
        eval_dataset=None if options.eval is None else read(options.eval, training=False),
        processing_class=own,
        provenance=origin,
    )
    if begins:
        warn_at_start(trainer)
    trainer.train(resume_from_checkpoint=options.resume)
