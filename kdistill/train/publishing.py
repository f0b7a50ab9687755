"""Uploads of a run to the Hugging Face hub, controlled by the `hub_*` arguments."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..hub import check_upload, upload
from ..system.files import MANIFEST_FILE
from .arguments import TrainingArguments
from .directory import COMMAND_FILE, OPTIMIZER_FILE
from .state import STATE_FILE, TrainerState

# Files of a checkpoint that only a resumed run needs; the first is large.
_NOT_OF_THE_MODEL = (OPTIMIZER_FILE, STATE_FILE, MANIFEST_FILE)


def check_publishing(args: TrainingArguments) -> None:
    """Check package, token and repository name before any work. Raises as `hub.check_upload`."""
    check_upload(_repository(args), args.hub_token)


def upload_run(args: TrainingArguments, state: TrainerState, message: str | None = None) -> str:
    """Upload the output directory's model and results; return the URL of the commit. Raises as `hub.upload`.

    `message` is the commit's (default: the number of steps).
    """
    return _upload(Path(args.output_dir), args, state, ("checkpoint-*/**", ".*", COMMAND_FILE), message=message)


def upload_checkpoint(path: Path, args: TrainingArguments, state: TrainerState) -> None:
    """Upload a checkpoint's model and, with `hub_strategy` "checkpoint" or "all_checkpoints", the whole checkpoint.

    A failed upload gives a warning, because it must not end the training.
    """
    folder = {"checkpoint": "last-checkpoint", "all_checkpoints": path.name}.get(args.hub_strategy)
    try:
        _upload(path, args, state, _NOT_OF_THE_MODEL)
        if folder is not None:
            _upload(path, args, state, (), folder)
    except Exception as error:  # noqa: BLE001  # whatever the package raises
        warnings.warn(f"{path} was not uploaded: {error}", stacklevel=2)


def _upload(
    directory: Path,
    args: TrainingArguments,
    state: TrainerState,
    ignore: tuple[str, ...],
    folder: str | None = None,
    message: str | None = None,
) -> str:
    return upload(
        directory,
        _repository(args),
        private=args.hub_private_repo,
        token=args.hub_token,
        revision=args.hub_revision,
        path_in_repo=folder,
        message=message or f"kdistill: {state.global_step} steps",
        ignore=ignore,
    )


def _repository(args: TrainingArguments) -> str:
    return args.hub_model_id or Path(args.output_dir).resolve().name
