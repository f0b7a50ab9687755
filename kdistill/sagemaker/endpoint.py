"""The endpoint: `kdistill serve` on the model of a job, where SageMaker asks for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..cli.main import main
from .container import model_directory

PORT_VARIABLE, PORT = "SAGEMAKER_BIND_TO_PORT", "8080"


def serve(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Serve the model until SIGTERM; `words` are further options of `kdistill serve`."""
    port = environment.get(PORT_VARIABLE) or PORT
    return main(["serve", "--model", str(model_directory(environment)), "--host", "0.0.0.0", "--port", port, *words])
