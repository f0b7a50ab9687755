"""Measurements beside PyTorch, each a command of its own: `python -m benchmarks.teacher_pass --help`.

`python -m benchmarks` runs them all. They are never tests: figures depend on the machine, and every report names it.
"""
