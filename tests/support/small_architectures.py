"""A small encoder of each architecture, with a tokenizer of its kind whose words are those of the small run."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import pre_tokenizers

import kdistill as kd
from kdistill.models.registry import ARCHITECTURES
from support.kinds_of_tokenizers import ROBERTA_TOKENS, merges_of
from support.sentencepiece_files import CONTROL, NORMAL, UNKNOWN, sentencepiece_file
from support.small_run import VOCABULARY, WORDS

_FIRST_OF_FAIRSEQ = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
_FIRST_OF_ALBERT = [
    ("<pad>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN), ("[CLS]", 0.0, CONTROL), ("[SEP]", 0.0, CONTROL),
    ("[MASK]", 0.0, CONTROL),
]  # fmt: skip


def write_encoder(model_type: str, directory: Path, seed: int = 1) -> Path:
    """Write a model of random weights without a head, as pretraining leaves it, and its tokenizer.

    Its texts may have 16 tokens, and tables have a width of their own where the architecture has that.
    """
    directory.mkdir(parents=True)
    _write_vocabulary(model_type, directory)
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    tokenizer = kd.AutoTokenizer.from_pretrained(directory)
    tokenizer.save_pretrained(directory)
    architecture = ARCHITECTURES[model_type]
    config = architecture.config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16 + architecture.config().first_position,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        **({"embedding_size": 8} if model_type in ("albert", "electra") else {}),
    )
    getattr(kd, f"{architecture.name}Model")(config, seed=seed).save_pretrained(directory)
    return directory


def _write_vocabulary(model_type: str, directory: Path) -> None:
    if model_type == "roberta":
        _write_bpe(directory)
    elif model_type in ("xlm-roberta", "camembert", "albert"):
        name, first = ("spiece.model", _FIRST_OF_ALBERT) if model_type == "albert" else (
            "sentencepiece.bpe.model", _FIRST_OF_FAIRSEQ,
        )  # fmt: skip
        pieces = [(f"\u2581{word}", -2.0 - 0.1 * place, NORMAL) for place, word in enumerate(WORDS)]
        (directory / name).write_bytes(sentencepiece_file([*first, *pieces, ("\u2581", -9.0, NORMAL)]))
    else:
        mpnet = [*ROBERTA_TOKENS[:-1], *WORDS, "[UNK]", ROBERTA_TOKENS[-1]]
        tokens = mpnet if model_type == "mpnet" else VOCABULARY
        (directory / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))


def _write_bpe(directory: Path) -> None:
    """Write the vocabulary of RoBERTa; words have one token, with the space before them or without it."""
    merges = [*merges_of([list(word) for word in WORDS]), *(("\u0120", word) for word in WORDS)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*ROBERTA_TOKENS[:-1], *letters, *("".join(pair) for pair in merges), ROBERTA_TOKENS[-1]])
    (directory / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (directory / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
