"""Uploads and downloads through the real huggingface_hub, from and to a hub on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.hub_stub import NOWHERE, TOKEN, Hub, hub_server, run_with_hub
from support.small_run import small_model, weights, write_model, write_rows
from support.weight_files import write_arrays

from kdistill.models.classes import BertForSequenceClassification

pytest.importorskip("huggingface_hub")

RUN = """
import sys, warnings
import kdistill.hub
from kdistill import Trainer, TrainingArguments
from support.small_run import run_fields, small_dataset, small_model
from pathlib import Path
kdistill.hub.RETRY_SECONDS = 0.01
changes = {"num_train_epochs": 1, "push_to_hub": True} | CHANGES
warnings.filterwarnings("always", category=UserWarning)
trainer = Trainer(small_model(), TrainingArguments(**run_fields(Path(WHERE), changes)),
                  train_dataset=small_dataset(16), eval_dataset=small_dataset(8))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_server() as server:
        yield server


def run(
    endpoint: str, place: Path, then: str = "trainer.train()", *, token: str | None = TOKEN, offline: bool = False,
    **changes: object,
) -> tuple[str, list[str]]:  # fmt: skip
    """A small run in a process of its own; its output and the lines of its errors."""
    script = RUN.replace("CHANGES", repr(changes)).replace("WHERE", repr(str(place))) + then
    done = run_with_hub(script, endpoint, place / "home", token=token, offline=offline)
    return done.stdout.strip(), done.stderr.strip().splitlines() or [""]


def test_push_creates_uploads_and_gives_the_address(hub: Hub, tmp_path: Path) -> None:
    address, errors = run(
        hub.endpoint,
        tmp_path,
        "trainer.train(); print(trainer.push_to_hub())",
        hub_model_id="tiny",
        hub_private_repo=True,
    )
    assert address == f"{hub.endpoint}/me/tiny/commit/{2:040x}", errors
    repository = hub.repositories["me/tiny"]
    assert repository.private
    assert repository.messages == ["kdistill: 2 steps"] * 2
    out = tmp_path / "out"
    files = repository.branches["main"]
    wanted = {"config.json", "model.safetensors", "README.md", "all_results.json", "training_args.json"}
    assert wanted <= set(files)
    assert not [path for path in files if path.startswith(("checkpoint-", "."))]
    for path, content in files.items():
        assert (out / path).read_bytes() == content
    assert TOKEN not in "".join(path.read_text(errors="ignore") for path in out.rglob("*") if path.is_file())


def test_push_is_tried_again_while_the_hub_fails(hub: Hub, tmp_path: Path) -> None:
    """Four failures, wherever they happen, are one less than it takes to give up."""
    places = {"repos/create": 2, "validate-yaml": 1, "commit/main": 1}
    for place, times in places.items():
        hub.fail(place, times)
    _, errors = run(hub.endpoint, tmp_path, hub_model_id="me/tiny")
    assert errors == [""]
    assert "model.safetensors" in hub.repositories["me/tiny"].branches["main"]
    assert sum(path.endswith("repos/create") for _, path in hub.requests) == 5
    assert sum(path.endswith("commit/main") for _, path in hub.requests) == 2


def test_hub_that_goes_on_failing(hub: Hub, tmp_path: Path) -> None:
    hub.fail("commit/main", 100)
    _, errors = run(hub.endpoint, tmp_path, hub_model_id="me/tiny")
    assert "UserWarning: upload: the hub failed 5 times (HTTP 503)" in errors[-1]
    assert "Nothing is lost: the finished model is in" in errors[-1]
    assert_whole(tmp_path / "out")


def assert_whole(out: Path) -> None:
    assert json.loads((out / "trainer_state.json").read_text())["global_step"] == 2
    assert json.loads((out / "all_results.json").read_text())["eval_n"] == 8
    BertForSequenceClassification.from_pretrained(out)


def test_finished_run_is_uploaded_by_resuming_it(hub: Hub, tmp_path: Path) -> None:
    _, errors = run(NOWHERE, tmp_path, hub_model_id="me/tiny")
    assert "UserWarning: upload: the hub cannot be reached" in errors[-1]
    assert_whole(tmp_path / "out")
    saved = (tmp_path / "out" / "model.safetensors").read_bytes()
    _, errors = run(hub.endpoint, tmp_path, "trainer.train(resume_from_checkpoint=True)", hub_model_id="me/tiny")
    assert errors == [""]
    assert hub.repositories["me/tiny"].branches["main"]["model.safetensors"] == saved
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == saved


def test_offline_mode_is_said(hub: Hub, tmp_path: Path) -> None:
    _, errors = run(hub.endpoint, tmp_path, offline=True)
    assert "UserWarning: upload: the hub cannot be reached" in errors[-1]
    assert "HF_HUB_OFFLINE" in errors[-1]
    assert hub.requests == []
    assert_whole(tmp_path / "out")


def test_missing_token_is_said_before_the_work(hub: Hub, tmp_path: Path) -> None:
    _, errors = run(hub.endpoint, tmp_path, token=None)
    assert errors[-1].startswith("PermissionError: uploading needs a token of the hub: log in with `hf auth login`")
    assert not (tmp_path / "out").exists()
    _, errors = run(hub.endpoint, tmp_path, token=None, hub_token=TOKEN, hub_model_id="me/given")
    assert errors == [""]
    assert "model.safetensors" in hub.repositories["me/given"].branches["main"]


def test_name_that_no_repository_can_have_is_said_before_the_work(hub: Hub, tmp_path: Path) -> None:
    _, errors = run(hub.endpoint, tmp_path, hub_model_id="a/b/c")
    assert "Repo id must be" in errors[-1]
    assert not (tmp_path / "out").exists()


def test_command_tells_where_it_uploaded(hub: Hub, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_rows(tmp_path / "rows.tsv", 16)
    run_of = ["finetune", "--model", "model", "--train", "rows.tsv", "--output-dir", "out", "--num-train-epochs", "1"]
    script = (
        f"import sys; from kdistill.cli import main as cli; sys.exit(cli.main({[*run_of, '--push-to-hub', '--json']}))"
    )
    done = run_with_hub(script, hub.endpoint, tmp_path / "home", token=TOKEN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["commit_url"] == f"{hub.endpoint}/me/out/commit/{1:040x}"
    assert TOKEN not in done.stdout + done.stderr


def test_token_that_may_not_write(hub: Hub, tmp_path: Path) -> None:
    _, errors = run(hub.endpoint, tmp_path, token="hf_wrong", hub_model_id="me/tiny")
    assert "UserWarning: upload: the hub does not let this token write to 'me/tiny' (HTTP 401)" in errors[-1]
    assert "Nothing is lost" in errors[-1]
    assert sum(path == "/api/repos/create" for _, path in hub.requests) == 1
    assert_whole(tmp_path / "out")


MODEL = {"config.json", "model.safetensors"}


def test_hub_strategies(hub: Hub, tmp_path: Path) -> None:
    """Three checkpoints; the last one's model comes with the finished run."""
    then = """
for strategy in ("end", "every_save", "checkpoint", "all_checkpoints"):
    trainer.args.hub_strategy, trainer.args.hub_model_id = strategy, f"me/{strategy}"
    trainer.args.overwrite_output_dir = True
    trainer.train()
"""
    _, errors = run(hub.endpoint, tmp_path, then, num_train_epochs=3)
    assert errors == [""]
    numbered = {"checkpoint-2", "checkpoint-4"}
    expected = {"end": set(), "every_save": set(), "checkpoint": {"last-checkpoint"}, "all_checkpoints": numbered}
    assert set(hub.repositories) == {f"me/{strategy}" for strategy in expected}
    for strategy, folders in expected.items():
        repository = hub.repositories[f"me/{strategy}"]
        files = repository.branches["main"]
        assert {path.split("/")[0] for path in files if "/" in path} == folders | {"runs"}
        for folder in folders:
            whole = {f"{folder}/{name}" for name in (*MODEL, "optimizer.safetensors", "trainer_state.json")}
            assert whole <= set(files)
        steps = {"end": [6], "every_save": [2, 4, 6]}.get(strategy, [2, 2, 4, 4, 6])
        assert repository.messages == [f"kdistill: {step} steps" for step in steps]
    states = {
        strategy: json.loads(hub.repositories[f"me/{strategy}"].branches["main"][f"{folder}/trainer_state.json"])
        for strategy, folder in (("checkpoint", "last-checkpoint"), ("all_checkpoints", "checkpoint-2"))
    }
    assert {strategy: state["global_step"] for strategy, state in states.items()} == {
        "checkpoint": 4,
        "all_checkpoints": 2,
    }


def test_hub_that_fails_in_training_is_a_warning(hub: Hub, tmp_path: Path) -> None:
    hub.fail("repos/create", 5)
    _, errors = run(hub.endpoint, tmp_path, num_train_epochs=2, hub_strategy="every_save", hub_model_id="me/tiny")
    assert sum("checkpoint-2 was not uploaded: the hub failed 5 times" in line for line in errors) == 1
    assert hub.repositories["me/tiny"].messages == ["kdistill: 4 steps"]


def test_branch(hub: Hub, tmp_path: Path) -> None:
    """Made by the first upload, there for the second."""
    _, errors = run(
        hub.endpoint, tmp_path, "trainer.train(); trainer.push_to_hub()", hub_revision="trial", hub_model_id="me/tiny"
    )
    assert errors == [""]
    branches = hub.repositories["me/tiny"].branches
    assert branches["main"] == {}
    assert set(branches["trial"]) >= MODEL


def test_card_that_the_hub_does_not_take(hub: Hub, tmp_path: Path) -> None:
    then = """
trainer.args.push_to_hub = False
trainer.train()
Path(trainer.args.output_dir, "README.md").write_text("---\\nmodel-index: 3\\n---\\n")
trainer.push_to_hub()
"""
    _, errors = run(hub.endpoint, tmp_path, then, hub_model_id="me/tiny")
    assert any(line.startswith("ValueError: Invalid metadata in README.md") for line in errors)


FETCH = """
import numpy as np
from kdistill import AutoTokenizer, BertForSequenceClassification
model = BertForSequenceClassification.from_pretrained("org/name")
tokenizer = AutoTokenizer.from_pretrained("org/name")
np.save(WHERE, model.forward(tokenizer(["a good film", "bad plot"])))
"""


@pytest.mark.parametrize("legacy", [True, False])
def test_from_pretrained_downloads_into_the_hubs_cache(hub: Hub, tmp_path: Path, legacy: bool) -> None:
    """A checkpoint as old ones are: pytorch_model.bin. The second time the cache has all of it."""
    local = write_model(tmp_path / "local", seed=4)
    arrays = {name: np.array(value) for name, value in small_model(4).state_dict().items()}
    write_arrays(tmp_path / "pytorch_model.bin", arrays, legacy=legacy)
    files = {name: (local / name).read_bytes() for name in ("config.json", "vocab.txt")}
    files["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
    with pytest.raises(AssertionError):  # the stub serves what was put there, and nothing was yet
        fetch(hub.endpoint, tmp_path)
    create = hub.create(b'{"name": "name", "organization": "org"}')
    assert create[0] == 200
    hub.repositories["org/name"].branches["main"].update(files)
    logits = fetch(hub.endpoint, tmp_path)
    np.testing.assert_array_equal(logits, expected(local))
    cache = tmp_path / "home" / "hub" / "models--org--name"
    assert {path.name for path in (cache / "snapshots" / ("0" * 40)).iterdir()} == set(files)
    np.testing.assert_array_equal(fetch(NOWHERE, tmp_path), logits)


def fetch(endpoint: str, place: Path) -> np.ndarray:
    script = FETCH.replace("WHERE", repr(str(place / "logits.npy")))
    done = run_with_hub(script, endpoint, place / "home")
    assert done.returncode == 0, done.stderr
    return np.load(place / "logits.npy")


def expected(directory: Path) -> np.ndarray:
    from kdistill.text.classes import AutoTokenizer

    model = BertForSequenceClassification.from_pretrained(directory)
    np.testing.assert_array_equal(weights(model), weights(small_model(4)))
    return model.forward(AutoTokenizer.from_pretrained(directory)(["a good film", "bad plot"]))


def test_uploaded_model_comes_back(hub: Hub, tmp_path: Path) -> None:
    _, errors = run(hub.endpoint, tmp_path, hub_model_id="me/tiny")
    assert errors == [""]
    script = f"""
import numpy as np
from kdistill import BertForSequenceClassification
np.save({str(tmp_path / "flat.npy")!r}, BertForSequenceClassification.from_pretrained("me/tiny").flat_parameters)
"""
    done = run_with_hub(script, hub.endpoint, tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(
        np.load(tmp_path / "flat.npy"), weights(BertForSequenceClassification.from_pretrained(tmp_path / "out"))
    )
