"""Figures of a distillation for a notebook or a report, drawn by matplotlib (extra `[plots]`).

Each function returns a `matplotlib.figure.Figure`, which Jupyter shows and `savefig` writes.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.labels import labelled_rows
from ..metrics.prediction import Labels, Logits
from ..search.study import import_optuna
from ..train.state import TrainerState
from .assessment import Interval, calibration_bins, expected_calibration_error

_COLOURS = ("#0b63a5", "#d9730d", "#5f6b76", "#2f855a", "#9b3fa3")
_MOST_NUMBERED, _LONGEST_NAME = 15, 30  # classes of a confusion matrix with numbers, letters of a name beside it
_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
}


class ModelPoint(NamedTuple):
    """A model in `accuracy_against_speed`: its speed, its accuracy with the 95 % interval, and its size."""

    sentences_per_second: float
    accuracy: float
    interval: Interval
    num_parameters: int


def training_curves(runs: Mapping[str, TrainerState]) -> Any:
    """Plot training loss, evaluation loss and, where it was measured, accuracy over the epochs.

    Args:
        runs: the state of each run, by the name in the legend.
    """
    keys = {key for state in runs.values() for entry in state.history() for key in entry}
    figure, (losses, *others) = _figure(1 + any(key.endswith("_accuracy") for key in keys))
    for colour, (name, state) in zip(_cycle(len(runs)), runs.items(), strict=True):
        history = state.history()
        timed = [key for entry in history for key in entry if key.startswith("eval_") and key.endswith("_runtime")]
        curves = [("loss", losses, f"{name}: training", "-")]
        # eval, or eval_<name> of each of several sets
        for prefix in dict.fromkeys(["eval", *(key.removesuffix("_runtime") for key in timed)]):
            which = prefix[len("eval_") :]
            curves.append((f"{prefix}_loss", losses, f"{name}: evaluation {which}".rstrip(), "--"))
            curves += [(f"{prefix}_accuracy", axes, f"{name}: {which}" if which else name, "-") for axes in others]
        for key, axes, label, style in curves:
            points = [(entry["epoch"], entry[key]) for entry in history if key in entry]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=".")
    losses.set(title="loss", xlabel="epoch")
    _legend(losses)
    for accuracies in others:
        accuracies.set(title="accuracy on the evaluation rows", xlabel="epoch")
        _legend(accuracies)
    return figure


def search_history(study: Any) -> Any:
    """Plot the objective of each trial of an Optuna study, and the best so far.

    Raises:
        ValueError: the study has several directions, so that there is no best.
    """
    if len(study.directions) > 1:
        raise ValueError("the study has several directions; plot it with optuna.visualization.plot_pareto_front(study)")
    maximize = study.direction.name == "MAXIMIZE"
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED" and trial.intermediate_values]
    figure, (axes,) = _figure(1)
    if complete:
        numbers, values = zip(*((trial.number, trial.value) for trial in complete), strict=True)
        best = (np.maximum if maximize else np.minimum).accumulate(values)
        axes.step(numbers, best, where="post", color=_COLOURS[1], label="best so far")
        axes.plot(numbers, values, "o", color=_COLOURS[0], label="trial")
    if pruned:
        last = [(trial.number, list(trial.intermediate_values.values())[-1]) for trial in pruned]
        axes.plot(*zip(*last, strict=True), "x", color=_COLOURS[2], label="pruned, where it stood")
    axes.set(title="trials of the search", xlabel="trial", ylabel="objective")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(axes)
    return figure


def parameter_importance(study: Any) -> Any:
    """Plot how much each hyperparameter separates a study's good trials from the others, as shares of 1.

    The shares are those of PED-ANOVA (Watanabe et al., 2023, arXiv:2304.10255) in Optuna.

    Args:
        study: an Optuna study with at least two complete trials.
    """
    optuna = import_optuna()
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    figure, (axes,) = _figure(1, height=0.6 + 0.5 * len(shares))
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color=_COLOURS[0], height=0.6)
    axes.grid(visible=False, axis="y")
    axes.set(title="importance of the hyperparameters (PED-ANOVA)", xlim=(0, 1))
    return figure


def reliability_diagram(models: Mapping[str, Logits], labels: Labels) -> Any:
    """Plot accuracy over confidence, one point for each bin of `assessment.calibration_bins`.

    On the diagonal the confidence equals the accuracy. A point's area grows with the rows of its bin, and the legend
    gives the expected calibration error.

    Args:
        models: logits (n, num_labels) of each model, by the name in the legend.
        labels: the labels of the same rows, (n,).
    """
    figure, (axes,) = _figure(1, height=3.6)
    axes.plot([0, 1], [0, 1], color="#9aa3ab", linewidth=1, linestyle=":")
    for colour, (name, logits) in zip(_cycle(len(models)), models.items(), strict=True):
        bins = calibration_bins(logits, labels)
        used = [one for one in bins if one.rows]
        confidence, accuracy, rows = zip(*((one.confidence, one.accuracy, one.rows) for one in used), strict=True)
        axes.plot(confidence, accuracy, color=colour, linewidth=1)
        sizes = 300 * np.array(rows) / sum(rows) + 8
        label = f"{name} (ECE {expected_calibration_error(bins):.3f})"
        axes.scatter(confidence, accuracy, s=sizes, color=colour, alpha=0.8, label=label)
    lowest = 1 / next(iter(models.values())).shape[1]
    axes.set(title="is a model as often right as it says?", xlabel="confidence", ylabel="accuracy", xlim=(lowest, 1.02))
    _legend(axes, loc="upper left", markerscale=0.6)
    return figure


def confusion_matrix(logits: Logits, labels: Labels, names: Sequence[str]) -> Any:
    """Plot which class the rows of each class are taken for, as shares of the class's rows.

    A row of the picture is a true class, a column a predicted one, so the diagonal is the recall. Up to 15 classes
    have the number of rows in each cell; of more, the picture grows and its letters shrink.

    Args:
        logits: of a model whose rows have one label each, (n, num_labels).
        labels: the labels of the same rows, int64 (n,); -100: none.
        names: of the labels, in their order.
    """
    labelled = labelled_rows(labels)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (labels[labelled], logits[labelled].argmax(axis=1)), 1)
    few = len(names) <= _MOST_NUMBERED
    side = max(3.2, (0.55 if few else 0.14) * len(names))
    longest = 0.09 * min(max(map(len, names)), _LONGEST_NAME) * (1 if few else 0.6)
    figure, (axes,) = _figure(1, height=side + longest, width=side + longest + 0.6)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", norm=_colours_of_shares())
    size = "small" if few else 5
    if few:
        for (true, predicted), rows in np.ndenumerate(counts):
            colour = "white" if shares[true, predicted] > 0.3 else "black"
            axes.text(predicted, true, f"{rows:,}", ha="center", va="center", color=colour, fontsize=size)
    shown = [_shortened(name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), shown, fontsize=size)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set(title="share of each class's rows", xlabel="predicted", ylabel="true")
    bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=15, fraction=0.05, pad=0.02)
    bar.ax.tick_params(labelsize="small")
    return figure


def _colours_of_shares() -> Any:
    """Return a scale of the root of a share: what few rows are taken for would be too pale to see."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, 0, 1)


def _shortened(name: str) -> str:
    """Return a name in one line, the middle left out of a long one: beginnings and ends tell classes apart."""
    name = " ".join(name.split()).replace("$", r"\$")
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def accuracy_against_speed(models: Mapping[str, ModelPoint]) -> Any:
    """Plot accuracy, with its 95 % interval, over sentences per second on a logarithmic scale, for models by name."""
    figure, (axes,) = _figure(1)
    for colour, (name, point) in zip(_cycle(len(models)), models.items(), strict=True):
        low, high = point.interval
        reach = [[point.accuracy - low], [high - point.accuracy]]
        label = f"{name}: {point.num_parameters / 1e6:.1f}M parameters"
        axes.errorbar(
            [point.sentences_per_second], [point.accuracy], reach, fmt="o", capsize=4, color=colour, label=label
        )
    axes.set(
        title="accuracy against speed, with 95 % intervals",
        xscale="log",
        xlabel="sentences per second on this machine",
        ylabel="accuracy",
    )
    axes.margins(x=0.25)
    _legend(axes)
    return figure


def attention_maps(attention: NDArray[Any], tokens: Sequence[str], title: str) -> Any:
    """Plot attention probabilities, one panel for each head.

    Args:
        attention: (heads, tokens, tokens), the attention of a row's token to each column's token.
        tokens: the labels of both axes.
        title: stands above each panel, before the number of the head.
    """
    figure, panels = _figure(len(attention), height=3.4)
    for head, axes in enumerate(panels):
        axes.imshow(attention[head], cmap="Blues", vmin=0)
        axes.grid(visible=False)
        axes.set(title=f"{title}, head {head}")
        axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize="small")
        axes.set_yticks(range(len(tokens)), tokens, fontsize="small")
    return figure


def gradient_norms(gradients: Mapping[str, NDArray[np.float32]]) -> Any:
    """Plot the Euclidean norm of each tensor's gradient, by name, on a logarithmic scale."""
    names = list(gradients)[::-1]
    norms = [float(np.linalg.norm(gradients[name])) for name in names]
    figure, (axes,) = _figure(1, height=0.8 + 0.17 * len(names))
    axes.barh(range(len(names)), norms, color=_COLOURS[0], height=0.7)
    axes.grid(visible=False, axis="y")
    axes.set_yticks(range(len(names)), names, fontsize="x-small")
    axes.set(title="norm of each gradient", xscale="log", ylim=(-0.7, len(names) - 0.3))
    axes.set_xlim(left=max(norms) * 1e-4)  # hides the bias of the keys, whose gradient is nothing but rounding errors
    return figure


def _cycle(n: int) -> list[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(n)]


def _legend(axes: Any, **options: Any) -> None:
    axes.legend(fontsize="small", frameon=False, **options)


def _figure(columns: int, height: float = 3.0, width: float | None = None) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, side by side; `height` and `width` are in inches."""
    picture = _picture()
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure = picture(figsize=(width or (6.4 if columns == 1 else 8.4), height), layout="constrained")
        panels = figure.subplots(1, columns, squeeze=False)
    return figure, list(panels[0])


def check_pictures() -> None:
    """Raise `ImportError`, which names the extra to install, where there is no matplotlib."""
    _picture()


@functools.cache
def _picture() -> Any:
    """Return a class of figures that Jupyter shows as SVG without matplotlib's set-up, with reproducible bytes."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "kdistill[plots]"') from error

    class Picture(Figure):
        def _repr_svg_(self) -> tuple[str, dict[str, str]]:
            text = io.StringIO()
            with rc_context({"svg.hashsalt": "kdistill", "svg.fonttype": "none"}):  # "none" keeps text as text
                self.savefig(text, format="svg", metadata={"Date": None})
            return text.getvalue(), {"alt": "; ".join(axes.get_title() for axes in self.axes)}

    return Picture
