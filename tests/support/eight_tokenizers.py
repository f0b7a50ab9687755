"""A small vocabulary for each of the eight kinds of tokenizer, in the files that transformers' class of it reads."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import kdistill as kd
from kdistill.models.registry import ARCHITECTURES
from support.many_scripts import texts

KINDS = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "albert": "AlbertTokenizer",
}
"""model_type -> class."""
WITH_SENTENCEPIECE = ("xlm-roberta", "camembert", "albert")
_ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def write_vocabulary(model_type: str, directory: Path, entries: int = 1500) -> Path:
    """Write the vocabulary of a kind, trained on texts in many scripts, and a config.json with its model type."""
    directory.mkdir(parents=True, exist_ok=True)
    if model_type in WITH_SENTENCEPIECE:
        name = "spiece.model" if model_type == "albert" else "sentencepiece.bpe.model"
        (directory / name).write_bytes(_sentencepiece(model_type, entries))
    elif model_type == "roberta":
        _write_bpe(directory, entries)
    else:
        _write_wordpiece(directory, model_type == "mpnet", entries)
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    return directory


def write_model_with_vocabulary(
    model_type: str, ending: str, directory: Path, *, tokens: int, seed: int, **fields: Any
) -> kd.PreTrainedTokenizerFast:
    """Write a small model of random weights and the vocabulary of its kind; return its tokenizer.

    Args:
        model_type: of the eight.
        ending: of the class, such as "ForMaskedLM".
        directory: made if missing.
        tokens: the most that the tokenizer leaves of a text.
        seed: of the weights.
        **fields: of the configuration.
    """
    tokenizer = kd.AutoTokenizer.from_pretrained(write_vocabulary(model_type, directory), model_max_length=tokens)
    architecture = ARCHITECTURES[model_type]
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 60}
    places = {"vocab_size": len(tokenizer), "max_position_embeddings": tokens + 4}
    config = architecture.config(**sizes | places | fields)
    getattr(kd, architecture.name + ending)(config, seed=seed).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return tokenizer


def _rows() -> list[str]:
    return [" ".join(text.replace("\x00", "").split()) for text in texts(3000, seed=1, special=0)]


def _sentencepiece(model_type: str, entries: int) -> bytes:
    import sentencepiece

    own: dict[str, Any] = {}
    if model_type == "albert":
        own = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_rows()), model_writer=written, vocab_size=entries, minloglevel=2, **own
    )
    return written.getvalue()


def _write_bpe(directory: Path, entries: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=_ROBERTA_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_rows(), trainer)
    backend.model.save(str(directory))


def _write_wordpiece(directory: Path, is_mpnet: bool, entries: int) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    special = [*_ROBERTA_TOKENS, "[UNK]"] if is_mpnet else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=entries, special_tokens=special, show_progress=False)
    backend.train_from_iterator(_rows(), trainer)
    backend.model.save(str(directory))
