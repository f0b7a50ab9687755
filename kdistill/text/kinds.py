"""The table of tokenizers: for each class of transformers its files, special tokens, template and pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .pipelines import (
    ALBERT_UNIGRAM,
    BYTE_LEVEL_BPE,
    UNIGRAM,
    WORDPIECE,
    Style,
    Template,
    bert_template,
    fairseq_template,
    roberta_template,
)

_BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_ALBERT_TOKENS = {
    "bos_token": "[CLS]",
    "eos_token": "[SEP]",
    "unk_token": "<unk>",
    "sep_token": "[SEP]",
    "pad_token": "<pad>",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


@dataclass(frozen=True)
class Layout:
    """Where the pieces of a SentencePiece model lie in the vocabulary.

    Attributes:
        leading: entries before the pieces with their scores, special tokens by name.
        skipped: the first pieces, which the leading entries stand for.
        trailing: special tokens behind the pieces, by name.
    """

    leading: tuple[tuple[str, float], ...] = ()
    skipped: int = 0
    trailing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of tokenizer: what transformers' class of that name takes where the files leave it open.

    Attributes:
        name: the class of transformers, without "Fast".
        model_types: `model_type` of the models that have it.
        style: its pipeline.
        files: the files that hold its vocabulary where there is no tokenizer.json.
        special_tokens: name -> token.
        template: makes the post-processor.
        has_token_types: whether a call returns `token_type_ids`.
        strips_before: the special tokens, by name, that take the white space before them.
        extra_special_tokens: more special tokens, where the files name none.
        settings: those that are applied to a tokenizer.json even if no file states them.
        unknown_id: the id of the unknown token, for Unigram.
        layout: of a SentencePiece model.
    """

    name: str
    model_types: tuple[str, ...]
    style: Style
    files: tuple[str, ...]
    special_tokens: Mapping[str, str]
    template: Template
    has_token_types: bool = False
    strips_before: tuple[str, ...] = ()
    extra_special_tokens: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    unknown_id: int = 0
    layout: Layout = Layout()


BERT = Kind("BertTokenizer", ("bert",), WORDPIECE, ("vocab.txt",), _BERT_TOKENS, bert_template, has_token_types=True)
KINDS = (
    BERT,
    Kind("DistilBertTokenizer", ("distilbert",), WORDPIECE, ("vocab.txt",), _BERT_TOKENS, bert_template),
    Kind("ElectraTokenizer", ("electra",), WORDPIECE, ("vocab.txt",), _BERT_TOKENS, bert_template,
         has_token_types=True),
    Kind("MPNetTokenizer", ("mpnet",), WORDPIECE, ("vocab.txt",), _ROBERTA_TOKENS | {"unk_token": "[UNK]"},
         roberta_template, strips_before=("mask_token",)),
    Kind("RobertaTokenizer", ("roberta",), BYTE_LEVEL_BPE, ("vocab.json", "merges.txt"), _ROBERTA_TOKENS,
         roberta_template, settings={"add_prefix_space": False}),
    Kind("XLMRobertaTokenizer", ("xlm-roberta",), UNIGRAM, ("sentencepiece.bpe.model",), _ROBERTA_TOKENS,
         fairseq_template, unknown_id=3,
         layout=Layout((("bos_token", 0.0), ("pad_token", 0.0), ("eos_token", 0.0), ("unk_token", 0.0)), 3,
                       ("mask_token",))),
    Kind("CamembertTokenizer", ("camembert",), UNIGRAM, ("sentencepiece.bpe.model",), _ROBERTA_TOKENS,
         fairseq_template, strips_before=("mask_token",),
         extra_special_tokens=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"), unknown_id=3,
         layout=Layout((("<s>NOTUSED", 0.0), ("pad_token", 0.0), ("</s>NOTUSED", 0.0), ("unk_token", 0.0),
                        ("<unk>NOTUSED", -100.0)), 1, ("mask_token",))),
    Kind("AlbertTokenizer", ("albert",), ALBERT_UNIGRAM, ("spiece.model",),
         _ALBERT_TOKENS, bert_template, unknown_id=1),
)  # fmt: skip
# Classes of transformers that read a vocab.txt as BERT does and have no row of their own above.
LIKE_BERT = (
    "ConvBertTokenizer", "DPRContextEncoderTokenizer", "DPRQuestionEncoderTokenizer", "DPRReaderTokenizer",
    "LayoutLMTokenizer", "LxmertTokenizer", "MobileBertTokenizer", "RealmTokenizer", "RetriBertTokenizer",
    "SqueezeBertTokenizer",
)  # fmt: skip
# Classes that take any tokenizer.json as it is, or the vocabulary that there is.
GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")
# The first file of each vocabulary, and those that belong to it.
VOCABULARY_FILES = tuple(dict.fromkeys(kind.files[0] for kind in KINDS))
FURTHER_FILES = tuple(dict.fromkeys(name for kind in KINDS for name in kind.files[1:]))


def plain_name(tokenizer_class: str) -> str:
    """Return the name of a class without "Fast", which makes no difference here."""
    return tokenizer_class.removesuffix("Fast")


def named_kind(tokenizer_class: str | None) -> Kind | None:
    """Return the kind of a class of transformers; None for a generic or unknown class."""
    name = plain_name(tokenizer_class or "")
    return BERT if name in LIKE_BERT else next((kind for kind in KINDS if kind.name == name), None)


def kind_of(settings: Mapping[str, Any]) -> Kind:
    """Return the kind of tokenizer that settings of `read_settings` belong to, BERT's for a generic class."""
    return named_kind(settings.get("tokenizer_class")) or BERT


def guessed_kind(model_type: Any, files: Iterable[str]) -> Kind | None:
    """Return the kind of tokenizer whose class no file names.

    Args:
        model_type: that of the model's config.json, if there is one.
        files: the names of the files that are there.
    """
    there = set(files)
    readable = [kind for kind in KINDS if "tokenizer.json" in there or kind.files[0] in there]
    return next((kind for kind in readable if model_type in kind.model_types), None) or next(
        (kind for kind in readable if "tokenizer.json" not in there), None
    )
