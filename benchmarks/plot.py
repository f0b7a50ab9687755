"""The picture docs/speed.svg, drawn from build/benchmarks/*.json: speed-ups over other runtimes, shares of the peak."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

Of = Mapping[str, Mapping[str, Any]]  # figures by contestant

# Colours that the colour-blind can distinguish (Okabe and Ito, 2008).
COLOURS = {
    "PyTorch": "#0072B2",
    "ONNX Runtime": "#E69F00",
    "ONNX Runtime int8": "#F0C866",
    "OpenVINO": "#009E73",
    "PyTorch, the notebook's way": "#8FBFDD",
}
KDISTILL, PEER = "#D55E00", "#B0B0B0"
BAR, GAP = 0.8, 0.9  # height of a bar, space between two works


class Work(NamedTuple):
    """A piece of work that was measured: kdistill's figures, and the best of each other runtime."""

    title: str
    own: Mapping[str, Any]
    peers: dict[str, Mapping[str, Any]]


# Title, file and, for a file with several batch sizes, the batch size; in the order of the picture.
WORKS = (
    ("teacher pass,\nBERT-base's shape", "teacher_pass-base", ""),
    ("teacher pass,\n6 layers, hidden 384", "teacher_pass", ""),
    ("student epoch,\nbatch 128", "student_epoch", "128"),
    ("student epoch,\nbatch 16", "student_epoch", "16"),
    ("student inference,\nin batches", "inference", ""),
    ("student inference,\none sentence at a time", "latency", ""),
)


def works(directory: Path) -> Iterator[Work]:
    """Yield the pieces of work whose files exist."""
    for title, name, batch_size in WORKS:
        figures = _figures(directory / f"{name}.json")
        if figures is not None:
            yield _work(title, figures["of_batch_size"][batch_size]["of"] if batch_size else figures["of"])
    job = _figures(directory / "whole_job.json")
    if job is not None:
        in_float32 = {name: value for name, value in job["median_seconds"].items() if " teacher" not in name}
        seconds = {name: {"median_seconds": value} for name, value in in_float32.items()}
        yield _work("whole job, from\nTSV to saved model", seconds)


def _figures(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else None


def _work(title: str, of: Of) -> Work:
    """Return a piece of work with kdistill's first figures and those of each other runtime's fastest variant."""
    peers: dict[str, Mapping[str, Any]] = {}
    for name, figures in of.items():
        peer = name if name in COLOURS else name.partition(",")[0].removesuffix(" at its best")
        if peer in COLOURS:
            peers[peer] = min(figures, peers.get(peer, figures), key=lambda one: one["median_seconds"])
    own = next(figures for name, figures in of.items() if name.startswith("kdistill"))
    return Work(title, own, peers)


def draw_ratios(axes: Axes, places: list[tuple[Work, float]]) -> None:
    """Draw a bar from 1 to kdistill's speed-up, for each other runtime of each piece of work."""
    largest = 2.0
    for work, top in places:
        for index, (peer, figures) in enumerate(work.peers.items()):
            ratio = figures["median_seconds"] / work.own["median_seconds"]
            largest = max(largest, ratio)
            y = top + index
            axes.barh(y, ratio - 1, left=1, height=BAR, color=COLOURS[peer])
            axes.annotate(f"{ratio:.1f}", (max(ratio, 1), y), (4, 0), textcoords="offset points", va="center", size=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(0.8, largest * 1.35)
    axes.xaxis.set_major_locator(FixedLocator([1, 2, 4, 8, 16, 32, 64]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_title("kdistill is so many times faster than", loc="left", size=10)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    axes.legend(handles, COLOURS, loc="lower center", bbox_to_anchor=(0.6, 1.04), ncols=3, frameon=False, fontsize=8)


def draw_shares(axes: Axes, places: list[tuple[Work, float]]) -> None:
    """Draw the shares of the peak of kdistill and the best other float32 runtime, where they are known."""
    for work, top in places:
        middle = top + (len(work.peers) - 1) / 2
        shares = [figures.get("percent_of_peak") for peer, figures in work.peers.items() if "int8" not in peer]
        best = max((share for share in shares if share is not None), default=None)
        for share, y, colour in (
            (work.own.get("percent_of_peak"), middle - 0.45, KDISTILL),
            (best, middle + 0.45, PEER),
        ):
            if share is not None:
                axes.barh(y, share, height=BAR, color=colour)
                axes.annotate(f"{share:.0f}", (share, y), (4, 0), textcoords="offset points", va="center", size=8)
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_title("per cent of the machine's f32 peak", loc="left", size=10)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in (KDISTILL, PEER)]
    axes.legend(handles, ["kdistill", "best f32 peer"], loc="lower center", bbox_to_anchor=(0.5, 1.04), ncols=2,
                frameon=False, fontsize=8)  # fmt: skip


def draw(found: list[Work], note: str, target: Path) -> None:
    """Draw both panels side by side, with one group of bars for each piece of work."""
    places, y = [], 0.0
    for work in found:
        places.append((work, y))
        y += max(2, len(work.peers)) + GAP
    mpl.rcParams.update({"svg.hashsalt": "kdistill", "font.size": 9})
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(9.5, 1.4 + 0.24 * y), width_ratios=[3, 2])
    draw_ratios(left, places)
    draw_shares(right, places)
    left.set_yticks([top + (len(work.peers) - 1) / 2 for work, top in places], [work.title for work, _ in places])
    left.set_ylim(y - GAP, -1)
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.text(0.01, 0.005, note, size=7.5, color="#555555")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def main() -> int:
    """Read the options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument(
        "--figures", type=Path, default=Path("build", "benchmarks"), help="directory of the JSON files"
    )
    options.add_argument("--output", type=Path, default=Path("docs", "speed.svg"), help="picture to write")
    given = options.parse_args()
    found = list(works(given.figures))
    if not found:
        print(f"{given.figures} holds no figures; run python -m benchmarks first", file=sys.stderr)
        return 1
    drawn = (given.figures / f"{name}.json" for _, name, _ in WORKS)
    about = next(json.loads(path.read_text(encoding="utf-8")) for path in drawn if path.exists())
    where, threads = about["machine"], about["options"]["threads"]
    note = f"SST-2, float32, {where['cpu']} ({where['kdistill']['isa_level']}), {threads} threads; "
    note += f"PyTorch {where['torch']}, ONNX Runtime {where['onnxruntime']}, OpenVINO {where['openvino']}, "
    note += "each in its fastest setting"
    draw(found, note, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
