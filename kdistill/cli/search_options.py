"""The options of `kdistill search` that are arguments of `Trainer.hyperparameter_search`, under its names."""

from __future__ import annotations

from typing import NamedTuple


class SearchOption(NamedTuple):
    """Type, name of the value and help, as argparse takes them."""

    type: type
    metavar: str
    help: str


SEARCH_OPTIONS = {
    "n_trials": SearchOption(int, "N", "trials of the study in all, over every process and repetition (default: 20)"),
    "hp_space": SearchOption(
        str,
        "FILE",
        'a .toml or .json file of ranges, such as learning_rate = {type = "float", low = 1e-5, high = 1e-3, log = '
        "true} (default: epochs 2-10, learning rate 1e-5..1e-3, alpha 0..1, temperature 2..30)",
    ),
    "direction": SearchOption(
        str, "minimize|maximize", "what to do with --metric-for-best-model (default: what suits it)"
    ),
    "storage": SearchOption(
        str, "FILE", "the study's journal, or a URL that Optuna knows (default: study.journal in the output directory)"
    ),
    "study_name": SearchOption(str, "NAME", "the study in that storage (default: search)"),
    "n_jobs": SearchOption(int, "N", "trials at once, which share the threads (default: 1; -1: one a thread)"),
    "pruner": SearchOption(str, "median|hyperband|none", "what ends unpromising trials early (default: median)"),
    "sampler": SearchOption(str, "tpe|random", "what chooses hyperparameters, from --seed on (default: tpe)"),
    "timeout": SearchOption(float, "SECONDS", "begin no trial after this time (default: never)"),
}
