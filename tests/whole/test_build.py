"""The message of a build from source when something is missing that pip cannot install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

pytest.importorskip("setuptools", minversion="77", reason="needs a setuptools that reads pyproject.toml")


def test_without_blis_one_message_names_the_packages(tmp_path: Path) -> None:
    options = ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "objects")]
    build = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *options],
        cwd=ROOT,
        env=os.environ | {"KDISTILL_BLIS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 1
    assert build.stderr.strip().splitlines() == [
        f"kdistill needs BLIS (its header and library), which was not found in {tmp_path}.",
        "  Debian, Ubuntu:  apt install libblis-pthread-dev",
        "  Fedora:          dnf install blis-devel",
        "  conda:           conda install -c conda-forge blis",
        "or point KDISTILL_BLIS at a prefix that has include/blis/blis.h and lib/libblis.a",
    ]
    assert not list(tmp_path.rglob("*.o"))
