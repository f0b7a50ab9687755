"""The compute type of a teacher: chosen by a check, kept by the run, and told where results are."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model

from kdistill import _core
from kdistill.data.dataset import Dataset
from kdistill.distill import teacher_type
from kdistill.distill.cache import cached_rows, teacher_logits
from kdistill.distill.teacher_type import TypeCheck
from kdistill.models.classes import BertForSequenceClassification, BertModel
from kdistill.models.model import Model
from kdistill.tasks import regression
from kdistill.tasks.registry import task_for
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.trainers import DistillationTrainer

ROWS = 520  # the fewest are 512: an eighth of them is checked
CHECKED = ROWS // 8
ALL_FASTER = teacher_type.FASTER


pytestmark = [
    pytest.mark.filterwarnings("ignore:(int8|bfloat16) is computed portably"),
    pytest.mark.filterwarnings("ignore:the teacher's accuracy is 0.5000"),
]


@pytest.fixture(autouse=True)
def _every_type_counts_as_native(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let int8 and bfloat16 be tried in this order on every CPU, with whatever kernels it has, and an empty cache."""
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    faster = [(dtype, _core.COMPUTE[dtype]) for dtype in ("int8", "bfloat16")]
    monkeypatch.setattr(teacher_type, "FASTER", faster)
    monkeypatch.setattr(teacher_type, "cpu_vendor", lambda: "")


def run_of(directory: Path, teacher: Model, rows: int = ROWS, **changes: Any) -> DistillationTrainer:
    fields = run_fields(directory, {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, **changes})
    return DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**fields),
        teacher_model=teacher,
        train_dataset=small_dataset(rows),
        eval_dataset=small_dataset(20, seed=1),
    )


def logits_in(dtype: str, rows: Dataset, seed: int = 3) -> np.ndarray:
    return small_model(seed).freeze(dtype).forward(rows.batch(np.arange(len(rows)))[0])


def settled(run: DistillationTrainer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(run.args.output_dir, "trainer_state.json").read_text())["settled"]
    return found


def wrong_in(
    monkeypatch: pytest.MonkeyPatch, *dtypes: str, by: Callable[[np.ndarray], np.ndarray] = np.negative
) -> None:
    """Let every model answer wrongly in these types."""
    forward = BertForSequenceClassification.forward

    def broken(model: Model, batch: Any, train: bool = False) -> np.ndarray:
        logits = forward(model, batch, train)
        return by(logits) if model.frozen and str(model.dtype) in dtypes else logits

    monkeypatch.setattr(BertForSequenceClassification, "forward", broken)


def test_the_first_type_that_agrees_with_float32_teaches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, small_model(3), disable_tqdm=False)
    run.train()
    np.testing.assert_array_equal(run.objective.answers[0], logits_in("int8", run.train_dataset))
    assert not np.array_equal(run.objective.answers[0], logits_in("float32", run.train_dataset))

    exact, narrow = (logits_in(dtype, run.train_dataset)[:CHECKED].astype(np.float64) for dtype in ("float32", "int8"))
    p, q = (np.exp(of) / np.exp(of).sum(axis=1, keepdims=True) for of in (exact, narrow))
    agreement, kl = (exact.argmax(1) == narrow.argmax(1)).mean(), (p * np.log(p / q)).sum(axis=1).mean()
    assert settled(run) == {
        "teacher_dtype": "int8",
        "teacher_check": {
            "rows": CHECKED,
            "answers": "labels",
            "types": [["int8", agreement, pytest.approx(kl, rel=1e-6)]],
        },
    }
    told = f"computes in int8: on the first {CHECKED} training rows int8 agrees with float32 on {agreement:.4f}"
    told += f", mean KL {kl:.1e}"
    assert capsys.readouterr().err.splitlines().count(f"the teacher {told}") == 1
    card = Path(run.args.output_dir, "README.md").read_text()
    assert f"This model was trained in float32 and computes in float32; the teacher {told}." in card
    figures = run.create_model_card(measure_speed=False)
    assert (figures["dtype"], figures["training_dtype"], figures["teacher"]["dtype"]) == ("float32", "float32", "int8")
    assert figures["teacher"]["dtype_check"]["int8"] == {"agreement": agreement, "kl": pytest.approx(kl, rel=1e-6)}


def test_a_type_that_differs_from_float32_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong_in(monkeypatch, "int8")
    run = run_of(tmp_path, small_model(3), disable_tqdm=False)
    run.train()
    assert settled(run)["teacher_dtype"] == "bfloat16"
    told = capsys.readouterr().err
    assert "the teacher computes in bfloat16: on the first 65 training rows int8 agrees with float32 on 0.0000" in told
    assert "(wanted: 0.99, 1e-03), and bfloat16 agrees with float32 on 1.0000" in told


@pytest.mark.parametrize("by", [lambda logits: logits * 1.5, lambda logits: logits * np.nan], ids=["far", "nan"])
def test_float32_is_left_where_no_type_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Logits half as large again name the same labels with other probabilities."""
    wrong_in(monkeypatch, "int8", "bfloat16", by=by)
    run = run_of(tmp_path, small_model(3))
    run.train()
    assert settled(run)["teacher_dtype"] == "float32"
    assert [of for of, *_ in settled(run)["teacher_check"]["types"]] == ["int8", "bfloat16"]
    np.testing.assert_array_equal(run.objective.answers[0], logits_in("float32", run.train_dataset))
    run.load_finished_run()  # JSON has no infinity
    assert not any(check.passed for check in run.objective.teacher.choice.checks)


def test_few_rows_are_answered_in_float32_without_a_check(tmp_path: Path) -> None:
    run = run_of(tmp_path, small_model(3), rows=511)
    run.train()
    assert settled(run) == {"teacher_dtype": "float32"}
    np.testing.assert_array_equal(run.objective.answers[0], logits_in("float32", run.train_dataset))
    card = Path(run.args.output_dir, "README.md").read_text()
    assert "computes in float32; the teacher computes in float32." in card


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_that_are_cached_are_used(tmp_path: Path, dtype: str) -> None:
    rows = small_dataset(ROWS)
    teacher_logits(small_model(3).freeze(dtype), rows)
    run = run_of(tmp_path, small_model(3))
    run.train()
    assert settled(run)["teacher_dtype"] == dtype
    assert ("teacher_check" in settled(run)) == (dtype != "float32")
    np.testing.assert_array_equal(run.objective.answers[0], logits_in(dtype, rows))
    assert cached_rows(small_model(3).freeze("int8"), rows).sum() == 0


def test_a_cache_that_lacks_rows_does_not_choose(tmp_path: Path) -> None:
    teacher_logits(small_model(3).freeze(), small_dataset(ROWS - 1))
    run = run_of(tmp_path, small_model(3))
    run.train()
    assert settled(run)["teacher_dtype"] == "int8"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_type_that_is_asked_for_needs_no_check(tmp_path: Path, dtype: str) -> None:
    run = run_of(tmp_path, small_model(3), teacher_dtype=dtype)
    run.train()
    assert settled(run) == {"teacher_dtype": dtype}
    np.testing.assert_array_equal(run.objective.answers[0], logits_in(dtype, run.train_dataset))
    assert cached_rows(small_model(3).freeze(dtype), run.train_dataset).all()


@pytest.mark.filterwarnings("ignore:the run continues with changed arguments. teacher_cache")
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_resumed_run_keeps_the_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    if dtype == "float32":
        wrong_in(monkeypatch, "int8", "bfloat16")
    whole = run_of(tmp_path / "whole", small_model(3))
    whole.train()
    begun = run_of(tmp_path, small_model(3))
    begun.train()
    before, checkpoint = settled(begun), tmp_path / "out" / "checkpoint-1"
    assert before["teacher_dtype"] == dtype
    other = [("bfloat16", _core.COMPUTE["bfloat16"])]  # another CPU would choose it
    monkeypatch.setattr(teacher_type, "FASTER", other)
    run = run_of(tmp_path, small_model(3), teacher_cache=False)
    run.train(resume_from_checkpoint=checkpoint)
    assert settled(run) == before
    np.testing.assert_array_equal(run.model.flat_parameters, whole.model.flat_parameters)


def test_a_run_of_an_earlier_version_goes_on_in_float32(tmp_path: Path) -> None:
    run_of(tmp_path, small_model(3), teacher_dtype="float32").train()
    for name in ("checkpoint-1", "."):
        path = tmp_path / "out" / name / "trainer_state.json"
        state = json.loads(path.read_text())
        del state["settled"], state["args"]["teacher_dtype"], state["args"]["bf16"]
        path.write_text(json.dumps(state))
    run = run_of(tmp_path, small_model(3))
    run.load_finished_run()
    assert run.objective.teacher.dtype == "float32"


@pytest.mark.filterwarnings("ignore:the run continues with changed arguments. teacher_dtype")
def test_one_run_learns_from_one_type(tmp_path: Path) -> None:
    run_of(tmp_path, small_model(3)).train()
    run = run_of(tmp_path, small_model(3), teacher_dtype="float32")
    refused = "^teacher_dtype is float32, and the teacher of the run in output_dir computed in int8"
    with pytest.raises(ValueError, match=refused):
        run.train(resume_from_checkpoint=tmp_path / "out" / "checkpoint-1")


def test_a_teacher_loaded_in_a_type_teaches_in_it(tmp_path: Path) -> None:
    small_model(3).save_pretrained(tmp_path / "teacher")

    def load() -> Model:
        return BertForSequenceClassification.from_pretrained(tmp_path / "teacher", dtype="bfloat16")

    run = run_of(tmp_path, load())
    run.train()
    assert settled(run) == {"teacher_dtype": "bfloat16"}
    np.testing.assert_array_equal(run.objective.answers[0], logits_in("bfloat16", run.train_dataset))
    with pytest.raises(ValueError, match=r"^teacher_dtype is int8, and teacher_model was loaded with dtype bfloat16"):
        run_of(tmp_path, load(), teacher_dtype="int8")


def test_trainers_that_share_a_teacher_each_keep_their_type(tmp_path: Path) -> None:
    teacher = small_model(3)
    narrow, exact = (run_of(tmp_path / of, teacher, teacher_dtype=of) for of in ("int8", "float32"))
    narrow.train()
    exact.train()
    narrow.train_dataset = small_dataset(30, seed=5)
    for run, dtype in ((narrow, "int8"), (exact, "float32")):
        rows = small_dataset(30, seed=5)
        logits = run.objective.teacher.outputs(rows, run.args, what="rows")
        np.testing.assert_array_equal(logits, logits_in(dtype, rows))


def test_embeddings_are_compared_by_their_cosines() -> None:
    """Neither their lengths nor numbers that hardly differ among the rows count."""
    random = np.random.default_rng(0)
    reference = random.normal(size=(40, 6)).astype(np.float32) + np.float32([9, 0, 0, 0, 0, 0])
    embeddings = (reference + random.normal(scale=0.1, size=(40, 6))).astype(np.float32)
    ours, theirs = embeddings.astype(np.float64), reference.astype(np.float64)
    cosine = (ours * theirs).sum(axis=1) / np.sqrt((ours**2).sum(axis=1) * (theirs**2).sum(axis=1))
    task = task_for(BertModel(small_model().config.with_head("feature-extraction")).with_pooling("mean").config)
    assert task.agreement(embeddings, reference) == pytest.approx(cosine.min(), rel=1e-12)
    assert task.divergence(embeddings, reference) == pytest.approx(1 - cosine.mean(), rel=1e-9)
    assert task.agreement(2 * reference, reference) == pytest.approx(1.0)
    assert TypeCheck("int8", cosine.min(), 1 - cosine.mean()).passed
    assert regression.TASK.divergence(embeddings, reference) > 1e-3  # what numbers are judged by


def test_agreement_is_that_of_label_sets_and_for_numbers_the_lowest_correlation() -> None:
    random = np.random.default_rng(0)
    reference = random.normal(0, 2, (50, 2)).astype(np.float32)
    logits = (reference + random.normal(0, 1, (50, 2))).astype(np.float32)
    several = task_for(small_model().config.replace(problem_type="multi_label_classification"))
    assert several.agreement(logits, reference) == ((logits > 0) == (reference > 0)).all(axis=1).mean()
    numbers = task_for(small_model().config.replace(problem_type="regression"))
    correlations = [np.corrcoef(logits[:, k].astype(float), reference[:, k].astype(float))[0, 1] for k in (0, 1)]
    assert numbers.agreement(logits, reference) == pytest.approx(min(correlations), rel=1e-12)
    assert math.isnan(numbers.agreement(logits, np.ones_like(reference)))  # which passes no check
    assert not teacher_type.TypeCheck("int8", math.nan, 0.0).passed


def test_a_word_that_is_no_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="teacher_dtype is 'float16'; expected"):
        run_of(tmp_path, small_model(3), teacher_dtype="float16")


@pytest.mark.parametrize(
    ("vendor", "instructions", "expected"),
    [
        ("AuthenticAMD", {"bfloat16": "avx512_bf16", "int8": "avx512_vnni"}, ["int8", "bfloat16"]),
        ("GenuineIntel", {"bfloat16": "avx512_bf16", "int8": "avx512_vnni"}, ["int8"]),
        ("GenuineIntel", {"bfloat16": "amx", "int8": "amx"}, ["int8", "bfloat16"]),
        ("AuthenticAMD", {"bfloat16": None, "int8": "avx_vnni"}, ["int8"]),
        ("", {"bfloat16": None, "int8": None}, []),
    ],
)
def test_only_types_that_this_cpu_multiplies_faster_than_float32_are_tried(
    vendor: str, instructions: dict[str, str | None], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_type, "FASTER", ALL_FASTER)
    monkeypatch.setattr(teacher_type, "cpu_vendor", lambda: vendor)
    monkeypatch.setattr(_core, "COMPUTE", {"float32": "avx512", **instructions})
    assert teacher_type.faster_types() == expected
