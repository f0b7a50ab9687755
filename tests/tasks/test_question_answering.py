"""Question answering as a task: losses, evaluation, threshold, distillation, the teacher cache, resuming."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_fields, question_model, question_tokenizer, questions

from kdistill.data.ragged import Ragged
from kdistill.distill import cache
from kdistill.models.trained_with import TrainedWith
from kdistill.tasks.answer_spans import SpanRules, extract_answers
from kdistill.tasks.question_answering import TASK
from kdistill.tasks.registry import choose_metrics, task_for
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.encoding import encode_for
from kdistill.trainers import DistillationTrainer, Trainer


def trainer(directory: Path, train: Any = None, evaluation: Any = None, **changes: Any) -> Trainer:
    return Trainer(
        question_model(),
        TrainingArguments(**question_fields(directory, **changes)),
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=question_tokenizer(directory),
    )


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A trained model that gives no answer where there is none."""
    directory = tmp_path_factory.mktemp("questions")
    made = trainer(directory, questions(2500, without_answer=0.3), questions(200, 1, without_answer=0.3))
    made.train()
    return made


def own_exact_match(prediction: Any) -> dict[str, float]:
    """As the metric `squad_v2` reads them: by id, an answer against texts, of which there may be none."""
    answers = {each["id"]: each["prediction_text"] for each in prediction.predictions}
    accepted = {each["id"]: each["answers"]["text"] or [""] for each in prediction.label_ids}
    assert answers.keys() == accepted.keys()
    return {"own": 100 * float(np.mean([answers[name] in texts for name, texts in accepted.items()]))}


def test_a_users_metrics_get_answers_and_references(learned: Trainer) -> None:
    rows = questions(50, 2, without_answer=0.3)
    seen: list[Any] = []

    def compute_metrics(prediction: Any) -> dict[str, float]:
        seen.append(prediction)
        return own_exact_match(prediction)

    learned.compute_metrics = compute_metrics
    try:
        metrics = learned.evaluate([*rows, {**rows[0], "id": "unlabelled", "answers": None}])
    finally:
        learned.compute_metrics = None
    assert metrics["eval_own"] == pytest.approx(metrics["eval_exact_match"])
    assert [each["id"] for each in seen[0].predictions] == [row["id"] for row in rows]
    assert [each["answers"] for each in seen[0].label_ids] == [row["answers"] for row in rows]
    threshold = learned.model.config.trained_with.threshold
    assert [each["no_answer_probability"] > threshold for each in seen[0].predictions] == [
        not each["prediction_text"] for each in seen[0].predictions
    ]


def test_a_users_metrics_of_a_model_that_answers_each_question(tmp_path: Path) -> None:
    seen: list[Any] = []

    def compute_metrics(prediction: Any) -> dict[str, float]:
        seen.append(prediction)
        return own_exact_match(prediction)

    run = trainer(tmp_path, questions(20), questions(10, 1), max_steps=2)
    run.compute_metrics = compute_metrics
    run.train()
    assert run.results["eval_own"] == pytest.approx(run.results["eval_exact_match"])
    assert {tuple(each) for each in seen[-1].predictions} == {("id", "prediction_text")}


def log_softmax(row: np.ndarray) -> np.ndarray:
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def test_losses_are_the_mean_over_first_and_last_tokens(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    starts = np.array([0, 5, 8, 15])
    logits, taught = (random.standard_normal((15, 2)).astype(np.float32) for _ in range(2))
    labels = np.array([[1, 3], [0, 0], [-100, -100]])
    hard, soft = [], []
    for row, (a, b) in enumerate(pairwise(starts)):
        for end in range(2):
            ours, theirs = (log_softmax(of[a:b, end].astype(np.float64) / 2) for of in (logits, taught))
            soft.append(4 * float((np.exp(theirs) * (theirs - ours)).sum()))
            if labels[row, end] >= 0:
                hard.append(-log_softmax(logits[a:b, end].astype(np.float64))[labels[row, end]])
    parts = TASK.teacher_loss(Ragged(logits, starts), Ragged(taught, starts), labels, alpha=0.0, temperature=2.0)
    assert parts.loss == pytest.approx(np.mean(soft), rel=1e-5)
    assert parts.hard == pytest.approx(np.mean(hard), rel=1e-5)
    labelled = Ragged(logits[:8], starts[:3])
    assert TASK.label_loss(labelled, labels[:2])[0] == pytest.approx(np.mean(hard), rel=1e-5)


def test_a_model_learns_and_is_measured_by_question(learned: Trainer) -> None:
    rows = learned.eval_dataset
    metrics = learned.evaluate()
    assert metrics["eval_n"] == 200 < len(rows)
    assert metrics["eval_f1"] > 75
    assert metrics["eval_HasAns_f1"] > 50 < metrics["eval_NoAns_f1"]
    trained = learned.model.config.trained_with
    assert (trained.max_length, trained.doc_stride, trained.no_answers) == (10, 2, True)
    assert trained.threshold_rows == "evaluation"
    output = learned.predict(rows)
    task = task_for(learned.model.config)
    assert task.threshold == trained.threshold
    doubt = math.log(trained.threshold / (1 - trained.threshold))
    rules = SpanRules(no_answers=True, null_score_diff_threshold=doubt)
    answers = list(extract_answers(output.predictions.values, rows.starts, rows.windows, rules))
    right = [
        each.best.text in ([answer.text for answer in accepted] or [""])
        for each, accepted in zip(answers, rows.windows.questions.answers, strict=True)
    ]
    assert metrics["eval_exact_match"] == pytest.approx(100 * np.mean(right))


def test_the_threshold_is_the_best_of_all(learned: Trainer) -> None:
    """No threshold between two questions' doubts, tried one by one, has a better F1 than the chosen one."""
    rows = learned.eval_dataset
    outputs = learned.predict(rows).predictions
    plain = task_for(learned.model.config.with_trained(TrainedWith(no_answers=True)))
    chosen = plain.suited_to(outputs, rows.targets)
    best = chosen.compute(["f1"], outputs, rows.targets)["f1"]
    found = extract_answers(outputs.values, rows.starts, rows.windows, SpanRules(no_answers=True))
    doubts = sorted(each.doubt for each in found if each.doubt is not None)
    tried = [doubts[0] - 1, *((a + b) / 2 for a, b in pairwise(doubts)), doubts[-1] + 1]
    scores = [
        plain.at_threshold(1 / (1 + math.exp(-doubt))).compute(["f1"], outputs, rows.targets)["f1"]
        for doubt in tried[:: max(1, len(tried) // 25)]
        if plain.at_threshold is not None
    ]
    assert best >= max(scores) - 1e-9
    measured = plain.compute(["best_f1"], outputs, rows.targets)["best_f1"]
    assert measured == pytest.approx(best)


def test_questions_without_an_answer_are_refused_where_each_has_one(tmp_path: Path) -> None:
    plain = trainer(tmp_path, questions(50), questions(20, 1, without_answer=0.5))
    with pytest.raises(ValueError, match=r"of 20 questions have no answer, the first .* \(SQuAD 1.1\): give --thres"):
        plain.evaluate()
    allowed = trainer(tmp_path, None, questions(20, 1, without_answer=0.5), threshold=0.5)
    assert "eval_NoAns_f1" in allowed.evaluate()


def test_a_run_without_answers_is_refused(tmp_path: Path) -> None:
    rows = [{"question": "good", "context": "good film"}] * 3
    with pytest.raises(ValueError, match="3 rows without a label of 3; expected a label in every row"):
        trainer(tmp_path, rows, eval_strategy="no").train()
    with pytest.raises(ValueError, match=r"has no labels; expected a label .*the list has no label column"):
        trainer(tmp_path, None, rows).evaluate()
    assert len(trainer(tmp_path).predict(rows).predictions) == 3


def test_a_student_learns_from_a_teacher_whose_logits_are_cached(learned: Trainer, tmp_path: Path) -> None:
    rows = questions(600, 2, without_answer=0.3)
    results = []
    for name in ("first", "second"):
        args = DistillationTrainingArguments(**question_fields(tmp_path / name, num_train_epochs=1, alpha=0.2))
        made = DistillationTrainer(
            question_model(seed=5),
            args,
            teacher_model=learned.model,
            train_dataset=rows,
            eval_dataset=questions(100, 3, without_answer=0.3),
            processing_class=learned.processing_class,
        )
        made.train()
        results.append((np.array(made.model.flat_parameters), made.evaluate()["eval_loss"]))
        assert made.model.config.trained_with.doc_stride == 2
        cached = cache.cached_rows(learned.model, made.train_dataset)
        assert cached.all()
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert np.isfinite(results[0][1])


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    train, evaluation = questions(120, without_answer=0.2), questions(40, 1, without_answer=0.2)
    whole = trainer(tmp_path, train, evaluation, num_train_epochs=2, output_dir=str(tmp_path / "whole"))
    whole.train()
    begun = trainer(tmp_path, train, evaluation, num_train_epochs=2, output_dir=str(tmp_path / "begun"))
    begun.train()
    first = sorted(Path(begun.args.output_dir).glob("checkpoint-*"))[0]
    again = trainer(tmp_path, train, evaluation, num_train_epochs=2, output_dir=str(tmp_path / "begun"))
    again.train(resume_from_checkpoint=str(first))
    np.testing.assert_array_equal(again.model.flat_parameters, whole.model.flat_parameters)


def test_metrics_are_chosen_by_name_and_rules_are_kept_with_the_model(learned: Trainer) -> None:
    made = Trainer(
        learned.model,
        TrainingArguments(disable_tqdm=True, max_answer_length=1, n_best=2),
        processing_class=learned.processing_class,
        compute_metrics=choose_metrics("best_f1", "best_f1_thresh"),
    )
    before = learned.model.config
    try:
        metrics = made.evaluate(questions(50, 4, without_answer=0.4))
        assert {"eval_best_f1", "eval_best_f1_thresh"} <= metrics.keys()
        trained = made.model.config.trained_with
        assert (trained.max_answer_length, trained.n_best) == (1, 2)
    finally:
        learned.model.config = before


def test_other_rows_than_questions_are_refused(learned: Trainer) -> None:
    tokenizer, args = learned.processing_class, TrainingArguments(disable_tqdm=True)
    with pytest.raises(ValueError, match="no column 'question'"):
        encode_for(learned.model.config, ["good film"], tokenizer, args)
    with pytest.raises(ValueError, match="questions are text; pass a tokenizer"):
        encode_for(learned.model.config, questions(2), None, args)
    features = [{"input_ids": [2, 3], "start_positions": 0, "end_positions": 1}]  # as in run_qa.py of transformers
    for reader in (tokenizer, None):
        with pytest.raises(ValueError, match=r"the list has questions that are already tokens \(column 'input_ids'\)"):
            encode_for(learned.model.config, features, reader, args)
    long = [{"question": "good film bad plot", "context": "good film bad plot actor scene"}]
    with pytest.raises(ValueError, match=r"row 0 of the list: doc_stride is 4, and max_length 10 leaves 3 tokens"):
        encode_for(learned.model.config, long, tokenizer, TrainingArguments(disable_tqdm=True, doc_stride=4))
