"""`python -m kdistill.sagemaker train` (the default) and `serve`: what SageMaker starts in a container."""

import os
import signal
import sys


def _end(number: int, frame: object) -> None:
    """End at once: nothing has begun. As process 1 of a container this one would else not see the signal at all."""
    os._exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    from .entry import main

    sys.exit(main(sys.argv[1:]))
