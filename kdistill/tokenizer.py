"""BERT's tokenizer: Hugging Face `tokenizers` underneath, called as in `transformers`."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import atomic_write, read_json_object
from .hub import resolve

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

DEFAULT_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# The second goes before the first. Both may be absent.
SETTINGS_FILES = ("special_tokens_map.json", "tokenizer_config.json")
# What transformers writes as model_max_length when a tokenizer states none.
NO_MAX_LENGTH = int(1e30)
# Settings of tokenizer_config.json and the names tokenizer.json has for them in its BertNormalizer.
NORMALIZER_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
TRUNCATION_STRATEGIES = ("longest_first", "only_first", "only_second")


class Encodings(dict[str, Any]):
    """What a tokenizer call returns: `input_ids`, `token_type_ids` and `attention_mask`.

    Each is a list of lists of int (one list for a single text), or an int64 array with `return_tensors="np"`; also
    readable as attributes. `kdistill.pack` and a model take it as it is.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"Encodings has no {name!r}; it has {', '.join(self)}") from None


class BertTokenizer:
    """Turns text into BERT's token ids.

    Made by `from_pretrained`; the constructor takes a `tokenizers.Tokenizer` and the settings of a
    tokenizer_config.json. Padding and truncation stored in a tokenizer.json are ignored: each call says what it wants.

    Attributes: `vocab` (token -> id), `vocab_size` (entries without added ones), `model_max_length` (10**30 when the
    files state none), `do_lower_case`, `content_hash`, and `pad_token`, `cls_token`, `sep_token`, `unk_token`,
    `mask_token`, each with its `..._id`.
    """

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
        # Truncation is a state of the backend, so a call that sets it and encodes must not meet another one.
        self._lock = threading.Lock()
        self._settings = settings
        normalizer = json.loads(backend.to_str())["normalizer"] or {}
        self.do_lower_case: bool = bool(normalizer.get("lowercase", settings.get("do_lower_case", True)))
        self.model_max_length: int = int(settings.get("model_max_length") or NO_MAX_LENGTH)
        for name, default in DEFAULT_SPECIAL_TOKENS.items():
            token = _token_text(settings.get(name) or default)
            token_id = backend.token_to_id(token)
            if token_id is None and name != "mask_token":
                raise ValueError(
                    f"the vocabulary has no {name} {token!r}; give the right files, or name the token as "
                    f'"{name}" in tokenizer_config.json'
                )
            setattr(self, name, token)
            setattr(self, f"{name}_id", token_id)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        do_lower_case: bool | None = None,
        model_max_length: int | None = None,
    ) -> BertTokenizer:
        """Load `tokenizer.json`, or `vocab.txt` alone, from a directory or a hub id.

        Settings that `tokenizer_config.json` states (`do_lower_case`, `strip_accents`, `tokenize_chinese_chars`) go
        before those inside tokenizer.json, as in transformers; with vocab.txt alone `do_lower_case` is True unless
        stated. The keywords go before both.

        Raises FileNotFoundError when there is neither file, ValueError when a file cannot be read as what it is.
        """
        directory = resolve(path_or_id, [["tokenizer.json", "vocab.txt"]], optional=SETTINGS_FILES)
        settings = _read_settings(directory)
        if do_lower_case is not None:
            settings["do_lower_case"] = do_lower_case
        if model_max_length is not None:
            settings["model_max_length"] = model_max_length
        if (directory / "tokenizer.json").is_file():
            backend = _backend_from_json(directory / "tokenizer.json", settings)
        else:
            backend = _backend_from_vocab(directory / "vocab.txt", settings)
        return cls(backend, settings)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write tokenizer.json, vocab.txt, tokenizer_config.json and special_tokens_map.json for transformers too.

        vocab.txt is left out when it could not say the same: a vocabulary whose ids are not 0..n-1.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        special_tokens = {
            name: getattr(self, name) for name in DEFAULT_SPECIAL_TOKENS if getattr(self, f"{name}_id") is not None
        }
        normalizer = json.loads(self._serialized())["normalizer"] or {}
        config = {
            **special_tokens,
            **{name: normalizer[key] for name, key in NORMALIZER_SETTINGS.items() if key in normalizer},
            "model_max_length": self.model_max_length,
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
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        padding: bool | str = False,
        add_special_tokens: bool = True,
        return_tensors: str | None = None,
    ) -> Encodings:
        """Encode a text or a list of texts (with pairs: `text_pair` of the same shape), as in transformers.

        truncation: True or "longest_first", "only_first", "only_second" cuts to `max_length` tokens, special ones
            counted (default: the tokenizer's `model_max_length`); False cuts nothing. When it is not given, a
            `max_length` cuts.
        padding: True or "longest" pads to the longest row of the call, "max_length" to `max_length`; models here need
            none.
        return_tensors: "np" gives int64 arrays (rows must be equally long or padded).

        Warns when an uncut row is longer than `model_max_length`: a model will refuse it.
        """
        if truncation is None:
            truncation = max_length is not None and padding != "max_length"
        single = isinstance(text, str)
        inputs = _pairs_of(text, text_pair)
        cut = truncation not in (False, "do_not_truncate")
        limit = self.truncation_length(max_length) if cut else None
        encodings = self.encode_rows(inputs, limit, _strategy(truncation), add_special_tokens)
        ids = [encoding.ids for encoding in encodings]
        types = [encoding.type_ids for encoding in encodings]
        mask = [[1] * len(row) for row in ids]
        longest = max(map(len, ids), default=0)
        if limit is None and longest > self.model_max_length:
            warnings.warn(
                f"a row has {longest} tokens, more than this model's {self.model_max_length}; pass truncation=True",
                stacklevel=2,
            )
        width = self._padded_width(padding, max_length, longest)
        for rows, filler in ((ids, self.pad_token_id), (types, 0), (mask, 0)):
            for row in rows:
                row.extend([filler] * (width - len(row)))
        columns = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        if return_tensors is not None:
            return Encodings({name: _as_array(name, rows, return_tensors) for name, rows in columns.items()})
        return Encodings({name: rows[0] if single else rows for name, rows in columns.items()})

    def encode_rows(
        self,
        inputs: Sequence[str] | Sequence[tuple[str, str]],
        max_length: int | None,
        strategy: str = "longest_first",
        add_special_tokens: bool = True,
    ) -> list[Encoding]:
        """Encode many texts or pairs on all cores; the `tokenizers` encodings hold `.ids` and `.type_ids`.

        Raises ValueError when a row cannot be cut as `strategy` says.
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
        """Tokens to cut a row to: `max_length`, else `model_max_length`, else None. Raises ValueError if below 3."""
        if max_length is None:
            return self.model_max_length if self.model_max_length < NO_MAX_LENGTH else None
        if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 3:
            raise ValueError(
                f"max_length is {max_length!r}; expected an integer of at least 3 ([CLS], one token, [SEP])"
            )
        return max_length

    def _padded_width(self, padding: bool | str, max_length: int | None, longest: int) -> int:
        if padding is False or padding == "do_not_pad":
            return 0
        if padding is True or padding == "longest":
            return longest
        if padding != "max_length":
            raise ValueError(f'padding is {padding!r}; expected True, False, "longest" or "max_length"')
        width = max_length if max_length is not None else self.model_max_length
        if width >= NO_MAX_LENGTH:
            raise ValueError('padding="max_length" needs a max_length: this tokenizer states no model_max_length')
        return width

    def tokenize(self, text: str) -> list[str]:
        """The word pieces of a text, without [CLS] and [SEP]."""
        return list(self._backend.encode(text, add_special_tokens=False).tokens)

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Text of a row of ids; word pieces are joined again."""
        return str(self._backend.decode([int(i) for i in token_ids], skip_special_tokens=skip_special_tokens))

    def batch_decode(self, rows: Iterable[Iterable[int]], skip_special_tokens: bool = False) -> list[str]:
        """`decode` for each row."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def convert_ids_to_tokens(self, ids: int | Iterable[int]) -> Any:
        """Token of an id, or list of tokens of ids. Raises IndexError for an id the vocabulary does not have."""
        if isinstance(ids, (int, np.integer)):
            token = self._backend.id_to_token(int(ids)) if ids >= 0 else None
            if token is None:
                raise IndexError(f"token id {ids} is not in the vocabulary of {len(self)} entries")
            return token
        return [self.convert_ids_to_tokens(int(i)) for i in ids]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """Id of a token (that of `unk_token` for an unknown one), or list of ids of tokens."""
        if isinstance(tokens, str):
            token_id = self._backend.token_to_id(tokens)
            return self.unk_token_id if token_id is None else token_id
        return [self.convert_tokens_to_ids(token) for token in tokens]

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
        """Hex sha256 of everything that decides which ids a text gets."""
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
    """`AutoTokenizer.from_pretrained(path_or_hub_id)`, the name transformers' users type; gives a `BertTokenizer`."""

    from_pretrained = BertTokenizer.from_pretrained


def _token_text(token: Any) -> str:
    """Text of a special token, which the files write as a string or as {"content": ...}."""
    return str(token["content"] if isinstance(token, Mapping) else token)


def _read_settings(directory: Path) -> dict[str, Any]:
    """What the settings files of a directory say, in one mapping."""
    settings: dict[str, Any] = {}
    for name in SETTINGS_FILES:
        if (directory / name).is_file():
            settings.update(read_json_object(directory / name))
    return settings


def _backend_from_json(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer

    content = read_json_object(path)
    normalizer = content.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        normalizer.update({key: settings[name] for name, key in NORMALIZER_SETTINGS.items() if name in settings})
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the package raises plain Exception
        raise ValueError(f"{path} is not a tokenizer.json that `tokenizers` reads: {error}") from error


def _backend_from_vocab(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that transformers builds from a vocab.txt: one token a line, its id the line's number from 0."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    # Lines end at "\n" only: some vocabularies hold U+2028 and U+0085 as tokens, which str.splitlines would cut at.
    with path.open(encoding="utf-8") as file:
        vocab = {line.rstrip("\n"): index for index, line in enumerate(file)}
    special = {name: _token_text(settings.get(name) or default) for name, default in DEFAULT_SPECIAL_TOKENS.items()}
    missing = [token for name, token in special.items() if token not in vocab and name != "mask_token"]
    if missing:
        raise ValueError(
            f"{path} has {len(vocab)} entries and none of them is {missing[0]!r}; expected one token a line, "
            "the special tokens included"
        )
    cls, sep = special["cls_token"], special["sep_token"]
    backend = Tokenizer(models.WordPiece(vocab, unk_token=special["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    backend.add_special_tokens([token for token in special.values() if token in vocab])
    return backend


def _pairs_of(text: str | Sequence[str], text_pair: str | Sequence[str] | None) -> list[Any]:
    """The rows to encode: texts, or (text, pair) tuples. Raises TypeError or ValueError for anything else."""
    texts = [text] if isinstance(text, str) else list(text)
    if text_pair is None:
        pairs = None
    elif isinstance(text_pair, str) != isinstance(text, str):
        raise TypeError("text and text_pair must both be a string or both be a list of strings")
    else:
        pairs = [text_pair] if isinstance(text_pair, str) else list(text_pair)
    for name, rows in (("text", texts), ("text_pair", pairs or [])):
        for index, row in enumerate(rows):
            if not isinstance(row, str):
                raise TypeError(f"{name}[{index}] is {row!r} of type {type(row).__name__}; expected a string")
    if pairs is None:
        return texts
    if len(pairs) != len(texts):
        raise ValueError(f"text has {len(texts)} rows and text_pair {len(pairs)}; expected one pair for each text")
    return list(zip(texts, pairs, strict=True))


def _strategy(truncation: bool | str) -> str:
    """The backend's truncation strategy for a `truncation` argument."""
    if isinstance(truncation, bool) or truncation == "do_not_truncate":
        return "longest_first"
    if truncation not in TRUNCATION_STRATEGIES:
        raise ValueError(f"truncation is {truncation!r}; expected True, False or one of {TRUNCATION_STRATEGIES}")
    return truncation


def _as_array(name: str, rows: list[list[int]], return_tensors: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    if return_tensors != "np":
        raise ValueError(f'return_tensors is {return_tensors!r}; expected "np" (results are NumPy arrays here)')
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"{name} has rows of different lengths; pass padding=True, or leave return_tensors out")
    return np.array(rows, dtype=np.int64)
