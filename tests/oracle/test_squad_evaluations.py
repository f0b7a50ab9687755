"""Answers and their scores as SQuAD's official evaluations and transformers' example give them: by their own code.

Copies of that code lie in packages: of both official scripts in tf-models-official and, of 2.0, in transformers 4; of
`postprocess_qa_predictions` (run_qa.py) in autotrain-advanced. `make transformers4` installs these. torchmetrics has
that of 1.1 with the F1 of 2.0, which differs where an answer has no word.
"""

from __future__ import annotations

import ast
import collections
import importlib.util
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.eight_tokenizers import write_vocabulary
from support.many_scripts import texts

import kdistill as kd
from kdistill.data.dataset import Dataset
from kdistill.data.question_windows import encode_questions
from kdistill.data.questions import Questions, read_questions
from kdistill.data.ragged import Ragged
from kdistill.metrics.answers import answer_scores
from kdistill.models.trained_with import TrainedWith
from kdistill.tasks.answer_spans import SpanRules, extract_answers
from kdistill.tasks.question_answering import TASK

transformers = pytest.importorskip("transformers")

WHERE = "make transformers4"
ODD_ANSWERS = [
    "The Beatles", "beatles", "1,000 kg", "1000kg", "New York City", "the new   york", "York York New", "U.S.", "us",
    "naïve — the “end”", "e\u0301tude", "étude", "東京都", "東京 都", "an-other", "x_y", "in the end (of) a", "😀 wow",
    "İstanbul",
]  # fmt: skip
WITHOUT_WORDS = ["the", "a an", "", "  ", "...", "The!"]


Articles = list[dict[str, Any]]


def articles(names: list[str], accepted: list[list[str]]) -> Articles:
    """References in the form of SQuAD's own file."""
    pairs = zip(names, accepted, strict=True)
    return [{"paragraphs": [{"qas": [{"id": name, "answers": [{"text": text} for text in of]} for name, of in pairs]}]}]


def official_1(answers: dict[str, str], references: Articles) -> dict[str, float]:
    module = pytest.importorskip("official.nlp.tools.squad_evaluate_v1_1", reason=f"no tf-models-official: {WHERE}")
    found = module.evaluate(references, answers)
    return {"exact_match": 100 * found["exact_match"], "f1": 100 * found["final_f1"]}


def torchmetrics_1(answers: dict[str, str], references: Articles) -> dict[str, float]:
    module = pytest.importorskip("torchmetrics.functional.text", reason="no torchmetrics (extra oracle)")
    given = [{"id": name, "prediction_text": text} for name, text in answers.items()]
    rows = [
        {"id": row["id"], "answers": {"text": [each["text"] for each in row["answers"]], "answer_start": []}}
        for row in references[0]["paragraphs"][0]["qas"]
    ]
    return {name: float(value) for name, value in module.squad(given, rows).items()}


OF_2 = {"exact": "exact_match", "f1": "f1", "HasAns_exact": "HasAns_exact", "HasAns_f1": "HasAns_f1"} | {
    "NoAns_exact": "NoAns_exact", "NoAns_f1": "NoAns_f1"
}  # fmt: skip
"""Their name -> ours."""


def official_2(answers: dict[str, str], references: Articles, doubts: dict[str, float] | None) -> dict[str, float]:
    module = pytest.importorskip("official.nlp.tools.squad_evaluate_v2_0", reason=f"no tf-models-official: {WHERE}")
    found = module.evaluate(references, answers, doubts)
    best = {"best_f1": found["final_f1"], "best_f1_thresh": found["final_f1_thresh"]} if doubts else {}
    return {OF_2[name]: value for name, value in found.items() if name in OF_2} | best


def transformers_2(answers: dict[str, str], references: Articles, doubts: dict[str, float] | None) -> dict[str, float]:
    module = pytest.importorskip("transformers.data.metrics.squad_metrics", reason=f"not in transformers 5: {WHERE}")
    rows = [SimpleNamespace(qas_id=row["id"], answers=row["answers"]) for row in references[0]["paragraphs"][0]["qas"]]
    found = module.squad_evaluate(rows, answers, doubts, no_answer_probability_threshold=np.inf)
    best = {name: found[name] for name in ("best_f1", "best_f1_thresh")} if doubts else {}
    return {OF_2[name]: value for name, value in found.items() if name in OF_2} | best


@pytest.fixture(scope="module")
def postprocess() -> Callable[..., dict[str, str]]:
    """`postprocess_qa_predictions`, without its module, which imports what `datasets` has no longer."""
    package = importlib.util.find_spec("autotrain")
    if package is None or not package.submodule_search_locations:
        pytest.skip(f"no autotrain-advanced, which has the example's code: {WHERE}")
    path = Path(package.submodule_search_locations[0], "trainers", "extractive_question_answering", "utils.py")
    tree = ast.parse(path.read_text())
    wanted = "postprocess_qa_predictions"
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == wanted]
    names: dict[str, Any] = {"np": np, "os": os, "json": json, "collections": collections}
    names["logger"] = logging.getLogger(__name__)
    exec(compile(tree, path, "exec"), names)
    found: Callable[..., dict[str, str]] = names[wanted]
    return found


@pytest.mark.parametrize("program", [official_1, torchmetrics_1])
def test_scores_of_version_1(program: Callable[..., dict[str, float]]) -> None:
    texts = ODD_ANSWERS + WITHOUT_WORDS if program is official_1 else ODD_ANSWERS[::4]
    accepted = [[text] for text in texts] + [[one, other] for one, other in zip(texts, texts[3:], strict=False)]
    names = [f"q{row}" for row in range(len(accepted))]
    for answer in texts:
        figures = answer_scores([answer] * len(accepted), accepted, no_answers=False).figures()
        expected = program(dict.fromkeys(names, answer), articles(names, accepted))
        assert figures == pytest.approx(expected, rel=1e-6)  # torchmetrics computes in float32


@pytest.mark.parametrize("program", [official_2, transformers_2])
def test_scores_of_version_2(program: Callable[..., dict[str, float]]) -> None:
    texts = ODD_ANSWERS + WITHOUT_WORDS
    accepted = [[], *([text] for text in texts), *([one, other] for one, other in zip(texts, texts[3:], strict=False))]
    names = [f"q{row}" for row in range(len(accepted))]
    for answer in texts:
        figures = answer_scores([answer] * len(accepted), accepted, no_answers=True).figures()
        expected = program(dict.fromkeys(names, answer), articles(names, accepted), None)
        assert figures == pytest.approx(expected, rel=1e-12)


class Case(NamedTuple):
    """Questions in windows, and logits of their tokens."""

    rows: list[dict[str, Any]]
    dataset: Dataset
    logits: np.ndarray
    features: list[dict[str, Any]]

    @property
    def questions(self) -> Questions:
        """As kdistill reads them."""
        return self.dataset.windows.questions  # type: ignore[union-attr]

    @property
    def references(self) -> Articles:
        """The accepted answers in the form of SQuAD's file."""
        return articles([row["id"] for row in self.rows], [row["answers"]["text"] for row in self.rows])

    def per_window(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The logits as a trainer of transformers returns them: of first tokens, and of last."""
        bounds = self.dataset.starts[1:-1]
        return np.split(self.logits[:, 0], bounds), np.split(self.logits[:, 1], bounds)

    def measured(self, *names: str, **trained: Any) -> dict[str, float]:
        """kdistill's figures of the logits."""
        outputs = Ragged(self.logits, self.dataset.starts)
        found = TASK.trained(TrainedWith(**trained)).compute(names, outputs, self.dataset.targets)  # type: ignore[misc]
        return dict(found)


def made_case(directory: Path, rows: list[dict[str, Any]], max_length: int, doc_stride: int, seed: int) -> Case:
    """Windows by kdistill and, as features, by transformers' tokenizer; logits that know some of the answers."""
    random = np.random.default_rng(seed)
    dataset = encode_questions(
        read_questions(rows), kd.AutoTokenizer.from_pretrained(directory), max_length=max_length, doc_stride=doc_stride
    )
    encoded = transformers.AutoTokenizer.from_pretrained(directory)(
        [row["question"].lstrip() for row in rows],
        [row["context"] for row in rows],
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    features = []
    for window, row in enumerate(encoded["overflow_to_sample_mapping"]):
        places = zip(encoded["offset_mapping"][window], encoded.sequence_ids(window), strict=True)
        offsets = [place if of == 1 else None for place, of in places]  # as prepare_validation_features has them
        features.append({"example_id": rows[row]["id"], "offset_mapping": offsets})
    logits = random.standard_normal((int(dataset.starts[-1]), 2)).astype(np.float32) * 2
    for window, label in enumerate(dataset.labels):
        for end, place in enumerate(label):
            logits[dataset.starts[window] + place, end] += random.choice([0, 3, 6, 9])
    return Case(rows, dataset, logits, features)


@pytest.fixture(scope="module", params=["many scripts", "real"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Questions with one to three answers in contexts of several windows."""
    if request.param == "real":
        shared = request.getfixturevalue("shared_dir")
        found = read_questions(shared / "data" / "squadshifts" / "new_wiki_v1.0.json")
        rows = []
        for row in range(0, len(found), 60):
            fields = {"text": [one.text for one in found.answers[row] or ()]}
            fields |= {"answer_start": [one.start for one in found.answers[row] or ()]}
            rows.append({"id": found.ids[row], "question": found.questions[row], "context": found.contexts[row]})
            rows[-1] |= {"answers": fields}
        return made_case(shared / "models" / "bert-base-uncased", rows, 160, 48, seed=2)
    random = np.random.default_rng(7)
    lines = [" ".join(text.split()) for text in texts(500, seed=3, special=0)]
    lines = [line for line in lines if len(line.split()) > 2]
    rows = []
    for row in range(len(lines) // 5):
        context = " ".join([*lines[5 * row : 5 * row + 5], ODD_ANSWERS[row % len(ODD_ANSWERS)]])
        words, answers = context.split(" "), []
        for _ in range(random.integers(1, 4)):
            first = int(random.integers(len(words)))
            text = " ".join(words[first : first + int(random.integers(1, 5))])
            answers.append((text, len(" ".join([*words[:first], ""]))))
        fields = {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]}
        rows.append({"id": f"q{row}", "question": f"  what {row}?", "context": context, "answers": fields})
    return made_case(write_vocabulary("bert", tmp_path_factory.mktemp("words")), rows, 64, 16, seed=1)


def without_answers(case: Case) -> Case:
    """The same with a third of the questions unanswerable, and logits that know some of them."""
    rows = [
        row | {"answers": {"text": [], "answer_start": []}} if n % 3 == 0 else row for n, row in enumerate(case.rows)
    ]
    windows = replace(case.dataset.windows, questions=read_questions(rows))
    dataset = replace(case.dataset, windows=windows)
    logits = case.logits.copy()
    random = np.random.default_rng(5)
    for window, question in enumerate(windows.examples):
        logits[dataset.starts[window]] += random.choice([4, 9, 14, 18] if question % 3 == 0 else [0, 3, 6, 12])
    return Case(rows, dataset, logits, case.features)


@pytest.mark.parametrize("program", [official_1, torchmetrics_1])
def test_answers_and_figures_of_version_1_from_the_same_logits(
    case: Case, postprocess: Callable[..., dict[str, str]], program: Callable[..., dict[str, float]]
) -> None:
    assert len(case.features) > 1.5 * len(case.rows)
    examples = Examples(case.rows)
    config = SimpleNamespace(text_column="context")
    answers = postprocess(examples, case.features, case.per_window(), config)
    ours = extract_answers(case.logits, case.dataset.starts, case.dataset.windows, SpanRules())
    assert [each.best.text for each in ours] == list(answers.values())
    expected = program(dict(answers), case.references)
    assert case.measured("exact_match", "f1") == pytest.approx(expected, rel=1e-6)
    assert 20 < expected["f1"] < 95


@pytest.mark.parametrize("program", [official_2, transformers_2])
@pytest.mark.parametrize("threshold", [0.0, -3.0, 2.5])
def test_answers_and_figures_of_version_2_from_the_same_logits(
    case: Case, postprocess: Callable[..., dict[str, str]], program: Callable[..., dict[str, float]], threshold: float
) -> None:
    case = without_answers(case)
    examples, config = Examples(case.rows), SimpleNamespace(text_column="context")
    settings = {"version_2_with_negative": True}
    answers = postprocess(
        examples, case.features, case.per_window(), config, null_score_diff_threshold=threshold, **settings
    )
    rules = SpanRules(no_answers=True, null_score_diff_threshold=threshold)
    ours = list(extract_answers(case.logits, case.dataset.starts, case.dataset.windows, rules))
    assert [each.best.text for each in ours] == list(answers.values())
    assert 0.02 < np.mean([text == "" for text in answers.values()]) < 0.9
    expected = program(dict(answers), case.references, None)
    share = 1 / (1 + np.exp(-threshold))
    assert case.measured(*expected, no_answers=True, threshold=share) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("program", [official_2, transformers_2])
def test_the_best_threshold_of_version_2_from_the_same_logits(
    case: Case, postprocess: Callable[..., dict[str, str]], program: Callable[..., dict[str, float]], tmp_path: Path
) -> None:
    """The example writes the doubts to a file; its answers without a threshold are those that are weighed."""
    case = without_answers(case)
    answers = postprocess(
        *(Examples(case.rows), case.features, case.per_window(), SimpleNamespace(text_column="context")),
        version_2_with_negative=True,
        null_score_diff_threshold=np.inf,
        output_dir=str(tmp_path),
    )
    doubts = json.loads((tmp_path / "null_odds.json").read_text())
    expected = program(dict(answers), case.references, doubts)
    found = case.measured("best_f1", "best_f1_thresh", no_answers=True)
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-9)


class Examples(list[dict[str, Any]]):
    """Rows with columns, as `datasets` has them."""

    def __getitem__(self, key: Any) -> Any:
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)
