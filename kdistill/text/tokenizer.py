"""BERT's tokenizer: Hugging Face's `tokenizers` with the interface of `transformers`."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..hub import resolve
from ..keywords import location
from ..system.files import atomic_write
from .encodings import NO_MAX_LENGTH, BatchEncoding, as_result, columns_of, pad_rows, padded_width
from .tokenizer_files import (
    DEFAULT_SPECIAL_TOKENS,
    NORMALIZER_SETTINGS,
    SETTINGS_FILES,
    read_backend,
    read_settings,
    token_text,
)

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TRUNCATION_STRATEGIES = ("longest_first", "only_first", "only_second")
# Decoded text loses the spaces around each of these, in this order (transformers: clean_up_tokenization_spaces).
_CLEANED_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class BertTokenizer:
    """BERT's tokenizer, from text to token ids and back.

    Use `from_pretrained` to load one. Padding and truncation stored in a tokenizer.json are ignored; they are arguments
    of each call.

    Args:
        backend: the tokenizer of the package `tokenizers`.
        settings: the content of a tokenizer_config.json.

    Attributes:
        vocab: token -> id.
        vocab_size: entries of the vocabulary without added tokens.
        model_max_length: longest row of the model in tokens; 10**30 when the files do not give it.
        do_lower_case: whether text is lowercased.
        content_hash: SHA-256 of everything that decides which ids a text gets.
        pad_token, cls_token, sep_token, unk_token, mask_token: the special tokens, each with its `..._id`.

    Raises:
        ValueError: the vocabulary lacks a special token.
    """

    model_input_names = ("input_ids", "token_type_ids", "attention_mask")
    padding_side = truncation_side = "right"
    pad_token_type_id = 0
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
        # Truncation is a state of the backend, so only one call at a time may set it and encode.
        self._lock = threading.Lock()
        self._settings = settings
        normalizer = json.loads(backend.to_str())["normalizer"] or {}
        self.do_lower_case: bool = bool(normalizer.get("lowercase", settings.get("do_lower_case", True)))
        self.model_max_length: int = int(settings.get("model_max_length") or NO_MAX_LENGTH)
        self.clean_up_tokenization_spaces = bool(settings.get("clean_up_tokenization_spaces", False))
        for name, default in DEFAULT_SPECIAL_TOKENS.items():
            token = token_text(settings.get(name) or default)
            token_id = backend.token_to_id(token)
            if token_id is None and name != "mask_token":
                raise ValueError(
                    f"the vocabulary has no {name} {token!r}; give the right files, or name the token as "
                    f'"{name}" in tokenizer_config.json'
                )
            setattr(self, name, token)
            setattr(self, f"{name}_id", token_id)

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle keeps: all but the lock."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the pickled tokenizer again, with a lock of its own."""
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        do_lower_case: bool | None = None,
        model_max_length: int | None = None,
        **keywords: Any,
    ) -> BertTokenizer:
        """Load the tokenizer from `tokenizer.json`, or from `vocab.txt` alone.

        The settings `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` of `tokenizer_config.json` override
        those inside tokenizer.json, as in transformers; the keyword arguments override both.

        Args:
            path_or_id: a directory or a hub id.
            do_lower_case: whether to lowercase text (default: from the files; True for vocab.txt alone).
            model_max_length: longest row in tokens (default: from the files).
            keywords: where the files are (`token`, `revision`, `cache_dir`, `force_download`, `local_files_only`,
                `subfolder`), see `hub.resolve`; those of transformers that are of no use here, see `kdistill.keywords`.

        Raises:
            FileNotFoundError: the directory has neither file, or does not exist and cannot be downloaded.
            ValueError: a file is malformed, or a keyword asks for what kdistill cannot do.
            TypeError: a keyword is unknown; the message names the nearest one.
        """
        needed = [["tokenizer.json", "vocab.txt"]]
        where = location(keywords, f"{cls.__name__}.from_pretrained", inspect.signature(cls.from_pretrained).parameters)
        directory = resolve(path_or_id, needed, optional=SETTINGS_FILES, **where)
        settings = read_settings(directory)
        if do_lower_case is not None:
            settings["do_lower_case"] = do_lower_case
        if model_max_length is not None:
            settings["model_max_length"] = model_max_length
        backend = read_backend(directory, settings)
        try:
            return cls(backend, settings)
        except ValueError as error:
            raise ValueError(f"{directory}: {error}") from error

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write tokenizer.json, vocab.txt, tokenizer_config.json and special_tokens_map.json, as transformers does.

        vocab.txt is left out for a vocabulary whose ids are not 0..n-1, which that format cannot express.

        Args:
            directory: where to write, created if missing.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        special_tokens = self.special_tokens_map
        normalizer = json.loads(self._serialized())["normalizer"] or {}
        config = {
            **special_tokens,
            **{name: normalizer[key] for name, key in NORMALIZER_SETTINGS.items() if key in normalizer},
            "model_max_length": self.model_max_length,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "tokenizer_class": "BertTokenizer",
        }
        files = {
            "tokenizer.json": self._serialized(),
            "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
            "special_tokens_map.json": json.dumps(special_tokens, indent=2, ensure_ascii=False) + "\n",
        }
        tokens = sorted(self.vocab.items(), key=lambda item: item[1])
        if [token_id for _, token_id in tokens] == list(range(len(tokens))):
            files["vocab.txt"] = "".join(f"{token}\n" for token, _ in tokens)
        for name, text in files.items():
            atomic_write(directory / name, text.encode("utf-8"))

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[tuple[str, str]],
        text_pair: str | Sequence[str] | None = None,
        *,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        padding: bool | str = False,
        pad_to_multiple_of: int | None = None,
        add_special_tokens: bool = True,
        return_token_type_ids: bool = True,
        return_attention_mask: bool = True,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Encode a text or a list of texts, as in transformers.

        A row that is longer than `model_max_length` and not truncated gives a warning: a model will refuse it.

        Args:
            text: one text, a list of texts, or a list of (text, pair) tuples.
            text_pair: the second text of each pair, in the same form as `text`.
            truncation: True or "longest_first", "only_first" or "only_second" to truncate to `max_length`; False not
                to truncate (default: truncate when a `max_length` is given).
            max_length: longest row in tokens, special tokens included (default: `model_max_length`).
            padding: True or "longest" to pad to the longest row of the call, "max_length" to pad to `max_length`.
                Models here do not need padding.
            pad_to_multiple_of: round the padded width up to a multiple of this.
            add_special_tokens: whether to add [CLS] and [SEP].
            return_token_type_ids: whether the result has `token_type_ids`.
            return_attention_mask: whether the result has `attention_mask`.
            return_tensors: "np" for int64 arrays (rows, width), whose rows must be equally long or padded; None for
                lists.

        Raises:
            TypeError: `text` or `text_pair` holds something other than strings.
            ValueError: `text` and `text_pair` differ in length, a row cannot be truncated as asked, or an array is
                asked for and rows differ in length.
        """
        if truncation is None:
            truncation = max_length is not None and padding != "max_length"
        cut = truncation not in (False, "do_not_truncate")
        limit = self.truncation_length(max_length) if cut else None
        encodings = self.encode_rows(_pairs_of(text, text_pair), limit, _strategy(truncation), add_special_tokens)
        ids = [encoding.ids for encoding in encodings]
        longest = max(map(len, ids), default=0)
        if limit is None and longest > self.model_max_length:
            warnings.warn(
                f"a row has {longest} tokens, more than this model's {self.model_max_length}; pass truncation=True",
                stacklevel=2,
            )
        columns = {"input_ids": ids}
        if return_token_type_ids:
            columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
        if return_attention_mask:
            columns["attention_mask"] = [[1] * len(row) for row in ids]
        self._pad_columns(columns, padding, max_length, pad_to_multiple_of)
        result = as_result(columns, single=isinstance(text, str), return_tensors=return_tensors, names=list(columns))
        result.rows_cut = count_cut(encodings, limit)
        return result

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
            return_attention_mask: whether to add `attention_mask` when it is missing.
            return_tensors: "np" for arrays, None for lists.

        Raises:
            ValueError: `input_ids` is missing.
            TypeError: `encoded_inputs` is neither a dict nor a list of dicts.
        """
        columns, single = columns_of(encoded_inputs, "input_ids")
        if return_attention_mask and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * len(row) for row in columns["input_ids"]]
        self._pad_columns(columns, padding, max_length, pad_to_multiple_of)
        return as_result(columns, single=single, return_tensors=return_tensors, names=self.model_input_names)

    def _pad_columns(
        self,
        columns: Mapping[str, list[list[int]]],
        padding: bool | str,
        max_length: int | None,
        pad_to_multiple_of: int | None,
    ) -> None:
        """Pad the model's columns in place."""
        width = padded_width(
            padding,
            longest=max(map(len, columns["input_ids"]), default=0),
            max_length=max_length,
            model_max_length=self.model_max_length,
            pad_to_multiple_of=pad_to_multiple_of,
        )
        fillers = {"input_ids": self.pad_token_id, "token_type_ids": self.pad_token_type_id, "attention_mask": 0}
        for name, filler in fillers.items():
            pad_rows(columns.get(name, ()), width, filler)

    def encode_rows(
        self,
        inputs: Sequence[str] | Sequence[tuple[str, str]],
        max_length: int | None,
        strategy: str = "longest_first",
        add_special_tokens: bool = True,
    ) -> list[Encoding]:
        """Encode many texts or pairs on all cores.

        Args:
            inputs: texts, or (text, pair) tuples.
            max_length: truncate rows to this many tokens; None not to truncate.
            strategy: one of `TRUNCATION_STRATEGIES`.
            add_special_tokens: whether to add [CLS] and [SEP].

        Returns:
            Encodings of the package `tokenizers`, with `ids` and `type_ids`.

        Raises:
            ValueError: a row cannot be truncated by this strategy.
        """
        with self._lock:
            if max_length is None:
                self._backend.no_truncation()
            else:
                self._backend.enable_truncation(max_length, strategy=strategy)
            try:
                return list(self._backend.encode_batch_fast(list(inputs), add_special_tokens=add_special_tokens))
            except Exception as error:  # the package raises plain Exception
                raise ValueError(f"rows cannot be cut to max_length={max_length} ({strategy}): {error}") from error
            finally:
                self._backend.no_truncation()

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
        with self._lock:
            return list(self._backend.encode(text, pair, add_special_tokens=add_special_tokens).tokens)

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
        """Return the id of a token, or a list of ids; an unknown token has that of `unk_token`."""
        if isinstance(tokens, str):
            token_id = self._backend.token_to_id(tokens)
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
        return {name: getattr(self, name) for name in DEFAULT_SPECIAL_TOKENS if getattr(self, f"{name}_id") is not None}

    @property
    def all_special_tokens(self) -> list[str]:
        return list(self.special_tokens_map.values())

    @property
    def all_special_ids(self) -> list[int]:
        return [getattr(self, f"{name}_id") for name in self.special_tokens_map]

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

    def __reduce__(self) -> tuple[Any, ...]:
        return BertTokenizer, (self._backend, self._settings)  # without the lock, which cannot be pickled

    def __len__(self) -> int:
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def content_hash(self) -> str:
        """SHA-256, in hexadecimal, of everything that decides which ids a text gets."""
        return hashlib.sha256(self._serialized().encode("utf-8")).hexdigest()

    def _serialized(self) -> str:
        with self._lock:
            return str(self._backend.to_str())

    def __repr__(self) -> str:
        return (
            f"BertTokenizer(vocab_size={self.vocab_size}, do_lower_case={self.do_lower_case}, "
            f"model_max_length={self.model_max_length})"
        )


class AutoTokenizer:
    """The name for `BertTokenizer.from_pretrained` that users of transformers know."""

    from_pretrained = BertTokenizer.from_pretrained


def count_cut(encodings: Sequence[Encoding], limit: int | None) -> int:
    """Return how many rows were longer than the `limit` that `BertTokenizer.encode_rows` cut them to."""
    return 0 if limit is None else sum(len(row) >= limit and bool(row.overflowing) for row in encodings)


def _pairs_of(text: Any, text_pair: str | Sequence[str] | None) -> list[Any]:
    """Return the rows to encode: texts, or (text, pair) tuples. Raises TypeError or ValueError for anything else."""
    if not isinstance(text, str | Iterable):
        raise TypeError(f"text is {text!r} of type {type(text).__name__}; expected a string or a list of strings")
    if isinstance(text_pair, str) != (isinstance(text, str) and text_pair is not None):
        raise TypeError("text and text_pair must both be a string or both be a list of strings")
    texts = [text] if isinstance(text, str) else list(text)
    if text_pair is None and texts and all(isinstance(row, (tuple, list)) and len(row) == 2 for row in texts):
        firsts, pairs = map(list, zip(*texts, strict=True))
    else:
        firsts, pairs = texts, [text_pair] if isinstance(text_pair, str) else list(text_pair or ())
    for name, rows in (("text", firsts), ("text_pair", pairs)):
        for index, row in enumerate(rows):
            if not isinstance(row, str):
                raise TypeError(f"{name}[{index}] is {row!r} of type {type(row).__name__}; expected a string")
    if text_pair is None and not pairs:
        return texts
    if len(pairs) != len(firsts):
        raise ValueError(f"text has {len(firsts)} rows and text_pair {len(pairs)}; expected one pair for each text")
    return list(zip(firsts, pairs, strict=True))


def _strategy(truncation: bool | str) -> str:
    """Return the backend's truncation strategy for a `truncation` argument."""
    if isinstance(truncation, bool) or truncation == "do_not_truncate":
        return "longest_first"
    if truncation not in TRUNCATION_STRATEGIES:
        raise ValueError(f"truncation is {truncation!r}; expected True, False or one of {TRUNCATION_STRATEGIES}")
    return truncation
