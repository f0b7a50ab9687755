"""The rows of the study of students: to train on, held out of them, of the development part, and without a label.

A row is held out, or is one of the development rows where a data set has none (`banking77`), by the hash of its text:
the split is the same on every machine and whatever else changes. Of pairs the first text decides, and a pair that
shares a text with a held-out one is left out. SST-2's training rows are sentences and their phrases, which `held_out`
parts; those of `wnut17` are parted as `task_rows` does it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import kdistill as kd

from . import held_out, task_rows

Row = Mapping[str, Any]
HELD_OUT, DEV, SHARES = 0, 1, 10
"""Rows whose hash leaves `HELD_OUT` when divided by `SHARES` are held out; `DEV` likewise."""
SENTENCES_OF_SST2 = 1500
NEAREST = 64
"""Near pairs are made of a sentence and one of so many nearest ones."""
_TEXTS = ("text", "sentence1", "sentence2")


class Files(NamedTuple):
    """The rows of a data set, JSON lines.

    Attributes:
        fit: to train on while recipes are chosen.
        held_out: to choose them on.
        train: to train on what is measured on the development rows; `fit` where the teacher was trained on no others.
        dev: to measure on, once.
    """

    fit: Path
    held_out: Path
    train: Path
    dev: Path


def texts_of(row: Row) -> list[str]:
    """Return the texts of a row as they are compared: without case and outer spaces."""
    return [row[name].strip().lower() for name in _TEXTS if name in row]


def share_of(text: str) -> int:
    """Return which of `SHARES` equal shares of all texts a text is in."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % SHARES


def parted(rows: Sequence[Row], share: int) -> tuple[list[Row], list[Row]]:
    """Return rows that share no text with those of a share, and the latter."""
    taken = [row for row in rows if share_of(texts_of(row)[0]) == share]
    texts = {text for row in taken for text in texts_of(row)}
    return [row for row in rows if texts.isdisjoint(texts_of(row))], taken


def _table(path: Path, names: Sequence[str], **written: Any) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, names or None, **written))


def _sst2(data: Path, scratch: Path) -> dict[str, Sequence[Row]]:
    source = data / "SST-2"
    scratch.mkdir(parents=True, exist_ok=True)
    fit, held = held_out.split(source / "train.tsv", SENTENCES_OF_SST2, scratch)
    parts = {"fit": fit, "held_out": held, "train": source / "train.tsv", "dev": source / "dev.tsv"}
    return {
        part: [
            {"text": row["sentence"], "label": int(row["label"])}
            for row in _table(path, (), delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
        for part, path in parts.items()
    }


def _stsb(data: Path) -> dict[str, Sequence[Row]]:
    def rows(part: str) -> list[Row]:
        table = _table(data / "stsb" / f"stsb-en-{part}.csv", ("sentence1", "sentence2", "label"))
        return [{**row, "label": float(row["label"])} for row in table]

    fit, held = parted(rows("train"), HELD_OUT)
    return {"fit": fit, "held_out": held, "dev": rows("dev")}


def _banking77(data: Path) -> dict[str, Sequence[Row]]:
    table = _table(data / "banking77" / "train.csv", ())
    rest, dev = parted([{"text": row["text"], "label": row["category"]} for row in table], DEV)
    fit, held = parted(rest, HELD_OUT)
    return {"fit": fit, "held_out": held, "dev": dev}


def _clinc150(data: Path) -> dict[str, Sequence[Row]]:
    content = json.loads((data / "clinc150" / "train_val.json").read_text(encoding="utf-8"))

    def rows(*parts: str) -> list[Row]:
        return [{"text": text, "label": label} for part in parts for text, label in content[part]]

    fit, held = parted(rows("train", "oos_train"), HELD_OUT)
    return {"fit": fit, "held_out": held, "dev": rows("val", "oos_val")}


def _goemotions(data: Path) -> dict[str, Sequence[Row]]:
    source = data / "goemotions"
    names = (source / "labels.txt").read_text(encoding="utf-8").split()

    def rows(part: str) -> list[Row]:
        table = _table(source / f"{part}.tsv", ("text", "labels", "id"), delimiter="\t")
        return [{"text": row["text"], "labels": [names[int(i)] for i in row["labels"].split(",")]} for row in table]

    fit, held = parted(rows("train"), HELD_OUT)
    return {"fit": fit, "held_out": held, "dev": rows("dev")}


def _tagged(name: str, data: Path) -> dict[str, Sequence[Row]]:
    inner, outer = (task_rows.rows_of(name, data, held_out=inside) for inside in (True, False))
    return {"fit": inner.train, "held_out": inner.eval, "dev": outer.eval}


def texts_from_elsewhere(directory: Path, data: Path, pretrained: Path, count: int) -> list[Row]:
    """Return texts of other data sets as rows without a label: comments of GoEmotions, sentences of reviews of Yelp.

    Args:
        directory: the files of the data set, see `files_of`; its texts are left out.
        data: where the data sets are.
        pretrained: not used.
        count: at most so many, the first.
    """
    reviews = _table(
        data / "uci_sentiment" / "yelp_labelled.txt", ("text", "label"), delimiter="\t", quoting=csv.QUOTE_NONE
    )
    texts = [row["text"] for row in (*reviews, *_comments(data))]
    return [{"text": text} for text in _new(directory, [text.strip().lower() for text in texts])[:count]]


def sentences_of_reviews(directory: Path, data: Path, pretrained: Path, count: int) -> list[Row]:
    """Return the sentences of Amazon's reviews in SQuADShifts, as rows without a label; arguments as above."""
    content = json.loads((data / "squadshifts" / "amazon_reviews_v1.0.json").read_text(encoding="utf-8"))
    reviews = (paragraph["context"] for article in content["data"] for paragraph in article["paragraphs"])
    texts = [text.lower() for review in reviews for text in re.split(r"(?<=[.!?])\s+", review.strip()) if text]
    return [{"text": text} for text in _new(directory, texts)[:count]]


def queries_from_elsewhere(directory: Path, data: Path, pretrained: Path, count: int) -> list[Row]:
    """Return what people ask an assistant for in CLINC150, as rows without a label; arguments as above."""
    content = json.loads((data / "clinc150" / "train_val.json").read_text(encoding="utf-8"))
    texts = [text for part in ("train", "oos_train", "val") for text, _ in content[part]]
    return [{"text": text} for text in _new(directory, texts)[:count]]


def sentences_from_elsewhere(directory: Path, data: Path, pretrained: Path, count: int) -> list[Row]:
    """Return the sentences of SST-2's training rows and their phrases, likewise: the longest, which are sentences."""
    table = _table(data / "SST-2" / "train.tsv", (), delimiter="\t", quoting=csv.QUOTE_NONE)
    texts = sorted((row["sentence"].strip() for row in table), key=lambda text: -len(text.split()))
    return [{"text": text} for text in _new(directory, texts)[:count]]


def comments_in_words(directory: Path, data: Path, pretrained: Path, count: int) -> list[Row]:
    """Return the comments of GoEmotions as rows of words without tags; arguments as above."""
    return [{"tokens": row["text"].split()} for row in _comments(data) if row["text"].split()][:count]


def _comments(data: Path) -> list[dict[str, str]]:
    return _table(data / "goemotions" / "train.tsv", ("text", "labels", "id"), delimiter="\t")


def _new(directory: Path, texts: Iterable[str]) -> list[str]:
    """Return different texts, in their order, without those of a data set."""
    paths = (directory / f"{part}.jsonl" for part in Files._fields)
    known = {text for path in paths for row in read(path) for text in texts_of(row)}
    return [text for text in dict.fromkeys(texts) if text.strip().lower() not in known]


def pairs_of_sentences(directory: Path, data: Path, pretrained: Path, count: int, *, nearest: int = 0) -> list[Row]:
    """Return pairs of the sentences to train on, as rows without a label.

    A sentence is paired with others by the rank of their cosine in a model of sentences, and ranks are drawn so that
    each power of two is as likely: most pairs of sentences have nothing in common, and those that have teach most
    (semantic search sampling, Thakur et al., arXiv:2010.08240, section 3.1).

    Args:
        directory: the files of the data set, see `files_of`.
        data: not used.
        pretrained: the model of sentences.
        count: how many pairs.
        nearest: pair a sentence with so many nearest ones only; 0: with any.
    """
    names = _TEXTS[1:]
    sentences = list(dict.fromkeys(row[name].strip() for row in read(directory / "fit.jsonl") for name in names))
    vectors = np.asarray(kd.pipeline("feature-extraction", str(pretrained), pooling="model")(sentences))
    order = np.argsort(-(vectors @ vectors.T), axis=1, kind="stable")
    generator, ranks_up_to = np.random.default_rng(0), (nearest or len(sentences) - 2) + 1
    pairs: dict[tuple[int, int], None] = {}
    while len(pairs) < count:
        firsts = generator.permutation(len(sentences))
        ranks = np.exp(generator.random(len(sentences)) * np.log(ranks_up_to)).astype(int)
        drawn = zip(firsts.tolist(), order[firsts, ranks].tolist(), strict=True)
        pairs |= {(min(i, j), max(i, j)): None for i, j in drawn if i != j}
    turned = generator.random(len(pairs)) < 0.5
    chosen = [(j, i) if turn else (i, j) for (i, j), turn in zip(pairs, turned.tolist(), strict=True)]
    return [dict(zip(names, (sentences[i], sentences[j]), strict=True)) for i, j in chosen[:count]]


_PARTS: Mapping[str, Callable[[Path, Path], dict[str, Sequence[Row]]]] = {
    "stsb": lambda data, _: _stsb(data),
    "banking77": lambda data, _: _banking77(data),
    "clinc150": lambda data, _: _clinc150(data),
    "sst2": _sst2,
    "goemotions": lambda data, _: _goemotions(data),
    "wnut17": lambda data, _: _tagged("wnut17", data),
}
LABEL_FREE: Mapping[str, Callable[[Path, Path, Path, int], list[Row]]] = {
    "pairs": pairs_of_sentences,
    "near pairs": partial(pairs_of_sentences, nearest=NEAREST),
    "texts": texts_from_elsewhere,
    "reviews": sentences_of_reviews,
    "queries": queries_from_elsewhere,
    "sentences": sentences_from_elsewhere,
    "comments": comments_in_words,
}
"""Rows without a label, by what they are called in the names of runs."""
NAMES = tuple(_PARTS)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, rows: Iterable[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return unfinished.rename(path)


def files_of(name: str, data: Path, directory: Path) -> Files:
    """Return the files of a data set, which are written unless they are there.

    Args:
        name: one of `NAMES`.
        data: the directory with a directory for each data set.
        directory: where the files are to be.
    """
    paths = {part: directory / name / f"{part}.jsonl" for part in Files._fields}
    if not paths["dev"].is_file():
        parts = _PARTS[name](data, directory / name / "scratch")
        for part in ("fit", "held_out", "train", "dev"):
            _write(paths[part], parts.get(part, parts["fit"]))
    return Files(**paths)


def with_label_free(rows: Path, kind: str, count: int, data: Path, pretrained: Path) -> Path:
    """Return a file of `rows` and, behind them, `count` rows without a label; written unless it is there."""
    path = rows.with_name(f"{rows.stem}-{count}-{kind.replace(' ', '-')}.jsonl")
    if count and not path.is_file():
        return _write(path, [*read(rows), *LABEL_FREE[kind](rows.parent, data, pretrained, count)])
    return path if count else rows
