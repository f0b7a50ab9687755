"""Tokenizers of many kinds, each small: normalizers, pre-tokenizers, models, post-processors and added tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BERT_NAMES = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), BERT_TOKENS, strict=True))
ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
ROBERTA_NAMES = {
    "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>",
    "cls_token": "<s>", "sep_token": "</s>",
}  # fmt: skip
CORPUS = [
    "The film is great, isn't it? A great great film: the films of 1999 and 2000!",
    "Une œuvre naïve, un café et l'été. Straße, Größe, Übung.",
    "東京 大阪 東京都 the Tokyo film", "ﬁne ﬁlms ½ price \uff21\uff22\uff23", "word-piece under_score e-mail@host.org",
]  # fmt: skip
TEXTS = [
    "", "   ", "The FILM is great!", "Café naïve ÉTÉ Straße", "東京 and 大阪 mixed", "ﬁne ½ \uff21\uff22\uff23 ﬁlms",
    "[MASK] <mask> and [SEP] </s> inside [UNK] <unk>", "under_score e-mail@host.org  two  spaces",
    "tab\there\u00a0nbsp\u2028line\u200bzero", "x" * 120 + " film", "İstanbul e\u0301 \U0001f600 1999 zzzq",
    "a [WORLD] of [world]s covidcovid", "\u2581 marker\u2581s", "nul\x00 rub\x7fout greatfilmfilms",
]  # fmt: skip


def wordpiece(**settings: object) -> Tokenizer:
    """Return a WordPiece tokenizer as BERT's, its normalizer with `settings`."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(**settings)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    train(backend, trainers.WordPieceTrainer(vocab_size=260, special_tokens=BERT_TOKENS, show_progress=False))
    backend.post_processor = template()
    return backend


def train(backend: Tokenizer, trainer: trainers.Trainer) -> None:
    backend.train_from_iterator(CORPUS, trainer)


def template(single: str = "[CLS] $A [SEP]", pair: str = "[CLS] $A [SEP] $B:1 [SEP]:1") -> processors.PostProcessor:
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])


def changed(change: Callable[[Tokenizer], object], **settings: object) -> Tokenizer:
    """Return a WordPiece tokenizer that `change` has changed."""
    backend = wordpiece(**settings)
    change(backend)
    return backend


def with_parts(**parts: object) -> Tokenizer:
    """Return a WordPiece tokenizer with other stages."""
    backend = wordpiece()
    for name, part in parts.items():
        setattr(backend, name, part)
    return backend


def unigram(pre_tokenizer: pre_tokenizers.PreTokenizer, *more: normalizers.Normalizer) -> Tokenizer:
    """Return a tokenizer as XLM-R has it."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), *more])
    backend.pre_tokenizer = pre_tokenizer
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=ROBERTA_TOKENS, unk_token="<unk>", show_progress=False
    )
    train(backend, trainer)
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return backend


def byte_level_bpe() -> Tokenizer:
    """Return a tokenizer as RoBERTa has it."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=ROBERTA_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    train(backend, trainer)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return backend


def word_bpe() -> Tokenizer:
    backend = Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=BERT_TOKENS, end_of_word_suffix="</w>", show_progress=False
    )
    train(backend, trainer)
    backend.post_processor = template()
    return backend


def word_level() -> Tokenizer:
    backend = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    train(backend, trainers.WordLevelTrainer(special_tokens=BERT_TOKENS, show_progress=False))
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return backend


NFKC_LOWER = [normalizers.NFKC(), normalizers.Lowercase()]
SEVERAL_SPACES = normalizers.Replace(Regex(" {2,}"), " ")

# Name -> how to make it, and the names of its special tokens.
KINDS: dict[str, tuple[Callable[[], Tokenizer], dict[str, str]]] = {
    "bert": (wordpiece, BERT_NAMES),
    "bert cased": (lambda: wordpiece(lowercase=False), BERT_NAMES),
    "bert lowercase with accents": (lambda: wordpiece(strip_accents=False), BERT_NAMES),
    "bert without clean_text": (lambda: wordpiece(clean_text=False), BERT_NAMES),
    "bert without Chinese words": (lambda: wordpiece(handle_chinese_chars=False), BERT_NAMES),
    "bert with BertProcessing": (
        lambda: with_parts(post_processor=processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))), BERT_NAMES,
    ),
    "NFKC and Lowercase": (lambda: with_parts(normalizer=normalizers.Sequence(NFKC_LOWER)), BERT_NAMES),
    "no normalizer": (lambda: with_parts(normalizer=None), BERT_NAMES),
    "bert and Replace": (
        lambda: with_parts(
            normalizer=normalizers.Sequence([normalizers.Replace("_", " "), normalizers.BertNormalizer()])
        ),
        BERT_NAMES,
    ),
    "WhitespaceSplit": (lambda: with_parts(pre_tokenizer=pre_tokenizers.WhitespaceSplit()), BERT_NAMES),
    "words split by Regex": (
        lambda: with_parts(pre_tokenizer=pre_tokenizers.Split(Regex(r"\w+|\S"), "removed", invert=True)), BERT_NAMES,
    ),
    "one type for pairs": (
        lambda: with_parts(post_processor=template(pair="[CLS] $A [SEP] $B [SEP]")), BERT_NAMES,
    ),
    "no post-processor": (lambda: with_parts(post_processor=processors.Sequence([])), BERT_NAMES),
    "added words": (lambda: changed(lambda backend: backend.add_tokens(["covid", "[WORLD]"])), BERT_NAMES),
    "added special tokens": (
        lambda: changed(
            lambda backend: backend.add_special_tokens([AddedToken("[WORLD]", lstrip=True, rstrip=True, special=True)])
        ),
        BERT_NAMES,
    ),
    "word pieces of up to 10 letters": (
        lambda: changed(lambda backend: setattr(backend.model, "max_input_chars_per_word", 10)), BERT_NAMES,
    ),
    "XLM-R": (
        lambda: unigram(
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]), SEVERAL_SPACES
        ),
        ROBERTA_NAMES,
    ),
    "Unigram with Metaspace": (
        lambda: unigram(pre_tokenizers.Metaspace(prepend_scheme="first")), ROBERTA_NAMES,
    ),
    "RoBERTa": (byte_level_bpe, ROBERTA_NAMES),
    "BPE of words": (word_bpe, BERT_NAMES),
    "WordLevel": (word_level, BERT_NAMES),
}  # fmt: skip


def write_kind(name: str, directory: Path, tokenizer_class: str = "PreTrainedTokenizerFast") -> Tokenizer:
    """Write tokenizer.json, tokenizer_config.json and the config.json of a BERT; return the tokenizer."""
    make, names = KINDS[name]
    backend = make()
    directory.mkdir(parents=True, exist_ok=True)
    backend.save(str(directory / "tokenizer.json"))
    settings = {
        **names,
        "tokenizer_class": tokenizer_class,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "config.json").write_text('{"model_type": "bert"}')
    return backend
