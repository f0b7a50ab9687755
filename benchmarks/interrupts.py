"""Latency of signals: how long BERT-base takes to answer one, in every part of a step and of saving.

Signals are sent at many moments, spread evenly over the time of a part; the figure is the longest latency.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np

import kdistill as kd

from . import common


def parts(options: argparse.Namespace) -> Mapping[str, Callable[[], object]]:
    """Return the parts to interrupt, by name, for a batch of random rows of 5 to 40 tokens."""
    generator = np.random.default_rng(common.SEED)
    lengths = generator.integers(5, 41, options.batch)
    model = kd.BertForSequenceClassification(kd.BertConfig())
    batch = kd.pack([generator.integers(0, model.config.vocab_size, length).tolist() for length in lengths])
    dlogits = np.ones((options.batch, model.config.num_labels), np.float32)
    optimizer = kd.AdamW(model, lr=0.0)

    def train() -> None:
        model.forward(batch, train=True)
        model.backward(dlogits)

    def pack() -> None:
        model.release()
        model.forward([[0]])

    def save() -> None:
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)

    train()
    optimizer.step()
    return {
        "packing weights": pack,
        "evaluation": lambda: model.forward(batch),
        "forward and backward": train,
        "clipping": lambda: kd.clip_grad_norm_(model, 1.0),
        "AdamW's step": optimizer.step,
        "zeroing gradients": model.zero_grad,
        "the optimiser's state": optimizer.state_dict,
        "saving": save,
    }


def answers(part: Callable[[], object], moments: int) -> tuple[float, list[float]]:
    """Return the seconds that a part takes, and for each moment those from the signal to its handler."""
    answered: list[float] = []

    def handler(number: int, frame: object) -> None:
        answered.append(time.monotonic())
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, handler)
    started = time.monotonic()
    part()
    whole, waited = time.monotonic() - started, []
    for delay in whole * (np.arange(moments) + 0.5) / moments:
        answered.clear()
        due = time.monotonic() + delay
        try:
            signal.setitimer(signal.ITIMER_REAL, delay)
            part()
            signal.setitimer(signal.ITIMER_REAL, 0)  # the part ended before the signal
        except KeyboardInterrupt:
            waited.append(answered[0] - due)
    return whole, waited


def measure(options: argparse.Namespace) -> None:
    """Run all and report."""
    kd.set_num_threads(options.threads)
    rows, figures = [], {}
    for name, part in parts(options).items():
        whole, waited = answers(part, options.moments)
        latest = max(waited, default=0.0)
        rows.append((name, whole, latest, len(waited)))
        figures[name] = {"seconds": whole, "latest_answer_seconds": latest, "answers": len(waited)}
    text = common.table(["BERT-base", "s, whole", "s, latest answer", "answers"], rows)
    common.report("Signals", text, {"batch": options.batch, "of": figures}, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__)
    options.add_argument("--batch", type=int, default=128, help="rows")
    options.add_argument("--moments", type=int, default=40, help="signals a part")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
