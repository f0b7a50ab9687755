"""What a doctor says of taggers and of models that embed texts, whose rows have other labels or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_run import VOCABULARY, sentences, small_config

import kdistill as kd
from kdistill.cli.main import main
from kdistill.doctor import machine_checks


def found(capsys: pytest.CaptureFixture[str], *words: Any) -> list[tuple[str, str, str]]:
    """Return check, level and text of every finding."""
    main(["doctor", *map(str, words), "--student", "L1-H16-A2", "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    return [(each["check"], each["level"], each["text"]) for each in findings]


def saved(model: Any, directory: Path) -> Path:
    model.save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return directory


def test_embeddings_have_texts_and_no_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    encoder = kd.BertModel(small_config(initializer_range=0.3), seed=1)
    teacher = saved(encoder.with_pooling("mean"), tmp_path / "teacher")
    texts, others = ([text for text, _ in sentences(30, seed)] for seed in (1, 2))
    pairs = "".join(f"{a}\t{b}\t{row % 5 or ''}\n" for row, (a, b) in enumerate(zip(texts, others, strict=True)))
    (tmp_path / "pairs.tsv").write_text(f"sentence1\tsentence2\tscore\n{pairs}")
    (tmp_path / "train.txt").write_text("\n".join([*others[:20], *others[:5]]))
    said = found(capsys, "--teacher", teacher, "--train", tmp_path / "train.txt", "--eval", tmp_path / "pairs.tsv")
    assert not [text for check, _, text in said if check == "labels"]
    assert ("repeated texts", "ok") in {(check, level) for check, level, _ in said}
    texts_of = [text for check, _, text in said if check == "texts"]
    assert any(text.startswith("train.txt has 25 rows of ") for text in texts_of)
    assert any(text.startswith("pairs.tsv has 60 texts of ") for text in texts_of)
    assert ("teacher", "ok", "the teacher gives a text an embedding of 16 numbers") in said
    assert not [text for check, _, text in said if check == "evaluation"]
    assert any(text.endswith("they read the same tokens") for check, _, text in said if check == "student")
    assert any(text.startswith("0 of 85 texts are in") for check, _, text in said if check == "teacher cache")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    said = found(capsys, "--teacher", teacher, "--train", tmp_path / "train.txt", "--eval", tmp_path / "dev.tsv")
    assert any("dev.tsv: the column 'label' is not used" in text for check, _, text in said if check == "columns")
    twice = "".join(f"{a}\t{b}\t{row % 4}\n" for row, (a, b) in enumerate(zip(texts, texts[::-1], strict=True)))
    (tmp_path / "twice.tsv").write_text(f"sentence1\tsentence2\tscore\n{twice}")
    said = found(capsys, "--teacher", teacher, "--train", tmp_path / "twice.tsv", "--eval", tmp_path / "pairs.tsv")
    assert not [text for _, _, text in said if "different labels" in text]  # a score is that of two texts


def test_tags_that_are_not_known_do_not_count_and_answers_take_room_for_each_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[Any, ...]] = []
    monkeypatch.setattr(machine_checks, "row_bytes", lambda *given: sizes.append(given) or 1)
    tags = {0: "O", 1: "B-x"}
    tagger = kd.BertForTokenClassification(small_config(id2label=tags, initializer_range=0.3), seed=1)
    rows = [{"tokens": text.split(), "tags": ["O"] * len(text.split())} for text, _ in sentences(30, 1)]
    for row in rows[:6]:
        row["tags"][0] = "B-x"
    words = sum(len(row["tokens"]) for row in rows[2:]) + len(rows[0]["tokens"]) - 1
    rows[0]["tags"][0], rows[1]["tags"] = None, None
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    other = [{"tokens": text.split()[:2], "tags": ["O", "B-x"][: len(text.split())]} for text, _ in sentences(30, 2)]
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, other)))
    files = ("--train", tmp_path / "train.jsonl", "--eval", tmp_path / "dev.jsonl")
    said = found(capsys, "--teacher", saved(tagger, tmp_path / "tagger"), *files)
    (of_train,) = (text for check, level, text in said if (check, level) == ("labels", "ok") and "train" in text)
    assert of_train.startswith(f"train.jsonl has {words} words of 2 labels, ")
    assert not [text for _, _, text in said if "accuracy hides" in text]  # f1 of entities does not
    (of_dev,) = (text for check, level, text in said if (check, level) == ("labels", "ok") and "dev" in text)
    assert of_dev.startswith("dev.jsonl has ")
    (measured,) = (text for check, _, text in said if check == "evaluation")
    assert measured == "the student is measured on 30 rows of dev.jsonl"
    tokens = sum(len(row["tokens"]) + 2 for row in rows) // 30
    assert sizes
    assert all((outputs, abs(each - tokens) <= 1) == (2, True) for outputs, each in sizes)
