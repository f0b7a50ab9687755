"""`trainer.create_model_card()`: each problem type, rows in memory, and what the card at the end of a run costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.card_reading import row_of, tables
from support.small_questions import question_tokenizer, questions
from support.small_run import run_fields, sentences, small_config, small_dataset, small_model

import kdistill as kd
from kdistill.data.dataset import Dataset
from kdistill.data.overlap import find_overlap
from kdistill.metrics.entities import seqeval_is_there
from kdistill.metrics.prediction import EvalPrediction
from kdistill.tasks.registry import choose_metrics
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.trainers import DistillationTrainer, Trainer

TRAIN, EVAL = small_dataset(48), small_dataset(20, seed=1)
pytestmark = pytest.mark.filterwarnings("ignore:the teacher.s (accuracy|loss)")


@pytest.fixture(autouse=True)
def _few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdistill.report.measure.SPEED_SECONDS", 0.0)


def relabelled(rows: Dataset, kind: str) -> Dataset:
    if kind == "regression":
        return dataclasses.replace(rows, labels=rows.labels.astype(np.float32) + 0.25)
    both = np.stack([rows.labels, 1 - rows.labels], axis=1)
    return dataclasses.replace(rows, labels=both.astype(np.float32))


def card_in(directory: Path) -> str:
    return (directory / "out" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
def test_other_problem_types(tmp_path: Path, kind: str) -> None:
    """Other seeds and a run without a teacher, where there is no accuracy or one of several labels."""
    labels = {"id2label": {0: "score"}} if kind == "regression" else {}

    def run(name: str, **changes: object) -> DistillationTrainer:
        fields = run_fields(tmp_path / name, {"metric_for_best_model": "loss", **changes})
        trainer = DistillationTrainer(
            small_model(2, problem_type=kind, **labels),
            DistillationTrainingArguments(**fields),
            teacher_model=small_model(5, problem_type=kind, **labels),
            train_dataset=relabelled(TRAIN, kind),
            eval_dataset=relabelled(EVAL, kind),
        )
        trainer.train()
        return trainer

    run("alone", seed=1, alpha=1.0)
    second, trainer = run("second", seed=2), run("first", seed=1)
    figures = trainer.create_model_card(
        without_teacher=[tmp_path / "alone" / "out"], seed_runs=[tmp_path / "second" / "out"]
    )
    measured = trainer.evaluate()
    name = "mse" if kind == "regression" else "f1"
    assert figures[name] == measured[f"eval_{name}"]
    values = [measured[f"eval_{name}"], second.evaluate()[f"eval_{name}"]]
    assert figures["over_seeds"][name]["mean"] == pytest.approx(np.mean(values))
    assert figures["over_seeds"][name]["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert ("mcnemar" in figures["without_teacher"][0]) == (kind != "regression")
    assert "ece" not in figures
    card = card_in(tmp_path / "first")
    assert row_of(card, "this model")[name] == f"{figures[name]:.4f}"
    assert row_of(card, "the same without a teacher, `out`")[name]
    assert ("gives a text a number" in card) == (kind == "regression")
    assert ("A row is right when all of its labels are predicted and no other." in card) == (kind != "regression")
    labels_of_rows = relabelled(EVAL, kind).labels.astype(np.float64)
    if kind == "regression":
        always = row_of(card, f"always the mean, `{labels_of_rows.mean():.3g}`")
        assert always["mse"] == f"{labels_of_rows.var():.4f}"
        assert not always["pearson"]
    else:
        assert any(row[""].startswith("always the most frequent labels, `") for row in next(tables(card)))
    assert list(empty_columns(card)) == []
    losses = [measured["eval_loss"], second.evaluate()["eval_loss"]]
    assert figures["over_seeds"]["loss"]["mean"] == pytest.approx(np.mean(losses))
    assert (f"the best of 2 seeds by loss, and their mean of {np.mean(losses):.4f}" in card) == (losses[0] < losses[1])


def empty_columns(card: str) -> Iterator[str]:
    """The columns of a card's tables in which no row has anything."""
    for table in tables(card):
        for column in table[0]:
            if not any(row[column] for row in table):
                yield column


@pytest.mark.parametrize("best", ["pearson", "eval_spearmanr"])
def test_a_regression_has_the_teacher_s_correlations_and_their_intervals(tmp_path: Path, best: str) -> None:
    labels = np.random.default_rng(0).normal(size=20).astype(np.float32)
    rows = dataclasses.replace(EVAL, labels=labels)
    config = {"problem_type": "regression", "id2label": {0: "score"}}
    trainer = DistillationTrainer(
        small_model(2, **config),
        DistillationTrainingArguments(**run_fields(tmp_path, {"metric_for_best_model": best})),
        teacher_model=small_model(5, **config),
        train_dataset=rows,
        eval_dataset=rows,
    )
    trainer.train()
    figures = trainer.create_model_card(measure_speed=False)
    card = card_in(tmp_path)
    said = trainer.teacher_model.forward(rows.batch(np.arange(20))[0])[:, 0].astype(np.float64)
    r = np.corrcoef(said, labels)[0, 1]
    assert figures["teacher"]["pearson"] == pytest.approx(r)
    low, high = (np.tanh(np.arctanh(r) + sign * 1.959963985 / np.sqrt(17)) for sign in (-1, 1))
    assert (figures["teacher"]["pearson_low"], figures["teacher"]["pearson_high"]) == pytest.approx((low, high))
    told = row_of(card, "teacher `the teacher`")
    assert (told["pearson"], told["95 % interval of pearson"]) == (f"{r:.4f}", f"{low:.4f} to {high:.4f}")
    assert row_of(card, "this model")["95 % interval of spearmanr"]
    assert (
        "Fisher's (1921) for Pearson's correlation and Bonett and Wright's (2000) for Spearman's, on 20 rows." in card
    )
    (course,) = (table for table in tables(card) if "evaluation loss" in table[0])
    assert all(row["pearson"] for row in course)
    assert ("spearmanr" in course[0]) == (best == "eval_spearmanr")
    assert list(empty_columns(card)) == []


@pytest.mark.filterwarnings("ignore:.* share text with")
def test_chosen_metrics_are_measured_of_every_model_and_set_of_rows(tmp_path: Path) -> None:
    trainer = DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**run_fields(tmp_path, {"metric_for_best_model": "f1_macro"})),
        teacher_model=small_model(5),
        train_dataset=TRAIN,
        eval_dataset=EVAL,
        compute_metrics=choose_metrics("f1_macro"),
    )
    trainer.train()
    figures = trainer.create_model_card(holdout=small_dataset(30, seed=9), measure_speed=False)
    for found in (figures, figures["teacher"], figures["holdout"], figures["holdout"]["teacher"]):
        assert 0 <= found["f1_macro"] <= 1
    assert figures["teacher"]["f1_macro"] == trainer.results["teacher_f1_macro"]
    assert row_of(card_in(tmp_path), "teacher `the teacher`")["f1_macro"] == f"{figures['teacher']['f1_macro']:.4f}"


def test_a_teacher_s_metrics_of_a_user_s_function_are_those_of_the_run(tmp_path: Path) -> None:
    trainer = DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**run_fields(tmp_path, {})),
        teacher_model=small_model(5),
        train_dataset=TRAIN,
        eval_dataset=EVAL,
        compute_metrics=lambda prediction: {"largest": float(prediction.predictions.max())},
    )
    trainer.train()
    figures = trainer.create_model_card(measure_speed=False)
    largest = trainer.teacher_model.forward(EVAL.batch(np.arange(20))[0]).max()
    assert figures["teacher"]["largest"] == largest != figures["largest"]
    assert row_of(card_in(tmp_path), "teacher `the teacher`")["largest"] == f"{largest:.4f}"


def test_metadata_and_metrics_of_ones_own(tmp_path: Path) -> None:
    """`compute_metrics` is not called for the card: what the run's evaluation gave is told."""
    calls: list[int] = []

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        calls.append(len(prediction.label_ids))
        return {"half": 0.5}

    trainer = Trainer(
        small_model(),
        TrainingArguments(**run_fields(tmp_path, {})),
        train_dataset=TRAIN,
        eval_dataset=EVAL,
        compute_metrics=compute_metrics,
    )
    trainer.train()
    assert calls == [20, 20]
    figures = trainer.create_model_card("en", "mit", tags=["a", "b"], model_name="my/model", dataset_tags="x/y")
    assert calls == [20, 20]
    assert figures["half"] == 0.5
    card = card_in(tmp_path)
    header = card.split("---\n")[1]
    assert 'language: ["en"]' in header
    assert 'license: "mit"' in header
    assert '"a", "b"]' in header
    assert 'metrics: ["accuracy"]' in header
    assert 'datasets: ["x/y"]' in header
    assert "# my/model\n" in card
    assert 'from_pretrained("my/model")' in card
    assert '"dataset": {"type": "x/y", "name": "x/y"}' in header  # rows in memory have no split
    trainer.create_model_card(dataset="The Y of X", dataset_tags=["x/y", "x/z"], measure_speed=False)
    assert '"dataset": {"type": "x/y", "name": "The Y of X"}' in card_in(tmp_path)
    trainer.provenance = dataclasses.replace(trainer.provenance, dataset="Ours")
    trainer.create_model_card(measure_speed=False)
    assert '"dataset": {"type": "Ours", "name": "Ours"}' in card_in(tmp_path)


def test_teacher_is_not_run_for_the_card_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its logits for both sets of rows are there already, with no cache on disk as well."""
    teacher = small_model(5)
    trainer = DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**run_fields(tmp_path, {"teacher_cache": False})),
        teacher_model=teacher,
        train_dataset=TRAIN,
        eval_dataset=EVAL,
    )
    rows: list[int] = []
    forward = teacher.forward

    def counted(batch: Any, train: bool = False) -> Any:
        logits = forward(batch, train)
        rows.append(len(logits))
        return logits

    monkeypatch.setattr(teacher, "forward", counted)
    trainer.train()
    assert len(rows) == 2  # one pass over each set
    assert "agrees with teacher" in row_of(card_in(tmp_path), "this model")
    assert "sentences/s" not in row_of(card_in(tmp_path), "this model")


def test_holdout_in_memory(tmp_path: Path) -> None:
    trainer = Trainer(
        small_model(), TrainingArguments(**run_fields(tmp_path, {})), train_dataset=TRAIN, eval_dataset=EVAL
    )
    trainer.train()
    with (
        pytest.warns(UserWarning, match="20 of the 20 rows .* share text with the evaluation rows"),
        pytest.warns(UserWarning, match="6 of the 20 rows .* share text with the training rows"),
    ):
        figures = trainer.create_model_card(holdout=EVAL, measure_speed=False)
    assert figures["holdout"]["accuracy"] == figures["accuracy"]
    assert "apart" not in figures["holdout"]
    assert figures["holdout"]["rows_shared_with_evaluation"] == 20


def test_comparisons_need_rows_with_labels(tmp_path: Path) -> None:
    args = TrainingArguments(**run_fields(tmp_path, {"eval_strategy": "no"}))
    trainer = Trainer(small_model(), args, train_dataset=TRAIN)
    trainer.train()
    before = card_in(tmp_path)
    with pytest.raises(ValueError, match="eval_dataset has no labelled rows"):
        trainer.create_model_card(seed_runs=[tmp_path / "out"])
    assert card_in(tmp_path) == before
    assert "The model was not evaluated" in before
    assert "\nmetrics:" not in before


def rows_of_task(task: str) -> Any:
    if task == "question-answering":
        return questions(12)
    texts, labels = zip(*sentences(12), strict=True)
    if task == "token-classification":
        words = [text.split() for text in texts]
        return {"tokens": words, "tags": [["B-x" if word == "film" else "O" for word in row] for row in words]}
    return {"text": list(texts), "label": list(labels)} | ({"text_pair": ["film"] * 12} if task == "pairs" else {})


@pytest.mark.parametrize("task", ["text-classification", "pairs", "token-classification", "question-answering"])
def test_a_card_shows_how_to_use_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    kinds = {
        "token-classification": kd.BertForTokenClassification,
        "question-answering": kd.BertForQuestionAnswering,
    }
    labels = {0: "O", 1: "B-x"} if task == "token-classification" else {0: "a", 1: "b"}
    trainer = Trainer(
        kinds.get(task, kd.BertForSequenceClassification)(small_config(id2label=labels), seed=1),
        TrainingArguments(**run_fields(tmp_path, {"max_steps": 1})),
        train_dataset=rows_of_task(task),
        eval_dataset=rows_of_task(task),
        processing_class=question_tokenizer(tmp_path),
    )
    trainer.train()
    card = card_in(tmp_path)
    code = card.partition("## Use\n\n```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)  # as a reader does
    if "logits" in found:
        assert f"# {found['logits'].shape}" in code
    assert ("tag" in found) == (task == "token-classification")
    assert ("answer" in found) == ("evaluation, in percent" in card) == (task == "question-answering")


def test_a_card_tells_the_architectures_of_student_and_teacher(tmp_path: Path) -> None:
    shape = {"vocab_size": 13, "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
    labels = {"id2label": {0: "negative", 1: "positive"}}
    student = kd.DistilBertConfig(max_position_embeddings=16, intermediate_size=32, **shape, **labels)
    teacher = kd.RobertaConfig(max_position_embeddings=18, intermediate_size=32, **shape, **labels)
    trainer = DistillationTrainer(
        kd.DistilBertForSequenceClassification(student, seed=1),
        DistillationTrainingArguments(**run_fields(tmp_path, {"max_steps": 1})),
        teacher_model=kd.RobertaForSequenceClassification(teacher, seed=2),
        train_dataset=TRAIN,
        eval_dataset=EVAL,
    )
    trainer.train()
    card = card_in(tmp_path)
    assert 'tags: ["distilbert", "text-classification", "kdistill", "knowledge-distillation"]' in card
    assert "DistilBERT with 1 layer, hidden size 16" in card
    assert "distilled from the teacher `the teacher` (RoBERTa) with kdistill." in card
    assert "kd.DistilBertForSequenceClassification.from_pretrained" in card


def test_a_card_counts_what_has_a_label(tmp_path: Path) -> None:
    rows = rows_of_task("token-classification")
    measured_on = rows_of_task("token-classification")
    measured_on["tags"][0][0] = None  # one that nobody knows
    trainer = Trainer(
        kd.BertForTokenClassification(small_config(id2label={0: "O", 1: "B-x"}), seed=1),
        TrainingArguments(**run_fields(tmp_path, {"max_steps": 1, "max_length": 6})),
        train_dataset=rows,
        eval_dataset=measured_on,
        processing_class=question_tokenizer(tmp_path),
    )
    trainer.train()
    trainer.create_model_card()
    card = card_in(tmp_path)
    words = sum(map(len, rows["tokens"])) - 1
    assert sum(int(row["support"]) for row in next(t for t in tables(card) if "support" in t[0])) == words
    assert "Support is the number of words that have the label." in card
    entities = "; f1, precision and recall count entities, as seqeval does" if seqeval_is_there() else ""
    assert f"Accuracy is that of the words' tags{entities}." in card
    assert [*next(table for table in tables(card) if "share" in table[0])[0]] == [
        "label",
        "predicted",
        "words",
        "share",
    ]
    listed = {row["argument"] for row in next(table for table in tables(card) if "argument" in table[0])}
    assert "`label_all_tokens`" in listed
    assert not listed & {"`n_best`", "`max_answer_length`"}
    used = row_of(card, "training")
    assert (used["rows"], used["with label"]) == ("12", "12")
    tags = [tag for row in measured_on["tags"] for tag in row if tag is not None]
    most = max(tags.count("O"), tags.count("B-x"))
    assert row_of(card, "evaluation")["most frequent label"] == f"{most / words:.1%}"
    assert f"Speed is that of {len(trainer.eval_dataset)} windows of these rows" in card
    assert len(trainer.eval_dataset) > 12
    assert 'aggregation_strategy="simple"' in card
    trainer.model.config = trainer.model.config.replace(id2label={0: "NOUN", 1: "VERB"})
    trainer.create_model_card()
    assert "aggregation_strategy" not in card_in(tmp_path)  # there are no entities


@pytest.mark.filterwarnings("ignore:.* share text with")
def test_held_out_questions_count_whole_and_are_left_out_whole(tmp_path: Path) -> None:
    trainer = Trainer(
        kd.BertForQuestionAnswering(small_config(), seed=1),
        TrainingArguments(
            **run_fields(tmp_path, {"max_steps": 1, "max_length": 7, "doc_stride": 1, "eval_strategy": "no"})
        ),
        train_dataset=questions(20),
        processing_class=question_tokenizer(tmp_path),
    )
    trainer.train()
    again = {**max(questions(20), key=lambda row: len(row["context"])), "id": "again"}
    again["context"] = again["context"] + " film"  # the first window is one of training, the last is not
    held = [*questions(30, seed=5), again]
    figures = trainer.create_model_card(holdout=held, measure_speed=False)["holdout"]
    rows = trainer._encoded(held)
    overlap = find_overlap(rows, trainer.train_dataset)
    shared = {int(rows.windows.examples[row]) for row in np.flatnonzero(overlap.shared)}
    assert len(rows) > 31 == figures["rows"]
    assert 30 in shared
    assert figures["rows_shared_with_training"] == len(shared)
    assert figures["apart"]["n"] == 31 - len(shared)
    assert f"**{len(shared)} of the 31 rows share text with the training rows**" in card_in(tmp_path)
