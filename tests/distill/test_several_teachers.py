"""Several teachers of one student, functions that teach, and teachers that read texts with tokenizers of their own."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.other_teacher import write_other_teacher
from support.small_run import (
    VOCABULARY,
    run_fields,
    sentences,
    small_dataset,
    small_model,
    weights,
    write_model,
    write_rows,
)

import kdistill as kd
from kdistill.cli import main as cli
from kdistill.data.dataset import Dataset
from kdistill.distill.cache import info
from kdistill.distill.sources import Teachers
from kdistill.distill.teacher_type import TypeChoice
from kdistill.distill.teachers import Teacher
from kdistill.models.pooling import Pooling

pytestmark = pytest.mark.filterwarnings("ignore:the teacher", "ignore:no eval_dataset", "ignore:teacher")
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ROWS = [{"sentence": text, "label": label} for text, label in sentences(40)]


def arguments(directory: Path, **changes: Any) -> kd.DistillationTrainingArguments:
    fields = {"teacher_dtype": "float32", **({} if "max_steps" in changes else {"num_train_epochs": 1}), **changes}
    return kd.DistillationTrainingArguments(**run_fields(directory, fields))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "bert"))


@pytest.fixture
def other(tmp_path: Path) -> tuple[Any, Any]:
    directory = write_other_teacher(tmp_path / "roberta")
    return kd.AutoModelForSequenceClassification.from_pretrained(directory), kd.AutoTokenizer.from_pretrained(directory)


def test_a_student_learns_the_mean_of_the_softened_probabilities(tmp_path: Path) -> None:
    teachers, rows = [small_model(7), small_model(8, num_hidden_layers=1)], small_dataset(8)
    student = small_model(2, **NO_DROPOUT)
    batch, _ = rows.batch(np.arange(8))
    p = sum(w * softmax(of.forward(batch).astype(np.float64) / 3) for w, of in zip((0.7, 0.3), teachers, strict=True))
    q = softmax(student.forward(batch).astype(np.float64) / 3)
    expected = 9 * (p * np.log(p / q)).sum(axis=1).mean()
    trainer = kd.DistillationTrainer(
        student,
        arguments(tmp_path, max_steps=1, alpha=0.0, temperature=3.0, logging_steps=1, logging_strategy="steps"),
        teacher_model=teachers,
        teacher_weights=[7, 3],
        train_dataset=rows,
        eval_dataset=small_dataset(20, seed=1),
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert len(info()) == 2  # each has its own file in the cache
    each = [of.metrics["accuracy"] for of in trainer.objective.teachers.sources]
    assert trainer.teacher_accuracy == trainer.results["teacher_accuracy"]
    assert trainer.teacher_name == "teacher 0 (0.7) + teacher 1 (0.3)"
    assert len(each) == 2


def test_together_they_are_measured_by_the_mean_of_their_probabilities() -> None:
    """At temperature 1, whatever that of the loss is."""
    models = [small_model(seed, **NO_DROPOUT) for seed in (9, 10)]
    rows, args = small_dataset(12), kd.DistillationTrainingArguments("unused", disable_tqdm=True, temperature=8.0)
    teachers = Teachers([Teacher(model) for model in models], [0.25, 0.75])
    found = np.asarray(teachers.logits(rows, models[0].config, args), np.float64)
    each = [softmax(model.forward(rows.batch(np.arange(12))[0]).astype(np.float64)) for model in models]
    np.testing.assert_allclose(softmax(found), 0.25 * each[0] + 0.75 * each[1], rtol=1e-5)


def test_two_teachers_that_agree_teach_as_one_does(tmp_path: Path) -> None:
    """Key biases are left out by the comparison of logits: their gradients are roundings of 0."""
    batch, _ = small_dataset(32).batch(np.arange(32))

    def trained(directory: Path, teacher: Any) -> np.ndarray:
        trainer = kd.DistillationTrainer(
            small_model(2), arguments(directory), teacher_model=teacher, train_dataset=small_dataset(32)
        )
        trainer.train()
        return trainer.model.forward(batch)

    alone = trained(tmp_path / "a", small_model(7))
    np.testing.assert_allclose(trained(tmp_path / "b", [small_model(7), small_model(7)]), alone, atol=1e-3)
    np.testing.assert_array_equal(trained(tmp_path / "c", [small_model(7)]), alone)


def test_a_run_does_not_go_on_with_other_weights(tmp_path: Path) -> None:
    def trainer(given: list[float] | None) -> kd.DistillationTrainer:
        return kd.DistillationTrainer(
            small_model(2),
            arguments(tmp_path),
            teacher_model=[small_model(7), small_model(8)],
            teacher_weights=given,
            train_dataset=small_dataset(16),
        )

    trainer(None).train()
    trainer([2, 2]).train(resume_from_checkpoint=True)  # the same
    with pytest.raises(ValueError, match="trained on other rows or with another teacher"):
        trainer([0.7, 0.3]).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_weights": [1.0]}, "teacher_weights is 1 and the number of teachers 2; expected a weight for each"),
        ({"teacher_weights": [1.0, 0.0]}, "teacher_weights is 1, 0; expected numbers above 0: leave out a teacher"),
        ({"teacher_weights": [1.0, float("nan")]}, "teacher_weights is 1, nan; expected numbers above 0"),
        ({"teacher_model": []}, "teacher_model is an empty list; expected a teacher at least"),
        ({"teacher_processing_class": [None]}, "teacher_processing_class is a list of 1 and teacher_model a list of 2"),
    ],
)
def test_teachers_that_do_not_fit_each_other(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = {"teacher_model": [small_model(7), small_model(8)], **changes}
    with pytest.raises(ValueError, match=message):
        kd.DistillationTrainer(small_model(2), arguments(tmp_path), **given)


def test_a_teacher_cannot_be_two(tmp_path: Path) -> None:
    teacher = small_model(7)
    with pytest.raises(ValueError, match="teacher_model has the same object twice, as teacher 1; expected each once"):
        kd.DistillationTrainer(small_model(2), arguments(tmp_path), teacher_model=[teacher, teacher])


def test_a_function_teaches_as_its_model_does(tmp_path: Path, tokenizer: Any) -> None:
    """Equal texts are asked once, and the loss is that of the model itself."""
    teacher, asked = small_model(7), []

    def function(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        return teacher.forward(kd.pack(dict(tokenizer(texts)))).tolist()

    def trained(directory: Path, teacher: Any, augment: int = 0) -> kd.DistillationTrainer:
        trainer = kd.DistillationTrainer(
            small_model(2),
            arguments(directory, teacher_cache=False, augment=augment),
            teacher_model=teacher,
            train_dataset=ROWS,
            eval_dataset=ROWS[:20],
            processing_class=tokenizer,
        )
        trainer.train()
        return trainer

    ours, theirs = trained(tmp_path / "a", function), trained(tmp_path / "b", small_model(7))
    np.testing.assert_array_equal(weights(ours.model), weights(theirs.model))
    assert sorted(asked) == sorted({row["sentence"] for row in ROWS})
    assert ours.results["teacher_accuracy"] == theirs.results["teacher_accuracy"]
    assert ours.teacher_name == "function"
    ours.create_model_card()
    assert "distilled from the teacher `function`" in (tmp_path / "a" / "out" / "README.md").read_text()


def test_pairs_and_token_ids_are_asked_as_such(tmp_path: Path, tokenizer: Any) -> None:
    seen: list[Any] = []

    def function(rows: list[Any]) -> np.ndarray:
        seen.extend(rows)
        return np.zeros((len(rows), 2))

    pairs = [{"sentence1": "good film", "sentence2": f"bad plot {'actor ' * n}", "label": n % 2} for n in range(4)]
    for rows in (pairs, small_dataset(3)):
        kd.DistillationTrainer(
            small_model(2),
            arguments(tmp_path, max_steps=1, overwrite_output_dir=True),
            teacher_model=function,
            train_dataset=rows,
            processing_class=tokenizer,
        ).train()
    assert seen[0] == ("good film", "bad plot ")
    assert seen[4] == {"input_ids": small_dataset(3).ids[: small_dataset(3).starts[1]].tolist()} | {
        "token_type_ids": [0] * int(small_dataset(3).starts[1])
    }


def test_answers_of_a_function_are_stored_under_its_name_and_version(tmp_path: Path, tokenizer: Any) -> None:
    asked: list[str] = []

    def function(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return np.tile(np.float32([0.25, -0.5]), (len(texts), 1))

    def answers(version: str | None, **changes: Any) -> np.ndarray:
        asked.clear()
        source = kd.TeacherFunction(function, name="mine", version=version)
        trainer = kd.DistillationTrainer(
            small_model(2),
            arguments(tmp_path, max_steps=1, overwrite_output_dir=True, **changes),
            teacher_model=source,
            train_dataset=ROWS,
            processing_class=tokenizer,
        )
        trainer.train()
        return trainer.objective.answers[0]

    first, every = answers("1"), len({row["sentence"] for row in ROWS})
    assert len(asked) == every
    np.testing.assert_array_equal(answers("1"), first)
    assert not asked
    for version, changes in (("2", {}), (None, {}), (None, {}), ("1", {"teacher_cache": False})):
        answers(version, **changes)
        assert len(asked) == every
    with pytest.raises(ValueError, match="version is '1' and name is None; expected both"):
        kd.TeacherFunction(function, version="1")


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (
            lambda n: np.zeros((n, 3)),
            ValueError,
            r"wrong returned logits of shape \(8, 3\) for 8 rows; expected \(8,",
        ),
        (lambda n: np.zeros((n - 1, 2)), ValueError, r"wrong returned logits of shape \(7, 2\) for 8 rows"),
        (lambda n: np.zeros(n), ValueError, r"wrong returned logits of shape \(8,\) for 8 rows"),
        (
            lambda n: [[np.nan, 0.0]] * n,
            FloatingPointError,
            "the logits of wrong are not finite for 8 of 8 rows, the fi",
        ),
        (lambda n: "no numbers", TypeError, "wrong returned str, which is no array of numbers"),
        (lambda n: [[1.0], [1.0, 2.0]], TypeError, "wrong returned list, which is no array of numbers"),
    ],
)
def test_what_a_function_returns_is_checked(
    tmp_path: Path, tokenizer: Any, returned: Any, error: type[Exception], message: str
) -> None:
    def wrong(texts: list[str]) -> Any:
        return returned(len(texts))

    trainer = kd.DistillationTrainer(
        small_model(2),
        arguments(tmp_path, per_device_eval_batch_size=8),
        teacher_model=wrong,
        train_dataset=ROWS,
        processing_class=tokenizer,
    )
    with pytest.raises(error, match=message):
        trainer.train()


def test_a_function_does_not_answer_for_tokens(tmp_path: Path) -> None:
    student = kd.BertForTokenClassification(small_model(2).config.with_head("token-classification"), seed=1)
    with pytest.raises(ValueError, match="teacher_model is the function <lambda>, and model is one for token-classif"):
        kd.DistillationTrainer(student, arguments(tmp_path), teacher_model=lambda texts: texts)


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("paired", [False, True])
def test_each_model_reads_the_text_with_its_own_tokenizer(
    tmp_path: Path, tokenizer: Any, kind: str, paired: bool
) -> None:
    changes = {} if kind == "classification" else {"id2label": {0: "LABEL_0"}, "problem_type": kind}
    directory = write_other_teacher(tmp_path / "roberta", **changes)
    teacher = kd.AutoModelForSequenceClassification.from_pretrained(directory)
    theirs = kd.AutoTokenizer.from_pretrained(directory)
    texts = [text for text, _ in sentences(24)]
    others = [text[:20] for text, _ in sentences(24, seed=5)]
    rows = [
        {"sentence1": a, "sentence2": b, "label": n % 2} for n, (a, b) in enumerate(zip(texts, others, strict=True))
    ]
    if not paired:
        rows = [{"sentence": row["sentence1"], "label": row["label"]} for row in rows]
    trainer = kd.DistillationTrainer(
        small_model(2, max_position_embeddings=64, **changes),
        arguments(tmp_path),
        teacher_model=teacher,
        teacher_processing_class=theirs,
        train_dataset=rows,
        eval_dataset=rows[:8],
        processing_class=tokenizer,
    )
    trainer.train()
    inputs = list(zip(texts, others, strict=True)) if paired else texts
    expected = np.concatenate([teacher.forward(kd.pack(dict(theirs([text])))) for text in inputs])
    np.testing.assert_array_equal(trainer.objective.answers[0], expected)
    trainer.create_model_card()


def test_each_teacher_remembers_that_it_reads_itself(tokenizer: Any, other: tuple[Any, Any]) -> None:
    """The first one that needs the texts settles that rows keep them, and the others are asked all the same."""
    teachers = [
        Teacher(other[0], "a", other[1]),
        Teacher(other[0], "b", other[1]),
        Teacher(small_model(3), "c", tokenizer),
    ]
    assert Teachers(teachers).needs_texts(small_model(2).config, tokenizer)
    assert [teacher.reads_itself for teacher in teachers] == [True, True, False]


def test_each_teacher_keeps_the_compute_type_that_was_chosen_for_it() -> None:
    first, again = (Teachers([Teacher(small_model(seed)) for seed in (9, 10, 11)]) for _ in range(2))
    types = ["bfloat16", "float32", "int8"]
    for teacher, dtype in zip(first.models, types, strict=True):
        teacher.choice = TypeChoice(dtype)
    again.keep_types(first.settled_types(), kd.DistillationTrainingArguments("unused"))
    assert [teacher.dtype for teacher in again.models] == types


def test_a_teacher_is_cut_to_its_own_length(tmp_path: Path, tokenizer: Any, other: tuple[Any, Any]) -> None:
    teacher, theirs = other
    trainer = kd.DistillationTrainer(
        small_model(2),
        arguments(tmp_path, max_length=14),
        teacher_model=teacher,
        teacher_processing_class=theirs,
        train_dataset=ROWS,
        processing_class=tokenizer,
    )
    with pytest.warns(UserWarning, match="33 of 40 rows were longer than 14 tokens of the teacher and truncated for i"):
        trainer.train()
    assert trainer.train_dataset is not None
    assert trainer.train_dataset.lengths.max() < 14  # the student's tokens are words


def test_one_tokenizer_keeps_no_texts(tmp_path: Path, tokenizer: Any) -> None:
    for theirs in (tokenizer, None):
        trainer = kd.DistillationTrainer(
            small_model(2),
            arguments(tmp_path),
            teacher_model=small_model(7),
            teacher_processing_class=theirs,
            train_dataset=ROWS,
            processing_class=tokenizer,
        )
        assert trainer.train_dataset is not None
        assert trainer.train_dataset.texts is None


def test_the_same_vocabulary_in_other_case_is_read_by_each(tmp_path: Path) -> None:
    """A cased teacher would otherwise see lower-case words, which its tokenizer would never make."""
    words = [*VOCABULARY, *(word.title() for word in VOCABULARY[5:])]
    for name, lower in (("teacher", False), ("student", True)):
        small_model(1, vocab_size=len(words)).save_pretrained(tmp_path / name)
        (tmp_path / name / "vocab.txt").write_text("\n".join(words) + "\n")
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    theirs, ours = (kd.AutoTokenizer.from_pretrained(tmp_path / name) for name in ("teacher", "student"))
    teacher = small_model(7, vocab_size=len(words))
    rows = [{"sentence": text.title(), "label": label} for text, label in sentences(16)]
    trainer = kd.DistillationTrainer(
        small_model(2, vocab_size=len(words)),
        arguments(tmp_path),
        teacher_model=teacher,
        teacher_processing_class=theirs,
        train_dataset=rows,
        processing_class=ours,
    )
    trainer.train()
    expected = teacher.forward(kd.pack(dict(theirs([row["sentence"] for row in rows]))))
    np.testing.assert_array_equal(trainer.objective.answers[0], expected)
    assert trainer.train_dataset is not None
    assert trainer.train_dataset.ids.max() < len(VOCABULARY)


def test_token_ids_have_no_text_for_another_tokenizer(tmp_path: Path, tokenizer: Any, other: tuple[Any, Any]) -> None:
    teacher, theirs = other
    given: dict[str, Any] = {"teacher_model": teacher, "train_dataset": small_dataset(8)}
    trainer = kd.DistillationTrainer(
        small_model(2), arguments(tmp_path), processing_class=tokenizer, teacher_processing_class=theirs, **given
    )
    with pytest.raises(ValueError, match="the rows are token ids, and the teacher reads texts with a tokenizer of its"):
        trainer.train()
    with pytest.raises(ValueError, match="vocabulary has 35 entries and the student's 13; expected the same voc"):
        kd.DistillationTrainer(small_model(2), arguments(tmp_path), processing_class=tokenizer, **given)


def test_copies_of_rows_are_read_as_the_text_that_they_are(
    tmp_path: Path, tokenizer: Any, other: tuple[Any, Any]
) -> None:
    teacher, theirs = other
    trainer = kd.DistillationTrainer(
        small_model(2, max_position_embeddings=64),
        arguments(tmp_path, augment=2, alpha=0.0),
        teacher_model=teacher,
        teacher_processing_class=theirs,
        train_dataset=ROWS,
        processing_class=tokenizer,
    )
    trainer.train()
    rows = trainer.recipe.rows_to_learn_from()
    assert rows.texts is not None
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in np.split(rows.ids, rows.starts[1:-1])]
    assert len(texts) == 120
    assert list(rows.texts.first) == texts
    assert len({*texts}) > 60
    expected = np.concatenate([teacher.forward(kd.pack(dict(theirs([text])))) for text in texts])
    np.testing.assert_array_equal(trainer.objective.answers[0], expected)


def test_rows_without_an_answer_learn_from_their_labels(tmp_path: Path) -> None:
    """The loss is the mean over all rows, some of them with alpha 1, against sums in float64."""

    class Partly:
        name, metrics = "partly", {}

        def needs_texts(self, student: Any, reader: Any) -> bool:
            return False

        def check_student(self, student: Any, reader: Any) -> None:
            pass

        def fingerprint(self) -> str:
            return "partly"

        def outputs(self, rows: Any, args: Any, *, what: str) -> np.ndarray:
            found = np.tile(np.float32([1.0, -1.0]), (len(rows), 1))
            found[::3] = np.nan
            return found

    rows, student = small_dataset(8), small_model(2, **NO_DROPOUT)
    args = arguments(tmp_path, max_steps=1, alpha=0.25, temperature=2.0, logging_steps=1, logging_strategy="steps")
    logits = student.forward(rows.batch(np.arange(8))[0]).astype(np.float64)
    trainer = kd.DistillationTrainer(student, args, teacher_model=Partly(), train_dataset=rows)
    trainer.train()
    hard = -np.log(softmax(logits))[np.arange(8), rows.labels]
    p, q = softmax(np.array([[0.5, -0.5]])), softmax(logits / 2)
    soft = 4 * (p * np.log(p / q)).sum(axis=1)
    expected = np.where(np.arange(8) % 3 == 0, hard, 0.25 * hard + 0.75 * soft).mean()
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(expected, rel=1e-5)
    assert entry["hard_loss"] == pytest.approx(hard.mean(), rel=1e-5)
    assert entry["soft_loss"] == pytest.approx(soft[np.arange(8) % 3 != 0].mean(), rel=1e-5)


def test_a_command_distils_teachers_with_other_tokenizers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_other_teacher(Path("roberta"))
    write_model(Path("bert"), seed=9, num_hidden_layers=3)
    lines = [f"{row['sentence']}\t{row['label']}" for row in ROWS]
    Path("rows.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")

    def figures(*words: object) -> dict[str, Any]:
        assert cli.main([*map(str, words), "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))

    common = ["--teacher", "bert", "--teacher", "roberta", "--teacher-weights", "0.7", "0.3"]
    write_rows(Path("dev.tsv"), 20, seed=5)
    common += ["--student", "L1-H16-A2", "--train", "rows.tsv", "--eval", "dev.tsv", "--teacher-dtype", "float32"]
    figures("distill", *common, "--output-dir", "out", "--num-train-epochs", "2")
    assert len(info()) == 2
    report = figures("report", "--model", "out")
    assert [(of["name"], of["weight"]) for of in report["teachers"]] == [("bert", 0.7), ("roberta", 0.3)]
    assert report["teacher"]["num_parameters"] == sum(of["num_parameters"] for of in report["teachers"])
    card = Path("out/README.md").read_text()
    assert "distilled from the teachers `bert` (BERT, weight 0.7) and `roberta` (RoBERTa, weight 0.3)" in card
    assert cli.main(["doctor", *common, "--output-dir", "other", "--json"]) in (0, 1)  # these teachers know nothing
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert any("texts are read with a tokenizer of its own by roberta" in of["text"] for of in found["findings"])
    for each, teacher in zip(report["teachers"], ("bert", "roberta"), strict=True):
        alone = figures("evaluate", "--model", teacher, "--data", "dev.tsv")
        assert each["accuracy"] == alone["accuracy"]
        assert each["loss"] == pytest.approx(alone["loss"], abs=1e-6)
    common[:9] = ["--teacher", "roberta", "--student", "bert"]
    figures("distill", *common, "--output-dir", "bert-student", "--max-steps", "1")


def test_embeddings_of_a_teacher_with_another_tokenizer(tmp_path: Path, tokenizer: Any) -> None:
    directory = write_other_teacher(tmp_path / "roberta", "Model", hidden_size=16)
    teacher = kd.AutoModel.from_pretrained(directory, pooling="mean")
    theirs = kd.AutoTokenizer.from_pretrained(directory)
    student = kd.BertModel(small_model(2).config.with_head("feature-extraction").with_pooling(teacher.config.pooling))
    texts = [text for text, _ in sentences(24)]
    trainer = kd.DistillationTrainer(
        student,
        arguments(tmp_path),
        teacher_model=[teacher, copy.deepcopy(teacher)],
        teacher_processing_class=[theirs, theirs],
        train_dataset=texts,
        eval_dataset=texts[:8],
        processing_class=tokenizer,
    )
    trainer.train()
    expected = np.concatenate([teacher.forward(kd.pack(dict(theirs([text])))) for text in texts])
    np.testing.assert_array_equal(trainer.objective.answers[0], expected)
    assert trainer.results["teacher_cosine"] == pytest.approx(1.0)


def test_a_student_of_the_teachers_own_shape(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins with the teacher's embeddings and layers."""
    monkeypatch.chdir(tmp_path)
    write_model(Path("bert"), seed=9, num_hidden_layers=3)
    write_rows(Path("rows.tsv"), 24)
    words = ["distill", "--teacher", "bert", "--student", "self", "--train", "rows.tsv", "--output-dir", "out"]
    assert cli.main([*words, "--max-steps", "1", "--learning-rate", "1e-6", "--json"]) == 0
    teacher, student = (kd.AutoModelForSequenceClassification.from_pretrained(of) for of in ("bert", "out"))
    assert student.config.num_hidden_layers == 3
    for name, value in teacher.parameters.items():
        same = np.allclose(student.parameters[name], value, atol=1e-5)
        assert same == (not name.startswith("classifier.weight")), name
    assert "distilled from the teacher `bert`" in Path("out/README.md").read_text()
    capsys.readouterr()
    assert cli.main(["report", "--model", "out", "--json"]) == 0


def test_a_resumed_run_warns_of_a_function_that_answers_otherwise(tmp_path: Path) -> None:
    def trainer(logit: float) -> kd.DistillationTrainer:
        return kd.DistillationTrainer(
            small_model(2),
            arguments(tmp_path, num_train_epochs=2, save_strategy="epoch"),
            teacher_model=lambda rows: np.full((len(rows), 2), [logit, 0.0]),
            train_dataset=small_dataset(16),
        )

    trainer(1.0).train()
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "a function")
        trainer(1.0).train(resume_from_checkpoint=checkpoint)
    with pytest.warns(UserWarning, match="a function among the teachers answers otherwise than before this run was in"):
        trainer(2.0).train(resume_from_checkpoint=checkpoint)


def test_weights_by_confidence_are_for_several_and_for_probabilities(tmp_path: Path) -> None:
    def trainer(*seeds: int, **changes: Any) -> kd.DistillationTrainer:
        rows = small_dataset(16)
        labels = rows.labels if not changes else rows.labels.astype(np.float32)
        return kd.DistillationTrainer(
            small_model(2, **changes),
            arguments(tmp_path, teacher_weighting="confidence", overwrite_output_dir=True),
            teacher_model=[small_model(seed, **changes) for seed in seeds],
            train_dataset=Dataset(rows.ids, rows.types, rows.starts, labels),
        )

    trainer(7, 8).train()
    with pytest.warns(UserWarning, match="teacher_weighting is 'confidence', which has no effect here: there is one"):
        trainer(7).train()
    with pytest.raises(ValueError, match="teacher_weighting is 'confidence', and the answers of models for regression"):
        trainer(7, 8, id2label={0: "LABEL_0"}, problem_type="regression").train()


def test_a_mean_of_wider_embeddings_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    """Each would be reduced along directions of its own."""
    teacher = small_model(2)
    encoder = kd.BertModel(teacher.config.with_head("feature-extraction").with_pooling(Pooling("mean")))
    student = kd.BertModel(encoder.config.replace(hidden_size=8))
    with pytest.raises(ValueError, match=r"have more than the student's 8 numbers.*expected one teacher"):
        kd.DistillationTrainer(
            student,
            arguments(tmp_path),
            teacher_model=[encoder, copy.deepcopy(encoder)],
            train_dataset=[text for text, _ in sentences(8)],
            processing_class=tokenizer,
        )
