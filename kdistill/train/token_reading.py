"""Token files as the rows of a model: what has to agree, and what to do where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.dataset import Dataset
from ..data.documents import masking_of
from ..data.tagged import overlap_of_words
from ..data.token_files import TokenFiles
from ..losses.problem_types import REGRESSION
from ..models.configuration import Config
from ..models.head_names import MASKED, SEQUENCE, SPAN, TOKEN
from ..system.names import listing
from ..tasks.registry import has_one_class, refuse_one_class, strict_label_reader, task_for, task_option
from ..text.tokenizer import PreTrainedTokenizerFast
from ..text.windows import stride_of

FORM_OF_HEAD = {MASKED: "words", TOKEN: "tags", SPAN: "answers"}
"""The form of labels of the heads that have one to themselves, see `data.token_header.FORMS`."""


def rows_of_files(
    config: Config,
    files: TokenFiles,
    tokenizer: PreTrainedTokenizerFast | None,
    *,
    max_length: int,
    doc_stride: int | None,
    columns: Mapping[str, Any],
    keep_texts: bool,
    all_tokens: bool,
) -> Dataset:
    """Return the rows of token files as `encode_for` would make them of the text.

    Args:
        config: the model's.
        files: the token files.
        tokenizer: the one that would read the text; None where nobody knows it.
        max_length: tokens that the text would be cut to.
        doc_stride: tokens that two windows of a row of words would share; None: see `data.windows.overlap_of`.
        columns: those that are named.
        keep_texts: whether the texts are needed.
        all_tokens: whether all tokens of a word have its tag.

    Raises:
        ValueError: the text would have become other tokens, or what is needed is not there.
    """
    given = {name: value for name, value in columns.items() if value is not None}
    if given:
        name, value = next(iter(given.items()))
        raise ValueError(
            f"{name} is {value!r}, and {files.path} holds token files, for which the columns were chosen when they "
            f"were made; leave it out, or encode the rows anew with --{name.replace('_', '-')} {value}"
        )
    _check_task(config, files)
    if tokenizer is not None:
        _check_tokenizer(files, tokenizer)
    _check_length(files, max_length)
    if keep_texts and not files.has_texts:
        raise ValueError(
            f"{files.path} holds tokens without their texts, which a new vocabulary needs, and a teacher that has a "
            "tokenizer of its own or is a function; encode the rows anew with --keep-texts, or give the file that they "
            "were made of"
        )
    types = tokenizer is None or tokenizer.has_token_types
    if files.are_windows:
        _check_overlap(files, doc_stride, max_length)
    if files.hold_words:
        if files.header.values and has_one_class(config):
            refuse_one_class(config)
        return files.windows(
            config.id2label, max_length=max_length, types=types, texts=keep_texts, all_tokens=all_tokens
        )
    if files.are_windows:
        return files.questions(max_length=max_length, types=types)
    if files.are_blocks:
        if tokenizer is None:
            raise ValueError("tokenizer is None; pass one (processing_class=), which tells how a mask is written")
        return files.blocks(masking_of(tokenizer))
    return files.dataset(
        config.id2label,
        None if config.embeds else strict_label_reader(config),
        max_length=max_length,
        types=types,
        texts=keep_texts,
    )


def _check_task(config: Config, files: TokenFiles) -> None:
    """Raise ValueError for a model of another task than the one that the rows were encoded for."""
    option, form = task_option(config.head), files.header.settings["labels"]
    made_for = next((head for head, theirs in FORM_OF_HEAD.items() if theirs == form), None)
    if FORM_OF_HEAD.get(config.head) != FORM_OF_HEAD.get(made_for or ""):
        other = f"without --task {option}" if made_for is None else f"with --task {task_option(made_for)}"
        raise ValueError(
            f"{files.path} was encoded {other}, and the model is one for {option}; encode the rows anew"
            f"{f' with --task {option}' if config.head in FORM_OF_HEAD else ''}"
        )
    if config.head not in (SEQUENCE, *FORM_OF_HEAD) and not (config.embeds and not files.has_pairs):
        what = "pairs of texts, each of which is embedded by itself" if config.embeds else "whole texts"
        raise ValueError(
            f"{files.path} holds tokens of {what}, and the model is one for {option}; give the file of rows itself"
        )
    if files.header.settings["labels"] == "numbers" and task_for(config).name != REGRESSION and not config.embeds:
        raise ValueError(
            f"{files.path} was encoded with --problem-type {REGRESSION}, and the model is one for "
            f"{task_for(config).name}; give --problem-type {REGRESSION}, or encode the rows anew without it"
        )


def _check_overlap(files: TokenFiles, doc_stride: int | None, max_length: int) -> None:
    """Raise ValueError where rows are in windows that would share another number of tokens."""
    header = files.header
    if not header.cut:
        return
    of_words = files.hold_words
    ours = overlap_of_words(files.tokenizer, max_length, doc_stride) if of_words else stride_of(doc_stride, max_length)
    theirs = header.settings["overlap"]
    if ours != theirs:
        raise ValueError(
            f"{files.path} was encoded with {header.cut:,} of {header.examples:,} rows in windows that share {theirs} "
            f"tokens, and here they share {ours}; give --doc-stride {theirs} (doc_stride={theirs}), or encode the rows "
            f"anew with --doc-stride {ours}"
        )


def _check_tokenizer(files: TokenFiles, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise ValueError for a tokenizer that gives texts other tokens than those in the files."""
    theirs = files.tokenizer
    if files.hold_words:
        tokenizer = tokenizer.for_words()
    different = [] if files.header.tokenizer == tokenizer.content_hash else tokenizer.differences_from(theirs)
    if files.header.cut and not files.are_windows and theirs.truncation_side != tokenizer.truncation_side:
        different.append("truncation_side")
    if files.has_pairs and tokenizer.has_token_types and not theirs.has_token_types:
        different.append("whether they give token types (model_input_names)")
    if different:
        raise ValueError(
            f"{files.path} was encoded with another tokenizer than the model's (different: {listing(different)}); "
            "encode the rows anew with --tokenizer and the model, or the teacher"
        )


def _check_length(files: TokenFiles, max_length: int) -> None:
    """Raise ValueError where the rows would have been cut to another length."""
    header = files.header
    theirs = header.max_length
    if theirs == max_length or (not header.cut and not files.are_blocks and header.longest <= max_length):
        return
    if theirs is None or theirs > max_length:
        raise ValueError(
            f"{files.path} holds rows of up to {header.longest} tokens, and here they are cut to {max_length}; encode "
            f"the rows anew with --max-length {max_length}"
        )
    what = "blocks" if files.are_blocks else f"{header.cut:,} of {header.examples:,} rows"
    cut = "cut into windows of" if files.are_windows else "cut to"
    raise ValueError(
        f"{files.path} was encoded with {what} {cut} {theirs} tokens, and here they are {cut} {max_length}; give "
        f"--max-length {theirs} (max_length={theirs}), or encode the rows anew with --max-length {max_length}"
    )
