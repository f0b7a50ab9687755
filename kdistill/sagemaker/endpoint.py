"""The endpoint: `kdistill serve` on the model of a job, where SageMaker asks for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..cli.main import main
from .container import model_directory

PORT_VARIABLE, PORT = "SAGEMAKER_BIND_TO_PORT", "8080"
_PAYLOAD = 6  # megabytes of a request, SageMaker's default
_UNLIMITED = 1024  # megabytes where SageMaker is told 0, which is no limit
_PATIENCE = 3600  # seconds, the most that SageMaker waits for an answer of a batch transform


def serve(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Serve the model until SIGTERM; `words` are further options of `kdistill serve`."""
    port = environment.get(PORT_VARIABLE) or PORT
    given = ["--model", str(model_directory(environment)), "--host", "0.0.0.0", "--port", port]
    return main(["serve", *given, *_limits_of_batch_transform(environment), *words])


def _limits_of_batch_transform(environment: Mapping[str, str]) -> list[str]:
    """Return the options for a batch transform, which sends as many lines as its payload holds; none for an endpoint.

    The variables are those of https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-batch-code.html.
    """
    if environment.get("SAGEMAKER_BATCH", "").lower() != "true":
        return []
    payload = environment.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "")
    size = str(((int(payload) or _UNLIMITED) if payload.isdigit() else _PAYLOAD) * 2**20)
    return ["--max-request-bytes", size, "--max-texts", size, "--timeout", str(_PATIENCE)]
