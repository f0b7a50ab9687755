"""Where files are looked for: directory, hub cache, hub. The hub is one of our own, on this machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import call, create_autospec

import pytest
from support.hub_stub import NOWHERE, TOKEN, Repository, hub_server, run_with_hub
from support.small_run import small_dataset, small_model, write_model

import kdistill as kd
from kdistill.hub import resolve, shard_names, upload

WEIGHTS = [["config.json"], ["model.safetensors", "pytorch_model.bin"]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        (directory / name).touch()
    return directory


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no huggingface_hub to fall back on."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("huggingface_hub", "huggingface_hub.errors"):
        monkeypatch.setitem(sys.modules, name, None)
    return tmp_path / "hub"


def snapshot(hub_cache: Path, *names: str) -> Path:
    repository = hub_cache / "models--user--model"
    directory = repository / "snapshots" / "0123abc"
    directory.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    for name in names:
        (directory / name).touch()
    return directory


def test_directory_wins(model: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot(hub_cache, "config.json", "model.safetensors")
    monkeypatch.chdir(model.parent)
    (model.parent / "user").mkdir()
    model.rename(model.parent / "user" / "model")
    assert resolve("user/model", WEIGHTS) == Path("user/model")


def test_directory_without_a_needed_file(model: Path) -> None:
    (model / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors or pytorch_model\.bin"):
        resolve(model, WEIGHTS)


class InterruptAfterTenCheckpoints(kd.TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 10:
            raise InterruptedError


def test_directory_of_a_run_that_is_not_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = kd.TrainingArguments(
        str(out), max_steps=10, save_strategy="steps", save_steps=1, save_total_limit=0, disable_tqdm=True
    )
    trainer = kd.Trainer(small_model(), args, train_dataset=small_dataset(40), eval_dataset=small_dataset(8))
    trainer.add_callback(InterruptAfterTenCheckpoints())
    with pytest.raises(InterruptedError):
        trainer.train()
    expected = r"out has no config\.json; it holds a run that is not finished: repeat its command with --resume"
    with pytest.raises(FileNotFoundError, match=rf"{expected} \(.*\), or give {out}/checkpoint-10$"):
        kd.AutoModelForSequenceClassification.from_pretrained(str(out))
    kd.AutoModelForSequenceClassification.from_pretrained(str(out / "checkpoint-10"))
    for checkpoint in out.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(FileNotFoundError, match=r"\(in Python resume_from_checkpoint=True\)$"):
        kd.AutoConfig.from_pretrained(str(out))


def test_file_instead_of_a_directory(model: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"config\.json' is a file"):
        resolve(model / "config.json", WEIGHTS)


@pytest.mark.parametrize("name", ["no/such/directory", "../nowhere", "", "a b", "/nowhere/at/all"])
def test_what_can_only_be_a_directory(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no directory|has no config\.json"):
        resolve(name, WEIGHTS)


def test_cache_is_used_without_huggingface_hub(hub_cache: Path) -> None:
    directory = snapshot(hub_cache, "config.json", "pytorch_model.bin")
    assert resolve("user/model", WEIGHTS) == directory


@pytest.mark.parametrize("variable", ["HF_HOME", "XDG_CACHE_HOME"])
def test_cache_lies_where_the_environment_says(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    below = tmp_path / "huggingface" / "hub" if variable == "XDG_CACHE_HOME" else hub_cache
    directory = snapshot(below, "config.json", "model.safetensors")
    assert resolve("user/model", WEIGHTS) == directory


@pytest.mark.parametrize("cached", [(), ("config.json",)])
def test_incomplete_cache_asks_for_the_extra(hub_cache: Path, cached: tuple[str, ...]) -> None:
    if cached:
        snapshot(hub_cache, *cached)
    with pytest.raises(ImportError, match=r'pip install "kdistill\[hub\]"'):
        resolve("user/model", WEIGHTS)


def resolve_elsewhere(
    endpoint: str, cache: Path, *arguments: object, offline: bool = False, **keywords: object
) -> tuple[str, str]:
    """`resolve` in a process of its own; the last lines of its output."""
    pytest.importorskip("huggingface_hub")
    script = f"from kdistill.hub import resolve; print(resolve(*{arguments!r}, **{keywords!r}))"
    run = run_with_hub(script, endpoint, cache, offline=offline)
    return run.stdout.strip(), (run.stderr.strip().splitlines() or [""])[-1]


@pytest.mark.parametrize("offline", [False, True])
def test_unknown_id_without_network_is_one_clear_error(tmp_path: Path, offline: bool) -> None:
    """Nothing listens on port 9."""
    _, error = resolve_elsewhere(NOWHERE, tmp_path, "user/model", WEIGHTS, offline=offline)
    assert error.startswith("FileNotFoundError: there is no directory 'user/model', and the hub cannot be reached")


HUB_FILES = {
    "config.json": b"{}",
    "model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}',
    "model-1.safetensors": b"1",
    "model-2.safetensors": b"2",
    "pytorch_model.bin": b"bin",
    "vocab.txt": b"[PAD]",
    "README.md": b"read me",
}


@pytest.fixture
def hub() -> Iterator[str]:
    with hub_server() as server:
        server.repositories["user/model"] = Repository(branches={"main": HUB_FILES})
        yield server.endpoint


def test_hub_gives_the_first_choice_with_its_shards_and_what_is_optional(tmp_path: Path, hub: str) -> None:
    needed = [["config.json"], ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"]]
    directory, error = resolve_elsewhere(hub, tmp_path, "user/model", needed, ["vocab.txt", "tokenizer.json"])
    assert directory, error
    expected = {name: HUB_FILES[name] for name in HUB_FILES if name not in ("pytorch_model.bin", "README.md")}
    assert {path.name: path.read_bytes() for path in Path(directory).iterdir()} == expected
    again, error = resolve_elsewhere(NOWHERE, tmp_path, "user/model", needed)
    assert again == directory, error


def test_hub_model_without_a_needed_file(tmp_path: Path, hub: str) -> None:
    _, error = resolve_elsewhere(hub, tmp_path, "user/model", [["config.json"], ["tokenizer.json", "tokenizer.model"]])
    assert error.startswith("FileNotFoundError: the hub's 'user/model' has no tokenizer.json or tokenizer.model")


def test_model_that_the_hub_does_not_have(tmp_path: Path, hub: str) -> None:
    _, error = resolve_elsewhere(hub, tmp_path, "user/other", WEIGHTS)
    assert error.startswith("FileNotFoundError: there is no directory 'user/other', and the hub has no such model")


def test_revision_of_a_private_model(tmp_path: Path) -> None:
    config = [["config.json"]]
    branches = {"main": {"config.json": b"{}"}, "trial/2": {"config.json": b'{"trial": 2}'}}
    with hub_server() as server:
        server.repositories["user/model"] = Repository(private=True, branches=branches)
        _, error = resolve_elsewhere(server.endpoint, tmp_path, "user/model", config, revision="trial/2")
        assert error.endswith("the hub has no such model, or it is private (hf auth login, HF_TOKEN or token=)")
        arguments, keywords = (server.endpoint, tmp_path, "user/model", config), {"token": TOKEN}
        main, error = resolve_elsewhere(*arguments, **keywords)
        assert main, error
        trial, error = resolve_elsewhere(*arguments, **keywords, revision="trial/2")
        assert trial, error
        _, error = resolve_elsewhere(*arguments, **keywords, revision="trial/3")
        assert error.endswith("the hub's 'user/model' has no revision 'trial/3'; expected a branch, a tag or a commit")
    assert Path(main, "config.json").read_bytes() == b"{}"
    assert Path(trial, "config.json").read_bytes() == b'{"trial": 2}'
    # From here on without the hub: each revision by its name, and by its commit.
    for revision, directory in (("main", main), ("trial/2", trial), (Path(trial).name, trial)):
        assert resolve_elsewhere("http://127.0.0.1:9", *arguments[1:], revision=revision) == (directory, "")


def test_whatever_is_loaded_takes_token_and_revision(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    local = write_model(tmp_path / "local", seed=4)
    files = {path.name: path.read_bytes() for path in local.iterdir()}
    script = """
from kdistill import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline
where = {"token": TOKEN, "revision": "trial"}
print(AutoConfig.from_pretrained("user/model", **where).vocab_size)
print(AutoTokenizer.from_pretrained("user/model", **where).vocab_size)
print(AutoModelForSequenceClassification.from_pretrained("user/model", **where).config.vocab_size)
print(len(pipeline(model="user/model", **where)(["a good film"])))
"""
    with hub_server() as server:
        server.repositories["user/model"] = Repository(private=True, branches={"main": {}, "trial": files})
        run = run_with_hub(script.replace("TOKEN", repr(TOKEN)), server.endpoint, tmp_path / "home")
    size = str(len(files["vocab.txt"].split()))
    assert run.stdout.split() == [size, size, size, "1"], run.stderr


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../x"}}',
        '{"weight_map": {"a": ""}}',
    ],
)
def test_index_that_lists_no_files_beside_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json"):
        shard_names(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize("revision", [None, "trial"])
def test_upload_with_token_and_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    api = create_autospec(huggingface_hub.HfApi, instance=True)  # refuses arguments that the real one does not have
    api.create_repo.return_value.repo_id = "me/tiny"
    api.upload_folder.return_value.commit_url = "address"
    made = create_autospec(huggingface_hub.HfApi, return_value=api)
    monkeypatch.setattr(huggingface_hub, "HfApi", made)
    address = upload(
        tmp_path,
        "tiny",
        private=True,
        token="hf_x",
        revision=revision,
        path_in_repo="deep/er",
        message="8 steps",
        ignore=["*.tmp"],
    )
    assert address == "address"
    made.assert_called_once_with(token="hf_x")
    api.create_repo.assert_called_once_with("tiny", private=True, exist_ok=True)
    branches = [] if revision is None else [call("me/tiny", branch=revision, exist_ok=True)]
    assert api.create_branch.mock_calls == branches
    api.upload_folder.assert_called_once_with(
        repo_id="me/tiny",
        folder_path=tmp_path,
        path_in_repo="deep/er",
        revision=revision,
        commit_message="8 steps",
        ignore_patterns=["*.tmp"],
    )
