"""A small version of the notebook of the managed job, from top to bottom, against the doubles of the service."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.hub_stub import NOWHERE, environment
from support.paths import ROOT

import kdistill as kd

for package in ("sagemaker", "moto"):
    pytest.importorskip(package, reason="needs the extra sagemaker-test: make sagemaker")
nbformat = pytest.importorskip("nbformat")
for package in ("nbclient", "nbconvert", "ipykernel", "matplotlib", "optuna", "starlette", "tensorboard"):
    pytest.importorskip(package)

TOOL = runpy.run_path(str(ROOT / "tools" / "notebooks.py"))
NOTEBOOK = ROOT / "notebooks" / "sagemaker-distillation.ipynb"
SMALL = {
    "offline_student": "L1-H32-A2",
    "offline_teacher_rows": 300,
    "offline_rows": 300,
    "offline_epochs": 60,  # long enough to be interrupted after the first
    "offline_trials": 2,
    "offline_jobs": 2,
    "beside_recipe": {"augment": 1, "num_train_epochs": 1, "student_id": "L2-H16-A2"},  # narrower than its teacher
    "least_teacher": 0.0,
    "least_student": 0.0,
}


def printed(notebook: Any, cell: str) -> str:
    (found,) = (of for of in notebook.cells if of.id == cell)
    return "".join(output.get("text", "") for output in found.outputs)


def run(parameters: dict[str, object], directory: Path) -> Any:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    TOOL["with_parameters"](notebook, "\n".join(f"{name} = {value!r}" for name, value in parameters.items()))
    own = {"PYTHONPATH": str(ROOT), "KDISTILL_CACHE": str(directory / "cache")}
    TOOL["execute"](notebook, NOTEBOOK.parent, env=environment(NOWHERE, directory / "home", offline=True) | own)
    return notebook


def small_bert(directory: Path) -> Path:
    """Write a BERT that knows nothing and the vocabulary of some rows, in the place of a pretrained one."""
    rows = kd.load_dataset(ROOT / "examples" / "SST-2")["train"].select(range(2000))
    words = Counter(word for sentence in rows["sentence"] for word in sentence.split())
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(word for word, _ in words.most_common(500))]
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = kd.BertConfig(vocab_size=len(vocabulary), max_position_embeddings=128, **shape)
    kd.BertForSequenceClassification(config, seed=1).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return directory


def test_without_an_account_every_cell_runs_and_the_interrupted_job_has_the_same_bits(tmp_path: Path) -> None:
    """A minute, most of it imports of the SDK and starts of jobs."""
    given = {"pretrained_dir": str(small_bert(tmp_path / "bert")), "output_dir": str(tmp_path / "out")}
    notebook = run(SMALL | given, tmp_path)
    assert "doubles on this machine" in printed(notebook, "where-from")
    assert "the original's notebook misspelt temperature" in printed(notebook, "misspelt-job")
    assert "equal: True" in printed(notebook, "same-bits")
    assert "(checked in" in printed(notebook, "ask-doctor")
    assert "recipe tiny" in printed(notebook, "recipe-job")
    exported = printed(notebook, "export-onnx")  # tests/oracle runs this cell with the packages
    assert "checked with onnxruntime" in exported or 'pip install "kdistill[export]"' in exported
    assert printed(notebook, "delete") == "endpoints left: []\n"
    assert "nothing tried to leave this machine" in printed(notebook, "remove")
    page = TOOL["page"](notebook, NOTEBOOK.parent)
    assert "data:image/svg+xml" in page
    assert "<script" not in page
    assert 'src="http' not in page


def test_with_an_account_models_and_rows_are_those_of_the_original() -> None:
    parameters: dict[str, Any] = {}
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    exec(cells[0].source, parameters)
    assert parameters["teacher_id"] == "textattack/bert-base-uncased-SST-2"
    assert parameters["student_id"] == "google/bert_uncased_L-2_H-128_A-2"
    assert (parameters["dataset_id"], parameters["dataset_config"]) == ("glue", "sst2")
    assert (parameters["alpha"], parameters["temperature"], parameters["n_trials"]) == (0.5, 4, 100)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"online": True, "bucket": "mine"}, "role_arn, image_uri is empty; with an account all three are needed"),
        (
            {"role_arn": "arn:aws:iam::123456789012:role/sagemaker", "bucket": "mine", "image_uri": "image"},
            "credentials",
        ),
    ],
    ids=["two of the three", "no credentials"],
)
def test_nothing_is_rented_without_all_three_and_credentials(
    given: dict[str, object], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cell that decides, alone."""
    import boto3

    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: None)
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    names: dict[str, Any] = {"boto3": boto3}
    exec(cells["parameters"], names)
    names |= given
    with pytest.raises((ValueError, PermissionError), match=error):
        exec(cells["where-from"], names)
