"""The teacher's pass over the training rows in float32, compared with PyTorch, ONNX Runtime and OpenVINO.

kdistill's pass is that of `kdistill distill`, and packing is part of its time; the batches of the other runtimes hold
rows of similar length and are padded beforehand. `--shape base` takes a BERT-base with random weights as teacher.
"""

from __future__ import annotations

import argparse

from kdistill.distill.cache import teacher_logits

from . import common, forward


def measure(options: argparse.Namespace) -> None:
    """Run all and report."""
    dataset, teacher = common.subjects(options)
    own = {"kdistill": lambda: teacher_logits(teacher, dataset, enabled=False)}
    forward.compare("Teacher pass", teacher, dataset, own, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=3)
    common.add_data(options)
    common.add_shape(options)
    forward.add_options(options)
    options.set_defaults(peers=["PyTorch", "ONNX Runtime", "OpenVINO"])
    measure(options.parse_args())


if __name__ == "__main__":
    main()
