"""The contents of the pictures, read back from the axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdistill.report.assessment import wilson_interval
from kdistill.train.state import TrainerState

pytest.importorskip("matplotlib")

from kdistill.report import figures

LOG = [
    {"loss": 0.7, "epoch": 1.0, "step": 5},
    {"eval_loss": 0.6, "eval_accuracy": 0.75, "epoch": 1.0, "step": 5},
    {"loss": 0.5, "epoch": 2.0, "step": 10},
    {"eval_loss": 0.4, "eval_accuracy": 0.875, "epoch": 2.0, "step": 10},
]


def lines(axes: Any) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}


def test_training_curves() -> None:
    figure = figures.training_curves({"one": TrainerState(log_history=LOG), "none yet": TrainerState()})
    losses, accuracies = figure.axes
    assert lines(losses) == {"one: training": [(1, 0.7), (2, 0.5)], "one: evaluation": [(1, 0.6), (2, 0.4)]}
    assert lines(accuracies) == {"one": [(1, 0.75), (2, 0.875)]}


def test_a_picture_is_an_svg_with_words_and_the_same_bytes_each_time() -> None:
    first, second = (figures.training_curves({"one": TrainerState(log_history=LOG)})._repr_svg_() for _ in range(2))
    assert first == second
    svg, metadata = first
    assert svg.startswith("<?xml")
    assert "accuracy on the evaluation rows</text>" in svg
    assert metadata == {"alt": "loss; accuracy on the evaluation rows"}


@pytest.fixture
def study() -> Any:
    """Trials whose objective is x alone, with one that was pruned and one that failed."""
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    states = optuna.trial.TrialState

    def tried(x: float, y: float, state: Any, value: float | None) -> Any:
        return optuna.trial.create_trial(
            params={"x": x, "y": y},
            distributions={name: optuna.distributions.FloatDistribution(0, 1) for name in ("x", "y")},
            state=state,
            value=value,
            intermediate_values={1: 0.25, 2: 0.5},
        )

    random = np.random.default_rng(0)
    for x, y in random.random((40, 2)):
        study.add_trial(tried(x, y, states.COMPLETE, x))
    study.add_trial(tried(0.5, 0.5, states.PRUNED, 0.5))
    study.add_trial(tried(0.5, 0.5, states.FAIL, None))
    return study


def test_search_history(study: Any) -> None:
    (axes,) = figures.search_history(study).axes
    drawn = lines(axes)
    values = [trial.value for trial in study.trials[:40]]
    assert [y for _, y in drawn["trial"]] == values
    assert [y for _, y in drawn["best so far"]] == [max(values[: n + 1]) for n in range(40)]
    assert drawn["pruned, where it stood"] == [(40, 0.5)]


def test_parameter_importance(study: Any) -> None:
    (axes,) = figures.parameter_importance(study).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    shares = dict(zip(names, (bar.get_width() for bar in axes.patches), strict=True))
    assert shares["x"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_reliability_diagram() -> None:
    """Three rows of confidence 0.75, two of them right, and one of 0.99, right."""
    sure, surer = np.log(3.0), np.log(99.0)
    logits = np.array([[sure, 0], [0, sure], [sure, 0], [surer, 0]], dtype=np.float32)
    labels = np.array([0, 1, 1, 0])
    (axes,) = figures.reliability_diagram({"model": logits}, labels).axes
    (points,) = axes.collections
    assert np.asarray(points.get_offsets()) == pytest.approx(np.array([[0.75, 2 / 3], [0.99, 1.0]]))
    error = 3 / 4 * abs(2 / 3 - 0.75) + 1 / 4 * abs(1 - 0.99)
    assert points.get_label() == f"model (ECE {error:.3f})"


def test_accuracy_against_speed() -> None:
    interval = wilson_interval(0.8, 100)
    figure = figures.accuracy_against_speed({"small": figures.ModelPoint(1000.0, 0.8, interval, 4_400_000)})
    (axes,) = figure.axes
    ((point, _, (bar,)),) = axes.containers
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (1000.0, 0.8)
    assert bar.get_segments()[0][:, 1] == pytest.approx(interval)
    assert axes.get_xscale() == "log"
    assert axes.get_legend().get_texts()[0].get_text() == "small: 4.4M parameters"


def test_attention_maps_have_a_panel_a_head() -> None:
    attention = np.random.default_rng(0).dirichlet(np.ones(3), (2, 3))
    panels = figures.attention_maps(attention, ["[CLS]", "good", "[SEP]"], "layer 0").axes
    assert [np.array_equal(axes.images[0].get_array(), attention[head]) for head, axes in enumerate(panels)] == [
        True
    ] * 2
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["[CLS]", "good", "[SEP]"]


def test_gradient_norms() -> None:
    gradients = {"first": np.array([3.0, 4.0], dtype=np.float32), "second": np.ones((2, 2), dtype=np.float32)}
    (axes,) = figures.gradient_norms(gradients).axes
    assert [bar.get_width() for bar in axes.patches] == [2, 5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["second", "first"]


CLASSES = ["joy", "an $odd_name$", "a name of more letters than an axis has room for"]


def test_confusion_matrix() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 0]]
    figure = figures.confusion_matrix(logits, np.array([0, 0, 1, 0, 2, -100]), CLASSES)
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 0, 1]])
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (predicted, true): str(((2, 1, 0), (0, 1, 0), (0, 0, 1))[true][predicted])
        for true in range(3)
        for predicted in range(3)
    }
    joy, odd, long = (label.get_text() for label in axes.get_yticklabels())
    assert (joy, odd, len(long)) == ("joy", r"an \$odd_name\$", 31)
    assert "joy</text>" in figure._repr_svg_()[0]


def test_confusion_matrix_of_many_classes_grows_and_has_no_numbers() -> None:
    names = [f"class {k}" for k in range(77)]
    figure = figures.confusion_matrix(np.eye(77, dtype=np.float32), np.arange(77), names)
    axes = figure.axes[0]
    assert not axes.texts
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert min(figure.get_size_inches()) > 77 * 5 / 72  # room for letters of five points in each row
