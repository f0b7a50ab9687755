"""`Format`: what an exporter is, and what it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..data.dataset import Dataset
from ..models.model import Model
from ..text.tokenizer import PreTrainedTokenizerFast


class Built(NamedTuple):
    """A model in a format, not yet written.

    Attributes:
        content: of the file.
        inputs, outputs: the names of what it takes and gives; of a format that has none, empty.
        checked_with: the program that checked the content, with its version; None: none did.
        largest_difference: between its logits and kdistill's; None: it gave none.
    """

    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    checked_with: str | None
    largest_difference: float | None


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format that models are exported to.

    Attributes:
        name: as `--format` has it.
        ending: of the names of its files.
        files: type of numbers -> the file in a directory, relative to it, where readers of the format look for it.
        holds_tokenizer: whether a file holds the tokenizer, too, and cannot be made without one.
        with_ranges: types of numbers in which activations can be rounded in ranges that rows have shown.
        require: (dtype) -> raises ImportError, which names the extra, for a package that is not installed.
        build: (model with float32 weights, dtype, its tokenizer if there is one, rows for the ranges if there are some)
            -> the file's content, checked.
    """

    name: str
    ending: str
    files: Mapping[str, str]
    holds_tokenizer: bool = False
    with_ranges: tuple[str, ...] = ()
    require: Callable[[str], None]
    build: Callable[[Model, str, PreTrainedTokenizerFast | None, Dataset | None], Built]
