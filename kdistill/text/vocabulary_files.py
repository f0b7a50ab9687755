"""The files that hold a tokenizer's vocabulary where there is no tokenizer.json, each read as transformers reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system.files import read_json_object
from .blocks import call_backend
from .kinds import Kind
from .pipelines import SPACE, Vocabulary, set_stages
from .sentencepiece import CONTROL, USER_DEFINED, read_sentencepiece
from .tokenizer_settings import EXTRA_SPECIAL_TOKENS, AddedTokenSetting, special_tokens_of, token_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MAX_ID = 1 << 31  # ids are int32 in a data set


def backend_from_vocabulary(directory: Path, kind: Kind, settings: dict[str, Any]) -> Tokenizer:
    """Build the tokenizer that transformers builds of the files of a vocabulary, without a post-processor."""
    missing = [name for name in kind.files if not (directory / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{directory} has no {' and no '.join(missing)}; expected {' and '.join(kind.files)}, the vocabulary of a "
            f"{kind.name}, or a tokenizer.json"
        )
    path = directory / kind.files[0]
    vocabulary, more = _READERS[kind.files[0]](directory, kind, settings)

    def build() -> Tokenizer:
        from tokenizers import Tokenizer

        backend = Tokenizer(kind.style.model(vocabulary))
        stated = {name: value for name, value in settings.items() if value is not None}
        set_stages(backend, kind.style.stages(stated | more))
        return backend

    backend: Tokenizer = call_backend(build, (), f"{path} is not a vocabulary that the package tokenizers reads")
    return backend


def _read_vocab_txt(directory: Path, kind: Kind, settings: Mapping[str, Any]) -> tuple[Vocabulary, dict[str, Any]]:
    """Read a vocab.txt as transformers does: one token a line, its id the line's number from 0."""
    path = directory / "vocab.txt"
    # Lines end at "\n" only: some vocabularies hold U+2028 and U+0085 as tokens, which str.splitlines would cut at.
    try:
        with path.open(encoding="utf-8") as file:
            tokens = {line.rstrip("\n"): index for index, line in enumerate(file)}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    if any(token.startswith(SPACE) for token in tokens) and not any(token.startswith("##") for token in tokens):
        raise ValueError(
            f"{path} is a vocabulary of SentencePiece (words begin with U+2581, no piece with ##), which KoBERT and "
            "others read with code of their own; expected BERT's, or a tokenizer.json: tokenize with transformers and "
            "give rows with input_ids"
        )
    unknown = token_text(special_tokens_of(settings)["unk_token"])
    if unknown not in tokens:
        raise ValueError(
            f"{path} has {len(tokens)} entries and none of them is {unknown!r}; expected one token a line, the special "
            "tokens included"
        )
    return Vocabulary(tokens, unknown), {}


def _read_vocab_json(directory: Path, kind: Kind, settings: Mapping[str, Any]) -> tuple[Vocabulary, dict[str, Any]]:
    """Read vocab.json, an object of ids, and merges.txt, two symbols a line behind a line that states the version."""
    tokens = read_json_object(directory / "vocab.json")
    for token, token_id in tokens.items():
        if type(token_id) is not int or not 0 <= token_id < _MAX_ID:
            raise ValueError(f"{directory / 'vocab.json'}: {token!r} has the id {token_id!r}; expected a whole number")
    path = directory / "merges.txt"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    merges = []
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        if line.startswith("#version") or not line:
            continue
        first, _, second = line.partition(" ")
        if not first or not second or " " in second:
            raise ValueError(
                f"{path}, line {number}: {line!r} is not a merge; expected two symbols with a space between"
            )
        if not {first, second, first + second} <= tokens.keys():
            raise ValueError(
                f"{path}, line {number}: {line!r} joins symbols that vocab.json lacks; expected the two files of one "
                "tokenizer"
            )
        merges.append((first, second))
    return Vocabulary(tokens, token_text(special_tokens_of(settings)["unk_token"]), merges), {}


def _read_spm(directory: Path, kind: Kind, settings: dict[str, Any]) -> tuple[Vocabulary, dict[str, Any]]:
    """Read a SentencePiece model; its control pieces become special tokens, pieces that users defined added tokens."""
    model = read_sentencepiece(directory / kind.files[0])
    names = special_tokens_of(settings)

    def entry(name: str, score: float = 0.0) -> tuple[str, float]:
        return token_text(names.get(name, name)), score

    layout = kind.layout
    pieces = [(piece.text, piece.score) for piece in model.pieces[layout.skipped :]]
    tokens = [*(entry(*leading) for leading in layout.leading), *pieces, *map(entry, layout.trailing)]
    if len(tokens) <= kind.unknown_id:
        raise ValueError(
            f"{directory / kind.files[0]} has {len(model.pieces)} pieces; expected those of a {kind.name}, whose "
            f"unknown token has the id {kind.unknown_id}"
        )
    if not any(name in settings for name in EXTRA_SPECIAL_TOKENS):
        control = [piece.text for piece in model.pieces if piece.type == CONTROL and piece.text in dict(tokens)]
        settings[EXTRA_SPECIAL_TOKENS[0]] = control
    source = str(directory / kind.files[0])
    settings["added_tokens"] = [
        *settings.get("added_tokens", ()),
        *(
            AddedTokenSetting(source, None, piece.text, {"normalized": False, "special": False})
            for piece in model.pieces
            if piece.type == USER_DEFINED
        ),
    ]
    return Vocabulary(tokens, kind.unknown_id), {"charsmap": model.charsmap}


_READERS: dict[str, Callable[[Path, Kind, dict[str, Any]], tuple[Vocabulary, dict[str, Any]]]] = {
    "vocab.txt": _read_vocab_txt,
    "vocab.json": _read_vocab_json,
    "sentencepiece.bpe.model": _read_spm,
    "spiece.model": _read_spm,
}
