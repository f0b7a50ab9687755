"""A student's first weights: random tensors, the teacher's embeddings on their principal components, copied layers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference

from kdistill.models import initialization
from kdistill.models.classes import BertForSequenceClassification
from kdistill.models.config import BertConfig
from kdistill.train.optim import AdamW

WORD = "bert.embeddings.word_embeddings.weight"
POSITION = "bert.embeddings.position_embeddings.weight"
TYPE = "bert.embeddings.token_type_embeddings.weight"
NORM_WEIGHT = "bert.embeddings.LayerNorm.weight"
NORM_BIAS = "bert.embeddings.LayerNorm.bias"
TEACHER = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 12,
}


def config(**changes: Any) -> BertConfig:
    return BertConfig(**(TEACHER | changes))


@pytest.fixture(scope="module")
def teacher() -> BertForSequenceClassification:
    """Words around a mean, spread differently along each direction."""
    model = BertForSequenceClassification(config(), seed=3)
    rng = np.random.default_rng(4)
    with model.writing():
        for name in (NORM_WEIGHT, NORM_BIAS):
            model.parameters[name][:] = rng.uniform(0.5, 1.5, 24)
        for name in (WORD, POSITION, TYPE):
            shape = model.parameters[name].shape
            spread = np.linspace(1.0, 0.05, 24) * rng.standard_normal(shape)
            mixing = np.linalg.qr(np.random.default_rng(5).standard_normal((24, 24)))[0]
            model.parameters[name][:] = spread @ mixing + (0.3 if name == WORD else 0.0)
    return model.freeze()


def student(teacher: BertForSequenceClassification, **arguments: Any) -> BertForSequenceClassification:
    changes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2} | arguments.pop("config", {})
    return BertForSequenceClassification.from_teacher(teacher, config(**changes), **arguments)


def seen_by_layers(teacher: BertForSequenceClassification) -> tuple[reference.Array, reference.Array]:
    """The teacher's words after its embeddings' LayerNorm, at the average position with type 0; and their deviation
    before it."""
    word, position, types, gamma, beta = (
        teacher.parameters[name].astype(np.float64) for name in (WORD, POSITION, TYPE, NORM_WEIGHT, NORM_BIAS)
    )
    summed = word + position.mean(axis=0) + types[0]
    eps = teacher.config.layer_norm_eps
    return reference.layer_norm(summed, gamma, beta, eps), np.sqrt(summed.var(axis=1) + eps)


def weighted_components(
    words: reference.Array, counts: reference.Array, width: int
) -> tuple[reference.Array, reference.Array]:
    """Mean, and right singular vectors of the centred words, each as often as it occurs: PCA without a covariance."""
    mean = np.average(words, axis=0, weights=counts)
    _, _, vectors = np.linalg.svd(np.sqrt(counts)[:, None] * (words - mean), full_matrices=False)
    return mean, vectors[:width].T


@pytest.mark.parametrize("block_rows", [32, 2048])  # 90 words: in three blocks, and in one
@pytest.mark.parametrize("counted", [False, True])
def test_embeddings_are_the_teachers_on_their_principal_components(
    teacher: BertForSequenceClassification, counted: bool, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initialization, "_BLOCK_ROWS", block_rows)
    counts = np.random.default_rng(6).integers(0, 1000, 90) * (np.arange(90) % 3 == 0)
    made = student(teacher, token_counts=counts if counted else None).parameters
    counts = counts + 1.0 if counted else np.ones(90)
    words, deviation = seen_by_layers(teacher)
    mean, components = weighted_components(words, counts, 8)

    components = components * np.sign((made[WORD] * ((words - mean) @ components)).sum(axis=0))
    # Float32, and singular vectors whose values are 4 % apart: rounding is amplified some 25 times.
    near = {"rtol": 0, "atol": 2e-5}
    np.testing.assert_allclose(made[WORD], (words - mean) @ components, **near)
    positions, types, gamma = (teacher.parameters[name].astype(np.float64) for name in (POSITION, TYPE, NORM_WEIGHT))
    through_norm = gamma / np.average(deviation, weights=counts)
    np.testing.assert_allclose(made[POSITION], (positions - positions.mean(axis=0)) * through_norm @ components, **near)
    np.testing.assert_allclose(made[TYPE], (types - types[0]) * through_norm @ components, **near)


def test_the_sign_of_a_component_does_not_depend_on_the_machine(teacher: BertForSequenceClassification) -> None:
    """The direction's largest entry is positive: seen by the word that lies along it."""
    made = student(teacher).parameters[WORD].astype(np.float64)
    words, _ = seen_by_layers(teacher)
    directions, *_ = np.linalg.lstsq(words - words.mean(axis=0), made, rcond=None)
    assert (directions[np.abs(directions).argmax(axis=0), np.arange(8)] > 0).all()


def test_counts_change_which_directions_are_kept(teacher: BertForSequenceClassification) -> None:
    counts = np.zeros(90)
    counts[:5] = 1e6
    plain, counted = student(teacher).parameters[WORD], student(teacher, token_counts=counts).parameters[WORD]

    def spread_kept(made: NDArray[np.float32]) -> float:
        """Of the differences between the five frequent words, what a linear map recovers."""
        words, _ = seen_by_layers(teacher)
        centred, kept = words[:5] - words[:5].mean(axis=0), made[:5] - made[:5].mean(axis=0)
        recovered = kept @ np.linalg.lstsq(made - made.mean(axis=0), words, rcond=None)[0]
        return 1 - float(((centred - recovered) ** 2).sum() / (centred**2).sum())

    assert spread_kept(counted) > spread_kept(plain) + 0.02


def test_the_rest_is_drawn_as_transformers_draws_it(teacher: BertForSequenceClassification) -> None:
    made = student(teacher, config={"initializer_range": 0.5}, seed=11)
    views = made.parameters
    drawn = np.concatenate(
        [view.ravel() for name, view in views.items() if view.ndim == 2 and not name.startswith("bert.embeddings")]
    )
    # Three sigma of a sample of that size.
    assert abs(drawn.mean()) < 3 * 0.5 / np.sqrt(drawn.size)
    assert abs(drawn.std() / 0.5 - 1) < 3 / np.sqrt(2 * drawn.size)
    for name, view in views.items():
        if view.ndim == 1:
            assert (view == (1 if name.endswith("LayerNorm.weight") else 0)).all(), name
    same, other = student(teacher, config={"initializer_range": 0.5}, seed=11), student(teacher, seed=12)
    np.testing.assert_array_equal(same.flat_parameters, made.flat_parameters)
    assert not np.array_equal(other.parameters["classifier.weight"], views["classifier.weight"])
    np.testing.assert_array_equal(other.parameters[WORD], views[WORD])


def test_a_random_model_leaves_the_padding_token_at_zero() -> None:
    model = BertForSequenceClassification(config(pad_token_id=4))
    assert not model.parameters[WORD][4].any()
    assert model.parameters[WORD][[0, 3, 5]].all()
    assert BertForSequenceClassification(config(pad_token_id=None)).parameters[WORD].all()


def layer(model: BertForSequenceClassification, index: int) -> dict[str, NDArray[np.float32]]:
    prefix = f"bert.encoder.layer.{index}."
    return {name.removeprefix(prefix): view for name, view in model.parameters.items() if name.startswith(prefix)}


@pytest.mark.parametrize(
    ("count", "layers", "expected"),
    [(2, None, [1, 4]), (5, None, [0, 1, 2, 3, 4]), (1, None, [4]), (3, None, [0, 2, 4]), (2, [3, 0], [3, 0])],
)
def test_layers_are_copied_where_the_widths_are_the_teachers(
    teacher: BertForSequenceClassification, count: int, layers: list[int] | None, expected: list[int]
) -> None:
    same_widths = config(num_hidden_layers=count)
    made = BertForSequenceClassification.from_teacher(teacher, same_widths, layers=layers)
    for ours, theirs in enumerate(expected):
        copied, original = layer(made, ours), layer(teacher, theirs)
        assert copied.keys() == original.keys()
        for name, view in copied.items():
            np.testing.assert_array_equal(view, original[name])
    for name, view in made.parameters.items():
        if name.startswith(("bert.embeddings.", "bert.pooler.")):
            np.testing.assert_array_equal(view, teacher.parameters[name])


def test_a_student_of_the_teachers_shape_computes_what_the_teacher_does(
    teacher: BertForSequenceClassification,
) -> None:
    made = BertForSequenceClassification.from_teacher(teacher, config())
    with made.writing():
        for name in ("classifier.weight", "classifier.bias"):
            made.parameters[name][:] = teacher.parameters[name]
    rows = [[1, 2, 3], [89] * 12]
    np.testing.assert_array_equal(made.forward(rows), teacher.forward(rows))


def test_equal_width_but_other_layers_takes_the_embeddings_alone(teacher: BertForSequenceClassification) -> None:
    made = BertForSequenceClassification.from_teacher(teacher, config(intermediate_size=16, num_hidden_layers=2))
    np.testing.assert_array_equal(made.parameters[WORD], teacher.parameters[WORD])
    assert np.abs(layer(made, 1)["output.dense.weight"]).max() < 0.2


def test_the_teacher_is_left_as_it_is(teacher: BertForSequenceClassification) -> None:
    before = teacher.flat_parameters.copy()
    made = student(teacher)
    made.parameters[WORD][:] = 0
    np.testing.assert_array_equal(teacher.flat_parameters, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": {"vocab_size": 91}}, "config.vocab_size is 91; the teacher's is 90"),
        ({"config": {"max_position_embeddings": 13}}, "config.max_position_embeddings is 13; the teacher's is 12"),
        ({"config": {"type_vocab_size": 1}}, "config.type_vocab_size is 1; the teacher's is 2"),
        ({"config": {"hidden_size": 26}}, "config.hidden_size is 26; it can be at most the teacher's, 24"),
        ({"layers": [0, 1]}, "layers can be copied only into a student with the teacher's hidden_size"),
        (
            {"config": {"hidden_size": 24, "num_attention_heads": 3}, "layers": [0, 5]},
            "layers is [0, 5]; expected 2 numbers from 0 to 4",
        ),
        ({"config": {"hidden_size": 24, "num_attention_heads": 3}, "layers": [-1, 2]}, "layers is [-1, 2]"),
        ({"config": {"hidden_size": 24, "num_attention_heads": 3}, "layers": [2]}, "layers is [2]; expected 2 numbers"),
        (
            {"config": {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 6}},
            "config.num_hidden_layers is 6; the teacher has 5 layers",
        ),
        ({"token_counts": np.ones(89)}, "token_counts has shape (89,); expected (90,), one for each token"),
        ({"token_counts": -np.ones(90)}, "token_counts has a count below 0 or not finite"),
        ({"token_counts": np.full(90, np.nan)}, "token_counts has a count below 0 or not finite"),
    ],
)
def test_shapes_that_do_not_fit(
    teacher: BertForSequenceClassification, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        student(teacher, **arguments)


# ---- tables of other lengths


@pytest.mark.parametrize("hidden", [8, 24])
@pytest.mark.parametrize("rows", [96, 88])
def test_a_student_whose_table_is_padded_otherwise_takes_the_common_rows(rows: int, hidden: int) -> None:
    theirs = BertForSequenceClassification(config(vocab_size=90 if rows > 90 else 96), seed=3)
    changes = {"vocab_size": rows, "hidden_size": hidden, "num_attention_heads": 2 if hidden == 8 else 3}
    counts = np.arange(rows)
    ours = BertForSequenceClassification.from_teacher(theirs, config(**changes), token_counts=counts)
    common = min(rows, theirs.config.vocab_size)
    assert ours.config.vocab_size == rows
    # The same from models that both have the common rows alone.
    cut = BertForSequenceClassification(config(vocab_size=common), seed=9)
    with cut.writing():
        for name, value in theirs.parameters.items():
            cut.parameters[name][...] = value[:common] if name == WORD else value
    expected = BertForSequenceClassification.from_teacher(
        cut, config(**(changes | {"vocab_size": common})), token_counts=counts[:common]
    )
    np.testing.assert_array_equal(ours.parameters[WORD][:common], expected.parameters[WORD])
    drawn = BertForSequenceClassification(ours.config, seed=0).parameters[WORD][common:]
    np.testing.assert_array_equal(ours.parameters[WORD][common:], drawn)


@pytest.mark.parametrize("mean", [True, False])
def test_rows_that_resizing_adds(teacher: BertForSequenceClassification, mean: bool) -> None:
    """As transformers 5: around the mean with 1e-9 of the covariance, or N(0, initializer_range)."""
    model = BertForSequenceClassification(teacher.config, seed=1)
    model.load_flat(teacher.flat_parameters)
    before = model.state_dict()
    table = model.resize_token_embeddings(4090, mean_resizing=mean)
    assert model.config == teacher.config.replace(vocab_size=4090)
    assert table.shape == model.parameters[WORD].shape == (4090, 24)
    new = table[90:].astype(np.float64)
    words = before[WORD].astype(np.float64)
    center, covariance = (words.mean(axis=0), 1e-9 * np.cov(words.T, bias=True)) if mean else (0, 0.02**2 * np.eye(24))
    # 4000 draws: five standard errors of a mean and of a covariance, and float32's rounding of values near 1.
    scale = np.sqrt(np.trace(covariance))
    np.testing.assert_allclose(new.mean(axis=0), center + np.zeros(24), rtol=2e-7, atol=5 * scale / 4000**0.5)
    np.testing.assert_allclose(np.cov(new.T), covariance, rtol=0, atol=5 * np.abs(covariance).max() * (2 / 4000) ** 0.5)
    np.testing.assert_array_equal(table[:90], before[WORD])
    for name, value in before.items():
        if name != WORD:
            np.testing.assert_array_equal(model.parameters[name], value)
    assert np.isfinite(model.forward([[4089, 3]])).all()


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [((), 90), ((None, 8), 96), ((91, 64), 128), ((50,), 50), ((90,), 90), ((88, 8), 88), ((101, None, False), 101)],
)
def test_numbers_of_rows(arguments: tuple[Any, ...], rows: int) -> None:
    model = BertForSequenceClassification(config(), seed=1)
    before, core = model.state_dict()[WORD], model.core
    assert len(model.resize_token_embeddings(*arguments)) == model.config.vocab_size == rows
    np.testing.assert_array_equal(model.parameters[WORD][:90], before[:rows])
    assert (model.core is core) == (rows == 90)


@pytest.mark.parametrize(("arguments", "error"), [((0,), ValueError), ((-3,), ValueError), ((1.5,), TypeError)])
def test_numbers_of_rows_that_no_table_has(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    model = BertForSequenceClassification(config(), seed=1)
    with pytest.raises(error, match="vocab_size is"):
        model.resize_token_embeddings(*arguments)
    assert model.config.vocab_size == 90


def test_who_cannot_go_on_with_a_resized_table(teacher: BertForSequenceClassification) -> None:
    model = BertForSequenceClassification(config(), seed=1)
    optimizer = AdamW(model)
    model.forward([[1, 2]], train=True)
    model.backward(np.ones((1, 2), np.float32))
    optimizer.step()
    model.resize_token_embeddings(96)
    model.forward([[95, 2]], train=True)
    model.backward(np.ones((1, 2), np.float32))
    with pytest.raises(RuntimeError, match="embeddings were resized after this optimiser was made; make the optimiser"):
        optimizer.step()
    AdamW(model).step()
    with pytest.raises(RuntimeError, match="frozen"):
        teacher.resize_token_embeddings(96)


def test_a_shape_that_no_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdistill.system.memory.available_memory", lambda: 2**30)
    with pytest.raises(MemoryError, match=r"a model of 268.* parameters needs 1\.0 GiB of memory and 1\.0 GiB are"):
        BertForSequenceClassification(config(vocab_size=2**28 // 24))
