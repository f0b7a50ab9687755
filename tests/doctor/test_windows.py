"""What a doctor does with rows that are windows of longer ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.small_questions import question_model, question_tokenizer, questions

from kdistill.cli.main import main
from kdistill.doctor.subject import rows_of_examples, sample
from kdistill.tasks.question_answering import encode


@pytest.mark.parametrize("seconds", [0.0, 9.0])
def test_a_question_is_sampled_with_all_of_its_windows(tmp_path: Path, seconds: float) -> None:
    rows = encode(questions(400), question_tokenizer(tmp_path), max_length=7, doc_stride=1)
    windows = rows.windows
    assert windows is not None
    chosen = np.random.default_rng(0).permutation(400)[:200]
    found = sample(question_model(), rows, rows_of_examples(rows, chosen), seconds=seconds)
    asked = windows.examples[found.rows]
    whole = [row for example in dict.fromkeys(asked.tolist()) for row in np.flatnonzero(windows.examples == example)]
    assert found.rows.tolist() == whole
    assert len(found.logits) == len(whole)
    assert list(dict.fromkeys(asked.tolist())) == chosen[: len(set(asked.tolist()))].tolist()
    assert (len(set(asked.tolist())) == 200) == (seconds > 0)
    assert rows.rows_are == "windows"


def test_a_teacher_that_has_learned_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question_model().save_pretrained(tmp_path / "teacher")
    question_tokenizer(tmp_path / "teacher")
    for name, seed in (("train", 0), ("dev", 1)):
        lines = [json.dumps(row) + "\n" for row in questions(120, seed)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    files = ["--train", str(tmp_path / "train.jsonl"), "--eval", str(tmp_path / "dev.jsonl")]
    command = ["doctor", "--teacher", str(tmp_path / "teacher"), "--student", "L1-H8-A2", *files]
    assert main([*command, "--max-length", "10", "--doc-stride", "2", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    said = [f"{finding['level']} {finding['check']}: {finding['text']}" for finding in findings]
    assert any(text.startswith("error teacher: the teacher's loss against the answers is") for text in said)
    assert any(text.endswith("(120 questions of dev.jsonl)") for text in said)
    measured = "ok evaluation: the student is measured on 120 questions of dev.jsonl: an exact_match of 90 is right "
    assert any(text.startswith(measured) for text in said)
    assert "ok labels: train.jsonl has 120 questions, 0 of them without an answer" in said
    assert any(re.search(r"train.jsonl has 1\d\d windows of \d+ tokens \(median\), at most 10", text) for text in said)
