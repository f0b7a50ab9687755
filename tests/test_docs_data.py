"""The Python of docs/data.md is run, with small models and rows in the place of real ones; its lists are the code's."""

from __future__ import annotations

import ast
import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import small_run
from conftest import ROOT

import kdistill as kd

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/data.md").read_text(), re.MULTILINE | re.DOTALL)


def imported(block: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Import)]
    return {alias.name for node in nodes for alias in node.names}


def glue_of(rows: list[tuple[str, int]]) -> Any:
    """What `load_dataset("glue", "sst2")` returns, with other rows: the tests have no network."""
    import datasets

    columns = {"sentence": [text for text, _ in rows], "label": [label for _, label in rows]}
    features = {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    split = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return datasets.DatasetDict({"train": split, "validation": split})


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "student"):
        small_run.write_model(Path(name))
    small_run.write_rows(Path("dev.tsv"), 8)
    for name in ("train.csv", "dev.csv"):
        Path(name).write_text("text,stars\na film,1\n")
    Path("all.csv").write_text("text,label\n" + "a film,1\n" * 20)
    scope: dict[str, Any] = {}
    ran = 0
    for block in BLOCKS:
        if not all(importlib.util.find_spec(name) for name in imported(block)):
            continue
        if "datasets" in imported(block):
            monkeypatch.setattr("kdistill.splits._from_hub", lambda path, name, **_: glue_of(small_run.sentences(8)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*initialised at random", UserWarning)
            exec(compile(block, "docs/data.md", "exec"), scope)
        ran += 1
    assert ran >= 4
    assert scope["model"].config.num_labels == 3
    printed = capsys.readouterr().out
    assert "['text', 'labels'] 1 {'text': 'a film', 'labels': '1'}" in printed
    assert "Table('all.csv', columns: text, label; 18 rows) Table('all.csv', columns: text, label; 2 rows)" in printed


def test_the_tables_columns_are_those_of_the_code() -> None:
    from kdistill.rows import LABEL_COLUMNS, TEXT_COLUMNS, TEXT_PAIR_COLUMNS

    page = " ".join((ROOT / "docs/data.md").read_text().split())
    for first, second in TEXT_PAIR_COLUMNS:
        assert f"`{first}`/`{second}`" in page
    for name in (*TEXT_COLUMNS, *LABEL_COLUMNS):
        assert f"`{name}`" in page


def test_every_kind_of_file_is_on_the_page() -> None:
    from kdistill.table_files import KINDS

    page = (ROOT / "docs/data.md").read_text()
    for suffix in re.findall(r"\.\w+", KINDS):
        assert f"`{suffix}`" in page


def test_the_tokenizer_has_the_methods_of_the_page() -> None:
    page = (ROOT / "docs/data.md").read_text().split("## The tokenizer")[1].split("```")[2].split("##")[0]
    names = re.findall(r"`(\w+)(?:\(\))?`", page)
    assert "batch_decode" in names
    for name in set(names) - {"transformers", "return_tensors"}:
        assert hasattr(kd.BertTokenizer, name), name
