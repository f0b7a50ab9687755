"""The program `kdistill`, also as `python -m kdistill`: its command line, or why there is none."""

import sys


def main() -> int:
    """Run one command of the process's arguments, and return its exit status."""
    try:
        from .cli.main import main as run_words
    except ImportError as error:  # the core refuses KDISTILL_ISA while it is imported, before any command can
        sys.stderr.write(f"kdistill: error: {' '.join(str(error).split())}\n")
        return 2
    return run_words()


if __name__ == "__main__":
    sys.exit(main())
