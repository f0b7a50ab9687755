"""A teacher's answers against the labels: worth nothing, in another order, or right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_questions import question_model, question_tokenizer, questions
from support.small_run import small_config

from kdistill.data.ragged import Ragged
from kdistill.distill.answers import answers_against_labels, label_order
from kdistill.losses.spans import blind_span_loss, span_loss
from kdistill.models.trained_with import TrainedWith
from kdistill.tasks.question_answering import encode

ORDER = np.array([2, 0, 1])
NAMES = {0: "entailment", 1: "neutral", 2: "contradiction"}


def answers(labels: np.ndarray, order: np.ndarray, right: float = 0.9, seed: int = 0) -> np.ndarray:
    """Logits of a teacher that knows a share of the labels, and whose output j stands for label order[j]."""
    random, count = np.random.default_rng(seed), len(order)
    known = np.where(random.random(len(labels)) < right, labels, random.integers(0, count, len(labels)))
    logits = random.normal(size=(len(labels), count)).astype(np.float32)
    logits[np.arange(len(labels)), np.argsort(order)[known]] += 10
    return logits


def labels_of(count: int, rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, rows)


@pytest.mark.parametrize("count", [2, 3, 28, 77, 150])
def test_order_of_permuted_labels_is_found(count: int) -> None:
    labels, hidden = labels_of(count, max(512, 10 * count)), np.roll(np.arange(count), 1)
    found = label_order(answers(labels, hidden), labels)
    assert found is not None
    assert (found == hidden).mean() > 0.98


@pytest.mark.parametrize("right", [0.0, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("count", [2, 3, 28, 150])
def test_labels_in_their_order_are_left_alone(count: int, right: float) -> None:
    for seed in range(5):
        labels = labels_of(count, 512, seed)
        assert label_order(answers(labels, np.arange(count), right, seed), labels) is None


def test_two_labels_that_are_exchanged_among_many() -> None:
    labels, hidden = labels_of(28, 1000), np.arange(28)
    hidden[[3, 17]] = 17, 3
    np.testing.assert_array_equal(label_order(answers(labels, hidden), labels), hidden)


@pytest.mark.parametrize(
    ("names", "numbered", "option"),
    [
        (NAMES, False, "--label-names=contradiction,entailment,neutral "),
        (NAMES, True, "--label-names=2,0,1 "),
        ({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, True, "--label-names=2,0,1 "),
        ({0: "a b", 1: "c", 2: "d"}, False, "--label-names='d,a b,c' "),
        ({0: "a,b", 1: "c", 2: "d"}, False, "0 is 'd', 1 is 'a,b', 2 is 'c'"),
    ],
)
def test_names_to_give_are_the_remedy(names: dict[int, str], numbered: bool, option: str) -> None:
    labels = labels_of(3, 300)
    config = small_config(id2label=names)
    (finding,) = answers_against_labels(answers(labels, ORDER), labels, config, numbered=numbered)
    assert finding.level == "error"
    assert "in another order" in finding.text
    assert option in finding.remedy + " "


def test_names_that_few_rows_show_are_to_be_checked() -> None:
    labels = labels_of(4, 400)
    labels[labels == 1] = 0
    labels[0] = 1
    config = small_config(id2label=dict(enumerate("abcd")))
    (finding,) = answers_against_labels(answers(labels, np.array([3, 2, 1, 0]), right=1.0), labels, config)
    assert "check the names of outputs 2, which few rows show" in finding.remedy
    labels = labels_of(4, 400)
    (finding,) = answers_against_labels(answers(labels, np.array([3, 2, 1, 0])), labels, config)
    assert "few rows" not in finding.remedy


def test_teacher_that_is_no_better_than_the_majority() -> None:
    labels = np.array([0] * 70 + [1] * 30)
    logits = np.tile(np.float32([2, 1]), (100, 1))
    (finding,) = answers_against_labels(logits, labels, small_config())
    assert "accuracy is 0.7000, no better than always answering the most frequent label (0.7000)" in finding.text
    better = logits.copy()
    better[70:80] = 0, 1
    assert answers_against_labels(better, labels, small_config()) == []


def test_regression_teacher_is_compared_with_the_mean() -> None:
    config = small_config(id2label={0: "LABEL_0"}, problem_type="regression")
    labels = np.linspace(0, 5, 50, dtype=np.float32)
    assert answers_against_labels(labels[:, None] + np.float32(0.3), labels, config) == []
    (finding,) = answers_against_labels(labels[:, None] / 5, labels, config)
    variance = float(np.var(labels))
    assert f"no better than always answering the mean of the labels ({variance:.4g})" in finding.text
    assert "scale" in finding.remedy


def test_multi_label_teacher_is_compared_with_how_frequent_labels_are() -> None:
    config = small_config(problem_type="multi_label_classification")
    labels = np.array([[0, 1], [0, 0], [0, 0], [1, 0]] * 10, dtype=np.float32)
    assert answers_against_labels(8 * labels - 4, labels, config) == []
    share = 0.25
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    (finding,) = answers_against_labels(4 - 8 * labels, labels, config)
    assert f"how frequent each label is ({entropy:.4g})" in finding.text


def test_rows_without_a_label_do_not_count() -> None:
    labels = labels_of(3, 300)
    logits = answers(labels, np.arange(3))
    labels[:150] = -100
    logits[:150] = np.nan
    assert answers_against_labels(logits, labels, small_config(id2label=NAMES)) == []
    assert answers_against_labels(logits[:150], labels[:150], small_config(id2label=NAMES)) == []


TAGS = {0: "O", 1: "B-lake", 2: "I-lake", 3: "B-hill"}


def tagged(sentences: int = 200, seed: int = 0) -> Ragged:
    """Tags of ten words a sentence, of which nine in ten mark nothing."""
    random = np.random.default_rng(seed)
    tags = random.choice(4, 10 * sentences, p=[0.9, 0.04, 0.03, 0.03])
    return Ragged(tags, np.arange(0, 10 * sentences + 1, 10))


def one_hot(tags: np.ndarray) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[tags] * 10


@pytest.mark.parametrize(("found", "useless"), [("nothing", True), ("anything", True), ("some", False)])
def test_a_tagger_is_judged_by_the_entities_that_it_finds(found: str, useless: bool) -> None:
    """One that marks nothing has the accuracy of the most frequent tag; one with many false alarms a lower one."""
    pytest.importorskip("seqeval")
    labels, random = tagged(), np.random.default_rng(1)
    answers = {
        "nothing": np.zeros_like(labels.values),
        "anything": random.integers(0, 4, len(labels.values)),
        "some": np.where(random.random(len(labels.values)) < 0.8, labels.values, random.integers(0, 4, 2000)),
    }[found]
    config = small_config(id2label=TAGS).with_head("token-classification")
    findings = answers_against_labels(Ragged(one_hot(answers), labels.starts), labels, config)
    assert [finding.level for finding in findings] == ["error"] * useless
    if found == "some":
        assert (answers == labels.values).mean() < (labels.values == 0).mean()
    if found == "nothing":
        assert "the teacher's F1 of entities is 0.0000, and 0.0000 with its tags in random places" in findings[0].text


@pytest.mark.parametrize("without_answer", [0.0, 0.4])
def test_answers_to_questions_are_judged_by_what_is_found_without_reading(
    tmp_path: Path, without_answer: float
) -> None:
    rows = encode(
        questions(200, without_answer=without_answer), question_tokenizer(tmp_path), max_length=10, doc_stride=2
    )
    targets, random = rows.targets, np.random.default_rng(0)
    config = question_model().config.with_trained(TrainedWith(no_answers=bool(without_answer)))

    def judged(logits: np.ndarray) -> list[str]:
        found = answers_against_labels(Ragged(logits.astype(np.float32), rows.starts), targets, config)
        return [f"{finding.level}: {finding.text}" for finding in found]

    right = np.zeros((len(rows.ids), 2))
    for end in range(2):
        right[rows.starts[:-1] + rows.labels[:, end], end] = 5
    assert judged(right) == []
    (useless,) = judged(random.normal(size=right.shape))
    assert useless.startswith("error: the teacher's loss against the answers is ")
    # The least loss of whoever reads nothing: the shares of windows without an answer, and of all other tokens.
    none, lengths = float((rows.labels[:, 0] == 0).mean()), np.diff(rows.starts)
    prior = np.concatenate([[np.log(none), *np.full(n - 1, np.log((1 - none) / (n - 1)))] for n in lengths])
    assert blind_span_loss(rows.starts, rows.labels) == pytest.approx(
        span_loss(np.stack([prior, prior], 1).astype(np.float32), rows.starts, rows.labels, alpha=1.0).loss, rel=1e-5
    )
    if without_answer:
        silent = right.copy()
        silent[rows.starts[:-1]] = 5.5  # no answer is a little likelier than the right one, everywhere
        (useless,) = judged(silent)
        assert "no better than never giving an answer" in useless
