"""The log of a job: one line for each entry, at once, and no secret in any."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

from ..system.progress import Progress
from ..train.arguments import TrainingArguments
from ..train.callbacks import TrainerCallback, TrainerControl
from ..train.state import TrainerState
from .metrics import log_line

HIDDEN = "***"
_SHORTEST_SECRET = 4  # anything shorter is no token, and hiding it would make the log unreadable


class JobLogCallback(TrainerCallback):
    """A callback that prints every log entry, as transformers does, and now and then the steps and the time left."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._progress = Progress("train", unit="steps", quiet=args.disable_tqdm)
        self._progress(state.global_step, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress(state.global_step, state.max_steps)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        print(log_line(kwargs["logs"]), flush=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._progress is not None:
            self._progress.close(finished=state.global_step >= state.max_steps)
            self._progress = None


class Secrets:
    """The values that no line may show."""

    def __init__(self, values: Iterable[str | None]) -> None:
        self._values = [value for value in values if value is not None and len(value) >= _SHORTEST_SECRET]

    def hidden(self, text: str) -> str:
        """Return the text with every secret replaced."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        return text


class SafeStream:
    """A text stream that hides secrets in what is written to it, in lines, and is else the one that it wraps."""

    def __init__(self, stream: TextIO, secrets: Secrets) -> None:
        self._stream, self._secrets = stream, secrets

    def write(self, text: str) -> int:
        """Write the text without secrets."""
        self._stream.write(self._secrets.hidden(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """Return False: a log has lines, and no bars."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
