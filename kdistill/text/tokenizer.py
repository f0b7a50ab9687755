"""A tokenizer: Hugging Face's `tokenizers` with the interface of `transformers`.

Above 500 lines, because the class has as many methods as that interface; each is a few lines over the other modules.
"""

from __future__ import annotations

import inspect
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy, deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..system.files import json_text, write_text
from ..system.foreign import check_kind
from ..system.names import check_others, missing_attribute
from ..system.output import given_path
from .blocks import Input, OffsetRow, TokenRow, WordRow, call_backend, inputs_of, word_inputs_of
from .comparison import pipeline_differences, vocabulary_differences
from .content_hash import content_hash
from .encodings import NO_MAX_LENGTH, BatchEncoding, as_result, asked_columns, columns_of, encoding_columns
from .kinds import Kind
from .loading import check_special_tokens, load, lowers_case
from .padding import Filler, Padding
from .pieces import Piece, reader_of_pieces
from .pipelines import backend_of, set_offsets_of_prefix_space, with_prefix_space
from .row_encoder import Cut, RowEncoder
from .saved_files import files_of
from .subset import matching_entries, reduced
from .tokenizer_settings import (
    EXTRA_SPECIAL_TOKENS,
    SPECIAL_TOKEN_NAMES,
    check_special_tokens_dict,
    checked_side,
    extra_special_tokens_of,
    input_names_of,
    special_tokens_of,
    token_text,
)
from .transformers_names import ATTRIBUTES, CALL

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# Decoded text loses the spaces around each of these, in this order (transformers: clean_up_tokenization_spaces).
_CLEANED_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class PreTrainedTokenizerFast:
    """A tokenizer of any kind, from text to token ids and back.

    Use `from_pretrained` to load one; `AutoTokenizer` gives it the class that the files name. Padding and truncation
    stored in a tokenizer.json are ignored; they are arguments of each call.

    Args:
        backend: the tokenizer of the package `tokenizers`.
        settings: the content of a tokenizer_config.json.

    Attributes:
        vocab: token -> id.
        vocab_size: entries of the vocabulary without added tokens.
        model_max_length: longest row of the model in tokens; 10**30 when the files do not give it.
        model_input_names: the columns of a call's result.
        padding_side: "right" or "left", where `padding` adds tokens. Models here want them on the right.
        truncation_side: "right" or "left", where rows are cut.
        do_lower_case: whether text is lowercased.
        content_hash: SHA-256 of everything that decides which ids a text gets.
        pad_token, cls_token, sep_token, unk_token, mask_token: the special tokens, each with its `..._id`.
        kind: the row of the table of kinds that the class stands for; None for the one that the files name.

    Raises:
        ValueError: the vocabulary lacks a special token.
    """

    kind: Kind | None = None
    model_input_names: list[str]
    padding_side: str
    truncation_side: str
    pad_token_type_id: int
    pad_token: str
    cls_token: str
    sep_token: str
    unk_token: str
    mask_token: str
    pad_token_id: int
    cls_token_id: int
    sep_token_id: int
    unk_token_id: int
    mask_token_id: int | None

    def __init__(self, backend: Tokenizer, settings: Mapping[str, Any] | None = None) -> None:
        settings = dict(settings or {})
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self._encoder = RowEncoder(backend)
        self._settings = settings
        backend.encode_special_tokens = bool(settings.get("split_special_tokens"))
        self.do_lower_case: bool = lowers_case(backend)
        self.model_max_length = int(settings.get("model_max_length") or settings.get("max_len") or NO_MAX_LENGTH)
        self.clean_up_tokenization_spaces = bool(settings.get("clean_up_tokenization_spaces", False))
        self.padding_side = settings.get("padding_side") or "right"
        self.truncation_side = settings.get("truncation_side") or "right"
        self.pad_token_type_id = settings.get("pad_token_type_id") or 0
        self.model_input_names = input_names_of(settings)
        self._special_names: list[str] = []
        check_special_tokens(backend, settings)
        for name, token in special_tokens_of(settings).items():
            self._name_special_token(name, token_text(token))

    def _name_special_token(self, name: str, token: str) -> None:
        token_id = self._backend.token_to_id(token)
        if token_id is not None and name not in self._special_names:
            self._special_names.append(name)
        setattr(self, name, token)
        setattr(self, f"{name}_id", token_id)

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle keeps: all but the encoder, which holds a lock."""
        return {name: value for name, value in self.__dict__.items() if name != "_encoder"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the pickled tokenizer again, with another encoder."""
        self.__dict__.update(state)
        self._backend.encode_special_tokens = bool(self._settings.get("split_special_tokens"))
        self._encoder = RowEncoder(self._backend)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError with what to use instead of an attribute of transformers, or the nearest name."""
            raise missing_attribute(self, name, ATTRIBUTES)

    @property
    def is_fast(self) -> bool:
        """True: the package `tokenizers` does the work."""
        return True

    @property
    def has_token_types(self) -> bool:
        """Whether a call returns `token_type_ids` unasked; without them a model gets zeros, as in transformers."""
        return "token_type_ids" in self.model_input_names

    def with_token_types(self, wanted: bool) -> PreTrainedTokenizerFast:
        """Return a tokenizer that has token types or has none: this one, or one with the same vocabulary."""
        if wanted == self.has_token_types:
            return self
        other = copy(self)
        # Whoever calls the backend that both have holds the lock of its one encoder.
        other._encoder = self._encoder
        other._settings, other._special_names = dict(self._settings), list(self._special_names)
        names = [name for name in self.model_input_names if name != "token_type_ids"]
        other.model_input_names = [*names[:1], *(("token_type_ids",) if wanted else ()), *names[1:]]
        return other

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        do_lower_case: bool | None = None,
        model_max_length: int | None = None,
        **keywords: Any,
    ) -> PreTrainedTokenizerFast:
        """Load the tokenizer from `tokenizer.json`, or from the files of its vocabulary alone.

        These are vocab.txt; vocab.json and merges.txt; sentencepiece.bpe.model; or spiece.model. The settings
        `do_lower_case`, `strip_accents`, `tokenize_chinese_chars`, `keep_accents` and `add_prefix_space` of
        tokenizer_config.json override those inside tokenizer.json, as in transformers; the keyword arguments override
        both.

        Args:
            path_or_id: a directory or a hub id.
            do_lower_case: whether to lowercase text (default: from the files; True for a vocab.txt or ALBERT's
                spiece.model alone).
            model_max_length: longest row in tokens (default: from the files).
            keywords: settings of tokenizer_config.json in place of its own (`tokenizer_settings.GIVEN_SETTINGS`, such
                as `padding_side`); where the files are (`token`, `revision`, `cache_dir`, `force_download`,
                `local_files_only`, `subfolder`), see `hub.resolve`; those of transformers that are of no use here, see
                `kdistill.keywords`.

        Raises:
            FileNotFoundError: the directory has none of the files, or does not exist and cannot be downloaded.
            ValueError: a file is malformed, the files are those of another class, or a keyword asks for what kdistill
                cannot do.
            TypeError: a keyword is unknown; the message names the nearest one.
        """
        return cls(*load(cls.__name__, cls.kind, path_or_id, do_lower_case, model_max_length, keywords))

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write tokenizer.json, vocab.txt, tokenizer_config.json and special_tokens_map.json, as transformers does.

        transformers 4 and 5 read the same tokenizer from them. Their class is that of the kind for its own pipeline,
        such as BertTokenizer for BERT's, else PreTrainedTokenizerFast, which takes tokenizer.json as it is. vocab.txt
        is written when it holds everything: for WordPiece with ids 0..n-1; vocab.json and merges.txt likewise for BPE.

        Args:
            directory: where to write, created if missing.
        """
        directory = given_path("directory", directory)
        directory.mkdir(parents=True, exist_ok=True)
        files = files_of(self._serialized(), self._present_settings(), self.special_tokens_map)
        for name, text in files.items():
            write_text(directory / name, text)

    def _present_settings(self) -> dict[str, Any]:
        """Return the settings, with attributes that may have been changed since."""
        return {
            **self._settings,
            "model_max_length": self.model_max_length,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "model_input_names": self.model_input_names,
        }

    def __call__(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[Any] | None = None,
        *,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        padding: bool | str = False,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        is_split_into_words: bool = False,
        add_special_tokens: bool = True,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        return_tensors: str | None = None,
        **others: Any,
    ) -> BatchEncoding:
        """Encode a text or a list of texts, as in transformers.

        A row that is longer than `model_max_length` and not truncated gives a warning: a model will refuse it. The
        result also maps tokens, words and characters onto each other (`word_ids`, `char_to_token`, ...).

        Args:
            text: one text, a list of texts, or a list of (text, pair) tuples; with `is_split_into_words` a list of
                words in the place of each text.
            text_pair: the second text of each pair, in the same form as `text`.
            truncation: True or "longest_first", "only_first" or "only_second" to truncate to `max_length`; False not
                to truncate (default: truncate when a `max_length` is given).
            max_length: longest row in tokens, special tokens included (default: `model_max_length`).
            stride: with `return_overflowing_tokens`, how many tokens of text a row repeats of the row before it.
            padding: True or "longest" to pad to the longest row of the call, "max_length" to pad to `max_length`.
                Models here do not need padding.
            padding_side: "right" or "left" (default: the attribute `padding_side`).
            pad_to_multiple_of: round the padded width up to a multiple of this.
            is_split_into_words: whether texts are lists of words; byte-level BPE (RoBERTa) then needs
                `add_prefix_space=True` in `from_pretrained` to read each word as one inside a text.
            add_special_tokens: whether to add [CLS] and [SEP].
            return_token_type_ids: whether the result has `token_type_ids` (default: whether `model_input_names` has).
            return_attention_mask: whether the result has `attention_mask` (likewise).
            return_overflowing_tokens: whether what truncation leaves out follows as further rows; the column
                `overflow_to_sample_mapping` has the index of the text that each row is from.
            return_special_tokens_mask: whether the result has `special_tokens_mask`, 1 for special tokens.
            return_offsets_mapping: whether the result has `offset_mapping`, the (start, end) of each token in its text,
                or with `is_split_into_words` in its word.
            return_length: whether the result has `length`, the width of each row.
            return_tensors: "np" for int64 arrays (rows, width), whose rows must be equally long or padded; None for
                lists.
            others: arguments of transformers, accepted where they change nothing, such as `verbose=False`.

        Raises:
            TypeError: an argument is unknown, or `text` or `text_pair` holds something other than strings.
            ValueError: `text` and `text_pair` differ in length, a row cannot be truncated as asked, or an array is
                asked for and rows differ in length.
        """
        if others:
            check_others(type(self).__name__, others, inspect.signature(type(self).__call__).parameters, CALL)
        if is_split_into_words:
            inputs, single = word_inputs_of(text, text_pair)
        else:
            inputs, single = inputs_of(text, text_pair), isinstance(text, str)
        if truncation is None:
            truncation = max_length is not None and padding != "max_length"
        limit = self.truncation_length(max_length) if truncation not in (False, "do_not_truncate") else None
        cut = Cut.asked(truncation, limit, checked_side("truncation_side", self.truncation_side), stride)
        pad = Padding(padding, max_length, pad_to_multiple_of, padding_side)
        wanted = {
            "token_type_ids": return_token_type_ids,
            "attention_mask": return_attention_mask,
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
        }
        names = asked_columns(wanted, self.model_input_names)
        encodings: list[Any] | Callable[[], list[Any]]
        with_offsets = partial(self._with_offsets, inputs, cut, add_special_tokens, return_overflowing_tokens, pad)
        if is_split_into_words or return_overflowing_tokens or return_special_tokens_mask or return_offsets_mapping:
            encodings, samples = with_offsets()
            columns = encoding_columns(encodings, names)
            rows_cut = sum(limit is not None and bool(row.overflowing) for row in encodings)
            longest = max((sum(row.attention_mask) for row in encodings), default=0)
        else:
            rows = self._encoder.encode(inputs, cut, add_special_tokens)
            columns, samples = self._padded_columns(rows, names, pad), []
            encodings = lambda: with_offsets()[0]  # noqa: E731
            rows_cut = sum(row.is_cut for row in rows)
            longest = max((len(row.ids) for row in rows), default=0)
        if limit is None and longest > self.model_max_length:
            warnings.warn(
                f"a row has {longest} tokens, more than this model's {self.model_max_length}; pass truncation=True",
                stacklevel=2,
            )
        if return_length:
            columns["length"] = list(map(len, columns["input_ids"]))
        if return_overflowing_tokens:
            columns["overflow_to_sample_mapping"] = samples
        single = single and not return_overflowing_tokens
        result = as_result(columns, single=single, return_tensors=return_tensors, names=names)
        result.rows_cut = rows_cut
        result._encodings = encodings
        return result

    def _padded_columns(self, rows: Sequence[TokenRow], names: Iterable[str], pad: Padding) -> dict[str, list[Any]]:
        """Return the columns `names` of rows without offsets, padded."""
        columns = {
            "input_ids": [row.ids for row in rows],
            "token_type_ids": [row.type_ids for row in rows],
            "attention_mask": [[1] * len(row.ids) for row in rows],
        }
        columns = {name: columns[name] for name in names}
        pad.pad_columns(columns, self._filler())
        return columns

    def _with_offsets(
        self, inputs: Sequence[Any], cut: Cut, add_special_tokens: bool, has_overflow: bool, pad: Padding
    ) -> tuple[list[Any], list[int]]:
        """Return rows as padded `Encoding` objects, and which input each is from."""
        encodings, samples = [], []
        for index, row in enumerate(self._encoder.encode_with_offsets(inputs, cut, add_special_tokens)):
            parts = [row, *row.overflowing] if has_overflow else [row]
            encodings += parts
            samples += [index] * len(parts)
        pad.pad_encodings(encodings, self._filler())
        return encodings, samples

    def encode(
        self, text: str, text_pair: str | None = None, *, return_tensors: str | None = None, **options: Any
    ) -> Any:
        """Return the ids of one text or pair: a list, or int64 (1, tokens) with `return_tensors="np"`.

        `options` are the other arguments of a call. Raises `TypeError` when `text` is not a string.
        """
        if not isinstance(text, str):
            raise TypeError(f"text is a {type(text).__name__}; encode takes one string, and a call a list of them")
        return self(text, text_pair, return_tensors=return_tensors, **options)["input_ids"]

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        *,
        return_attention_mask: bool = True,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Pad encoded rows.

        Args:
            encoded_inputs: a call's result, or a list of such dicts, one a row. Columns other than those of the model
                (`label`) are kept as they are.
            padding: as in a call.
            max_length: as in a call; rows are not truncated.
            pad_to_multiple_of: as in a call.
            padding_side: as in a call.
            return_attention_mask: whether to add `attention_mask` when it is missing.
            return_tensors: "np" for arrays, None for lists.

        Raises:
            ValueError: `input_ids` is missing.
            TypeError: `encoded_inputs` is neither a dict nor a list of dicts.
        """
        columns, single = columns_of(encoded_inputs, "input_ids")
        if return_attention_mask and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * len(row) for row in columns["input_ids"]]
        Padding(padding, max_length, pad_to_multiple_of, padding_side).pad_columns(columns, self._filler())
        return as_result(columns, single=single, return_tensors=return_tensors, names=self.model_input_names)

    def _filler(self) -> Filler:
        return Filler(
            self.pad_token, self.pad_token_id, self.pad_token_type_id, self.padding_side, self.model_max_length
        )

    def encode_rows(
        self,
        inputs: Sequence[Input],
        max_length: int | None,
        strategy: str = "longest_first",
        add_special_tokens: bool = True,
    ) -> list[TokenRow]:
        """Encode many texts or pairs on all cores, a block at a time, so that Ctrl-C is answered between blocks.

        Args:
            inputs: texts, or (text, pair) tuples.
            max_length: truncate rows to this many tokens; None not to truncate.
            strategy: one of `row_encoder.TRUNCATION_STRATEGIES`.
            add_special_tokens: whether to add [CLS] and [SEP].

        Raises:
            ValueError: a text holds a lone surrogate, or a row cannot be truncated by this strategy.
        """
        side = checked_side("truncation_side", self.truncation_side)
        return self._encoder.encode(inputs, Cut(max_length, side, strategy), add_special_tokens)

    def encode_overlapping(self, pairs: Sequence[tuple[str, str]], max_length: int, stride: int) -> list[Encoding]:
        """Encode pairs of which only the second text is cut, into parts with `stride` tokens in common.

        See `text.windows.windows_of`, which also checks that all fit.
        """
        side = checked_side("truncation_side", self.truncation_side)
        return self._encoder.encode_with_offsets(pairs, Cut(max_length, side, "only_second", stride), True)

    def encode_words(self, rows: Sequence[Sequence[str]]) -> list[WordRow]:
        """Encode rows that are lists of words, without special tokens, on all cores; see `special_token_ids`.

        Each word has the tokens that it has behind a space in a text, whatever `add_prefix_space` is.

        Raises:
            ValueError: a word holds a lone surrogate.
        """
        return self._encoder.encode_words(rows)

    def for_words(self) -> PreTrainedTokenizerFast:
        """Return a tokenizer that reads the first word of a text, too, as `encode_words` reads words.

        For byte-level BPE (RoBERTa) without `add_prefix_space` a copy that has it, else this tokenizer.
        """
        prefixed = with_prefix_space(self._backend.pre_tokenizer)
        if prefixed is None:
            return self
        copied = deepcopy(self)
        copied._settings["add_prefix_space"] = True
        copied._backend.pre_tokenizer = prefixed
        set_offsets_of_prefix_space(copied._backend, added=True)
        return copied

    def encode_with_offsets(self, texts: Sequence[str | list[str]]) -> list[OffsetRow]:
        """Encode texts whole, with special tokens and the place of each token in its text, on all cores.

        Args:
            texts: texts, or rows of words; places are then those in a token's word.

        Raises:
            ValueError: a text holds a lone surrogate.
        """
        rows = self._encoder.encode_with_offsets(texts, Cut(), True)
        return [OffsetRow(row.ids, row.type_ids, row.offsets, row.special_tokens_mask, row.word_ids) for row in rows]

    @property
    def marks_pieces(self) -> bool:
        """Whether tokens that go on a word begin with a mark, as `##` of WordPiece."""
        return bool(getattr(self._backend.model, "continuing_subword_prefix", None))

    def pieces(self) -> dict[int, Piece]:
        """Return what each token but the special ones is to the words of a text, by id.

        Raises:
            ValueError: tokens do not show it.
        """
        read = reader_of_pieces(self._backend)
        if read is None:
            raise ValueError(
                f"the tokenizer's model is {type(self._backend.model).__name__} and its decoder "
                f"{type(self._backend.decoder).__name__}, which do not show where words begin; expected WordPiece, BPE "
                "of bytes, or Unigram"
            )
        special = {*self.all_special_tokens}
        return {index: read(token) for token, index in self.vocab.items() if token not in special}

    def special_token_ids(self) -> tuple[list[int], list[int]]:
        """Return the special tokens in front of a text and behind it, such as [CLS] and [SEP]."""
        with self._encoder.lock:
            row = self._backend.encode("a", add_special_tokens=True)
        inside = [place for place, special in enumerate(row.special_tokens_mask) if not special]
        return list(row.ids[: inside[0]]), list(row.ids[inside[-1] + 1 :])

    def truncation_length(self, max_length: int | None) -> int | None:
        """Return the number of tokens to truncate rows to: `max_length`, else `model_max_length`, or None without one.

        Raises `ValueError` for a `max_length` that is not a whole number of at least 3.
        """
        if max_length is None:
            return self.model_max_length if self.model_max_length < NO_MAX_LENGTH else None
        if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 3:
            raise ValueError(
                f"max_length is {max_length!r}; expected an integer of at least 3 ([CLS], one token, [SEP])"
            )
        return max_length

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """Return the word pieces of a text, or of both texts of a pair."""
        rows: list[Input] = [text if pair is None else (text, pair)]
        with self._encoder.lock:
            encoding = call_backend(
                lambda: self._backend.encode(text, pair, add_special_tokens=add_special_tokens),
                rows,
                "the text cannot be tokenized",
            )
        return list(encoding.tokens)

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> Any:
        """Join ids to text again.

        Args:
            token_ids: an id, a row of ids, a list of rows, or an array of one or two dimensions.
            skip_special_tokens: whether to leave special tokens out.
            clean_up_tokenization_spaces: whether to remove the space before punctuation and contractions (default: the
                setting in tokenizer_config.json, else False).

        Returns:
            The text, or a list of texts for several rows.
        """
        if isinstance(token_ids, (int, np.integer)):
            token_ids = [token_ids]
        rows = list(token_ids)
        if rows and hasattr(rows[0], "__len__"):
            return self.batch_decode(rows, skip_special_tokens, clean_up_tokenization_spaces)
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        text = str(self._backend.decode([int(i) for i in rows], skip_special_tokens=skip_special_tokens))
        for apart in _CLEANED_UP if clean_up_tokenization_spaces else ():
            text = text.replace(apart, apart.strip())
        return text

    def batch_decode(
        self,
        sequences: Iterable[Any],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """Decode each row, see `decode`."""
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in sequences]

    def convert_ids_to_tokens(self, ids: int | Iterable[int], skip_special_tokens: bool = False) -> Any:
        """Return the token of an id, or a list of tokens. Raises `IndexError` for an id outside the vocabulary."""
        if isinstance(ids, (int, np.integer)):
            token = self._backend.id_to_token(int(ids)) if ids >= 0 else None
            if token is None:
                raise IndexError(f"token id {ids} is not in the vocabulary of {len(self)} entries")
            return token
        left_out = set(self.all_special_ids) if skip_special_tokens else ()
        return [self.convert_ids_to_tokens(int(i)) for i in ids if i not in left_out]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """Return the id of a token, or a list of ids; an unknown token has that of `unk_token`.

        Raises:
            NotTextError: a token holds a lone surrogate.
        """
        if isinstance(tokens, str):
            token_id = call_backend(lambda: self._backend.token_to_id(tokens), [tokens], "a token has no id")
            return self.unk_token_id if token_id is None else token_id
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Join word pieces to text again."""
        return str(self._backend.decoder.decode(list(tokens)))

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many special tokens a text or a pair gets."""
        return int(self._backend.num_special_tokens_to_add(pair))

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """Name -> special token, such as `cls_token` -> `[CLS]`."""
        return {name: getattr(self, name) for name in self._special_names}

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a name of their own."""
        return [token_text(token) for token in extra_special_tokens_of(self._settings)]

    @property
    def all_special_tokens(self) -> list[str]:
        """All special tokens, each once."""
        return list(dict.fromkeys((*self.special_tokens_map.values(), *self.additional_special_tokens)))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return [int(self._backend.token_to_id(token)) for token in self.all_special_tokens]  # type: ignore[arg-type]

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Add tokens behind the vocabulary, as in transformers.

        A model has no embedding for them until `model.resize_token_embeddings(len(tokenizer))`.

        Args:
            new_tokens: a string or an `AddedToken` of the package `tokenizers`, or a list of them. A token that the
                vocabulary has already keeps its id.
            special_tokens: whether they are special, which decoding may leave out.

        Returns:
            The number of new entries.
        """
        tokens = list(new_tokens) if isinstance(new_tokens, (list, tuple)) else [new_tokens]
        for token in tokens:
            if not isinstance(token, str) and type(token).__name__ != "AddedToken":
                raise TypeError(f"new_tokens holds {token!r}; expected strings or AddedToken of the package tokenizers")
        add = self._backend.add_special_tokens if special_tokens else self._backend.add_tokens
        before = len(self)
        with self._encoder.lock:
            call_backend(lambda: add(tokens), list(map(token_text, tokens)), "tokens cannot be added")
            self._encoder.token_was_added()
        return len(self) - before

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """Name special tokens, and add those that the vocabulary lacks, as in transformers.

        Args:
            special_tokens_dict: name -> token, such as `{"cls_token": "<s>"}`; `additional_special_tokens` (in
                transformers 5 `extra_special_tokens`) is a list of tokens.
            replace_extra_special_tokens: whether that list takes the place of the present one, or is added to it.

        Returns:
            The number of new entries; see `add_tokens` for what a model needs then.

        Raises:
            ValueError: an unknown name.
        """
        check_special_tokens_dict(special_tokens_dict)
        added = 0
        for name, token in special_tokens_dict.items():
            added += self.add_tokens(token, special_tokens=True)
            if name in EXTRA_SPECIAL_TOKENS:
                texts = list(map(token_text, token))
                kept = [] if replace_extra_special_tokens else self.additional_special_tokens
                for other in EXTRA_SPECIAL_TOKENS:
                    self._settings.pop(other, None)
                self._settings[EXTRA_SPECIAL_TOKENS[0]] = list(dict.fromkeys((*kept, *texts)))
            else:
                text = token_text(token)
                self._settings[name] = text
                self._name_special_token(name, text)
        return added

    def with_vocabulary(self, ids: Iterable[int]) -> tuple[PreTrainedTokenizerFast, NDArray[np.int64]]:
        """Return a tokenizer with these entries of the vocabulary, and those that it cannot do without.

        These are the tokens that spell any other text: single characters, bytes, special and added tokens; of BPE also
        the tokens on the way to one that stays. Texts whose tokens all stay are cut into the same ones. A word with a
        character that no token has is unknown to both, save one of WordPiece whose longer pieces are gone: the shorter
        ones may spell it.

        Args:
            ids: of the tokens to keep.

        Returns:
            The tokenizer, and the ids here of its tokens, int64, ascending: token k there is token ids[k] here.

        Raises:
            ValueError: an id is none of the vocabulary, or the tokenizer's model has another kind of vocabulary.
        """
        content, kept = reduced(json.loads(self._serialized()), ids)
        return type(self)(backend_of(json_text(content, ensure_ascii=False)), self._present_settings()), kept

    def ids_of_unknown_words(self, texts: Sequence[str]) -> set[int]:
        """Return the ids of all tokens that words in these texts could be cut into that have no known spelling.

        Where they stay, the words stay unknown, see `with_vocabulary`. Of other models than WordPiece there are none.
        """
        if type(self._backend.model).__name__ != "WordPiece":
            return set()
        content, found = json.loads(self._serialized()), set[int]()
        for text, row in zip(texts, self.encode_with_offsets(texts), strict=True):
            for index, (start, end) in zip(row.ids, row.offsets, strict=True):
                if index == self.unk_token_id and end > start:
                    word = text[start:end]
                    normalizer = self._backend.normalizer
                    found |= matching_entries(content, word if normalizer is None else normalizer.normalize_str(word))
        return found

    def differences_from(self, other: PreTrainedTokenizerFast) -> list[str]:
        """Return what gives texts other ids than `other` does, a phrase for each difference; none if all ids agree."""
        found = []
        different = vocabulary_differences(other.vocab, self.vocab)
        if different:
            found.append(f"{len(different)} entries of the vocabulary, for example {different[0]!r}")
        found += pipeline_differences(other._backend, self._backend)
        names = [
            name
            for name in SPECIAL_TOKEN_NAMES
            if other.special_tokens_map.get(name) != self.special_tokens_map.get(name)
        ]
        if names:
            found.append(", ".join(names))
        return found

    def get_vocab(self) -> dict[str, int]:
        """Return token -> id, added tokens included; the same as `vocab`."""
        return self.vocab

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary, without tokens added to it later (`len(tokenizer)` counts those too)."""
        return int(self._backend.get_vocab_size(with_added_tokens=False))

    def __len__(self) -> int:
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def content_hash(self) -> str:
        """SHA-256, in hexadecimal, of everything that decides which ids a text gets."""
        return content_hash(self._serialized(), type(self._backend.model).__name__)

    def _serialized(self) -> str:
        with self._encoder.lock:
            return str(self._backend.to_str())

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(vocab_size={self.vocab_size}, do_lower_case={self.do_lower_case}, "
            f"model_max_length={self.model_max_length})"
        )


def check_tokenizer(name: str, value: Any) -> None:
    """Raise `TypeError` for anything but a tokenizer of kdistill or None; `name` is the argument."""
    check_kind(
        name,
        value,
        PreTrainedTokenizerFast | None,
        "a tokenizer of kdistill: AutoTokenizer.from_pretrained(...), also of a directory that transformers has saved",
    )


def check_embeddings(tokenizer: PreTrainedTokenizerFast | None, vocab_size: int) -> None:
    """Raise `ValueError` when tokens were added to a tokenizer and the model of `vocab_size` has no rows for them."""
    if tokenizer is not None and tokenizer.vocab_size <= vocab_size < len(tokenizer):
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, {len(tokenizer) - tokenizer.vocab_size} of them added, and "
            f"the model embeddings for {vocab_size}; expected one for each: call "
            "model.resize_token_embeddings(len(tokenizer))"
        )
