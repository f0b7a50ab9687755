"""Measurements of kdistill and other runtimes, each a command: `python -m benchmarks.teacher_pass --help`.

`python -m benchmarks` runs them all. None of them is a test, because figures depend on the machine, which every report
describes.
"""
