"""Read questions about contexts, with the answers that are accepted: SQuAD's files, and rows of the same fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..system.names import did_you_mean, listing
from ..system.unicode import check_characters
from .label_values import as_integer, is_empty, is_list
from .sources import read_table
from .table import Table

QUESTION_COLUMN, CONTEXT_COLUMN, ANSWERS_COLUMN, ID_COLUMN = "question", "context", "answers", "id"
TITLE_COLUMN, IMPOSSIBLE_COLUMN = "title", "is_impossible"
_TRUE = ("true", "1", "1.0")  # as JSON, tables of numbers and tables with gaps have it
_ARTICLES = "paragraphs"  # the column of a file in SQuAD's own form, a row for each article
_FORM = '{"text": ["..."], "answer_start": [0]}'
_SHOWN = 40  # characters of a text in a message


class Answer(NamedTuple):
    """An answer that is accepted: its text, and the character of the context at which it begins."""

    text: str
    start: int


@dataclass(frozen=True, eq=False)
class Questions:
    """Questions, a row for each.

    Attributes:
        ids: a different one for each.
        questions: the questions.
        contexts: the text in which the answer is.
        answers: the accepted answers of each; empty where the question has none (SQuAD 2.0); None where nobody has
            given any, as in rows to predict.
        table: a row for each question, for messages.
        columns: which columns hold question, context and answers; None for answers that are not there.
    """

    ids: Sequence[str]
    questions: Sequence[str]
    contexts: Sequence[str]
    answers: Sequence[tuple[Answer, ...] | None]
    table: Table
    columns: tuple[str, str, str | None]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answerless(self) -> int:
        """The number of questions to which the source states that there is no answer."""
        return sum(answers == () for answers in self.answers)

    def take(self, rows: Sequence[int]) -> Questions:
        """Return the questions at these places, in that order."""
        return Questions(
            [self.ids[row] for row in rows],
            [self.questions[row] for row in rows],
            [self.contexts[row] for row in rows],
            [self.answers[row] for row in rows],
            replace(self.table.select(rows), places=[self.table.where(row) for row in rows]),
            self.columns,
        )


def read_questions(
    source: Any,
    *,
    question_column: str | None = None,
    context_column: str | None = None,
    answers_column: str | None = None,
    first: int = 0,
) -> Questions:
    """Read questions from a file or from objects.

    The source is a file in SQuAD's own form, version 1.1 or 2.0, or has a row for each question: `question`, `context`,
    `answers` and perhaps `id`, as the data set `squad` of the hub. Answers are `{"text": [...], "answer_start": [...]}`
    or a list of `{"text": ..., "answer_start": ...}`; an empty list where there is no answer, None where none is known.
    A true `is_impossible` says that there is none, as in SQuAD 2.0.

    Args:
        source: see `sources.read_table`.
        question_column: the column of the questions (default: `question`).
        context_column: likewise (default: `context`).
        answers_column: likewise (default: `answers`, which may be missing).
        first: the number of the first row, where the source is a part of a larger one.

    Raises:
        ValueError: a column is missing, there are no rows, two questions have one id, or an answer does not lie in its
            context where it is said to begin; names the question.
        TypeError: a value is of another type.
    """
    table = with_a_row_for_each_question(read_table(source))
    question = _column(table, "question", question_column, QUESTION_COLUMN)
    context = _column(table, "context", context_column, CONTEXT_COLUMN)
    answers = ANSWERS_COLUMN if answers_column is None and ANSWERS_COLUMN in table.columns else answers_column
    if answers is not None:
        answers = _column(table, "answers", answers, ANSWERS_COLUMN)
    if len(table) == 0:
        raise ValueError(f"{table.source} has no questions")
    questions, contexts = _texts(table, question), _texts(table, context)
    given = [None] * len(table) if answers is None else table.columns[answers]
    accepted = [_answers(given[row], contexts[row], table, row) for row in range(len(table))]
    return Questions(_ids(table, first), questions, contexts, accepted, table, (question, context, answers))


def has_questions(table: Table) -> bool:
    """Return whether a table has the columns of questions and contexts, or articles of SQuAD."""
    return _ARTICLES in table.columns or {QUESTION_COLUMN, CONTEXT_COLUMN} <= table.columns.keys()


def with_a_row_for_each_question(table: Table) -> Table:
    """Return a table of questions as it is, and one of SQuAD's articles with a row for each of their questions.

    Raises `ValueError` or `TypeError` for articles of another form.
    """
    if _ARTICLES not in table.columns:
        return table
    rows, places = [], []
    for row, paragraphs in enumerate(table.columns[_ARTICLES]):
        for place, values in _questions_of(paragraphs, table.where(row)):
            rows.append(values | ({TITLE_COLUMN: table[TITLE_COLUMN][row]} if TITLE_COLUMN in table.columns else {}))
            places.append(place)
    return Table.from_records(rows, table.source, places)


def _questions_of(paragraphs: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place of each question of an article, and its row."""
    for number, paragraph in enumerate(_listed(paragraphs, f"{where}: {_ARTICLES}")):
        place = f"{where}, paragraph {number}"
        if not isinstance(paragraph, Mapping) or not {"context", "qas"} <= paragraph.keys():
            raise ValueError(f"{place} is {_short(paragraph)}; expected an object with context and qas")
        for index, question in enumerate(_listed(paragraph["qas"], f"{place}: qas")):
            if not isinstance(question, Mapping) or not {"question", "id"} <= question.keys():
                raise ValueError(
                    f"{place}, question {index} is {_short(question)}; expected an object with question, id"
                )
            row = {"id": question["id"], "question": question["question"], "context": paragraph["context"]}
            stated = {name: question[name] for name in (ANSWERS_COLUMN, IMPOSSIBLE_COLUMN) if name in question}
            yield f"{place}, question {question['id']}", row | stated


def _listed(value: Any, where: str) -> Sequence[Any]:
    if not is_list(value):
        raise TypeError(f"{where} is a {type(value).__name__}; expected a list, as in the files of SQuAD")
    return list(value)


def _column(table: Table, what: str, given: str | None, usual: str) -> str:
    name = usual if given is None else given
    if name not in table.columns:
        hint = did_you_mean(name, table.columns)
        raise ValueError(
            f"{table.source} has no column {name!r} for the {what}: its columns are {listing(table.columns)}{hint}; "
            f"expected question, context and answers, or {_ARTICLES} as in the files of SQuAD"
        )
    return name


def _texts(table: Table, column: str) -> list[str]:
    values = list(table.columns[column])
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(f"{table.where(row)}: {column} is {value!r} of type {type(value).__name__}; expected text")
        if not value.isascii():
            check_characters(f"{table.where(row)}: {column}", value)
    return values


def _ids(table: Table, first: int) -> list[str]:
    """Return the id of each question, by default its row; raise ValueError for one that two have."""
    if ID_COLUMN not in table.columns:
        return [str(first + row) for row in range(len(table))]
    ids = [str(first + row) if is_empty(value) else str(value) for row, value in enumerate(table.columns[ID_COLUMN])]
    found: dict[str, int] = {}
    for row, name in enumerate(ids):
        if found.setdefault(name, row) != row:
            raise ValueError(
                f"{table.where(row)}: the id {name!r} is that of {table.where(found[name])} too; expected another for "
                "each question, as answers are scored by it"
            )
    return ids


def _answers(given: Any, context: str, table: Table, row: int) -> tuple[Answer, ...] | None:
    """Return the accepted answers of a question, each of which must be in the context where it is said to begin."""
    stated = table.columns[IMPOSSIBLE_COLUMN][row] if IMPOSSIBLE_COLUMN in table.columns else None
    impossible = str(stated).lower() in _TRUE
    if is_empty(given):
        return () if impossible else None
    found: list[Answer] = []
    for text, start in _pairs(given, table, row):
        if impossible:
            raise ValueError(f"{table.where(row)}: is_impossible is true, and there are answers; expected one of these")
        begin = as_integer(start)
        if not isinstance(text, str) or begin is None or begin < 0:
            raise TypeError(f"{table.where(row)}: an answer is {text!r} at {start!r}; expected text and a whole number")
        if not text.strip():
            raise ValueError(
                f"{table.where(row)}: an answer is {text!r}, without a letter; expected a part of the context, or no "
                "answer at all, an empty list, where the context has none"
            )
        if context[begin : begin + len(text)] != text:
            raise ValueError(
                f"{table.where(row)}: the answer {_short(text)} is not at its answer_start {begin}, where the context "
                f"has {_short(context[begin : begin + len(text)])}; expected {_where_it_is(text, context, begin)}"
            )
        found.append(Answer(text, begin))
    return tuple(found)


def _pairs(given: Any, table: Table, row: int) -> Iterator[tuple[Any, Any]]:
    """Yield text and place of each answer, in whichever of the usual forms they are written."""
    answers = [given] if isinstance(given, Mapping) else given
    if not is_list(answers):
        raise TypeError(f"{table.where(row)}: answers is {_short(given)}; expected {_FORM}")
    for answer in answers:
        if not isinstance(answer, Mapping) or not {"text", "answer_start"} <= answer.keys():
            raise ValueError(f"{table.where(row)}: answers is {_short(given)}; expected {_FORM}")
        texts, starts = answer["text"], answer["answer_start"]
        if is_list(texts) != is_list(starts) or (is_list(texts) and len(texts) != len(starts)):
            raise ValueError(f"{table.where(row)}: answers is {_short(given)}; expected an answer_start for each text")
        yield from zip(texts, starts, strict=True) if is_list(texts) else [(texts, starts)]


def _where_it_is(text: str, context: str, near: int) -> str:
    """Return what to do about an answer that is not where it is said to begin."""
    places = []
    place = context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    if not places:
        return "a part of the context, with the same letters and spaces"
    nearest = min(places, key=lambda place: abs(place - near))
    return f"{nearest}, where it is: answer_start counts characters, not bytes"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
