"""Weights of labels in training: as torch defines them, whatever the micro-batches, settled on the training rows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_run import run_fields, small_config, small_dataset, small_model, weights, write_model, write_rows

from kdistill.cli import main as cli
from kdistill.data.dataset import Dataset
from kdistill.models.classes import BertForTokenClassification
from kdistill.models.config import BertConfig
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.label_weights import run_weights
from kdistill.trainers import DistillationTrainer, Trainer

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def rows_of(problem_type: str, rows: int = 16, seed: int = 0) -> Dataset:
    """Rows of which three quarters have the first label (and, of several, a quarter the second)."""
    dataset = small_dataset(rows, seed)
    order = np.arange(rows)
    ids = (order % 4 == 3).astype(np.int64)
    labels = ids if problem_type == SINGLE else np.stack([order % 4 > 0, order % 4 == 0], 1).astype(np.float32)
    return Dataset(dataset.ids, dataset.types, dataset.starts, labels)


def one_step(directory: Path, problem_type: str, **changes: Any) -> Trainer:
    fields = {"max_steps": 1, "eval_strategy": "no", "save_strategy": "no", "report_to": "none"} | changes
    args = TrainingArguments(**run_fields(directory, {"per_device_train_batch_size": 16} | fields))
    trainer = Trainer(small_model(problem_type=problem_type, **NO_DROPOUT), args, train_dataset=rows_of(problem_type))
    trainer.train()
    return trainer


def first_logits(problem_type: str) -> NDArray[np.float64]:
    model = small_model(problem_type=problem_type, **NO_DROPOUT)
    return Trainer(model).predict(rows_of(problem_type)).predictions.astype(np.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_step_is_the_weighted_mean(tmp_path: Path, smoothing: float) -> None:
    z, y, w = first_logits(SINGLE), rows_of(SINGLE).labels, np.array([0.5, 3.0])
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    target = np.full(z.shape, smoothing / 2)
    target[np.arange(len(y)), y] += 1 - smoothing
    expected = -(w * target * log_p).sum() / w[y].sum()
    trainer = one_step(tmp_path, SINGLE, class_weights=w.tolist(), label_smoothing_factor=smoothing)
    assert trainer.results["train_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_several_labels_weighs_those_that_are_true(tmp_path: Path, smoothing: float) -> None:
    z, w = first_logits(MULTI), np.array([0.5, 3.0])
    y = (1 - smoothing) * rows_of(MULTI).labels + smoothing / 2
    expected = (w * y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)).mean()
    trainer = one_step(tmp_path, MULTI, pos_weight=w.tolist(), label_smoothing_factor=smoothing)
    assert trainer.results["train_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("problem_type", "name"), [(SINGLE, "class_weights"), (MULTI, "pos_weight")])
def test_gradients_accumulate_to_those_of_one_batch(tmp_path: Path, problem_type: str, name: str) -> None:
    """Micro-batches of one row, whose own weighted mean would make class weights vanish."""
    given = {name: [0.25, 4.0]}
    whole = one_step(tmp_path / "whole", problem_type, **given)
    parts = one_step(
        tmp_path / "parts", problem_type, **given, per_device_train_batch_size=1, gradient_accumulation_steps=16
    )
    plain = one_step(tmp_path / "plain", problem_type)
    assert parts.results["train_loss"] == pytest.approx(whole.results["train_loss"], rel=1e-6)
    assert whole.state.log_history[0]["grad_norm"] == pytest.approx(parts.state.log_history[0]["grad_norm"], rel=1e-5)
    assert whole.state.log_history[0]["grad_norm"] != pytest.approx(plain.state.log_history[0]["grad_norm"], rel=1e-2)


def tagged_rows(rows: int = 12) -> Dataset:
    """Rows of tokens, of which special ones take no part and every seventh is of no known tag."""
    dataset = small_dataset(rows)
    tags = np.where(dataset.ids < 7, 1, 0)
    tags[::7] = -1
    return Dataset(*dataset.batch(np.arange(rows))[0], np.where(dataset.ids < 5, -100, tags), per_token=True)


def one_tagging_step(directory: Path, **changes: Any) -> Trainer:
    fields = {"max_steps": 1, "eval_strategy": "no", "report_to": "none", "per_device_train_batch_size": 12} | changes
    model = BertForTokenClassification(small_config(**NO_DROPOUT, initializer_range=0.2), seed=1)
    rows = tagged_rows()
    labels = np.where(rows.labels == -1, -100, rows.labels)
    trainer = Trainer(
        model, TrainingArguments(**run_fields(directory, fields)), train_dataset=replace(rows, labels=labels)
    )
    trainer.train()
    return trainer


def test_tags_are_weighted_by_the_words_of_a_step(tmp_path: Path) -> None:
    """As torch's CrossEntropyLoss(weight=w, ignore_index=-100) over all tokens; also with micro-batches of a row."""
    w, rows = np.array([0.5, 3.0]), tagged_rows()
    model = BertForTokenClassification(small_config(**NO_DROPOUT, initializer_range=0.2), seed=1)
    z = model.forward(rows.batch(np.arange(len(rows)))[0]).astype(np.float64)
    log_p, known = z - np.log(np.exp(z).sum(axis=1, keepdims=True)), rows.labels >= 0
    y = rows.labels[known]
    expected = -(w[y] * log_p[known, y]).sum() / w[y].sum()
    whole = one_tagging_step(tmp_path / "whole", class_weights=w.tolist())
    assert whole.results["train_loss"] == pytest.approx(expected, rel=1e-5)
    parts = one_tagging_step(
        tmp_path / "parts", class_weights=w.tolist(), per_device_train_batch_size=1, gradient_accumulation_steps=12
    )
    assert parts.results["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert whole.state.log_history[0]["grad_norm"] == pytest.approx(parts.state.log_history[0]["grad_norm"], rel=1e-5)


def test_balanced_weights_of_tags_count_words() -> None:
    rows = tagged_rows()
    found = run_weights(
        TrainingArguments("x", class_weights="balanced"), SINGLE, config(SINGLE, "ab"), rows.labels, rows.starts
    )
    assert found is not None
    known = rows.labels[rows.labels >= 0]
    assert found.values.tolist() == pytest.approx([len(known) / (2 * (known == tag).sum()) for tag in (0, 1)])
    with pytest.raises(ValueError, match=r"no training word has the label 'c'; expected words of every label"):
        run_weights(TrainingArguments("x", class_weights="balanced"), SINGLE, config(SINGLE), rows.labels, rows.starts)


@pytest.mark.filterwarnings("ignore:the teacher's accuracy is")
def test_weights_act_on_the_labels_of_a_distillation_alone(tmp_path: Path) -> None:
    teacher = small_model(2, problem_type=SINGLE)

    def distilled(name: str, **changes: Any) -> NDArray[Any]:
        fields = {"max_steps": 2, "eval_strategy": "no", "report_to": "none", "teacher_cache": False} | changes
        args = DistillationTrainingArguments(**run_fields(tmp_path / name, fields))
        model = small_model(problem_type=SINGLE)
        DistillationTrainer(model, args, teacher_model=teacher, train_dataset=rows_of(SINGLE)).train()
        return weights(model)

    with pytest.warns(UserWarning, match="class_weights has no effect here: with alpha 0"):
        alone = distilled("weighted", alpha=0.0, class_weights="balanced")
    np.testing.assert_array_equal(alone, distilled("plain", alpha=0.0))
    assert (distilled("both", class_weights="balanced") != distilled("none")).any()


def config(problem_type: str, names: str = "abc") -> BertConfig:
    return BertConfig(id2label=dict(enumerate(names)), problem_type=problem_type)


def settled(problem_type: str, labels: NDArray[Any], names: str = "abc", **given: Any) -> list[float]:
    found = run_weights(TrainingArguments("x", **given), problem_type, config(problem_type, names), labels)
    assert found is not None
    return found.values.tolist()


def test_balanced_weights() -> None:
    """n / (classes * n of the class), as scikit-learn documents "balanced"; (n - with it) / with it, at most ten."""
    ids = np.array([0] * 6 + [1] * 3 + [2] + [-100] * 5)
    assert settled(SINGLE, ids, class_weights="balanced") == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    several = np.zeros((50, 3), np.float32)
    several[:40, 0], several[:10, 1], several[:1, 2] = 1, 1, 1
    several = np.concatenate([several, np.full((5, 3), np.nan, np.float32)])
    assert settled(MULTI, several, pos_weight="balanced") == pytest.approx([0.25, 4.0, 10.0])


@pytest.mark.parametrize("given", ["0.5,2,8", [0.5, 2, 8], np.array([0.5, 2, 8]), {"c": 8, "a": 0.5, "b": 2}])
def test_the_forms_of_weights(given: Any) -> None:
    assert settled(SINGLE, np.zeros(2, np.int64), class_weights=given) == [0.5, 2, 8]
    assert settled(SINGLE, np.zeros(2, np.int64), class_weights='{"a": 0.5, "b": 2, "c": 8}') == [0.5, 2, 8]


@pytest.mark.parametrize(
    ("problem_type", "given", "message"),
    [
        (SINGLE, {"class_weights": [1, 2]}, "class_weights has 2 numbers; expected 3, one for each of a, b, c"),
        (SINGLE, {"class_weights": {"a": 1, "b": 2}}, "class_weights has no number for 'c'; expected one for every"),
        (
            SINGLE,
            {"class_weights": {"a": 1, "b": 2, "d": 3}},
            "class_weights has 'd', which is no label; expected one of a, b, c",
        ),
        (
            SINGLE,
            {"class_weights": "balanced"},
            "class_weights is 'balanced', and no training row has the label 'b', 'c'; expected rows of every label",
        ),
        (SINGLE, {"class_weights": [0, 0, 0]}, "class_weights is 0 for every label"),
        (SINGLE, {"pos_weight": "balanced"}, f"pos_weight is given with problem_type '{SINGLE}'; expected class_weigh"),
        (MULTI, {"class_weights": [1, 1, 1]}, f"class_weights is given with problem_type '{MULTI}'; expected pos_weig"),
        (REGRESSION, {"class_weights": "balanced"}, "whose loss has no weights of labels; leave it out"),
    ],
)
def test_weights_that_do_not_fit(problem_type: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        run_weights(TrainingArguments("x", **given), problem_type, config(problem_type), np.zeros(3, np.int64))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            "balance",
            ValueError,
            "class_weights is 'balance'; expected 'balanced', a number >= 0 for each label such as",
        ),
        ("1,a", ValueError, "class_weights is '1,a'; expected 'balanced'"),
        ('{"a"', ValueError, """class_weights is '{"a"'; expected 'balanced'"""),
        ([1, -2], ValueError, "class_weights[1] is -2.0; expected a finite number >= 0"),
        ({"b": float("nan")}, ValueError, "class_weights['b'] is nan; expected a finite number >= 0"),
        ([True, 1], TypeError, "class_weights[0] is True; expected a number >= 0"),
        (3.0, TypeError, "class_weights is 3.0; expected 'balanced'"),
    ],
)
def test_weights_that_cannot_be(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        TrainingArguments("x", class_weights=given)


def test_weights_are_recorded_and_a_resumed_run_warns_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "train.tsv", 16)
    (tmp_path / "config.toml").write_text("class_weights = [0.3, 2.0]\nnum_train_epochs = 1\n")
    command = ["finetune", "--model", model, "--train", rows, "--output-dir", tmp_path / "out", "--json"]
    assert cli.main([*map(str, command), "--config", str(tmp_path / "config.toml")]) == 0
    assert json.loads((tmp_path / "out/training_args.json").read_text())["class_weights"] == [0.3, 2.0]
    assert "| `class_weights` | [0.3, 2.0] |" in (tmp_path / "out/README.md").read_text()
    assert "--class-weights 0.3,2.0" in (tmp_path / "out/command.txt").read_text()
    capsys.readouterr()
    resumed = ["--class-weights", '{"negative": 1, "positive": 2}', "--num-train-epochs", "1", "--resume"]
    assert cli.main([*map(str, command), *resumed]) == 0
    assert "class_weights was [0.3, 2.0] and is now {'negative': 1.0" in capsys.readouterr().err


def test_a_command_with_weights_that_do_not_fit_ends_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "train.tsv", 16)
    command = ["finetune", "--model", model, "--train", rows, "--output-dir", tmp_path / "out", "--json"]
    assert cli.main([*map(str, command), "--class-weights", "1,2,3"]) == 2
    assert (
        "error: --class-weights has 3 numbers; expected 2, one for each of negative, positive"
        in capsys.readouterr().err
    )
