"""The mutants of tools/mutants.py still fit the source they break."""

from __future__ import annotations

import sys
from collections import Counter

from support.paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from mutant_list import MUTANTS
from mutants import NEAREST


def test_the_text_that_a_mutant_replaces_occurs_once() -> None:
    text = {file: (ROOT / "csrc" / file).read_text() for file in {mutant.file for mutant in MUTANTS}}
    times = {str(mutant): text[mutant.file].count(mutant.found) for mutant in MUTANTS}
    assert {mutant: n for mutant, n in times.items() if n != 1} == {}


def test_a_mutant_changes_something_and_is_listed_once() -> None:
    assert [str(mutant) for mutant in MUTANTS if mutant.found == mutant.put] == []
    assert [str(mutant) for mutant, n in Counter(MUTANTS).items() if n > 1] == []


def test_the_tests_nearest_to_a_file_exist() -> None:
    files = {path.stem for path in (ROOT / "csrc").rglob("*")}
    assert NEAREST.keys() - files == set()
    assert [
        name for names in NEAREST.values() for name in names if not (ROOT / f"tests/core/test_{name}.py").exists()
    ] == []
