"""The output directory of a training run: its lock, its files and its checkpoints.

A checkpoint is written under a temporary name, its manifest last, and then renamed. So a directory called
`checkpoint-<step>` is complete unless the disk damaged it, which its manifest shows.

A run replaces and deletes only what a run wrote. training_args.json, written before all else and deleted last, marks a
directory as that of a run: in one without it, files that bear the names of ours belong to somebody else, and no run
begins there. A `checkpoint-<step>` or a README.md that somebody else wrote is told by its content.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from ..hub import RUN_FILE
from ..models.checkpoint import WEIGHTS_FILE
from ..models.configuration import CONFIG_FILE
from ..models.sentence_files import WRITTEN_FILES
from ..system.files import (
    MANIFEST_FILE,
    delete_empty,
    delete_leftovers,
    made_directory,
    read_json_object,
    run_lock,
    sync_directory,
    verify_manifest,
    write_manifest,
)
from ..text.saved_files import TOKENIZER_FILES
from .state import STATE_FILE

ARGS_FILE = RUN_FILE
RESULTS_FILE = "all_results.json"
COMMAND_FILE = "command.txt"
CARD_FILE = "README.md"
CLASSES_FILE = "per_class.tsv"
CONFUSIONS_FILE = "confusions.tsv"
OPTIMIZER_FILE = "optimizer.safetensors"
# All that a run writes beside checkpoints and logs, in the order of deletion: the mark of a run's directory comes last.
_FILES = (
    STATE_FILE,
    RESULTS_FILE,
    COMMAND_FILE,
    WEIGHTS_FILE,
    CONFIG_FILE,
    *WRITTEN_FILES,
    *TOKENIZER_FILES,
    CLASSES_FILE,
    CONFUSIONS_FILE,
    CARD_FILE,
    ARGS_FILE,
)
_CHECKPOINT = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
# A checkpoint of a run has all of these, a damaged one some, one of transformers none.
_OF_A_CHECKPOINT = (MANIFEST_FILE, ARGS_FILE, OPTIMIZER_FILE)
PLOTS_DIRECTORY = "plots"
# Of a card and of a picture, which people write too.
_TAG, _TAG_IN_BYTES = b"kdistill", 1 << 16
_ARGUMENTS_OF_OURS = frozenset(("output_dir", "per_device_train_batch_size"))
_PARTIAL_PREFIX = ".partial-checkpoint-"


class RunDirectory:
    """The `output_dir` of `TrainingArguments`. The constructor touches nothing on disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Check that a run may begin in the directory, which is made only by `claim`.

        Args:
            resume: whether the run continues the one in the directory.
            overwrite: whether to delete the run in the directory.

        Raises:
            FileExistsError: it holds a run and neither argument is true, or files or checkpoints that no run left
                there and that this one would replace.
            OSError: it cannot be created or written.
        """
        with self.made():
            self._refuse_loss(resume=resume, overwrite=overwrite)

    @contextmanager
    def made(self) -> Iterator[None]:
        """Let the directory be there and be writable inside the block; made here, it stays if the block fills it.

        Raises `OSError` when it cannot be created or written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"output_dir {str(self.path)!r} is a file; expected a directory")
        with ExitStack() as stack:
            try:
                stack.enter_context(made_directory(self.path))
                with tempfile.TemporaryFile(dir=self.path):
                    pass
            except OSError as error:
                raise type(error)(f"output_dir {str(self.path)!r} cannot be written: {error.strerror}") from error
            yield

    def _refuse_loss(self, *, resume: bool, overwrite: bool) -> None:
        foreign = self._foreign()
        checkpoints = self.checkpoints()
        if foreign and checkpoints and not os.path.lexists(self.path / ARGS_FILE):
            raise FileExistsError(
                f"output_dir {str(self.path)!r} lacks {ARGS_FILE}, which marks the directory of a run, and contains "
                f"{', '.join(foreign)}; copy the file from {checkpoints[-1].name} if these are a run's, or choose "
                "another directory"
            )
        if foreign:
            raise FileExistsError(
                f"output_dir {str(self.path)!r} contains {', '.join(foreign)}, which no run of kdistill wrote and this "
                "run would replace; move what you need elsewhere, or choose another directory"
            )
        if self.holds_run() and not resume and not overwrite:
            raise FileExistsError(
                f"output_dir {str(self.path)!r} contains a run; resume it (--resume, resume_from_checkpoint=True), "
                "delete it (--overwrite-output-dir, overwrite_output_dir=True) or choose another directory"
            )

    @contextmanager
    def claim(self, *, resume: bool, overwrite: bool) -> Iterator[None]:
        """Make and lock the directory for one run inside the block, check it as `check` does, and delete leftovers.

        A directory that is made here and that the block leaves empty, because the run could not begin, is deleted.

        The run that it holds stays: what may fail before the new one has anything to keep must not cost it, see
        `delete_run`. Raises `BlockingIOError` when another process holds the lock, and otherwise as `check`.
        """
        with self.made(), run_lock(self.path):
            self._refuse_loss(resume=resume, overwrite=overwrite)
            for leftover in self.path.glob(f"{_PARTIAL_PREFIX}*"):
                shutil.rmtree(leftover)
            delete_leftovers(self.path)
            yield

    def checkpoint(self, step: int) -> Path:
        """Return the path of the checkpoint of this step, whether it exists or not."""
        return self.path / f"checkpoint-{step}"

    def checkpoints(self) -> list[Path]:
        """Return the `checkpoint-<step>` directories that runs wrote, sorted by step."""
        found = {step: path for step, path in self._named_as_checkpoints() if _is_checkpoint_of_ours(path)}
        return [found[step] for step in sorted(found)]

    def checkpoint_to_resume(self, wanted: bool | Path) -> Path | None:
        """Return the checkpoint to resume from, or None: `wanted` as `wanted_checkpoint` returns it.

        Raises ValueError when the checkpoint that is named is damaged.
        """
        if isinstance(wanted, bool):
            return self.newest_checkpoint() if wanted else None
        if damage := verify_manifest(wanted):
            raise ValueError(f"resume_from_checkpoint is {str(wanted)!r}, which is damaged: {damage}")
        return wanted

    def newest_checkpoint(self) -> Path | None:
        """Return the newest undamaged checkpoint, or None, with a warning about each damaged one."""
        for path in reversed(self.checkpoints()):
            damage = verify_manifest(path)
            if damage is None:
                return path
            warnings.warn(f"{path} is damaged and skipped: {damage}", stacklevel=2)
        return None

    def write_checkpoint(self, step: int, write: Callable[[Path], None]) -> Path:
        """Write the checkpoint of a step and return its path; when writing fails, nothing of it remains.

        Args:
            step: optimiser steps done.
            write: writes the checkpoint's files into the directory that it is given.

        Raises:
            FileExistsError: something that no run wrote has taken its name.
        """
        partial, path = self.path / f"{_PARTIAL_PREFIX}{step}", self.checkpoint(step)
        if partial.exists():  # of an attempt that was interrupted
            shutil.rmtree(partial)
        try:
            partial.mkdir()
            write(partial)
            write_manifest(partial)
            # In its place may be a damaged one, or one of a run that was interrupted or resumed from an earlier step.
            former = self._set_aside(path) if path.exists() else None
            partial.rename(path)
            if former is not None:
                shutil.rmtree(former)
        finally:
            if partial.exists():  # writing failed, for example on a full disk
                shutil.rmtree(partial)
        sync_directory(self.path)
        return path

    def left_by_interrupts(self) -> list[Path]:
        """Return the checkpoints that no strategy has made, sorted by step."""
        return [path for path in self.checkpoints() if _is_left_by_interrupt(path)]

    def rotate(
        self,
        limit: int | None,
        keep: Collection[str | os.PathLike[str] | None],
        uncounted: Collection[Path] = (),
    ) -> None:
        """Delete the oldest checkpoints until `limit` are left (None or 0: all stay), except those of `keep`.

        Those that are `uncounted` stay beside them.
        """
        paths = [path for path in self.checkpoints() if path not in uncounted]
        kept = {Path(path) for path in keep if path is not None}
        spare = [path for path in paths if path not in kept]
        for path in spare[: max(0, len(paths) - limit)] if limit else []:
            self.delete_checkpoint(path)

    def holds_run(self) -> bool:
        """Return whether a run has begun in the directory."""
        return self._is_marked() or bool(self.checkpoints())

    def _is_marked(self) -> bool:
        """Return whether a run has begun in the directory; a damaged mark of one counts."""
        path = self.path / ARGS_FILE
        try:
            return path.is_file() and read_json_object(path).keys() >= _ARGUMENTS_OF_OURS
        except ValueError:
            return bool(self.checkpoints())

    def _foreign(self) -> list[str]:
        """Return the names in the directory that a run takes, and that no run took."""
        marked = self._is_marked()
        there = [name for name in _FILES if os.path.lexists(self.path / name)]
        files = [name for name in there if not (marked and may_replace(self.path / name))]
        taken = sorted(step for step, path in self._named_as_checkpoints() if not _is_checkpoint_of_ours(path))
        return [*sorted(files), *(self.checkpoint(step).name for step in taken)]

    def _named_as_checkpoints(self) -> list[tuple[int, Path]]:
        found = ((_CHECKPOINT.fullmatch(path.name), path) for path in self.path.iterdir())
        return [(int(match[1]), path) for match, path in found if match is not None]

    def delete_checkpoint(self, path: Path) -> None:
        """Delete a checkpoint, renamed before: a kill midway must not leave half of one under a checkpoint's name."""
        shutil.rmtree(self._set_aside(path))

    def _set_aside(self, path: Path) -> Path:
        """Move a checkpoint into a directory that is to be deleted, and return that."""
        if not _is_checkpoint_of_ours(path):
            raise FileExistsError(f"{path} exists, and no run of kdistill wrote it; move it elsewhere")
        doomed = Path(tempfile.mkdtemp(prefix=_PARTIAL_PREFIX, dir=self.path))
        path.rename(doomed / path.name)
        return doomed

    def delete_run(self) -> None:
        """Delete the run in the claimed directory, its mark last."""
        for path in self.checkpoints():
            self.delete_checkpoint(path)
        self.delete_pictures()
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)

    def delete_pictures(self) -> None:
        """Delete the pictures that a report or a search has left."""
        plots = self.path / PLOTS_DIRECTORY
        for path in plots.glob("*.png"):
            if may_replace(path):
                path.unlink()
        if plots.is_dir():
            delete_empty([plots])


def nearest_directory(path: Path) -> Path:
    """Return the path if it is a directory, else the nearest one above it."""
    return next(there for there in (path.absolute(), *path.absolute().parents) if there.is_dir())


def wanted_checkpoint(given: object) -> bool | Path:
    """Return what `resume_from_checkpoint` asks for: a checkpoint's directory, or whether to resume the newest one.

    Args:
        given: True, False, None for False, or a path.

    Raises:
        TypeError: it is neither.
        FileNotFoundError: the path is not a directory.
        ValueError: the path is empty, or the directory is no checkpoint of a run.
    """
    if given is None or isinstance(given, bool | np.bool_):
        return bool(given)
    expected = "expected a checkpoint's directory, True for the newest one in output_dir, or False or None for none"
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"resume_from_checkpoint is {given!r} ({type(given).__name__}); {expected}")
    if not os.fspath(given):
        raise ValueError(f"resume_from_checkpoint is '', which names nothing; {expected}")
    path = Path(given).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"resume_from_checkpoint is {str(given)!r}; {expected}")
    if not (path / MANIFEST_FILE).exists() and RunDirectory(path).holds_run():
        raise ValueError(f"resume_from_checkpoint is {str(given)!r}, a run's output directory; {expected}")
    if not _is_checkpoint_of_ours(path):
        raise ValueError(
            f"resume_from_checkpoint is {str(given)!r}, which is not a checkpoint written by kdistill; a run continues "
            "only from its own checkpoints. To start from the weights of another model, load it and start a new run"
        )
    return path


def may_replace(path: Path) -> bool:
    """Return whether a run may replace what has this name in a run's directory, or write it where nothing has.

    A model card and a picture are told by their tag: people write a README.md of their own at any time.
    """
    if (path.name == CARD_FILE or path.suffix == ".png") and path.is_file():
        with path.open("rb") as file:
            return _TAG in file.read(_TAG_IN_BYTES)
    return path.is_file() or not os.path.lexists(path)


def _is_checkpoint_of_ours(path: Path) -> bool:
    """Return whether a run wrote the checkpoint, however damaged it is now."""
    return path.is_dir() and any((path / name).is_file() for name in _OF_A_CHECKPOINT)


def _is_left_by_interrupt(checkpoint: Path) -> bool:
    """Return whether an interrupt has left the checkpoint; a damaged one counts as one of a strategy."""
    try:
        return read_json_object(checkpoint / STATE_FILE).get("interrupted") is True
    except (OSError, ValueError):
        return False
