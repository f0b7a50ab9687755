"""The training job: hyperparameters and channels in, the commands `search` and `distill`, the model out.

All that a restarted job needs lies in the checkpoints, which SageMaker mirrors to S3 while the job runs and back before
it is restarted. Of several instances the first one alone writes there, and gives the others copies of the run:

    job.json        the hyperparameters that began it, and hashes of its channels
    teacher/        the cache of the teacher's logits
    search/         the study of `kdistill search`, with its best_run.toml
    run/            the output directory of `kdistill distill`
    finished.json   the results of a job that is done
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import tomllib
import traceback
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..cli.command_line import parse
from ..cli.inputs import read_arguments
from ..cli.main import run_as_program, run_command, silent_unless
from ..cli.search import BEST_RUN_FILE
from ..models.checkpoint import WEIGHTS_FILE
from ..models.configuration import CONFIG_FILE
from ..report.summary import sentences, table
from ..search.study import HOST_VARIABLE
from ..system.files import atomic_path, read_json_object, verify_manifest, write_json
from ..system.progress import say
from ..text.saved_files import TOKENIZER_FILES
from ..train.arguments import DistillationTrainingArguments
from ..train.directory import (
    ARGS_FILE,
    CARD_FILE,
    CLASSES_FILE,
    COMMAND_FILE,
    CONFUSIONS_FILE,
    RESULTS_FILE,
    RunDirectory,
)
from ..train.failures import NOTHING_LOST
from ..train.presets import STUDENT_PRESETS
from ..train.publishing import check_publishing
from ..train.state import STATE_FILE, TrainerState
from ..train.world import ALONE, World, current_world, launched_processes, require_same
from .container import CHANNELS, FAILURE, Container, config_directory, output_directory, read_hyperparameters
from .hyperparameters import Hyperparameters, merged, read_words, token_in, understood
from .inputs import content_of_channel, model_of_channel, rows_of_channel, rows_of_dataset
from .instances import ProcessReport, run_on_each
from .log import JobLogCallback, SafeStream, Secrets
from .metrics import final_line
from .shared_files import give_files

JOB_FILE, FINISHED_FILE = "job.json", "finished.json"
_CHANNELS = "channels"  # in job.json
RUN, SEARCH, TEACHER_CACHE = "run", "search", "teacher"
# SageMaker shows as many characters of the failure file.
MOST_OF_A_FAILURE = 1024
# Errors that come without a sentence.
_NO_SENTENCES = {
    "MemoryError": "the job ran out of memory; give it an instance with more, or a smaller per_device_train_batch_size",
}
_MODEL_FILES = (CONFIG_FILE, *TOKENIZER_FILES, CARD_FILE, WEIGHTS_FILE)
_RESULT_FILES = (RESULTS_FILE, STATE_FILE, ARGS_FILE, COMMAND_FILE, CLASSES_FILE, CONFUSIONS_FILE)
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# Arguments that a restart may change, since they do not affect what is learned.
_MAY_CHANGE = ("threads", "disable_tqdm")
_WITH_EVENTS = ("tensorboard", "local", "all")
_SECONDS_TO_TELL = 1.0  # for rank 0, what has happened: some launchers end it as soon as another process has ended


class Job:
    """One start of a training job.

    Args:
        words: of the command line, as the toolkit passes hyperparameters.
        environment: the variables that name the places.
    """

    def __init__(self, words: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> None:
        self._words, self._environment = list(words), environment
        self._secrets = Secrets(_tokens(self._words, environment))
        self._world: World = ALONE

    def run(self) -> int:
        """Do the job, and return the exit status: that of the commands, or 1 after an error of the program.

        Of several instances each calls it: the processes of an MPI launcher do the job together, and without one this
        process starts one on its instance, beside those that the others start.
        """
        with ProcessReport(self._environment) as report:
            report.status = self._run()
        return report.status

    def _run(self) -> int:
        try:
            status = run_as_program(self._work, on_error=self._fail, on_interrupt=self._say_interrupted)
        except Exception as error:  # noqa: BLE001  # the log has all of it, the failure file one sentence
            say(self._secrets.hidden(traceback.format_exc()))
            self._fail(f"{type(error).__name__}: {' '.join(str(error).split())}")
            status = 1
        if status and not self._world.leads:
            time.sleep(_SECONDS_TO_TELL)
        return status

    def _fail(self, sentence: str) -> None:
        """Write the sentence into the log and into the failure file, where that is possible."""
        if sentence in _NO_SENTENCES:
            sentence = _NO_SENTENCES[sentence]
        sentence = self._secrets.hidden(sentence)
        if self._world.leads or not self._world.met:  # otherwise rank 0 knows, and says it
            say(f"kdistill: error: {sentence}")
        if self._world.local_rank:  # the first process of an instance writes its file
            return
        output = output_directory(self._environment)
        with suppress(OSError):
            output.mkdir(parents=True, exist_ok=True)
            encoded = sentence[:MOST_OF_A_FAILURE].encode("utf-8", "backslashreplace")
            (output / FAILURE).write_bytes(encoded)

    def _say_interrupted(self) -> None:
        if self._world.leads:
            say("kdistill: interrupted; started again, the job goes on from its checkpoints")

    def _work(self) -> int:
        container = Container.of(self._environment)
        container.check()
        if len(container.hosts) > 1 and launched_processes() == 1:
            return run_on_each(container, self._words, self._environment)
        self._world = current_world()
        with ExitStack() as stack:
            stack.enter_context(self._world.together())
            stack.enter_context(silent_unless(self._world.leads))
            stack.enter_context(redirect_stdout(SafeStream(sys.stdout, self._secrets)))
            stack.enter_context(redirect_stderr(SafeStream(sys.stderr, self._secrets)))
            given = merged(read_hyperparameters(self._environment, container.config), read_words(self._words))
            hyperparameters = understood(given)
            if hyperparameters.hub_token is not None:
                warnings.warn(
                    "hub_token is a hyperparameter, which whoever may describe the job can read; use one that may "
                    "write to this one repository and soon expires",
                    stacklevel=2,
                )
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdistill-job-")))
            _Work(container, hyperparameters, scratch, self._world).run()
            return 0


class _Work:
    """The job once its places and hyperparameters are known."""

    def __init__(
        self, container: Container, hyperparameters: Hyperparameters, scratch: Path, world: World = ALONE
    ) -> None:
        self._world = world
        if not world.leads:  # the service collects what all instances leave, and mirrors their checkpoints to one place
            container = replace(
                container, checkpoints=scratch / "checkpoints", model=scratch / "model", output=scratch / "output"
            )
        self._container, self._hyperparameters, self._scratch = container, hyperparameters, scratch
        self._directory = container.checkpoints / RUN
        self._study = container.checkpoints / SEARCH
        self._options = hyperparameters.options

    def run(self) -> None:
        """Do what is left of the job, and lay out what it leaves."""
        self._check_output_dir()
        self._check_processes()
        self._check_same_job()
        finished = self._world.share(self._finished())
        failed: dict[str, str] = {}
        if finished is None:
            self._go_back_to_best_weights()
            give_files(self._world, self._directory)
            os.environ.setdefault("KDISTILL_CACHE", str(self._container.checkpoints / TEACHER_CACHE))
            if self._container.host is not None:
                os.environ.setdefault(HOST_VARIABLE, self._container.host)
            figures = self._train()
        if not self._world.leads:
            return
        if finished is None:
            failed = figures.get("failed", {})
            finished = {
                "results": read_json_object(self._directory / RESULTS_FILE),
                "best": read_json_object(self._directory / ARGS_FILE)["metric_for_best_model"],
            }
        self._lay_out()
        if failed:
            causes = "; ".join(sentence.partition(NOTHING_LOST)[0] for sentence in failed.values())
            raise RuntimeError(
                f"{causes}; the model is in {self._container.model}; started again, the job only repeats what failed"
            )
        write_json(self._container.checkpoints / FINISHED_FILE, finished)
        self._container.success.touch()
        print(final_line(finished["results"], finished["best"]), flush=True)

    def _check_processes(self) -> None:
        """Raise where several processes do the job and cannot, or have different hyperparameters or channels."""
        if self._world.size > 1 and self._hyperparameters.run_hpo:
            raise ValueError(
                f"run_hpo is true and the job has {self._world.size} processes, and a search is the work of one; "
                "search in a job of one instance, and give what it finds to a job of several as hyperparameters"
            )
        require_same(self._world, lambda: {"hyperparameters": self._identity(), **_named_channels(self._contents)})

    def _train(self) -> dict[str, Any]:
        """Search, if that is wanted, and distil; return the figures of the latter."""
        inputs = self._inputs()
        self._check(inputs)
        write_json(self._container.checkpoints / JOB_FILE, {**self._identity(), _CHANNELS: self._contents})
        found, best = self._search(inputs) if self._hyperparameters.run_hpo else ([], None)
        options = self._parsed("distill", inputs, self._directory, config=best, but=found)
        try:
            figures = run_command(options, log=JobLogCallback())
        except KeyboardInterrupt:
            if getattr(options, "finished", False):  # what is left is an upload, which must not cost the model
                self._lay_out()
            raise
        if "summary" in figures:
            print("\n".join([table(figures["summary"]), *sentences(figures["summary"])]), flush=True)
        return figures

    def _identity(self) -> dict[str, Any]:
        given = self._hyperparameters.to_dict()
        return {name: value for name, value in given.items() if name not in _MAY_CHANGE}

    @cached_property
    def _contents(self) -> dict[str, str]:
        """The hashes of the channels."""
        return {name: content_of_channel(directory) for name, directory in self._container.channels.items()}

    def _check_same_job(self) -> None:
        """Raise for the checkpoints of another job."""
        checkpoints = self._container.checkpoints
        checkpoints.mkdir(parents=True, exist_ok=True)
        path = checkpoints / JOB_FILE
        if not path.is_file():
            return
        theirs, ours = read_json_object(path), self._identity()
        contents = theirs.pop(_CHANNELS, {})
        changes = [
            f"{name} {theirs.get(name)!r}, not {ours.get(name)!r}"
            for name in {**theirs, **ours}
            if theirs.get(name) != ours.get(name)
        ]
        changes += [
            f"other files in the channel {name!r}"
            for name in CHANNELS
            if contents.get(name) != self._contents.get(name)
        ]
        if changes:
            raise ValueError(
                f"{checkpoints} holds the checkpoints of a job with {'; '.join(changes)}; give this job other "
                "checkpoints, or the hyperparameters and channels of that one"
            )

    def _go_back_to_best_weights(self) -> None:
        """Delete the newest checkpoints whose best weights so far came back damaged, or not at all.

        What was trained since then is trained once more, and the job ends with the weights of an undisturbed one: a
        command can only warn that it keeps the best of later evaluations, and nobody reads a job's log meanwhile.
        """
        is_finished = (self._directory / STATE_FILE).is_file()
        if not _holds_run(self._directory) or is_finished or self._options.get("load_best_model_at_end") is False:
            return
        directory = RunDirectory(self._directory)
        for path in reversed(directory.checkpoints()):
            if verify_manifest(path) is not None:  # it is skipped with a warning
                continue
            best = TrainerState.load(path).best_model_checkpoint
            damage = None if best is None else verify_manifest(path.with_name(Path(best).name))
            if damage is None:
                return
            say(f"kdistill: the best weights at {path.name} are lost ({damage}): the job goes back to before them")
            directory.delete_checkpoint(path)

    def _finished(self) -> dict[str, Any] | None:
        """Return the results of a job that was done before, whose model is still there."""
        path = self._container.checkpoints / FINISHED_FILE
        whole = all((self._directory / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE))
        return read_json_object(path) if path.is_file() and whole else None

    def _check_output_dir(self) -> None:
        """Raise for an output directory other than the original's default."""
        given, model = self._hyperparameters.output_dir, self._container.model
        if given is not None and Path(given).absolute() != model.absolute():
            raise ValueError(f"output_dir is {given!r}; a job's model lies in {model}, so leave it out")

    def _inputs(self) -> dict[str, Any]:
        """Return the options of rows and models, by name."""
        channels, given = self._container.channels, self._hyperparameters
        recipe = self._options.get("recipe")
        if given.dataset_id is not None and ("train" in channels or "validation" in channels):
            raise ValueError(f"the job has the data set {given.dataset_id!r} and a channel of rows; expected one")
        inputs: dict[str, Any] = {}
        for option, original in (("teacher", "teacher_id"), ("student", "student_id")):
            if option in channels:
                if option in self._options:
                    raise ValueError(f"the job has a channel {option!r} and {original}; expected one of the two")
                inputs[option] = str(model_of_channel(option, channels[option], self._scratch))
            elif option not in self._options and not (option == "student" and recipe in STUDENT_PRESETS):
                others = f", or a recipe: {' or '.join(STUDENT_PRESETS)}" if option == "student" else ""
                raise ValueError(f"the job has no {option}; expected a channel {option!r} or {original}{others}")
        if given.dataset_id is not None:
            rows = rows_of_dataset(given.dataset_id, given.dataset_config, self._scratch)
        elif "train" in channels:
            rows = {name: rows_of_channel(name, channels[name]) for name in ("train", "validation") if name in channels}
        else:
            raise ValueError("the job has no rows; expected a channel 'train' or dataset_id")
        if given.run_hpo and "validation" not in rows:
            raise ValueError(
                "run_hpo is true and there are no rows to compare trials on; expected a channel 'validation'"
            )
        inputs["train"] = str(rows["train"])
        inputs["eval"] = str(rows["validation"]) if "validation" in rows else None
        return inputs

    def _check(self, inputs: Mapping[str, Any]) -> None:
        """Raise, before any work, what the arguments of the commands raise."""
        args = read_arguments(DistillationTrainingArguments, self._parsed("distill", inputs, self._directory))
        if args.push_to_hub:
            check_publishing(args)
        if self._hyperparameters.run_hpo:
            read_arguments(DistillationTrainingArguments, self._parsed("search", inputs, self._study))

    def _parsed(
        self, command: str, inputs: Mapping[str, Any], directory: Path, *, config: Path | None = None, but: Any = ()
    ) -> Namespace:
        """Return the parsed options of a command, the token beside its words."""
        more: dict[str, Any] = {**inputs, "output_dir": str(directory)}
        if "logging_dir" not in self._options and _writes_events(self._options.get("report_to", "local")):
            more["logging_dir"] = str(self._container.tensorboard / directory.name)
        if command == "distill":
            more["resume"] = True if _holds_run(directory) else None
            more["enable_jit_checkpoint"] = self._options.get("enable_jit_checkpoint", True)
        if command == "search" and isinstance(self._options.get("hp_space"), dict):
            more["hp_space"] = str(self._scratch / "hp_space.json")
            write_json(Path(more["hp_space"]), self._options["hp_space"])
        words = self._hyperparameters.words(command, more, but=but)
        options = parse(words if config is None else [*words, f"--config={config}"])
        options.started = time.monotonic()
        if self._hyperparameters.hub_token is not None and command == "distill":
            options.hub_token = self._hyperparameters.hub_token
        return options

    def _search(self, inputs: Mapping[str, Any]) -> tuple[list[str], Path]:
        """Search, unless the run has begun with what was found; return the names of that, and the file it is in."""
        best = self._study / BEST_RUN_FILE
        if not (_holds_run(self._directory) and best.is_file()):
            run_command(self._parsed("search", inputs, self._study))
        return list(tomllib.loads(best.read_text(encoding="utf-8"))), best

    def _lay_out(self) -> None:
        """Copy the model and what else the run has found out; half of a model must not be what a stopped job leaves."""
        try:
            self._copy_results()
        except KeyboardInterrupt:
            self._copy_results()
            raise

    def _copy_results(self) -> None:
        _copy(self._directory, self._container.model, _MODEL_FILES)
        _copy(self._directory, self._container.output / "data", _RESULT_FILES)
        if self._hyperparameters.run_hpo:
            _copy(self._study, self._container.output / "data", (BEST_RUN_FILE,))


def _named_channels(contents: Mapping[str, str]) -> dict[str, str | None]:
    """Return the hashes of all channels that a job may have, by the name in an error."""
    return {f"files in the channel {name!r}": contents.get(name) for name in CHANNELS}


def _holds_run(directory: Path) -> bool:
    return directory.is_dir() and RunDirectory(directory).holds_run()


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).is_file():
            with atomic_path(target / name) as temporary:
                shutil.copyfile(source / name, temporary)


def _writes_events(report_to: str) -> bool:
    return any(name in _WITH_EVENTS for name in report_to.split(","))


def _tokens(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the tokens that the job was given, wherever they stand."""
    found = [environment.get(name) for name in _TOKEN_VARIABLES]
    with suppress(OSError, ValueError):
        found.append(token_in(read_words(words)))
    with suppress(OSError, ValueError):
        found.append(token_in(read_hyperparameters(environment, config_directory(environment))))
    return [token for token in found if token is not None]
