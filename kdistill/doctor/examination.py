"""Make the parts of a run one by one, check what can be checked, and collect what was found."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from ..data.columns import Rows
from ..data.dataset import Dataset
from ..distill.sources import Teachers
from ..hub import check_account
from ..models.config import BertConfig
from ..models.configuration import Config
from ..models.head_names import SEQUENCE
from ..models.loading import RandomWeights
from ..models.model import Model
from ..system.findings import LEVELS, Finding
from ..tasks.registry import label_reader
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments
from ..train.encoding import name_of
from ..train.plan import EpochPlan
from ..train.publishing import check_publishing
from ..train.recipe import Recipe
from ..train.run import Run
from ..trainers import DistillationTrainer
from . import data_checks, machine_checks, model_checks
from .plain import implied_config, withheld, words_of
from .subject import Subject

_Part = TypeVar("_Part")


class Files(Protocol):
    """The rows of a run and its output directory."""

    @property
    def paths(self) -> dict[str, str]:
        """The files of rows, by "train" and "eval"."""

    def read(self, which: str) -> Rows:
        """Return the rows of "train" or "eval" as they are in the file."""

    def check_output_dir(self) -> None:
        """Raise what the run would for its output directory, without creating it."""


class Parts(Protocol):
    """The parts of a run of `distill`, each made when it is asked for; errors and warnings are those of the run."""

    @property
    def args(self) -> DistillationTrainingArguments: ...

    @property
    def files(self) -> Files: ...

    @property
    def teachers(self) -> list[Model]: ...

    @property
    def teacher_tokenizers(self) -> list[PreTrainedTokenizerFast]: ...

    @property
    def taught_by(self) -> Teachers:
        """The teachers with their tokenizers and weights."""

    @property
    def config(self) -> Config:
        """The student's configuration."""

    @property
    def train(self) -> Dataset: ...

    @property
    def eval(self) -> Dataset | None: ...

    def trainer(self) -> DistillationTrainer: ...


class Check(NamedTuple):
    """A check, and when it is made.

    Attributes:
        name: in messages.
        needs: the parts of a `Subject` that it needs.
        findings: makes it.
        at_start: whether it costs so little that `distill` makes it too, and the run does not warn of it itself.
        compares: whether it compares rows with each other, which takes hundreds of bytes of memory for each.
    """

    name: str
    needs: tuple[str, ...]
    findings: Callable[[Subject], Iterator[Finding]]
    at_start: bool = False
    compares: bool = False


_RUN = ("recipe", "plan", "teachers")
DATA_CHECKS = (
    Check("labels", (), data_checks.labels, at_start=True),
    Check("shared texts", (), data_checks.shared_texts, at_start=True, compares=True),
    Check("repeated texts", (), data_checks.repeated_texts, at_start=True, compares=True),
    Check("texts", (), data_checks.texts),
    Check("columns", (), data_checks.columns),
)
RUN_CHECKS = (
    Check("teacher", ("teachers", "judged_on"), model_checks.teacher),
    Check("arguments", ("recipe", "train"), model_checks.chosen_defaults),
    Check("evaluation", (), data_checks.evaluation),
    Check("evaluation", (), data_checks.evaluation_size, at_start=True),
    Check("student", ("recipe", "teachers"), model_checks.student, at_start=True),
    Check("teacher cache", ("teachers", "train"), machine_checks.cache),
    Check("disk", _RUN, machine_checks.disk, at_start=True),
    Check("memory", (*_RUN, "rows_to_learn_from"), machine_checks.memory),
    Check("time", (*_RUN, "rows_to_learn_from"), machine_checks.duration),
)
_MOST_COMPARED_AT_START = 1 << 20
_RANDOM_WEIGHTS = {"student": "note"}  # it is to be trained
_NOT_FINE_TUNED = "give a --teacher that was fine-tuned, such as one that `kdistill finetune` has made"


class Examination:
    """Collects findings: those of checks, and the errors and warnings that making the parts of a run gives."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._started = time.monotonic()

    def attempt(self, check: str, make: Callable[[], _Part], *, remedy: str = "") -> _Part | None:
        """Return what `make` returns, or None when it fails; take its error and its warnings as findings.

        Args:
            check: what the findings are about.
            make: makes a part of the run.
            remedy: what to do where a message names nothing.
        """
        made: _Part | None = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                made = make()
            except Exception as error:  # noqa: BLE001  # whatever stops the run is a finding
                message = str(error) or type(error).__name__
                self.add(Finding.of_message(check, "error", message, remedy))
        for warning in caught:
            level = _RANDOM_WEIGHTS.get(check, "warning") if warning.category is RandomWeights else "warning"
            self.add(Finding.of_message(check, level, str(warning.message), remedy))
        return made

    def add(self, finding: Finding) -> None:
        """Take a finding. Of two with the same text the first counts, unless the other knows a remedy."""
        for place, known in enumerate(self._findings):
            if known.text == finding.text:
                if finding.remedy and not known.remedy:
                    self._findings[place] = finding
                return
        self._findings.append(finding)

    def make_checks(self, checks: Iterable[Check], subject: Subject) -> None:
        """Make the checks for which the parts are there. One that fails is a finding."""
        left_out = []
        for check in checks:
            if any(getattr(subject, part) is None for part in check.needs):
                left_out.append(check.name)
                continue
            try:
                for finding in check.findings(subject):
                    self.add(finding)
            except Exception as error:  # noqa: BLE001  # it must not hide the others
                message = str(error) or type(error).__name__
                self.add(Finding.of_message(check.name, "warning", f"not checked: {message}"))
        if left_out:
            text = f"not checked, since parts of the run are missing: {', '.join(left_out)}"
            self.add(Finding("doctor", "note", text, "mend the errors and ask again"))

    def findings(self) -> list[Finding]:
        """Return all findings, the gravest first."""
        return sorted(self._findings, key=lambda finding: LEVELS.index(finding.level))

    def figures(self) -> dict[str, Any]:
        """Return the findings as a command's figures; `failed` names the checks with errors, if there are any."""
        findings = self.findings()
        failed = [finding.check for finding in findings if finding.level == "error"]
        counts = {f"{level}s": sum(finding.level == level for finding in findings) for level in ("error", "warning")}
        figures = {"findings": [finding._asdict() for finding in findings], **counts}
        return figures | {"seconds": time.monotonic() - self._started} | ({"failed": failed} if failed else {})


def examine(examination: Examination, parts: Parts) -> None:
    """Make the parts of a run and check them. Nothing is written."""
    attempt, args = examination.attempt, parts.args
    attempt("output directory", parts.files.check_output_dir)
    if args.push_to_hub and attempt("hub", lambda: _is_ready(args)):
        account = attempt("hub", lambda: check_account(args.hub_token))
        if account is not None:
            examination.add(Finding("hub", "ok", f"the hub knows the token as that of {account!r}"))
    models = attempt("teacher", lambda: parts.teachers, remedy=_NOT_FINE_TUNED)
    attempt("tokenizer", lambda: parts.teacher_tokenizers)
    teachers = None if models is None else attempt("teacher", lambda: parts.taught_by)
    config = attempt("student", lambda: parts.config)
    sets = {which: attempt(which, partial(getattr, parts, which)) for which in parts.files.paths}
    trainer = attempt("student", parts.trainer) if None not in sets.values() else None
    run = None if trainer is None else attempt("rows", lambda: Run(trainer.recipe))
    recipe = None if trainer is None else trainer.recipe
    names = {which: name_of(path) for which, path in parts.files.paths.items()}
    if config is None:
        config = BertConfig() if not models else models[0].config
    subject = Subject(
        args,
        names,
        config if trainer is None else trainer.model.config,
        teachers=teachers if trainer is None else trainer.objective.teachers,
        train=sets.get("train"),
        eval=sets.get("eval"),
        recipe=recipe,
        plan=_plan(recipe, sets.get("train")) if run is None else run.plan,
        rows_to_learn_from=sets.get("train") if run is None else run.dataset,
        tokenizer=None if trainer is None else trainer.processing_class,
    )
    in_words = subject if None not in sets.values() else _in_words(examination, parts, subject)
    examination.make_checks(DATA_CHECKS, in_words)
    examination.make_checks(RUN_CHECKS, subject)


def _plan(recipe: Recipe | None, rows: Dataset | None) -> EpochPlan | None:
    return None if recipe is None or rows is None else recipe.new_plan(rows)


def _is_ready(args: DistillationTrainingArguments) -> bool:
    check_publishing(args)
    return True


def _in_words(examination: Examination, parts: Parts, subject: Subject) -> Subject:
    """Return the subject with rows that are read without a tokenizer, because some of them could not be encoded.

    Rows of tags and of questions are left out: what could be said of them needs their tokens.
    """
    if subject.config.head != SEQUENCE:
        return subject
    sets: dict[str, Dataset] = {}
    config = subject.config
    for which, name in subject.names.items():
        rows = examination.attempt(which, partial(parts.files.read, which))
        if rows is None:
            continue
        if count := withheld(rows):
            text = f"{count:,} of {len(rows):,} labels of {name} are -1"
            examination.add(
                Finding("labels", "error", text, "leave these labels empty, or take rows whose labels are known")
            )
        if subject.teachers is None and config is subject.config and rows.labels:
            config = implied_config(config, rows)
        sets[which] = words_of(rows, config.id2label, label_reader(config))
    return replace(subject, config=config, train=sets.get("train"), eval=sets.get("eval"), tokenizer=None)


def warn_at_start(trainer: DistillationTrainer) -> None:
    """Warn of what speaks against a run before it begins, as far as that costs next to nothing to find out.

    What the run warns of itself is left out, and of more than a million training rows the comparison with each other.
    """
    recipe = trainer.recipe
    assert recipe.train_dataset is not None
    examination = Examination()
    subject = Subject(
        trainer.args,
        {"train": trainer.data_names.get("train", "train"), "eval": trainer.data_names.get("eval", "eval")},
        recipe.model.config,
        teachers=trainer.objective.teachers,
        train=recipe.train_dataset,
        eval=recipe.main_eval_dataset,
        recipe=recipe,
        plan=recipe.new_plan(recipe.train_dataset),
        tokenizer=recipe.processing_class,
    )
    many = len(recipe.train_dataset) > _MOST_COMPARED_AT_START
    checks = [check for check in (*DATA_CHECKS, *RUN_CHECKS) if check.at_start and not (many and check.compares)]
    examination.make_checks(checks, subject)
    for finding in examination.findings():
        if finding.level in ("error", "warning"):
            warnings.warn(finding.sentence(), stacklevel=2)
