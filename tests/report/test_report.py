"""The report on a finished run and its model card, beside what NumPy makes of the logits of the saved models."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import small_run
from support.card_reading import row_of
from support.small_run import write_model, write_rows

import kdistill
from kdistill.cli import main as cli
from kdistill.data.dataset import as_dataset
from kdistill.models.classes import BertForSequenceClassification
from kdistill.report.assessment import wilson_interval
from kdistill.text.classes import AutoTokenizer

RECIPE = ["--num-train-epochs", "2", "--per-device-train-batch-size", "16", "--learning-rate", "0.01", "--alpha", "0"]


def command(*words: object) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a teacher, rows, a run of seed 4, the same without its teacher, and two more seeds."""
    place = tmp_path_factory.mktemp("runs")
    write_model(place / "base", seed=3)
    write_rows(place / "train.tsv", 96)
    write_rows(place / "dev.tsv", 60, seed=1)
    write_rows(place / "new.tsv", 50, seed=7)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(place)
        warnings.simplefilter("ignore")
        data = ["--train", "train.tsv", "--eval", "dev.tsv", "--json"]
        teacher = ["--model", "base", *data, "--output-dir", "teacher", "--num-train-epochs", 6]
        assert command("finetune", *teacher, "--learning-rate", 0.01, "--per-device-train-batch-size", 8) == 0
        distil = ["distill", "--teacher", "teacher", "--student", "L1-H16-A2", *data, *RECIPE]
        for name, options in (
            ("student", ["--seed", 4]),
            ("alone", ["--seed", 4, "--alpha", 1]),
            ("student-2", ["--seed", 2]),
            ("student-3", ["--seed", 3]),
            ("longer", ["--seed", 1, "--num-train-epochs", 3]),
        ):
            assert command(*distil, *options, "--output-dir", name) == 0
    return place


@pytest.fixture(autouse=True)
def _few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdistill.report.measure.SPEED_SECONDS", 0.0)


@pytest.fixture
def copy(runs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(runs, tmp_path / "runs")


def report(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert command("report", *words, "--json") == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return figures


def logits_of(model: Path, rows: Path) -> tuple[np.ndarray, np.ndarray]:
    dataset = as_dataset(str(rows), AutoTokenizer.from_pretrained(model))
    batch, labels = dataset.batch(np.arange(len(dataset)))
    return BertForSequenceClassification.from_pretrained(model).forward(batch), labels


def test_all_of_it_from_the_command_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rows lie where command.txt says: in the directory that the runs were made in, not in this one."""
    figures = report(
        capsys,
        *("--model", copy / "student", "--without-teacher", copy / "alone"),
        *("--seed-runs", copy / "student-2", copy / "student-3", "--holdout", copy / "new.tsv"),
        *("--language", "en", "--license", "mit", "--dataset-tags", "stanfordnlp/sst2", "--search-trials", 12),
    )
    ours, labels = logits_of(copy / "student", copy / "dev.tsv")
    theirs, _ = logits_of(copy / "alone", copy / "dev.tsv")
    taught, _ = logits_of(copy / "teacher", copy / "dev.tsv")
    right, other = ours.argmax(axis=1) == labels, theirs.argmax(axis=1) == labels
    assert figures["n"] == 60
    assert figures["accuracy"] == right.mean()
    assert (figures["accuracy_low"], figures["accuracy_high"]) == wilson_interval(right.mean(), 60)
    assert figures["agreement"] == (ours.argmax(axis=1) == taught.argmax(axis=1)).mean()
    assert figures["teacher"]["accuracy"] == (taught.argmax(axis=1) == labels).mean()
    (alone,) = figures["without_teacher"]
    assert alone["accuracy"] == other.mean()
    assert alone["mcnemar"]["only_first"] == int((right & ~other).sum())
    assert alone["mcnemar"]["only_second"] == int((other & ~right).sum())
    assert alone["mcnemar"]["only_first"] != alone["mcnemar"]["only_second"]
    assert alone["differences"] == {}
    accuracies = [right.mean()]
    for name in ("student-2", "student-3"):
        logits, _ = logits_of(copy / name, copy / "dev.tsv")
        accuracies.append((logits.argmax(axis=1) == labels).mean())
    over = figures["over_seeds"]["accuracy"]
    assert (over["mean"], over["deviation"]) == pytest.approx((np.mean(accuracies), np.std(accuracies, ddof=1)))
    assert list(figures["seeds"]) == ["2", "3", "4"]
    held, given = logits_of(copy / "student", copy / "new.tsv")
    assert figures["holdout"]["accuracy"] == (held.argmax(axis=1) == given).mean()
    assert figures["file_bytes"] == (copy / "student" / "model.safetensors").stat().st_size
    assert figures["sentences_per_second"] > 0
    assert figures["teacher"]["sentences_per_second"] > 0

    card = Path(figures["model_card"]).read_text()
    assert row_of(card, "this model")["accuracy"] == f"{right.mean():.4f}"
    assert row_of(card, "this model")["ECE"] == f"{figures['ece']:.4f}"
    assert row_of(card, "teacher `teacher`")["accuracy"] == f"{figures['teacher']['accuracy']:.4f}"
    assert row_of(card, "the same without a teacher, `alone`")["accuracy"] == f"{other.mean():.4f}"
    assert row_of(card, "this recipe")["seeds"] == "2, 3, 4"
    assert row_of(card, "held out")["data"] == "`new.tsv`"
    assert row_of(card, "`seed`")["value"] == "4"
    assert row_of(card, "isa_level")["which"]
    assert row_of(card, "kdistill")["which"] == kdistill.__version__
    assert f"p = {alone['mcnemar']['p_value']:.4g}" in card
    assert "These rows chose the model" in card
    assert "a hyperparameter search scored 12 trials on them" in card
    assert str(copy) not in card


def test_card_is_what_the_hub_takes(runs: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    model = copy / "student"
    metadata = ["--language", "en", "--license", "mit", "--tags", "tiny", "--dataset-tags", "stanfordnlp/sst2"]
    figures = report(capsys, "--model", model, "--holdout", copy / "new.tsv", *metadata)
    data = huggingface_hub.ModelCard.load(model / "README.md").data  # raises when model-index is not valid
    told = data.to_dict()
    assert (told["language"], told["license"], told["datasets"]) == (["en"], "mit", ["stanfordnlp/sst2"])
    assert (told["library_name"], told["pipeline_tag"]) == ("transformers", "text-classification")
    assert {"kdistill", "knowledge-distillation", "tiny"} <= set(told["tags"])
    assert data.model_name == "student"
    values = {(result.dataset_split, result.metric_type): result.metric_value for result in data.eval_results}
    assert values[("dev", "accuracy")] == figures["accuracy"]
    assert values[("dev", "loss")] == figures["loss"]
    assert values[("new", "accuracy")] == figures["holdout"]["accuracy"]
    assert {(result.task_type, result.dataset_type, result.dataset_name) for result in data.eval_results} == {
        ("text-classification", "stanfordnlp/sst2", "stanfordnlp/sst2")
    }
    # Without anything that only a person knows, it is a valid card too, which has no data set to tell results of.
    path = runs / "student-2" / "README.md"
    plain = huggingface_hub.ModelCard.load(path).data
    assert plain.eval_results is None
    assert "model-index" not in plain.to_dict()
    assert "name it with --dataset-tags or --dataset-name" in path.read_text().split("---\n")[1]


def test_a_run_s_command_names_the_data_set_of_its_cards(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def told(*words: object) -> set[tuple[str, str]]:
        assert command(*words, "--json") == 0
        data = huggingface_hub.ModelCard.load(copy / "named" / "README.md").data
        return {(of.dataset_type, of.dataset_name) for of in data.eval_results}

    monkeypatch.chdir(copy)
    rows = ["--train", "train.tsv", "--eval", "dev.tsv", "--output-dir", "named", "--num-train-epochs", 1]
    made = ["finetune", "--model", "base", *rows, "--dataset-name", "Reviews, short ones"]
    assert told(*made) == {("Reviews, short ones", "Reviews, short ones")}
    assert told("report", "--model", "named") == {("Reviews, short ones", "Reviews, short ones")}
    assert told("report", "--model", "named", "--dataset-tags", "me/reviews,me/more") == {
        ("me/reviews", "Reviews, short ones")
    }


def test_holdout_that_shares_text_with_the_training_rows(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentences = [text for text, _ in small_run.sentences(96)]
    phrases = [" ".join(text.split()[:3]) for text in sentences if len(text.split()) > 3][:4]
    lines = [f"{text}\t1" for text in [*sentences[:5], *phrases, "film film film film plot", "actor scene scene scene"]]
    (copy / "held.tsv").write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")
    capsys.readouterr()
    assert command("report", "--model", copy / "student", "--holdout", copy / "held.tsv", "--json") == 0
    output, errors = capsys.readouterr()
    assert "9 of the 11 rows of the holdout 'held.tsv' share text with the training rows (the first is row 0)" in errors
    figures = json.loads(output.splitlines()[-1])["holdout"]
    assert figures["rows_shared_with_training"] == 9
    assert figures["apart"]["n"] == 2
    card = (copy / "student" / "README.md").read_text()
    assert "**9 of the 11 rows share text with the training rows**: 5 are equal to one" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--without-teacher", "student-2"], "the run 'student-2' had a teacher .*--alpha 1"),
        (["--seed-runs", "longer"], r"'longer' differs in more than its seed: in num_train_epochs \(3.0 there, 2.0"),
        (["--seed-runs", "student-2", "student-2"], "seed 2 is there twice"),
        (["--seed-runs", "student"], "seed 4 is there twice"),
        (["--seed-runs", "teacher"], "num_hidden_layers is 2 in the run 'teacher' and 1"),
        (["--without-teacher", "base"], r"base has no trainer_state.json; expected the output directory"),
        (["--train", "dev.tsv"], "trained on other rows"),
        (["--teacher", "base"], "with another teacher"),
        (["--eval", "new.tsv"], "evaluated on other rows, which selected its best weights"),
    ],
)
def test_runs_that_cannot_be_compared(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(copy)
    card = Path("student/README.md").read_text()
    capsys.readouterr()
    assert command("report", "--model", "student", *words) == 2
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(capsys.readouterr().err)
    assert Path("student/README.md").read_text() == card


def test_run_that_was_not_made_by_a_command(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "student" / "command.txt").unlink()
    assert command("report", "--model", copy / "student") == 2
    assert "give them as --train and --eval" in capsys.readouterr().err
    given = ["--train", copy / "train.tsv", "--eval", copy / "dev.tsv", "--teacher", copy / "teacher"]
    assert report(capsys, "--model", copy / "student", *given)["n"] == 60


def test_finetuned_run_has_no_teacher(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert command("report", "--model", copy / "teacher") == 0
    shown = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert shown["n"] == "60"
    assert "teacher" not in shown
    assert "starting from `base`" in (copy / "teacher" / "README.md").read_text()


def test_best_of_the_seeds_is_said_to_be_that(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever of the three it is."""
    names = ["student", "student-2", "student-3"]
    logits = {name: logits_of(copy / name, copy / "dev.tsv") for name in names}
    right = {name: (of.argmax(axis=1) == labels).sum() for name, (of, labels) in logits.items()}
    for name in names:
        others = [copy / other for other in names if other != name]
        report(capsys, "--model", copy / name, "--seed-runs", *others)
        is_best = right[name] > max(right[other] for other in names if other != name)
        assert ("this is the best of 3 seeds by accuracy" in (copy / name / "README.md").read_text()) == is_best


def test_a_run_that_kept_steps_beside_another_strategy(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a number of steps decided its strategy, every run wrote the default number."""
    path = copy / "student" / "training_args.json"
    saved = json.loads(path.read_text())
    assert (saved["save_strategy"], saved["save_steps"]) == ("epoch", None)
    path.write_text(json.dumps(saved | {"save_steps": 500}))
    assert report(capsys, "--model", copy / "student")["n"] == 60


def test_metrics_of_the_run_s_command_are_measured_again(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "student" / "command.txt"
    path.write_text(path.read_text().rstrip("\n") + " --metrics f1_macro\n")
    figures = report(capsys, "--model", copy / "student", "--holdout", copy / "new.tsv")
    logits, labels = logits_of(copy / "teacher", copy / "new.tsv")
    said = logits.argmax(axis=1)
    f1 = [2 * ((said == k) & (labels == k)).sum() / ((said == k).sum() + (labels == k).sum()) for k in (0, 1)]
    assert figures["holdout"]["teacher"]["f1_macro"] == pytest.approx(np.mean(f1))
