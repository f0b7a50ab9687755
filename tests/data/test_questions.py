"""Reading questions: SQuAD's own files and rows of the same fields, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdistill.data.questions import Answer, read_questions

CONTEXT = "Berlin is the capital of Germany. Zoë lives there."
SQUAD_2 = {
    "version": "v2.0",
    "data": [
        {
            "title": "Berlin",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "a",
                            "question": "What is the capital?",
                            "answers": [
                                {"text": "Berlin", "answer_start": 0},
                                {"text": "Berlin is", "answer_start": 0},
                            ],
                            "is_impossible": False,
                        },
                        {
                            "id": "b",
                            "question": "Who left?",
                            "answers": [],
                            "is_impossible": True,
                            "plausible_answers": [{"text": "Zoë", "answer_start": 34}],
                        },
                    ],
                },
                {"context": "Empty.", "qas": []},
            ],
        },
        {
            "title": "Zoë",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [{"id": "c", "question": "Who?", "answers": [{"text": "Zoë", "answer_start": 34}]}],
                }
            ],
        },
    ],
}
ROW = {"id": "a", "question": "Who?", "context": CONTEXT, "answers": {"text": ["Zoë"], "answer_start": [34]}}


def test_squad_files_have_a_row_for_each_question_of_each_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "dev-v2.0.json"
    path.write_text(json.dumps(SQUAD_2))
    questions = read_questions(path)
    assert questions.ids == ["a", "b", "c"]
    assert questions.questions == ["What is the capital?", "Who left?", "Who?"]
    assert questions.contexts == [CONTEXT] * 3
    assert questions.answers == [(Answer("Berlin", 0), Answer("Berlin is", 0)), (), (Answer("Zoë", 34),)]
    assert questions.answerless == 1
    assert questions.table["title"] == ["Berlin", "Berlin", "Zoë"]


def test_a_question_without_an_answer_may_leave_its_answers_out(tmp_path: Path) -> None:
    impossible = {"id": "a", "question": "Who left?", "is_impossible": True}
    unknown = {"id": "b", "question": "Who?"}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": [impossible, unknown]}]}]}))
    assert read_questions(path).answers == [(), None]


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Zoë"], "answer_start": [34]},
        [{"text": "Zoë", "answer_start": 34}],
        {"text": "Zoë", "answer_start": 34},
    ],
)
def test_rows_state_answers_in_each_usual_form(answers: Any, tmp_path: Path) -> None:
    row = ROW | {"answers": answers}
    expected = [(Answer("Zoë", 34),)]
    assert read_questions([row]).answers == expected
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert read_questions(tmp_path / "rows.jsonl").answers == expected


def test_parquet_and_datasets_give_the_same_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [ROW, ROW | {"id": "b", "answers": {"text": [], "answer_start": []}}]
    dataset = datasets.Dataset.from_list(rows)
    dataset.to_parquet(tmp_path / "rows.parquet")
    for source in (dataset, tmp_path / "rows.parquet", rows):
        questions = read_questions(source)
        assert (questions.ids, questions.answers) == (["a", "b"], [(Answer("Zoë", 34),), ()])


def test_questions_without_answers_and_ids_can_be_read_to_be_answered() -> None:
    questions = read_questions([{"question": "Who?", "context": CONTEXT}, {"question": "What?", "context": CONTEXT}])
    assert (questions.ids, questions.answers, questions.answerless) == (["0", "1"], [None, None], 0)
    assert questions.columns == ("question", "context", None)


def test_columns_may_have_other_names() -> None:
    row = {"q": "Who?", "passage": CONTEXT, "gold": [{"text": "Zoë", "answer_start": 34}]}
    questions = read_questions([row], question_column="q", context_column="passage", answers_column="gold")
    assert (questions.questions, questions.answers) == (["Who?"], [(Answer("Zoë", 34),)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"answers": {"text": ["Zoë"], "answer_start": [35]}},
            r"row 0 of the list: the answer 'Zoë' is not at its answer_start 35, where the context has 'oë '; expected "
            r"34, where it is: answer_start counts characters, not bytes",
        ),
        (
            {"answers": {"text": ["Paris"], "answer_start": [0]}},
            "'Paris' is not at its answer_start 0, where the context has 'Berli'; expected a part of the context",
        ),
        (
            {"answers": {"text": [""], "answer_start": [0]}},
            "an answer is '', without a letter; .* an empty list, where",
        ),
        ({"answers": {"text": [" "], "answer_start": [6]}}, "an answer is ' ', without a letter; expected a part"),
        ({"answers": {"text": ["Zoë"]}}, 'row 0 of the list: answers is .*; expected {"text": '),
        ({"answers": {"text": ["Zoë"], "answer_start": []}}, "expected an answer_start for each text"),
        ({"answers": "Zoë"}, "row 0 of the list: answers is 'Zoë'; expected"),
        ({"answers": {"text": ["Zoë"], "answer_start": [-1]}}, "'Zoë' at -1; expected text and a whole number"),
        ({"question": None}, "row 0 of the list: question is None of type NoneType; expected text"),
        ({"context": 7}, "row 0 of the list: context is 7 of type int; expected text"),
        ({"question": "\ud800"}, "row 0 of the list: question holds"),
    ],
)
def test_a_row_that_cannot_be_right_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        read_questions([ROW | change])


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    rows = [{"question": "Who?", "passage": CONTEXT}]
    with pytest.raises(ValueError, match=r"the list has no column 'context' .* its columns are question, passage"):
        read_questions(rows)
    with pytest.raises(ValueError, match=r"no column 'contexts' .*did you mean 'context'"):
        read_questions([ROW], context_column="contexts")


def test_two_questions_with_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1 of the list: the id 'a' is that of row 0 of the list too"):
        read_questions([ROW, ROW])


def test_an_impossible_question_with_answers_is_refused(tmp_path: Path) -> None:
    contradiction = json.loads(json.dumps(SQUAD_2))
    contradiction["data"][0]["paragraphs"][0]["qas"][0]["is_impossible"] = True
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(contradiction))
    with pytest.raises(ValueError, match="paragraph 0, question a: is_impossible is true"):
        read_questions(path)


@pytest.mark.parametrize("impossible", [True, "true", 1, 1.0])
def test_a_row_says_like_an_article_that_its_question_has_no_answer(impossible: Any) -> None:
    none: list[Any] = [None, [], {"text": [], "answer_start": []}]
    rows = [ROW | {"id": str(place), "answers": given, "is_impossible": impossible} for place, given in enumerate(none)]
    assert read_questions(rows).answers == [(), (), ()]
    possible = [ROW | {"is_impossible": False, "answers": {"text": ["Zoë"], "answer_start": [34]}}]
    assert read_questions(possible).answers == [(Answer("Zoë", 34),)]
    with pytest.raises(ValueError, match="row 0 of the list: is_impossible is true, and there are answers"):
        read_questions([possible[0] | {"is_impossible": impossible}])


@pytest.mark.parametrize("paragraphs", ["text", [1], [{"context": "x"}], [{"context": "x", "qas": [{"id": "1"}]}]])
def test_articles_of_another_form_are_refused(paragraphs: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"row 0 of the list.*expected"):
        read_questions([{"title": "x", "paragraphs": paragraphs}])


def test_the_wikipedia_part_of_squadshifts_is_read_whole(shared_dir: Path) -> None:
    questions = read_questions(shared_dir / "data" / "squadshifts" / "new_wiki_v1.0.json")
    assert (len(questions), len(set(questions.contexts)), len(set(questions.table["title"]))) == (7938, 1581, 48)
