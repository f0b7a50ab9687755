"""`kdistill report` of an int8 artefact, which is no run: measured on rows, beside what `quantize` wrote of it."""

from __future__ import annotations

import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..compress.int8_card import with_measured
from ..data.dataset import Dataset
from ..models.auto import load_trained
from ..models.checkpoint import WEIGHTS_FILE
from ..models.quantization import read_quantization
from ..report.measure import make_report
from ..report.report import Questions, Subject
from ..system.files import write_text
from ..text.classes import AutoTokenizer
from ..train.arguments import TrainingArguments
from ..train.directory import ARGS_FILE, CARD_FILE, may_replace
from ..train.encoding import encode_for, name_of
from ..train.recipe import require_labels
from ..train.state import TrainerState
from .data_files import FORMAT, data_file

_OF_A_RUN = (
    *("without_teacher", "seed_runs", "threshold", "search_trials", "plots", "teacher", "teacher_logits", "student"),
    *("language", "license", "tags", "dataset_name", "dataset_tags"),
)
"""Options of `report` that tell or ask something about a run, or write its card."""


def is_artefact(directory: Path) -> bool:
    """Return whether a directory holds an int8 artefact, and no run."""
    return not (directory / ARGS_FILE).is_file() and read_quantization(directory) is not None


def report_artefact(options: Namespace) -> dict[str, Any]:
    """Measure the artefact `--model` on `--eval`, and on `--holdout`; write it down in its card, return the figures.

    Training rows, which are optional, tell what text the held-out ones share with them. Warns where there is no card.

    Raises:
        ValueError: an option is about a run, or there are no labelled rows to measure on.
        FileExistsError: somebody else wrote the README.md.
    """
    directory = Path(options.model)
    for name in _OF_A_RUN:
        if getattr(options, name, None) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} is given, and {options.model} is an int8 artefact, not a run; leave it "
                "out, or report on the run of the model that the artefact was made of"
            )
    if options.eval is None:
        raise ValueError(
            f"--eval is missing, and {options.model} is an int8 artefact, which knows of no rows; expected labelled "
            "rows to measure it on"
        )
    card = directory / CARD_FILE
    if not may_replace(card):
        raise FileExistsError(f"{card} exists, and kdistill did not write it; move it elsewhere")
    model, tokenizer = load_trained(directory), AutoTokenizer.from_pretrained(directory)
    args = TrainingArguments(output_dir=str(directory), disable_tqdm=options.json)

    def encoded(path: str | None, *, training: bool = False) -> Dataset | None:
        if path is None:
            return None
        file = data_file(path, dict.fromkeys(FORMAT), model.config.head)
        return encode_for(model.config, file, tokenizer, args, training=training)

    evaluated, holdout = encoded(options.eval), encoded(options.holdout)
    assert evaluated is not None
    require_labels(evaluated)
    subject = Subject(
        name=directory.resolve().name,
        started_from=None,
        model=model,
        args=args,
        state=TrainerState(),
        train=encoded(options.train, training=True),
        eval=evaluated,
        eval_sets=("",),
        main_eval_set="",
        data_names={"eval": name_of(options.eval), "train": "" if options.train is None else name_of(options.train)},
        teachers=None,
        results={},
        chosen_metrics=None,
        file_bytes=(directory / WEIGHTS_FILE).stat().st_size,
    )
    questions = Questions(holdout=None if holdout is None else (name_of(options.holdout), holdout), speed=True)
    figures = make_report(subject, questions).figures()
    del figures["training_dtype"]  # it was trained elsewhere
    if card.is_file():
        write_text(card, with_measured(card.read_text("utf-8"), name_of(options.eval), figures))
    else:
        warnings.warn(f"{card}, which quantize wrote, is missing, so the figures are not kept there", stacklevel=2)
    return figures
