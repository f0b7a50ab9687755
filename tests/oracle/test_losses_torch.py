"""Losses and their gradients beside PyTorch's in float64, up to extreme logits and temperatures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch_models
from transformers.trainer_pt_utils import LabelSmoother

import kdistill as kd
from kdistill.losses.spans import span_loss

ROWS = 16
# Losses are computed in float64 and gradients rounded to float32 once, so the bounds do not grow with logits
# or temperature. A gradient that cancels to less than 1e-12 of its terms is known to that much.
LOSS, GRADIENT = {"rel": 1e-9, "abs": 1e-12}, {"rtol": 1e-6, "atol": 1e-10}


def draw(scale: float, labels: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Student logits, teacher logits and labels; the first two rows hold +-scale exactly."""
    rng = np.random.default_rng(8)
    student, teacher = (rng.uniform(-scale, scale, (ROWS, labels)).astype(np.float32) for _ in range(2))
    student[0, :2], teacher[0, :2] = (scale, -scale), (-scale, scale)
    student[1], teacher[1] = scale, -scale
    return student, teacher, rng.integers(labels, size=ROWS)


@pytest.mark.parametrize("labels", [2, 3, 17])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_cross_entropy(scale: float, labels: int) -> None:
    student, _, targets = draw(scale, labels)
    x = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(x, torch.tensor(targets))
    expected.backward()
    loss, dlogits = kd.cross_entropy(student, targets)
    assert dlogits.dtype == np.float32
    assert loss == pytest.approx(expected.item(), **LOSS)
    np.testing.assert_allclose(dlogits, x.grad.numpy(), **GRADIENT)


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0, 100.0])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_distillation_loss(scale: float, temperature: float, alpha: float, labels: int) -> None:
    student, teacher, targets = draw(scale, labels)
    x = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(teacher, dtype=torch.float64)
    expected = torch_models.torch_distillation_loss(x, t, torch.tensor(targets), alpha, temperature)
    expected.backward()
    loss, dlogits = kd.distillation_loss(student, teacher, targets, alpha=alpha, temperature=temperature)
    assert dlogits.dtype == np.float32
    assert loss == pytest.approx(expected.item(), **LOSS)
    np.testing.assert_allclose(dlogits, x.grad.numpy(), **GRADIENT)


@pytest.mark.parametrize("labels", [2, 3, 17])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_label_smoothing(scale: float, smoothing: float, labels: int) -> None:
    """Torch's loss, and the smoother of transformers; two roundings to float32 in the gradient."""
    student, _, targets = draw(scale, labels)
    x = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(x, torch.tensor(targets), label_smoothing=smoothing)
    expected.backward()
    loss, dlogits = kd.cross_entropy(student, targets, smoothing)
    assert dlogits.dtype == np.float32
    assert loss == pytest.approx(expected.item(), **LOSS)
    np.testing.assert_allclose(dlogits, x.grad.numpy(), rtol=1e-6, atol=1e-8)
    smoother = LabelSmoother(epsilon=smoothing)
    theirs = smoother({"logits": torch.tensor(student, dtype=torch.float64)}, torch.tensor(targets))
    assert loss == pytest.approx(theirs.item(), rel=1e-6)  # it adds up in float32


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_label_smoothing_of_the_labels_part(alpha: float) -> None:
    student, teacher, targets = draw(3.0, 3)
    targets[::4] = -100  # alpha 0 for these rows
    x = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    t, y = torch.tensor(teacher, dtype=torch.float64), torch.tensor(targets)
    hard = torch.nn.functional.cross_entropy(x, y, label_smoothing=0.2, reduction="none")
    log_p, q = torch.log_softmax(x / 2.5, 1), torch.softmax(t / 2.5, 1)
    soft = 2.5**2 * (q * (q.log() - log_p)).sum(1)
    weight = torch.where(y == -100, 0.0, torch.tensor(alpha, dtype=torch.float64))
    expected = (weight * hard + (1 - weight) * soft).mean()
    expected.backward()
    loss, dlogits = kd.distillation_loss(student, teacher, targets, alpha, 2.5, label_smoothing=0.2)
    assert loss == pytest.approx(expected.item(), **LOSS)
    np.testing.assert_allclose(dlogits, x.grad.numpy(), rtol=1e-6, atol=1e-8)


def test_rows_without_a_label_learn_from_the_teacher_alone() -> None:
    student, teacher, targets = draw(3.0, 2)
    unlabelled = np.arange(ROWS) % 3 == 0
    soft = kd.distillation_loss(student, teacher, None, alpha=0.5, temperature=2.0)[1]
    both = kd.distillation_loss(student, teacher, targets, alpha=0.5, temperature=2.0)[1]
    mixed = kd.distillation_loss(student, teacher, np.where(unlabelled, -100, targets), alpha=0.5, temperature=2.0)[1]
    np.testing.assert_allclose(mixed[unlabelled], soft[unlabelled], rtol=1e-6)
    np.testing.assert_allclose(mixed[~unlabelled], both[~unlabelled], rtol=1e-6)
    assert np.abs(soft - both).max() > 1e-3


@pytest.mark.parametrize("labels", [1, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.1, 4.0])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_sigmoid_losses(scale: float, temperature: float, alpha: float, labels: int) -> None:
    """BCEWithLogitsLoss, and kl_div of the two-way distributions of each label."""
    rng = np.random.default_rng(11)
    student, teacher = (rng.uniform(-scale, scale, (ROWS, labels)).astype(np.float32) for _ in range(2))
    targets = rng.integers(0, 2, (ROWS, labels)).astype(np.float32)
    x = torch.tensor(student, dtype=torch.float64, requires_grad=True)

    def two_way(z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.logsigmoid(torch.stack([z, -z], -1) / temperature)

    hard = torch.nn.BCEWithLogitsLoss()(x, torch.tensor(targets, dtype=torch.float64))
    log_p = two_way(torch.tensor(teacher, dtype=torch.float64))
    soft = torch.nn.functional.kl_div(two_way(x), log_p, reduction="sum", log_target=True) / x.numel()
    expected = alpha * hard + (1 - alpha) * temperature**2 * soft
    expected.backward()
    loss, dlogits = kd.distillation_loss(
        student, teacher, targets, alpha, temperature, problem_type="multi_label_classification"
    )
    assert loss == pytest.approx(expected.item(), **LOSS)
    np.testing.assert_allclose(dlogits, x.grad.numpy(), **GRADIENT)


@pytest.mark.parametrize("labels", [2, 17])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("scale", [1e-3, 3.0, 1e4])
def test_class_weights_and_smoothing_as_in_cross_entropy_loss(scale: float, smoothing: float, labels: int) -> None:
    student, _, targets = draw(scale, labels)
    weights = np.random.default_rng(labels).uniform(0.1, 9, labels)
    x = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    loss_of_torch = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights), label_smoothing=smoothing)
    expected = loss_of_torch(x, torch.tensor(targets))
    expected.backward()
    loss, dlogits = kd.cross_entropy(student, targets, smoothing, class_weights=weights)
    assert loss == pytest.approx(expected.item(), **LOSS)
    np.testing.assert_allclose(dlogits, x.grad.numpy(), rtol=1e-6, atol=1e-8)
    # Rows without a label, as torch's ignore_index.
    targets[::3] = -100
    expected = loss_of_torch(x, torch.tensor(targets))
    parts = kd.distillation_loss(student, student, targets, 1.0, 1.0, smoothing, class_weights=weights)
    assert parts[0] * ROWS / (targets >= 0).sum() == pytest.approx(expected.item(), **LOSS)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("labels", [1, 5])
@pytest.mark.parametrize("scale", [1e-3, 3.0, 1e4])
def test_pos_weight_and_smoothing_as_in_bce_with_logits_loss(scale: float, labels: int, smoothing: float) -> None:
    rng = np.random.default_rng(11)
    student = rng.uniform(-scale, scale, (ROWS, labels)).astype(np.float32)
    targets = rng.integers(0, 2, (ROWS, labels)).astype(np.float32)
    weights = rng.uniform(0.1, 9, labels)
    x = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    smoothed = torch.tensor(targets, dtype=torch.float64) * (1 - smoothing) + smoothing / 2
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weights))(x, smoothed)
    expected.backward()
    loss, dlogits = kd.label_loss(student, targets, "multi_label_classification", smoothing, pos_weight=weights)
    assert loss == pytest.approx(expected.item(), **LOSS)
    np.testing.assert_allclose(dlogits, x.grad.numpy(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_squared_errors(alpha: float, labels: int) -> None:
    student, teacher, targets = (np.random.default_rng(k).normal(size=(ROWS, labels)) for k in range(3))
    x = torch.tensor(student.astype(np.float32), dtype=torch.float64, requires_grad=True)
    y, t = (torch.tensor(a.astype(np.float32), dtype=torch.float64) for a in (targets, teacher))
    expected = alpha * torch.nn.MSELoss()(x, y) + (1 - alpha) * torch.nn.MSELoss()(x, t)
    expected.backward()
    loss, dlogits = kd.distillation_loss(student, teacher, targets, alpha, problem_type="regression")
    assert loss == pytest.approx(expected.item(), **LOSS)
    np.testing.assert_allclose(dlogits, x.grad.numpy(), **GRADIENT)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_spans_have_the_loss_of_question_answering(smoothing: float) -> None:
    """The mean of the starts' and the ends' cross-entropy, each row without padding."""
    rng = np.random.default_rng(3)
    lengths, scale = [1, 7, 30, 200], 5.0
    starts = np.cumsum([0, *lengths])
    logits = rng.uniform(-scale, scale, (starts[-1], 2)).astype(np.float32)
    labels = np.array([[0, 0], [2, 6], [0, 29], [17, 90]])
    x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    expected = torch.stack(
        [
            torch.nn.functional.cross_entropy(x[a:b, end], torch.tensor(row[end]), label_smoothing=smoothing)
            for a, b, row in zip(starts, starts[1:], labels, strict=False)
            for end in (0, 1)
        ]
    ).mean()
    expected.backward()
    parts = span_loss(logits, starts, labels, label_smoothing=smoothing)
    assert parts.loss == pytest.approx(expected.item(), **LOSS)
    np.testing.assert_allclose(parts.dlogits, x.grad.numpy(), rtol=1e-6, atol=1e-8)
