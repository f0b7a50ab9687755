"""Windows of questions are the rows of transformers' tokenizer with `only_second` truncation and a stride."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.kinds_of_tokenizers import KINDS, TEXTS, write_kind

from kdistill.data.question_windows import encode_questions
from kdistill.data.questions import Questions, read_questions
from kdistill.text.tokenizer import AutoTokenizer

transformers = pytest.importorskip("transformers")


def same_windows(directory: Path, questions: Questions, max_length: int, doc_stride: int) -> int:
    """Compare all windows and return their number."""
    theirs = transformers.AutoTokenizer.from_pretrained(directory)(
        [question.lstrip() for question in questions.questions],
        list(questions.contexts),
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    ours = encode_questions(
        questions, AutoTokenizer.from_pretrained(directory), max_length=max_length, doc_stride=doc_stride
    )
    assert ours.windows.examples.tolist() == theirs["overflow_to_sample_mapping"]
    bounds = list(zip(ours.starts[:-1], ours.starts[1:], strict=True))
    assert [ours.ids[a:b].tolist() for a, b in bounds] == theirs["input_ids"]
    if "token_type_ids" in AutoTokenizer.from_pretrained(directory).model_input_names:
        assert [ours.types[a:b].tolist() for a, b in bounds] == theirs["token_type_ids"]
    for window, (a, b) in enumerate(bounds):
        sequences = theirs.sequence_ids(window)
        begin, end = ours.windows.context[window]
        assert [place for place, of in enumerate(sequences) if of == 1] == list(range(begin, end))
        assert list(map(tuple, ours.windows.offsets[a:b].tolist())) == theirs["offset_mapping"][window]
    return len(bounds)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tokenizer(kind: str, tmp_path: Path) -> None:
    write_kind(kind, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    asked = [text for text in TEXTS if len(tokenizer.tokenize(text)) < 24]
    rows = [
        {"question": f"  {question}", "context": f"{context} {' '.join(TEXTS)} {context}"}
        for question, context in zip(asked, reversed(asked), strict=True)
    ]
    assert same_windows(tmp_path, read_questions(rows), 48, 12) > 2 * len(rows)
    assert same_windows(tmp_path, read_questions(rows), 4096, 12) == len(rows)


@pytest.mark.parametrize(("max_length", "doc_stride"), [(384, 128), (192, 48), (160, 0)])
def test_real_questions(shared_dir: Path, max_length: int, doc_stride: int) -> None:
    questions = read_questions(shared_dir / "data" / "squadshifts" / "new_wiki_v1.0.json")
    some = read_questions([dict(row) for row in questions.table.select(range(0, len(questions), 9))])
    count = same_windows(shared_dir / "models" / "bert-base-uncased", some, max_length, doc_stride)
    assert count > len(some)


def test_labels_lie_on_the_answers(shared_dir: Path) -> None:
    """Each labelled span covers its answer with the fewest tokens; a window without all of the answer has [CLS]."""
    questions = read_questions(shared_dir / "data" / "squadshifts" / "new_wiki_v1.0.json")
    some = read_questions([dict(row) for row in questions.table.select(range(0, len(questions), 9))])
    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "models" / "bert-base-uncased")
    packed = encode_questions(some, tokenizer, max_length=192, doc_stride=48)
    inside = 0
    for window, (start, end) in enumerate(packed.labels.tolist()):
        begin, behind = packed.windows.context[window].tolist()
        offsets: Any = packed.windows.offsets[packed.starts[window] : packed.starts[window + 1]].tolist()
        answers = some.answers[packed.windows.examples[window]]
        assert answers
        first, last = answers[0].start, answers[0].start + len(answers[0].text)
        touched = [t for t in range(begin, behind) if offsets[t][0] < last and offsets[t][1] > first]
        whole = offsets[begin][0] <= first and offsets[behind - 1][1] >= last
        assert (start, end) == ((touched[0], touched[-1]) if whole else (0, 0))
        inside += whole
    assert len(some) * 0.99 < inside < len(packed.labels)
    assert np.unique(packed.windows.examples[packed.labels[:, 0] > 0]).size == len(
        some
    )  # each answer is in some window
