"""Bodies of requests, as SageMaker and Hugging Face's inference toolkit send them, to texts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.columns import LABEL_COLUMNS, TEXT_COLUMNS, TEXT_PAIR_COLUMNS
from ..data.text_files import lines_of
from ..system.unicode import check_characters
from ..text.blocks import Input
from .classifier import NOT_GIVEN, Form
from .media_types import CSV, JSON, JSON_LINES
from .refusal import Refusal, shown

_EXPECTED = 'expected a text, {"text": ..., "text_pair": ...}, or a list of these'
# Names by which a CSV's first line is a header, in lower case.
_TEXT_HEADERS = ("inputs", "text_a", "sentence1", *TEXT_COLUMNS)
_PAIR_HEADERS = (
    ("inputs", "text_pair"),
    ("text_a", "text_b"),
    *((first.lower(), second.lower()) for first, second in TEXT_PAIR_COLUMNS),
)
_LABEL_HEADERS = tuple(name.lower() for name in LABEL_COLUMNS)
_DEFAULT = Form()


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks.

    Attributes:
        inputs: its texts or pairs.
        form: how the answers are to look.
        single: "text" or "pair" where there is one input without a list around it; "" for a list.
    """

    inputs: Sequence[Input]
    form: Form = _DEFAULT
    single: str = ""

    def shaped(self, answers: list[Any]) -> Any:
        """Return the answers in the shape that a pipeline of transformers gives them for such inputs."""
        if self.single == "" or (self.single == "text" and self.form.top_k is NOT_GIVEN):
            return answers
        return answers[0]


def read_question(content_type: str, body: bytes | bytearray, most: int) -> Question:
    """Return what a body asks.

    Args:
        content_type: one of `media_types.READ`.
        body: its bytes.
        most: how many texts it may have.

    Raises:
        Refusal: 400 for a body that cannot be understood, 413 for too many texts.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    text = text.removeprefix("\ufeff")
    if content_type == JSON:
        question = _of_json(_parsed(text, "the body"))
    elif content_type == JSON_LINES:
        question = _of_lines(text)
    elif content_type == CSV:
        question = Question(_of_csv(text))
    else:
        question = Question(lines_of(text))
    if not question.inputs:
        raise Refusal(400, "the request has no text; expected at least one")
    if len(question.inputs) > most:
        raise Refusal(413, f"the request has {len(question.inputs):,} texts; expected at most {most:,} (--max-texts)")
    if not text.isascii() or "\\" in text:  # only then can there be half a character
        _check(question.inputs)
    return question


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Refusal(400, f"{where} is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise Refusal(400, f"{where} is JSON of too many levels; {_EXPECTED}") from None
    except ValueError:  # an integer of more digits than Python reads
        raise Refusal(400, f"{where} holds a number of too many digits; {_EXPECTED}") from None


def _of_json(content: Any) -> Question:
    form = _DEFAULT
    if isinstance(content, dict) and "inputs" in content:
        unknown = content.keys() - {"inputs", "parameters"}
        if unknown:
            raise Refusal(400, f"the body has {shown(min(unknown))}; expected inputs and perhaps parameters")
        if content.get("parameters") is not None:
            form = _form(content["parameters"])
        content = content["inputs"]
    elif isinstance(content, dict) and not ("text" in content and content.keys() <= {"text", "text_pair"}):
        raise Refusal(400, 'the body has no "inputs"; expected {"inputs": ..., "parameters": {...}}')
    if isinstance(content, list):
        return Question([_input(value, f"inputs[{index}]") for index, value in enumerate(content)], form)
    single = "pair" if isinstance(content, dict) else "text"
    return Question([_input(content, "inputs")], form, single)


def _form(parameters: Any) -> Form:
    if not isinstance(parameters, dict):
        raise Refusal(400, f"parameters is {shown(parameters)}; expected an object")
    try:
        return Form.of(parameters)
    except ValueError as error:
        raise Refusal(400, str(error)) from None


def _input(value: Any, name: str) -> Input:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or "text" not in value or not value.keys() <= {"text", "text_pair"}:
        raise Refusal(400, f"{name} is {shown(value)}; {_EXPECTED}")
    text, pair = value["text"], value.get("text_pair")
    if not isinstance(text, str) or not isinstance(pair, str | None):
        wrong, found = ("text_pair", pair) if isinstance(text, str) else ("text", text)
        raise Refusal(400, f"{name}.{wrong} is {shown(found)}; expected a text")
    return text if pair is None else (text, pair)


def _of_lines(text: str) -> Question:
    """Return what JSON lines ask: each line is a body of one text, and all of them want the same form."""
    inputs: list[Input] = []
    forms: list[Form] = []
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        question = _of_json(_parsed(line, f"line {number}"))
        if not question.single:
            raise Refusal(400, f"line {number} holds a list; expected one text or pair a line")
        inputs += question.inputs
        forms.append(question.form)
    if len(set(forms)) > 1:
        raise Refusal(400, "the lines have different parameters; expected the same in each, or separate requests")
    return Question(inputs, forms[0] if forms else _DEFAULT)


def _of_csv(text: str) -> list[Input]:
    """Return the rows of a CSV with one column, the text, or two, a pair.

    A first line that names columns is a header. A batch transform cuts a file into requests of some lines each, of
    which only the first has it.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise Refusal(400, f"the body is not CSV: {error}") from None
    names = tuple(name.strip().lower() for name in rows[0]) if rows else ()
    is_reversed = names[::-1] in _PAIR_HEADERS
    if is_reversed or names in _PAIR_HEADERS or (len(names) == 1 and names[0] in _TEXT_HEADERS):
        rows = rows[1:]
    elif len(names) == 2 and set(names) & set(_TEXT_HEADERS) and set(names) & set(_LABEL_HEADERS):
        raise Refusal(400, f"the CSV has the columns {' and '.join(names)}; expected texts only, without labels")
    inputs: list[Input] = []
    for number, row in enumerate(rows, 1):
        if len(row) != len(names) or len(row) > 2:
            raise Refusal(
                400,
                f"row {number} of the CSV has {len(row)} columns; expected one, the text, or two, a pair, in every row "
                '(a text with a comma is quoted: "...")',
            )
        inputs.append(row[0] if len(row) == 1 else (row[1], row[0]) if is_reversed else (row[0], row[1]))
    return inputs


def _check(inputs: Iterable[Input]) -> None:
    try:
        for index, row in enumerate(inputs):
            for text in (row,) if isinstance(row, str) else row:
                check_characters(f"text {index}", text)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
