"""Answers for tokens of a teacher with another tokenizer: found again by words, or by characters of the context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.other_teacher import write_other_teacher
from support.small_questions import question_model, question_tokenizer, questions
from support.small_run import run_fields, small_config, write_model
from support.small_tags import tagged_sentences

import kdistill as kd
from kdistill.data.labels import NO_LABEL
from kdistill.data.question_windows import encode_questions
from kdistill.data.questions import read_questions
from kdistill.data.ragged import Ragged
from kdistill.data.table import Table
from kdistill.data.tagged import encode_words
from kdistill.data.words import WordRows, words_of
from kdistill.distill.alignment import for_tokens_of
from kdistill.models.trained_with import TrainedWith

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's", "ignore:no eval_dataset")
TAGS = dict(enumerate(["O", "B-praise", "B-thing", "I-thing"]))


def arguments(directory: Path, **changes: Any) -> kd.DistillationTrainingArguments:
    fields = {"num_train_epochs": 1, "teacher_dtype": "float32", "teacher_cache": False, **changes}
    return kd.DistillationTrainingArguments(**run_fields(directory, fields))


@pytest.mark.parametrize("all_tokens", [False, True])
def test_a_word_has_the_answer_of_the_teachers_first_token_of_it(tmp_path: Path, all_tokens: bool) -> None:
    """The student's words of two tokens are `goodfilm`; both models have windows, of other lengths."""
    directory = write_other_teacher(tmp_path / "roberta", "ForTokenClassification", id2label=TAGS)
    teacher = kd.AutoModelForTokenClassification.from_pretrained(directory)
    theirs = kd.AutoTokenizer.from_pretrained(directory)
    ours = kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "bert"))
    rows = [{"tokens": [word for word, _ in row], "ner_tags": [tag for _, tag in row]} for row in tagged_sentences(24)]
    rows[3] = {"tokens": ["good", "film"] * 9, "ner_tags": ["B-praise", "B-thing"] * 9}
    trainer = kd.DistillationTrainer(
        kd.BertForTokenClassification(small_config(initializer_range=0.2, id2label=TAGS), seed=2),
        arguments(tmp_path, label_all_tokens=all_tokens),
        teacher_model=teacher,
        teacher_processing_class=theirs,
        train_dataset=rows,
        eval_dataset=rows[:8],
        processing_class=ours,
    )
    trainer.train()
    dataset, answers = trainer.train_dataset, trainer.objective.answers[0]
    assert dataset is not None
    assert isinstance(answers, Ragged)
    assert len(dataset) > 24  # row 3 is in windows, whose words have one label each
    found: dict[tuple[int, int], Any] = {}
    for token in np.flatnonzero(dataset.labels != NO_LABEL):
        row = int(np.searchsorted(dataset.starts, token, side="right")) - 1
        found[int(dataset.windows.examples[row]), int(dataset.windows.words[token])] = answers.values[token]
    assert len(found) == sum(len(row["tokens"]) for row in rows)
    for example, row in enumerate(rows):
        ids, firsts = [0], []
        for tokens in (theirs.encode_words([[word]])[0].ids for word in row["tokens"]):
            firsts.append(len(ids))
            ids += tokens
        logits = teacher.forward(kd.pack({"input_ids": [[*ids, 2]]}))
        for word, first in enumerate(firsts):
            np.testing.assert_allclose(found[example, word], logits[first], atol=1e-6)
    assert (answers.values[dataset.labels == NO_LABEL] == 0).all()
    assert trainer.teacher_accuracy is not None


def test_further_tokens_of_a_word_have_its_answer(tmp_path: Path) -> None:
    directory = write_other_teacher(tmp_path / "roberta", "ForTokenClassification", id2label=TAGS)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\n##film\n##s\nplot\n")
    trainer = kd.DistillationTrainer(
        kd.BertForTokenClassification(small_config(vocab_size=9, id2label=TAGS), seed=2),
        arguments(tmp_path, label_all_tokens=True),
        teacher_model=kd.AutoModelForTokenClassification.from_pretrained(directory),
        teacher_processing_class=kd.AutoTokenizer.from_pretrained(directory),
        train_dataset=[{"tokens": ["goodfilms", "plot"], "ner_tags": ["B-thing", "O"]}] * 2,
        processing_class=kd.BertTokenizer.from_pretrained(tmp_path / "words"),
    )
    trainer.train()
    values = trainer.objective.answers[0].values[:6]
    np.testing.assert_array_equal(values[1], values[2])
    np.testing.assert_array_equal(values[1], values[3])
    assert not np.array_equal(values[1], values[4])


def test_a_word_of_which_the_teachers_tokenizer_makes_nothing_has_no_answer(tmp_path: Path) -> None:
    """An accent by itself: an unknown word to a tokenizer that keeps accents, and nothing to one that strips them."""
    rows = words_of(Table("rows", {"tokens": [["good", "\u0301", "film"]], "ner_tags": [["O", "B-thing", "O"]]}))
    (tmp_path / "cased").mkdir()
    theirs, _ = question_tokenizer(tmp_path), question_tokenizer(tmp_path / "cased")
    (tmp_path / "cased" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    ours = kd.AutoTokenizer.from_pretrained(tmp_path / "cased")
    dataset = encode_words(rows, ours, id2label=TAGS, keep_texts=True)
    read = encode_words(WordRows(rows.words, None, None, None, rows.table), theirs)
    assert (len(dataset.ids), len(read.ids)) == (5, 4)
    logits = np.arange(16, dtype=np.float32).reshape(4, 4)
    found = for_tokens_of(dataset, read, Ragged(logits, read.starts)).values
    np.testing.assert_array_equal(found[1], logits[1])
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(found[3], logits[2])


def question_run(tmp_path: Path, teacher: Any, theirs: Any, rows: list[dict[str, Any]], **trained: Any) -> Any:
    student = question_model(2, max_position_embeddings=32)
    student.config = student.config.with_trained(TrainedWith(**trained))
    trainer = kd.DistillationTrainer(
        student,
        arguments(tmp_path),
        teacher_model=teacher,
        teacher_processing_class=theirs,
        train_dataset=rows,
        eval_dataset=rows[:8],
        processing_class=kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "bert")),
    )
    trainer.train()
    return trainer


def test_an_answer_lies_where_its_characters_are(tmp_path: Path) -> None:
    """Each of the student's tokens is a word; the teacher's are letters, some of them merged."""
    directory = write_other_teacher(tmp_path / "roberta", "ForQuestionAnswering", id2label={0: "A", 1: "B"})
    teacher = kd.AutoModelForQuestionAnswering.from_pretrained(directory)
    theirs = kd.AutoTokenizer.from_pretrained(directory)
    rows = questions(12)
    trainer = question_run(tmp_path, teacher, theirs, rows)
    answers, dataset = trainer.objective.answers[0], trainer.train_dataset
    assert len(dataset) == 12
    for row, given in enumerate(rows):
        encoded = theirs([(given["question"], given["context"])], return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"][0], encoded["offset_mapping"][0]
        logits = teacher.forward(kd.pack({"input_ids": [ids]})).astype(np.float64)
        context = range(len(theirs([given["question"]])["input_ids"][0]) + 1, len(ids) - 1)
        words = given["context"].split()
        begins = [given["context"].index(word) for word in words]
        mass = np.zeros((len(words), 2))
        for token in context:
            first, behind = offsets[token]
            first += given["context"][first] == " "
            mass[max(n for n, begin in enumerate(begins) if begin <= first), 0] += np.exp(logits[token, 0])
            mass[max(n for n, begin in enumerate(begins) if begin < behind), 1] += np.exp(logits[token, 1])
        first_word = len(dataset.ids[dataset.starts[row] : dataset.starts[row + 1]]) - len(words) - 1
        found = answers[row][first_word : first_word + len(words)]
        np.testing.assert_allclose(found, np.log(mass), atol=1e-4)
        np.testing.assert_allclose(answers[row][0], logits[0], atol=1e-5)  # no answer
        np.testing.assert_allclose(answers[row][1], logits.min(axis=0), atol=1e-5)  # the question
    assert trainer.results["teacher_f1"] >= 0


def test_windows_are_answered_from_those_with_most_of_the_same_context(tmp_path: Path) -> None:
    """The teacher's tokens are the student's, and its windows have other lengths: it was trained with 9 tokens."""
    directory = write_model(tmp_path / "cased")
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    teacher = question_model(9)
    teacher.config = teacher.config.with_trained(TrainedWith(max_length=9, doc_stride=2))
    trainer = question_run(tmp_path, teacher, kd.AutoTokenizer.from_pretrained(directory), questions(16), max_length=12)
    teachers, dataset = trainer.objective.teachers, trainer.train_dataset
    read = teachers.models[0].rows_as_read(dataset, trainer.args)
    assert len(read) > len(dataset)
    answers = trainer.objective.answers[0]
    for row in range(len(dataset)):
        windows = np.flatnonzero(read.windows.examples == dataset.windows.examples[row])
        sizes = np.diff(read.windows.context[windows], axis=1).ravel()
        best = int(windows[np.argmax(sizes)])
        logits = teacher.forward(read.batch([best])[0])
        begin, end = read.windows.context[best]
        ours, _ = dataset.windows.context[row]
        offset = read.windows.offsets[read.starts[best] + begin, 0]
        places = dataset.windows.offsets[dataset.starts[row] + ours :, 0]
        place = int(ours + np.flatnonzero(places == offset)[0])
        np.testing.assert_allclose(answers[row][place : place + end - begin], logits[begin:end], atol=1e-5)


def test_each_of_several_windows_takes_the_answers_of_the_nearest_one(tmp_path: Path) -> None:
    """Both read words; what the teacher's window has outside of the student's goes to [CLS], and to nobody else."""
    tokenizer = question_tokenizer(tmp_path)
    context = "good film bad plot great actor awful scene good actor"
    letters = [len(word) for word in context.split()]
    row = {"id": "a", "question": "film", "context": context, "answers": {"text": ["film"], "answer_start": [5]}}
    ours, theirs = (encode_questions(read_questions([row]), tokenizer, max_length=of, doc_stride=2) for of in (8, 9))
    assert (len(ours), len(theirs)) == (4, 3)
    logits = np.random.default_rng(0).standard_normal((len(theirs.ids), 2)).astype(np.float32)
    found = for_tokens_of(ours, theirs, Ragged(logits, theirs.starts))
    nearest = []
    for window in range(len(ours)):
        words = places_of_words(ours, window)
        shared = [sum(letters[word] for word in {*words} & {*places_of_words(theirs, of)}) for of in range(3)]
        best = int(np.argmax(shared))
        nearest.append(best)
        begin, answers = ours.windows.context[window][0], logits[theirs.starts[best] : theirs.starts[best + 1]]
        first = theirs.windows.context[best][0]
        other = {
            word: answers[first + place].astype(np.float64) for place, word in enumerate(places_of_words(theirs, best))
        }
        for place, word in enumerate(words):
            expected = other.get(word, answers.min(axis=0))
            np.testing.assert_allclose(found[window][begin + place], expected, rtol=1e-6)
        outside = [answers[0], *(of for word, of in other.items() if word not in words)]
        np.testing.assert_allclose(found[window][0], np.logaddexp.reduce(outside), rtol=1e-5)
    assert {0, 1, 2} == {*nearest}


def places_of_words(rows: Any, window: int) -> list[int]:
    """The places of a window's words in the context."""
    begin, behind = rows.windows.context[window].tolist()
    offsets = rows.windows.offsets[rows.starts[window] + begin : rows.starts[window] + behind]
    return [rows.windows.questions.contexts[0][:first].count(" ") for first, _ in offsets.tolist()]
