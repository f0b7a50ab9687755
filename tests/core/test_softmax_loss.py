"""The loss of a head with an output for every word, in blocks, against the float64 reference and the logits at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference
from support.encoder_cases import ENCODER, LISTED, MASKED, PLACE, ROWS, SEED, STEP, TAGGER, Case

from kdistill import _core

LONG = [40] * 8  # two blocks of rows
HEADS = {
    "tied": MASKED,
    "an output of its own": {**MASKED, "tied": False, "dense_width": 300},  # two tiles of columns
    "dropout, no dense product": {**TAGGER, "outputs": 31, "dropout_before": 0.1},
}
SETTINGS = {"alpha": 0.3, "temperature": 2.5, "smoothing": 0.1}


def case_of(name: str, *, long: bool = False) -> Case:
    return Case(ENCODER, HEADS[name], LONG if long else [*LONG[:1], 13, 2, 40, 6, 7], rows=None)


def labels_of(rows: int, missing: int = 0) -> NDArray[np.int64]:
    labels = np.random.default_rng(4).integers(0, 31, rows)
    if missing:
        labels[::missing] = -100
    return labels


def teacher_of(case: Case) -> Case:
    """Return another model of the same outputs, narrower and with one layer, for the same batch."""
    encoder = {**ENCODER, "layers": ((1, 9),), "hidden": 16, "head_width": 8}
    teacher = Case(encoder, MASKED, case.lengths, rows=case.rows)
    teacher.ids, teacher.types = case.ids, case.types
    return teacher


def features(case: Case, *, train: bool, threads: int = 2) -> None:
    assert case.forward(train=train, threads=threads, outputs=False) is None


def expected_loss(logits: Any, teacher: Any, labels: NDArray[np.int64], smoothing: float) -> float:
    """Return the mean over the rows of the smoothed cross-entropy mixed with the distillation loss."""
    log_q, chosen = reference.log_softmax(logits), np.maximum(labels, 0)
    hard = -(1 - smoothing) * log_q[np.arange(len(labels)), chosen] - smoothing * log_q.mean(axis=1)
    alpha = np.where(labels == -100, 0.0, 1.0 if teacher is None else SETTINGS["alpha"])
    soft = np.zeros(len(labels))
    if teacher is not None:
        T = SETTINGS["temperature"]
        log_s, log_t = reference.log_softmax(logits / T), reference.log_softmax(teacher / T)
        soft = T**2 * (np.exp(log_t) * (log_t - log_s)).sum(axis=1)
    return float((alpha * hard + (1 - alpha) * soft).mean())


@pytest.mark.parametrize("with_teacher", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_loss_and_gradients(name: str, with_teacher: bool) -> None:
    case = case_of(name)
    if name == "tied":
        case = Case(ENCODER, HEADS[name], rows=ROWS)
    teacher = teacher_of(case) if with_teacher else None
    theirs = None
    if teacher is not None:
        teacher.core.forward(*teacher.batch, False, 0, 0, 0, 2, rows=_listed(teacher), outputs=False)
        theirs, _ = teacher.expected(teacher.exact, train=False)
    labels = labels_of(sum(map(len, case.listed)), missing=5)

    def loss(parameters: reference.Parameters) -> float:
        return expected_loss(case.expected(parameters, train=True)[0], theirs, labels, SETTINGS["smoothing"])

    features(case, train=True)
    found, hard, soft, not_finite, _ = case.core.softmax_loss(
        labels, **SETTINGS, threads=2, teacher=None if teacher is None else teacher.core
    )
    # Softmaxes in float32; the features' sums have the errors of test_encoder.py.
    assert found == pytest.approx(loss(case.exact), rel=3e-6)
    assert (not_finite, soft > 0, hard > 0) == (0, with_teacher, True)
    case.check_gradients(loss)


def _listed(case: Case) -> NDArray[np.int64] | None:
    return None if case.rows is None else np.array(case.rows)


@pytest.mark.parametrize("with_teacher", [False, True])
def test_blocks_are_the_logits_at_once(with_teacher: bool) -> None:
    """With more rows than a block has: the loss and every gradient as of all logits through `loss`."""
    blocks, whole = case_of("tied", long=True), case_of("tied", long=True)
    labels, teacher, theirs = labels_of(320, missing=7), teacher_of(blocks), None
    logits = whole.forward(train=True)
    features(blocks, train=True)
    if with_teacher:
        theirs = teacher.forward(train=False)
        features(teacher, train=False)
    plain, dlogits, *parts, _, _ = _core.loss(_core.LOSS_SINGLE_LABEL, logits, theirs, labels, *SETTINGS.values(), 2)
    whole.core.backward(dlogits, 2)
    loss, *found, _, _ = blocks.core.softmax_loss(
        labels, **SETTINGS, threads=2, teacher=teacher.core if with_teacher else None
    )
    np.testing.assert_allclose([loss, *found], [plain, *parts], rtol=2e-6, atol=1e-9)
    np.testing.assert_allclose(blocks.gradients, whole.gradients, rtol=0, atol=3e-6 * np.abs(whole.gradients).max())


def test_a_vocabulary_of_several_strips_of_columns() -> None:
    """More words than one item of work computes: each strip has a bias and columns of its own."""
    encoder, head = {**ENCODER, "vocabulary": 1100}, {**MASKED, "outputs": 1100}
    strips, whole = (Case(encoder, head, [13, 2, 40], rows=None) for _ in range(2))
    labels = np.random.default_rng(5).integers(0, 1100, 55)
    features(strips, train=True)
    found, *_ = strips.core.softmax_loss(labels, **SETTINGS, threads=2, teacher=None)
    logits = whole.forward(train=True)
    expected, dlogits, *_ = _core.loss(_core.LOSS_SINGLE_LABEL, logits, None, labels, *SETTINGS.values(), 2)
    whole.core.backward(dlogits, 2)
    assert found == pytest.approx(expected, rel=2e-6)
    np.testing.assert_allclose(strips.gradients, whole.gradients, rtol=0, atol=3e-6 * np.abs(whole.gradients).max())


def test_any_number_of_threads_gives_the_same_bits() -> None:
    results = []
    for threads in (1, 2, 3, 5):
        case = case_of("tied", long=True)
        teacher = teacher_of(case)
        features(case, train=True, threads=threads)
        features(teacher, train=False, threads=threads)
        found = case.core.softmax_loss(labels_of(320), **SETTINGS, threads=threads, teacher=teacher.core)
        results.append((found, case.gradients))
    for found, gradients in results[1:]:
        assert found == results[0][0]
        np.testing.assert_array_equal(gradients, results[0][1])


TAPS: list[reference.Tap] = [("hidden", 2), ("value", 0), ("scores", 1)]


def tapped(case: Case, threads: int = 2) -> dict[reference.Tap, NDArray[np.float32]]:
    """Do the training pass, and return a gradient for each of TAPS."""
    _, arrays = case.forward(train=True, threads=threads, outputs=False, taps=TAPS)
    rng = np.random.default_rng(8)
    return {tap: 0.1 * rng.standard_normal(array.shape).astype(np.float32) for tap, array in arrays.items()}


def test_gradients_of_taps_go_back_with_those_of_the_words() -> None:
    """As they are, whatever the share of the words is."""
    case, labels = Case(ENCODER, MASKED, rows=ROWS), labels_of(len(ROWS))
    gradients = tapped(case)
    case.core.softmax_loss(labels, 1.0, 1.0, 0.0, 2, share=0.5, gradients=gradients)

    def loss(parameters: reference.Parameters) -> float:
        logits, by_row = case.expected(parameters, train=True)
        inside = 0.0
        for tap, gradient in gradients.items():
            value = np.concatenate([taps[tap].ravel() for taps in by_row])
            inside += float((value * gradient.ravel()).sum())
        return 0.5 * expected_loss(logits, None, labels, 0.0) + inside

    case.check_gradients(loss)


def test_taps_alone_go_back_where_no_word_is_listed() -> None:
    words, plain = (Case(ENCODER, MASKED, rows=[]) for _ in range(2))
    words.core.softmax_loss(np.zeros(0, np.int64), 1.0, 1.0, 0.0, 2, gradients=tapped(words))
    gradients = tapped(plain)
    plain.forward(train=True, taps=TAPS)
    plain.core.backward(np.zeros((0, 31), np.float32), 2, gradients)
    np.testing.assert_array_equal(words.gradients, plain.gradients)
    for tensor in words.layout:
        part = words.gradients[tensor.offset : tensor.offset + int(np.prod(tensor.shape))]
        assert part.any() == (not tensor.canonical.startswith("head.")), tensor.canonical


def test_with_taps_any_number_of_threads_gives_the_same_bits() -> None:
    results = []
    for threads in (1, 2, 3, 5):
        case = case_of("tied", long=True)
        gradients = tapped(case, threads)
        case.core.softmax_loss(labels_of(320), **SETTINGS, threads=threads, gradients=gradients)
        results.append(case.gradients)
    for gradients in results[1:]:
        np.testing.assert_array_equal(gradients, results[0])


def test_gradients_that_do_not_fit_are_refused_and_the_pass_is_still_there() -> None:
    case, other = (Case(ENCODER, MASKED, rows=ROWS) for _ in range(2))
    labels = labels_of(len(ROWS))
    gradients = tapped(case)
    for wrong, message in (
        (
            {("hidden", 1): gradients["hidden", 2]},
            r"gradients has \('hidden', 1\), which was no tap of the forward pass",
        ),
        ({("hidden", 2): gradients["hidden", 2][:3]}, r"the gradient of \('hidden', 2\) has another shape"),
    ):
        with pytest.raises(ValueError, match=message):
            case.core.softmax_loss(labels, 1.0, 1.0, 0.0, 2, gradients=wrong)
    assert not case.gradients.any()
    other_gradients = tapped(other)
    for each, given in ((case, gradients), (other, other_gradients)):
        each.core.softmax_loss(labels, 1.0, 1.0, 0.0, 2, gradients=given)
    np.testing.assert_array_equal(case.gradients, other.gradients)
    features(case, train=False)
    with pytest.raises(ValueError, match="gradients were given; expected None, as the pass does not train"):
        case.core.softmax_loss(labels, 1.0, 1.0, 0.0, 2, gradients={})


def test_an_evaluation_has_the_loss_and_no_gradient() -> None:
    case = Case(ENCODER, MASKED, rows=ROWS)
    labels, expected = labels_of(len(ROWS)), case.expected(case.exact, train=False)[0]
    features(case, train=False)
    loss, hard, *_ = case.core.softmax_loss(labels, 1.0, 1.0, 0.0, 2)
    assert loss == hard == pytest.approx(reference.cross_entropy(expected, labels.tolist())[0], rel=3e-6)
    assert not case.gradients.any()


def test_scores_are_the_losses_of_the_rows_and_whether_the_label_is_the_first_choice() -> None:
    """Over two blocks of rows, some without a label; of two equal logits the first counts."""
    case = case_of("tied", long=True)
    labels = labels_of(320, missing=7)
    logits = case.forward(train=False).astype(np.float64)
    labels[1::3] = logits[1::3].argmax(axis=1)
    scores = np.full((320, 2), np.nan, np.float32)
    features(case, train=False)
    case.core.softmax_loss(labels, 1.0, 1.0, 0.0, 3, scores=scores)
    labelled = labels != -100
    losses = -reference.log_softmax(logits)[np.arange(320), np.maximum(labels, 0)] * labelled
    np.testing.assert_allclose(scores[:, 0], losses, rtol=3e-6, atol=3e-6)
    np.testing.assert_array_equal(scores[:, 1], labelled & (logits.argmax(axis=1) == labels))


def test_the_first_of_equal_logits_is_the_first_choice() -> None:
    case = Case(ENCODER, MASKED, [3])
    case.flat[:] = 0  # all logits are equal
    case.core.touch()
    for label, expected in ((0, 1), (1, 0)):
        features(case, train=False)
        scores = np.zeros((3, 2), np.float32)
        case.core.softmax_loss(np.full(3, label), 1.0, 1.0, 0.0, 2, scores=scores)
        assert scores[:, 1].tolist() == [expected] * 3


@pytest.mark.parametrize(
    ("scores", "error"),
    [
        (np.zeros((2, 2), np.float32), ValueError),
        (np.zeros((3, 2)), TypeError),
        (np.broadcast_to(np.float32(0), (3, 2)), ValueError),
    ],
)
def test_scores_are_written_to_an_array_of_their_shape(scores: Any, error: type[Exception]) -> None:
    case = Case(ENCODER, MASKED, [3])
    features(case, train=False)
    with pytest.raises(error, match="scores"):
        case.core.softmax_loss(labels_of(3), 1.0, 1.0, 0.0, 2, scores=scores)


def test_the_gradient_is_that_of_a_share_of_the_loss() -> None:
    one, half = (Case(ENCODER, MASKED, rows=ROWS) for _ in range(2))
    for case, share in ((one, 1.0), (half, 0.5)):
        features(case, train=True)
        case.core.softmax_loss(labels_of(len(ROWS)), 1.0, 1.0, 0.0, 2, share=share)
    np.testing.assert_allclose(half.gradients, one.gradients / 2, rtol=0, atol=1e-6 * np.abs(one.gradients).max())


def test_every_word_of_a_tied_head_has_a_gradient() -> None:
    """The list of touched rows holds the whole table, so norm, clearing and AdamW see all of it."""
    case = Case(ENCODER, MASKED, [3])
    features(case, train=True)
    case.core.softmax_loss(labels_of(3), 1.0, 1.0, 0.0, 2)
    norm = float(np.sqrt((case.gradients.astype(np.float64) ** 2).sum()))
    assert case.core.gradient_norm(2) == pytest.approx(norm, rel=1e-6)
    case.core.clear_gradients(2)
    assert not case.gradients.any()


def test_a_batch_without_listed_tokens_costs_nothing() -> None:
    case = Case(ENCODER, MASKED, rows=[])
    features(case, train=True)
    assert case.core.softmax_loss(np.zeros(0, np.int64), 1.0, 1.0, 0.0, 2) == (0, 0, 0, 0, ())
    assert not case.gradients.any()


def test_a_loss_that_is_not_finite_leaves_no_gradient() -> None:
    case = Case(ENCODER, MASKED, rows=ROWS)
    case.flat[next(t.offset for t in case.layout if t.canonical == "head.output.bias") + 3] = np.nan
    case.core.touch()
    features(case, train=True)
    *_, not_finite, rows = case.core.softmax_loss(labels_of(len(ROWS)), 1.0, 1.0, 0.0, 2)
    assert (not_finite, rows) == (len(ROWS), tuple(range(8)))
    assert not case.gradients.any()


def test_logits_of_ten_thousand_are_finite() -> None:
    case = Case(ENCODER, MASKED, rows=ROWS)
    case.flat *= 100
    case.core.touch()
    features(case, train=True)
    loss, *_, not_finite, _ = case.core.softmax_loss(labels_of(len(ROWS)), 1.0, 1.0, 0.0, 2)
    assert np.isfinite(loss)
    assert not_finite == 0
    assert np.isfinite(case.gradients).all()


def test_the_logits_of_a_batch_never_exist() -> None:
    """Of 1,200 rows, whose logits take 96 MB, a workspace holds a block of 256, and sums of the bias's gradient."""
    encoder = {**ENCODER, "vocabulary": 20_000}
    head = {**LISTED, "outputs": 20_000, "tied": True}
    case = Case(encoder, head, [40] * 30)
    features(case, train=True, threads=1)
    assert case.core.workspace_bytes < 0.4 * 4 * 1200 * 20_000


def test_a_pass_stays_within_the_workspace_it_asked_for() -> None:
    case, made = Case(ENCODER, MASKED, LONG), []

    def workspace(size: int, rows: int, tokens: int) -> NDArray[np.int8]:
        made.append(np.full(size + 65536, 77, np.int8))
        return made[-1][:size]

    for threads in (1, 3):
        core = _core.Model(case.encoder, case.head, case.flat, case.gradients, workspace)
        core.forward(*case.batch, True, SEED, STEP, PLACE, threads, outputs=False)
        core.softmax_loss(labels_of(320), 1.0, 1.0, 0.1, threads)
    assert len(made) == 2
    assert all((memory[-65536:] == 77).all() for memory in made)


def test_what_does_not_fit_is_refused() -> None:
    case = Case(ENCODER, MASKED, rows=ROWS)
    labels = labels_of(len(ROWS))
    settings = (1.0, 1.0, 0.0, 2)
    with pytest.raises(
        RuntimeError, match=r"softmax_loss\(\) without a forward pass of the model that left the outputs"
    ):
        case.core.softmax_loss(labels, *settings)
    case.forward(train=True)
    with pytest.raises(RuntimeError, match="without a forward pass of the model"):
        case.core.softmax_loss(labels, *settings)
    features(case, train=True)
    with pytest.raises(ValueError, match=f"labels has 3 rows; expected {len(ROWS)}, as the pass has"):
        case.core.softmax_loss(labels[:3], *settings)
    wrong = labels.copy()
    wrong[2] = 31
    with pytest.raises(ValueError, match=r"labels\[2\] is 31; expected 0 to 30, or -100 for a row without a label"):
        case.core.softmax_loss(wrong, *settings)
    other = Case(ENCODER, MASKED, rows=ROWS[1:])
    with pytest.raises(RuntimeError, match="without a forward pass of the teacher"):
        case.core.softmax_loss(labels, *settings, other.core)
    features(other, train=False)
    with pytest.raises(
        ValueError, match=f"the teacher's pass has {len(ROWS) - 1} rows of 31 outputs; expected {len(ROWS)} of 31"
    ):
        case.core.softmax_loss(labels, *settings, other.core)
    with pytest.raises(TypeError, match="teacher must be another Model, or None"):
        case.core.softmax_loss(labels, *settings, case.core)
    with pytest.raises(RuntimeError, match=r"backward\(\) without a forward pass to go back through"):
        case.core.backward(case.dlogits, 2)
    case.core.softmax_loss(labels, *settings)
    with pytest.raises(RuntimeError, match="without a forward pass of the model"):
        case.core.softmax_loss(labels, *settings)


def test_a_head_without_a_last_product_has_outputs() -> None:
    case = Case(ENCODER, {**LISTED, "outputs": 0})
    with pytest.raises(ValueError, match="outputs is False; expected True, as this head has no last product"):
        features(case, train=False)
