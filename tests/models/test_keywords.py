"""The keywords of transformers in everything that loads: used, ignored with a warning, or refused with a sentence."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import small_model, write_model

import kdistill as kd
from kdistill.keywords import KEYWORDS

LOADERS: dict[str, Callable[..., Any]] = {
    "model": kd.BertForSequenceClassification.from_pretrained,
    "auto model": kd.AutoModelForSequenceClassification.from_pretrained,
    "config": kd.BertConfig.from_pretrained,
    "auto config": kd.AutoConfig.from_pretrained,
    "tokenizer": kd.BertTokenizer.from_pretrained,
    "auto tokenizer": kd.AutoTokenizer.from_pretrained,
    "pipeline": lambda path, **keywords: kd.pipeline(model=path, **keywords),
}
loaders = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("keywords") / "model")


@loaders
def test_what_asks_for_what_is_done_anyway_is_silent(directory: Path, load: Callable[..., Any]) -> None:
    load(
        directory, cache_dir=None, local_files_only=True, force_download=True, revision="main", token=None,
        dtype="auto", torch_dtype=np.float32, device_map="cpu", trust_remote_code=False, use_fast=True,
        attn_implementation=None, subfolder="", use_auth_token=False, resume_download=True, weights_only=True,
        low_cpu_mem_usage=True, from_tf=False, load_in_8bit=False, output_loading_info=False, variant=None,
    )  # fmt: skip


@loaders
def test_what_is_ignored_is_said_in_one_warning(directory: Path, load: Callable[..., Any]) -> None:
    ignored: dict[str, Any] = {name: "x" for name, keyword in KEYWORDS.items() if keyword.verdict == "ignored"}
    ignored["proxies"] = {"https": "https://me:5ecret@host"}
    with pytest.warns(UserWarning, match="is ignored") as said:
        load(directory, **ignored)
    (warning,) = said
    for name in ignored:
        assert f"{name} is ignored: {KEYWORDS[name].reason}" in str(warning.message)
    assert "5ecret" not in str(warning.message)


@loaders
@pytest.mark.parametrize("name", [name for name, keyword in KEYWORDS.items() if keyword.verdict == "refused"])
def test_what_cannot_be_done_is_refused(directory: Path, load: Callable[..., Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"does not take {name}: {KEYWORDS[name].reason}".replace("(", r"\(")):
        load(directory, **{name: {"of": "transformers"}})
    load(directory, **{name: None})


@loaders
@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_a_dtype_is_one_that_is_computed_in(directory: Path, load: Callable[..., Any], name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "bfloat16 is computed portably")
        for dtype in ("float32", "bfloat16", np.int8):
            load(directory, **{name: dtype})
    expected = f"{name} is {{}}, in which kdistill does not compute; expected float32, bfloat16 or int8"
    for dtype in ("float16", "torch.float64", np.float16, "fp8"):
        word = getattr(dtype, "__name__", str(dtype)).removeprefix("torch.")
        with pytest.raises(ValueError, match=expected.format(word)):
            load(directory, **{name: dtype})
    with pytest.raises(ValueError, match=expected.format("flaot32") + "; did you mean 'float32'"):
        load(directory, **{name: "flaot32"})
    with pytest.raises(TypeError, match=f"{name} is 8; expected float32, bfloat16 or int8"):
        load(directory, **{name: 8})


@loaders
@pytest.mark.parametrize(("wrong", "right"), [("cachedir", "cache_dir"), ("local_file_only", "local_files_only")])
def test_an_unknown_keyword_names_the_nearest(
    directory: Path, load: Callable[..., Any], wrong: str, right: str
) -> None:
    with pytest.raises(TypeError, match=f"has no argument {wrong!r}; did you mean {right!r}"):
        load(directory, **{wrong: True})


@loaders
def test_a_subfolder_holds_the_files(directory: Path, tmp_path: Path, load: Callable[..., Any]) -> None:
    shutil.copytree(directory, tmp_path / "models" / "small" / "bert")
    load(tmp_path / "models", subfolder="small/bert")
    for outside in ("../models", "/etc"):
        with pytest.raises(ValueError, match=r"subfolder is .*; expected a folder of the model"):
            load(tmp_path / "models", subfolder=outside)
    with pytest.raises(FileNotFoundError, match="has no subfolder 'none'"):
        load(tmp_path / "models", subfolder="none")


@loaders
def test_another_cache_and_no_download(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    repository = tmp_path / "cache" / "models--user--bert"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    shutil.copytree(directory, repository / "snapshots" / "abc")
    load("user/bert", cache_dir=tmp_path / "cache", local_files_only=True)
    with pytest.raises(FileNotFoundError, match="local_files_only is True, so nothing is downloaded"):
        load("user/bert", local_files_only=True)


@pytest.mark.parametrize("load", list(LOADERS.values())[:-1], ids=list(LOADERS)[:-1])
def test_something_else_than_a_path(load: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"the model is of type kdistill\.BertForSequenceClass.*; expected the path"):
        load(small_model())


def test_an_older_argument_of_pipeline_and_others_that_have_no_use(directory: Path) -> None:
    results = kd.pipeline(model=directory, return_all_scores=True)(["good film"])
    assert [len(result) for result in results] == [2]
    with pytest.warns(UserWarning, match="is ignored") as said:
        kd.pipeline(model=directory, framework="tf", num_workers=4, image_processor="x", model_kwargs={"seed": 3})
    (warning,) = said
    ignored = [one.split(" is ignored: ")[0] for one in str(warning.message).split("; ")]
    assert ignored == ["framework", "num_workers", "image_processor"]
    with pytest.raises(TypeError, match="pipeline has no argument 'topk'; did you mean 'top_k'"):
        kd.pipeline(model=directory, topk=3)
