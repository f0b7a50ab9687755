"""The embedded rows are what examples/README.md says they are."""

from __future__ import annotations

import csv
import hashlib
import io
import lzma
import re

import pytest
from support.paths import ROOT

EXAMPLES = ROOT / "examples"
STATED = re.findall(
    r"^\| `(SST-2/\S+)` \| (\d+) \| `([0-9a-f]{64})` \|$", (EXAMPLES / "README.md").read_text(), re.MULTILINE
)


def test_every_file_is_stated_and_every_stated_file_exists() -> None:
    assert {name for name, _, _ in STATED} == {
        str(path.relative_to(EXAMPLES)) for path in (EXAMPLES / "SST-2").iterdir()
    }


@pytest.mark.parametrize(("name", "rows", "sha256"), STATED, ids=[name for name, _, _ in STATED])
def test_file_has_the_stated_rows_and_bytes(name: str, rows: str, sha256: str) -> None:
    content = (EXAMPLES / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == sha256
    assert len(content) < 2**20, "the repository keeps no file over 1 MB"
    lines = io.StringIO(lzma.decompress(content).decode(), newline="\n")
    table = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert table[0] == ["sentence", "label"]
    assert len(table) - 1 == int(rows)
    assert {len(row) for row in table} == {2}
    assert {label for _, label in table[1:]} == {"0", "1"}


def sentences(part: str) -> set[str]:
    lines = lzma.decompress((EXAMPLES / f"SST-2/{part}.tsv.xz").read_bytes()).decode().split("\n")[1:-1]
    return {line.rpartition("\t")[0].strip() for line in lines}


def test_no_development_sentence_is_a_training_row() -> None:
    assert not sentences("train") & sentences("dev")
