"""Pipelines of the package `tokenizers` as transformers' classes build them: model, stages and special tokens around.

A style is how text becomes tokens; several kinds of tokenizer share one. Settings have the names of
tokenizer_config.json; a missing one means what transformers' class takes then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tokenizers import Tokenizer, models, processors

# Settings of tokenizer_config.json -> their names in the BertNormalizer of tokenizer.json.
NORMALIZER_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# SentencePiece's mark of a space.
SPACE = "\u2581"


class Vocabulary(NamedTuple):
    """What a model is made of.

    Attributes:
        tokens: token -> id; for Unigram a list of (token, log probability), by id.
        merges: of BPE, in the order in which they are applied.
        unknown: the token, or for Unigram its id, that stands for what the vocabulary lacks.
    """

    tokens: Any
    unknown: str | int
    merges: Sequence[tuple[str, str]] = ()


class Stages(NamedTuple):
    """The stages around a model, without the post-processor, whose tokens have ids."""

    normalizer: Any
    pre_tokenizer: Any
    decoder: Any


SpecialTokens = Callable[[str], tuple[str, int]]
"""Returns the text and the id of the special token of a name, such as "cls_token"."""
Template = Callable[[SpecialTokens, Mapping[str, Any]], Any]
"""Makes the post-processor of special tokens and settings."""


@dataclass(frozen=True)
class Style:
    """How text becomes tokens.

    Attributes:
        type: the type of the model in tokenizer.json.
        model: makes the model of a vocabulary.
        stages: makes the stages that settings ask for; the setting `charsmap` is SentencePiece's table of
            replacements, bytes.
        settings: reads the settings that `stages` would need from a tokenizer.json.
    """

    type: str
    model: Callable[[Vocabulary], models.Model]
    stages: Callable[[Mapping[str, Any]], Stages]
    settings: Callable[[Mapping[str, Any]], dict[str, Any]]


def _wordpiece(vocabulary: Vocabulary) -> models.Model:
    from tokenizers import models

    return models.WordPiece(dict(vocabulary.tokens), unk_token=str(vocabulary.unknown))


def _wordpiece_stages(settings: Mapping[str, Any]) -> Stages:
    from tokenizers import decoders, normalizers, pre_tokenizers

    given = {key: settings[name] for name, key in NORMALIZER_SETTINGS.items() if settings.get(name) is not None}
    return Stages(
        normalizers.BertNormalizer(clean_text=True, **given),
        pre_tokenizers.BertPreTokenizer(),
        decoders.WordPiece(prefix="##"),
    )


def _wordpiece_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    normalizer = content["normalizer"] or {}
    return {name: normalizer[key] for name, key in NORMALIZER_SETTINGS.items() if key in normalizer}


def _byte_level_bpe(vocabulary: Vocabulary) -> models.Model:
    from tokenizers import models

    return models.BPE(
        dict(vocabulary.tokens),
        list(vocabulary.merges),
        continuing_subword_prefix="",
        end_of_word_suffix="",
        fuse_unk=False,
    )


def _byte_level_stages(settings: Mapping[str, Any]) -> Stages:
    from tokenizers import decoders, pre_tokenizers

    prefix = bool(settings.get("add_prefix_space", False))
    return Stages(None, pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel())


def _byte_level_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    stage, processor = content["pre_tokenizer"] or {}, content["post_processor"] or {}
    found = {"add_prefix_space": stage.get("add_prefix_space"), "trim_offsets": processor.get("trim_offsets")}
    return {name: value for name, value in found.items() if value is not None}


def _unigram(vocabulary: Vocabulary) -> models.Model:
    from tokenizers import models

    return models.Unigram(vocabulary.tokens, unk_id=int(vocabulary.unknown), byte_fallback=False)


def _metaspace(normalizer: Any, settings: Mapping[str, Any]) -> Stages:
    """Return stages that cut text into words at white space and mark each word's beginning."""
    from tokenizers import decoders, pre_tokenizers

    scheme = "always" if settings.get("add_prefix_space", True) else "never"
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme)]
    return Stages(
        normalizer,
        pre_tokenizers.Sequence(words),
        decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme),
    )


def _unigram_stages(settings: Mapping[str, Any]) -> Stages:
    from tokenizers import normalizers

    table = settings.get("charsmap")
    return _metaspace(None if table is None else normalizers.Precompiled(table), settings)


def _albert_stages(settings: Mapping[str, Any]) -> Stages:
    from tokenizers import normalizers

    stages: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not settings.get("keep_accents", False):
        stages += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.get("do_lower_case", True):
        stages.append(normalizers.Lowercase())
    if settings.get("charsmap") is not None:
        stages.append(normalizers.Precompiled(settings["charsmap"]))
    return _metaspace(normalizers.Sequence(stages), settings)


def _unigram_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    from base64 import b64decode

    settings: dict[str, Any] = {}
    for stage in stages_of(content["normalizer"], "normalizers"):
        if stage["type"] == "Precompiled":
            settings["charsmap"] = b64decode(stage["precompiled_charsmap"])
    for stage in stages_of(content["pre_tokenizer"], "pretokenizers"):
        if stage["type"] == "Metaspace":
            settings["add_prefix_space"] = stage["prepend_scheme"] != "never"
    return settings


def _albert_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    kinds = [stage["type"] for stage in stages_of(content["normalizer"], "normalizers")]
    lowers = {"do_lower_case": "Lowercase" in kinds, "keep_accents": "StripAccents" not in kinds}
    return _unigram_settings(content) | lowers


def stages_of(stage: Any, name: str) -> list[dict[str, Any]]:
    """Return the stages of a part of a sound tokenizer.json without nesting; `name` is their key in a sequence."""
    if stage is None:
        return []
    if stage["type"] == "Sequence":
        return [inner for part in stage[name] for inner in stages_of(part, name)]
    return [stage]


def backend_of(serialized: str) -> Tokenizer:
    """Return the tokenizer of the content of a sound tokenizer.json."""
    from tokenizers import Tokenizer

    backend: Tokenizer = Tokenizer.from_str(serialized)
    return backend


def shell_with(stages: Stages) -> Tokenizer:
    """Return a tokenizer without a vocabulary that has these stages."""
    from tokenizers import Tokenizer, models

    shell = Tokenizer(models.WordLevel({}, unk_token=""))
    set_stages(shell, stages)
    return shell


def set_stages(backend: Tokenizer, stages: Stages) -> None:
    """Give a tokenizer other stages than it has."""
    backend.normalizer = stages.normalizer
    backend.pre_tokenizer = stages.pre_tokenizer
    backend.decoder = stages.decoder


def with_prefix_space(pre_tokenizer: Any) -> Any:
    """Return byte-level BPE's pre-tokenizer with a space before each text, or before each word of a row.

    The examples of transformers load the tokenizer of a tagger so (`add_prefix_space=True` in run_ner.py). None where
    there is nothing to change: the space is there, or words have the same tokens without it.
    """
    from tokenizers import pre_tokenizers

    if not isinstance(pre_tokenizer, pre_tokenizers.ByteLevel) or pre_tokenizer.add_prefix_space:
        return None
    return pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=pre_tokenizer.use_regex)


def set_offsets_of_prefix_space(backend: Tokenizer, added: bool) -> None:
    """Tell RoBERTa's post-processor whether a space is added before texts, as it trims the places of tokens so."""
    from tokenizers import processors

    found = stages_as_json(backend)["post_processor"]
    if found is not None and found["type"] == "RobertaProcessing":
        backend.post_processor = processors.RobertaProcessing(
            tuple(found["sep"]), tuple(found["cls"]), trim_offsets=found["trim_offsets"], add_prefix_space=added
        )


def stages_as_json(backend: Tokenizer) -> dict[str, Any]:
    """Return the stages of a tokenizer as tokenizer.json has them."""
    shell = shell_with(Stages(backend.normalizer, backend.pre_tokenizer, backend.decoder))
    if backend.post_processor is not None:
        shell.post_processor = backend.post_processor
    content = json.loads(shell.to_str())
    return {name: content[name] for name in ("normalizer", "pre_tokenizer", "decoder", "post_processor")}


WORDPIECE = Style("WordPiece", _wordpiece, _wordpiece_stages, _wordpiece_settings)
BYTE_LEVEL_BPE = Style("BPE", _byte_level_bpe, _byte_level_stages, _byte_level_settings)
UNIGRAM = Style("Unigram", _unigram, _unigram_stages, _unigram_settings)
ALBERT_UNIGRAM = Style("Unigram", _unigram, _albert_stages, _albert_settings)


def bert_template(token: SpecialTokens, settings: Mapping[str, Any]) -> processors.PostProcessor:
    """Return the post-processor [CLS] a [SEP] b [SEP], with token types 0 and 1."""
    from tokenizers import processors

    cls, sep = token("cls_token"), token("sep_token")
    return processors.TemplateProcessing(
        single=[f"{cls[0]}:0", "$A:0", f"{sep[0]}:0"],
        pair=[f"{cls[0]}:0", "$A:0", f"{sep[0]}:0", "$B:1", f"{sep[0]}:1"],
        special_tokens=[cls, sep],
    )


def roberta_template(token: SpecialTokens, settings: Mapping[str, Any]) -> processors.PostProcessor:
    """Return the post-processor <s> a </s></s> b </s>, which leaves white space out of offsets."""
    from tokenizers import processors

    return processors.RobertaProcessing(
        token("sep_token"),
        token("cls_token"),
        trim_offsets=bool(settings.get("trim_offsets", True)),
        add_prefix_space=bool(settings.get("add_prefix_space", False)),
    )


def fairseq_template(token: SpecialTokens, settings: Mapping[str, Any]) -> processors.PostProcessor:
    """Return the post-processor <s> a </s></s> b </s>, with one token type."""
    from tokenizers import processors

    bos, eos = token("bos_token"), token("eos_token")
    return processors.TemplateProcessing(
        single=[bos[0], "$A", eos[0]],
        pair=[bos[0], "$A", eos[0], eos[0], "$B", eos[0]],
        special_tokens=[bos, eos],
    )


def style_of(model_type: str, preferred: Style) -> Style | None:
    """Return the style that has a model of this type: the preferred one if it has, None if none has."""
    styles = (preferred, WORDPIECE, BYTE_LEVEL_BPE, UNIGRAM)
    return next((style for style in styles if style.type == model_type), None)
