"""`kdistill search`: runs the search, writes its best run as a file for `--config`, and returns its figures."""

from __future__ import annotations

import json
import os
import time
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..report.report import Subject
from ..report.summary import compare_search
from ..search.space import given_in_space
from ..search.study import BestRun, best_run_of, import_optuna, outcomes
from ..system.files import atomic_write
from ..system.names import listing
from ..train.arguments import DistillationTrainingArguments
from ..train.directory import RunDirectory
from ..trainers import DistillationTrainer
from .command_line import words_for
from .distillation import parts_of
from .ending import as_value
from .input_options import SEARCH_OPTIONS
from .inputs import read_arguments

BEST_RUN_FILE = "best_run.toml"
_BEST_RUN_MARK = "# trial "


def search(options: Namespace) -> dict[str, Any]:
    """Search for the hyperparameters with which `distill` trains the best student."""
    optuna = import_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the command shows the trials itself
    args = read_arguments(DistillationTrainingArguments, options)
    with RunDirectory(args.output_dir).made():  # what cannot be written shows before any work
        return _search(args, options)


def _search(args: DistillationTrainingArguments, options: Namespace) -> dict[str, Any]:
    path = Path(args.output_dir, BEST_RUN_FILE)
    if os.path.lexists(path) and not _is_best_run(path):
        raise FileExistsError(f"{path} exists, and no search wrote it; move it, or choose another --output-dir")
    given = {name: getattr(options, name) for name in SEARCH_OPTIONS if hasattr(options, name)}
    _warn_of_given(args, given.get("hp_space"))
    trainer = parts_of(options, args).trainer(for_search=True)
    try:
        best = trainer.hyperparameter_search(**given)
        assert isinstance(best, BestRun)
        assert isinstance(best.objective, float)  # the command has one direction
        _write_best_run(path, best, args)
        return _figures_of(path, best, best.objective, trainer, options)
    except KeyboardInterrupt:
        if trainer.study is not None:
            options.interrupted = _kept_of_search(path, trainer, args)
        raise


def _warn_of_given(args: DistillationTrainingArguments, space: str | None) -> None:
    """Warn of options that no trial uses. In Python a run may use them, before the search or after it."""
    if not (names := given_in_space(space, args)):
        return
    options = ", ".join(f"--{name.replace('_', '-')} {getattr(args, name)}" for name in names)
    varies = "the default space" if space is None else f"--hp-space {space}"
    warnings.warn(
        f"{options}: no effect here, because {varies} varies {listing(names)}, and each trial has what the search "
        "draws; --hp-space FILE names what varies, and all else is as given",
        stacklevel=2,
    )


def _figures_of(
    path: Path, best: BestRun, objective: float, trainer: DistillationTrainer, options: Namespace
) -> dict[str, Any]:
    args, summary = trainer.args, {}
    subject = Subject.of_run(args.output_dir, trainer.recipe, trainer.state, {})
    trainer.failed.attempt(
        "summary",
        lambda: summary.update(compare_search(subject, objective, args.metric_for_best_model)),
        kept=f"the best run is in {path}",
        again="the same command shows the study as it is",
    )
    config = ["--output-dir", as_value(f"{Path(args.output_dir)}-best"), "--config", as_value(str(path))]
    given_too = words_for("distill", options, but=("output_dir", *best.hyperparameters))
    return {
        **best._asdict(),
        "trials": outcomes(trainer.study.trials),
        "best_run": str(path),
        **({"summary": summary} if summary else {}),
        "next": [["kdistill", "distill", *given_too, *config]],
        "seconds": time.monotonic() - options.started,
        **({"failed": dict(trainer.failed)} if trainer.failed else {}),
    }


def _kept_of_search(path: Path, trainer: DistillationTrainer, args: DistillationTrainingArguments) -> dict[str, Any]:
    """Write the best run so far of a search that was interrupted, and return how its trials ended."""
    if not args.search_trials:  # a study without trials is deleted
        return {}
    trials = outcomes(trainer.study.trials)
    if not trials.get("complete"):
        return {"trials": trials}
    best = best_run_of(trainer.study)
    assert isinstance(best, BestRun)
    _write_best_run(path, best, args)
    return {"trials": trials, "best_run": str(path)}


def _write_best_run(path: Path, best: BestRun, args: DistillationTrainingArguments) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in best.hyperparameters.items()]
    lines.insert(0, f"{_BEST_RUN_MARK}{best.run_id}: {best.objective}")
    lines.append(f"search_trials = {args.search_trials}  # for the model card; leave it out with other evaluation rows")
    atomic_write(path, "\n".join([*lines, ""]).encode())


def _is_best_run(path: Path) -> bool:
    """Return whether the file is a best_run.toml of a search, which the next one may replace."""
    return path.is_file() and path.read_bytes().startswith(_BEST_RUN_MARK.encode())
