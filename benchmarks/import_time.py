"""What `import kdistill` costs beyond `import numpy`: wall time of fresh interpreters, in turn."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from . import common

STATEMENTS = ("import numpy", "import kdistill")


def measure(options: argparse.Namespace) -> None:
    """Run both in turn and report."""
    runs = {
        statement: lambda statement=statement: subprocess.run([sys.executable, "-c", statement], check=True)
        for statement in STATEMENTS
    }
    common.alternate(runs, 2)  # fills the file cache and __pycache__
    times = common.alternate(runs, options.rounds)
    seconds = common.medians(times)
    more = statistics.median(b - a for a, b in zip(times[STATEMENTS[0]], times[STATEMENTS[1]], strict=True))
    lines = [(f"`{statement}`", seconds[statement]) for statement in STATEMENTS]
    text = common.table(["fresh interpreter", "seconds, median"], [*lines, ("difference, median of pairs", more)])
    common.report("Import time", text, {"seconds": times, "median_seconds": seconds, "difference": more}, options)


def main() -> None:
    """Read the options."""
    measure(common.parser(__doc__, rounds=31).parse_args())


if __name__ == "__main__":
    main()
