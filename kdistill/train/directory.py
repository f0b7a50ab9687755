"""The output directory of a training run: who may write there, and its checkpoints.

A checkpoint is written under a temporary name, its manifest last, and then renamed; so a directory called
`checkpoint-<step>` is whole unless the disk damaged it, which its manifest shows.
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
    """`output_dir` of `TrainingArguments`. Making one touches nothing on disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Make the directory if it is missing; raise unless it can be written and holds nothing that would be lost.

        Raises `FileExistsError` when it holds a run and neither `resume` nor `overwrite` is true, or when it holds a
        model that no run left and `overwrite` is not true; `OSError` when it cannot be made or written.
        """
        self.make_writable()
        self._refuse_loss(resume=resume, overwrite=overwrite)

    def make_writable(self) -> None:
        """Make the directory if it is missing. Raises `OSError` when it cannot be made or written."""
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
        """Hold the directory for one run: as `check`, but locked against other processes; then clear it."""
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
        """Where the checkpoint of this step is or will be."""
        return self.path / f"checkpoint-{step}"

    def checkpoints(self) -> list[Path]:
        """All `checkpoint-<step>` directories, by step."""
        found = {}
        for path in self.path.iterdir():
            if (match := _CHECKPOINT.fullmatch(path.name)) and path.is_dir():
                found[int(match[1])] = path
        return [found[step] for step in sorted(found)]

    def checkpoint_to_resume(self, wanted: bool | str | os.PathLike[str] | None) -> Path | None:
        """The checkpoint at the path `wanted`, the newest whole one for True, else None.

        Raises `FileNotFoundError` or `ValueError` for a path that is no checkpoint or a damaged one.
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
        """The newest checkpoint that is whole, or None; warns of each damaged one that it passes over."""
        for path in reversed(self.checkpoints()):
            damage = verify_manifest(path)
            if damage is None:
                return path
            warnings.warn(f"{path} is damaged and passed over: {damage}", stacklevel=2)
        return None

    def write_checkpoint(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a directory and turn it into `checkpoint-<step>` in one rename; nothing half-done stays."""
        partial, path = self.path / f"{_PARTIAL_PREFIX}{step}", self.checkpoint(step)
        partial.mkdir()
        try:
            write(partial)
            write_manifest(partial)
            if path.exists():  # of this step, but damaged or left by a run that went on from an earlier checkpoint
                self._delete_checkpoint(path)
            partial.rename(path)
        finally:
            if partial.exists():  # a full disk has no room for it
                shutil.rmtree(partial)
        sync_directory(self.path)
        return path

    def rotate(self, limit: int | None, keep: Collection[str | os.PathLike[str] | None]) -> None:
        """Delete the oldest checkpoints beyond `limit`, but none of `keep`."""
        paths, kept = self.checkpoints(), {Path(path) for path in keep if path is not None}
        spare = [path for path in paths if path not in kept]
        for path in spare[: max(0, len(paths) - limit)] if limit is not None else []:
            self._delete_checkpoint(path)

    def _holds_run(self) -> bool:
        return any((self.path / name).exists() for name in _RUN_FILES) or bool(self.checkpoints())

    def _holds_model(self) -> bool:
        return any((self.path / name).exists() for name in _MODEL_FILES)

    def _delete_checkpoint(self, path: Path) -> None:
        """Rename first: a kill midway must not leave half a checkpoint under a checkpoint's name."""
        doomed = Path(tempfile.mkdtemp(prefix=_PARTIAL_PREFIX, dir=self.path))
        path.rename(doomed / path.name)
        shutil.rmtree(doomed)

    def _delete_run(self) -> None:
        for path in self.checkpoints():
            self._delete_checkpoint(path)
        for name in (*_RUN_FILES, *_MODEL_FILES):
            (self.path / name).unlink(missing_ok=True)
