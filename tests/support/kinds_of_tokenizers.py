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


def words_of_corpus() -> list[str]:
    """Return the words and marks of the corpus, and their forms in lower case without accents, in a fixed order."""
    split = pre_tokenizers.BertPreTokenizer()
    words = [word for text in CORPUS for word, _ in split.pre_tokenize_str(text)]
    lowered = [
        word for text in CORPUS for word, _ in split.pre_tokenize_str(normalizers.BertNormalizer().normalize_str(text))
    ]
    return list(dict.fromkeys(words + lowered))


def wordpiece(**settings: object) -> Tokenizer:
    """Return a WordPiece tokenizer as BERT's, its normalizer with `settings`."""
    words = words_of_corpus()
    letters = sorted(set("".join(words)))
    pieces = [f"##{letter}" for letter in letters]
    tokens = dict.fromkeys([*BERT_TOKENS, *words, *letters, *pieces, "##s", "##film"])
    backend = Tokenizer(models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(**settings)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = template()
    backend.add_special_tokens(BERT_TOKENS)
    return backend


def merges_of(words: list[list[str]]) -> list[tuple[str, str]]:
    """Return merges that join the symbols of each word from left to right."""
    merges = [("".join(word[:end]), word[end]) for word in words for end in range(1, len(word))]
    return list(dict.fromkeys(merges))


def bpe(special_tokens: list[str], symbols: list[str], words: list[list[str]], **settings: object) -> Tokenizer:
    """Return a BPE tokenizer that knows `words`, each a list of symbols."""
    merges = merges_of(words)
    tokens = dict.fromkeys([*special_tokens, *symbols, *("".join(pair) for pair in merges)])
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges, **settings))
    backend.add_special_tokens(special_tokens)
    return backend


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
    words = words_of_corpus()
    pieces = dict.fromkeys([*(f"\u2581{word}" for word in words), *words, "\u2581", *sorted(set("".join(words)))])
    scores = [(token, 0.0) for token in ROBERTA_TOKENS]
    scores += [(piece, -2.0 - 0.01 * index) for index, piece in enumerate(pieces)]
    backend = Tokenizer(models.Unigram(scores, unk_id=3))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), *more])
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    backend.add_special_tokens(ROBERTA_TOKENS)
    return backend


def byte_level_bpe() -> Tokenizer:
    """Return a tokenizer as RoBERTa has it."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = [list(word) for text in CORPUS for word, _ in split.pre_tokenize_str(text)]
    backend = bpe(ROBERTA_TOKENS, sorted(pre_tokenizers.ByteLevel.alphabet()), words[::2], unk_token="<unk>")
    backend.pre_tokenizer = split
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return backend


def word_bpe() -> Tokenizer:
    """Return a BPE tokenizer whose words end in a mark."""
    words = [[*word[:-1], f"{word[-1]}</w>"] for word in words_of_corpus()]
    symbols = sorted({symbol for word in words for symbol in (*word, word[-1].removesuffix("</w>"))})
    backend = bpe(BERT_TOKENS, symbols, words[::2], unk_token="[UNK]", end_of_word_suffix="</w>")
    backend.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = template()
    return backend


def word_level() -> Tokenizer:
    """Return a tokenizer of whole words."""
    tokens = {token: index for index, token in enumerate([*BERT_TOKENS, *words_of_corpus()])}
    backend = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.add_special_tokens(BERT_TOKENS)
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
