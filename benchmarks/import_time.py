"""The cost of `import kdistill` beyond `import numpy`: wall time of fresh interpreters, in alternation.

`import kdistill` loads its exports on first use, so another row imports the models, and NumPy with them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from . import common

NUMPY, KDISTILL = "import numpy", "import kdistill"
STATEMENTS = (NUMPY, KDISTILL, "from kdistill import AutoTokenizer, BertForSequenceClassification")


def measure(options: argparse.Namespace) -> None:
    """Run all in alternation and report."""
    runs = {
        statement: lambda statement=statement: subprocess.run([sys.executable, "-c", statement], check=True)
        for statement in STATEMENTS
    }
    common.alternate(runs, 2)  # fills the file cache and __pycache__
    times = common.alternate(runs, options.rounds)
    seconds = common.medians(times)
    pairs = {name: [b - a for a, b in zip(times[NUMPY], times[name], strict=True)] for name in STATEMENTS}
    more = common.medians(pairs)
    lines = [(f"`{name}`", seconds[name], more[name]) for name in STATEMENTS]
    text = common.table(["fresh interpreter", "seconds, median", "more than `import numpy`, median of pairs"], lines)
    common.report("Import time", text, {"seconds": times, "median_seconds": seconds, "more_than_numpy": more}, options)


def main() -> None:
    """Read the options."""
    measure(common.parser(__doc__, rounds=31).parse_args())


if __name__ == "__main__":
    main()
