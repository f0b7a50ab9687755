"""Where the checkout and its tests lie."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
INPUTS = TESTS / "inputs"
