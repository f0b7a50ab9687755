"""The training job: what it leaves, what it is made of, and how it fails."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.small_job import HYPERPARAMETERS, SEARCH, failure_of, model_of, run_here, write_channels
from support.small_run import write_model, write_rows

from kdistill.cli.main import main
from kdistill.sagemaker.local import lay_out
from kdistill.train.loop import Training


@pytest.fixture
def channels(tmp_path: Path) -> dict[str, Path]:
    return write_channels(tmp_path / "inputs")


def distill(channels: dict[str, Path], output: Path, *words: str) -> bytes:
    """The model of `kdistill distill` with the options of the small job."""
    options = ["--teacher", channels["teacher"], "--student", "L1-H16-A2", "--train", channels["train"]]
    options += ["--eval", channels["validation"], "--output-dir", output, "--num-train-epochs", 2]
    options += ["--per-device-train-batch-size", 8, "--recipe", "transformers", *words]
    assert main(["distill", *map(str, options)]) == 0
    return (output / "model.safetensors").read_bytes()


def test_the_job_leaves_the_model_of_the_command(
    tmp_path: Path, channels: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, log = run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, channels)
    assert (status, failure_of(tmp_path / "job")) == (0, None)
    assert model_of(tmp_path / "job") == distill(channels, tmp_path / "cli", "--learning-rate", "0.01")
    names = {path.name for path in (tmp_path / "job" / "model").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", *TOKENIZER}
    assert (tmp_path / "job" / "output" / "success").read_bytes() == b""
    results = json.loads((tmp_path / "job" / "output" / "data" / "all_results.json").read_text())
    assert log.splitlines()[-1].startswith(f"{{'final_accuracy': {results['eval_accuracy']}, ")


TOKENIZER = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def test_a_job_with_a_search_leaves_the_model_of_the_two_commands(
    tmp_path: Path, channels: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, log = run_here(monkeypatch, tmp_path / "job", {**SEARCH, "alpha": "0.9"}, channels)
    assert (status, failure_of(tmp_path / "job")) == (0, None)
    (tmp_path / "space.json").write_text(json.dumps(SEARCH["hp_space"]))
    words = ["--teacher", channels["teacher"], "--student", "L1-H16-A2", "--train", channels["train"]]
    words += ["--eval", channels["validation"], "--output-dir", tmp_path / "search", "--num-train-epochs", 2]
    words += ["--per-device-train-batch-size", 8, "--recipe", "transformers", "--n-trials", 3]
    words += ["--hp-space", tmp_path / "space.json"]
    assert main(["search", *map(str, words)]) == 0
    best = (tmp_path / "search" / "best_run.toml").read_text()
    assert (tmp_path / "job" / "output" / "data" / "best_run.toml").read_text() == best
    expected = distill(channels, tmp_path / "cli", "--config", str(tmp_path / "search" / "best_run.toml"))
    assert model_of(tmp_path / "job") == expected
    assert [line.partition(":")[0] for line in log.splitlines() if line.startswith("trial ")] == [
        f"trial {number}" for number in range(3)
    ]


def test_a_job_that_was_done_lays_its_model_out_again_and_does_nothing_else(
    tmp_path: Path, channels: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "job"
    _, first = run_here(monkeypatch, base, HYPERPARAMETERS, channels)
    model = model_of(base)

    def train(self: Training) -> None:
        raise AssertionError("it trains again")

    monkeypatch.setattr(Training, "run", train)
    status, log = run_here(monkeypatch, base, HYPERPARAMETERS, channels)
    assert (status, log) == (0, first.splitlines()[-1] + "\n")
    assert model_of(base) == model


def test_checkpoints_of_another_job_are_an_error_that_names_the_difference(
    tmp_path: Path, channels: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, channels)
    changed = {**HYPERPARAMETERS, "alpha": "0.9", "threads": "1"}
    status, _ = run_here(monkeypatch, tmp_path / "job", changed, channels)
    assert status == 2
    assert "holds the checkpoints of a job with alpha None, not '0.9'; give" in str(failure_of(tmp_path / "job"))


def test_a_job_does_not_go_on_with_the_model_of_other_rows_or_models(
    tmp_path: Path, channels: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one that was done: it would leave the model of the rows before."""
    run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, channels)
    for name in ("train", "validation", "teacher"):
        other = write_channels(tmp_path / "other", rows=65)
        write_rows(other["validation"], 25)
        write_model(tmp_path / "other" / "teacher-4", seed=4)
        other["teacher"] = tmp_path / "other" / "teacher-4"
        status, _ = run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, {**channels, name: other[name]})
        assert status == 2
        assert f"a job with other files in the channel '{name}'; give" in str(failure_of(tmp_path / "job"))
    assert run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, channels)[0] == 0


def archive(path: Path, files: dict[str, bytes], link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if link is not None:
            member = tarfile.TarInfo("vocab.txt")
            member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member)
    return path


def test_a_teacher_may_be_the_archive_of_a_training_job(
    tmp_path: Path, channels: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(monkeypatch, tmp_path / "plain", HYPERPARAMETERS, channels)
    files = {f"./{path.name}": path.read_bytes() for path in channels["teacher"].iterdir()}
    packed = {**channels, "teacher": archive(tmp_path / "model.tar.gz", files)}
    status, _ = run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, packed)
    assert (status, failure_of(tmp_path / "job")) == (0, None)
    assert model_of(tmp_path / "job") == model_of(tmp_path / "plain")


@pytest.mark.parametrize(
    ("files", "link", "sentence"),
    [
        ({"../outside": b"x"}, None, "has '../outside'; expected files and directories below it alone"),
        ({"/tmp/outside": b"x"}, None, "has '/tmp/outside'; expected"),
        ({}, "/etc/passwd", "has 'vocab.txt'; expected"),
        ({"vocab.txt": b"[PAD]"}, None, "the channel 'teacher' has no config.json"),
    ],
)
def test_an_archive_that_leads_out_of_its_directory_is_an_error(
    tmp_path: Path,
    channels: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, bytes],
    link: str | None,
    sentence: str,
) -> None:
    packed = {**channels, "teacher": archive(tmp_path / "model.tar.gz", files, link)}
    status, _ = run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, packed)
    assert status == 2
    assert sentence in str(failure_of(tmp_path / "job"))
    assert not list(tmp_path.rglob("outside"))


def test_a_damaged_archive_is_an_error(
    tmp_path: Path, channels: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"no archive")
    packed = {**channels, "teacher": tmp_path / "model.tar.gz"}
    status, _ = run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, packed)
    assert status == 2
    assert "model.tar.gz cannot be unpacked" in str(failure_of(tmp_path / "job"))


def several(directory: Path, *names: str) -> Path:
    directory.mkdir()
    for name in names:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("good film\n")
    return directory


Channels = dict[str, Path]


@pytest.mark.parametrize(
    ("change", "hyperparameters", "sentence"),
    [
        (
            lambda c, d: {**c, "train": several(d, "a.tsv", "b.tsv")},
            {},
            "the channel 'train' has a.tsv, b.tsv; expected",
        ),
        (lambda c, d: {**c, "train": several(d)}, {}, "the channel 'train' is empty"),
        (lambda c, d: {**c, "test": c["train"]}, {}, "the job has a channel 'test'; expected train, validation"),
        (lambda c, d: {"teacher": c["teacher"]}, {}, "the job has no rows; expected a channel 'train' or dataset_id"),
        (lambda c, d: {"train": c["train"]}, {}, "the job has no teacher; expected a channel 'teacher' or teacher_id"),
        (lambda c, d: c, {"student_id": "null"}, "'student' or student_id, or a recipe: small or smaller or tiny"),
        (lambda c, d: c, {"dataset_id": "glue"}, "the job has the data set 'glue' and a channel of rows; expected one"),
        (lambda c, d: c, {"teacher_id": "bert"}, "the job has a channel 'teacher' and teacher_id; expected one"),
        (lambda c, d: {k: c[k] for k in ("train", "teacher")}, {"run_hpo": "true"}, "expected a channel 'validation'"),
        (lambda c, d: c, {"alpha": "2"}, "alpha is 2.0; expected"),
        (lambda c, d: c, {"student_id": "no/such"}, "no/such"),
        (lambda c, d: c, {"output_dir": "/tmp/elsewhere"}, "output_dir is '/tmp/elsewhere'; a job's model lies in"),
    ],
)
def test_what_is_wrong_with_the_inputs_is_one_sentence(
    tmp_path: Path,
    channels: Channels,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Channels, Path], Channels],
    hyperparameters: dict[str, Any],
    sentence: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base, given = tmp_path / "job", {**HYPERPARAMETERS, **hyperparameters}
    status, log = run_here(monkeypatch, base, given, change(channels, tmp_path / "several"))
    failure = failure_of(base)
    assert status == 2
    assert failure is not None
    assert sentence in failure
    assert f"kdistill: error: {failure}\n" in log
    assert "\n" not in failure
    assert not (base / "output" / "success").exists()
    assert not (base / "checkpoints" / "run").exists()


def test_one_of_several_files_may_be_called_by_its_channel(
    tmp_path: Path, channels: Channels, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tmp_path / "both"
    both.mkdir()
    for name in ("train.tsv", "test.tsv"):
        write_rows(both / name, 64 if name == "train.tsv" else 10)
    run_here(monkeypatch, tmp_path / "plain", HYPERPARAMETERS, channels)
    assert run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, {**channels, "train": both})[0] == 0
    assert model_of(tmp_path / "job") == model_of(tmp_path / "plain")


def test_rows_may_be_a_folder_of_texts_and_a_student_a_model(
    tmp_path: Path, channels: Channels, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = several(tmp_path / "texts", "positive/1.txt", "positive/2.txt", "negative/1.txt")
    student = write_model(tmp_path / "student", seed=5, num_hidden_layers=1)
    given = {name: value for name, value in HYPERPARAMETERS.items() if name != "student_id"}
    inputs = {"train": folder, "teacher": channels["teacher"], "student": student}
    status, log = run_here(monkeypatch, tmp_path / "job", given, inputs)
    assert (status, failure_of(tmp_path / "job")) == (0, None)
    assert "{'final_train_loss': " in log.splitlines()[-1]


def test_a_recipe_may_name_the_student(tmp_path: Path, channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**HYPERPARAMETERS, "student_id": "null", "recipe": "small"}
    status, log = run_here(monkeypatch, tmp_path / "job", given, channels)
    assert (status, failure_of(tmp_path / "job")) == (0, None)
    assert "recipe small: for a student of L1-H16-A2 and 64 training rows" in log


@pytest.mark.parametrize("config", [None, "sst2"])
def test_a_data_set_is_read_by_its_splits(
    tmp_path: Path, channels: Channels, monkeypatch: pytest.MonkeyPatch, config: str | None
) -> None:
    """A directory needs nothing but itself; with a configuration it is one of the package `datasets`."""
    data = tmp_path / "data"
    data.mkdir()
    for name, source in (("train.tsv", "train"), ("validation.tsv", "validation")):
        (data / name).write_bytes(channels[source].read_bytes())
    given = {**HYPERPARAMETERS, "dataset_id": str(data)}
    if config is not None:
        datasets = pytest.importorskip("datasets")
        splits = {"train": str(data / "train.tsv"), "validation": str(data / "validation.tsv")}
        loaded = datasets.load_dataset("csv", data_files=splits, sep="\t", cache_dir=str(tmp_path / "cache"))
        asked = []
        monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: asked.append(names) or loaded)
        given |= {"dataset_id": "glue", "dataset_config": config}
    run_here(monkeypatch, tmp_path / "plain", HYPERPARAMETERS, channels)
    status, _ = run_here(monkeypatch, tmp_path / "job", given, {"teacher": channels["teacher"]})
    assert (status, failure_of(tmp_path / "job")) == (0, None)
    assert model_of(tmp_path / "job") == model_of(tmp_path / "plain")
    if config is not None:
        assert asked == [("glue", "sst2")]


def test_variables_win_over_the_layout(tmp_path: Path, channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables are those of the toolkit, which it sets for a script of its own."""
    places = {
        "SM_MODEL_DIR": str(tmp_path / "model"),
        "SM_OUTPUT_DIR": str(tmp_path / "output"),
        "SM_CHANNELS": json.dumps(sorted(channels)),
        **{f"SM_CHANNEL_{name.upper()}": str(path) for name, path in channels.items() if path.is_dir()},
        "SM_HPS": json.dumps({**HYPERPARAMETERS, "epochs": 2}),
    }
    status, _ = run_here(monkeypatch, tmp_path / "job", {"epochs": "9"}, channels, "--epochs", "2", **places)
    assert status == 0
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert (tmp_path / "output" / "success").is_file()
    assert not list((tmp_path / "job" / "model").iterdir())


def raises(error: BaseException) -> Callable[..., None]:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [
        (MemoryError(), 1, "the job ran out of memory; give it an instance with more, or a smaller"),
        (OSError(28, "No space left on device", "/opt/ml/x"), 2, "[Errno 28] No space left on device: '/opt/ml/x'"),
        (AttributeError("an error\nof the program"), 1, "AttributeError: an error of the program"),
        (FloatingPointError("x" * 3000), 1, "x" * 1024),
    ],
)
def test_every_error_leaves_a_short_sentence(
    tmp_path: Path,
    channels: Channels,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    failure: str,
) -> None:
    monkeypatch.setattr(Training, "run", raises(error))
    base = tmp_path / "job"
    found, log = run_here(monkeypatch, base, HYPERPARAMETERS, channels)
    assert (found, str(failure_of(base))[: len(failure)]) == (status, failure)
    assert len(str(failure_of(base))) <= 1024
    assert ("Traceback" in log) == isinstance(error, AttributeError)
    assert "kdistill: error: " in log.splitlines()[-1]


def test_a_failure_that_cannot_be_written_is_in_the_log(
    tmp_path: Path, channels: Channels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", raises(OSError(28, "No space left on device")))
    lay_out(tmp_path / "job", {"alpha": "2"}, {})
    status, log = run_here(monkeypatch, tmp_path / "job", {**HYPERPARAMETERS, "alpha": "half"}, {})
    assert (status, log) == (2, "kdistill: error: alpha is 'half'; expected a number\n")


def test_configuration_that_is_not_json_is_an_error(
    tmp_path: Path, channels: Channels, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variables, sentence in (
        ({"SM_HPS": "{token"}, "SM_HPS is not JSON"),
        ({"SM_CHANNELS": "{}"}, "SM_CHANNELS is a"),
    ):
        status, _ = run_here(monkeypatch, tmp_path / "job", HYPERPARAMETERS, channels, **variables)
        assert status == 2
        assert sentence in str(failure_of(tmp_path / "job"))
        assert "{token" not in str(failure_of(tmp_path / "job"))
