"""Where files are looked for: directory, hub cache, hub. The network is never used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdistill.hub import resolve, shard_names

ROOT = Path(__file__).resolve().parent.parent
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


@pytest.mark.parametrize("offline", ["0", "1"])
def test_unknown_id_without_network_is_one_clear_error(tmp_path: Path, offline: str) -> None:
    """In a process of its own: huggingface_hub reads its settings once. Nothing listens on port 9."""
    pytest.importorskip("huggingface_hub")
    script = "from kdistill.hub import resolve; resolve('user/model', [['config.json']])"
    environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": offline}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("FileNotFoundError: there is no directory 'user/model', and the hub cannot be reached")


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
