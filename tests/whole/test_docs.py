"""Every block of the README and of docs/ runs as printed, with small models and rows in the place of real ones.

A page's blocks run in their order, in a directory of the page's own. A block with a title is that file; `python` is
executed, one namespace a page, and prints what a block of `text` right behind it says; of `sh` the commands of
kdistill and the scripts of examples/ are run. What a command or block names as its output
directory does not exist before, so that two ways to do the same may follow each other.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import lzma
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.paths import ROOT
from support.small_run import small_config, write_model, write_pretrained, write_rows

import kdistill as kd
from kdistill.cli import main as cli

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = ("python", "sh", "toml", "csv", "json", "text")
FINE_TUNED = ("textattack/bert-base-uncased-SST-2", "teacher", "student")
PRETRAINED = ("google/bert_uncased_L-2_H-128_A-2", "bert-base-uncased", "all-MiniLM-L6-v2")
WIDEST = 88
"""Columns of a block that fit the site's page in a window of 1,000 pixels."""
WORDS = ["a", "the", "with", "without", "in", "and", "not", "very", ","]


class Block(NamedTuple):
    language: str
    title: str | None
    content: str


def blocks(page: Path) -> list[Block]:
    pattern = r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$'
    found = re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL)
    assert page.read_text().count("\n```") == 2 * len(found), f"{page}: a block is not understood"
    return [Block(language, title or None, content) for language, title, content in found]


def commands(content: str, program: str) -> list[list[str]]:
    """The commands of a program in a block of sh, without those that only show how a command is written."""
    lines = content.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.partition(" | ")[0], comments=True) for line in lines if line.startswith(f"{program} ")]
    return [line for line in words if line[1] != "COMMAND"]


SERVICE = "sagemaker."
"""Jobs of this package cost money; tests/sagemaker_sdk runs the page's classes as far as that."""


def missing_packages(code: str) -> set[str]:
    """Return the packages that a block needs and that are not installed here, or whose service is not to be had."""
    nodes = list(ast.walk(ast.parse(code)))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {"torch"} if "transformers" in modules else set()
    modules |= {"onnx", "gguf"} if "kd.export(" in code else set()
    # A folder of tests may have the name of a package; it has no origin.
    specs = {name: importlib.util.find_spec(name.partition(".")[0]) for name in modules}
    return {name for name, spec in specs.items() if spec is None or spec.origin is None or name.startswith(SERVICE)}


def names(code: str, context: type[ast.expr_context]) -> set[str]:
    """The variables that a block reads (`ast.Load`) or sets (`ast.Store`)."""
    return {
        node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }


def glue(*_: object, **__: object) -> Any:
    """Return the splits of `load_dataset("glue", "sst2")`, with other rows: the tests have no network."""
    import datasets
    from support.small_run import sentences

    texts, labels = zip(*sentences(8), strict=True)
    features = {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    columns = {"sentence": list(texts), "label": list(labels)}
    split = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return datasets.DatasetDict({"train": split, "validation": split})


@pytest.fixture
def a_place_to_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the models and rows that the pages take for granted, and a hub that takes every upload."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("support.small_run.VOCABULARY", [*small_vocabulary(), *WORDS])
    size = small_config().vocab_size + len(WORDS)
    # As wide as the students of the pages, which are made from it.
    shape = {"vocab_size": size, "hidden_size": 128, "intermediate_size": 512, "max_position_embeddings": 32}
    for seed, name in enumerate((*FINE_TUNED, *PRETRAINED)):
        write = write_model if name in FINE_TUNED else write_pretrained
        write(tmp_path / name, seed, **shape)
    for name in ("train.tsv", "dev.tsv"):
        write_rows(tmp_path / name, 24)
    write_rows(tmp_path / "held-out.tsv", 12, seed=2)
    Path("test.tsv").write_text("sentence\na good film\n")
    for name in ("train.csv", "dev.csv"):
        Path(name).write_text("text,stars\na film,1\n")
    Path("all.csv").write_text("text,label\n" + "a film,1\n" * 20)
    write_examples(tmp_path / "examples")
    monkeypatch.setattr("kdistill.train.publishing.upload", lambda *_, **__: "https://hub.example/commit")
    monkeypatch.setattr("kdistill.train.publishing.check_upload", lambda *_: None)
    monkeypatch.setattr("kdistill.data.splits._from_hub", glue)
    if importlib.util.find_spec("datasets") is not None:
        monkeypatch.setattr("datasets.load_dataset", glue)
    return tmp_path


def write_examples(directory: Path) -> None:
    """Write examples/ with the first of its rows. Its script leaves a model alone that was fetched before."""
    (directory / "SST-2").mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "pretrained.py", directory)
    for name in ("train.tsv.xz", "dev.tsv.xz"):
        lines = lzma.decompress((ROOT / "examples" / "SST-2" / name).read_bytes()).splitlines(keepends=True)
        (directory / "SST-2" / name).write_bytes(lzma.compress(b"".join(lines[:41])))


def small_vocabulary() -> list[str]:
    from support.small_run import VOCABULARY

    return list(VOCABULARY)


def without_output_of(text: str) -> None:
    """Remove what a block is going to write: `--output-dir x`, `output_dir="x"`, `TrainingArguments("x", ...)`."""
    for name in re.findall(r'(?:--output-dir |output_dir="|TrainingArguments\(\s*")([\w-]+)', text):
        if "--resume" not in text:
            shutil.rmtree(name, ignore_errors=True)


def run_python(block: Block, page: Path, scope: dict[str, Any]) -> None:
    without_output_of(block.content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # models of a few random weights are as bad as they say
        exec(compile(block.content, str(page), "exec"), scope)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, a_place_to_work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {"__name__": "page"}
    skipped: set[str] = set()
    lost: set[str] = set()
    printed: str | None = None
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}: nobody knows how to test {block.language!r}"
        if block.title is not None:
            (a_place_to_work / block.title).write_text(block.content)
        elif block.language == "python":
            missing = missing_packages(block.content)
            if not missing and not lost.isdisjoint(names(block.content, ast.Load)):
                missing = skipped  # it goes on with what a block that cannot run here would have made
            lost |= names(block.content, ast.Store) if missing else set()
            skipped |= missing
            if not missing:
                capsys.readouterr()
                run_python(block, page, scope)
                printed = capsys.readouterr().out
                continue
        elif block.language == "text" and printed is not None:
            assert printed == block.content
        elif block.language == "sh":
            for words in commands(block.content, "python"):
                subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
            for words in commands(block.content, "kdistill"):
                without_output_of(" ".join(words))
                lacking = {each for each in ("onnx", "gguf") if importlib.util.find_spec(each) is None}
                if words[1] == "export" and lacking:
                    skipped |= lacking
                    continue
                status = cli.main(words[1:])
                as_expected = (0, 1) if words[1] == "doctor" else (0,)  # models of random weights are a finding
                assert status in as_expected, f"{shlex.join(words)}: {capsys.readouterr().err}"
        printed = None
    if skipped and not scope.keys() - {"__name__"}:
        pytest.skip(f"needs {', '.join(sorted(skipped))}")


def test_there_are_blocks() -> None:
    count = {page.name: len(blocks(page)) for page in PAGES}
    assert count["index.md"] >= 5
    assert count["README.md"] == 3
    assert commands("kdistill a \\\n  b  # c\nmake\nkdistill COMMAND x\n", "kdistill") == [["kdistill", "a", "b"]]


def test_readme_opens_with_the_two_commands() -> None:
    first, *_ = blocks(ROOT / "README.md")
    assert commands(first.content, "make") == [["make", "demo"], ["make", "test"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_code_fit_the_page(page: Path) -> None:
    code = (block.content for block in blocks(page) if block.language in ("sh", "python"))
    assert [line for content in code for line in content.splitlines() if len(line) > WIDEST] == []


def test_the_quick_start_needs_no_hub() -> None:
    """The commands of the quick start and of the README name files of the checkout and what earlier ones wrote."""
    written = {"all-MiniLM-L6-v2", "L2-H128-A2"}
    for page in (ROOT / "docs/index.md", ROOT / "README.md"):
        given = [words for block in blocks(page) for words in commands(block.content, "kdistill") if len(words) > 2]
        written |= {block.title for block in blocks(page) if block.title is not None}
        for words in given:
            options = dict(zip(words[2::2], words[3::2], strict=True))
            written.add(options.pop("--output-dir", ""))
            for option in ("--model", "--teacher", "--student", "--train", "--eval", "--data"):
                name = options.get(option, "L2-H128-A2")
                assert name in written or (ROOT / name).is_file(), f"{page.name}: {shlex.join(words)} needs {name}"


def test_targets_of_make_exist() -> None:
    targets = re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"):
        named = (words[1] for block in blocks(page) for words in commands(block.content, "make"))
        assert set(named) <= set(targets), page


def test_the_reference_has_every_public_name() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs/reference").glob("*.md"))
    shown = {name.rsplit(".", 1)[1] for name in re.findall(r"^::: (kdistill\.[\w.]+)$", pages, re.MULTILINE)}
    assert {name for name in kd.__all__ if not name.startswith("__")} <= shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_of_kdistill_on_a_page_exists(page: Path) -> None:
    """Such as `kd.Trainer.train` or `kdistill.models.config`: a module, or what is found in it."""
    for dotted in set(
        re.findall(r"(?<![\w./-])(?:kdistill|kd)((?:\.[A-Za-z_]\w*)+)(?![\w/-])", page.read_text("utf-8"))
    ):
        value: Any = kd
        for name in dotted.removeprefix(".").split("."):
            if not hasattr(value, name) and hasattr(value, "__path__"):
                importlib.import_module(f"{value.__name__}.{name}")
            assert hasattr(value, name), f"{page.name}: kdistill{dotted} does not exist"
            value = getattr(value, name)


def test_links_inside_the_project_lead_somewhere() -> None:
    pages = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "examples/README.md")]
    for page in [*pages, *PAGES]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
