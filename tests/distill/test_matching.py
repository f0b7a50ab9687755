"""Losses on what lies inside teacher and student: their gradients in a training step, and runs with them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from support import match_formulas, reference
from support.bert_cases import exact, random_rows, wide_config, wide_model
from support.small_questions import question_model, question_tokenizer, questions
from support.small_run import run_fields, small_config, small_dataset, small_model, weights

import kdistill as kd
from kdistill.data.batch import Batch
from kdistill.data.dataset import Dataset
from kdistill.distill.matching import Matching, pairs_of
from kdistill.models.model import Model
from kdistill.models.parameters import TensorViews
from kdistill.models.registry import ARCHITECTURES
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.train.objective import RunLength
from kdistill.train.optim import AdamW
from kdistill.trainers import DistillationTrainer

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's (accuracy|loss)")

LENGTHS = [1, 9, 2, 5, 13]
TEACHER = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 20, "num_hidden_layers": 4}
STUDENT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
Arrays = Mapping[str, NDArray[np.float64]]
KINDS = {
    "hidden": kd.Match("hidden"),
    "hidden cosine": kd.Match("hidden", -1, -1, weight=3.0, loss="cosine"),
    "hidden normalized": kd.Match("hidden", (1, 1), (0, 1), loss="normalized-mse"),
    "embedding": kd.Match("embedding", weight=0.5),
    "cls": kd.Match("cls", -1, 1, weight=2.0),
    "cls below the last layer": kd.Match("cls", 0, 0, loss="mse"),
    "attention": kd.Match("attention", weight=4.0),
    "attention distributions": kd.Match("attention", -1, -1, loss="kl"),
    "relation": kd.Match("relation", -1, -1, weight=10.0, heads=4),
    "relation of all layers": kd.Match("relation", weight=10.0),
    "relation before the softmax": kd.Match("relation", -1, -1, weight=10.0, loss="mse"),
}
TOGETHER = [match for name, match in KINDS.items() if name != "relation"]  # that of all layers is also of its layers


def matching(
    teacher: Model, student: Model, matches: Any, steps: int = 10, **arguments: Any
) -> tuple[Matching, DistillationTrainingArguments]:
    args = DistillationTrainingArguments("unused", matches=matches, **arguments)
    made = Matching(
        args, teacher.config, student.config, RunLength(steps, 5), lambda *of: teacher.forward(of[0], taps=of[1])[1]
    )
    return made, args


def joined(by_row: list[dict[Any, NDArray[Any]]], tap: Any) -> NDArray[Any]:
    return np.concatenate([row[tap] for row in by_row])


def expected_loss(
    matches: list[kd.Match], ours: list[dict[Any, Any]], theirs: list[dict[Any, Any]], batch: Batch, w: Arrays
) -> float:
    """The loss of the papers, from the float64 reference's taps; `w` are the projections by place of the match."""
    total = 0.0
    for place, match in enumerate(matches):
        loss = match.loss or ""
        for t, s in layers_of(match):
            if match.kind == "relation":
                heads, lengths = match.heads or 2, np.diff(batch.starts).tolist()  # 16 // 8, the most with 8 numbers
                found = sum(
                    match_formulas.relation(loss, joined(ours, (of, s)), joined(theirs, (of, t)), lengths, heads) / 3
                    for of in ("query", "key", "value")
                )
            elif match.kind == "attention":
                scores = [row["scores", s] for row in ours], [row["scores", t] for row in theirs]
                found = match_formulas.maps(loss, *scores)
            else:
                rows = batch.starts[:-1] if match.kind == "cls" else slice(None)
                above = match.kind != "embedding"
                x, y = joined(ours, ("hidden", s + above))[rows], joined(theirs, ("hidden", t + above))[rows]
                found = match_formulas.rows(loss, x, y, w[str(place)])
            total += match.weight * found
    return total


def layers_of(match: kd.Match) -> list[tuple[int, int]]:
    """The pairs of layers for a teacher of 4 and a student of 2, written out."""
    if match.kind == "embedding":
        return [(0, 0)]
    if match.teacher_layer is None:
        return [(1, 0), (3, 1)]
    if isinstance(match.teacher_layer, tuple):
        assert isinstance(match.student_layer, tuple)
        return list(zip(match.teacher_layer, match.student_layer, strict=True))
    assert isinstance(match.teacher_layer, int)
    assert isinstance(match.student_layer, int)
    return [(match.teacher_layer % 4, match.student_layer % 2)]


def learned(
    model: Model, found: Matching, batch: Batch, rows: list[slice] | None = None
) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]:
    """The loss and its gradients by parameters and projections, in these micro-batches of the rows; default: one."""
    model.zero_grad()
    found.begin_step(0, np.diff(batch.starts))
    if found.auxiliary is not None:
        found.auxiliary.zero_grad()
    total = 0.0
    for part in rows or [slice(None)]:
        chosen = np.arange(len(batch.starts) - 1)[part]
        micro = Batch(*kd_take(batch, chosen))
        logits, taps = model.forward(micro, train=True, taps=found.taps)
        loss = found(micro, taps, chosen)
        model.backward(np.zeros_like(logits), loss.gradients)
        total += loss.loss
    beside = np.zeros(0, np.float32) if found.auxiliary is None else found.auxiliary.flat_gradients.copy()
    return total, model.flat_gradients.copy(), beside


def kd_take(batch: Batch, rows: NDArray[np.int64]) -> tuple[Any, Any, Any]:
    pieces = [np.arange(batch.starts[row], batch.starts[row + 1]) for row in rows]
    places = np.concatenate(pieces)
    return batch.ids[places], batch.types[places], np.cumsum([0, *map(len, pieces)])


@pytest.mark.parametrize("name", [*KINDS, "all together"])
def test_loss_and_gradients_beside_finite_differences_in_float64(name: str) -> None:
    matches = TOGETHER if name == "all together" else [KINDS[name]]
    teacher, student = wide_model(**TEACHER, seed=1), wide_model(**STUDENT, seed=2)
    ids, types = random_rows(LENGTHS, student.config)
    batch = kd.pack({"input_ids": ids, "token_type_ids": types})
    found, _ = matching(teacher, student, matches)
    loss, gradients, of_projections = learned(student, found, batch)

    _, theirs = reference.forward_with_taps(exact(teacher), teacher.config, ids, types)
    beside = {} if found.auxiliary is None else found.auxiliary.parameters
    place_of = {
        pair.projection: str(matches.index(pair.match)) for pair in pairs_of([kd.Stage(matches)], *configs())[0]
    }
    w = {str(place): None for place in range(len(matches))} | {
        place_of[key]: value.astype(np.float64) for key, value in beside.items()
    }

    def value(parameters: Arrays, projections: Any) -> float:
        _, ours = reference.forward_with_taps(parameters, student.config, ids, types)
        return expected_loss(matches, ours, theirs, batch, projections)

    parameters, rng = exact(student), np.random.default_rng(3)
    assert loss == pytest.approx(value(parameters, w), rel=1e-5)
    named = TensorViews(gradients, student.layout)
    whole = np.linalg.norm(gradients)
    for tensor in parameters:
        direction = rng.standard_normal(parameters[tensor].shape)
        moved = [parameters | {tensor: parameters[tensor] + sign * 1e-6 * direction} for sign in (1, -1)]
        difference = (value(moved[0], w) - value(moved[1], w)) / 2e-6
        # A rounding error of the sums in float32, which the whole gradient bounds: see test_passes.py.
        assert abs((named[tensor] * direction).sum() - difference) <= 2e-5 * whole + 1e-7, tensor
    start = 0
    for key, matrix in beside.items():
        direction = rng.standard_normal(matrix.shape)
        moved_w = [w | {place_of[key]: w[place_of[key]] + sign * 1e-6 * direction} for sign in (1, -1)]
        difference = (value(parameters, moved_w[0]) - value(parameters, moved_w[1])) / 2e-6
        own = of_projections[start : start + matrix.size].reshape(matrix.shape)
        start += matrix.size
        assert abs((own * direction).sum() - difference) <= 2e-5 * np.linalg.norm(own) + 1e-7, key


def configs() -> tuple[Any, Any]:
    return wide_config(**TEACHER), wide_config(**STUDENT)


def test_micro_batches_give_the_loss_and_the_gradient_of_the_whole_batch() -> None:
    """Each loss by its own share: of tokens, of pairs of tokens, or of sequences."""
    teacher, student = wide_model(**TEACHER, seed=1), wide_model(**STUDENT, seed=2)
    batch = kd.pack({"input_ids": (rows := random_rows(LENGTHS, student.config))[0], "token_type_ids": rows[1]})
    found, _ = matching(teacher, student, TOGETHER)
    whole = learned(student, found, batch)
    parts = learned(student, found, batch, [slice(0, 1), slice(1, 4), slice(4, 5)])
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    for part, of_whole in zip(parts[1:], whole[1:], strict=True):
        np.testing.assert_allclose(part, of_whole, rtol=0, atol=1e-6 * np.abs(of_whole).max())


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    teacher, student = wide_model(**TEACHER, seed=1), wide_model(**STUDENT, seed=2)
    batch = kd.pack(random_rows([40, 3, 17, 38, 1, 9, 25, 33], student.config)[0])
    before, found = kd.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            kd.set_num_threads(threads)
            found.append(learned(student, matching(teacher, student, TOGETHER)[0], batch))
    finally:
        kd.set_num_threads(before)
    for other in found[1:]:
        assert other[0] == found[0][0]
        np.testing.assert_array_equal(other[1], found[0][1])
        np.testing.assert_array_equal(other[2], found[0][2])


def test_a_row_has_the_bits_of_its_losses_at_any_place_of_the_batch() -> None:
    """What the losses give back for a row; the sums over rows that come of it are the same but for their roundings."""
    teacher, student = wide_model(**TEACHER, seed=1), wide_model(**STUDENT, seed=2)
    found, _ = matching(teacher, student, TOGETHER)
    assert found.auxiliary is not None  # there are projections
    batch, order = kd.pack(random_rows([40, 3, 17, 38, 1, 9], student.config)[0]), np.array([5, 2, 0, 4, 3, 1])
    turned = Batch(*kd_take(batch, order))
    ours, theirs = _by_row(student, found, batch), _by_row(student, found, turned)
    for place, row in enumerate(order):
        for tap, gradient in ours[row].items():
            np.testing.assert_array_equal(theirs[place][tap], gradient, err_msg=f"row {row}, {tap}")
    (loss, *gradients), (loss_turned, *others) = (learned(student, found, of) for of in (batch, turned))
    assert loss_turned == pytest.approx(loss, rel=1e-6)
    for of_turned, of_batch in zip(others, gradients, strict=True):
        np.testing.assert_allclose(of_turned, of_batch, rtol=0, atol=1e-6 * np.abs(of_batch).max())


def _by_row(model: Model, found: Matching, batch: Batch) -> list[dict[Any, NDArray[Any]]]:
    """The gradient by each tap of the student, of each row of the batch."""
    lengths = np.diff(batch.starts)
    found.begin_step(0, lengths)
    taps = model.forward(batch, train=True, taps=found.taps)[1]
    by_row: list[dict[Any, NDArray[Any]]] = [{} for _ in lengths]
    for tap, gradient in found(batch, taps, np.arange(len(lengths))).gradients.items():
        # Scores are (heads, n, n) of each row.
        sizes = model.config.num_attention_heads * lengths**2 if tap[0] == "scores" else lengths
        for row, piece in zip(by_row, np.split(gradient, np.cumsum(sizes)[:-1]), strict=True):
            row[tap] = piece
    return by_row


# ---- what does not fit the models


@pytest.mark.parametrize(
    ("match", "student", "message"),
    [
        (
            kd.Match("attention"),
            {"num_attention_heads": 4},
            r"^matches\[0\] \(attention\): the teacher has 2 attention heads and the student 4; expected equally many, "
            "as in a shape that ends in -A2, or kind 'relation' in its place",
        ),
        (kd.Match("hidden", 4, -1), {}, r"\(hidden\): teacher_layer is 4; expected -4 to 3, as the teacher has 4"),
        (kd.Match("hidden", -1, -3), {}, r"\(hidden\): student_layer is -3; expected -2 to 1, as the student has 2"),
        (kd.Match("hidden", (0, 1, 2)), {}, "teacher_layer names 3 layers, and the student has 2; expected one for"),
        (kd.Match("cls", "skip", 1), {}, "student_layer is 1, which the layer map 'skip' leaves out"),
        (
            kd.Match("relation", -1, -1, heads=3),
            {},
            "heads is 3, and the teacher is 24 and the student 16 wide; expected a number that divides both: 1, 2, 4",
        ),
    ],
)
def test_matches_that_do_not_fit_the_models(match: kd.Match, student: dict[str, Any], message: str) -> None:
    args = DistillationTrainingArguments("unused", matches=[match])
    with pytest.raises(ValueError, match=message):
        DistillationTrainer(
            wide_model(**(STUDENT | student)),
            args,
            teacher_model=wide_model(**TEACHER),
            train_dataset=small_dataset(4),
        )


@pytest.mark.parametrize(
    ("teacher", "found"),
    [
        ([small_model(3), small_model(4)], "2 teachers"),
        (lambda texts: np.zeros((len(texts), 2)), r"the teacher '.*', which is no model"),
    ],
    ids=["two", "function"],
)
def test_matches_read_the_inside_of_one_model(tmp_path: Path, teacher: Any, found: str) -> None:
    args = DistillationTrainingArguments("unused", matches="minilm")
    with pytest.raises(ValueError, match=f"^matches are given with {found}; expected one model of kdistill"):
        DistillationTrainer(
            small_model(2),
            args,
            teacher_model=teacher,
            train_dataset=[{"text": "a good film", "label": 0}],
            processing_class=question_tokenizer(tmp_path),
        )


def test_a_teacher_that_reads_other_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    words = question_tokenizer(tmp_path)
    lines = (tmp_path / "vocab.txt").read_text().split()
    (tmp_path / "own" / "vocab.txt").write_text("\n".join([*lines[:5], *reversed(lines[5:])]) + "\n")
    args = DistillationTrainingArguments("unused", matches="minilm")
    with pytest.raises(ValueError, match=r"^matches are given with a teacher whose tokenizer gives texts other tokens"):
        DistillationTrainer(
            small_model(2),
            args,
            teacher_model=small_model(3),
            teacher_processing_class=kd.AutoTokenizer.from_pretrained(tmp_path / "own"),
            train_dataset=[{"text": "a good film", "label": 0}],
            processing_class=words,
        )


def test_each_layer_has_its_own_heads() -> None:
    """As after pruning: the last layers of both have a head less than the others."""
    teacher = wide_model(**TEACHER, pruned_heads={3: [1]}, seed=1)
    student = wide_model(**STUDENT, pruned_heads={1: [0]}, seed=2)
    matches = [kd.Match("attention"), kd.Match("relation")]
    (pairs,) = pairs_of([kd.Stage(matches)], teacher.config, student.config)
    assert [pair.heads for pair in pairs] == [2, 1, 2, 1]  # relations: 24 and 16 numbers, then 12 and 8
    ids, types = random_rows(LENGTHS, student.config)
    batch = kd.pack({"input_ids": ids, "token_type_ids": types})
    found, _ = matching(teacher, student, matches)
    loss, _, _ = learned(student, found, batch)
    ours, theirs = student.forward(batch, taps=found.taps)[1], teacher.forward(batch, taps=found.teacher_taps)[1]
    expected = 0.0
    for (t, s), heads in (((1, 0), 2), ((3, 1), 1)):
        places = np.cumsum([heads * n * n for n in LENGTHS])[:-1]
        parts = [np.split(of.astype(float), places) for of in (ours["scores", s], theirs["scores", t])]
        expected += match_formulas.maps(
            "mse", *([part.reshape(heads, n, n) for part, n in zip(of, LENGTHS, strict=True)] for of in parts)
        )
        for kind in ("query", "key", "value"):
            x, y = ours[kind, s].astype(float), theirs[kind, t].astype(float)
            expected += match_formulas.relation("kl", x, y, LENGTHS, heads) / 3
    assert loss == pytest.approx(expected, rel=0.05)  # dropout is on in the student's own pass


def test_two_matches_of_the_same_layers_have_one_name_and_are_refused() -> None:
    stage = kd.Stage([kd.Match("hidden", -1, -1), kd.Match("hidden")])
    with pytest.raises(ValueError, match=r"^matches give match_hidden_3_1_loss more than once: the same kind and loss"):
        pairs_of([stage], *configs())


def test_an_error_names_the_stage_of_its_match() -> None:
    good, bad = kd.Match("hidden"), kd.Match("hidden", 77, 0)
    for name, of in (("", "stage 2"), ("inside", "the stage 'inside'")):
        with pytest.raises(ValueError, match=rf"^matches\[1\] of {of} \(hidden\): teacher_layer is 77"):
            pairs_of([kd.Stage([good], share=0.5), kd.Stage([good, bad], name=name)], *configs())


def test_relation_heads_are_as_many_as_leave_8_numbers_in_the_narrower_model() -> None:
    teacher, student = wide_config(**(TEACHER | {"hidden_size": 768, "num_attention_heads": 12})), configs()[1]
    stage = kd.Stage([kd.Match("relation", -1, -1)])
    assert pairs_of([stage], teacher, student.replace(hidden_size=384, num_attention_heads=12))[0][0].heads == 48
    assert pairs_of([stage], teacher, student.replace(hidden_size=4, num_attention_heads=2))[0][0].heads == 1


# ---- runs


def run(directory: Path, matches: Any, student: Model | None = None, **changes: Any) -> DistillationTrainer:
    fields = {"matches": matches, "eval_strategy": "no", "teacher_dtype": "float32"} | changes
    args = DistillationTrainingArguments(**run_fields(directory, fields))
    trainer = DistillationTrainer(
        small_model(2) if student is None else student,
        args,
        teacher_model=small_model(9, num_hidden_layers=3, hidden_size=24),
        train_dataset=small_dataset(20),
        eval_dataset=small_dataset(10, seed=1),
    )
    trainer.train()
    return trainer


def test_a_run_logs_each_match_under_its_own_name_and_saves_no_projection(tmp_path: Path) -> None:
    trainer = run(tmp_path, [kd.Match("hidden", weight=2.0), kd.Match("cls", -1, -1)], max_steps=3, logging_steps=1)
    for entry in trainer.state.log_history[:3]:
        parts = [entry[f"match_hidden_{pair}_loss"] for pair in ("0_0", "2_1")], entry["match_cls_2_1_loss"]
        predicted = (entry["hard_loss"] + entry["soft_loss"]) / 2
        assert entry["loss"] == pytest.approx(predicted + 2 * sum(parts[0]) + parts[1], rel=1e-6)
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == {t.name for t in trainer.model.layout}
    assert "matches" in trainer.state.trained_on
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Match(kind='hidden'" in card
    assert json.loads((tmp_path / "out" / "training_args.json").read_text())["matches"][1]["kind"] == "cls"


def test_matches_bring_the_student_nearer_to_what_they_match(tmp_path: Path) -> None:
    trainer = run(tmp_path, [kd.Match("hidden", -1, -1)], num_train_epochs=8, logging_strategy="epoch")
    losses = [entry["match_hidden_2_1_loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]


def test_a_run_without_matches_asks_for_no_taps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdistill.distill.matching.Matching.__init__", lambda *_: pytest.fail("made"))
    trainer = run(tmp_path, None, max_steps=2)
    assert "matches" not in trainer.state.trained_on


def test_one_step_is_that_of_a_loop_written_out(tmp_path: Path) -> None:
    """The loss of the predictions, that of the matches, one norm for both, and AdamW for both."""
    matches = [kd.Match("hidden"), kd.Match("attention", "last", loss="kl", weight=5.0)]
    fields = {"max_steps": 1, "max_grad_norm": 0.1, "match_learning_rate": 0.3, "lr_scheduler_type": "constant"}
    trainer = run(tmp_path, matches, **fields)

    student, teacher = small_model(2), small_model(9, num_hidden_layers=3, hidden_size=24)
    student.dropout_seed = trainer.args.seed
    found, args = matching(teacher, student, matches, 1, match_learning_rate=0.3, learning_rate=0.01)
    optimizer = AdamW(student, lr=0.01, auxiliary=found.auxiliary)
    rows = next(iter(trainer.recipe.new_plan(trainer.train_dataset).rows_of_epoch(0, 0)))
    batch, labels = trainer.train_dataset.batch(rows)
    found.begin_step(0, np.diff(batch.starts))
    logits, taps = student.forward(batch, train=True, taps=found.taps)
    loss = found(batch, taps, rows)
    _, dlogits = kd.distillation_loss(logits, teacher.forward(batch), labels, alpha=args.alpha, temperature=4.0)
    student.backward(dlogits, loss.gradients)
    norm = kd.clip_grad_norm_(student, 0.1, auxiliary=found.auxiliary)
    assert found.auxiliary is not None
    squares = np.square(student.flat_gradients, dtype=float).sum() + np.square(found.auxiliary.flat_gradients).sum()
    assert np.sqrt(squares) == pytest.approx(0.1, rel=1e-5) != norm
    before = next(iter(found.auxiliary.parameters.values())).copy()
    optimizer.step()
    assert trainer.state.log_history[0]["grad_norm"] == norm
    np.testing.assert_array_equal(weights(trainer.model), weights(student))
    moved = np.abs(next(iter(found.auxiliary.parameters.values())) - before)
    assert moved.max() == pytest.approx(0.3, rel=1e-2)  # AdamW's first step is the learning rate


@pytest.mark.parametrize("head", ["tokens", "questions"])
def test_other_heads_learn_from_matches_too(tmp_path: Path, head: str) -> None:
    about: dict[str, Any]
    if head == "tokens":
        rows = small_dataset(12)
        labels = np.arange(len(rows.ids)) % 2
        about = {"train_dataset": Dataset(rows.ids, rows.types, rows.starts, labels, per_token=True)}
        student, teacher = (kd.BertForTokenClassification(small_config(), seed=seed) for seed in (2, 3))
    else:
        about = {"train_dataset": questions(12), "processing_class": question_tokenizer(tmp_path)}
        student, teacher = question_model(2), question_model(3)
    matches = [kd.Match("hidden"), kd.Match("cls"), kd.Match("attention"), kd.Match("relation", -1, -1)]
    args = DistillationTrainingArguments(
        **run_fields(tmp_path, {"matches": matches, "max_steps": 2, "eval_strategy": "no"})
    )
    trainer = DistillationTrainer(student, args, teacher_model=teacher, **about)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert sum(name.startswith("match_") for name in entry) == 7
    assert np.isfinite(entry["loss"])


def test_the_last_layer_stays_one_of_cls_alone_unless_a_match_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core computes all rows of a layer where a tap reads it; so nothing may ask for taps of the last one."""
    asked: list[Any] = []
    forward = Model.forward

    def noting(self: Model, batch: Any, train: bool = False, **options: Any) -> Any:
        if train:
            asked.append(options["taps"])
        return forward(self, batch, train, **options)

    monkeypatch.setattr(Model, "forward", noting)
    run(tmp_path, [kd.Match("hidden", 0, 0), kd.Match("attention", 0, 0)], max_steps=1)
    assert asked == [(("hidden", 1), ("scores", 0))]


def test_the_teacher_answers_once_for_each_micro_batch(tmp_path: Path) -> None:
    args = DistillationTrainingArguments(
        **run_fields(
            tmp_path, {"matches": [kd.Match("hidden"), kd.Match("cls")], "max_steps": 2, "eval_strategy": "no"}
        ),
    )
    args.gradient_accumulation_steps = 2
    trainer = DistillationTrainer(small_model(2), args, teacher_model=small_model(9), train_dataset=small_dataset(20))
    asked: list[int] = []
    inside = trainer.objective.teacher.inside
    trainer.objective.teacher.inside = lambda batch, taps: (asked.append(len(batch.starts) - 1), inside(batch, taps))[1]
    trainer.train()
    assert asked == [8, 8, 4]  # 16 rows, then the 4 that are left of the epoch


@pytest.mark.parametrize(("named", "faster", "computed"), [
    ("auto", ["int8", "bfloat16"], "bfloat16"), ("auto", ["int8"], "float32"), ("int8", ["int8", "bfloat16"], "int8"),
])  # fmt: skip
def test_the_inside_is_computed_in_bfloat16_where_it_is_faster_unless_a_type_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, faster: list[str], computed: str
) -> None:
    monkeypatch.setattr("kdistill.distill.teacher_type.faster_types", lambda: faster)
    monkeypatch.setattr("kdistill.system.compute.warn_if_portable", lambda _: None)
    fields = {"matches": [kd.Match("cls")], "teacher_dtype": named, "max_steps": 1, "eval_strategy": "no"}
    trainer = DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**run_fields(tmp_path, fields)),
        teacher_model=small_model(9),
        train_dataset=small_dataset(20),
    )
    trainer.train()
    assert trainer.teacher_model.dtype == computed


# ---- stages and courses


def test_stages_have_their_own_matches_and_weights(tmp_path: Path) -> None:
    stages = [
        kd.Stage([kd.Match("hidden", -1, -1)], share=0.5, prediction_weight=0.0),
        kd.Stage([kd.Match("hidden", -1, -1), kd.Match("cls", -1, -1)], alpha=1.0),
    ]
    trainer = run(tmp_path, stages, max_steps=4, logging_steps=1, alpha=0.25)
    entries = trainer.state.log_history[:4]
    for entry in entries[:2]:
        assert entry["loss"] == pytest.approx(entry["match_hidden_2_1_loss"], rel=1e-12)
        assert "match_cls_2_1_loss" not in entry
    for entry in entries[2:]:
        inside = entry["match_hidden_2_1_loss"] + entry["match_cls_2_1_loss"]
        assert entry["loss"] == pytest.approx(entry["hard_loss"] + inside, rel=1e-6)


def test_a_stage_that_learns_predictions_alone_does_not_ask_the_teacher(tmp_path: Path) -> None:
    trainer = run(tmp_path, "minilm", max_steps=2, logging_steps=1)
    assert "match_relation_2_1_loss" in trainer.state.log_history[0]
    stages = [kd.Stage([kd.Match("cls", -1, -1)], share=0.5), kd.Stage()]
    entries = run(tmp_path / "b", stages, max_steps=2, logging_steps=1).state.log_history
    assert "match_cls_2_1_loss" in entries[0]
    assert not any(name.startswith("match_") for name in entries[1])


def test_stages_that_do_not_fill_the_run_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the stages of matches have 9 steps, and the run has 6"):
        run(tmp_path, [kd.Stage([kd.Match("cls")], epochs=3)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("course", ["linear", "cosine"])
def test_courses_of_alpha_and_temperature(tmp_path: Path, course: str) -> None:
    seen: list[tuple[float, float]] = []

    class Noting(DistillationTrainer):
        def compute_loss(self, logits, labels, rows):
            objective = self.objective

            def noted(*of: Any, args: Any, **other: Any) -> Any:
                seen.append((args.alpha, args.temperature))
                return objective(*of, args=args, **other)

            noted.args_of_step = objective.args_of_step
            self.objective = noted
            found = super().compute_loss(logits, labels, rows)
            self.objective = objective
            return found

    fields = {"max_steps": 5, "eval_strategy": "no", "alpha": 0.2, "alpha_end": 1.0, "alpha_schedule": course}
    fields |= {"temperature": 5.0, "temperature_end": 1.0, "temperature_schedule": course}
    args = DistillationTrainingArguments(**run_fields(tmp_path, fields))
    Noting(small_model(2), args, teacher_model=small_model(9), train_dataset=small_dataset(40)).train()
    done = np.linspace(0, 1, 5) if course == "linear" else (1 - np.cos(np.pi * np.linspace(0, 1, 5))) / 2
    np.testing.assert_allclose(seen, np.stack([0.2 + 0.8 * done, 5 - 4 * done], axis=1))
    assert args.alpha == 0.2


def test_trials_of_a_search_in_two_threads_share_the_teacher_and_have_projections_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    results = []
    for jobs in (1, 2):
        args = DistillationTrainingArguments(**run_fields(tmp_path / str(jobs), {"matches": [kd.Match("hidden")]}))
        trainer = DistillationTrainer(
            args=args,
            model_init=lambda: small_model(2),
            teacher_model=small_model(9, hidden_size=24),
            train_dataset=small_dataset(40),
            eval_dataset=small_dataset(24, seed=1),
        )
        space = {"alpha": {"type": "categorical", "choices": [0.25, 0.75]}}
        trainer.hyperparameter_search(space, n_trials=4, n_jobs=jobs, pruner="none", sampler="random")
        results.append({(trial.params["alpha"], trial.value) for trial in trainer.study.trials})
    alphas = [alpha for alpha, _ in results[0] | results[1]]
    assert sorted(alphas) == sorted(set(alphas))  # every trial with one alpha ends alike


# ---- resuming


def test_a_run_resumed_with_other_matches_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "pkd", max_steps=2, save_strategy="steps", save_steps=1)
    with pytest.raises(ValueError, match=r"^the run in output_dir was trained with other matches; resume it with the"):
        _resumed(tmp_path, "minilm")
    with pytest.warns(UserWarning, match="^the run continues with changed arguments: max_steps was 2 and is now 4$"):
        assert _resumed(tmp_path, "pkd").state.global_step == 4


def _resumed(directory: Path, matches: Any) -> DistillationTrainer:
    fields = {"matches": matches, "max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    fields |= {"eval_strategy": "no", "teacher_dtype": "float32"}
    trainer = DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**run_fields(directory, fields)),
        teacher_model=small_model(9, num_hidden_layers=3, hidden_size=24),
        train_dataset=small_dataset(20),
    )
    trainer.train(resume_from_checkpoint=True)
    return trainer


def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(tmp_path: Path) -> None:
    """Projections and their moments too, and the average leaves them out; from each of its checkpoints."""
    stages = [kd.Stage([kd.Match("hidden"), kd.Match("relation", heads=2)], share=0.6), kd.Stage([kd.Match("hidden")])]
    fields = {
        "save_strategy": "steps", "save_steps": 1, "max_steps": 5, "ema_decay": 0.5, "weight_decay": 0.1,
        "alpha_schedule": "linear", "alpha_end": 0.9, "match_learning_rate": 0.1, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    whole = run(tmp_path / "whole", stages, **fields)
    expected = load_file(tmp_path / "whole" / "out" / "checkpoint-5" / "optimizer.safetensors")
    assert {"auxiliary.parameters", "auxiliary.m", "auxiliary.v"} <= set(expected)
    for stop in (1, 4):
        directory = tmp_path / str(stop)
        trainer = _trainer_of(directory, stages, fields)
        trainer.add_callback(_StopAt(stop))
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        again = _trainer_of(directory, stages, fields)
        again.train(resume_from_checkpoint=True)
        np.testing.assert_array_equal(weights(again.model), weights(whole.model))
        found = load_file(directory / "out" / "checkpoint-5" / "optimizer.safetensors")
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
        for one, other in zip(again.state.log_history, whole.state.log_history, strict=True):
            assert {k: v for k, v in one.items() if "runtime" not in k and "second" not in k} == {
                k: v for k, v in other.items() if "runtime" not in k and "second" not in k
            }


class _StopAt(kd.TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def _trainer_of(directory: Path, matches: Any, fields: dict[str, Any]) -> DistillationTrainer:
    changes = {"matches": matches, "eval_strategy": "no", "teacher_dtype": "float32"} | fields
    return DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**run_fields(directory, changes)),
        teacher_model=small_model(9, num_hidden_layers=3, hidden_size=24),
        train_dataset=small_dataset(20),
        eval_dataset=small_dataset(10, seed=1),
    )


@pytest.mark.parametrize("event", ["on_pre_optimizer_step", "on_optimizer_step", "on_step_end"])
def test_an_interrupt_in_a_step_leaves_model_and_projections_at_one_step(tmp_path: Path, event: str) -> None:
    fields = {"max_steps": 5, "enable_jit_checkpoint": True, "save_strategy": "no", "match_learning_rate": 0.1}
    whole = run(tmp_path / "whole", [kd.Match("hidden")], **(fields | {"enable_jit_checkpoint": False}))
    trainer = _trainer_of(tmp_path, [kd.Match("hidden")], fields)
    trainer.add_callback(_InterruptAt(event, 3))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    again = _trainer_of(tmp_path, [kd.Match("hidden")], fields)
    again.train(resume_from_checkpoint=True)
    np.testing.assert_array_equal(weights(again.model), weights(whole.model))


class _InterruptAt(kd.TrainerCallback):
    def __init__(self, event: str, calls: int) -> None:
        counter = itertools.count(1)

        def raising(*_: Any, **__: Any) -> None:
            if next(counter) == calls:
                raise KeyboardInterrupt

        setattr(self, event, raising)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_students_of_every_architecture_learn_from_a_bert(tmp_path: Path, model_type: str) -> None:
    """Also in bfloat16, whose losses are those of float32 but for the rounding of products."""
    architecture = ARCHITECTURES[model_type]
    matches = [kd.Match(kind) for kind in ("embedding", "hidden", "cls", "attention", "relation")]
    losses: list[dict[str, float]] = []
    for bf16 in (False, True):
        config = architecture.config(
            vocab_size=small_config().vocab_size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16 + architecture.config().first_position,
            initializer_range=0.2,
            **({"embedding_size": 8} if model_type in ("albert", "electra") else {}),
        )
        student = getattr(kd, f"{architecture.name}ForSequenceClassification")(config, seed=2)
        fields = {"matches": matches, "max_steps": 1, "eval_strategy": "no", "bf16": bf16}
        args = DistillationTrainingArguments(**run_fields(tmp_path / str(bf16), fields))
        trainer = DistillationTrainer(
            student, args, teacher_model=small_model(9, hidden_size=24), train_dataset=small_dataset(8)
        )
        trainer.train()
        losses.append({name: of for name, of in trainer.state.log_history[0].items() if name.startswith("match_")})
    assert len(losses[0]) == 9
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
