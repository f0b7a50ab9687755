"""The words with which a container is started: train or serve."""

from __future__ import annotations

import os
from collections.abc import Sequence

USAGE = "python -m kdistill.sagemaker [train [--NAME VALUE ...] | serve]"


def main(words: Sequence[str]) -> int:
    """Train or serve, and return the exit status."""
    if words[:1] == ["serve"]:
        from .endpoint import serve

        return serve(words[1:])
    if words[:1] in (["--help"], ["-h"]):
        print(f"usage: {USAGE}\n\n{HELP}")
        return 0
    # Bars would fill the log with control characters.
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    from .job import Job

    return Job(words[1:] if words[:1] == ["train"] else words).run()


HELP = """\
What Amazon SageMaker starts in a container. Its places lie below $SAGEMAKER_BASE_DIR (default: /opt/ml).

train   distil the student of the job's hyperparameters and channels (the default)
serve   serve the model of a job

On a machine of your own: python -m kdistill.sagemaker.local --help
"""
