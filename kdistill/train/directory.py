"""The output directory of a training run: its lock, its files and its checkpoints.

A checkpoint is written under a temporary name, its manifest last, and then renamed. So a directory called
`checkpoint-<step>` is complete unless the disk damaged it, which its manifest shows.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..models.checkpoint import WEIGHTS_FILE
from ..models.config import CONFIG_FILE
from ..system.files import delete_leftovers, run_lock, sync_directory, verify_manifest, write_manifest
from .state import STATE_FILE

ARGS_FILE = "training_args.json"
RESULTS_FILE = "all_results.json"
COMMAND_FILE = "command.txt"
_RUN_FILES = (STATE_FILE, ARGS_FILE, RESULTS_FILE, COMMAND_FILE)
_MODEL_FILES = (WEIGHTS_FILE, CONFIG_FILE)
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_PARTIAL_PREFIX = ".partial-checkpoint-"


class RunDirectory:
    """The `output_dir` of `TrainingArguments`. The constructor touches nothing on disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Create the directory if it is missing, and check that a run may begin there.

        Args:
            resume: whether the run continues the one in the directory.
            overwrite: whether to delete the run or model in the directory.

        Raises:
            FileExistsError: it holds a run and neither argument is true, or it holds a model without a run and
                `overwrite` is false.
            OSError: it cannot be created or written.
        """
        self.make_writable()
        self._refuse_loss(resume=resume, overwrite=overwrite)

    def make_writable(self) -> None:
        """Create the directory if it is missing. Raises `OSError` when it cannot be created or written."""
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"output_dir {str(self.path)!r} is a file; expected a directory")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise type(error)(f"output_dir {str(self.path)!r} cannot be written: {error.strerror}") from error

    def _refuse_loss(self, *, resume: bool, overwrite: bool) -> None:
        if overwrite:
            return
        if self._holds_run() and not resume:
            raise FileExistsError(
                f"output_dir {str(self.path)!r} holds a run; resume it (--resume, resume_from_checkpoint=True), delete "
                "it (--overwrite-output-dir, overwrite_output_dir=True) or choose another directory"
            )
        if self._holds_model() and not self._holds_run():
            raise FileExistsError(
                f"output_dir {str(self.path)!r} holds a model that no run left there; choose another directory or "
                "let it be replaced (--overwrite-output-dir, overwrite_output_dir=True)"
            )

    @contextmanager
    def claim(self, *, resume: bool, overwrite: bool) -> Iterator[None]:
        """Lock the directory for one run inside the block, check it as `check` does, and delete leftovers in it.

        With `overwrite` and without `resume`, the run that it holds is deleted as well. Raises `BlockingIOError` when
        another process holds the lock, and otherwise as `check`.
        """
        self.make_writable()
        with run_lock(self.path):
            self._refuse_loss(resume=resume, overwrite=overwrite)
            if overwrite and not resume:
                self._delete_run()
            for leftover in self.path.glob(f"{_PARTIAL_PREFIX}*"):
                shutil.rmtree(leftover)
            delete_leftovers(self.path)
            yield

    def checkpoint(self, step: int) -> Path:
        """Return the path of the checkpoint of this step, whether it exists or not."""
        return self.path / f"checkpoint-{step}"

    def checkpoints(self) -> list[Path]:
        """Return all `checkpoint-<step>` directories, sorted by step."""
        found = {}
        for path in self.path.iterdir():
            if (match := _CHECKPOINT.fullmatch(path.name)) and path.is_dir():
                found[int(match[1])] = path
        return [found[step] for step in sorted(found)]

    def checkpoint_to_resume(self, wanted: bool | str | os.PathLike[str] | None) -> Path | None:
        """Return the checkpoint to resume from, or None.

        Args:
            wanted: a checkpoint's path, True for the newest undamaged one, or False or None for none.

        Raises:
            FileNotFoundError: the path is not a directory.
            ValueError: the checkpoint at the path is damaged.
        """
        if wanted is None or isinstance(wanted, bool):
            return self.newest_checkpoint() if wanted else None
        path = Path(wanted)
        if not path.is_dir():
            raise FileNotFoundError(f"resume_from_checkpoint is {str(path)!r}; expected a checkpoint's directory")
        if damage := verify_manifest(path):
            raise ValueError(f"resume_from_checkpoint is {str(path)!r}, which is damaged: {damage}")
        return path

    def newest_checkpoint(self) -> Path | None:
        """Return the newest undamaged checkpoint, or None, with a warning about each damaged one."""
        for path in reversed(self.checkpoints()):
            damage = verify_manifest(path)
            if damage is None:
                return path
            warnings.warn(f"{path} is damaged and passed over: {damage}", stacklevel=2)
        return None

    def write_checkpoint(self, step: int, write: Callable[[Path], None]) -> Path:
        """Write the checkpoint of a step and return its path; when writing fails, nothing of it remains.

        Args:
            step: optimiser steps done.
            write: writes the checkpoint's files into the directory that it is given.
        """
        partial, path = self.path / f"{_PARTIAL_PREFIX}{step}", self.checkpoint(step)
        partial.mkdir()
        try:
            write(partial)
            write_manifest(partial)
            if path.exists():  # a damaged one, or one of a run that was resumed from an earlier checkpoint
                self._delete_checkpoint(path)
            partial.rename(path)
        finally:
            if partial.exists():  # writing failed, for example on a full disk
                shutil.rmtree(partial)
        sync_directory(self.path)
        return path

    def rotate(self, limit: int | None, keep: Collection[str | os.PathLike[str] | None]) -> None:
        """Delete the oldest checkpoints until `limit` are left (None: all stay), except those of `keep`."""
        paths, kept = self.checkpoints(), {Path(path) for path in keep if path is not None}
        spare = [path for path in paths if path not in kept]
        for path in spare[: max(0, len(paths) - limit)] if limit is not None else []:
            self._delete_checkpoint(path)

    def _holds_run(self) -> bool:
        return any((self.path / name).exists() for name in _RUN_FILES) or bool(self.checkpoints())

    def _holds_model(self) -> bool:
        return any((self.path / name).exists() for name in _MODEL_FILES)

    def _delete_checkpoint(self, path: Path) -> None:
        """Delete a checkpoint, renamed before: a kill midway must not leave half of one under a checkpoint's name."""
        doomed = Path(tempfile.mkdtemp(prefix=_PARTIAL_PREFIX, dir=self.path))
        path.rename(doomed / path.name)
        shutil.rmtree(doomed)

    def _delete_run(self) -> None:
        for path in self.checkpoints():
            self._delete_checkpoint(path)
        for name in (*_RUN_FILES, *_MODEL_FILES):
            (self.path / name).unlink(missing_ok=True)
