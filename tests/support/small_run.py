"""A vocabulary, rows and models so small that a whole training run takes part of a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from kdistill.data.dataset import Dataset
from kdistill.models.classes import BertForSequenceClassification
from kdistill.models.config import BertConfig

WORDS = ["good", "great", "bad", "awful", "film", "plot", "actor", "scene"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
LABELS = {0: "negative", 1: "positive"}


def small_config(**changes: object) -> BertConfig:
    fields: dict[str, object] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 16,
        "id2label": LABELS,
    }
    return BertConfig(**(fields | changes))


def small_model(seed: int = 1, **changes: object) -> BertForSequenceClassification:
    return BertForSequenceClassification(small_config(initializer_range=0.2, **changes), seed=seed)


def run_fields(directory: Path, changes: dict[str, object]) -> dict[str, object]:
    """Training arguments of a short, quiet run below `directory`: two epochs, unless `changes` count its steps.

    It keeps all checkpoints, for tests to look at.
    """
    fields: dict[str, object] = {
        "output_dir": str(directory / "out"),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.01,
        "save_total_limit": None,
        "disable_tqdm": True,
    }
    if "max_steps" in changes:
        del fields["num_train_epochs"]
    return fields | changes


def weights(model: BertForSequenceClassification) -> np.ndarray:
    return np.array(model.flat_parameters)


def sentences(n: int, seed: int = 0) -> list[tuple[str, int]]:
    """Rows whose label is that of their one good or bad word, half of each."""
    random = np.random.default_rng(seed)
    rows = []
    for row in range(n):
        words = list(random.choice(WORDS[4:], random.integers(1, 8)))
        label = row % 2
        words.insert(random.integers(0, len(words) + 1), random.choice(WORDS[:2] if label else WORDS[2:4]))
        rows.append((" ".join(words), label))
    return rows


def labelled_rows(n: int) -> list[dict[str, object]]:
    return [{"text": text, "label": label} for text, label in sentences(n)]


def write_rows(path: Path, n: int, seed: int = 0) -> Path:
    lines = [f"{text}\t{label}" for text, label in sentences(n, seed)]
    path.write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")
    return path


def small_dataset(n: int, seed: int = 0) -> Dataset:
    """The same rows as token ids, without a tokenizer."""
    rows = sentences(n, seed)
    ids = [[2, *(VOCABULARY.index(word) for word in text.split()), 3] for text, _ in rows]
    starts = np.concatenate(([0], np.cumsum([len(row) for row in ids])))
    flat = np.array([token for row in ids for token in row], dtype=np.int32)
    return Dataset(flat, np.zeros_like(flat), starts, np.array([label for _, label in rows], dtype=np.int64))


def write_model(directory: Path, seed: int = 1, **changes: object) -> Path:
    """A model directory with a vocabulary, as `--model` takes it."""
    small_model(seed, **changes).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return directory


def write_pretrained(directory: Path, seed: int = 1, **changes: object) -> Path:
    """A model directory as pretraining leaves it: labels without names, and no classifier in the file."""
    write_model(directory, seed, **({"id2label": {0: "LABEL_0", 1: "LABEL_1"}} | changes))
    weights = load_file(directory / "model.safetensors")
    encoder = {name: value for name, value in weights.items() if not name.startswith("classifier.")}
    save_file(encoder, directory / "model.safetensors")
    return directory
