"""Shared by the whole suite: where large test data lies, a separate cache, and a summary of what could not run."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The directory of models and rows too large for the repository: $KDISTILL_SHARED, or `shared` beside the checkout.

    Tests that ask for it are skipped where it does not exist.
    """
    directory = Path(os.environ.get("KDISTILL_SHARED", ROOT.parent / "shared"))
    if not (directory / "models").is_dir():
        pytest.skip(f"needs the shared models and rows: no {directory} (set KDISTILL_SHARED)")
    return directory


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep teacher logits of tests out of the user's cache."""
    os.environ["KDISTILL_CACHE"] = str(tmp_path_factory.mktemp("kdistill-cache"))


@pytest.fixture(scope="session")
def resumable_result(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> dict[str, Any]:
    """The result of `resumable_run` when nothing disturbs it."""
    from support.resumable_run import result, trainer

    output_dir = tmp_path_factory.mktemp("undisturbed")
    trainer(output_dir).train()
    return result(output_dir)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small model that `artefact` is made of."""
    from support.small_run import write_model

    return write_model(tmp_path_factory.mktemp("original") / "model")


@pytest.fixture(scope="session")
def artefact(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an int8 artefact, by `kd.quantize` and `labelled_rows(24)`. Tests change copies of it."""
    from support.small_run import labelled_rows

    import kdistill as kd

    directory = tmp_path_factory.mktemp("artefact") / "int8"
    kd.quantize(original, labelled_rows(24), directory)
    return directory


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests could not run on this machine, and why, in words a reader of a log finds."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("could not run here")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count} test{'s' * (count > 1)}: {reason}")
