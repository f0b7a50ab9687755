"""The names of transformers' tokenizers: one class with the row of each in the table of kinds, and `AutoTokenizer`."""

from __future__ import annotations

import os
from typing import Any

from .kinds import BERT, GENERIC, KINDS, kind_of, plain_name
from .loading import load
from .tokenizer import PreTrainedTokenizerFast

_BY_NAME = {kind.name: kind for kind in KINDS}


class BertTokenizer(PreTrainedTokenizerFast):
    """BERT's tokenizer: WordPiece, rows `[CLS] a [SEP] b [SEP]` with token types."""

    kind = BERT


class DistilBertTokenizer(PreTrainedTokenizerFast):
    """DistilBERT's tokenizer: BERT's without token types."""

    kind = _BY_NAME["DistilBertTokenizer"]


class ElectraTokenizer(PreTrainedTokenizerFast):
    """ELECTRA's tokenizer: BERT's."""

    kind = _BY_NAME["ElectraTokenizer"]


class MPNetTokenizer(PreTrainedTokenizerFast):
    """MPNet's tokenizer: WordPiece, rows `<s> a </s></s> b </s>`."""

    kind = _BY_NAME["MPNetTokenizer"]


class RobertaTokenizer(PreTrainedTokenizerFast):
    """RoBERTa's tokenizer: BPE of bytes, rows `<s> a </s></s> b </s>`."""

    kind = _BY_NAME["RobertaTokenizer"]


class XLMRobertaTokenizer(PreTrainedTokenizerFast):
    """XLM-RoBERTa's tokenizer: SentencePiece's Unigram, rows `<s> a </s></s> b </s>`."""

    kind = _BY_NAME["XLMRobertaTokenizer"]


class CamembertTokenizer(PreTrainedTokenizerFast):
    """CamemBERT's tokenizer: XLM-RoBERTa's with other ids."""

    kind = _BY_NAME["CamembertTokenizer"]


class AlbertTokenizer(PreTrainedTokenizerFast):
    """ALBERT's tokenizer: SentencePiece's Unigram on text in lower case, rows `[CLS] a [SEP] b [SEP]`."""

    kind = _BY_NAME["AlbertTokenizer"]


_CLASSES: dict[str, type[PreTrainedTokenizerFast]] = {
    known.__name__: known
    for known in (
        BertTokenizer,
        DistilBertTokenizer,
        ElectraTokenizer,
        MPNetTokenizer,
        RobertaTokenizer,
        XLMRobertaTokenizer,
        CamembertTokenizer,
        AlbertTokenizer,
    )
}
BertTokenizerFast = BertTokenizer
DistilBertTokenizerFast = DistilBertTokenizer
ElectraTokenizerFast = ElectraTokenizer
MPNetTokenizerFast = MPNetTokenizer
RobertaTokenizerFast = RobertaTokenizer
XLMRobertaTokenizerFast = XLMRobertaTokenizer
CamembertTokenizerFast = CamembertTokenizer
AlbertTokenizerFast = AlbertTokenizer


class AutoTokenizer:
    """The tokenizer that files name: `AutoTokenizer.from_pretrained(...)`."""

    @staticmethod
    def from_pretrained(
        path_or_id: str | os.PathLike[str],
        *,
        do_lower_case: bool | None = None,
        model_max_length: int | None = None,
        **keywords: Any,
    ) -> PreTrainedTokenizerFast:
        """Load a tokenizer as the class that its files name.

        That is the `tokenizer_class` of tokenizer_config.json or config.json, else the class of the `model_type`; for
        any other the tokenizer.json is taken as it is. Arguments and errors are those of
        `PreTrainedTokenizerFast.from_pretrained`.
        """
        backend, settings = load("AutoTokenizer", None, path_or_id, do_lower_case, model_max_length, keywords)
        is_generic = plain_name(settings.get("tokenizer_class") or "") in GENERIC
        return (PreTrainedTokenizerFast if is_generic else _CLASSES[kind_of(settings).name])(backend, settings)
