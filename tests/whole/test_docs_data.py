"""The lists of docs/data.md are those of the code; `test_docs` runs its blocks."""

from __future__ import annotations

import inspect
import re

from support.paths import ROOT

import kdistill as kd
from kdistill.text.encodings import BatchEncoding


def test_the_tables_columns_are_those_of_the_code() -> None:
    from kdistill.data.columns import LABEL_COLUMNS, TEXT_COLUMNS, TEXT_PAIR_COLUMNS

    page = " ".join((ROOT / "docs/data.md").read_text().split())
    for first, second in TEXT_PAIR_COLUMNS:
        assert f"`{first}`/`{second}`" in page
    for name in (*TEXT_COLUMNS, *LABEL_COLUMNS):
        assert f"`{name}`" in page


def test_every_kind_of_file_is_on_the_page() -> None:
    from kdistill.data.files import KINDS

    page = (ROOT / "docs/data.md").read_text()
    for suffix in re.findall(r"\.\w+", KINDS):
        assert f"`{suffix}`" in page


def test_the_tokenizer_has_the_methods_of_the_page() -> None:
    page = (ROOT / "docs/data.md").read_text().split("## The tokenizer")[1].split("```")[2].split("##")[0]
    names = re.findall(r"`(\w+)(?:\(\))?`", page)
    assert "batch_decode" in names
    arguments = inspect.signature(kd.BertTokenizer.__call__).parameters
    for name in set(names) - {"transformers"}:
        assert hasattr(kd.BertTokenizer, name) or hasattr(BatchEncoding, name) or name in arguments, name


def test_the_page_of_tasks_names_every_metric() -> None:
    from kdistill.tasks.registry import TASKS

    rows = re.findall(r"^\| ([a-z -]+) \| (.*) \|$", (ROOT / "docs/tasks.md").read_text(), re.MULTILINE)
    page = {kind: tuple(re.sub(r" \(.*?\)", "", names).split(", ")) for kind, names in rows}
    assert page["single-label"] == tuple(TASKS["single_label_classification"].metrics)
    assert page["multi-label"] == tuple(TASKS["multi_label_classification"].metrics)
    assert page["regression"] == tuple(TASKS["regression"].metrics)
