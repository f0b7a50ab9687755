"""Distillation: what the teacher says, how often it is asked, and who may teach whom."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.card_reading import row_of
from support.small_questions import question_model, questions
from support.small_run import LABELS, VOCABULARY, run_fields, small_config, small_dataset, small_model, weights

from kdistill.data.augmentation import TokenKinds, augmented
from kdistill.data.dataset import Dataset, as_dataset
from kdistill.data.labels import NO_LABEL
from kdistill.data.sampler import RandomSampler
from kdistill.losses.teacher import distillation_loss
from kdistill.models.classes import BertForMaskedLM, BertForSequenceClassification
from kdistill.text.classes import AutoTokenizer
from kdistill.text.tokenizer import PreTrainedTokenizerFast
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.optim import AdamW, clip_grad_norm_
from kdistill.trainers import DistillationTrainer, Trainer


def arguments(directory: Path, **changes: Any) -> DistillationTrainingArguments:
    return DistillationTrainingArguments(**run_fields(directory, changes))


def with_labels(dataset: Dataset, labels: Any) -> Dataset:
    return Dataset(dataset.ids, dataset.types, dataset.starts, np.array(labels, dtype=np.int64))


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that gets its rows right."""
    directory = tmp_path_factory.mktemp("teacher")
    args = TrainingArguments(
        str(directory / "out"),
        num_train_epochs=12,
        learning_rate=0.01,
        per_device_train_batch_size=8,
        disable_tqdm=True,
    )
    trainer = Trainer(small_model(9), args, train_dataset=small_dataset(96), eval_dataset=small_dataset(50, seed=1))
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] > 0.9
    return directory / "out"


@pytest.fixture
def teacher(teacher_dir: Path) -> BertForSequenceClassification:
    return BertForSequenceClassification.from_pretrained(teacher_dir)


class Asked:
    """Counts the rows that go through a model."""

    def __init__(self, model: BertForSequenceClassification, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        forward = model.forward

        def counted(batch: Any, train: bool = False) -> np.ndarray:
            assert not train
            self.rows += len(batch.starts) - 1
            return forward(batch)

        monkeypatch.setattr(model, "forward", counted)


def test_equals_a_loop_written_out_by_hand(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    dataset = small_dataset(20)
    args = arguments(tmp_path, alpha=0.3, temperature=2.5, eval_strategy="no", num_train_epochs=1)
    trainer = DistillationTrainer(small_model(2), args, teacher_model=teacher, train_dataset=dataset)
    trainer.train()
    assert teacher.core.workspace_bytes == 0  # given back before the student needs memory

    student = small_model(2)
    student.dropout_seed = args.seed
    optimizer = AdamW(student, lr=0.01)
    order = RandomSampler(20, args.seed).permutation(0)
    for step, rows in enumerate((order[:8], order[8:16], order[16:])):
        optimizer.lr = 0.01 * (3 - step) / 3
        batch, labels = dataset.batch(rows)
        _, dlogits = distillation_loss(
            student.forward(batch, train=True), teacher.forward(batch), labels, alpha=0.3, temperature=2.5
        )
        student.backward(dlogits)
        clip_grad_norm_(student, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    np.testing.assert_array_equal(weights(trainer.model), weights(student))


def test_student_learns_without_any_label(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    rows = small_dataset(96)
    trainer = DistillationTrainer(
        small_model(2),
        arguments(tmp_path, num_train_epochs=12),
        teacher_model=teacher,
        train_dataset=with_labels(rows, [NO_LABEL] * 96),
        eval_dataset=small_dataset(50, seed=1),
    )
    with pytest.warns(UserWarning, match="^no training row has a label, so the student learns from the teacher only"):
        trainer.train()
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert results["eval_accuracy"] > 0.9
    expected = (
        teacher.forward(trainer.eval_dataset.batch(np.arange(50))[0]).argmax(axis=1) == np.arange(50) % 2
    ).mean()
    assert results["teacher_accuracy"] == expected
    card = (tmp_path / "out" / "README.md").read_text()
    assert "distilled from the teacher `the teacher`" in card
    told = row_of(card, "teacher `the teacher`")
    assert (told["parameters"], told["accuracy"]) == (f"{teacher.num_parameters():,}", f"{expected:.4f}")


@pytest.mark.filterwarnings("ignore:the teacher's accuracy", "ignore:no training row has a label")
def test_unlabelled_rows_learn_from_the_teacher_alone(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    """Without labels the default alpha has no effect; with them it does."""
    learned = []
    for name, alpha, labels in (("a", {"alpha": 0.0}, [0] * 16), ("b", {}, [NO_LABEL] * 16), ("c", {}, [0] * 16)):
        trainer = DistillationTrainer(
            small_model(2),
            arguments(tmp_path / name, **alpha, eval_strategy="no"),
            teacher_model=teacher,
            train_dataset=with_labels(small_dataset(16), labels),
        )
        trainer.train()
        learned.append(weights(trainer.model))
    np.testing.assert_array_equal(learned[0], learned[1])
    assert not np.array_equal(learned[0], learned[2])


@pytest.mark.parametrize("alpha", [1.0, 0.5, 1e-3])
def test_an_alpha_for_labels_that_no_row_has_is_an_error(
    tmp_path: Path, teacher: BertForSequenceClassification, alpha: float
) -> None:
    """Also the default when it is given, and when it is assigned later; the message names the column that was meant."""
    rows = [{"input_ids": [2, 5, 3], "Label": 1}] * 4
    given = arguments(tmp_path, alpha=alpha, eval_strategy="no")
    later = arguments(tmp_path, eval_strategy="no")
    later.alpha = alpha
    for args in (given, later):
        with pytest.warns(UserWarning, match="the column 'Label' is not used"):
            trainer = DistillationTrainer(small_model(2), args, teacher_model=teacher, train_dataset=rows)
        with pytest.raises(
            ValueError, match=f"alpha is {alpha}, but no .*alpha 0 to .* did you mean --label-column Label "
        ):
            trainer.train()
        assert not (tmp_path / "out" / "all_results.json").exists()


def test_the_texts_that_token_ids_were_made_of_are_no_unused_columns() -> None:
    row = {"sentence": "good film", "review": "bad", "input_ids": [2, 5, 3], "label": 1, "idx": 7}
    dataset = as_dataset([row, row], None)
    assert dataset.column_use is not None
    assert dataset.column_use.unused == ("idx",)
    del row["label"]  # one of the others may be the label's
    unlabelled = as_dataset([row], None).column_use
    assert unlabelled is not None
    assert unlabelled.unused == ("sentence", "review", "idx")


@pytest.mark.filterwarnings("ignore:the teacher's accuracy")
def test_rows_without_a_label_among_others_are_counted(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    rows = with_labels(small_dataset(16), [NO_LABEL] * 3 + [1] * 13)
    for alpha, said in (
        (0.5, ["3 of 16 training rows have no label; on these the student learns from the teacher only"]),
        (0.0, []),
    ):
        trainer = DistillationTrainer(
            small_model(2),
            arguments(tmp_path / str(alpha), alpha=alpha, eval_strategy="no"),
            teacher_model=teacher,
            train_dataset=rows,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.train()
        assert [str(one.message) for one in caught if "have no label" in str(one.message)] == said


@pytest.fixture
def words(tmp_path: Path) -> PreTrainedTokenizerFast:
    return tokenizer(tmp_path / "tokenizer", VOCABULARY)


def views_of(
    dataset: Dataset, teacher: BertForSequenceClassification, words: PreTrainedTokenizerFast, seed: int
) -> Dataset:
    kinds = TokenKinds.of(words, len(VOCABULARY))
    return augmented(
        dataset,
        2,
        kinds=kinds,
        embeddings=np.array(teacher.parameters["bert.embeddings.word_embeddings.weight"]),
        seed=seed,
    )


@pytest.mark.filterwarnings("ignore:the teacher's accuracy", "ignore:40 of 60 training rows have no label")
@pytest.mark.parametrize("seeds", [{"seed": 5}, {"seed": 5, "data_seed": 9}])
def test_views_are_rows_without_a_label(
    tmp_path: Path, teacher: BertForSequenceClassification, words: PreTrainedTokenizerFast, seeds: dict[str, int]
) -> None:
    """A run with augment is the run on the rows and their views, whose labels the teacher alone gives."""
    rows, learned = small_dataset(20), []
    given = views_of(rows, teacher, words, seed=list(seeds.values())[-1])
    assert (given.labels == NO_LABEL).sum() == 40
    for name, augment, dataset in (("a", 2, rows), ("b", 0, given)):
        args = arguments(tmp_path / name, alpha=0.7, augment=augment, eval_strategy="no", **seeds)
        trainer = DistillationTrainer(
            small_model(2), args, teacher_model=teacher, train_dataset=dataset, processing_class=words
        )
        trainer.train()
        assert trainer.state.global_step == 2 * 8
        learned.append(weights(trainer.model))
    np.testing.assert_array_equal(*learned)


@pytest.mark.filterwarnings("ignore:40 of 60 training rows have no label", "ignore:the teacher's loss")
@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
def test_views_of_rows_with_other_labels(tmp_path: Path, words: PreTrainedTokenizerFast, kind: str) -> None:
    """Of numbers and of lists of labels, too: the run on rows and views, and another one than that on the rows."""
    names = {"id2label": {0: "score"}} if kind == "regression" else {}
    teacher = small_model(5, problem_type=kind, **names)
    encoded = small_dataset(20)
    labels = encoded.labels + 0.25 if kind == "regression" else np.eye(2)[encoded.labels]
    rows = Dataset(encoded.ids, encoded.types, encoded.starts, labels.astype(np.float32))
    given, learned = views_of(rows, teacher, words, seed=42), {}
    assert np.isnan(given.labels[20:]).all()
    for name, augment, dataset in (("a", 2, rows), ("b", 0, given), ("plain", 0, rows)):
        trainer = DistillationTrainer(
            small_model(2, problem_type=kind, **names),
            arguments(tmp_path / name, augment=augment, eval_strategy="no"),
            teacher_model=teacher,
            train_dataset=dataset,
            processing_class=words,
        )
        trainer.train()
        learned[name] = weights(trainer.model)
    np.testing.assert_array_equal(learned["a"], learned["b"])
    assert not np.array_equal(learned["a"], learned["plain"])


def test_views_are_labelled_once_and_a_run_with_them_resumes(
    tmp_path: Path,
    teacher: BertForSequenceClassification,
    words: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    asked, finished = Asked(teacher, monkeypatch), []
    for _ in range(2):
        args = arguments(tmp_path, augment=2, eval_strategy="no", load_best_model_at_end=False)
        trainer = DistillationTrainer(
            small_model(2), args, teacher_model=teacher, train_dataset=small_dataset(20), processing_class=words
        )
        trainer.train(resume_from_checkpoint=True)
        finished.append((asked.rows, weights(trainer.model).tobytes()))
        again = DistillationTrainer(
            small_model(3), args, teacher_model=teacher, train_dataset=small_dataset(20), processing_class=words
        )
        again.load_finished_run()  # as kdistill report does
        np.testing.assert_array_equal(weights(again.model), weights(trainer.model))
        (tmp_path / "out" / "trainer_state.json").unlink()
        shutil.rmtree(tmp_path / "out" / "checkpoint-16")  # of 16 steps; it goes on from the first epoch's
    assert finished[0] == finished[1]
    assert 20 < asked.rows <= 60


def test_views_need_a_tokenizer(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    args = arguments(tmp_path, augment=1, eval_strategy="no")
    trainer = DistillationTrainer(small_model(2), args, teacher_model=teacher, train_dataset=small_dataset(8))
    with pytest.raises(ValueError, match=r"augment is 1, and there is no tokenizer \(processing_class\), which"):
        trainer.train()


def test_views_of_questions_are_refused(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    trainer = DistillationTrainer(
        question_model(2),
        arguments(tmp_path, augment=1, eval_strategy="no", max_length=12),
        teacher_model=question_model(9),
        train_dataset=questions(8),
        processing_class=words,
    )
    with pytest.raises(ValueError, match=r"augment is 1, and copies of questions .*: leave --augment .* out"):
        trainer.train()


def test_the_teacher_is_asked_once(
    tmp_path: Path, teacher: BertForSequenceClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    asked = Asked(teacher, monkeypatch)
    rows, held_out = small_dataset(24), small_dataset(8, seed=1)
    distinct = len(
        {
            tuple(part.ids[a:b])
            for part in (rows, held_out)
            for a, b in zip(part.starts[:-1], part.starts[1:], strict=True)
        }
    )
    for number, changes in enumerate(({}, {"alpha": 0.1, "temperature": 2.0, "seed": 1, "num_train_epochs": 3})):
        args = arguments(tmp_path / str(number), **changes)
        DistillationTrainer(
            small_model(2), args, teacher_model=teacher, train_dataset=rows, eval_dataset=held_out
        ).train()
        assert asked.rows == distinct
    args = arguments(tmp_path / "uncached", teacher_cache=False, eval_strategy="no")
    DistillationTrainer(small_model(2), args, teacher_model=teacher, train_dataset=rows).train()
    assert asked.rows > distinct


def test_the_teacher_is_frozen_and_stays_as_it_was(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    before = weights(teacher)
    args = arguments(tmp_path, eval_strategy="no")
    DistillationTrainer(small_model(2), args, teacher_model=teacher, train_dataset=small_dataset(8)).train()
    assert teacher.frozen
    np.testing.assert_array_equal(weights(teacher), before)


def test_another_vocabulary(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    student = small_model(2, vocab_size=len(VOCABULARY) + 1)
    with pytest.raises(
        ValueError, match=f"vocabulary has {len(VOCABULARY)} entries and the student's {len(VOCABULARY) + 1}"
    ):
        DistillationTrainer(student, arguments(tmp_path), teacher_model=teacher)


@pytest.mark.parametrize(("theirs", "ours"), [(32, 0), (0, 64)])
def test_tables_padded_otherwise(
    tmp_path: Path, teacher: BertForSequenceClassification, theirs: int, ours: int
) -> None:
    """Rows behind the vocabulary belong to no word: whoever has them, the same is learned."""
    results = []
    for padded in (True, False):
        teaching, student = copy.deepcopy(teacher), small_model(2)
        if padded:
            teaching.resize_token_embeddings(pad_to_multiple_of=theirs or None)
            student.resize_token_embeddings(pad_to_multiple_of=ours or None)
        args = arguments(tmp_path / str(padded), eval_strategy="no", weight_decay=0.0)
        DistillationTrainer(student, args, teacher_model=teaching, train_dataset=small_dataset(8)).train()
        results.append(student.state_dict())
    for name, value in results[1].items():
        np.testing.assert_array_equal(results[0][name][: len(value)], value)


def tokenizer(directory: Path, words: list[str]) -> PreTrainedTokenizerFast:
    directory.mkdir()
    (directory / "vocab.txt").write_text("\n".join(words) + "\n")
    return AutoTokenizer.from_pretrained(directory)


@pytest.mark.parametrize("difference", ["ids", "case"])
def test_language_models_need_one_tokenizer(tmp_path: Path, difference: str) -> None:
    swapped = [*VOCABULARY[:-2], VOCABULARY[-1], VOCABULARY[-2]]
    ours = tokenizer(tmp_path / "a", VOCABULARY)
    if difference == "ids":
        theirs, message = tokenizer(tmp_path / "b", swapped), "tokenizers of teacher and student differ in 2 entries"
    else:
        theirs = AutoTokenizer.from_pretrained(tmp_path / "a", do_lower_case=False)
        message = r"differ in the normalizer \(.*lowercase False and True\); expected the same ids"
    teacher, student = (BertForMaskedLM(small_config(), seed=seed) for seed in (1, 2))
    given: dict[str, Any] = {"teacher_processing_class": theirs, "processing_class": ours}
    with pytest.raises(ValueError, match=message):
        DistillationTrainer(student, arguments(tmp_path), teacher_model=teacher, **given)


@pytest.mark.parametrize(
    "id2label",
    [
        {0: "positive", 1: "negative"},
        {0: "no", 1: "yes"},
        {0: "negative", 1: "neutral", 2: "positive"},
        {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"},
    ],
)
def test_another_label_map(tmp_path: Path, teacher: BertForSequenceClassification, id2label: dict[int, str]) -> None:
    assert teacher.config.id2label == LABELS
    with pytest.raises(ValueError, match=r"teacher's id2label is .* and the student's .*; expected the same"):
        DistillationTrainer(small_model(2, id2label=id2label), arguments(tmp_path), teacher_model=teacher)


def test_labels_without_names_agree(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    student = small_model(2, id2label={0: "LABEL_0", 1: "LABEL_1"})
    DistillationTrainer(student, arguments(tmp_path), teacher_model=teacher)


def test_teacher_that_is_no_better_than_the_majority(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    held_out = small_dataset(30, seed=1)
    wrong = with_labels(held_out, [0] * 20 + [1] * 10)
    accuracy = (teacher.forward(held_out.batch(np.arange(30))[0]).argmax(axis=1) == wrong.labels).mean()
    assert accuracy < 2 / 3
    trainer = DistillationTrainer(
        small_model(2), arguments(tmp_path), teacher_model=teacher, train_dataset=small_dataset(16), eval_dataset=wrong
    )
    with pytest.warns(UserWarning, match=rf"teacher's accuracy is {accuracy:.4f}, no better .* \(0\.6667\)"):
        trainer.train()


def test_wrong_roles(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    with pytest.raises(ValueError, match="teacher_model and model are the same object"):
        DistillationTrainer(teacher, arguments(tmp_path), teacher_model=teacher)
    with pytest.raises(
        TypeError, match=r"args is of type kdistill\.TrainingArguments; expected .*DistillationTrainingArguments"
    ):
        DistillationTrainer(small_model(2), TrainingArguments(), teacher_model=teacher)


def test_resuming_with_another_teacher(tmp_path: Path, teacher: BertForSequenceClassification) -> None:
    args = arguments(tmp_path, eval_strategy="no")
    DistillationTrainer(small_model(2), args, teacher_model=teacher, train_dataset=small_dataset(8)).train()
    other = DistillationTrainer(small_model(2), args, teacher_model=small_model(5), train_dataset=small_dataset(8))
    with pytest.raises(ValueError, match="trained on other rows or with another teacher"):
        other.train(resume_from_checkpoint=True)
